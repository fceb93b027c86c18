"""Pictures predicted from the latents of one decoded before, without a search for motion.

A block is a site of the latent grid, 16x16 luma samples, and has a mode:

    SKIP    the reference's latents as they are; nothing is coded
    INTER   the difference to them is coded, by the passes that code pictures
    INTRA   the latents themselves are coded

The scale path sees the coded symbols alone, so what is parsed never depends on the reference; only means and pictures
do, and those are free to differ in their last bits. References are rounded to 1/16 of a step, so that such differences
do not pile up along a chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.families.msp.network import Msp
from vidcodec.latents.symbols import SymbolReader, SymbolWriter
from vidcodec.latents.tables import tables

SKIP, INTER, INTRA = 0, 1, 2
REFERENCE_UNIT = 16.0  # of a quantiser's step
_START, _LEARN, _MEMORY = 1, 2, 256  # counts of a flag at first, for every one seen, and when they are halved


class Reference(NamedTuple):
    """What a decoded picture leaves to those that refer to it."""

    latents: Tensor  # (1, C, h, w), in steps of their rate level
    level: Tensor  # (1,)
    modes: np.ndarray  # (h, w) uint8
    alone: np.ndarray | None = None  # (h, w) what its blocks cost, in bits, without a reference; of an encoder

    def alone_at(self, level: Tensor) -> np.ndarray | None:
        """`alone`, where it was found at this rate level."""
        return self.alone if torch.equal(self.level, level) else None

    def at(self, model: Msp, level: Tensor) -> Tensor:
        """The latents (1, C, h, w) in steps of another rate level, rounded."""
        scale = torch.exp(model.inverse_gain(self.level) - model.inverse_gain(level))
        return torch.round(self.latents * scale * REFERENCE_UNIT) / REFERENCE_UNIT


class Prediction(NamedTuple):
    """A picture's modes, and what its blocks are predicted from."""

    base: Tensor  # (1, C, h, w)
    modes: np.ndarray  # (h, w) uint8
    before: np.ndarray  # modes of the reference
    alone: np.ndarray | None = None  # as in `Reference`

    @property
    def predicted(self) -> Tensor:
        """`base` where a mode makes use of it, else 0."""
        return self.base * self._where(self.modes != INTRA)

    @property
    def coded(self) -> Tensor:
        """Which blocks have symbols: (1, 1, h, w) bool."""
        return self._where(self.modes != SKIP)

    def coded_hyper(self, size: tuple[int, int]) -> Tensor:
        """Which of the hyper-latents (zh, zw) see a coded block: (1, 1, zh, zw) bool."""
        h, w = self.modes.shape
        padded = F.pad(self.coded.float(), (0, 4 * size[1] - w, 0, 4 * size[0] - h))
        return F.max_pool2d(padded, 4) > 0

    def _where(self, mask: np.ndarray) -> Tensor:
        return torch.from_numpy(mask)[None, None].to(self.base.device)


# --------------------------------------------------------------------------------- modes


class _Flags:
    """Chances of a flag by context, learned row by row, in integers."""

    def __init__(self, contexts: int) -> None:
        self.counts = np.full((contexts, 2), _START, np.int64)

    def table(self, context: np.ndarray) -> np.ndarray:
        seen = self.counts[context]
        return tables().flag_table(seen[:, 1], seen.sum(1))

    def learn(self, context: np.ndarray, flags: np.ndarray) -> None:
        np.add.at(self.counts, (context, flags & 1), _LEARN)
        full = self.counts.sum(1) > _MEMORY
        self.counts[full] = (self.counts[full] + 1) // 2


# (row, which of two flags, columns, tables) -> flags
_FlagCoder = Callable[[int, int, np.ndarray, np.ndarray], np.ndarray]


def _code_modes(before: np.ndarray, code: _FlagCoder) -> np.ndarray:
    """Modes (h, w) row by row: whether a block is coded, and if so, whether without its reference.

    Chances go by the row above and by the reference's own modes (h, w) around the block.
    """
    modes = np.zeros(before.shape, np.uint8)
    coded, intra = _Flags(9), _Flags(3)
    above = np.zeros(before.shape[1], np.uint8)
    for r in range(len(modes)):
        context = 3 * _around(above != SKIP) + _around(before[r] != SKIP)
        columns = np.arange(len(context))
        flags = code(r, 0, columns, coded.table(context))
        coded.learn(context, flags)
        columns = columns[flags != 0]
        context = _around(above == INTRA)[columns]
        kinds = code(r, 1, columns, intra.table(context))
        intra.learn(context, kinds)
        modes[r, columns] = np.where(kinds != 0, INTRA, INTER)
        above = modes[r]
    return modes


def _around(mask: np.ndarray) -> np.ndarray:
    """How many of each entry and its two neighbours hold, 2 at most."""
    padded = np.pad(mask, 1).astype(np.int64)
    return np.minimum(padded[:-2] + padded[1:-1] + padded[2:], 2)


def put_modes(writer: SymbolWriter, modes: np.ndarray, before: np.ndarray) -> None:
    """Code the modes of a picture, `before` being its reference's."""
    truth = ((modes != SKIP).astype(np.int32), (modes == INTRA).astype(np.int32))

    def code(row: int, kind: int, columns: np.ndarray, table: np.ndarray) -> np.ndarray:
        flags = truth[kind][row, columns]
        writer.put_flags(flags, table)
        return flags

    _code_modes(before, code)


def get_modes(reader: SymbolReader, before: np.ndarray) -> np.ndarray:
    """What `put_modes` wrote."""
    return _code_modes(before, lambda row, kind, columns, table: reader.get_flags(table))
