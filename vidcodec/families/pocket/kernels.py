"""The network of `pocket` in compiled loops, forward and backward: what a fit runs thousands of times.

Checked against autograd (`vidcodec.families.pocket.network`). Everything is float32. All grids of a frame lie in one
row of numbers, each with a margin of zeros around it, so that a context symbol is an offset; gradients come out the
same way. Rows of a layer go through it in blocks that stay in the cache: what a block needs of a hidden layer is
computed anew on the way back, never stored.

A `Workspace` holds the buffers of one picture size; it serves any number of frames, one at a time.
"""

# numba gives each assignment a type of its own; mypy gives a name one for the whole function.
# mypy: disable-error-code="assignment, index, operator, call-overload"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from vidcodec.families.pocket.network import COARSE, MARGIN, OWN, PocketConfig, flatten, grid_sizes, unflatten
from vidcodec.families.pocket.tiles import exp2, log2, outer, product

Array = np.ndarray

BLOCK = 128  # columns of a layer at once
SLACK = 2 * BLOCK  # room behind every buffer: blocks are computed whole
INV_LN2 = np.float32(1.4426950408889634)
LN2 = np.float32(0.6931471805599453)
MIN_LOG_SCALE, MAX_LOG_SCALE = np.float32(-5.0), np.float32(8.0)


def trained(function: Callable) -> Any:
    """njit for loops whose last bit does not matter; a check of each division would keep them from being vectors."""
    try:
        return njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True, fastmath=True, error_model="numpy")(function)


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


# ------------------------------------------------------------------------------ upsampling


@trained
def _widen(x: Array, n: int, taps: Array, pad: Array, even: Array, odd: Array) -> None:
    """Even and odd samples of a row of n, edges repeated. pad: n + 4."""
    pad[0] = pad[1] = x[0]
    pad[n + 2] = pad[n + 3] = x[n - 1]
    for j in range(n):
        pad[j + 2] = x[j]
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    for j in range(n):
        even[j] = a * pad[j] + b * pad[j + 1] + c * pad[j + 2] + d * pad[j + 3]
        odd[j] = a * pad[j + 4] + b * pad[j + 3] + c * pad[j + 2] + d * pad[j + 1]


@trained
def upsample(
    x: Array, at: int, rows: int, columns: int, taps: Array, y: Array, to: int, pitch: int, high: int, wide: int
) -> None:
    """x2: plane (rows, columns) of x from `at` on, to y from `to` on, `pitch` apart, cut to (high, wide)."""
    middle = np.empty((rows, 2 * columns), np.float32)
    pad = np.empty(columns + 8, np.float32)
    even, odd = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for i in range(rows):
        _widen(x[at + i * columns : at + (i + 1) * columns], columns, taps, pad, even, odd)
        m = middle[i]
        for j in range(columns):
            m[2 * j] = even[j]
            m[2 * j + 1] = odd[j]
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    last = rows - 1
    for i in range(high):
        o, s = i // 2, 1 - 2 * (i & 1)
        p, q, r = middle[min(max(o - 2 * s, 0), last)], middle[min(max(o - s, 0), last)], middle[o]
        t, z = middle[min(max(o + s, 0), last)], y[to + i * pitch : to + i * pitch + wide]
        for j in range(wide):
            z[j] = a * p[j] + b * q[j] + c * r[j] + d * t[j]


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def _dot(x: Array, y: Array, n: int) -> Any:
    s = np.float32(0)
    for j in range(n):
        s += x[j] * y[j]
    return s


