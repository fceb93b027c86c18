"""From the grids of `pocket` to planes and back, in compiled loops: upsampling, the synthesis, its errors.

Checked against autograd (`vidcodec.families.pocket.network`). Everything is float32.
"""

# numba gives each assignment a type of its own; mypy gives a name one for the whole function.
# mypy: disable-error-code="assignment, index, operator, call-overload"
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from vidcodec.families.pocket.tiles import BLOCK, LN2, outer, product, trained

Array = np.ndarray


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


@njit(nogil=True, fastmath=True, error_model="numpy")
def _along(x: Array, taps: Array, n: int, y: Array) -> None:
    """Seven symmetric taps along a row of n + 6."""
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    for j in range(n):
        y[j] = a * x[j + 3] + b * (x[j + 2] + x[j + 4]) + c * (x[j + 1] + x[j + 5]) + d * (x[j] + x[j + 6])


@njit(nogil=True, fastmath=True, error_model="numpy")
def _across(x: Array, i: int, taps: Array, n: int, y: Array) -> None:
    """Seven symmetric taps across the rows of x from i on."""
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    p, q, r, s, t, u, v = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6]
    for j in range(n):
        y[j] = a * s[j] + b * (r[j] + t[j]) + c * (q[j] + u[j]) + d * (p[j] + v[j])


@trained
def refine(
    x: Array, at: int, row: int, rows: int, columns: int, gain: float, taps: Array, y: Array, to: int, pitch: int
) -> None:
    """gain * (a grid and what its taps make of it): plane (rows, columns) of x, from `at` on, zeros around."""
    middle, g = np.zeros((rows + 6, columns), np.float32), np.float32(gain)
    for i in range(rows):
        _along(x[at + i * row - 3 :], taps, columns, middle[i + 3])
    for i in range(rows):
        u, v = x[at + i * row : at + i * row + columns], y[to + i * pitch : to + i * pitch + columns]
        _across(middle, i, taps, columns, v)
        for j in range(columns):
            v[j] = g * (u[j] + v[j])


@trained
def refine_back(
    x: Array,
    at: int,
    row: int,
    rows: int,
    columns: int,
    gain: float,
    taps: Array,
    gy: Array,
    to: int,
    pitch: int,
    gx: Array,
    gt: Array,
) -> float:
    """The way back of `refine`: adds to gx, laid out like x, and to gt. Returns the gradient by gain, times gain."""
    middle, back = np.zeros((rows + 6, columns), np.float32), np.zeros((rows + 6, columns), np.float32)
    wide, some, g = np.zeros(columns + 6, np.float32), np.empty(columns, np.float32), np.float32(gain)
    for i in range(rows):
        _along(x[at + i * row - 3 :], taps, columns, middle[i + 3])
        u, v = back[i + 3], gy[to + i * pitch : to + i * pitch + columns]
        for j in range(columns):
            u[j] = g * v[j]
    total = 0.0
    by_tap = np.zeros(4)
    for i in range(rows):
        u = back[i + 3]
        total += _dot(u, x[at + i * row :], columns)
        by_tap[0] += _dot(u, middle[i + 3], columns)
        for k in range(1, 4):
            by_tap[k] += _dot(u, middle[i + 3 - k], columns) + _dot(u, middle[i + 3 + k], columns)
    for k in range(4):
        total += taps[k] * by_tap[k]
    for i in range(rows):
        inner, z = wide[3:], x[at + i * row - 3 :]
        _across(back, i, taps, columns, inner)
        by_tap[0] += _dot(inner, z[3:], columns)
        for k in range(1, 4):
            by_tap[k] += _dot(inner, z[3 - k :], columns) + _dot(inner, z[3 + k :], columns)
        _along(wide, taps, columns, some)
        u, v = back[i + 3], gx[at + i * row : at + i * row + columns]
        for j in range(columns):
            v[j] += u[j] + some[j]
    for k in range(4):
        gt[k] += by_tap[k]
    return total


@trained
def build_stack(
    symbols: Array,
    begins: Array,
    sizes: Array,
    margin: int,
    gains: Array,
    filters: Array,
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
        at = begins[k] + margin * row + margin
        refine(symbols, at, row, rows, columns, gains[k], filters[k], target, base, pitch)
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
    filters: Array,
    up: Array,
    levels: Array,
    level_begins: Array,
    gstack: Array,
    channel: int,
    guard: int,
    glevels: Array,
    gradient: Array,
    ggains: Array,
    gfilters: Array,
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
        at = begins[k] + margin * row + margin
        total = refine_back(
            symbols, at, row, rows, columns, gains[k], filters[k], source, base, pitch, gradient, gfilters[k]
        )
        ggains[k] += total * LN2
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
