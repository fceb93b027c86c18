"""An update while it is trained: real numbers in steps of the grid that the stream carries.

theta = base + round(u + d) * 2^-k with a straight-through gradient, u = 0 at start, d a fixed offset of each weight,
k per tensor. What a selection leaves out stays at its base.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import ste_round
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import MAX_STEPS, TensorUpdate, Update


class UpdateGrid:
    """u of every selected tensor.

    base: the tensors' base weights. exponents: k by tensor. dither: width of d, below 1. rounded: whether
    `parameters` rounds; without, updates are rounded at the end only.
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
    ) -> None:
        self.base, self.exponents, self.rounded = base, exponents, rounded
        self.masks = {n: torch.from_numpy(m).to(base[n].device) for n, m in selection.partial.items() if n in base}
        self.u = {n: torch.zeros_like(p).requires_grad_(True) for n, p in base.items()}
        generator = torch.Generator().manual_seed(seed)
        self.dither = {
            n: ((torch.rand(x.shape, generator=generator) - 0.5) * dither).to(x.device) for n, x in self.u.items()
        }

    def parameters(self) -> dict[str, Tensor]:
        """The adapted weights, differentiable in u."""
        return {n: self.base[n] + self._moved(n) for n in self.base}

    def _moved(self, name: str) -> Tensor:
        n = self._steps(name)
        return (n if name not in self.masks else n * self.masks[name]) * 2.0 ** -self.exponents[name]

    def _steps(self, name: str) -> Tensor:
        if not self.rounded:
            return self.u[name].clone()
        return ste_round((self.u[name] + self.dither[name]).clamp(-MAX_STEPS, MAX_STEPS))

    @property
    def is_finite(self) -> bool:
        """Whether all steps are numbers; what is not cannot travel, though a clamp may hide it."""
        return all(bool(torch.isfinite(u).all()) for u in self.u.values())

    def update(self) -> Update:
        """As the stream carries it. Raises ValueError where a step is not a finite number."""
        steps = {n: self._integers(n) for n in self.exponents}
        return Update({n: TensorUpdate(x, self.exponents[n]) for n, x in steps.items() if x.any()})

    def _integers(self, name: str) -> np.ndarray:
        if not torch.isfinite(self.u[name]).all():
            raise ValueError(f"the update of {name} is not finite")
        n = (self.u[name].detach() + self.dither[name]).round().clamp(-MAX_STEPS, MAX_STEPS)
        return (n * self.masks[name] if name in self.masks else n).cpu().numpy().astype(np.int32)

    def state(self) -> dict[str, Tensor]:
        """To come back to."""
        return {n: u.detach().clone() for n, u in self.u.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        for n, u in state.items():
            self.u[n].copy_(u)
