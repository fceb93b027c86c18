"""Products of a small matrix with many columns, in machine code: where the narrow layers of `pocket` spend their time.

A tile is some outputs of some neighbouring columns. It stays in registers while all inputs pass, each of them read at
an offset of its own: so a layer reads its context or its 3x3 neighbourhood where it lies, and nothing is gathered.
LLVM's own vectoriser does not find this: it cannot know that so many rows do not overlap. Vectors hold 16 floats
whatever the machine; LLVM splits them where registers are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Array = np.ndarray

LANES = 16
COLUMNS = 64  # of a block's width: whole tiles of both shapes
BLOCK = 128  # columns of a layer at once
INV_LN2 = np.float32(1.4426950408889634)
LN2 = np.float32(0.6931471805599453)


def trained(function: Callable) -> Any:
    """njit for loops whose last bit does not matter; a check of each division would keep them from being vectors."""
    try:
        return njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True, fastmath=True, error_model="numpy")(function)


def _tile(outputs: int, vectors: int) -> Any:
    """An intrinsic that computes (outputs, vectors * LANES) numbers.

    weights (inputs, stride) flat, from `first` on; source flat, input c of column j at places[c] + column + j; target
    flat, output k of column j at begin + k * pitch + j. With `add` it adds to what is there.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        _context, weights, first, stride, inputs, source, places, column, target, begin, pitch, add
    ):
        intp = types.intp
        signature = types.void(weights, intp, intp, intp, source, places, intp, target, intp, intp, types.boolean)

        def generate(context: Any, b: Any, sig: Any, a: Any) -> Any:
            data = {k: context.make_array(sig.args[k])(context, b, a[k]).data for k in (0, 4, 5, 7)}
            first, stride, inputs, column, begin, pitch, add = (a[k] for k in (1, 2, 3, 6, 8, 9, 10))
            whole, real = ir.IntType(64), ir.FloatType()
            vector = ir.VectorType(real, LANES)

            def number(v: int) -> Any:
                return ir.Constant(whole, v)

            def address(array: int, at: Any) -> Any:
                return b.bitcast(b.gep(data[array], [at]), vector.as_pointer())

            def load(array: int, at: Any) -> Any:
                out = b.load(address(array, at))
                out.align = 4
                return out

            def splat(x: Any) -> Any:
                some = ir.Constant(vector, ir.Undefined)
                one = b.insert_element(some, x, ir.Constant(ir.IntType(32), 0))
                return b.shuffle_vector(one, some, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

            span = [(k, v) for k in range(outputs) for v in range(vectors)]
            places = [b.add(b.add(begin, b.mul(pitch, number(k))), number(v * LANES)) for k, v in span]
            old, new, loop, done = (b.append_basic_block(n) for n in ("old", "new", "loop", "done"))
            b.cbranch(add, old, new)
            b.position_at_end(old)
            there = [load(7, at) for at in places]
            b.branch(loop)
            b.position_at_end(new)
            b.branch(loop)
            b.position_at_end(loop)
            c = b.phi(whole)
            sums = [b.phi(vector) for _ in span]
            c.add_incoming(number(0), old)
            c.add_incoming(number(0), new)
            for s, t in zip(sums, there, strict=True):
                s.add_incoming(t, old)
                s.add_incoming(ir.Constant(vector, [0.0] * LANES), new)
            at = b.add(b.load(b.gep(data[5], [c])), column)
            x = [load(4, b.add(at, number(v * LANES))) for v in range(vectors)]
            row = b.add(first, b.mul(c, stride))
            w = [splat(b.load(b.gep(data[0], [b.add(row, number(k))]))) for k in range(outputs)]
            after = [
                b.fadd(b.fmul(w[k], x[v], flags=["fast"]), s, flags=["fast"])
                for (k, v), s in zip(span, sums, strict=True)
            ]
            following = b.add(c, number(1))
            c.add_incoming(following, loop)
            for s, t in zip(sums, after, strict=True):
                s.add_incoming(t, loop)
            b.cbranch(b.icmp_signed("<", following, inputs), loop, done)
            b.position_at_end(done)
            for t, at in zip(after, places, strict=True):
                b.store(t, address(7, at)).align = 4
            return context.get_dummy_value()

        return signature, generate

    return tile


_wide, _narrow = _tile(8, 2), _tile(4, 4)


@njit(nogil=True, fastmath=True)
def product(
    weights: Array, source: Array, places: Array, column: int, target: Array, begin: int, pitch: int, n: int, add: bool
) -> None:
    """Outputs (K, n) = weights.T (K, C) @ inputs (C, n), or added to what is there.

    weights: float32 (C, K), K a multiple of 4. places: int64 (C,). Columns come in whole blocks of COLUMNS: both
    source and target must have room for as many.
    """
    inputs, outputs = weights.shape
    flat = weights.reshape(-1)
    if outputs % 8 == 0:
        for j in range(0, n, 2 * LANES):
            for k in range(0, outputs, 8):
                _wide(flat, k, outputs, inputs, source, places, column + j, target, begin + k * pitch + j, pitch, add)
    else:
        for j in range(0, n, 4 * LANES):
            for k in range(0, outputs, 4):
                _narrow(flat, k, outputs, inputs, source, places, column + j, target, begin + k * pitch + j, pitch, add)


def _add_products(  # type: ignore[no-untyped-def]
    _context, gradient, begin, pitch, source, places, first, column, vectors, sums, at, stride
):
    """Adds the products of 4 inputs with 4 gradients to sums[at + c * stride + k * LANES], lane by lane."""
    intp = types.intp
    signature = types.void(gradient, intp, intp, source, places, intp, intp, intp, sums, intp, intp)

    def generate(context: Any, b: Any, sig: Any, a: Any) -> Any:
        data = {k: context.make_array(sig.args[k])(context, b, a[k]).data for k in (0, 3, 4, 8)}
        begin, pitch, first, column, vectors, at, stride = (a[k] for k in (1, 2, 5, 6, 7, 9, 10))
        whole, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)

        def number(v: int) -> Any:
            return ir.Constant(whole, v)

        def address(array: int, where: Any) -> Any:
            return b.bitcast(b.gep(data[array], [where]), vector.as_pointer())

        def load(array: int, where: Any) -> Any:
            out = b.load(address(array, where))
            out.align = 4
            return out

        span = [(c, k) for c in range(4) for k in range(4)]
        cells = [b.add(b.add(at, b.mul(stride, number(c))), number(k * LANES)) for c, k in span]
        rows = [b.add(b.load(b.gep(data[4], [b.add(first, number(c))])), column) for c in range(4)]
        others = [b.add(begin, b.mul(pitch, number(k))) for k in range(4)]
        there = [load(8, cell) for cell in cells]
        before, loop, done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        b.branch(loop)
        b.position_at_end(loop)
        v = b.phi(whole)
        totals = [b.phi(vector) for _ in span]
        v.add_incoming(number(0), before)
        for total, t in zip(totals, there, strict=True):
            total.add_incoming(t, before)
        j = b.mul(v, number(LANES))
        x, g = [load(3, b.add(row, j)) for row in rows], [load(0, b.add(other, j)) for other in others]
        after = [
            b.fadd(b.fmul(x[c], g[k], flags=["fast"]), total, flags=["fast"])
            for (c, k), total in zip(span, totals, strict=True)
        ]
        following = b.add(v, number(1))
        v.add_incoming(following, loop)
        for total, t in zip(totals, after, strict=True):
            total.add_incoming(t, loop)
        b.cbranch(b.icmp_signed("<", following, vectors), loop, done)
        b.position_at_end(done)
        for t, cell in zip(after, cells, strict=True):
            b.store(t, address(8, cell)).align = 4
        return context.get_dummy_value()

    return signature, generate


