"""Bytes of samples under mixtures of logistics; the distributions are those of `vidcodec.entropy.logistics`.

The bytes are those of `vidcodec.entropy.rans`, here with intervals of 2^24.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vidcodec.entropy.logistics import PRECISION, TOTAL, code_samples, decode_plain, logistic_tables
from vidcodec.entropy.rans import check_end, opened, to_bytes

Array = np.ndarray


class Mixtures(NamedTuple):
    """What the distributions of a pass's samples (planes, N) follow from, as `code_samples` takes it.

    tables: units and reciprocals.
    """

    out: Array
    linear: Array
    centre: Array
    unit: Array
    levels: int
    tables: tuple[Array, Array]

    def code(self, values: Array, decoding: bool, words: Array, coder: Array, intervals: Array) -> None:
        """`code_samples` under these mixtures and this version's tables."""
        t, components = logistic_tables(), len(self.out) // (3 * len(values))
        shapes = (*self.tables, t.values, t.inverses, t.weights)
        code_samples(values, *self[:5], components, *shapes, decoding, words, coder, intervals)


class MixtureEncoder:
    """Collects intervals in decoding order; `finish()` gives the bytes."""

    def __init__(self) -> None:
        self._intervals: list[Array] = []

    def put_plain(self, values: Array, levels: int) -> None:
        """Append samples that are all equally likely."""
        size = TOTAL // levels
        self._intervals.append(np.stack([values.ravel() * size, np.full(values.size, size)], 1).astype(np.uint32))

    def code(self, values: Array, mixtures: Mixtures) -> Array:
        """Append samples (planes, N); returns them."""
        intervals = np.empty((values.size, 2), np.uint32)
        mixtures.code(values, False, np.empty(0, np.uint32), np.zeros(2, np.int64), intervals)
        self._intervals.append(intervals)
        return values

    @property
    def intervals(self) -> Array:
        """First and size of every interval so far: uint32 (n, 2)."""
        return np.concatenate([np.zeros((0, 2), np.uint32), *self._intervals])

    def finish(self) -> bytes:
        """The bytes of all samples."""
        return to_bytes(self.intervals, PRECISION)

    @property
    def bits(self) -> float:
        """Ideal code length so far."""
        return float(sum((PRECISION - np.log2(i[:, 1].astype(np.float64))).sum() for i in self._intervals))


class MixtureDecoder:
    """Reads what `MixtureEncoder` wrote, in the same order under the same mixtures.

    A damaged payload gives wrong samples, or CorruptBitstreamError where it ends too early; callers check a CRC
    before and a hash of the samples after.
    """

    def __init__(self, payload: bytes) -> None:
        """Raises CorruptBitstreamError for bytes that no encoder ends with."""
        self._words, self._coder = opened(payload)

    def get_plain(self, count: int, levels: int) -> Array:
        """The next samples, int32 (count,)."""
        values = np.zeros(count, np.int32)
        decode_plain(values, levels, self._words, self._coder)
        check_end(self._words, self._coder)
        return values

    def code(self, values: Array, mixtures: Mixtures) -> Array:
        """The next samples, shaped like `values`."""
        values = np.zeros(values.shape, np.int32)
        mixtures.code(values, True, self._words, self._coder, np.empty((0, 2), np.uint32))
        check_end(self._words, self._coder)
        return values
