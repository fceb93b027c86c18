"""Weights of the lossless network on disk; see `vidcodec.checkpoint` for the format."""

from __future__ import annotations

from pathlib import Path

from vidcodec.checkpoint import Format, read_checkpoint, weights_digest, weights_file, write_checkpoint
from vidcodec.families.lossless.network import Lossless, LosslessConfig

NAME = "lossless"


def lossless_digest(model: Lossless) -> bytes:
    """16 bytes naming the weights and shape, the same on every machine."""
    return weights_digest(model.config.to_dict(), model.named_parameters())[:16]


LOSSLESS = Format(
    "vidcodec-lossless-1",
    "a checkpoint of the lossless mode",
    lambda c: Lossless(LosslessConfig.from_dict(c)),
    lossless_digest,
)


def save_lossless(model: Lossless, path: Path, *, note: str = "") -> bytes:
    """Snap to the 16-bit grid and write; returns the digest."""
    return write_checkpoint(LOSSLESS, model, model.config.to_dict(), path, note=note)


def load_lossless(weights: Path | None = None) -> tuple[Lossless, bytes]:
    """The shipped network, or that of a weights file, in eval mode, and its digest.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the file holds no such network.
    """
    missing = "no weights of the lossless mode are shipped here"
    return read_checkpoint(LOSSLESS, weights_file(weights, NAME, missing, ": give them with 'weights'"))