add_products: Any = intrinsic(_add_products)


@njit(nogil=True, fastmath=True)
def outer(
    gradient: Array, begin: int, pitch: int, source: Array, places: Array, column: int, n: int, out: Array
) -> None:
    """out (C, K, LANES), summed over lanes, += inputs (C, n) @ gradients (K, n).T; C and K are multiples of 4.

    n is rounded up to whole vectors: gradients must be zero there.
    """
    inputs, outputs, lanes = out.shape
    flat, vectors = out.reshape(-1), (n + lanes - 1) // lanes
    for k in range(0, outputs, 4):
        for c in range(0, inputs, 4):
            add_products(
                gradient, begin + k * pitch, pitch, source, places, c, column, vectors,
                flat, (c * outputs + k) * lanes, outputs * lanes,
            )  # fmt: skip


def _as_float(_context: Any, x: Any) -> Any:
    """The float32 of the same bits as an int32."""
    return types.float32(types.int32), lambda _c, b, _s, a: b.bitcast(a[0], ir.FloatType())


def _as_int(_context: Any, x: Any) -> Any:
    """The int32 of the same bits as a float32."""
    return types.int32(types.float32), lambda _c, b, _s, a: b.bitcast(a[0], ir.IntType(32))


as_float: Any = intrinsic(_as_float)
as_int: Any = intrinsic(_as_int)


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def exp2(x: Any) -> Any:
    """2^x to 2^-18, |x| <= 126."""
    x = min(max(x, np.float32(-126)), np.float32(126))
    whole = np.floor(x + np.float32(0.5))
    f = x - whole
    p = np.float32(1.5403530e-4) * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1)
    return p * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(nogil=True, fastmath=True, error_model="numpy", inline="always")
def log2(x: Any) -> Any:
    """log2 of a positive normal number, to 2^-20 or so."""
    i: Any = as_int(x)
    exponent = (i - np.int32(0x3F3504F3)) >> np.int32(23)  # mantissas from sqrt(1/2) to sqrt(2)
    m = as_float(i - (exponent << np.int32(23)))
    t = (m - np.float32(1)) / (m + np.float32(1))
    s = t * t
    p = np.float32(0.4121985) * s + np.float32(0.5770780)
    p = p * s + np.float32(0.9617967)
    p = p * s + np.float32(2.8853901)
    return np.float32(exponent) + t * p
