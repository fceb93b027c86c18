"""Coding samples under mixtures of logistics: compiled loops, and bytes around them.

Parameters come as the last layer of an integer network gives them, in 2^-20: for each sample 3K rows, logits, means
and log2 scales of the K logistics; the latter two in units around the centre of the sample's neighbours. Centres are
in quarters, unit j is 2^(j/8 - 2) code values. See `vidcodec.entropy.logistics` for what becomes of them.

The bytes are those of a 64-bit rANS with 32-bit words (Duda 2013, arXiv 1311.2540; the layout of Giesen's rans64),
here with intervals of 2^24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from vidcodec.entropy.compiling import compiled
from vidcodec.entropy.logistics import (
    ARGUMENT_LIMIT,
    FLOOR_MASS,
    INPUT_BITS,
    INPUT_LIMIT,
    INVERSE_BITS,
    LOGIT_BITS,
    LOGIT_LIMIT,
    MEAN_BITS,
    MIN_SCALE,
    MIN_UNIT,
    PRECISION,
    RECIPROCAL_BITS,
    SCALE_STEPS,
    SCALES,
    UNIT_BITS,
    VALUE_BITS,
    WEIGHT_BITS,
    logistic_tables,
)
from vidcodec.errors import CorruptBitstreamError

Array = np.ndarray

ACCUMULATOR_BITS = 20  # outputs of an integer network
SURPRISE_LIMIT = INPUT_LIMIT << INPUT_BITS
MEAN_LIMIT = 1 << 27  # 128 units

RANS_LOW = 1 << 31  # the coder's state stays in [2^31, 2^63)
WORD = 0xFFFFFFFF
SLOT = (1 << PRECISION) - 1
TOTAL = 1 << PRECISION

_SCALE_SHIFT = ACCUMULATOR_BITS - 3  # to eighths of an octave
_LOGIT_SHIFT = ACCUMULATOR_BITS - LOGIT_BITS
_MEAN_SHIFT = ACCUMULATOR_BITS + UNIT_BITS - MEAN_BITS
_FIRST_SCALE = (MIN_UNIT - MIN_SCALE) * SCALE_STEPS
_MASS_SHIFT = WEIGHT_BITS + VALUE_BITS


@njit(nogil=True, inline="always")
def _cumulative(
    v: Any, levels: Any, weight: Array, mean: Array, inverse: Array, logistic: Array
) -> Any:
    """C(v)."""
    if v <= 0:
        return np.int64(0)
    if v >= levels:
        return np.int64(TOTAL)
    floor = max(FLOOR_MASS // levels, 1)
    mass = np.int64(0)
    for k in range(weight.size):
        x = (v << MEAN_BITS) - (1 << (MEAN_BITS - 1)) - mean[k]
        u = (x * inverse[k]) >> INVERSE_BITS
        if u >= 0:
            mass += weight[k] * logistic[min(u, ARGUMENT_LIMIT)]
        else:
            mass += weight[k] * ((1 << VALUE_BITS) - logistic[min(-u, ARGUMENT_LIMIT)])
    return ((mass * (TOTAL - levels * floor)) >> _MASS_SHIFT) + v * floor


@njit(nogil=True, inline="always")
def _mixture(
    out: Array, first: Any, t: Any, move: Any, widen: Any, centre: Any, unit: Any, units: Array, inverses: Array,
    weights: Array, weight: Array, mean: Array, inverse: Array,
) -> None:  # fmt: skip
    """Parameters of sample t, from rows `first` .. of `out`; writes weight, mean, inverse (K,)."""
    count = weight.size
    top: Any = np.int64(out[first, t])
    for k in range(1, count):
        top = max(top, np.int64(out[first + k, t]))
    total = np.int64(0)
    for k in range(count):
        below: Any = (top - np.int64(out[first + k, t])) >> _LOGIT_SHIFT
        weight[k] = weights[min(below, LOGIT_LIMIT)]
        total += weight[k]
    rest = np.int64(1 << WEIGHT_BITS)
    for k in range(count - 1, 0, -1):
        weight[k] = (weight[k] << WEIGHT_BITS) // total
        rest -= weight[k]
    weight[0] = rest
    for k in range(count):
        m = np.int64(out[first + count + k, t]) + move
        m = min(max(m, -MEAN_LIMIT), MEAN_LIMIT)
        mean[k] = (centre << (MEAN_BITS - 2)) + ((units[unit] * m + (1 << (_MEAN_SHIFT - 1))) >> _MEAN_SHIFT)
        s = np.int64(out[first + 2 * count + k, t]) + widen
        i = unit + _FIRST_SCALE + ((s + (1 << (_SCALE_SHIFT - 1))) >> _SCALE_SHIFT)
        inverse[k] = inverses[min(max(i, 0), SCALES - 1)]


@compiled
def code_samples(
    values: Array, out: Array, linear: Array, centre: Array, unit: Array, levels: int, components: int,
    units: Array, reciprocals: Array, logistic: Array, inverses: Array, weights: Array,
    decoding: bool, words: Array, coder: Array, intervals: Array,
) -> None:  # fmt: skip
    """Samples of one pass, of one plane or of two, sample by sample: the second plane's follows the first one's.

    values: int32 (planes, N), read or (decoding) written. out: float64 (3K or 6K + 2, N); the last two rows are what
    the first plane's surprise, in units, adds to the means of the second one, and its size to its log scales.
    linear: float64 (planes, N), added to the means. centre, unit: int64 (planes, N). intervals: uint32
    (planes * N, 2), first and size of every interval, written where it encodes. words, coder: as in `rans_decode`;
    decoding stops early when the words end.
    """
    weight = np.empty(components, np.int64)
    mean, inverse = np.empty(components, np.int64), np.empty(components, np.int64)
    x, at = coder[0], coder[1]
    planes, n = values.shape
    for t in range(n):
        for p in range(planes):
            move, widen = np.int64(linear[p, t]), np.int64(0)
            if p == 1:
                far = 4 * np.int64(values[0, t]) - centre[0, t]
                far = (far * reciprocals[unit[0, t]] + (1 << (RECIPROCAL_BITS - 1))) >> RECIPROCAL_BITS
                far = min(max(far, -SURPRISE_LIMIT), SURPRISE_LIMIT)
                half = 1 << (INPUT_BITS - 1)
                move += (np.int64(out[6 * components, t]) * far + half) >> INPUT_BITS
                widen = (np.int64(out[6 * components + 1, t]) * abs(far) + half) >> INPUT_BITS
            _mixture(
                out, 3 * components * p, t, move, widen, centre[p, t], unit[p, t], units, inverses, weights,
                weight, mean, inverse,
            )  # fmt: skip
            if decoding:
                slot = x & SLOT
                low, high = np.int64(0), np.int64(levels)
                start, stop = np.int64(0), np.int64(TOTAL)
                while high - low > 1:
                    middle = (low + high) >> 1
                    c = _cumulative(middle, levels, weight, mean, inverse, logistic)
                    if c <= slot:
                        low, start = middle, c
                    else:
                        high, stop = middle, c
                values[p, t] = low
                x = (stop - start) * (x >> PRECISION) + slot - start
                if x < RANS_LOW:
                    x <<= 32
                    if at < words.size:
                        x |= np.int64(words[at])
                    at += 1
            else:
                v = np.int64(values[p, t])
                start = _cumulative(v, levels, weight, mean, inverse, logistic)
                intervals[planes * t + p, 0] = start
                intervals[planes * t + p, 1] = _cumulative(v + 1, levels, weight, mean, inverse, logistic) - start
        if at > words.size:
            break
    coder[0], coder[1] = x, at


@compiled
def rans_encode(intervals: Array, words: Array) -> int:
    """Codes intervals (n, 2), last to first, into the end of `words` (uint32, n + 2); returns where they begin."""
    x, at = np.int64(RANS_LOW), words.size
    for t in range(intervals.shape[0] - 1, -1, -1):
        start, size = np.int64(intervals[t, 0]), np.int64(intervals[t, 1])
        if x >= size << (63 - PRECISION):
            at -= 1
            words[at] = x & WORD
            x >>= 32
        x = (x // size << PRECISION) + x % size + start
    words[at - 2], words[at - 1] = x & WORD, x >> 32
    return at - 2


@compiled
def decode_plain(values: Array, levels: int, words: Array, coder: Array) -> None:
    """Samples that are all equally likely, into `values` int32."""
    size = np.int64(TOTAL // levels)
    x, at = coder[0], coder[1]
    for t in range(values.size):
        slot = x & SLOT
        v = min(slot // size, levels - 1)
        values[t] = v
        x = size * (x >> PRECISION) + slot - v * size
        if x < RANS_LOW:
            x <<= 32
            if at < words.size:
                x |= np.int64(words[at])
            at += 1
    coder[0], coder[1] = x, at


class MixtureEncoder:
    """Collects intervals in decoding order; `finish()` gives the bytes."""

    def __init__(self) -> None:
        self._intervals: list[Array] = []

    def put_plain(self, values: Array, levels: int) -> None:
        """Append samples that are all equally likely."""
        size = TOTAL // levels
        self._intervals.append(np.stack([values.ravel() * size, np.full(values.size, size)], 1).astype(np.uint32))

    def code(
        self, values: Array, out: Array, linear: Array, centre: Array, unit: Array, levels: int,
        tables: tuple[Array, Array],
    ) -> Array:  # fmt: skip
        """Append samples (planes, N); the rest as in `code_samples`, tables: units and reciprocals. Returns them."""
        intervals = np.empty((values.size, 2), np.uint32)
        _run(values, out, linear, centre, unit, levels, tables, False, np.empty(0, np.uint32), np.zeros(2, np.int64),
             intervals)  # fmt: skip
        self._intervals.append(intervals)
        return values

    @property
    def intervals(self) -> Array:
        """First and size of every interval so far: uint32 (n, 2)."""
        return np.concatenate([np.zeros((0, 2), np.uint32), *self._intervals])

    def finish(self) -> bytes:
        """The bytes of all samples."""
        intervals = self.intervals
        words = np.empty(len(intervals) + 2, np.uint32)
        begin = rans_encode(intervals, words)
        return words[begin:].astype("<u4").tobytes()

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
        if len(payload) % 4 or len(payload) < 8:
            raise CorruptBitstreamError("a payload of samples ends within a word: it is cut off or damaged")
        self._words = np.frombuffer(payload, "<u4").astype(np.uint32)
        x = int(self._words[0]) | int(self._words[1]) << 32
        if not RANS_LOW <= x < 1 << 63:
            raise CorruptBitstreamError("a payload of samples begins with a state no encoder leaves: it is damaged")
        self._coder = np.array([x, 2], np.int64)

    def get_plain(self, count: int, levels: int) -> Array:
        """The next samples, int32 (count,)."""
        values = np.zeros(count, np.int32)
        decode_plain(values, levels, self._words, self._coder)
        self._check_end()
        return values

    def code(
        self, values: Array, out: Array, linear: Array, centre: Array, unit: Array, levels: int,
        tables: tuple[Array, Array],
    ) -> Array:  # fmt: skip
        """The next samples, shaped like `values`."""
        values = np.zeros(values.shape, np.int32)
        _run(values, out, linear, centre, unit, levels, tables, True, self._words, self._coder,
             np.empty((0, 2), np.uint32))  # fmt: skip
        self._check_end()
        return values

    def _check_end(self) -> None:
        if self._coder[1] > self._words.size:
            raise CorruptBitstreamError("a payload ends before its samples: it is cut off or damaged")


def _run(
    values: Array, out: Array, linear: Array, centre: Array, unit: Array, levels: int, tables: tuple[Array, Array],
    decoding: bool, words: Array, coder: Array, intervals: Array,
) -> None:  # fmt: skip
    t = logistic_tables()
    components = len(out) // (3 * len(values))
    code_samples(
        values, out, linear, centre, unit, levels, components, *tables, t.values, t.inverses, t.weights,
        decoding, words, coder, intervals,
    )  # fmt: skip
