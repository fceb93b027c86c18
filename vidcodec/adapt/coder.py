"""Model updates as bytes.

Payload: one byte for the kind, then one rANS stream over the shipped bank. Tensors stand
in the order of `sent_parameters`; a gate per tensor says whether it changes at all.

    kind 0  spike and slab: every weight of every open tensor under one fixed table
    kind 1  adaptive: per tensor a grid exponent and a mean magnitude, per row (output
            channel) an offset to it, per column an offset learned from the rows already
            coded; the symbol tables are two-sided geometrics of the resulting mean
    kind 2  the same for a selection of parameters (`vidcodec.adapt.selection`), named in the bytes that follow: only
            tensors of which it takes something have gates, only entries it takes are coded, and offsets of rows may
            be left out
    kind 3  the selection low-rank: matrices as two factors, each coded like a tensor; their product, in steps of both
            grids' product, is the update

Everything that chooses a table is integer arithmetic. Rows are coded in blocks, so that
encoder and decoder work on whole arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from vidcodec.adapt.selection import Selection, Strategy, everything, select
from vidcodec.adapt.update import (
    MAX_FACTOR,
    MAX_STEP_EXPONENT,
    MAX_STEPS,
    Factors,
    TensorUpdate,
    Update,
    is_matrix,
)
from vidcodec.bitstream.fields import FieldReader
from vidcodec.entropy.bank import BYTE, GEOMETRIC, HEAVY, bank
from vidcodec.entropy.bank import SPIKE_SLAB as SPIKE_SLAB_TABLE
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError

SPIKE_SLAB = 0
ADAPTIVE = 1
SELECTED = 2
LOW_RANK = 3

BLOCK = 16
MAX_OFFSET = 12
FAMILIES = (GEOMETRIC, HEAVY)
# Table k stands for a mean magnitude of 2^(-12 + 0.3 k); here times 2^16, rounded.
MEANS = np.array(
    [
        16,
        20,
        24,
        30,
        37,
        45,
        56,
        69,
        84,
        104,
        128,
        158,
        194,
        239,
        294,
        362,
        446,
        549,
        676,
        832,
        1024,
        1261,
        1552,
        1911,
        2353,
        2896,
        3566,
        4390,
        5405,
        6654,
        8192,
        10086,
        12417,
        15287,
        18820,
        23170,
        28526,
        35120,
        43238,
        53232,
        65536,
        80684,
        99334,
        122295,
        150562,
        185364,
        228210,
        280960,
        345903,
        425856,
        524288,
        645474,
        794672,
        978356,
        1204498,
        1482910,
        1825677,
        2247673,
        2767208,
        3406835,
        4194304,
        5163797,
        6357398,
        7826916,
    ],
    np.int64,
)
# Geometric midpoints between the means: the table of a mean is how many it exceeds.
MIDPOINTS = np.array(
    [
        18,
        22,
        27,
        33,
        41,
        50,
        62,
        76,
        94,
        115,
        142,
        175,
        215,
        265,
        326,
        402,
        495,
        609,
        750,
        923,
        1136,
        1399,
        1722,
        2121,
        2611,
        3214,
        3957,
        4871,
        5997,
        7383,
        9090,
        11191,
        13777,
        16962,
        20882,
        25709,
        31652,
        38968,
        47975,
        59064,
        72716,
        89525,
        110218,
        135694,
        167059,
        205674,
        253213,
        311744,
        383802,
        472516,
        581737,
        716203,
        881751,
        1085563,
        1336488,
        1645411,
        2025740,
        2493980,
        3070454,
        3780178,
        4653948,
        5729687,
        7054078,
    ],
    np.int64,
)


def table_of_mean(mean: np.ndarray) -> np.ndarray:
    """Nearest table (0 .. 63) of a mean magnitude in 1/2^16."""
    return np.searchsorted(MIDPOINTS, mean, side="right").astype(np.int64)


def blocks(rows: int) -> Iterator[slice]:
    """Row blocks of a tensor: short ones first, so that contexts form early."""
    start, size = 0, 2
    while start < rows:
        stop = min(rows, start + size)
        yield slice(start, stop)
        start, size = stop, min(BLOCK, size * 2)


class ColumnContext:
    """How active each column has been, against what was expected of it."""

    PRIOR = 3 << 16  # in expected magnitude, 1/2^16: how slowly columns get a say

    def __init__(self, columns: int, taps: int) -> None:
        self.seen = np.zeros(columns, np.int64)
        self.expected = np.zeros(columns, np.int64)
        self.taps = taps

    def tables(self, row_table: np.ndarray) -> np.ndarray:
        """Tables (rows, columns) for rows of the given base tables."""

        # Taps of one input channel share what they know: own evidence counts double.
        def pooled(a: np.ndarray) -> np.ndarray:
            g = a.reshape(-1, self.taps)
            return (g * 2 + (g.sum(1, keepdims=True) * 2) // self.taps).reshape(-1)

        ratio = ((pooled(self.seen) + self.PRIOR) << 12) // (pooled(self.expected) + self.PRIOR)  # (columns,) 1/2^12
        mean = (MEANS[row_table][:, None] * np.minimum(ratio, 1 << 20)[None]) >> 12
        return table_of_mean(mean)

    def learn(self, n: np.ndarray, row_table: np.ndarray, mask: np.ndarray) -> None:
        """From coded rows, zero where the mask is."""
        self.seen += np.minimum(np.abs(n.astype(np.int64)), 255).sum(0) << 16
        self.expected += MEANS[row_table] @ mask.astype(np.int64)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(rows, columns, taps) of a parameter; vectors are one row, tables (levels, width) as they are."""
    if len(shape) == 1:
        return 1, shape[0], 1
    columns = int(np.prod(shape[1:]))
    return shape[0], columns, int(np.prod(shape[2:])) if len(shape) > 2 else 1


