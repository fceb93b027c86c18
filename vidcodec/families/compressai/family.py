"""CompressAI's hyperprior networks as the pipeline sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch

from vidcodec.families.compressai.network import LAMBDAS, Coded, load_compressai, parse_name, weights_digest
from vidcodec.families.compressai.objective import HyperpriorObjective
from vidcodec.families.compressai.pictures import CompressAIPictureCodec
from vidcodec.families.family import Family, FrameCoder
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.video import VideoFormat


@dataclass(frozen=True, eq=False)
class CompressAIFamily(Family):
    """`vidcodec.families.compressai.network`: one rate a checkpoint, plain rounding."""

    network: Coded

    multiple: ClassVar[int] = 64
    one_extra: ClassVar[bool] = False

    @classmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> Self:
        network = load_compressai(name, weights).to(device)
        return cls(name, network, weights_digest(network), device, weights and Path(weights).parent)

    def trade_off(self, level: RateLevel) -> TradeOff:
        """What CompressAI trained this quality with."""
        return TradeOff(LAMBDAS[parse_name(self.name)[1] - 1])

    def picture_coder(
        self, level: RateLevel, video: VideoFormat, *, extra: bytes = b"", decisions: Decisions = PLAIN
    ) -> FrameCoder:
        self.only_rounds(decisions.quantizer)
        matrix = video.colour.resolved_matrix(video.height)
        coder = CompressAIPictureCodec(self.network, matrix, video.colour.full_range, extra or None)
        return FrameCoder(coder, video, self.multiple)

    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> HyperpriorObjective:
        matrix = video.colour.resolved_matrix(video.height)
        return HyperpriorObjective(self.trade_off(level), matrix, video.colour.full_range)
