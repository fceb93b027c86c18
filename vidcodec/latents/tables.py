"""Integer distributions of quantised symbols, and what they charge.

The bank's normal tables hold for plain rounding. A quantiser that decides by rate leaves other statistics behind,
more zeros above all, and a trellis has two quantisers of its own geometry. Their tables were measured on what the
decisions themselves leave of normal values (scripts/build_quantizer_tables.py), under the index of the same 64
scales, now in units of the quantiser's step. They ship as integers, as the bank does, and never change: a format
that wants others gives its quantisers new codes.

All tables of both are one numbered list: the bank's 194, then for every kind and set the 64 tables of each of its
quantisers, then those of flags.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from vidcodec.entropy.bank import FAMILY_SIZE, NORMAL, PRECISION, bank
from vidcodec.entropy.tables import ESCAPE_BITS, CodingTables

SETS = 4  # tables 0 .. 3 of a kind
# Quantisers of each kind; set 0 of 'scalar' is the bank's.
QUANTISERS = {"scalar": 1, "trellis4": 2, "trellis8": 2}
# Frequencies of 1 under the tables of flags, of 2^16 - 2: logistic, 0.45 apart.
FLAG_CHANCES = np.fromstring(
    """
    77 120 188 295 461 720 1122 1743 2693 4127 6249 9296 13492 18943 25516 32767 40018 46591 52042 56238 59285
    61407 62841 63791 64412 64814 65073 65239 65346 65414 65457
    """,
    np.int64,
    sep=" ",
)


def shipped() -> Iterator[tuple[str, int]]:
    """(kind, set) in the order of the file."""
    return ((kind, s) for kind in QUANTISERS for s in range(SETS) if (kind, s) != ("scalar", 0))


@dataclass(frozen=True, eq=False)
class Tables(CodingTables):
    """Integer tables; use `tables()`.

    halves[t]: frequencies of magnitudes 0 .. reach of shipped table t, then of its escape. Both signs of a
        magnitude have its frequency; with them the sum is 2^16.
    """

    halves: tuple[np.ndarray, ...]
    digest: bytes

    @property
    def with_bank_digest(self) -> bytes:
        """8 bytes naming these tables and the bank's."""
        return hashlib.sha256(bank().digest + self.digest + FLAG_CHANCES.astype("<u2").tobytes()).digest()[:8]

    def base(self, kind: str, table_set: int) -> int:
        """Number of the first table of a kind's set; the second quantiser's are 64 further on."""
        at = len(bank().counts)
        for k, s in shipped():
            if (k, s) == (kind, table_set):
                return at
            at += FAMILY_SIZE * QUANTISERS[k]
        return NORMAL

    @cached_property
    def counts(self) -> tuple[np.ndarray, ...]:
        """Frequencies of every table as the bank has them: symbols -reach .. reach, escape."""
        flags = tuple(np.array([1, (1 << PRECISION) - 2 - ones, ones, 1]) for ones in FLAG_CHANCES)
        return bank().counts + tuple(np.concatenate([h[-2:0:-1], h]) for h in self.halves) + flags

    def flag_table(self, ones: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Number of the table for flags of which `ones` in `count` were 1 so far; integers above 0, of one shape."""
        nearest = np.searchsorted((FLAG_CHANCES[1:] + FLAG_CHANCES[:-1]) // 2, (ones << PRECISION) // count)
        return len(self.counts) - len(FLAG_CHANCES) + nearest

    def rates(self, kind: str, table_set: int) -> np.ndarray:
        """Bits by quantiser, table index and magnitude, float32 (quantisers, 64, S + 2).

        S is the largest reach; magnitudes beyond a table's own cost its escape, as all beyond S do (last entry).
        """
        base = self.base(kind, table_set)
        own = [self.counts[base + t] for t in range(FAMILY_SIZE * QUANTISERS[kind])]
        bits = [PRECISION - np.log2(c[len(c) // 2 - 1 :].astype(np.float64)) for c in own]
        out = np.empty((len(own), max(len(b) for b in bits)), np.float32)
        for row, b in zip(out, bits, strict=True):
            row[:] = b[-1] + ESCAPE_BITS
            row[: len(b) - 1] = b[:-1]
        return out.reshape(QUANTISERS[kind], FAMILY_SIZE, -1)


@cache
def tables() -> Tables:
    """The tables of this version of vidcodec."""
    with np.load(Path(__file__).parent / "tables.npz", allow_pickle=False) as data:
        sizes, counts = data["sizes"], data["counts"]
    digest = hashlib.sha256(sizes.tobytes() + counts.tobytes()).digest()[:8]
    return Tables(tuple(np.split(counts, np.cumsum(sizes.astype(np.int64))[:-1])), digest)


@cache
def rates(kind: str, table_set: int) -> np.ndarray:
    """`Tables.rates` of the shipped tables."""
    return tables().rates(kind, table_set)
