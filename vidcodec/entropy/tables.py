"""Integer distributions in the form that rANS takes them (`vidcodec.entropy.rans`), and what they charge.

A set of tables is a numbered list that begins with the bank's; whoever has tables of his own puts them behind. Table
`BYTE` codes plain bytes; every other one the symbols -reach .. reach and an escape, which two bytes follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache, cached_property

import numpy as np

from vidcodec.entropy.bank import BYTE, PRECISION, bank

ESCAPE_LIMIT = 1 << 15  # beyond any symbol's magnitude; an escaped symbol plus this is its two bytes
ESCAPE_BITS = 16.0
BUCKET_BITS = 8  # a table's look-up has one entry for so many top bits of a slot


class CodingTables(ABC):
    """A numbered list of integer tables, the bank's first; what follows from their frequencies is found once."""

    @property
    @abstractmethod
    def counts(self) -> tuple[np.ndarray, ...]:
        """Frequencies of every table, of sum 2^16: symbols -reach .. reach, then the escape; all above 0."""

    @cached_property
    def reach(self) -> np.ndarray:
        """Largest magnitude each table codes without escape, int64; irrelevant for bytes."""
        return np.array([(len(c) - 2) // 2 for c in self.counts], np.int64)

    @cached_property
    def first(self) -> np.ndarray:
        """Where each table begins in `cumulative`, int64."""
        return np.cumsum([0] + [len(c) + 1 for c in self.counts[:-1]])

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Cumulative frequencies of all tables, one after the other, each from 0 to 2^16; uint32."""
        return np.concatenate([np.concatenate([[0], np.cumsum(c, dtype=np.int64)]) for c in self.counts]).astype("u4")

    @cached_property
    def buckets(self) -> np.ndarray:
        """The entry that holds slot 2^8 b of each table, uint16 (tables, 2^8)."""
        slots = np.arange(1 << BUCKET_BITS) << (PRECISION - BUCKET_BITS)
        return np.stack([np.cumsum(c, dtype=np.int64).searchsorted(slots, "right") for c in self.counts]).astype("u2")

    @cached_property
    def _bits(self) -> np.ndarray:
        """Code length of every entry of every table, aligned with `cumulative`."""
        return np.concatenate([np.append(PRECISION - np.log2(c.astype(np.float64)), 0.0) for c in self.counts])

    def symbol_bits(self, symbols: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Ideal code length of each symbol under its table number, float64, shaped like both."""
        inside = np.abs(symbols) <= self.reach[table]
        entry = np.where(inside, symbols + self.reach[table], 2 * self.reach[table] + 1)
        entry = np.where(table == BYTE, symbols, entry)
        bits = self._bits[self.first[table] + entry]
        return np.where(inside | (table == BYTE), bits, bits + ESCAPE_BITS)


class _BankTables(CodingTables):
    @property
    def counts(self) -> tuple[np.ndarray, ...]:
        return bank().counts


@cache
def bank_tables() -> CodingTables:
    """The bank's tables and no others."""
    return _BankTables()
