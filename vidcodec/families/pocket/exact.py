"""Symbols of a frame to bytes and back: the context network in whole numbers, and rANS.

Everything that chooses an interval is integer arithmetic, means included, carried in float64 where all sums stay far
below 2^53: the symbols are the same whatever threads, instruction sets or machines. What becomes of the symbols
(gains, upsampling, synthesis) is ordinary float.

    symbols        whole numbers, |.| <= 511
    weights        round(w * 2^12), 16 bits
    activations    2^-8, in [0, 2^20]: accumulators below 2^15 * 2^20 * fan-in < 2^41
    means          2^-6; scales 2^(i / 8 - 5), i = 0 .. 104

The distribution is a logistic one, cut at the halves; its table is that of `vidcodec.entropy.logistics`, as are the
bytes: a 64-bit rANS with 32-bit words and intervals of 2^24. Grids are coded from the coarsest to the finest, each in
raster order; one byte ahead says which of them hold a symbol other than zero. One symbol takes its 16 hidden units
together, as vectors: that is as fast as a wavefront over symbols, at any size of grid. Where a context is the
one before again, as in even areas, the network is not asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numba import njit

from vidcodec.entropy.compiling import compiled
from vidcodec.entropy.logistics import logistic_tables
from vidcodec.entropy.rans import check_end, opened, to_bytes
from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.pocket.network import COARSE, MARGIN, OWN, PocketConfig, grid_sizes, unflatten

Array = np.ndarray

# Constants of the compiled loops stand in this file: machine code kept on disk is made anew when its own file changes.
SYMBOL_LIMIT = 511
LEVELS = 2 * SYMBOL_LIMIT + 2
WEIGHT_BITS = 12
ACTIVATION_BITS = 8
ACTIVATION_LIMIT = float(1 << 20)
OUTPUT_BITS = WEIGHT_BITS + ACTIVATION_BITS
MEAN_BITS = 6
MEAN_LIMIT = float(4 * SYMBOL_LIMIT << MEAN_BITS)
SCALE_ZERO = 40  # index of scale 1
MAX_SCALE_INDEX = 104.0
PRECISION = 24
TOTAL = 1 << PRECISION
FLOOR = 2  # of every value's interval
ARGUMENT_LIMIT = 16 << 10
INVERSE_BITS = 20
VALUE_BITS = 22
RANS_LOW = 1 << 31
SLOT = TOTAL - 1


def rules_digest() -> bytes:
    """Names the constants above, and the order of contexts and grids."""
    constants = (SYMBOL_LIMIT, WEIGHT_BITS, ACTIVATION_BITS, ACTIVATION_LIMIT, MEAN_BITS, MEAN_LIMIT, SCALE_ZERO)
    return sha256(repr((*constants, MAX_SCALE_INDEX, PRECISION, FLOOR, INVERSE_BITS, OWN, COARSE)).encode()).digest()


@njit(nogil=True, inline="always")
def _cumulative(v: Any, mean: Any, inverse: Any, logistic: Array) -> Any:
    """Where the interval of value v begins, v = 0 .. LEVELS; mean and value in the same count."""
    if v <= 0:
        return np.int64(0)
    if v >= LEVELS:
        return np.int64(TOTAL)
    u = (((v << MEAN_BITS) - (1 << (MEAN_BITS - 1)) - mean) * inverse) >> INVERSE_BITS
    mass = logistic[min(abs(u), ARGUMENT_LIMIT)]
    if u < 0:
        mass = (1 << VALUE_BITS) - mass
    return ((mass * (TOTAL - LEVELS * FLOOR)) >> VALUE_BITS) + v * FLOOR


@compiled
def code_grid(
    padded: Array,
    above: Array,
    margin: int,
    own: Array,
    coarse: Array,
    w0: Array,
    b0: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    skip: Array,
    logistic: Array,
    inverses: Array,
    decoding: bool,
    words: Array,
    coder: Array,
    intervals: Array,
) -> None:
    """All symbols of a grid in raster order.

    padded: int32 (rows + 2 margin, columns + 2 margin), zero around; read, or (decoding) written. above: the same, of
    the coarser grid. own, coarse: int64 offsets in them. Weights: whole numbers in float64, inputs by outputs.
    intervals: uint32 (symbols, 2), first and size of each, written where it encodes. coder: state and place in
    `words`; decoding stops early when the words end.
    """
    width, inputs, near = w0.shape[1], w0.shape[0], own.size
    pitch = padded.shape[1]
    flat, far = padded.reshape(-1), above.reshape(-1)
    x, h1, h2 = np.zeros(inputs), np.zeros(width), np.zeros(width)
    state, at = coder[0], coder[1]
    rows, columns = padded.shape[0] - 2 * margin, pitch - 2 * margin
    down = 2.0**-WEIGHT_BITS
    count = 0
    x[:] = np.nan  # the context that m and s are of
    m: Any = 0.0
    s: Any = 0.0
    for i in range(rows):
        for j in range(columns):
            t = (i + margin) * pitch + j + margin
            changed = 0
            for c in range(near):
                v = float(flat[t + own[c]])
                changed |= v != x[c]
                x[c] = v
            for c in range(coarse.size):
                v = float(far[t + coarse[c]])
                changed |= v != x[near + c]
                x[near + c] = v
            if changed:
                for k in range(width):
                    h1[k] = b0[k]
                mean, scale = b2[0], b2[1]
                for c in range(inputs):
                    v = x[c]
                    if v != 0.0:
                        for k in range(width):
                            h1[k] += v * w0[c, k]
                        mean += v * skip[c, 0]
                        scale += v * skip[c, 1]
                for k in range(width):
                    h1[k] = min(max(np.floor(h1[k] * 0.0625 + 0.5), 0.0), ACTIVATION_LIMIT)
                    h2[k] = b1[k]
                for c in range(width):
                    v = h1[c]
                    if v != 0.0:
                        for k in range(width):
                            h2[k] += v * w1[c, k]
                for k in range(width):
                    v = min(max(np.floor(h2[k] * down + 0.5), 0.0), ACTIVATION_LIMIT)
                    mean += v * w2[k, 0]
                    scale += v * w2[k, 1]
                m = min(max(np.floor(mean * 2.0 ** -(OUTPUT_BITS - MEAN_BITS) + 0.5), -MEAN_LIMIT), MEAN_LIMIT)
                s = min(max(np.floor(scale * 2.0 ** -(OUTPUT_BITS - 3) + 0.5) + SCALE_ZERO, 0.0), MAX_SCALE_INDEX)
            centre = np.int64(m) + ((SYMBOL_LIMIT + 1) << MEAN_BITS)
            inverse = inverses[np.int64(s)]
            if decoding:
                slot = state & SLOT
                low: Any = min(max((centre + (1 << (MEAN_BITS - 1))) >> MEAN_BITS, 0), LEVELS - 1)
                high: Any = low + 1
                step: Any = np.int64(1)
                start: Any = _cumulative(low, centre, inverse, logistic)
                stop = _cumulative(high, centre, inverse, logistic)
                while start > slot:  # search outwards from the likeliest value
                    high, stop = low, start
                    low = max(low - step, 0)
                    step *= 2
                    start = _cumulative(low, centre, inverse, logistic)
                while stop <= slot:
                    low, start = high, stop
                    high = min(high + step, LEVELS)
                    step *= 2
                    stop = _cumulative(high, centre, inverse, logistic)
                while high - low > 1:
                    middle = (low + high) >> 1
                    c = _cumulative(middle, centre, inverse, logistic)
                    if c <= slot:
                        low, start = middle, c
                    else:
                        high, stop = middle, c
                flat[t] = low - (SYMBOL_LIMIT + 1)
                state = (stop - start) * (state >> PRECISION) + slot - start
                if state < RANS_LOW:
                    state <<= 32
                    if at < words.size:
                        state |= np.int64(words[at])
                    at += 1
            else:
                value = np.int64(flat[t]) + SYMBOL_LIMIT + 1
                start = _cumulative(value, centre, inverse, logistic)
                intervals[count, 0] = start
                intervals[count, 1] = _cumulative(value + 1, centre, inverse, logistic) - start
            count += 1
        if at > words.size:
            break
    coder[0], coder[1] = state, at


@dataclass(frozen=True, eq=False)
class ExactContext:
    """The context network as whole numbers in float64; inputs by outputs."""

    config: PocketConfig
    w0: Array
    b0: Array  # by grid
    w1: Array
    b1: Array
    w2: Array
    b2: Array  # by grid
    skip: Array

    @classmethod
    def of(cls, config: PocketConfig, theta: Array) -> ExactContext:
        """theta: all parameters in a row."""
        p = unflatten(config, theta)
        return cls(
            config,
            _whole(p["context_0_weight"].T, WEIGHT_BITS),
            _whole(p["context_0_bias"], WEIGHT_BITS, 2.0**30),
            _whole(p["context_1_weight"].T, WEIGHT_BITS),
            _whole(p["context_1_bias"], OUTPUT_BITS, 2.0**38),
            _whole(p["context_2_weight"].T, WEIGHT_BITS),
            _whole(p["context_2_bias"], OUTPUT_BITS, 2.0**38),
            _whole(p["context_skip"].T, WEIGHT_BITS) * 2.0**ACTIVATION_BITS,
        )

    def run(self, grids: list[Array], present: int, words: Array | None, coder: Array) -> list[Array]:
        """Codes int32 grids, the finest first, where their bit in `present` is set; words None is to encode.

        Returns the intervals of every grid in coding order.
        """
        tables, out = logistic_tables(), []
        above: Array | None = None
        for k in range(len(grids) - 1, -1, -1):
            grid = grids[k]
            padded = np.pad(grid, MARGIN)
            repeated = np.zeros_like(padded)
            if above is not None:
                inside = above.repeat(2, 0).repeat(2, 1)[: grid.shape[0], : grid.shape[1]]
                repeated[MARGIN:-MARGIN, MARGIN:-MARGIN] = inside
            if present >> k & 1:
                pitch, c = padded.shape[1], self.config
                intervals = np.empty((grid.size if words is None else 0, 2), np.uint32)
                code_grid(
                    padded,
                    repeated,
                    MARGIN,
                    np.array([y * pitch + x for y, x in OWN[: c.own]], np.int64),
                    np.array([y * pitch + x for y, x in COARSE[: c.coarse]], np.int64),
                    self.w0,
                    self.b0[k],
                    self.w1,
                    self.b1,
                    self.w2,
                    self.b2[k],
                    self.skip,
                    tables.values,
                    tables.inverses,
                    words is not None,
                    np.empty(0, np.uint32) if words is None else words,
                    coder,
                    intervals,
                )
                out.append(intervals)
                if words is not None:
                    check_end(words, coder)
                    grid[:] = padded[MARGIN:-MARGIN, MARGIN:-MARGIN]
            above = grid
        return out

    def encode(self, grids: list[Array]) -> bytes:
        """Whole-numbered grids, the finest first, to bytes. Raises ValueError for symbols beyond +-511."""
        whole = [np.ascontiguousarray(g, np.int32) for g in grids]
        if max(int(np.abs(g).max()) for g in whole) > SYMBOL_LIMIT:
            raise ValueError(f"a symbol is beyond +-{SYMBOL_LIMIT}")
        present = sum(1 << k for k, g in enumerate(whole) if g.any())
        parts = self.run(whole, present, None, np.zeros(2, np.int64))
        intervals = np.concatenate([np.zeros((0, 2), np.uint32), *parts])
        if not len(intervals):
            return bytes([present])
        return bytes([present]) + to_bytes(intervals, PRECISION)

    def decode(self, payload: bytes, h: int, w: int) -> list[Array]:
        """Grids of planes (6, h, w), int32, the finest first.

        A damaged payload gives wrong symbols or CorruptBitstreamError: callers check a CRC before and a hash after.
        """
        grids = [np.zeros(size, np.int32) for size in grid_sizes(self.config, h, w)]
        if not payload or payload[0] >> len(grids):
            raise CorruptBitstreamError("a payload names grids that there are not: it is damaged")
        if not payload[0]:
            return grids
        self.run(grids, payload[0], *opened(payload[1:]))
        return grids


def _whole(x: Array, bits: int, limit: float = 2.0**15 - 1) -> Array:
    """round(x * 2^bits), bounded; contiguous float64. Multiplying by a power of two is exact."""
    return np.ascontiguousarray(np.clip(np.floor(x.astype(np.float64) * 2.0**bits + 0.5), -limit, limit))
