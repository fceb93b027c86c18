"""Model updates as bytes.

Payload: one byte for the kind, then one rANS stream over the shipped bank. Tensors stand
in the order of `sent_parameters`; a gate per tensor says whether it changes at all.

    kind 0  spike and slab: every weight of every open tensor under one fixed table
    kind 1  adaptive: per tensor a grid exponent and a mean magnitude, per row (output
            channel) an offset to it, per column an offset learned from the rows already
            coded; the symbol tables are two-sided geometrics of the resulting mean

Everything that chooses a table is integer arithmetic. Rows are coded in blocks, so that
encoder and decoder work on whole arrays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from vidcodec.adapt.update import MAX_STEP_EXPONENT, MAX_STEPS, TensorUpdate, Update, sent_parameters
from vidcodec.entropy.bank import BYTE, GEOMETRIC, HEAVY, bank
from vidcodec.entropy.bank import SPIKE_SLAB as SPIKE_SLAB_TABLE
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError

SPIKE_SLAB = 0
ADAPTIVE = 1

BLOCK = 16
MAX_OFFSET = 12
FAMILIES = (GEOMETRIC, HEAVY)
# Table k stands for a mean magnitude of 2^(-12 + 0.3 k); here times 2^16, rounded.
MEANS = np.array([
    16, 20, 24, 30, 37, 45, 56, 69, 84, 104, 128, 158, 194, 239, 294, 362, 446, 549, 676, 832, 1024, 1261,
    1552, 1911, 2353, 2896, 3566, 4390, 5405, 6654, 8192, 10086, 12417, 15287, 18820, 23170, 28526, 35120,
    43238, 53232, 65536, 80684, 99334, 122295, 150562, 185364, 228210, 280960, 345903, 425856, 524288,
    645474, 794672, 978356, 1204498, 1482910, 1825677, 2247673, 2767208, 3406835, 4194304, 5163797, 6357398, 7826916,
], np.int64)  # fmt: skip
# Geometric midpoints between the means: the table of a mean is how many it exceeds.
MIDPOINTS = np.array([
    18, 22, 27, 33, 41, 50, 62, 76, 94, 115, 142, 175, 215, 265, 326, 402, 495, 609, 750, 923, 1136, 1399, 1722,
    2121, 2611, 3214, 3957, 4871, 5997, 7383, 9090, 11191, 13777, 16962, 20882, 25709, 31652, 38968, 47975,
    59064, 72716, 89525, 110218, 135694, 167059, 205674, 253213, 311744, 383802, 472516, 581737, 716203,
    881751, 1085563, 1336488, 1645411, 2025740, 2493980, 3070454, 3780178, 4653948, 5729687, 7054078,
], np.int64)  # fmt: skip


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

    def learn(self, n: np.ndarray, row_table: np.ndarray) -> None:
        self.seen += np.minimum(np.abs(n.astype(np.int64)), 255).sum(0) << 16
        self.expected += int(MEANS[row_table].sum())


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(rows, columns, taps) of a parameter; vectors are one row, tables (levels, width) as they are."""
    if len(shape) == 1:
        return 1, shape[0], 1
    columns = int(np.prod(shape[1:]))
    return shape[0], columns, int(np.prod(shape[2:])) if len(shape) > 2 else 1


OFFSET_TABLE = GEOMETRIC + 42  # row offsets: mean magnitude about 1.5
STEP_TABLE = GEOMETRIC + 42  # differences of grid exponents


def encode_update(update: Update, model: nn.Module, kind: int = ADAPTIVE) -> bytes:
    """Bytes of an update; empty for no update.

    Raises ValueError for tensors the model does not send, or (kind 0) other steps than 2^-8.
    """
    if not update:
        return b""
    names = [n for n, _ in sent_parameters(model)]
    if unknown := set(update.tensors) - set(names):
        raise ValueError(f"not parameters that travel: {', '.join(sorted(unknown))}")
    coder = RansEncoder()
    gates = np.array([n in update.tensors for n in names])
    coder.put_bytes(np.packbits(gates).tobytes())
    previous = 8
    for name, shape in ((n, tuple(p.shape)) for n, p in sent_parameters(model)):
        if name not in update.tensors:
            continue
        t = update.tensors[name]
        if kind == SPIKE_SLAB:
            if t.exponent != 8:
                raise ValueError(f"spike and slab codes steps of 2^-8, not 2^-{t.exponent}")
            coder.put(t.n, np.full(t.n.shape, SPIKE_SLAB_TABLE))
            continue
        coder.put(np.array([t.exponent - previous]), np.array([STEP_TABLE]))
        previous = t.exponent
        _encode_tensor(coder, t.n.reshape(_matrix_shape(shape)[:2]), _matrix_shape(shape)[2])
    return bytes([kind]) + coder.finish()


