"""Priors over model updates: the rate term of finetuning, and the bytes it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from vidcodec.updates import coder
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import Update


class UpdatePrior(Protocol):
    """Charges updates in training and writes them.

    A prior charges either as a term of the loss (`bits`) or by a threshold (`slope`, bits
    per grid step of magnitude); the other one is None.
    """

    name: str
    fixed_exponent: int | None  # one step for all tensors, or None: from curvature
    slope: Callable[[str, Tensor], Tensor] | None = None
    selection: Selection | None = None
    charges: bool = True  # False: training knows no rate

    def confine(self, selection: Selection) -> None:
        """Expect updates of nothing but a selection."""
        self.selection = selection

    def bits(self, u: dict[str, Tensor]) -> Tensor | None:
        """Bits of updates u (in grid steps, real-valued), differentiable."""
        ...

    def observe(self, u: dict[str, Tensor]) -> None:
        """Take note of the current state; called after every step."""
        ...

    def encode(self, update: Update, model: nn.Module) -> bytes:
        """Its bytes; `model`: the network, for names and shapes."""
        ...


class SpikeSlabPrior(UpdatePrior):
    """The fixed prior of van Rozendaal et al. 2021 (arXiv 2101.08687), the reference to beat.

    p(d) = (N(d; 0, sigma^2) + alpha N(d; 0, s^2)) / (1 + alpha), s = t/6, integrated over
    bins of width t = 2^-exponent. The paper's t = 0.005 lies between 2^-8 and 2^-7.
    Training charges u with uniform noise, decoding is rounded.
    """

    name = "spike-slab"

    def __init__(self, exponent: int = 8, sigma: float = 0.05, alpha: float = 1000.0) -> None:
        self.fixed_exponent: int | None = exponent
        self.sigma, self.alpha = sigma, alpha

    def bits(self, u: dict[str, Tensor]) -> Tensor | None:
        t = 2.0 ** -(self.fixed_exponent or 0)

        def mass(x: Tensor, sd: float) -> Tensor:
            a = -x.abs()
            return 0.5 * (torch.erfc(-(a + t / 2) / sd / math.sqrt(2)) - torch.erfc(-(a - t / 2) / sd / math.sqrt(2)))

        total = torch.zeros(())
        for x in u.values():
            d = (x + torch.rand_like(x) - 0.5) * t
            p = (mass(d, self.sigma) + self.alpha * mass(d, t / 6)) / (1 + self.alpha)
            total = total - torch.log2(p.clamp_min(2.0**-30)).sum()
        return total

    def observe(self, u: dict[str, Tensor]) -> None:
        pass

    def encode(self, update: Update, model: nn.Module) -> bytes:
        return coder.encode_update(update, model, coder.SPIKE_SLAB, self.selection)


class AdaptivePrior(UpdatePrior):
    """Per-tensor learned scales with adaptive contexts: the rate of `coder`'s adaptive mode.

    Each weight is charged as a two-sided geometric symbol of the mean magnitude that the
    coder would expect there, m = row mean * column mean / tensor mean, taken from the
    update as it stands. The charge is linear in |u|, as the tables' code lengths are: a
    pull towards zero that is weaker where updates already are. `start` and `matrix_start`
    are the means expected of vectors and of matrices before anything has moved; where only
    some entries of a tensor are selected, as much movement is expected of fewer.
    """

    name = "adaptive"
    fixed_exponent: int | None = None

    def __init__(
        self, start: float = 0.1, matrix_start: float = 0.005, memory: float = 0.98, floor: float = 2.0**-10
    ) -> None:
        self.start, self.matrix_start, self.memory, self.floor = start, matrix_start, memory, floor
        self._expected: dict[str, tuple[Tensor, Tensor]] = {}
        self._masks: dict[str, Tensor] = {}

    def confine(self, selection: Selection) -> None:
        super().confine(selection)
        self._masks = {n: torch.from_numpy(m) for n, m in selection.partial.items()}

    @staticmethod
    def _matrix(u: Tensor) -> Tensor:
        return u.reshape(u.shape[0], -1) if u.ndim > 1 else u.reshape(1, -1)

    def bits(self, u: dict[str, Tensor]) -> Tensor | None:
        return None

    def slope(self, name: str, x: Tensor) -> Tensor:
        """Bits per grid step of magnitude for every weight of x."""
        if name not in self._expected:
            m = self._matrix(x)
            start = self.start if m.shape[0] == 1 else self.matrix_start
            if name in self._masks:
                start = max(start, min(self.start, start * x.numel() / float(self._masks[name].sum())))
            self._expected[name] = (torch.full_like(m[:, :1], start), torch.full_like(m[:1], start))
        rows, columns = self._expected[name]
        mean = (rows * columns / rows.mean().clamp_min(self.floor)).clamp(self.floor, 64.0)
        return -torch.log2((torch.sqrt(1 + mean * mean) - 1) / mean).reshape(x.shape)

    @torch.no_grad()
    def observe(self, u: dict[str, Tensor]) -> None:
        for name, x in u.items():
            if name not in self._expected:  # has not moved yet
                continue
            rows, columns = self._expected[name]
            m = self._matrix(x).round().abs()
            if name in self._masks:
                taken = self._matrix(self._masks[name]).to(m)
                of_rows, of_columns = (m.sum(d, keepdim=True) / taken.sum(d, keepdim=True).clamp_min(1) for d in (1, 0))
            else:
                of_rows, of_columns = m.mean(1, keepdim=True), m.mean(0, keepdim=True)
            rows.lerp_(of_rows.clamp_min(self.floor), 1 - self.memory)
            columns.lerp_(of_columns.clamp_min(self.floor), 1 - self.memory)

    def encode(self, update: Update, model: nn.Module) -> bytes:
        return coder.encode_update(update, model, coder.ADAPTIVE, self.selection)


class UnchargedPrior(AdaptivePrior):
    """No rate term in training, the adaptive coder afterwards: what an ablation takes away."""

    name = "no-rate"
    charges = False

    def slope(self, name: str, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def update_prior(name: str) -> UpdatePrior:
    """The prior a user names; 'no-quantisation' is the adaptive one (see `FinetuneConfig.quantise`)."""
    priors = {"spike-slab": SpikeSlabPrior, "no-rate": UnchargedPrior}
    return priors.get(name, AdaptivePrior)()  # type: ignore[abstract]
