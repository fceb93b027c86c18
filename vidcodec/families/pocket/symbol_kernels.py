"""What a fit of `pocket` runs on its symbols, in compiled loops: rounding, bits with their gradients, descent.

Checked against autograd (`vidcodec.families.pocket.network`). Everything is float32. All grids of a frame lie in one
row of numbers, each with a margin of zeros around it, so that a context symbol is an offset; gradients come out the
same way.
"""

# numba gives each assignment a type of its own; mypy gives a name one for the whole function.
# mypy: disable-error-code="assignment, index, operator, call-overload"
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from vidcodec.families.pocket.tiles import BLOCK, INV_LN2, LN2, exp2, log2, outer, product, trained

Array = np.ndarray

MIN_LOG_SCALE, MAX_LOG_SCALE = np.float32(-5.0), np.float32(8.0)


# ------------------------------------------------------------------------------- rounding


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def _soft(x: Any, rate: Any, top: Any) -> Any:
    """Soft rounding, and its slope. rate: 2 / (ln 2 * temperature), top: 0.5 / tanh(0.5 / temperature)."""
    base = np.floor(x)
    d = x - base - np.float32(0.5)
    t = np.float32(1) - np.float32(2) / (exp2(d * rate) + np.float32(1))
    return base + top * t + np.float32(0.5), top * (np.float32(1) - t * t)


