"""Compiled loops of rANS over flat arrays.

The stream is that of a 64-bit rANS with 32-bit words (Duda 2013, arXiv 1311.2540; the layout of Giesen's rans64).
Signed arithmetic is enough: frequencies stay below 2^16, or the precision of the caller's intervals, the state below
2^63. Who finds intervals otherwise than in tables decodes in a loop of his own (`vidcodec.entropy.logistics`).

Tables come as in `vidcodec.entropy.tables`: `first`, `cumulative`, `buckets`, `reach`. Nothing is checked here; table
numbers and entries have to be in range. The constants of tables stand here once more: machine code kept on disk is
made anew when its own file changes, and has the constants in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from vidcodec.entropy.compiling import compiled

Array = np.ndarray

PRECISION = 16
BUCKET_BITS = 8
ESCAPE_LIMIT = 1 << 15
RANS_LOW = 1 << 31  # the coder's state stays in [2^31, 2^63)
WORD = 0xFFFFFFFF
SLOT = (1 << PRECISION) - 1


@compiled
def rans_encode(intervals: Array, precision: int, words: Array) -> int:
    """Codes intervals (n, 2) of 2^precision, first and size of each, last to first, into the end of `words`.

    words: uint32, n + 2. Returns where they begin.
    """
    x, at = np.int64(RANS_LOW), words.size
    for t in range(intervals.shape[0] - 1, -1, -1):
        start, size = np.int64(intervals[t, 0]), np.int64(intervals[t, 1])
        if x >= size << (63 - precision):
            at -= 1
            words[at] = x & WORD
            x >>= 32
        x = (x // size << precision) + x % size + start
    words[at - 2], words[at - 1] = x & WORD, x >> 32
    return at - 2


@njit(nogil=True, inline="always")
def _next(
    words: Array, x: Any, at: Any, table: int, first: Array, cumulative: Array, buckets: Array
) -> tuple[Any, Any, Any]:
    """One symbol: (its entry, coder state, position). Beyond the end words read as 0, and the position tells."""
    slot = x & SLOT
    entry = np.int64(buckets[table, slot >> (PRECISION - BUCKET_BITS)])
    e = first[table] + entry
    while np.int64(cumulative[e + 1]) <= slot:
        e += 1
        entry += 1
    start = np.int64(cumulative[e])
    x = (np.int64(cumulative[e + 1]) - start) * (x >> PRECISION) + slot - start
    if x < RANS_LOW:
        x <<= 32
        if at < words.size:
            x |= np.int64(words[at])
        at += 1
    return entry, x, at


@compiled
def rans_decode(
    words: Array, coder: Array, table: Array, first: Array, cumulative: Array, buckets: Array, out: Array
) -> None:
    """Entries of `table` in turn, into `out`. coder: int64 (2,), state and position, updated.

    Stops early when the words end: the position is then beyond them.
    """
    x, at = coder
    for t in range(table.size):
        out[t], x, at = _next(words, x, at, table[t], first, cumulative, buckets)
        if at > words.size:
            break
    coder[0], coder[1] = x, at


@compiled
def rans_decode_states(
    words: Array,
    coder: Array,
    table: Array,
    other: int,
    byte_table: int,
    runs: Array,
    next_state: Array,
    use: Array,
    start: int,
    first: Array,
    cumulative: Array,
    buckets: Array,
    reach: Array,
    symbols: Array,
) -> None:
    """Symbols under a machine that their parity drives, an escape's two bytes right after it, into `symbols`.

    table: that of each symbol in states of use 0; in states of use 1 it is `other` tables further on. next_state:
    uint8 (states, 2); use: uint8 (states,); every run of symbols begins in state `start`. Else as `rans_decode`.
    """
    x, at = coder
    for r in range(runs.size - 1):
        s = np.int64(start)
        for t in range(runs[r], runs[r + 1]):
            own = table[t] + other * use[s]
            k, x, at = _next(words, x, at, own, first, cumulative, buckets)
            k -= reach[own]
            if k > reach[own]:
                high, x, at = _next(words, x, at, byte_table, first, cumulative, buckets)
                low, x, at = _next(words, x, at, byte_table, first, cumulative, buckets)
                k = (high << 8 | low) - ESCAPE_LIMIT
            symbols[t] = k
            s = next_state[s, k & 1]
            if at > words.size:
                coder[0], coder[1] = x, at
                return
    coder[0], coder[1] = x, at
