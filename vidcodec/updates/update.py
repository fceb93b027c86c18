"""A model update: integers on one binary grid per tensor.

theta_adapted = theta_base + n * 2^-k, with n an integer array and k one exponent per
tensor. Base weights lie on grids of at most 2^-20 (`vidcodec.checkpoint`), so the
sum is one correctly rounded addition (exact while it fits 24 bits): the same on every
machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

# Exponents that travel: steps of 2^-0 .. 2^-20.
MAX_STEP_EXPONENT = 20
# A step integer that would move a weight further than any network needs is refused.
MAX_STEPS = 32767
# Of the factors of an update of low rank (16 at most): their products add up below 2^24, which float32 holds exactly.
MAX_FACTOR = 1023


@dataclass(frozen=True, eq=False)
class TensorUpdate:
    """n (any shape, int32) in steps of 2^-exponent; factors: what n is the product of, if it came so."""

    n: np.ndarray
    exponent: int
    factors: Factors | None = None

    @property
    def rows(self) -> np.ndarray:
        """n as a matrix: output channels x the rest; vectors are one row."""
        return self.n.reshape(self.n.shape[0], -1) if self.n.ndim > 1 else self.n.reshape(1, -1)


@dataclass(frozen=True, eq=False)
class Factors:
    """An update of low rank: left (rows, rank) times right (rank, columns), both in integers up to `MAX_FACTOR`."""

    left: TensorUpdate
    right: TensorUpdate

    @property
    def rank(self) -> int:
        return int(self.left.n.shape[1])

    def product(self, shape: tuple[int, ...]) -> TensorUpdate:
        """The update of the whole matrix, exact, in the parameter's shape."""
        n = (self.left.n.astype(np.int64) @ self.right.n.astype(np.int64)).astype(np.int32)
        return TensorUpdate(n.reshape(shape), self.left.exponent + self.right.exponent, self)


@dataclass
class Update:
    """The tensors an update changes, by parameter name."""

    tensors: dict[str, TensorUpdate] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tensors)

    @property
    def nonzero(self) -> int:
        return int(sum(np.count_nonzero(t.n) for t in self.tensors.values()))

    def apply(self, model: nn.Module) -> None:
        """Add to the base weights in place."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, t in self.tensors.items():
                step = torch.from_numpy(t.n.astype(np.float32)).reshape(parameters[name].shape) * 2.0**-t.exponent
                parameters[name].add_(step.to(parameters[name].device))


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter maps channels to channels: no vector, and no table of vectors, one per rate level."""
    return len(shape) > 1 and not name.endswith(".table")