@trained
def round_softly(
    x: Array, mask: Array, temperature: float, noise: float, seed: int, symbols: Array, slope: Array
) -> None:
    """Rounded, disturbed by nearly normal noise, and rounded again; writes symbols and their slopes by x.

    (Agustsson & Theis 2020, arXiv 2006.09952; normal noise as in Cool-Chic.)
    """
    beta = 1.0 / temperature
    rate = np.float32(2.0 * 1.4426950408889634 * beta)
    top = np.float32(0.5 / np.tanh(0.5 * beta))
    per_slope = np.float32(beta)
    # Four bytes have a variance of 4 * (2^16 - 1) / 12.
    unit, centre = np.float32(noise / np.sqrt((65536.0 - 1.0) / 3.0)), np.float32(4 * 127.5)
    salt = np.uint32(seed * 2654435761 & 0xFFFFFFFF)
    for t in range(x.size):
        u = np.uint32(np.uint32(t) * np.uint32(0x9E3779B1)) ^ salt  # products widen to 64 bits otherwise
        u = np.uint32((u ^ (u >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        u = np.uint32((u ^ (u >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        u = np.uint32(u ^ (u >> np.uint32(16)))
        four = np.int32((u & 255) + ((u >> 8) & 255) + ((u >> 16) & 255) + ((u >> 24) & 255))
        symbols[t] = unit * (np.float32(four) - centre)
    for t in range(x.size):
        first, slope_1 = _soft(x[t], rate, top)
        second, slope_2 = _soft(first + symbols[t], rate, top)
        symbols[t] = second * mask[t]
        slope[t] = slope_1 * slope_2 * (per_slope * per_slope) * mask[t]


@trained
def round_hard(x: Array, symbols: Array) -> None:
    for t in range(x.size):
        symbols[t] = np.floor(x[t] + np.float32(0.5))


# ------------------------------------------------------------------- distributions of symbols


@trained
def repeat_coarser(symbols: Array, begins: Array, sizes: Array, margin: int, above: Array) -> None:
    """What each grid sees of the next coarser one: `above`, laid out like `symbols`."""
    for k in range(sizes.shape[0] - 1):
        rows, columns, pitch = sizes[k, 0], sizes[k, 1], sizes[k, 1] + 2 * margin
        other = sizes[k + 1, 1] + 2 * margin
        for i in range(rows):
            to = begins[k] + (i + margin) * pitch + margin
            at = begins[k + 1] + (i // 2 + margin) * other + margin
            for j in range(columns):
                above[to + j] = symbols[at + (j >> 1)]


@trained
def collect_coarser(gradient: Array, begins: Array, sizes: Array, margin: int, symbols: Array) -> None:
    """The way back of `repeat_coarser`, added to `symbols`."""
    for k in range(sizes.shape[0] - 1):
        rows, columns, pitch = sizes[k, 0], sizes[k, 1], sizes[k, 1] + 2 * margin
        other = sizes[k + 1, 1] + 2 * margin
        for i in range(rows):
            to = begins[k] + (i + margin) * pitch + margin
            at = begins[k + 1] + (i // 2 + margin) * other + margin
            for j in range(columns // 2):
                symbols[at + j] += gradient[to + 2 * j] + gradient[to + 2 * j + 1]
            if columns % 2:
                symbols[at + columns // 2] += gradient[to + columns - 1]


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def _charge(
    symbols: Array,
    mask: Array,
    at: int,
    n: int,
    out: Array,
    pitch: int,
    charge: float,
) -> Any:
    """Bits of n symbols whose means and log2 scales stand in out[:n] and out[pitch : pitch + n].

    These are replaced by their gradients, times charge; the symbols' own are those of the means, negated.
    """
    x, m = symbols[at : at + n], mask[at : at + n]
    means, scales = out[:n], out[pitch : pitch + n]  # more rows, and LLVM gives up on telling them apart
    one, half = np.float32(1), np.float32(0.5)
    total = np.float32(0)
    c = np.float32(charge)
    for j in range(n):
        raw = scales[j]
        bounded = min(max(raw, MIN_LOG_SCALE), MAX_LOG_SCALE)
        width = exp2(-bounded)
        low = (x[j] - means[j] - half) * width
        high = low + width
        # P = (1 - e^-width) / ((1 + e^-|low|) (1 + e^-|high|) ...): one logarithm for three factors
        e_low, e_high, e_width = exp2(-abs(low) * INV_LN2), exp2(-abs(high) * INV_LN2), exp2(-width * INV_LN2)
        d_low, d_high, rest = one + e_low, one + e_high, one - e_width
        bits = log2(d_low * d_high / rest) + (max(low, np.float32(0)) + max(-high, np.float32(0))) * INV_LN2
        total += bits * m[j]
        # by low: sigma(low); by high: -sigma(-high); by width: -1 / (e^width - 1)
        by_low = (one if low >= 0 else e_low) / d_low
        by_high = -(one if high <= 0 else e_high) / d_high
        by_width = -e_width / rest
        g = c * m[j] * INV_LN2
        by_mean = -(by_low + by_high) * width * g
        inside = one if raw == bounded else np.float32(0)
        by_scale = -(by_low * low + by_high * high + by_width * width) * LN2 * g * inside
        means[j], scales[j] = by_mean, by_scale
    return total


@trained
def charge_symbols(
    known: Array,
    mask: Array,
    begins: Array,
    sizes: Array,
    margin: int,
    offsets: Array,
    w0: Array,
    b0: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    skip: Array,
    charge: float,
    bits: Array,
    gradient: Array,
    g0: Array,
    gb0: Array,
    g1: Array,
    gb1: Array,
    g2: Array,
    gb2: Array,
    gskip: Array,
) -> None:
    """Bits of all symbols by grid; with charge > 0, gradients of charge * bits, added to everything named g.

    known: float32 (2 T + slack), symbols and what they see of the coarser grid; gradient: the same. offsets: int64
    (grids, C), of a context's symbols from the one coded, by grid. Weights w: (inputs, outputs), outputs of the last
    layer padded to 4; b0 and b2 by grid.
    """
    inputs, width = w0.shape
    pitch = BLOCK
    h1, h2 = np.zeros(width * pitch, np.float32), np.zeros(width * pitch, np.float32)
    d1, d2 = np.zeros(width * pitch, np.float32), np.zeros(width * pitch, np.float32)
    out = np.zeros(4 * pitch, np.float32)
    back = np.zeros((inputs + 7) // 8 * 8 * pitch, np.float32)
    hidden, few = np.arange(width) * pitch, np.arange(4) * pitch
    t1, t2 = np.ascontiguousarray(w1.T), np.ascontiguousarray(w2.T)
    t0 = np.zeros((width, (inputs + 7) // 8 * 8), np.float32)
    t0[:, :inputs] = w0.T
    tskip = np.zeros((4, (inputs + 7) // 8 * 8), np.float32)
    tskip[:, :inputs] = skip.T
    zero = np.float32(0)
    for k in range(sizes.shape[0]):
        row = sizes[k, 1] + 2 * margin
        begin = begins[k] + margin * row + margin
        end = begins[k] + (margin + sizes[k, 0]) * row - margin
        total = 0.0
        for at in range(begin, end, pitch):
            n = min(pitch, end - at)
            product(w0, known, offsets[k], at, h1, 0, pitch, n, False)
            for c in range(width):
                h, b = h1[c * pitch : c * pitch + pitch], b0[k, c]
                for j in range(pitch):
                    h[j] = max(h[j] + b, zero)
            product(w1, h1, hidden, 0, h2, 0, pitch, n, False)
            for c in range(width):
                h, b = h2[c * pitch : c * pitch + pitch], b1[c]
                for j in range(pitch):
                    h[j] = max(h[j] + b, zero)
            product(w2, h2, hidden, 0, out, 0, pitch, n, False)
            product(skip, known, offsets[k], at, out, 0, pitch, n, True)
            for c in range(2):
                h, b = out[c * pitch : c * pitch + pitch], b2[k, c]
                for j in range(pitch):
                    h[j] += b
            total += _charge(known, mask, at, n, out, pitch, charge)
            if charge <= 0:
                continue
            for c in range(2):
                out[c * pitch + n : (c + 1) * pitch] = zero
                s = zero
                for j in range(n):
                    s += out[c * pitch + j]
                gb2[k, c] += s
            out[2 * pitch :] = zero
            g = gradient[at : at + n]
            for j in range(n):
                g[j] -= out[j]
            outer(out, 0, pitch, h2, hidden, 0, n, g2)
            outer(out, 0, pitch, known, offsets[k], at, n, gskip)
            product(t2, out, few, 0, d2, 0, pitch, n, False)
            for c in range(width):
                d, h, s = d2[c * pitch : c * pitch + pitch], h2[c * pitch : c * pitch + pitch], zero
                for j in range(n):
                    v = d[j] if h[j] > 0 else zero
                    d[j] = v
                    s += v
                gb1[c] += s
            outer(d2, 0, pitch, h1, hidden, 0, n, g1)
            product(t1, d2, hidden, 0, d1, 0, pitch, n, False)
            for c in range(width):
                d, h, s = d1[c * pitch : c * pitch + pitch], h1[c * pitch : c * pitch + pitch], zero
                for j in range(n):
                    v = d[j] if h[j] > 0 else zero
                    d[j] = v
                    s += v
                gb0[k, c] += s
            outer(d1, 0, pitch, known, offsets[k], at, n, g0)
            product(t0, d1, hidden, 0, back, 0, pitch, n, False)
            product(tskip, out, few, 0, back, 0, pitch, n, True)
            for c in range(inputs):
                g = gradient[offsets[k, c] + at : offsets[k, c] + at + n]
                d = back[c * pitch : c * pitch + n]
                for j in range(n):
                    g[j] += d[j]
        bits[k] += total


# ------------------------------------------------------------------------------- descent


@trained
def descend(
    x: Array,
    gradient: Array,
    slope: Array,
    first: Array,
    second: Array,
    count: int,
    step: int,
    rate: float,
    memory: tuple[float, float],
    own: float,
) -> None:
    """One step of Adam on a grid's x, which are `count` and zeros around them; gradients are multiplied by `slope`.

    A step is divided by the root of what the symbol's own squared gradients (a share `own`) and the mean of its grid's
    add up to: symbols of a grid are worth alike, so one whose gradient is small hardly moves.
    """
    r = np.float32(rate / (1 - memory[0] ** step))
    a, b, one = np.float32(memory[0]), np.float32(memory[1]), np.float32(1)
    total = np.float32(0)
    for t in range(x.size):
        g = gradient[t] * slope[t]
        first[t] = a * first[t] + (one - a) * g
        second[t] = b * second[t] + (one - b) * g * g
        total += second[t]
    p, correction = np.float32(own), np.float32(1 / (1 - memory[1] ** step))
    common = (one - p) * total / np.float32(count) + np.float32(1e-24)
    for t in range(x.size):
        x[t] -= r * first[t] / np.sqrt((p * second[t] + common) * correction)
