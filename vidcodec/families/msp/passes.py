"""The order in which `Msp` codes its latents: coarse to fine, every pass parallel.

Positions on the latent grid and groups of channels, nothing learned; after Zhang et al. 2022 (arXiv 2210.04112; the
paper's layer tables were not at hand, the layout here is ours).
"""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """What a pass codes of one channel group: a phase of its grid."""

    group: slice  # channels
    phase: tuple[slice, slice]  # rows and columns of the pass's own grid
    site: tuple[slice, slice]  # the same rows and columns on the latent grid


class Pass(NamedTuple):
    """One parallel pass: at `stride`, group g of the channels is coded in phase[g] of 2x2 (none: everywhere)."""

    stride: int
    phases: tuple[tuple[int, int], ...]

    @property
    def grid(self) -> tuple[slice, slice]:
        """Rows and columns of the latent grid that the pass works on."""
        return slice(None, None, self.stride), slice(None, None, self.stride)

    def cells(self, channels: int) -> list[Cell]:
        """What is coded, in coding order."""
        if not self.phases:
            return [Cell(slice(0, channels), (slice(None), slice(None)), self.grid)]
        size, s = channels // len(self.phases), self.stride
        return [
            Cell(
                slice(g * size, g * size + size),
                (slice(i, None, 2), slice(j, None, 2)),
                (slice(i * s, None, 2 * s), slice(j * s, None, 2 * s)),
            )
            for g, (i, j) in enumerate(self.phases)
        ]


FINE_PHASES = ((1, 1), (0, 1), (1, 0))


def schedule(scales: int) -> list[Pass]:
    """The passes in coding order, coarse to fine; 1 + 3 * scales of them.

    The first pass codes every 2^scales-th sample of each row and column, all channels.
    At each finer scale three channel groups rotate through the three new phases of the
    2x2 cells, so that every pass sees neighbours in space and in the other groups.
    """
    passes = [Pass(2**scales, ())]
    for s in reversed(range(scales)):
        for k in range(3):
            passes.append(Pass(2**s, tuple(FINE_PHASES[(g + k) % 3] for g in range(3))))
    return passes
