"""Model updates as bytes.

Payload: one byte for the kind, then one rANS stream over the shipped bank. Tensors stand
in the order of `sent_parameters`; a gate per tensor says whether it changes at all.

    kind 0  spike and slab: every weight of every open tensor under one fixed table
    kind 1  adaptive: per tensor a grid exponent and a mean magnitude, per row (output
            channel) an offset to it, per column an offset learned from the rows already
            coded; the symbol tables are two-sided geometrics of the resulting mean
    kind 2  the same for a selection of parameters (`vidcodec.updates.selection`), named in the bytes that follow: only
            tensors of which it takes something have gates, only entries it takes are coded, and offsets of rows may
            be left out
    kind 3  the selection low-rank: per matrix a rank, 0 for whole, up to the one selected; two factors, each with an
            exponent of its own and coded like a tensor, one row per output or input channel and one column per
            component (and tap); their product, in steps of both grids' product, is the update. Tables may also be
            those of normal distributions: entries of a factor are rarely zero

Everything that chooses a table is integer arithmetic. Rows are coded in blocks, so that
encoder and decoder work on whole arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import nn

from vidcodec.bitstream.fields import FieldReader
from vidcodec.entropy.bank import BYTE, FAMILY_SIZE, GEOMETRIC, HEAVY, NORMAL, bank
from vidcodec.entropy.bank import SPIKE_SLAB as SPIKE_SLAB_TABLE
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError
from vidcodec.updates.selection import Selection, Strategy, everything, select
from vidcodec.updates.update import (
    MAX_FACTOR,
    MAX_STEP_EXPONENT,
    MAX_STEPS,
    Factors,
    TensorUpdate,
    Update,
    is_matrix,
)

SPIKE_SLAB = 0
ADAPTIVE = 1
SELECTED = 2
LOW_RANK = 3

BLOCK = 16
MAX_OFFSET = 12
FACTOR_FAMILIES = (GEOMETRIC, HEAVY, NORMAL)  # of kind 3; the others have the first two
# Table k stands for a mean magnitude of 2^(-12 + 0.3 k); here times 2^16, rounded.
MEANS = np.fromstring(
    """
    16 20 24 30 37 45 56 69 84 104 128 158 194 239 294 362 446 549 676 832 1024 1261 1552 1911 2353 2896 3566
    4390 5405 6654 8192 10086 12417 15287 18820 23170 28526 35120 43238 53232 65536 80684 99334 122295 150562
    185364 228210 280960 345903 425856 524288 645474 794672 978356 1204498 1482910 1825677 2247673 2767208
    3406835 4194304 5163797 6357398 7826916
    """,
    np.int64,
    sep=" ",
)
# Geometric midpoints between the means: the table of a mean is how many it exceeds.
MIDPOINTS = np.fromstring(
    """
    18 22 27 33 41 50 62 76 94 115 142 175 215 265 326 402 495 609 750 923 1136 1399 1722 2121 2611 3214 3957
    4871 5997 7383 9090 11191 13777 16962 20882 25709 31652 38968 47975 59064 72716 89525 110218 135694 167059
    205674 253213 311744 383802 472516 581737 716203 881751 1085563 1336488 1645411 2025740 2493980 3070454
    3780178 4653948 5729687 7054078
    """,
    np.int64,
    sep=" ",
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


@lru_cache(maxsize=1)
def _normals() -> np.ndarray:
    """By table of a mean magnitude (64,): the normal table whose mean magnitude is nearest."""
    sums = []
    for i in range(NORMAL, NORMAL + FAMILY_SIZE):
        reach = int(bank().reach[i])
        sums.append(int(np.abs(np.arange(-reach, reach + 1)) @ bank().counts[i][:-1].astype(np.int64)))
    return np.abs(np.array(sums, np.int64)[None] - MEANS[:, None]).argmin(1) + NORMAL


def _bank_tables(tables: np.ndarray, family: int) -> np.ndarray:
    """Tables of the bank for tables of mean magnitudes (0 .. 63); family: place in `FACTOR_FAMILIES`."""
    return _normals()[tables] if FACTOR_FAMILIES[family] == NORMAL else tables + FACTOR_FAMILIES[family]


OFFSET_TABLE = GEOMETRIC + 42  # row offsets: mean magnitude about 1.5
STEP_TABLE = GEOMETRIC + 42  # differences of grid exponents, and of ranks
FAMILY_TABLE = GEOMETRIC + 36  # of factors: mean magnitude about 0.4


def encode_update(update: Update, model: nn.Module, kind: int = ADAPTIVE, selection: Selection | None = None) -> bytes:
    """Bytes of an update; empty for no update.

    kind: SPIKE_SLAB, or ADAPTIVE, which a selection turns into SELECTED or LOW_RANK. selection: what the update was
    confined to; without one, or with 'all', every parameter that travels. Raises ValueError for what is not in the
    selection, steps that are not whole numbers in bounds, and (kind 0) for a selection or other steps than 2^-8.
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
    for name, t in update.tensors.items():
        for factor in (t,) if t.factors is None else (t.factors.left, t.factors.right):
            _check_steps(name, factor.n, MAX_STEPS if t.factors is None else MAX_FACTOR)
    coder = RansEncoder()
    coder.put_bytes(np.packbits([n in update.tensors for n in chosen.masks]).tobytes())
    previous, rank = 8, 0
    for name, mask in chosen.masks.items():
        if name not in update.tensors:
            continue
        t = update.tensors[name]
        if kind == SPIKE_SLAB:
            if t.exponent != 8:
                raise ValueError(f"spike and slab codes steps of 2^-8, not 2^-{t.exponent}")
            coder.put(t.n, np.full(t.n.shape, SPIKE_SLAB_TABLE))
            continue
        if kind == LOW_RANK and is_matrix(name, mask.shape):
            now = t.factors.rank if t.factors else 0
            if now > chosen.rank:
                raise ValueError(f"{name}: of rank {now}, where {chosen.rank} is selected")
            coder.put(np.array([now - rank]), np.array([STEP_TABLE]))
            rank = now
        for part in _parts(t, mask):
            coder.put(np.array([part.exponent - previous]), np.array([STEP_TABLE]))
            previous = part.exponent
            if part.n[~part.mask].any():
                raise ValueError(f"{name}: the update changes more than is selected")
            _encode_tensor(coder, part, kind)
    head = {SELECTED: chosen.strategy.to_bytes(), LOW_RANK: chosen.strategy.to_bytes()}.get(kind, b"")
    return bytes([kind]) + head + coder.finish()


