"""rANS whose tables may depend on the symbols just coded.

The stream is that of `vidcodec.entropy.rans`, byte for byte from three symbols on: a file may be written by one and
read by the other. What this coder adds: symbols of a trellis, each under the quantiser that the symbols before it
lead to; reads that end with the payload; speed.
"""

from __future__ import annotations

import numpy as np

from vidcodec.entropy.bank import BYTE, FAMILY_SIZE
from vidcodec.errors import CorruptBitstreamError
from vidcodec.quantize.quantizer import SYMBOL_LIMIT, Quantizer, coded_runs, states
from vidcodec.quantize.tables import ESCAPE_ZERO, tables


class SymbolEncoder:
    """Collects symbols in decoding order; `finish()` gives the bytes."""

    def __init__(self) -> None:
        self._table: list[np.ndarray] = []
        self._entry: list[np.ndarray] = []

    def put(self, symbols: np.ndarray, table: np.ndarray) -> None:
        """Append integer `symbols`, each under its `table` number (same shape); escapes' bytes follow them all.

        Raises ValueError for symbols beyond +-32767.
        """
        table = table.astype(np.int32).ravel()
        entry, escaped = _entries(symbols.astype(np.int64).ravel(), table)
        self._push(entry, table)
        if escaped.any():
            self.put_bytes(_escape_bytes(symbols.ravel()[escaped]).tobytes())

    def put_bytes(self, data: bytes) -> None:
        """Append plain bytes, 8 bits each."""
        self._push(np.frombuffer(data, np.uint8), np.full(len(data), BYTE))

    def put_quantised(
        self, quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None
    ) -> None:
        """Append the symbols of `quantise` (any shape) where their index is not 0, runs as given there.

        Raises ValueError for symbols beyond +-32767, shapes, indices or runs that do not fit.
        """
        table = quantizer.table(index, states(quantizer, symbols, index, runs))[index > 0]
        symbols = symbols[index > 0].astype(np.int64)
        if quantizer.machine is None:
            self.put(symbols, table)
            return
        entry, escaped = _entries(symbols, table)
        # The next symbol's table depends on an escaped symbol: its bytes come right after it.
        at = np.arange(symbols.size) + 2 * (np.cumsum(escaped) - escaped)
        size = symbols.size + 2 * int(escaped.sum())
        entries, numbers = np.empty(size, np.int32), np.full(size, BYTE, np.int32)
        entries[at], numbers[at] = entry, table
        high, low = _escape_bytes(symbols[escaped]).T
        entries[at[escaped] + 1], entries[at[escaped] + 2] = high, low
        self._push(entries, numbers)

    def _push(self, entry: np.ndarray, table: np.ndarray) -> None:
        self._entry.append(entry.astype(np.int32))
        self._table.append(table.astype(np.int32))

    def finish(self) -> bytes:
        """The bytes of all symbols; none at all for no symbols."""
        if not sum(e.size for e in self._entry):
            return b""
        from vidcodec.quantize.kernels import rans_encode

        table, entry = np.concatenate(self._table), np.concatenate(self._entry)
        words = np.empty(entry.size + 2, np.uint32)
        begin = rans_encode(table, entry, tables().first, tables().cumulative, words)
        return words[begin:].astype("<u4").tobytes()


class SymbolDecoder:
    """Reads what `SymbolEncoder` wrote, in the same order and with the same tables.

    A damaged payload gives wrong symbols, or CorruptBitstreamError where it ends too early: callers check a CRC
    before and a symbol checksum after. Symbols are at most 32768 in magnitude whatever the payload holds.
    """

    def __init__(self, payload: bytes) -> None:
        """Raises CorruptBitstreamError for bytes that no encoder ends with."""
        if len(payload) % 4 or len(payload) == 4:
            raise CorruptBitstreamError("a payload of symbols ends within a word: it is cut off or damaged")
        self._words = np.frombuffer(payload, "<u4").astype(np.uint32)
        x = int(self._words[0]) | int(self._words[1]) << 32 if len(payload) else 1 << 31
        if not 1 << 31 <= x < 1 << 63:
            raise CorruptBitstreamError("a payload of symbols begins with a state no encoder leaves: it is damaged")
        self._coder = np.array([x, min(2, self._words.size)], np.int64)

    def get(self, table: np.ndarray) -> np.ndarray:
        """The next symbols, int32, shaped like `table` (their table numbers)."""
        t = tables()
        flat = table.astype(np.int32).ravel()
        symbols = self._pull(flat)
        signed = flat != BYTE
        symbols[signed] -= t.reach[flat[signed]].astype(np.int32)
        escaped = np.flatnonzero(signed & (symbols > t.reach[flat]))
        if escaped.size:
            high, low = self._pull(np.full(2 * escaped.size, BYTE, np.int32)).reshape(-1, 2).T
            symbols[escaped] = (high << 8 | low) - ESCAPE_ZERO
        return symbols.reshape(table.shape)

    def get_bytes(self, count: int) -> bytes:
        left = 4 * (self._words.size - int(self._coder[1])) + 8
        if count > left:
            raise CorruptBitstreamError(f"a payload with at most {left} bytes left is to give {count}")
        return self._pull(np.full(count, BYTE, np.int32)).astype(np.uint8).tobytes()

    def get_quantised(self, quantizer: Quantizer, index: np.ndarray, runs: np.ndarray | None = None) -> np.ndarray:
        """The next symbols of a quantiser, int32, shaped like `index`, 0 where that is 0.

        Raises ValueError for runs that do not fit.
        """
        out = np.zeros(index.shape, np.int32)
        table = quantizer.table(index)[index > 0]
        if quantizer.machine is None:
            out[index > 0] = self.get(table)
            return out
        from vidcodec.quantize.kernels import rans_decode_trellis

        t = tables()
        symbols = np.zeros(table.size, np.int32)
        rans_decode_trellis(
            self._words,
            self._coder,
            table,
            FAMILY_SIZE,
            BYTE,
            coded_runs(index, runs)[1],
            *quantizer.machine,
            t.first,
            t.cumulative,
            t.buckets,
            t.reach,
            symbols,
        )
        self._check_end()
        out[index > 0] = symbols
        return out

    def _pull(self, table: np.ndarray) -> np.ndarray:
        from vidcodec.quantize.kernels import rans_decode

        t = tables()
        out = np.zeros(table.size, np.int32)
        rans_decode(self._words, self._coder, table, t.first, t.cumulative, t.buckets, out)
        self._check_end()
        return out

    def _check_end(self) -> None:
        if self._coder[1] > self._words.size:
            raise CorruptBitstreamError("a payload ends before its symbols: it is cut off or damaged")


def _entries(symbols: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries of symbols in their tables, and which of them are escapes."""
    if symbols.size and int(np.abs(symbols).max()) > SYMBOL_LIMIT:
        raise ValueError(f"symbol {int(symbols[np.abs(symbols).argmax()])} is beyond +-{SYMBOL_LIMIT}")
    reach = tables().reach[table]
    is_byte = table == BYTE
    escaped = (np.abs(symbols) > reach) & ~is_byte
    entry = np.where(escaped, 2 * reach + 1, symbols + reach)
    return np.where(is_byte, symbols, entry), escaped


def _escape_bytes(symbols: np.ndarray) -> np.ndarray:
    """Two bytes of each, high and low, uint8 (n, 2)."""
    values = symbols + ESCAPE_ZERO
    return np.stack([values >> 8, values & 255], 1).astype(np.uint8)