OFFSET_TABLE = GEOMETRIC + 42  # row offsets: mean magnitude about 1.5
STEP_TABLE = GEOMETRIC + 42  # differences of grid exponents


def encode_update(update: Update, model: nn.Module, kind: int = ADAPTIVE, selection: Selection | None = None) -> bytes:
    """Bytes of an update; empty for no update.

    kind: SPIKE_SLAB, or ADAPTIVE, which a selection turns into SELECTED or LOW_RANK. selection: what the update was
    confined to; without one, or with 'all', every parameter that travels. Raises ValueError for what is not in the
    selection, and (kind 0) for a selection or other steps than 2^-8.
    """
    if not update:
        return b""
    chosen = selection or everything(model)
    if chosen.strategy != Strategy():
        if kind != ADAPTIVE:
            raise ValueError("spike and slab knows no selection of parameters")
        kind = LOW_RANK if chosen.rank else SELECTED
    if unknown := set(update.tensors) - set(chosen.masks):
        raise ValueError(f"not parameters that travel or are selected: {', '.join(sorted(unknown))}")
    coder = RansEncoder()
    coder.put_bytes(np.packbits([n in update.tensors for n in chosen.masks]).tobytes())
    previous = 8
    for name, mask in chosen.masks.items():
        if name not in update.tensors:
            continue
        t = update.tensors[name]
        if kind == SPIKE_SLAB:
            if t.exponent != 8:
                raise ValueError(f"spike and slab codes steps of 2^-8, not 2^-{t.exponent}")
            coder.put(t.n, np.full(t.n.shape, SPIKE_SLAB_TABLE))
            continue
        parts = [t]
        if kind == LOW_RANK and is_matrix(name, mask.shape):
            if t.factors is None:
                raise ValueError(f"{name}: an update of low rank comes as factors")
            parts = [t.factors.left, t.factors.right]
        for part in parts:
            coder.put(np.array([part.exponent - previous]), np.array([STEP_TABLE]))
            previous = part.exponent
            rows, columns, taps = _matrix_shape(part.n.shape)
            matrix, taken = part.n.reshape(rows, columns), np.ones((rows, columns), bool)
            if part is t:
                taken = mask.reshape(rows, columns)
                if matrix[~taken].any():
                    raise ValueError(f"{name}: the update changes more than is selected")
            _encode_tensor(coder, matrix, taps, taken, flat=kind != ADAPTIVE)
    head = {SELECTED: chosen.strategy.to_bytes(), LOW_RANK: chosen.strategy.to_bytes()}.get(kind, b"")
    return bytes([kind]) + head + coder.finish()


