"""An update while it is trained: real numbers in steps of the grid that the stream carries.

theta = base + round(u + d) * 2^-k with a straight-through gradient, u = 0 at start, d a fixed offset of each weight,
k per tensor. What a selection leaves out stays at its base. Under a selection of low rank the update of a matrix is

    round(l + d) 2^-k (rows, rank)  times  round(r + d') 2^-2 (rank, columns)

with l = 0 at start and r along the greatest singular vectors of the gradient, of unit size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import ste_round
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import MAX_FACTOR, MAX_STEPS, Factors, TensorUpdate, Update, is_matrix

RIGHT_EXPONENT = 2  # of the grid of right factors, whose entries are about 1
LEFT, RIGHT = ".left", ".right"


def uncharged_right(slope: Callable[[str, Tensor], Tensor]) -> Callable[[str, Tensor], Tensor]:
    """A prior's slope but for right factors: they are sent whole or not at all, whatever their entries."""
    return lambda name, x: torch.zeros_like(x) if name.endswith(RIGHT) else slope(name, x)


class UpdateGrid:
    """u of every selected tensor, or of its factors (names ending in `LEFT` and `RIGHT`).

    base: the tensors' base weights. exponents: k by tensor. dither: width of d, below 1. rounded: whether
    `parameters` rounds; without, updates are rounded at the end only. gradients: of the loss at the base weights, by
    name; needed for low rank.
    """

    def __init__(
        self,
        base: dict[str, Tensor],
        selection: Selection,
        exponents: dict[str, int],
        *,
        dither: float = 0.0,
        rounded: bool = True,
        seed: int = 0,
        gradients: Callable[[], dict[str, Tensor]] | None = None,
    ) -> None:
        self.base, self.exponents, self.rounded = base, exponents, rounded
        self.masks = {n: torch.from_numpy(m).to(base[n].device) for n, m in selection.partial.items() if n in base}
        self.factored = {n for n, p in base.items() if selection.rank and is_matrix(n, tuple(p.shape))}
        start = {n: torch.zeros_like(p) for n, p in base.items() if n not in self.factored}
        if self.factored:
            assert gradients is not None
            slopes = gradients()
            for n in sorted(self.factored):
                g = slopes[n].reshape(base[n].shape[0], -1).float()
                rank = min(selection.rank, *g.shape)
                unit = torch.linalg.svd(g, full_matrices=False)[2][:rank] * g.shape[1] ** 0.5
                start[n + LEFT] = torch.zeros_like(g[:, :1]).repeat(1, selection.rank)
                start[n + RIGHT] = torch.zeros_like(g[:1]).repeat(selection.rank, 1)
                start[n + RIGHT][:rank] = unit * 2.0**RIGHT_EXPONENT
        self.u = {n: x.requires_grad_(True) for n, x in start.items()}
        generator = torch.Generator().manual_seed(seed)
        self.dither = {
            n: ((torch.rand(x.shape, generator=generator) - 0.5) * dither).to(x.device) for n, x in self.u.items()
        }

    def parameters(self) -> dict[str, Tensor]:
        """The adapted weights, differentiable in u."""
        return {n: self.base[n] + self._moved(n) for n in self.base}

    def _moved(self, name: str) -> Tensor:
        if name not in self.factored:
            n = self._steps(name, MAX_STEPS)
            return (n if name not in self.masks else n * self.masks[name]) * 2.0 ** -self.exponents[name]
        left = self._steps(name + LEFT, MAX_FACTOR) * 2.0 ** -self.exponents[name]
        right = self._steps(name + RIGHT, MAX_FACTOR) * 2.0**-RIGHT_EXPONENT
        return (left @ right).reshape(self.base[name].shape)

    def _steps(self, name: str, limit: int) -> Tensor:
        if not self.rounded:
            return self.u[name].clone()
        return ste_round((self.u[name] + self.dither[name]).clamp(-limit, limit))

    @property
    def is_finite(self) -> bool:
        """Whether all steps are numbers; what is not cannot travel, though a clamp may hide it."""
        return all(bool(torch.isfinite(u).all()) for u in self.u.values())

    def update(self) -> Update:
        """As the stream carries it. Raises ValueError where a step is not a finite number."""
        tensors = {}
        for name, exponent in self.exponents.items():
            if name in self.factored:
                left, right = (self._integers(name + part, MAX_FACTOR) for part in (LEFT, RIGHT))
                if left.any():
                    factors = Factors(TensorUpdate(left, exponent), TensorUpdate(right, RIGHT_EXPONENT))
                    tensors[name] = factors.product(tuple(self.base[name].shape))
            elif (n := self._integers(name, MAX_STEPS)).any():
                tensors[name] = TensorUpdate(n, exponent)
        return Update(tensors)

    def _integers(self, name: str, limit: int) -> np.ndarray:
        if not torch.isfinite(self.u[name]).all():
            raise ValueError(f"the update of {name} is not finite")
        n = (self.u[name].detach() + self.dither[name]).round().clamp(-limit, limit)
        return (n * self.masks[name] if name in self.masks else n).cpu().numpy().astype(np.int32)

    def state(self) -> dict[str, Tensor]:
        """To come back to."""
        return {n: u.detach().clone() for n, u in self.u.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        for n, u in state.items():
            self.u[n].copy_(u)