def _check_steps(name: str, n: np.ndarray, limit: int) -> None:
    """Whether an update can be coded; NaN and infinity end here, or as the least integer where they were cast."""
    if not np.isfinite(n).all():
        raise ValueError(f"the update of {name} is not finite")
    if not np.issubdtype(n.dtype, np.integer) or (n.size and max(-int(n.min()), int(n.max())) > limit):
        raise ValueError(f"the update of {name} must be whole numbers of steps within +-{limit}")


@dataclass(frozen=True, eq=False)
class _Part:
    """What is coded as one matrix: n and mask (rows, columns), neighbours of `taps` columns of one kind."""

    n: np.ndarray
    exponent: int
    taps: int
    mask: np.ndarray


def _parts(t: TensorUpdate, mask: np.ndarray) -> list[_Part]:
    """A tensor whole, or its two factors: (outputs, rank) and (inputs, rank * taps)."""
    if t.factors is None:
        rows, columns, taps = _matrix_shape(mask.shape)
        return [_Part(t.n.reshape(rows, columns), t.exponent, taps, mask.reshape(rows, columns))]
    left, right = t.factors.left, t.factors.right
    rank, taps = t.factors.rank, _matrix_shape(mask.shape)[2]
    by_input = right.n.reshape(rank, -1, taps).transpose(1, 0, 2).reshape(-1, rank * taps)
    return [
        _Part(left.n, left.exponent, 1, np.ones(left.n.shape, bool)),
        _Part(by_input, right.exponent, taps, np.ones(by_input.shape, bool)),
    ]


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
    """How a part is best coded: its tables, with or without offsets of its rows."""

    def __init__(self, part: _Part, kind: int) -> None:
        n, mask = part.n, part.mask
        self.live = mask.any(1)
        self.base, offset = _row_tables(n, mask)
        self.bits = math.inf
        families = range(len(FACTOR_FAMILIES) if kind == LOW_RANK else 2)
        for level in (False, True) if kind != ADAPTIVE else (False,):
            shift = np.zeros_like(offset) if level else offset
            tables = _plan(n, self.base, shift, part.taps, mask)
            costs = [bank().symbol_bits(n[mask], _bank_tables(tables[mask], family)) for family in families]
            steps = np.diff(shift[self.live], prepend=0)
            heads = (
                0.0
                if level or len(steps) == 1 == n.shape[0]
                else bank().symbol_bits(steps, np.full(len(steps), OFFSET_TABLE))
            )
            if min(costs) + heads < self.bits:
                self.bits = min(costs) + heads
                self.family, self.flat, self.steps, self.tables = int(np.argmin(costs)), level, steps, tables