def _row_tables(n: np.ndarray, mask: np.ndarray) -> tuple[int, np.ndarray]:
    """Mean-magnitude table of a matrix and each row's offset to it (even steps, 0.6 octaves)."""
    base = int(table_of_mean(np.array([max(int(np.abs(n[mask]).mean() * 65536), 1)]))[0])
    sums = np.abs(n.astype(np.int64)).sum(1)
    mean = ((sums << 16) + (MEANS[base] << 1)) // (mask.sum(1) + 2)
    offset = np.clip((table_of_mean(mean) - base + 1) // 2, -MAX_OFFSET, MAX_OFFSET)
    return base, offset


def _plan(n: np.ndarray, base: int, offset: np.ndarray, taps: int, mask: np.ndarray) -> np.ndarray:
    """The tables (rows, columns) the decoder will find for a whole matrix."""
    row_table = np.clip(base + 2 * offset, 0, 63)
    context = ColumnContext(n.shape[1], taps)
    out = np.empty(n.shape, np.int64)
    for rows in blocks(n.shape[0]):
        out[rows] = context.tables(row_table[rows])
        context.learn(n[rows], row_table[rows], mask[rows])
    return out


class _Coding:
    """How a matrix is best coded: its tables, with or without offsets of its rows."""

    def __init__(self, n: np.ndarray, taps: int, mask: np.ndarray, *, flat: bool) -> None:
        self.live = mask.any(1)
        self.base, offset = _row_tables(n, mask)
        self.bits = math.inf
        for level in (False, True) if flat else (False,):
            shift = np.zeros_like(offset) if level else offset
            tables = _plan(n, self.base, shift, taps, mask)
            costs = [bank().symbol_bits(n[mask], tables[mask] + family) for family in FAMILIES]
            steps = np.diff(shift[self.live], prepend=0)
            heads = (
                0.0
                if level or len(steps) == 1 == n.shape[0]
                else bank().symbol_bits(steps, np.full(len(steps), OFFSET_TABLE))
            )
            if min(costs) + heads < self.bits:
                self.bits = min(costs) + heads
                self.family, self.flat, self.steps, self.tables = int(np.argmin(costs)), level, steps, tables


def _encode_tensor(coder: RansEncoder, n: np.ndarray, taps: int, mask: np.ndarray, *, flat: bool) -> None:
    c = _Coding(n, taps, mask, flat=flat)
    coder.put_bytes(bytes([c.base | c.family << 6 | c.flat << 7]))
    if n.shape[0] > 1 and not c.flat:
        coder.put(c.steps, np.full(len(c.steps), OFFSET_TABLE))
    for rows in blocks(n.shape[0]):
        coder.put(n[rows][mask[rows]], c.tables[rows][mask[rows]] + FAMILIES[c.family])


def selection_of(payload: bytes, model: nn.Module, folder: Path | None = None) -> Selection:
    """What an update of the network with these base weights was confined to; `decode_update` says more.

    folder: where importance scores may lie, besides the shipped ones.
    """
    if not payload or payload[0] in (SPIKE_SLAB, ADAPTIVE):
        return everything(model)
    return select(_strategy(payload)[0], model, folder=folder)


def describe_kind(payload: bytes) -> str:
    """How an update is coded and what it was confined to, for people; never fails."""
    try:
        strategy, _ = _strategy(payload)
    except CorruptBitstreamError:
        return "unknown" if payload else "empty"
    if payload[0] == SPIKE_SLAB:
        return "spike-slab"
    return "adaptive" if strategy.name == "all" else f"adaptive, {strategy}"


def _strategy(payload: bytes) -> tuple[Strategy, bytes]:
    """The selection a payload names, and its stream."""
    fields = FieldReader(payload, "model update")
    if (kind := fields.unsigned(1)) not in (SPIKE_SLAB, ADAPTIVE, SELECTED, LOW_RANK):
        raise CorruptBitstreamError(f"model update of unknown kind {kind}")
    strategy = Strategy() if kind in (SPIKE_SLAB, ADAPTIVE) else Strategy.read(fields)
    if kind != {"all": min(kind, ADAPTIVE), "low-rank": LOW_RANK}.get(strategy.name, SELECTED):
        raise CorruptBitstreamError(f"model update of kind {kind} with the selection {strategy.name}")
    return strategy, fields.rest()


def decode_update(payload: bytes, model: nn.Module, folder: Path | None = None) -> Update:
    """The update `encode_update` wrote, for a network with its base weights.

    folder: where importance scores may lie, besides the shipped ones. Raises CorruptBitstreamError for an unknown
    kind or values out of bounds, ModelError where the importance scores that the update goes by are not at hand.
    """
    if not payload:
        return Update()
    kind, (_, stream) = payload[0], _strategy(payload)
    chosen = selection_of(payload, model, folder)
    coder = RansDecoder(stream, capacity=_capacity(chosen))
    packed = np.frombuffer(coder.get_bytes((len(chosen.masks) + 7) // 8), np.uint8)
    gates = np.unpackbits(packed)[: len(chosen.masks)]
    tensors, previous = {}, 8
    for open_, (name, mask) in zip(gates, chosen.masks.items(), strict=True):
        if not open_:
            continue
        shape = mask.shape
        if kind == SPIKE_SLAB:
            tensors[name] = TensorUpdate(_bounded(coder.get(np.full(shape, SPIKE_SLAB_TABLE))), 8)
            continue
        rows, columns, taps = _matrix_shape(shape)
        if kind == LOW_RANK and is_matrix(name, mask.shape):
            left, previous = _decode_part(coder, np.ones((rows, chosen.rank), bool), 1, previous)
            right, previous = _decode_part(coder, np.ones((chosen.rank, columns), bool), 1, previous)
            if max(np.abs(left.n).max(), np.abs(right.n).max()) > MAX_FACTOR:
                raise CorruptBitstreamError("model update: a factor is out of bounds")
            tensors[name] = Factors(left, right).product(shape)
            continue
        t, previous = _decode_part(coder, mask.reshape(rows, columns), taps, previous, flat=kind != ADAPTIVE)
        tensors[name] = TensorUpdate(t.n.reshape(shape), t.exponent)
    return Update(tensors)


def _capacity(chosen: Selection) -> int:
    """At most so many symbols has an update: gates, grid exponents, heads and offsets of rows, and entries."""
    total = len(chosen.masks)
    for name, mask in chosen.masks.items():
        rows, columns, _ = _matrix_shape(mask.shape)
        if chosen.rank and is_matrix(name, mask.shape):
            total += chosen.rank * (rows + columns) + rows + chosen.rank + 4
        else:
            total += int(np.count_nonzero(mask)) + rows + 2
    return total


def _decode_part(
    coder: RansDecoder, mask: np.ndarray, taps: int, previous: int, *, flat: bool = True
) -> tuple[TensorUpdate, int]:
    """A matrix and its grid exponent, twice."""
    exponent = previous + int(coder.get(np.array([STEP_TABLE]))[0])
    if not 0 <= exponent <= MAX_STEP_EXPONENT:
        raise CorruptBitstreamError(f"model update: a grid step of 2^-{exponent} is out of bounds")
    return TensorUpdate(_bounded(_decode_tensor(coder, mask, taps, flat=flat)), exponent), exponent


def _bounded(n: np.ndarray) -> np.ndarray:
    if np.abs(n).max() > MAX_STEPS:
        raise CorruptBitstreamError("model update: a weight is out of bounds")
    return n


def _decode_tensor(coder: RansDecoder, mask: np.ndarray, taps: int, *, flat: bool) -> np.ndarray:
    rows, columns = mask.shape
    head = coder.get_bytes(1)[0]
    base, family, level = head & 63, head >> 6 & 1, bool(head >> 7)
    if level and not flat:
        raise CorruptBitstreamError(f"model update: unknown table family {head >> 6}")
    offset = np.zeros(rows, np.int64)
    live = mask.any(1)
    if rows > 1 and not level:
        offset[live] = np.cumsum(coder.get(np.full(int(live.sum()), OFFSET_TABLE)).astype(np.int64))
    if np.abs(offset).max() > MAX_OFFSET:
        raise CorruptBitstreamError("model update: a row offset is out of bounds")
    row_table = np.clip(base + 2 * offset, 0, 63)
    context = ColumnContext(columns, taps)
    n = np.zeros((rows, columns), np.int32)
    for block in blocks(rows):
        taken = mask[block]
        part = np.zeros(taken.shape, np.int32)
        part[taken] = coder.get(context.tables(row_table[block])[taken] + FAMILIES[family])
        n[block] = part
        context.learn(part, row_table[block], taken)
    return n


def tensor_bits(update: Update, model: nn.Module, selection: Selection | None = None) -> dict[str, float]:
    """Ideal bits of every tensor of an update in the adaptive coder, for reports; low rank: of its factors."""
    chosen, out = selection or everything(model), {}
    for name, mask in chosen.masks.items():
        if name in update.tensors:
            t = update.tensors[name]
            parts = [t] if t.factors is None else [t.factors.left, t.factors.right]
            out[name] = 0.0
            for part in parts:
                rows, columns, taps = _matrix_shape(part.n.shape)
                taken = mask.reshape(rows, columns) if part is t else np.ones((rows, columns), bool)
                coding = _Coding(part.n.reshape(rows, columns), taps, taken, flat=chosen.strategy != Strategy())
                out[name] += coding.bits + 8.0 + bank().bits[BYTE][0] / 8
    return out