def _row_tables(n: np.ndarray) -> tuple[int, np.ndarray]:
    """Mean-magnitude table of a matrix and each row's offset to it (even steps, 0.6 octaves)."""
    base = int(table_of_mean(np.array([max(int(np.abs(n).mean() * 65536), 1)]))[0])
    sums = np.abs(n.astype(np.int64)).sum(1)
    mean = ((sums << 16) + (MEANS[base] << 1)) // (n.shape[1] + 2)
    offset = np.clip((table_of_mean(mean) - base + 1) // 2, -MAX_OFFSET, MAX_OFFSET)
    return base, offset


def _plan(n: np.ndarray, base: int, offset: np.ndarray, taps: int) -> np.ndarray:
    """The tables (rows, columns) the decoder will find for a whole matrix."""
    row_table = np.clip(base + 2 * offset, 0, 63)
    context = ColumnContext(n.shape[1], taps)
    out = np.empty(n.shape, np.int64)
    for rows in blocks(n.shape[0]):
        out[rows] = context.tables(row_table[rows])
        context.learn(n[rows], row_table[rows])
    return out


def _encode_tensor(coder: RansEncoder, n: np.ndarray, taps: int) -> None:
    base, offset = _row_tables(n)
    tables = _plan(n, base, offset, taps)
    costs = [bank().symbol_bits(n, tables + family) for family in FAMILIES]
    family = int(np.argmin(costs))
    coder.put_bytes(bytes([base | family << 6]))
    if n.shape[0] > 1:
        coder.put(np.diff(offset, prepend=0), np.full(len(offset), OFFSET_TABLE))
    for rows in blocks(n.shape[0]):
        coder.put(n[rows], tables[rows] + FAMILIES[family])


def decode_update(payload: bytes, model: nn.Module) -> Update:
    """The update `encode_update` wrote.

    Raises CorruptBitstreamError for an unknown kind or values out of bounds.
    """
    if not payload:
        return Update()
    kind = payload[0]
    if kind not in (SPIKE_SLAB, ADAPTIVE):
        raise CorruptBitstreamError(f"model update of unknown kind {kind}")
    parameters = [(n, tuple(p.shape)) for n, p in sent_parameters(model)]
    total = sum(int(np.prod(s)) + s[0] + 8 for _, s in parameters)
    coder = RansDecoder(payload[1:], capacity=total)
    packed = np.frombuffer(coder.get_bytes((len(parameters) + 7) // 8), np.uint8)
    gates = np.unpackbits(packed)[: len(parameters)]
    tensors, previous = {}, 8
    for open_, (name, shape) in zip(gates, parameters, strict=True):
        if not open_:
            continue
        if kind == SPIKE_SLAB:
            tensors[name] = TensorUpdate(_bounded(coder.get(np.full(shape, SPIKE_SLAB_TABLE))), 8)
            continue
        previous += int(coder.get(np.array([STEP_TABLE]))[0])
        if not 0 <= previous <= MAX_STEP_EXPONENT:
            raise CorruptBitstreamError(f"model update: a grid step of 2^-{previous} is out of bounds")
        rows, columns, taps = _matrix_shape(shape)
        n = _bounded(_decode_tensor(coder, rows, columns, taps))
        tensors[name] = TensorUpdate(n.reshape(shape), previous)
    return Update(tensors)


def _bounded(n: np.ndarray) -> np.ndarray:
    if np.abs(n).max() > MAX_STEPS:
        raise CorruptBitstreamError("model update: a weight is out of bounds")
    return n


def _decode_tensor(coder: RansDecoder, rows: int, columns: int, taps: int) -> np.ndarray:
    head = coder.get_bytes(1)[0]
    base, family = head & 63, head >> 6
    if family >= len(FAMILIES):
        raise CorruptBitstreamError(f"model update: unknown table family {family}")
    offset = np.zeros(1, np.int64)
    if rows > 1:
        offset = np.cumsum(coder.get(np.full(rows, OFFSET_TABLE)).astype(np.int64))
    if np.abs(offset).max() > MAX_OFFSET:
        raise CorruptBitstreamError("model update: a row offset is out of bounds")
    row_table = np.clip(base + 2 * offset, 0, 63)
    context = ColumnContext(columns, taps)
    n = np.empty((rows, columns), np.int32)
    for block in blocks(rows):
        n[block] = coder.get(context.tables(row_table[block]) + FAMILIES[family])
        context.learn(n[block], row_table[block])
    return n


def tensor_bits(update: Update, model: nn.Module) -> dict[str, float]:
    """Ideal bits of every tensor of an update in the adaptive coder, for reports."""
    out = {}
    for name, shape in ((n, tuple(p.shape)) for n, p in sent_parameters(model)):
        if name in update.tensors:
            rows, columns, taps = _matrix_shape(shape)
            n = update.tensors[name].n.reshape(rows, columns)
            base, offset = _row_tables(n)
            tables = _plan(n, base, offset, taps)
            symbols = min(bank().symbol_bits(n, tables + f) for f in FAMILIES)
            heads = bank().symbol_bits(np.diff(offset, prepend=0), np.full(rows, OFFSET_TABLE)) if rows > 1 else 0.0
            out[name] = symbols + heads + 8.0 + bank().bits[BYTE][0] / 8
    return out
