"""Mixtures of logistic distributions on integers: the distributions of the lossless mode.

A sample value v in 0 .. n - 1 gets the interval [C(v), C(v + 1)) of 2^24, with

    C(v) = floor(T * sum_k w_k F((v - 1/2 - mean_k) / scale_k)) + v * FLOOR_MASS / n,    C(0) = 0,  C(n) = 2^24

in whole numbers throughout: F by table, weights by table, means in 1/64, scales 2^(i/8 - 5). C rises by one at least,
so any value can be coded under any mixture, at 11 + log2(n) bits at worst. The tables follow from integer arithmetic
alone, so they are the same everywhere; a digest names them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np

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
        """8 bytes."""
        h = hashlib.sha256()
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
