"""Base filters on disk: 16-bit integers on binary grids, in safetensors, as the codec's networks are."""

from __future__ import annotations

from pathlib import Path

import torch

from vidcodec.checkpoint import Format, read_checkpoint, weights_digest, weights_file, write_checkpoint
from vidcodec.postfilter.network import PROFILES, Filter, FilterConfig

DIGEST_BYTES = 4  # in a stream: enough to tell the filters of this world apart, and it travels with every video


def filter_digest(network: Filter) -> bytes:
    """32 bytes naming a filter's weights and shape, the same on every machine."""
    return weights_digest(network.config.to_dict(), network.named_parameters())


FILTER = Format("vidcodec-filter-1", "a filter's checkpoint", lambda c: Filter(FilterConfig(**c)), filter_digest)


def save_filter(network: Filter, path: Path, *, note: str = "") -> bytes:
    """Round every parameter to its 16-bit grid, in place, and write; returns the digest."""
    return write_checkpoint(FILTER, network, network.config.to_dict(), path, note=note)


def load_filter(profile: str = "base", weights: Path | None = None) -> tuple[Filter, bytes]:
    """A base filter in eval mode and its digest, by profile or from a file.

    Raises ModelNotFoundError when there are no such weights, ModelMismatchError when the
    file is not a filter's checkpoint.
    """
    hint = f"; profiles: {', '.join(PROFILES)}; another filter goes with 'weights'"
    path = weights_file(weights, f"filter-{profile}", f"no filter of profile '{profile}'", hint)
    network, digest = read_checkpoint(FILTER, path)
    return network.to(memory_format=torch.channels_last), digest  # type: ignore[call-overload]
