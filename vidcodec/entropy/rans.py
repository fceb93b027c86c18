"""Symbols to bytes and back: rANS, over numbered integer tables or given intervals, numpy arrays in and out.

One stream for everything that is coded under tables: latents, hyper-latents, model updates. A symbol beyond its table's
reach is the table's escape and two bytes. Reads end with the payload, whatever it holds. Importing this loads no
compiler; the first symbol does (`vidcodec.entropy.rans_kernels`).
"""

from __future__ import annotations

import numpy as np

from vidcodec.entropy.bank import BYTE, PRECISION
from vidcodec.entropy.tables import ESCAPE_LIMIT, CodingTables, bank_tables
from vidcodec.errors import CorruptBitstreamError

STATES = range(1 << 31, 1 << 63)  # of the coder


def to_bytes(intervals: np.ndarray, precision: int) -> bytes:
    """A stream of intervals (n, 2) in decoding order, first and size of each, of 2^precision; uint32."""
    from vidcodec.entropy.rans_kernels import rans_encode

    words = np.empty(len(intervals) + 2, np.uint32)
    begin = rans_encode(intervals, precision, words)
    return words[begin:].astype("<u4").tobytes()


def opened(payload: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A stream as compiled loops take it: words, uint32, and the coder's state and position, int64 (2,).

    Raises CorruptBitstreamError for bytes that no encoder ends with.
    """
    if len(payload) % 4 or len(payload) < 8:
        raise CorruptBitstreamError("a payload of symbols ends within a word: it is cut off or damaged")
    words = np.frombuffer(payload, "<u4").astype(np.uint32)
    x = int(words[0]) | int(words[1]) << 32
    if x not in STATES:
        raise CorruptBitstreamError("a payload of symbols begins with a state no encoder leaves: it is damaged")
    return words, np.array([x, 2], np.int64)


def check_end(words: np.ndarray, coder: np.ndarray) -> None:
    """Raise CorruptBitstreamError where a loop has read beyond the words."""
    if coder[1] > words.size:
        raise CorruptBitstreamError("a payload ends before its symbols do: it is cut off or damaged")


class RansEncoder:
    """Collects symbols in decoding order; `finish()` gives the bytes. tables: the bank's unless others are given."""

    def __init__(self, tables: CodingTables | None = None) -> None:
        self._tables = tables or bank_tables()
        self._table: list[np.ndarray] = []
        self._entry: list[np.ndarray] = []

    def put(self, symbols: np.ndarray, table: np.ndarray, *, dependent: bool = False) -> None:
        """Append integer `symbols`, each under its `table` number (same shape).

        The bytes of escapes follow all symbols; dependent: each escape's right after it, for tables that depend on
        the symbols before. Raises ValueError for symbols beyond +-32767 and for tables there are not.
        """
        symbols, table = symbols.astype(np.int64).ravel(), _numbers(table, self._tables)
        entry, escaped = self._entries(symbols, table)
        high_low = _escape_bytes(symbols[escaped])
        if not dependent or not escaped.any():
            self._push(entry, table)
            self.put_bytes(high_low.tobytes())
            return
        at = np.arange(symbols.size) + 2 * (np.cumsum(escaped) - escaped)
        size = symbols.size + high_low.size
        entries, numbers = np.empty(size, np.int32), np.full(size, BYTE, np.int32)
        entries[at], numbers[at] = entry, table
        entries[at[escaped] + 1], entries[at[escaped] + 2] = high_low.T
        self._push(entries, numbers)

    def put_bytes(self, data: bytes) -> None:
        """Append plain bytes, 8 bits each."""
        self._push(np.frombuffer(data, np.uint8), np.full(len(data), BYTE))

    def _push(self, entry: np.ndarray, table: np.ndarray) -> None:
        self._entry.append(entry.astype(np.int32))
        self._table.append(table.astype(np.int32))

    def finish(self) -> bytes:
        """The bytes of all symbols; none at all for no symbols."""
        if not sum(e.size for e in self._entry):
            return b""
        entry = self._tables.first[np.concatenate(self._table)] + np.concatenate(self._entry)
        start = self._tables.cumulative[entry]
        return to_bytes(np.stack([start, self._tables.cumulative[entry + 1] - start], 1), PRECISION)

    def _entries(self, symbols: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entries of symbols in their tables, and which of them are escapes."""
        magnitude = np.abs(symbols)
        if symbols.size and int(magnitude.max()) >= ESCAPE_LIMIT:
            raise ValueError(f"symbol {int(symbols[magnitude.argmax()])} is beyond +-{ESCAPE_LIMIT - 1}")
        reach = self._tables.reach[table]
        is_byte = table == BYTE
        if is_byte.any() and not (symbols[is_byte] == symbols[is_byte] & 255).all():
            raise ValueError("a byte must be from 0 to 255")
        escaped = (magnitude > reach) & ~is_byte
        entry = np.where(escaped, 2 * reach + 1, symbols + reach)
        return np.where(is_byte, symbols, entry), escaped


class RansDecoder:
    """Reads what `RansEncoder` wrote, in the same order and with the same tables.

    A damaged payload gives wrong symbols, or CorruptBitstreamError where it ends too early: callers check a CRC
    before and a symbol checksum after. Symbols are at most 32768 in magnitude whatever the payload holds.
    """

    def __init__(self, payload: bytes, tables: CodingTables | None = None) -> None:
        """Raises CorruptBitstreamError for bytes that no encoder ends with."""
        self._tables = tables or bank_tables()
        self._words, self._coder = opened(payload or STATES.start.to_bytes(8, "little"))

    def get(self, table: np.ndarray) -> np.ndarray:
        """The next symbols, int32, shaped like `table` (their table numbers).

        Raises CorruptBitstreamError where the payload ends before them, ValueError for tables there are not.
        """
        flat = _numbers(table, self._tables)
        symbols, reach = self._pull(flat), self._tables.reach[flat]
        signed = flat != BYTE
        symbols[signed] -= reach[signed].astype(np.int32)
        escaped = np.flatnonzero(signed & (symbols > reach))
        if escaped.size:
            high, low = self._pull(np.full(2 * escaped.size, BYTE, np.int32)).reshape(-1, 2).T
            symbols[escaped] = (high << 8 | low) - ESCAPE_LIMIT
        return symbols.reshape(table.shape)

    def get_bytes(self, count: int) -> bytes:
        """The next bytes. Raises CorruptBitstreamError where the payload ends before them."""
        left = 4 * (self._words.size - int(self._coder[1])) + 8
        if count > left:
            raise CorruptBitstreamError(f"a payload with at most {left} bytes left is to give {count}")
        return self._pull(np.full(count, BYTE, np.int32)).astype(np.uint8).tobytes()

    def get_dependent(
        self, table: np.ndarray, other: int, runs: np.ndarray, next_state: np.ndarray, use: np.ndarray, start: int
    ) -> np.ndarray:
        """The next symbols, int32 (n,), each under the table that the parities of those before it lead to.

        table: flat, of each symbol in states of use 0; in states of use 1 it is `other` tables further on. runs:
        offsets (0, ..., n) at which the machine starts anew, in state `start`. next_state: uint8 (states, 2), by
        parity; use: uint8 (states,). Raises as `get`.
        """
        from vidcodec.entropy.rans_kernels import rans_decode_states

        t = self._tables
        flat = _numbers(table, t)
        _numbers(flat + other, t)
        symbols = np.zeros(flat.size, np.int32)
        rans_decode_states(
            self._words,
            self._coder,
            flat,
            other,
            BYTE,
            runs,
            next_state,
            use,
            start,
            t.first,
            t.cumulative,
            t.buckets,
            t.reach,
            symbols,
        )
        check_end(self._words, self._coder)
        return symbols

    def _pull(self, table: np.ndarray) -> np.ndarray:
        from vidcodec.entropy.rans_kernels import rans_decode

        t = self._tables
        out = np.zeros(table.size, np.int32)
        rans_decode(self._words, self._coder, table, t.first, t.cumulative, t.buckets, out)
        check_end(self._words, self._coder)
        return out


def _numbers(table: np.ndarray, tables: CodingTables) -> np.ndarray:
    """Table numbers, flat, int32; the compiled loops do not check them."""
    flat = table.ravel()
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < len(tables.counts):
        raise ValueError(f"tables must be numbered 0 .. {len(tables.counts) - 1}")
    return flat.astype(np.int32)


def _escape_bytes(symbols: np.ndarray) -> np.ndarray:
    """Two bytes of each, high and low, uint8 (n, 2)."""
    values = symbols + ESCAPE_LIMIT
    return np.stack([values >> 8, values & 255], 1).astype(np.uint8)
