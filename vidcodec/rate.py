"""Rate levels, and what an error is worth at one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNIT = 256  # steps of a rate level that streams tell apart
PLANE_WEIGHTS = (0.5, 0.25, 0.25)  # of the planes' mean squared errors in D (Y, U, V)


@dataclass(frozen=True, order=True)
class RateLevel:
    """A point of a network's rate range, in 1/256 of the distance between two of its tables' rows."""

    steps: int = 0

    @classmethod
    def of(cls, real: float) -> RateLevel:
        """The nearest to a real-valued level."""
        return cls(round(real * UNIT))

    @property
    def real(self) -> float:
        return self.steps / UNIT

    def tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """As networks take it: float32 (1,)."""
        return torch.full((1,), self.real, device=device)


@dataclass(frozen=True)
class TradeOff:
    """L = R + lambda * 255^2 * D, R in bits per pixel, D the weighted mean squared error of planes in [0, 1].

    lam: 0 where nothing is lost.
    """

    lam: float = 0.0
    weights: tuple[float, float, float] = PLANE_WEIGHTS

    @property
    def worth(self) -> float:
        """Bits per pixel that an error D of 1 is worth."""
        return self.lam * 255.0**2

    def error_bits(self, errors: np.ndarray | Sequence[float], bit_depth: int) -> float:
        """lambda * 255^2 * D in bits per pixel, from mean squared errors of Y, U, V in code values."""
        peak = float((1 << bit_depth) - 1)
        return self.worth * float(np.asarray(errors) @ np.asarray(self.weights)) / peak**2


def plane_mse(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared errors of Y, U, V: (B, 6, ., .) planes -> (B, 3)."""
    error = (x - target).square().mean((2, 3))  # (B, 6)
    return torch.stack([error[:, :4].mean(1), error[:, 4], error[:, 5]], 1)


def weighted_mse(x: Tensor, target: Tensor, weights: tuple[float, float, float] = PLANE_WEIGHTS) -> Tensor:
    """Per-picture D: plane-weighted mean squared error of (B, 6, ., .) planes -> (B,)."""
    y, u, v = plane_mse(x, target).unbind(1)
    return weights[0] * y + weights[1] * u + weights[2] * v
