"""Mixtures of logistic distributions on integers: the distributions of the lossless mode.

A sample value v in 0 .. n - 1 gets the interval [C(v), C(v + 1)) of 2^24, with

    C(v) = floor(T * sum_k w_k F((v - 1/2 - mean_k) / scale_k)) + v * FLOOR_MASS / n,    C(0) = 0,  C(n) = 2^24

in whole numbers throughout: F by table, weights by table, means in 1/64, scales 2^(i/8 - 5). C rises by one at least,
so any value can be coded under any mixture, at 11 + log2(n) bits at worst. The tables follow from integer arithmetic
alone, so they are the same everywhere; a digest names them and the constants.

Parameters come as the last layer of an integer network gives them, in 2^-20: for each sample 3K rows, logits, means
and log2 scales of the K logistics; the latter two in units around the centre of the sample's neighbours. Centres are
in quarters, unit j is 2^(j/8 - 2) code values.

The compiled loops stand beside their constants: machine code kept on disk is made anew when its own file changes, and
has the constants in it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from vidcodec.entropy.compiling import compiled

Array = np.ndarray

PRECISION = 24
FLOOR_MASS = 1 << 13  # shared evenly by all values
MEAN_BITS = 6
SCALE_STEPS = 8  # per octave
MIN_SCALE, MAX_SCALE = -5, 11  # log2, in sample values
SCALES = (MAX_SCALE - MIN_SCALE) * SCALE_STEPS + 1
ARGUMENT_BITS = 10  # F takes arguments in 2^-10
ARGUMENT_LIMIT = 16 << ARGUMENT_BITS
INVERSE_BITS = 20
VALUE_BITS = 22  # F gives values in 2^-22
LOGIT_BITS = 6  # weights take logits in 2^-6
LOGIT_LIMIT = 16 << LOGIT_BITS
WEIGHT_BITS = 15

# Means and scales come in units around the centre of a sample's neighbours: unit j is 2^(j/8 - 2) sample values.
UNIT_STEPS = 8
MIN_UNIT = -2
UNIT_LIMIT = 112
UNIT_BITS = 8  # units in 2^-8 sample values
RECIPROCAL_BITS = 14  # reciprocals in 2^-14 of the smallest unit's
INPUT_BITS = 8  # distances in 2^-8 units
INPUT_LIMIT = 8  # units

ACCUMULATOR_BITS = 20  # outputs of an integer network
SURPRISE_LIMIT = INPUT_LIMIT << INPUT_BITS
MEAN_LIMIT = 1 << 27  # 128 units

RANS_LOW = 1 << 31  # the coder's state stays in [2^31, 2^63)
SLOT = (1 << PRECISION) - 1
TOTAL = 1 << PRECISION

_SCALE_SHIFT = ACCUMULATOR_BITS - 3  # to eighths of an octave
_LOGIT_SHIFT = ACCUMULATOR_BITS - LOGIT_BITS
_MEAN_SHIFT = ACCUMULATOR_BITS + UNIT_BITS - MEAN_BITS
_FIRST_SCALE = (MIN_UNIT - MIN_SCALE) * SCALE_STEPS
_MASS_SHIFT = WEIGHT_BITS + VALUE_BITS

_WORKING_BITS = 128


@dataclass(frozen=True, eq=False)
class LogisticTables:
    """Integers; use `logistic_tables()`.

    values: F(i / 2^10) in 2^-22, i = 0 .. 16 * 2^10. inverses: by scale, what takes 1/64 to arguments in 2^-10, in
    2^-20. weights: exp(-i / 64) in 2^-20.
    """

    values: np.ndarray
    inverses: np.ndarray
    weights: np.ndarray

    @property
    def digest(self) -> bytes:
        """8 bytes: of the tables, and of the constants that say what is done with them."""
        constants = (
            PRECISION,
            FLOOR_MASS,
            MEAN_BITS,
            SCALE_STEPS,
            MIN_SCALE,
            MAX_SCALE,
            ARGUMENT_BITS,
            ARGUMENT_LIMIT,
            INVERSE_BITS,
            VALUE_BITS,
            LOGIT_BITS,
            LOGIT_LIMIT,
            WEIGHT_BITS,
            UNIT_STEPS,
            MIN_UNIT,
            UNIT_LIMIT,
            UNIT_BITS,
            RECIPROCAL_BITS,
            INPUT_BITS,
            INPUT_LIMIT,
            ACCUMULATOR_BITS,
            MEAN_LIMIT,
            RANS_LOW,
        )
        h = hashlib.sha256(np.array(constants, "<i8").tobytes())
        for table in (self.values, self.inverses, self.weights):
            h.update(table.astype("<i8").tobytes())
        return h.digest()[:8]


@cache
def logistic_tables() -> LogisticTables:
    """The tables of this version of vidcodec, from integer arithmetic."""
    one = 1 << _WORKING_BITS
    decays = _decays(ARGUMENT_BITS, ARGUMENT_LIMIT)
    values = [(one << VALUE_BITS) // (one + decay) for decay in decays]
    # An argument in 2^-10 is 16 times a distance in 1/64: inverse = 2^20 * 16 * 2^5 * 2^(-i / 8).
    top = INVERSE_BITS + ARGUMENT_BITS - MEAN_BITS - MIN_SCALE
    inverses = [root8(1 << (8 * top - i)) for i in range(SCALES)]
    weights = [decay >> (_WORKING_BITS - 20) for decay in _decays(LOGIT_BITS, LOGIT_LIMIT)]
    return LogisticTables(*(np.array(t, np.int64) for t in (values, inverses, weights)))


def _decays(bits: int, count: int) -> list[int]:
    """exp(-i / 2^bits) for i = 0 .. count, in 2^-128, by powers of the first."""
    one = 1 << _WORKING_BITS
    step, term = one, one
    for k in range(1, 40):  # the series of exp(-2^-bits)
        term = -term // (k << bits)
        step += term
    out = [one]
    for _ in range(count):
        out.append(out[-1] * step >> _WORKING_BITS)
    return out


def root8(n: int) -> int:
    """The integer part of the eighth root."""
    return math.isqrt(math.isqrt(math.isqrt(n)))


# --------------------------------------------------------------------------- compiled loops


@njit(nogil=True, inline="always")
def _cumulative(v: Any, levels: Any, weight: Array, mean: Array, inverse: Array, logistic: Array) -> Any:
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
    out: Array,
    first: Any,
    t: Any,
    move: Any,
    widen: Any,
    centre: Any,
    unit: Any,
    units: Array,
    inverses: Array,
    weights: Array,
    weight: Array,
    mean: Array,
    inverse: Array,
) -> None:
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
    values: Array,
    out: Array,
    linear: Array,
    centre: Array,
    unit: Array,
    levels: int,
    components: int,
    units: Array,
    reciprocals: Array,
    logistic: Array,
    inverses: Array,
    weights: Array,
    decoding: bool,
    words: Array,
    coder: Array,
    intervals: Array,
) -> None:
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
                out,
                3 * components * p,
                t,
                move,
                widen,
                centre[p, t],
                unit[p, t],
                units,
                inverses,
                weights,
                weight,
                mean,
                inverse,
            )
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