@trained
def upsample_back(
    x: Array,
    at: int,
    rows: int,
    columns: int,
    taps: Array,
    gy: Array,
    to: int,
    pitch: int,
    high: int,
    wide: int,
    gx: Array,
    gt: Array,
) -> None:
    """The way back of `upsample`: writes gx (rows, columns) from `at` on, adds to gt."""
    middle, back = np.empty((rows, 2 * columns), np.float32), np.zeros((rows, 2 * columns), np.float32)
    pad, even, odd = np.empty(columns + 8, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    for i in range(rows):
        _widen(x[at + i * columns : at + (i + 1) * columns], columns, taps, pad, even, odd)
        m = middle[i]
        for j in range(columns):
            m[2 * j] = even[j]
            m[2 * j + 1] = odd[j]
    last = rows - 1
    for i in range(high):
        g = gy[to + i * pitch : to + i * pitch + wide]
        o, s = i // 2, 1 - 2 * (i & 1)
        for k in range(4):
            row = min(max(o + (k - 2) * s, 0), last)
            m, b, tap = middle[row], back[row], taps[k]
            total = np.float32(0)
            for j in range(wide):
                b[j] += tap * g[j]
                total += g[j] * m[j]
            gt[k] += total
    for i in range(rows):
        row = x[at + i * columns : at + (i + 1) * columns]
        pad[0] = pad[1] = row[0]
        pad[columns + 2] = pad[columns + 3] = row[columns - 1]
        for j in range(columns):
            pad[j + 2] = row[j]
        b = back[i]
        for j in range(columns):
            even[j] = b[2 * j]
            odd[j] = b[2 * j + 1]
        for k in range(4):
            gt[k] += _dot(even, pad[k:], columns) + _dot(odd, pad[4 - k :], columns)
        pad[:] = 0
        for k in range(4):
            tap = taps[k]
            p, q = pad[k:], pad[4 - k :]
            for j in range(columns):
                p[j] += tap * even[j]
            for j in range(columns):
                q[j] += tap * odd[j]
        out = gx[at + i * columns : at + (i + 1) * columns]
        for j in range(columns):
            out[j] = pad[j + 2]
        out[0] += pad[0] + pad[1]
        out[columns - 1] += pad[columns + 2] + pad[columns + 3]


# ------------------------------------------------------------------------------- synthesis


@trained
def build_stack(
    symbols: Array,
    begins: Array,
    sizes: Array,
    margin: int,
    gains: Array,
    up: Array,
    levels: Array,
    level_begins: Array,
    stack: Array,
    channel: int,
    guard: int,
) -> None:
    """All grids at luma size: writes `stack`, (grids, channel), and `levels`, all grids from k on at the size of k.

    A channel is (H + 2, W + 2) behind a guard.
    """
    grids = sizes.shape[0]
    for k in range(grids - 1, -1, -1):
        rows, columns = sizes[k, 0], sizes[k, 1]
        finest = k == 0
        pitch = columns + 2 if finest else columns
        target, base = (stack, guard + pitch + 1) if finest else (levels, level_begins[k])
        plane = channel if finest else rows * columns
        row = columns + 2 * margin
        for i in range(rows):
            at, to = begins[k] + (i + margin) * row + margin, base + i * pitch
            x, y = symbols[at : at + columns], target[to : to + columns]
            for j in range(columns):
                y[j] = gains[k] * x[j]
        if k + 1 < grids:
            a, b = sizes[k + 1, 0], sizes[k + 1, 1]
            for c in range(grids - 1 - k):
                at = level_begins[k + 1] + c * a * b
                upsample(levels, at, a, b, up[k], target, base + (c + 1) * plane, pitch, rows, columns)


@trained
def back_stack(
    symbols: Array,
    begins: Array,
    sizes: Array,
    margin: int,
    gains: Array,
    up: Array,
    levels: Array,
    level_begins: Array,
    gstack: Array,
    channel: int,
    guard: int,
    glevels: Array,
    gradient: Array,
    ggains: Array,
    gup: Array,
) -> None:
    """The way back of `build_stack`: adds to gradient (of symbols), ggains (of log2 gains) and gup."""
    grids = sizes.shape[0]
    for k in range(grids):
        rows, columns = sizes[k, 0], sizes[k, 1]
        finest = k == 0
        pitch = columns + 2 if finest else columns
        source, base = (gstack, guard + pitch + 1) if finest else (glevels, level_begins[k])
        plane = channel if finest else rows * columns
        row = columns + 2 * margin
        total = 0.0
        for i in range(rows):
            at, to = begins[k] + (i + margin) * row + margin, base + i * pitch
            x, g, y = symbols[at : at + columns], gradient[at : at + columns], source[to : to + columns]
            s = np.float32(0)
            for j in range(columns):
                g[j] += gains[k] * y[j]
                s += x[j] * y[j]
            total += s
        ggains[k] += total * gains[k] * LN2
        if k + 1 < grids:
            a, b = sizes[k + 1, 0], sizes[k + 1, 1]
            for c in range(grids - 1 - k):
                at, to = level_begins[k + 1] + c * a * b, base + (c + 1) * plane
                upsample_back(levels, at, a, b, up[k], source, to, pitch, rows, columns, glevels, gup[k])


@njit(nogil=True, fastmath=True)
def _repeat_edges(x: Array, channel: int, guard: int, rows: int, columns: int) -> None:
    """Fill the margin of one of three planes (rows + 2, columns + 2)."""
    pitch = columns + 2
    for c in range(3):
        base = c * channel + guard
        for i in range(1, rows + 1):
            at = base + i * pitch
            x[at] = x[at + 1]
            x[at + columns + 1] = x[at + columns]
        for j in range(pitch):
            x[base + j] = x[base + pitch + j]
            x[base + (rows + 1) * pitch + j] = x[base + rows * pitch + j]


@njit(nogil=True, fastmath=True)
def _fold_edges(x: Array, channel: int, guard: int, rows: int, columns: int) -> None:
    """The way back: margins are added to the edges, then zero."""
    pitch = columns + 2
    for c in range(3):
        base = c * channel + guard
        for j in range(pitch):
            x[base + pitch + j] += x[base + j]
            x[base + rows * pitch + j] += x[base + (rows + 1) * pitch + j]
            x[base + j] = x[base + (rows + 1) * pitch + j] = 0
        for i in range(1, rows + 1):
            at = base + i * pitch
            x[at + 1] += x[at]
            x[at + columns] += x[at + columns + 1]
            x[at] = x[at + columns + 1] = 0


@trained
def mix_and_smooth(
    stack: Array,
    channel: int,
    guard: int,
    rows: int,
    columns: int,
    m0: Array,
    mb0: Array,
    m1: Array,
    mb1: Array,
    s0: Array,
    sb0: Array,
    s1: Array,
    sb1: Array,
    y0: Array,
    y1: Array,
    y2: Array,
) -> None:
    """Grids at luma size to Y, U, V there: y2 (3, channel), by way of y0 and y1.

    m0 (8, hidden), m1 (hidden, 4), s0 and s1 (28, 4): inputs by outputs, padded.
    """
    pitch, width = columns + 2, m0.shape[1]
    begin, end = guard + pitch + 1, guard + (rows + 1) * pitch - 1
    h = np.zeros(width * BLOCK, np.float32)
    planes, hidden = np.arange(8) * channel, np.arange(width) * BLOCK
    block = np.zeros(4 * BLOCK, np.float32)
    near = _neighbours(channel, pitch)
    zero = np.float32(0)
    for at in range(begin, end, BLOCK):
        n = min(BLOCK, end - at)
        product(m0, stack, planes, at, h, 0, BLOCK, n, False)
        for c in range(width):
            x, b = h[c * BLOCK : (c + 1) * BLOCK], mb0[c]
            for j in range(BLOCK):
                x[j] = max(x[j] + b, zero)
        product(m1, h, hidden, 0, block, 0, BLOCK, n, False)
        for c in range(3):
            x, y, b = block[c * BLOCK : c * BLOCK + n], y0[c * channel + at : c * channel + at + n], mb1[c]
            for j in range(n):
                y[j] = x[j] + b
    _repeat_edges(y0, channel, guard, rows, columns)
    for at in range(begin, end, BLOCK):
        n = min(BLOCK, end - at)
        product(s0, y0, near, at, block, 0, BLOCK, n, False)
        for c in range(3):
            x, b = block[c * BLOCK : c * BLOCK + n], sb0[c]
            u, v = y0[c * channel + at : c * channel + at + n], y1[c * channel + at : c * channel + at + n]
            for j in range(n):
                v[j] = u[j] + max(x[j] + b, zero)
    _repeat_edges(y1, channel, guard, rows, columns)
    for at in range(begin, end, BLOCK):
        n = min(BLOCK, end - at)
        product(s1, y1, near, at, block, 0, BLOCK, n, False)
        for c in range(3):
            x, b = block[c * BLOCK : c * BLOCK + n], sb1[c]
            u, v = y1[c * channel + at : c * channel + at + n], y2[c * channel + at : c * channel + at + n]
            for j in range(n):
                v[j] = u[j] + (x[j] + b)


@njit(nogil=True, fastmath=True)
def _neighbours(channel: int, pitch: int) -> Array:
    """Offsets of the 3x3 neighbourhood in three planes, padded to 28: int64."""
    out = np.zeros(28, np.int64)
    for c in range(3):
        for dy in range(3):
            for dx in range(3):
                out[9 * c + 3 * dy + dx] = c * channel + (dy - 1) * pitch + dx - 1
    return out


@njit(nogil=True, fastmath=True)
def _mirrored(w: Array) -> Array:
    """3x3 weights (28, 4) for the way back."""
    out = np.zeros((28, 4), np.float32)
    for c in range(3):
        for k in range(3):
            for t in range(9):
                out[9 * k + t, c] = w[9 * c + 8 - t, k]
    return out


@trained
def mix_and_smooth_back(
    stack: Array,
    channel: int,
    guard: int,
    rows: int,
    columns: int,
    m0: Array,
    mb0: Array,
    m1: Array,
    s0: Array,
    s1: Array,
    y0: Array,
    y1: Array,
    gy: Array,
    work: Array,
    gstack: Array,
    gm0: Array,
    gmb0: Array,
    gm1: Array,
    gmb1: Array,
    gs0: Array,
    gsb0: Array,
    gs1: Array,
    gsb1: Array,
) -> None:
    """The way back of `mix_and_smooth`: gy (4, channel), zero outside the picture, is changed; writes gstack."""
    pitch, width = columns + 2, m0.shape[1]
    begin, end = guard + pitch + 1, guard + (rows + 1) * pitch - 1
    first, last = guard, guard + (rows + 2) * pitch
    near, zero = _neighbours(channel, pitch), np.float32(0)
    block = np.zeros(4 * BLOCK, np.float32)
    # the last layer: work = gy + its transposed convolution
    back = _mirrored(s1)
    for at in range(begin, end, BLOCK):
        n = min(BLOCK, end - at)
        outer(gy, at, channel, y1, near, at, n, gs1)
        for c in range(3):
            g, s = gy[c * channel + at : c * channel + at + n], zero
            for j in range(n):
                s += g[j]
            gsb1[c] += s
    for at in range(first, last, BLOCK):
        n = min(BLOCK, last - at)
        product(back, gy, near, at, block, 0, BLOCK, n, False)
        for c in range(3):
            x, g = block[c * BLOCK : c * BLOCK + n], gy[c * channel + at : c * channel + at + n]
            w = work[c * channel + at : c * channel + at + n]
            for j in range(n):
                w[j] = g[j] + x[j]
    _fold_edges(work, channel, guard, rows, columns)
    # the first 3x3 layer: gy = what passes its ReLU, then work += its transposed convolution
    back = _mirrored(s0)
    for c in range(3):
        total = 0.0
        for at in range(begin, end, BLOCK):
            n = min(BLOCK, end - at)
            g, w = gy[c * channel + at : c * channel + at + n], work[c * channel + at : c * channel + at + n]
            u, v = y0[c * channel + at : c * channel + at + n], y1[c * channel + at : c * channel + at + n]
            s = zero
            for j in range(n):
                x = w[j] if v[j] > u[j] else zero
                g[j] = x
                s += x
            total += s
        gsb0[c] += total
    for at in range(begin, end, BLOCK):
        outer(gy, at, channel, y0, near, at, min(BLOCK, end - at), gs0)
    for at in range(first, last, BLOCK):
        n = min(BLOCK, last - at)
        product(back, gy, near, at, block, 0, BLOCK, n, False)
        for c in range(3):
            x, w = block[c * BLOCK : c * BLOCK + n], work[c * channel + at : c * channel + at + n]
            for j in range(n):
                w[j] += x[j]
    _fold_edges(work, channel, guard, rows, columns)
    # the 1x1 layers
    h, d = np.zeros(width * BLOCK, np.float32), np.zeros(width * BLOCK, np.float32)
    few, planes, hidden = np.arange(4) * channel, np.arange(8) * channel, np.arange(width) * BLOCK
    t0, t1 = np.ascontiguousarray(m0.T), np.ascontiguousarray(m1.T)
    for at in range(begin, end, BLOCK):
        n = min(BLOCK, end - at)
        product(m0, stack, planes, at, h, 0, BLOCK, n, False)
        for c in range(width):
            x, b = h[c * BLOCK : (c + 1) * BLOCK], mb0[c]
            for j in range(BLOCK):
                x[j] = max(x[j] + b, zero)
        outer(work, at, channel, h, hidden, 0, n, gm1)
        for c in range(3):
            g, s = work[c * channel + at : c * channel + at + n], zero
            for j in range(n):
                s += g[j]
            gmb1[c] += s
        product(t1, work, few, at, d, 0, BLOCK, n, False)
        for c in range(width):
            x, g, s = h[c * BLOCK : c * BLOCK + n], d[c * BLOCK : c * BLOCK + n], zero
            for j in range(n):
                v = g[j] if x[j] > 0 else zero
                g[j] = v
                s += v
            gmb0[c] += s
        outer(d, 0, BLOCK, stack, planes, at, n, gm0)
        product(t0, d, hidden, 0, gstack, at, channel, n, False)


@trained
def measure_error(y: Array, channel: int, guard: int, target: Array, weights: Array, errors: Array, gy: Array) -> None:
    """Mean squared errors of Y, U, V into `errors`; gradients of their weighted sum into gy, which holds zeros.

    target: float32 (6, h, w).
    """
    h, w = target.shape[1:]
    pitch = 2 * w + 2
    base = guard + pitch + 1
    scale = np.float32(2.0 * weights[0] / (4 * h * w))
    gy[:] = 0
    total = 0.0
    for i in range(2 * h):
        at = base + i * pitch
        x, g = y[at : at + 2 * w], gy[at : at + 2 * w]
        even, odd = target[2 * (i & 1), i // 2], target[2 * (i & 1) + 1, i // 2]
        s = np.float32(0)
        for j in range(w):
            a, b = x[2 * j] - even[j], x[2 * j + 1] - odd[j]
            g[2 * j], g[2 * j + 1] = scale * a, scale * b
            s += a * a + b * b
        total += s
    errors[0] = total / (4 * h * w)
    quarter = np.float32(0.25)
    for c in range(1, 3):
        scale = np.float32(0.5 * weights[c] / (h * w))
        total = 0.0
        for i in range(h):
            at = c * channel + base + 2 * i * pitch
            x, z = y[at : at + 2 * w], y[at + pitch : at + pitch + 2 * w]
            g, f = gy[at : at + 2 * w], gy[at + pitch : at + pitch + 2 * w]
            wanted = target[3 + c, i]
            s = np.float32(0)
            for j in range(w):
                a = (x[2 * j] + x[2 * j + 1] + z[2 * j] + z[2 * j + 1]) * quarter - wanted[j]
                g[2 * j] = g[2 * j + 1] = f[2 * j] = f[2 * j + 1] = scale * a
                s += a * a
            total += s
        errors[c] = total / (h * w)


# ------------------------------------------------------------------------------- descent


@trained
def adam(
    x: Array,
    gradient: Array,
    slope: Array,
    first: Array,
    second: Array,
    step: int,
    rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """One step of Adam on x; gradients are multiplied by `slope`."""
    r = np.float32(rate / (1 - beta_1**step))
    correction = np.float32(1 / np.sqrt(1 - beta_2**step))
    a, b, e = np.float32(beta_1), np.float32(beta_2), np.float32(epsilon)
    one = np.float32(1)
    for t in range(x.size):
        g = gradient[t] * slope[t]
        m = a * first[t] + (one - a) * g
        v = b * second[t] + (one - b) * g * g
        first[t], second[t] = m, v
        x[t] -= r * m / (np.sqrt(v) * correction + e)


# ------------------------------------------------------------------------------ workspace


class Workspace:
    """Buffers and layout for frames of planes (6, h, w)."""

    def __init__(self, config: PocketConfig, h: int, w: int) -> None:
        self.config, self.h, self.w = config, h, w
        sizes = grid_sizes(config, h, w)
        self.sizes = np.array(sizes, np.int64)
        areas = [(a + 2 * MARGIN) * (b + 2 * MARGIN) for a, b in sizes]
        self.begins = np.cumsum([0, *areas])[:-1].astype(np.int64)
        self.length = sum(areas)  # of all grids with their margins
        reach = MARGIN * (sizes[0][1] + 2 * MARGIN) + MARGIN
        self.span = self.length + SLACK + reach
        self.mask = np.zeros(self.length + SLACK, np.float32)
        for grid in self.grids(self.mask):
            grid[:] = 1
        self.offsets = np.zeros((config.grids, config.inputs), np.int64)
        for k, (_, b) in enumerate(sizes):
            row = b + 2 * MARGIN
            near = [y * row + x for y, x in OWN[: config.own]]
            far = [self.span + y * row + x for y, x in COARSE[: config.coarse]]
            self.offsets[k] = near + far
        self.known, self.known_gradient = np.zeros((2, 2 * self.span), np.float32)
        self.slope = np.zeros(self.length, np.float32)
        self.guard = 2 * w + 2 + 3
        self.channel = (2 * h + 2) * (2 * w + 2) + 2 * self.guard + SLACK
        self.stack, self.stack_gradient = np.zeros((2, 8 * self.channel), np.float32)
        self.y0, self.y1, self.y2, self.gy, self.work = np.zeros((5, 4 * self.channel), np.float32)
        parts = [(config.grids - k) * a * b if k else 0 for k, (a, b) in enumerate(sizes)]
        self.level_begins = np.cumsum([0, *parts])[:-1].astype(np.int64)
        self.levels, self.levels_gradient = np.zeros((2, sum(parts)), np.float32)

    def grids(self, flat: Array) -> list[Array]:
        """Views of every grid in a row of numbers."""
        out = []
        for (a, b), begin in zip(self.sizes, self.begins, strict=True):
            padded = flat[begin : begin + (a + 2 * MARGIN) * (b + 2 * MARGIN)].reshape(a + 2 * MARGIN, b + 2 * MARGIN)
            out.append(padded[MARGIN : MARGIN + a, MARGIN : MARGIN + b])
        return out

    @property
    def symbols(self) -> Array:
        """The symbols of the frame at hand, all grids with their margins."""
        return self.known[: self.length]

    @property
    def gradient(self) -> Array:
        """Gradients of `symbols` after `evaluate`."""
        return self.known_gradient[: self.length]

    def evaluate(
        self, theta: Array, target: Array, weights: Array, charge: float, *, backward: bool = True
    ) -> tuple[Array, Array, Array]:
        """Squared errors of Y, U, V and bits by grid of `symbols`; the gradients of both, summed, by theta.

        The loss is sum(weights * errors) + charge * sum(bits). Gradients by symbols are in `gradient`.
        """
        bits, by_theta = self.charge(theta, charge if backward else 0.0)
        self.synthesise(theta)
        errors = np.zeros(3)
        measure_error(self.y2, self.channel, self.guard, target, weights, errors, self.gy)
        if backward:
            by_theta += self._back_from_planes(theta)
        return errors, bits, by_theta

    def charge(self, theta: Array, charge: float) -> tuple[Array, Array]:
        """Bits of `symbols` by grid; with charge > 0 also gradients, by theta and (`gradient`) by symbols."""
        c = self.config
        p = unflatten(c, theta)
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        self.known[self.span :] = 0
        repeat_coarser(self.known, self.begins, self.sizes, MARGIN, self.known[self.span :])
        self.known_gradient[:] = 0
        bits = np.zeros(c.grids)
        w = [_padded(p["context.0.weight"].T, c.context), _padded(p["context.1.weight"].T, c.context)]
        w += [_padded(p["context.2.weight"].T, 4), _padded(p["context.skip"].T, 4)]
        g = [np.zeros_like(x) for x in w]
        charge_symbols(
            self.known,
            self.mask,
            self.begins,
            self.sizes,
            MARGIN,
            self.offsets,
            w[0],
            p["context.0.bias"],
            w[1],
            p["context.1.bias"],
            w[2],
            p["context.2.bias"],
            w[3],
            charge,
            bits,
            self.known_gradient,
            g[0],
            grads["context.0.bias"],
            g[1],
            grads["context.1.bias"],
            g[2],
            grads["context.2.bias"],
            g[3],
        )
        if charge > 0:
            collect_coarser(self.known_gradient[self.span :], self.begins, self.sizes, MARGIN, self.known_gradient)
            for name, x in zip(("context.0.weight", "context.1.weight"), g[:2], strict=True):
                grads[name] = x.T
            grads["context.2.weight"], grads["context.skip"] = g[2][:, :2].T, g[3][:, :2].T
        return bits, flatten(c, grads)

    def synthesise(self, theta: Array) -> None:
        """`symbols` to the planes in `y2`."""
        p = unflatten(self.config, theta)
        build_stack(
            self.known,
            self.begins,
            self.sizes,
            MARGIN,
            np.exp2(p["gain"]),
            p["up"],
            self.levels,
            self.level_begins,
            self.stack,
            self.channel,
            self.guard,
        )
        m0, m1, s0, s1 = self._layers(p)
        mix_and_smooth(
            self.stack,
            self.channel,
            self.guard,
            2 * self.h,
            2 * self.w,
            m0,
            p["mix.0.bias"],
            m1,
            p["mix.1.bias"],
            s0,
            p["smooth.0.bias"],
            s1,
            p["smooth.1.bias"],
            self.y0,
            self.y1,
            self.y2,
        )

    def planes(self) -> Array:
        """Planes (6, h, w) of what `synthesise` left."""
        rows, columns = 2 * self.h, 2 * self.w
        whole = self.y2.reshape(4, -1)[:3, self.guard : self.guard + (rows + 2) * (columns + 2)]
        y = whole.reshape(3, rows + 2, columns + 2)[:, 1:-1, 1:-1]
        luma = y[0].reshape(self.h, 2, self.w, 2).transpose(1, 3, 0, 2).reshape(4, self.h, self.w)
        chroma = y[1:].reshape(2, self.h, 2, self.w, 2).mean((2, 4))
        return np.concatenate([luma, chroma]).astype(np.float32)

    def _layers(self, p: dict[str, Array]) -> list[Array]:
        mix = np.zeros((8, self.config.hidden), np.float32)
        mix[: self.config.grids] = p["mix.0.weight"].T
        near = [_padded(p[f"smooth.{k}.weight"].reshape(3, 27).T, 4, 28) for k in (0, 1)]
        return [mix, _padded(p["mix.1.weight"].T, 4), *near]

    def _back_from_planes(self, theta: Array) -> Array:
        c = self.config
        p = unflatten(c, theta)
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        m0, m1, s0, s1 = self._layers(p)
        g = [np.zeros_like(x) for x in (m0, m1, s0, s1)]
        mix_and_smooth_back(
            self.stack,
            self.channel,
            self.guard,
            2 * self.h,
            2 * self.w,
            m0,
            p["mix.0.bias"],
            m1,
            s0,
            s1,
            self.y0,
            self.y1,
            self.gy,
            self.work,
            self.stack_gradient,
            g[0],
            grads["mix.0.bias"],
            g[1],
            grads["mix.1.bias"],
            g[2],
            grads["smooth.0.bias"],
            g[3],
            grads["smooth.1.bias"],
        )
        grads["mix.0.weight"], grads["mix.1.weight"] = g[0][: c.grids].T, g[1][:, :3].T
        for k in (0, 1):
            grads[f"smooth.{k}.weight"] = g[2 + k][:27, :3].T
        back_stack(
            self.known,
            self.begins,
            self.sizes,
            MARGIN,
            np.exp2(p["gain"]),
            p["up"],
            self.levels,
            self.level_begins,
            self.stack_gradient,
            self.channel,
            self.guard,
            self.levels_gradient,
            self.known_gradient,
            grads["gain"],
            grads["up"],
        )
        return flatten(c, grads)


def _padded(w: Array, columns: int, rows: int | None = None) -> Array:
    """w with zeros behind, contiguous float32."""
    out = np.zeros((rows or w.shape[0], columns), np.float32)
    out[: w.shape[0], : w.shape[1]] = w
    return out
