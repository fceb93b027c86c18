"""Filtering the pictures of a coded video: which filter is in force, and for which frame types."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from vidcodec.errors import BitstreamError, ModelError
from vidcodec.postfilter.checkpoint import DIGEST_BYTES, load_filter
from vidcodec.postfilter.message import FilterMessage
from vidcodec.postfilter.network import Filter
from vidcodec.postfilter.planes import filtered
from vidcodec.postfilter.quantiser import frame_type
from vidcodec.updates.coder import decode_update

EVERYWHERE = 0b111_111_111  # planes of frame types, as in `FilterMessage.enabled`
PLANE_PARTS = (slice(0, 4), slice(4, 5), slice(5, 6))  # of Y, U, V in planes
DEFAULT_QP = 32.0


@dataclass(frozen=True)
class ActiveFilter:
    """A filter and what it works on, as a `FilterMessage` says. network None: nothing is filtered."""

    network: Filter | None = None
    enabled: int = EVERYWHERE
    qp: tuple[float, float, float] = (DEFAULT_QP, DEFAULT_QP, DEFAULT_QP)

    def apply(self, planes: np.ndarray, depth: int, type: int) -> np.ndarray:
        """Planes (6, h, w) of a picture of type 0, 1, 2 (I, P, B); the same array where nothing is done."""
        on = [bool(self.enabled >> (3 * type + plane) & 1) for plane in range(3)]
        if self.network is None or not any(on):
            return planes
        shown = filtered(self.network, planes, depth, self.qp[type])
        for part, used in zip(PLANE_PARTS, on, strict=True):
            if not used:
                shown[part] = planes[part]
        return shown


def updated(base: Filter, payload: bytes, folder: Path | None = None) -> Filter:
    """A copy of the base filter with a coded update; `folder`: where importance scores may lie.

    Raises CorruptBitstreamError, and ModelError without the importance scores that the update goes by.
    """
    if not payload:
        return base
    network = copy.deepcopy(base)
    decode_update(payload, network, folder).apply(network)
    return network


class FilterSelector:
    """Keeps track of the filter in force while messages come up.

    profile, weights: the base filter for videos without a message; weights stand in for the shipped ones
    of every profile. qp: what the base filter is told there. warn: called with what is wrong with a message.
    A message that cannot be used switches the filter off until the next one.
    """

    def __init__(self, profile: str, weights: Path | None, qp: float | None, warn: Callable[[str], None]) -> None:
        self._weights, self._warn = weights, warn
        self._bases: dict[str, tuple[Filter, bytes]] = {}
        told = qp if qp is not None else DEFAULT_QP
        self.active = ActiveFilter(self._base(profile)[0], qp=(told, told, told))
        self.messages = 0  # in force so far
        self.failed = 0

    def _base(self, profile: str) -> tuple[Filter, bytes]:
        if profile not in self._bases:
            self._bases[profile] = load_filter(profile, self._weights)
        return self._bases[profile]

    def take(self, found: list[bytes]) -> None:
        """Messages that come up with the next picture: the last one counts."""
        for data in found:
            try:
                message = FilterMessage.from_bytes(data)
                base, digest = self._base(message.profile)
                if message.digest != digest[:DIGEST_BYTES]:
                    raise ModelError(
                        f"made for base filter {message.digest.hex()}, here is {digest[:DIGEST_BYTES].hex()}: "
                        "give the right one with 'weights', or use the version of vidcodec that made the file"
                    )
                network = updated(base, message.update, self._weights and Path(self._weights).parent)
                self.active = ActiveFilter(network, message.enabled, message.qp)
                self.messages += 1
            except (BitstreamError, ModelError) as error:
                self.active = replace(self.active, network=None)
                self.failed += 1
                self._warn(f"a filter update cannot be used, the video comes out unfiltered there: {error}")


def picture_type(picture: av.VideoFrame) -> int:
    """0, 1, 2 for I, P, B."""
    return frame_type(int(picture.pict_type))
