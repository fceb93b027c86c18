"""Base weights of `pocket` on disk; see `vidcodec.checkpoint` for the format."""

from __future__ import annotations

from pathlib import Path

from vidcodec.checkpoint import Format, read_checkpoint, sent_parameters, weights_digest, weights_file, write_checkpoint
from vidcodec.families.pocket.network import Pocket, PocketConfig

NAME = "pocket"


def pocket_digest(network: Pocket) -> bytes:
    """16 bytes naming the weights and shape, the same on every machine."""
    return weights_digest(network.config.to_dict(), sent_parameters(network))[:16]


POCKET = Format(
    "vidcodec-pocket-1",
    "a checkpoint of the pocket network",
    lambda c: Pocket(PocketConfig.from_dict(c)),
    pocket_digest,
)


def save_pocket(network: Pocket, path: Path, *, note: str = "") -> bytes:
    """Snap to the 16-bit grid and write; returns the digest."""
    return write_checkpoint(POCKET, network, network.config.to_dict(), path, note=note)


def load_pocket(weights: Path | None = None) -> tuple[Pocket, bytes]:
    """The shipped network, or that of a weights file, and its digest.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the file holds no such network.
    """
    missing = "no weights of the pocket network are shipped here"
    return read_checkpoint(POCKET, weights_file(weights, NAME, missing, ": give them with 'weights'"))
