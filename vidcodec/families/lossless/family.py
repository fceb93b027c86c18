"""The lossless codec as the pipeline sees it: every sample as it was, 4:2:0 of 8 or 10 bits, or RGB."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from vidcodec.bitstream import Header
from vidcodec.entropy.bank import bank
from vidcodec.entropy.logistics import logistic_tables
from vidcodec.errors import UnsupportedVersionError
from vidcodec.families.family import Family
from vidcodec.families.lossless.checkpoint import load_lossless
from vidcodec.families.lossless.crops import LosslessCrops
from vidcodec.families.lossless.network import Lossless, order_digest
from vidcodec.families.lossless.objective import LosslessObjective
from vidcodec.families.lossless.pictures import RGB, YUV, LosslessPictureCodec
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.rate import RateLevel
from vidcodec.video import Frame, VideoFormat


@dataclass(frozen=True, eq=False)
class LosslessFamily(Family):
    """`vidcodec.families.lossless.network`: one rate, nothing to quantise."""

    network: Lossless

    lossless: ClassVar[bool] = True
    # A fortieth of the lossy codec's weights, and no error to weigh against bits: much bolder steps than there are
    # still safe, and matrices move nearly from the beginning.
    pace: ClassVar[Mapping[str, Any]] = {
        "vector_lr": 0.5,
        "matrix_lr": 0.05,
        "damping": 0.8,
        "vector_share": 0.1,
        "latent_share": 0.0,
    }

    @classmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> Self:
        network, digest = load_lossless(weights)
        return cls(name, network.to(device), digest, device, weights and Path(weights).parent)

    @property
    def tables_digest(self) -> bytes:
        """Of the bank, the tables of logistics and the order of the passes."""
        return hashlib.sha256(bank().digest + logistic_tables().digest + order_digest()).digest()[:8]

    def format_of(self, header: Header) -> VideoFormat:
        if header.extra not in (YUV, RGB):
            raise UnsupportedVersionError("the file holds planes of a kind that this vidcodec does not know: update it")
        return replace(super().format_of(header), rgb=self.has_rgb(header))

    @classmethod
    def has_rgb(cls, header: Header) -> bool:
        return header.extra == RGB

    def picture_coder(
        self, level: RateLevel, video: VideoFormat, *, extra: bytes = b"", decisions: Decisions = PLAIN
    ) -> LosslessPictureCodec:
        self.only_rounds(decisions.quantizer)
        return LosslessPictureCodec(self.network, video)

    def crops(self, frames: Sequence[Frame], video: VideoFormat, **how: Any) -> LosslessCrops:
        return LosslessCrops(frames, video, self.network.config.scales, self.device, **how)

    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> LosslessObjective:
        return LosslessObjective()