def _encode_tensor(coder: RansEncoder, part: _Part, kind: int) -> None:
    c, n, mask = _Coding(part, kind), part.n, part.mask
    if kind == LOW_RANK:
        coder.put(np.array([c.family]), np.array([FAMILY_TABLE]))
    coder.put_bytes(bytes([c.base | (c.family << 6 if kind != LOW_RANK else 0) | c.flat << 7]))
    if n.shape[0] > 1 and not c.flat:
        coder.put(c.steps, np.full(len(c.steps), OFFSET_TABLE))
    for rows in blocks(n.shape[0]):
        coder.put(n[rows][mask[rows]], _bank_tables(c.tables[rows][mask[rows]], c.family))


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
    coder = RansDecoder(stream)
    packed = np.frombuffer(coder.get_bytes((len(chosen.masks) + 7) // 8), np.uint8)
    gates = np.unpackbits(packed)[: len(chosen.masks)]
    tensors, previous, rank = {}, 8, 0
    for open_, (name, mask) in zip(gates, chosen.masks.items(), strict=True):
        if not open_:
            continue
        shape = mask.shape
        if kind == SPIKE_SLAB:
            tensors[name] = TensorUpdate(_bounded(coder.get(np.full(shape, SPIKE_SLAB_TABLE))), 8)
            continue
        rows, columns, taps = _matrix_shape(shape)
        if kind == LOW_RANK and is_matrix(name, shape):
            rank += int(coder.get(np.array([STEP_TABLE]))[0])
            if not 0 <= rank <= chosen.rank:
                raise CorruptBitstreamError(f"model update: a rank of {rank} is out of bounds")
            if rank:
                left, previous = _decode_part(coder, np.ones((rows, rank), bool), 1, previous, kind)
                inputs = columns // taps
                right, previous = _decode_part(coder, np.ones((inputs, rank * taps), bool), taps, previous, kind)
                if max(np.abs(left.n).max(), np.abs(right.n).max()) > MAX_FACTOR:
                    raise CorruptBitstreamError("model update: a factor is out of bounds")
                n = right.n.reshape(inputs, rank, taps).transpose(1, 0, 2).reshape(rank, columns)
                tensors[name] = Factors(left, TensorUpdate(n, right.exponent)).product(shape)
                continue
        t, previous = _decode_part(coder, mask.reshape(rows, columns), taps, previous, kind)
        tensors[name] = TensorUpdate(t.n.reshape(shape), t.exponent)
    return Update(tensors)


def _decode_part(coder: RansDecoder, mask: np.ndarray, taps: int, previous: int, kind: int) -> tuple[TensorUpdate, int]:
    """A matrix and its grid exponent, twice."""
    exponent = previous + int(coder.get(np.array([STEP_TABLE]))[0])
    if not 0 <= exponent <= MAX_STEP_EXPONENT:
        raise CorruptBitstreamError(f"model update: a grid step of 2^-{exponent} is out of bounds")
    return TensorUpdate(_bounded(_decode_tensor(coder, mask, taps, kind)), exponent), exponent


def _bounded(n: np.ndarray) -> np.ndarray:
    if np.abs(n).max() > MAX_STEPS:
        raise CorruptBitstreamError("model update: a weight is out of bounds")
    return n


def _decode_tensor(coder: RansDecoder, mask: np.ndarray, taps: int, kind: int) -> np.ndarray:
    rows, columns = mask.shape
    named = int(coder.get(np.array([FAMILY_TABLE]))[0]) if kind == LOW_RANK else 0
    head = coder.get_bytes(1)[0]
    base, family, level = head & 63, (head >> 6 & 1) + named, bool(head >> 7)
    if (level and kind == ADAPTIVE) or not 0 <= family < len(FACTOR_FAMILIES):
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
        part[taken] = coder.get(_bank_tables(context.tables(row_table[block])[taken], family))
        n[block] = part
        context.learn(part, row_table[block], taken)
    return n


def tensor_bits(update: Update, model: nn.Module, selection: Selection | None = None) -> dict[str, float]:
    """Ideal bits of every tensor of an update in the adaptive coder, for reports; low rank: of its factors."""
    chosen, out = selection or everything(model), {}
    kind = LOW_RANK if chosen.rank else SELECTED if chosen.strategy != Strategy() else ADAPTIVE
    for name, mask in chosen.masks.items():
        if name in update.tensors:
            parts = _parts(update.tensors[name], mask)
            out[name] = sum(_Coding(part, kind).bits + 8.0 + bank().bits[BYTE][0] / 8 for part in parts)
    return out
