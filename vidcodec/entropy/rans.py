"""rANS bytes over the shipped bank.

A thin layer on `compressai.ans`: numpy arrays in and out, our own bounded escape, and
reads that cannot run past the payload whatever it holds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from compressai import ans

from vidcodec.entropy.bank import BYTE, GEOMETRIC, bank
from vidcodec.errors import CorruptBitstreamError

ESCAPE_LIMIT = 1 << 15
# The library's flush writes past its buffer with fewer symbols (up to three words for two symbols).
MIN_SYMBOLS = 3
# The decoder's state lies in [2^31, 2^63) and takes one 32-bit word where it falls below; never one after another.
STATES = range(1 << 31, 1 << 63)
STEP = 1 << 14  # symbols read from the library at once


def _used_tables(index: np.ndarray) -> tuple[list[int], list[list[int]], list[int], list[int]]:
    """Indices and tables as the library takes them: it converts all it is given in every call (1.4 ms for the bank)."""
    used, inverse = np.unique(index, return_inverse=True)
    cdfs, sizes, offsets = bank().coder_tables
    picked = used.tolist()
    return inverse.tolist(), [cdfs[i] for i in picked], [sizes[i] for i in picked], [offsets[i] for i in picked]


class RansEncoder:
    """Collects symbols in decoding order; `finish()` gives the bytes."""

    def __init__(self) -> None:
        self._coder = ans.BufferedRansEncoder()
        self._count = 0

    def put(self, symbols: np.ndarray, index: np.ndarray) -> None:
        """Append signed integer `symbols`, each under table `index` (same shape).

        Symbols beyond +-32767 raise ValueError.
        """
        b = bank()
        symbols, index = symbols.astype(np.int64).ravel(), index.astype(np.int64).ravel()
        if symbols.size == 0:
            return
        reach = b.reach[index]
        escaped = (np.abs(symbols) > reach) & (index != BYTE)
        coded = np.where(escaped, reach + 1, symbols)
        self._push(coded, index)
        if escaped.any():
            values = symbols[escaped]
            if np.abs(values).max() >= ESCAPE_LIMIT:
                raise ValueError(f"symbol {int(values[np.abs(values).argmax()])} is beyond +-{ESCAPE_LIMIT - 1}")
            values = values + ESCAPE_LIMIT
            self.put_bytes(np.stack([values >> 8, values & 255], 1).astype(np.uint8).tobytes())

    def put_bytes(self, data: bytes) -> None:
        """Append plain bytes, 8 bits each."""
        self._push(np.frombuffer(data, np.uint8).astype(np.int64), np.full(len(data), BYTE, np.int64))

    def _push(self, symbols: np.ndarray, index: np.ndarray) -> None:
        self._coder.encode_with_indexes(symbols.tolist(), *_used_tables(index))
        self._count += symbols.size

    def finish(self) -> bytes:
        if not self._count:
            return b""
        if self._count < MIN_SYMBOLS:  # nobody reads the zeros, and they cost next to nothing
            padding = MIN_SYMBOLS - self._count
            self._push(np.zeros(padding, np.int64), np.full(padding, GEOMETRIC, np.int64))
        return self._coder.flush()


@lru_cache(maxsize=1)
def _code_lengths() -> tuple[np.ndarray, np.ndarray]:
    """Bits of all symbols of all tables in a row, and the place in it of each table's symbol 0."""
    lengths = bank().bits
    starts = np.cumsum([0, *(len(x) for x in lengths[:-1])])
    return np.concatenate(lengths), starts - np.array(bank().coder_tables[2])


class RansDecoder:
    """Reads what `RansEncoder` wrote, in the same order and with the same indices.

    A damaged payload gives wrong symbols (rANS carries no redundancy), or CorruptBitstreamError where they take more
    bits than it has: callers check a CRC before and a symbol checksum after.
    """

    def __init__(self, payload: bytes, capacity: int) -> None:
        """capacity: an upper bound on the number of symbols that will be read."""
        self._left = 3 * capacity + 64
        self._whole = int.from_bytes(payload[:8].ljust(8, b"\0"), "little") in STATES
        # n symbols whose code lengths add up to b bits take at most b / 32 + 1 words, but for roundings of the state,
        # of less than 2^-14 bits each.
        slack = 64 + (self._left >> 14)
        self._bits = float(8 * len(payload) + slack)
        self._coder = ans.RansDecoder()
        # The library reads without a bound: a word a symbol of one step, after all that may be taken before it.
        self._coder.set_stream(payload + bytes(4 * STEP + slack + 64))

    def get(self, index: np.ndarray) -> np.ndarray:
        """The next symbols, int32, shaped like `index` (their tables)."""
        b = bank()
        flat = index.astype(np.int64).ravel()
        symbols = self._pull(flat)
        escaped = np.flatnonzero((symbols > b.reach[flat]) & (flat != BYTE))
        if escaped.size:
            high, low = np.frombuffer(self.get_bytes(2 * escaped.size), np.uint8).reshape(-1, 2).astype(np.int32).T
            symbols[escaped] = (high << 8 | low) - ESCAPE_LIMIT
        return symbols.reshape(index.shape)

    def get_bytes(self, count: int) -> bytes:
        return self._pull(np.full(count, BYTE, np.int64)).astype(np.uint8).tobytes()

    def _pull(self, index: np.ndarray) -> np.ndarray:
        self._left -= index.size
        if self._left < 0:
            raise CorruptBitstreamError("a payload asks for more symbols than it can hold")
        out = np.zeros(index.size, np.int32)
        lengths, zeros = _code_lengths()
        for start in range(0, index.size, STEP):
            tables = index[start : start + STEP]
            if not self._whole or self._bits < 0:
                raise CorruptBitstreamError("a payload ends before its symbols do: it is cut off or damaged")
            symbols = np.array(self._coder.decode_stream(*_used_tables(tables)), np.int32)
            self._bits -= float(lengths[zeros[tables] + symbols].sum())
            out[start : start + STEP] = symbols
        return out
