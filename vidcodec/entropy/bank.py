"""The shipped bank of integer distributions: one for y, z and the model update.

Tables, by index:

    0 .. 63      zero-mean normal, standard deviation by `vidcodec.entropy.scales`
    64 .. 127    two-sided geometric, mean magnitude 2^(-12 + 0.3 k)
    128 .. 191   the same with a heavier tail
    192          a plain byte, 0 .. 255, all equally likely
    193          spike and slab, t = 2^-8, sigma = 0.05, alpha = 1000

Each holds integer frequencies with sum 2^16 for the symbols -m .. m and one escape; a
larger symbol is coded as the escape followed by bytes. The bank is data
(`bank.npz`, built by scripts/build_cdf_bank.py), named in every stream by its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

NORMAL = 0
GEOMETRIC = 64
HEAVY = 128
BYTE = 192
SPIKE_SLAB = 193
TABLES = 194
FAMILY_SIZE = 64
PRECISION = 16


@dataclass(frozen=True, eq=False)
class Bank:
    """Integer tables; use `bank()`.

    counts[i]: frequencies of table i, sum 2^16; the last of a signed table is its escape.
    log_magnitude: 256 * log2(1 + m), rounded, for m = 0 .. 1023 (input of the scale path).
    """

    counts: tuple[np.ndarray, ...]
    log_magnitude: np.ndarray
    digest: bytes

    @cached_property
    def reach(self) -> np.ndarray:
        """Largest magnitude each signed table codes without escape, int32 (TABLES,)."""
        return np.array([(len(c) - 2) // 2 for c in self.counts], np.int32)

    @cached_property
    def bits(self) -> tuple[np.ndarray, ...]:
        """Code length of every symbol of every table, in bits, float64."""
        return tuple(PRECISION - np.log2(c.astype(np.float64)) for c in self.counts)

    def symbol_bits(self, symbols: np.ndarray, index: np.ndarray) -> float:
        """Ideal code length of `symbols` (any shape) under table `index` of each, in bits."""
        total = 0.0
        symbols, index = symbols.ravel(), index.ravel()
        for i in np.unique(index):
            q = symbols[index == i]
            m = int(self.reach[i])
            inside = np.abs(q) <= m
            total += float(self.bits[i][q[inside] + m].sum())
            total += int((~inside).sum()) * (float(self.bits[i][-1]) + 16.0)
        return total


@lru_cache(maxsize=1)
def bank() -> Bank:
    """The bank of this version of vidcodec."""
    with np.load(Path(__file__).parent / "bank.npz", allow_pickle=False) as data:
        sizes, counts, log_magnitude = data["sizes"], data["counts"], data["log_magnitude"]
    digest = hashlib.sha256(sizes.tobytes() + counts.tobytes() + log_magnitude.tobytes()).digest()[:8]
    parts = np.split(counts, np.cumsum(sizes.astype(np.int64))[:-1])
    return Bank(tuple(parts), log_magnitude, digest)
