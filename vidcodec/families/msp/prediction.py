"""Pictures predicted from one decoded before.

A block is a site of the latent grid, 16x16 luma samples, and has a mode:

    SKIP    the latents that its reference has there; nothing is coded
    INTER   the difference to them is coded, by the passes that code pictures
    INTRA   the latents themselves are coded

Where a block stands still, its reference has the latents decoded for the earlier picture; where it moved (`motion`),
those that the analysis finds in the earlier picture moved along. The scale path sees the coded symbols alone, so what
is parsed never depends on the reference; only means and pictures do, and those are free to differ in their last bits.
References are rounded to 1/16 of a step, so that such differences do not pile up along a chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.families.msp.network import Msp
from vidcodec.latents.flags import FlagCoder, Flags

SKIP, INTER, INTRA = 0, 1, 2
REFERENCE_UNIT = 16.0  # of a quantiser's step


class Reference(NamedTuple):
    """What a decoded picture leaves to those that refer to it."""

    latents: Tensor  # (1, C, h, w), in steps of their rate level
    level: Tensor  # (1,)
    show: Callable[[], Tensor]  # its planes (1, 6, H/2, W/2)
    modes: np.ndarray  # (h, w) uint8
    moved: np.ndarray  # (h, w) bool
    alone: np.ndarray | None = None  # (h, w) what its blocks cost, in bits, without a reference; of an encoder

    def alone_at(self, level: Tensor) -> np.ndarray | None:
        """`alone`, where it was found at this rate level."""
        return self.alone if torch.equal(self.level, level) else None

    def at(self, model: Msp, level: Tensor) -> Tensor:
        """The latents (1, C, h, w) in steps of another rate level, rounded."""
        return rounded(self.latents * torch.exp(model.inverse_gain(self.level) - model.inverse_gain(level)))


def rounded(latents: Tensor) -> Tensor:
    """Latents as references have them."""
    return torch.round(latents * REFERENCE_UNIT) / REFERENCE_UNIT


class Prediction(NamedTuple):
    """A picture's modes, and what its blocks are predicted from."""

    base: Tensor  # (1, C, h, w)
    modes: np.ndarray  # (h, w) uint8
    vectors: np.ndarray  # (2, h, w) int64, 0 where a block did not move or is INTRA
    reference: Reference
    alone: np.ndarray | None = None  # as in `Reference`

    @property
    def predicted(self) -> Tensor:
        """`base` where a mode makes use of it, else 0."""
        return self.base * self._where(self.modes != INTRA)

    @property
    def coded(self) -> Tensor:
        """Which blocks have symbols: (1, 1, h, w) bool."""
        return self._where(self.modes != SKIP)

    @property
    def empty(self) -> bool:
        """Whether it takes no bytes: the reference once more."""
        return bool((self.modes == SKIP).all()) and not self.vectors.any()

    def coded_hyper(self, size: tuple[int, int]) -> Tensor:
        """Which of the hyper-latents (zh, zw) see a coded block: (1, 1, zh, zw) bool."""
        h, w = self.modes.shape
        padded = F.pad(self.coded.float(), (0, 4 * size[1] - w, 0, 4 * size[0] - h))
        return F.max_pool2d(padded, 4) > 0

    def _where(self, mask: np.ndarray) -> Tensor:
        return torch.from_numpy(mask)[None, None].to(self.base.device)


def code_modes(code: FlagCoder, modes: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Modes (h, w) through a coder, row by row: whether a block is coded, and if so, whether without its reference.

    Chances go by the row above and by the modes of the reference, `before` (h, w), around the block.
    """
    found = np.zeros(before.shape, np.uint8)
    coded, intra = Flags(9), Flags(3)
    above = np.zeros(before.shape[1], np.uint8)
    for r, row in enumerate(modes):
        context = 3 * around(above != SKIP) + around(before[r] != SKIP)
        columns = np.flatnonzero(coded.code(code, row != SKIP, context))
        kinds = intra.code(code, row[columns] == INTRA, around(above == INTRA)[columns])
        found[r, columns] = np.where(kinds != 0, INTRA, INTER)
        above = found[r]
    return found


def around(mask: np.ndarray) -> np.ndarray:
    """How many of each entry of a row and its two neighbours hold, 2 at most."""
    padded = np.pad(mask, 1).astype(np.int64)
    return np.minimum(padded[:-2] + padded[1:-1] + padded[2:], 2)
