"""How update integers move during finetuning.

Both optimisers see the update as u, real numbers in grid steps, and share one call:
`step(share)` with the learning rate as a part of its peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

# Bits per squared grid step: what `step_exponents` makes the curvature of every tensor.
GRID_CURVATURE = 12 / math.log(2)
Slope = Callable[[str, Tensor], Tensor]


class UpdateOptimiser(Protocol):
    """Moves u along its gradients and clears them."""

    def step(self, share: float) -> None: ...

    def forget(self) -> None:
        """Drop the momentum, after a jump to another state."""
        ...


def is_vector(name: str) -> bool:
    """Biases and rate-level vectors: few numbers that act on whole channels."""
    return name.endswith((".bias", ".table", ".multiplier"))


class SparseMomentum:
    """Proximal gradient steps on grid integers-to-be.

    u <- prox(u - r m), with m the running mean of the gradient and r one rate for all
    vectors, or all matrices (their grids are matched by curvature, so their gradients
    compare): a damped Newton step, r = damping / curvature, but no more than lr / rms(g).
    Weights move in proportion to their gradient. Adam would move all alike, and a million
    small moves cost a million codewords. The prior's slope enters as the soft threshold of
    the proximal step, so weights whose gradient does not pay for their bits stay exactly
    at zero.
    """

    def __init__(
        self,
        u: dict[str, Tensor],
        vector_lr: float,
        matrix_lr: float,
        damping: float,
        slope: Slope,
        bits_to_loss: float,
        momentum: float = 0.9,
        memory: float = 0.98,
    ) -> None:
        """slope: bits per grid step of magnitude, by name; bits_to_loss: what a bit adds to the loss."""
        self.newton = damping / (GRID_CURVATURE * bits_to_loss)
        self.u, self.momentum, self.memory = u, momentum, memory
        self.lr = {True: vector_lr, False: matrix_lr}
        self.slope, self.bits_to_loss = slope, bits_to_loss
        self.mean = {n: torch.zeros_like(x) for n, x in u.items()}
        self.square = {True: 0.0, False: 0.0}
        self.steps = {True: 0, False: 0}

    def forget(self) -> None:
        for m in self.mean.values():
            m.zero_()

    @torch.no_grad()
    def step(self, share: float) -> None:
        for vectors in (True, False):
            live = {n: x for n, x in self.u.items() if x.grad is not None and is_vector(n) == vectors}
            if not live:
                continue
            self.steps[vectors] += 1
            size = sum(x.numel() for x in live.values())
            square = sum(float(x.grad.square().sum()) for x in live.values() if x.grad is not None) / size
            self.square[vectors] += (1 - self.memory) * (square - self.square[vectors])
            steps = self.steps[vectors]
            rms = math.sqrt(self.square[vectors] / (1 - self.memory**steps)) + 1e-30
            rate = share * min(self.lr[vectors] / rms, self.newton)
            for n, x in live.items():
                self.mean[n].lerp_(x.grad, 1 - self.momentum)  # type: ignore[arg-type]
                x.sub_(self.mean[n], alpha=rate / (1 - self.momentum**steps))
                shrink = self.slope(n, x) * (rate * self.bits_to_loss)
                x.copy_(x.sign() * (x.abs() - shrink).clamp_min(0.0))
                x.grad = None


class AdamSteps:
    """Plain Adam on every weight alike: for priors whose rate is part of the loss."""

    def __init__(self, u: dict[str, Tensor], lr: float) -> None:
        self.u, self.lr = u, lr
        self.adam = torch.optim.Adam(list(u.values()), lr=lr, betas=(0.9, 0.99))

    def step(self, share: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = self.lr * share
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def forget(self) -> None:
        self.adam.state.clear()


class FactorSteps:
    """Adam on factors and on what is sent whole, in weight units, each with a rate of its own."""

    def __init__(self, u: dict[str, Tensor], factor_lr: float, whole_lr: float) -> None:
        self.peaks = (factor_lr, whole_lr)
        groups = [{"params": [u[n]]} for n in ("factors", "whole")]
        self.adam = torch.optim.Adam(groups, lr=factor_lr, betas=(0.9, 0.99))

    def step(self, share: float) -> None:
        for group, peak in zip(self.adam.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def forget(self) -> None:
        self.adam.state.clear()
