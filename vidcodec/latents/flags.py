"""Flags and small numbers as side information, under chances learned while they are coded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidcodec.latents.symbols import SymbolReader, SymbolWriter
from vidcodec.latents.tables import tables

_START, _LEARN, _MEMORY = 1, 2, 256  # counts of a flag at first, for every one seen, and when they are halved

# (flags (n,), tables (n,)) -> the flags that travelled, int64 0 or 1: an encoder's are the ones given
FlagCoder = Callable[[np.ndarray, np.ndarray], np.ndarray]


def writing(writer: SymbolWriter) -> FlagCoder:
    """Puts flags."""

    def code(flags: np.ndarray, table: np.ndarray) -> np.ndarray:
        writer.put_flags(flags.astype(np.int32), table)
        return flags.astype(np.int64)

    return code


def reading(reader: SymbolReader) -> FlagCoder:
    """Gets what `writing` put, whatever is given. Another symbol than 0 or 1, of a damaged payload, is made one."""
    return lambda flags, table: reader.get_flags(table).astype(np.int64) & 1


class Flags:
    """Flags by context; their chances are counted in integers, a call at a time."""

    def __init__(self, contexts: int) -> None:
        self.counts = np.full((contexts, 2), _START, np.int64)

    def code(self, code: FlagCoder, flags: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Flags (n,) through a coder, each by its context (n,)."""
        seen = self.counts[context]
        flags = code(flags, tables().flag_table(seen[:, 1], seen.sum(1)))
        np.add.at(self.counts, (context, flags), _LEARN)
        full = self.counts.sum(1) > _MEMORY
        self.counts[full] = (self.counts[full] + 1) // 2
        return flags


class Numbers:
    """Integers between -2^bits and 2^bits, exclusive: Elias' gamma code, the lengths under learned chances."""

    def __init__(self, bits: int) -> None:
        self.bits, self.longer = bits, Flags(bits)

    def code(self, code: FlagCoder, values: np.ndarray) -> np.ndarray:
        """Values (n,) int64 through a coder."""
        magnitude = np.abs(values)
        lengths, left = np.zeros(values.shape, np.int64), np.arange(values.size)
        for k in range(self.bits):
            longer = self.longer.code(code, (magnitude[left] >> k) > 0, np.full(left.size, k))
            left = left[longer != 0]
            if not left.size:
                break
            lengths[left] = k + 1
        found = (1 << lengths) >> 1
        for k in reversed(range(lengths.max(initial=1) - 1)):
            part = np.flatnonzero(lengths > k + 1)
            found[part] |= code((magnitude[part] >> k) & 1, _even(part)) << k
        part = np.flatnonzero(found)
        found[part] *= 1 - 2 * code(values[part] < 0, _even(part))
        return found


def _even(like: np.ndarray) -> np.ndarray:
    """Tables of flags of which nothing is known."""
    return tables().flag_table(np.ones(like.shape, np.int64), np.full(like.shape, 2))
