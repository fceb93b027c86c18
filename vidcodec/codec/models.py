"""From a model's name to something that codes pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vidcodec.adapt.coder import decode_update
from vidcodec.adapt.decisions import PLAIN, ROUNDING, Decisions
from vidcodec.adapt.update import Update
from vidcodec.codec.pictures import MspPictureCodec, PictureCodec
from vidcodec.errors import ModelError, ModelMismatchError, UnsupportedVersionError
from vidcodec.models import checkpoint, lossless_checkpoint
from vidcodec.models.msp import Msp
from vidcodec.video import VideoFormat

LEVEL_STEP = 256


def pick_device(name: str) -> torch.device:
    """'auto', 'cpu' or 'cuda'; raises ModelError when there is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device here; use --device cpu")
    return torch.device(name)


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A network with its shipped weights, on a device."""

    name: str
    network: nn.Module
    digest: bytes  # 16 bytes, as the header carries it
    device: torch.device
    folder: Path | None = None  # of weights that are not the shipped ones; importance scores may lie there

    @property
    def multiple(self) -> int:
        return MspPictureCodec.multiple if isinstance(self.network, Msp) else 64

    @property
    def adaptable(self) -> bool:
        return isinstance(self.network, Msp)

    @property
    def max_level(self) -> int:
        """The highest rate level, in 1/256 steps; 0 for models of one rate."""
        return (self.network.config.levels - 1) * LEVEL_STEP if isinstance(self.network, Msp) else 0

    def updated(self, payload: bytes) -> BaseModel:
        """With a model update from a stream applied (to a copy)."""
        if not payload:
            return self
        network = copy.deepcopy(self.network)
        update: Update = decode_update(payload, network, self.folder)
        update.apply(network)
        return self.with_network(network)

    def with_network(self, network: nn.Module) -> BaseModel:
        return replace(self, network=network)

    def picture_codec(
        self, level: int, video: VideoFormat, extra: bytes | None = None, decisions: Decisions = PLAIN
    ) -> PictureCodec:
        """A coder of pictures at a rate level (1/256 steps).

        extra: what the header carries for the model; decisions: of the encoder, or a decoder's quantiser. Raises
        UnsupportedVersionError for a quantiser that the model is not coded with.
        """
        if isinstance(self.network, Msp):
            return MspPictureCodec(self.network, level, decisions)
        if decisions.quantizer != ROUNDING:
            raise UnsupportedVersionError(
                f"the file codes '{self.name}' with quantiser {decisions.quantizer.code}, "
                "which this vidcodec does not know: update vidcodec"
            )
        from vidcodec.codec.compressai_pictures import CompressAIPictureCodec  # slow to import

        matrix = video.colour.resolved_matrix(video.height)
        return CompressAIPictureCodec(self.network, matrix, video.colour.full_range, extra or None)


def load_base(name: str, weights: Path | None, device: torch.device) -> BaseModel:
    """Load a model by name; raises ModelNotFoundError or ModelMismatchError."""
    if name.startswith("compressai:"):
        from vidcodec.models import compressai_models  # slow to import

        network = compressai_models.load_compressai(name, weights).to(device)
        return BaseModel(name, network, compressai_models.weights_digest(network), device)
    folder = weights and Path(weights).parent
    if name == lossless_checkpoint.NAME:
        lossless, digest = lossless_checkpoint.load_lossless(weights)
        return BaseModel(name, lossless.to(device), digest, device, folder)
    network, digest = checkpoint.load_model(name, weights)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return BaseModel(name, network, digest, device, folder)


def load_for_stream(name: str, digest: bytes, weights: Path | None, device: torch.device) -> BaseModel:
    """The model a stream names; raises ModelMismatchError when the weights at hand are others."""
    base = load_base(name, weights, device)
    if base.digest != digest:
        raise ModelMismatchError(
            f"the file was made with weights {digest.hex()} of '{name}', here are {base.digest.hex()}; "
            "give the right ones with --weights FILE, or use the version of vidcodec that made the file"
        )
    return base


def check_arithmetic(version: int, bank_digest: bytes, ours: int, our_bank: bytes) -> None:
    """Refuse a stream coded with other integer arithmetic or other tables than this version's."""
    if version != ours or bank_digest != our_bank:
        raise UnsupportedVersionError(
            f"the file needs arithmetic version {version} and tables {bank_digest.hex()}; this vidcodec has "
            f"{ours} and {our_bank.hex()}; use the version that made the file"
        )
