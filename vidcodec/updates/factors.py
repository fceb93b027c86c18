"""An update of low rank while it is trained: factors in weight units, rounded to grids that are chosen on the way.

    W + L R          every matrix that is cheaper as factors: L (rows, rank) starts at zero, R (rank, columns) along the
                     greatest singular vectors of the loss's gradient (as LoRA-GA, Wang et al. 2024,
                     arXiv 2407.05000, starts its factors)
    W + D            everything else: depthwise kernels, biases, tables of rate levels

Training begins on real numbers. When the update is `settle`d, every part gets a step of its own, a power of two from
the measured curvature of the loss, and from then on the network sees rounded values (straight through) and the loss
holds the bits of the parts: a two-sided geometric code per component, of the mean magnitude that it has at the moment.
That charge pulls at an entry the harder, the less its component moves: what does not pay goes to zero as a whole.

Why factors: an entry of a matrix must gain more than the 8 or 9 bits that tell where it is; an entry of a factor moves
a whole row or column, along a direction in which many small gains add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import ste_round
from vidcodec.updates.grid import LEFT, RIGHT
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import MAX_FACTOR, MAX_STEP_EXPONENT, MAX_STEPS, Factors, TensorUpdate, Update, is_matrix

FLOOR = 2.0**-10  # of mean magnitudes, in grid steps
# Of the right factors' entries at the start. Adam moves every entry of L alike: so an entry of L R moves by a tenth of
# that in every matrix, as free weights would at a tenth of the rate, but all in one direction.
RIGHT_RMS = 0.1
UNSETTLED = 0.5  # grid step before `settle`, in root mean squares of a part


def is_factored(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an update of low rank sends factors of a parameter: matrices but depthwise kernels."""
    return is_matrix(name, shape) and (len(shape) == 2 or shape[1] > 1)


def geometric_bits(mean: Tensor) -> Tensor:
    """Entropy, in bits, of integers of a two-sided geometric distribution with these mean magnitudes."""
    mean = mean.clamp_min(FLOOR)
    theta = (torch.sqrt(1 + mean * mean) - 1) / mean
    return torch.log2((1 + theta) / (1 - theta)) - mean * torch.log2(theta)


class FactorGrid:
    """u of every selected tensor, or of its factors (names ending in `LEFT` and `RIGHT`), in weight units.

    base: the tensors' base weights. gradients: of the loss at the base weights, by name.
    """

    def __init__(self, base: dict[str, Tensor], selection: Selection, gradients: dict[str, Tensor]) -> None:
        self.base = base
        self.factored = {n for n, p in base.items() if is_factored(n, tuple(p.shape))}
        start: dict[str, Tensor] = {}
        for n, p in base.items():
            if n not in self.factored:
                start[n] = torch.zeros_like(p)
                continue
            g = gradients[n].reshape(p.shape[0], -1).float()
            rank = min(selection.rank, *g.shape)
            start[n + LEFT] = g.new_zeros(g.shape[0], rank)
            unit = torch.linalg.svd(g, full_matrices=False)[2][:rank]
            start[n + RIGHT] = unit.contiguous() * (RIGHT_RMS * g.shape[1] ** 0.5)
        self.u = {n: x.requires_grad_(True) for n, x in start.items()}
        self.exponents: dict[str, int] = {}  # of every part, once settled
        self.gates = {n: torch.ones(self.components(n), device=x.device) for n, x in self.u.items()}
        self.gained = {n: torch.zeros(self.components(n), device=x.device) for n, x in self.u.items()}
        self._before: dict[str, Tensor] = {}

    @property
    def is_finite(self) -> bool:
        """Whether all entries are numbers."""
        return all(bool(torch.isfinite(u).all()) for u in self.u.values())

    @property
    def settled(self) -> bool:
        return bool(self.exponents)

    def components(self, part: str) -> int:
        """Of a factor its rank, of a table its rows; one of everything else."""
        x = self.u[part]
        return x.shape[1] if part.endswith(LEFT) else x.shape[0] if part.endswith((RIGHT, ".table")) else 1

    def by_component(self, part: str, x: Tensor) -> Tensor:
        """A part's values as (components, entries)."""
        return x.t() if part.endswith(LEFT) else x.reshape(self.components(part), -1)

    def gate(self, part: str) -> Tensor:
        """The gates of a part's components, in a shape that broadcasts to it."""
        g = self.gates[part]
        return g if part.endswith(LEFT) else g.reshape(-1, *[1] * (self.u[part].ndim - 1)) if g.numel() > 1 else g

    # ------------------------------------------------------------------ values

    def parameters(self) -> dict[str, Tensor]:
        """The adapted weights, differentiable in u; rounded once settled."""
        return self._weights(self._trained)

    @torch.no_grad()
    def sent(self) -> dict[str, Tensor]:
        """The weights that a decoder will have."""
        exponents = self.exponents or self.usual_exponents()
        return self._weights(lambda part: self._steps(part, exponents[part]) * 2.0 ** -exponents[part])

    def _weights(self, value: Callable[[str], Tensor]) -> dict[str, Tensor]:
        out = {}
        for n, p in self.base.items():
            if n in self.factored:
                out[n] = p + (value(n + LEFT) @ value(n + RIGHT)).reshape(p.shape)
            else:
                out[n] = p + value(n)
        return out

    def _trained(self, part: str) -> Tensor:
        if not self.settled:
            return self.u[part] * self.gate(part)
        return self._steps(part, self.exponents[part]) * 2.0 ** -self.exponents[part]

    def _steps(self, part: str, exponent: int) -> Tensor:
        limit = MAX_FACTOR if part.endswith((LEFT, RIGHT)) else MAX_STEPS
        return ste_round((self.u[part] * self.gate(part) * 2.0**exponent).clamp(-limit, limit))

    def update(self) -> Update:
        """As the stream carries it, without the components that are zero."""
        exponents = self.exponents or self.usual_exponents()

        def steps(part: str) -> np.ndarray:
            with torch.no_grad():
                return self._steps(part, exponents[part]).cpu().numpy().astype(np.int32)

        tensors = {}
        for n, p in self.base.items():
            if n in self.factored:
                left, right = steps(n + LEFT), steps(n + RIGHT)
                if (live := left.any(0) & right.any(1)).any():
                    parts = (
                        TensorUpdate(left[:, live], exponents[n + LEFT]),
                        TensorUpdate(right[live], exponents[n + RIGHT]),
                    )
                    tensors[n] = Factors(*parts).product(tuple(p.shape))
            elif (whole := steps(n)).any():
                tensors[n] = TensorUpdate(whole, exponents[n])
        return Update(tensors)

    # ------------------------------------------------------------------ the rate

    def part_bits(self, exponents: dict[str, int]) -> dict[str, Tensor]:
        """Bits of every part's components (components,), differentiable in u."""
        out = {}
        for part, x in self.u.items():
            m = self.by_component(part, (x * self.gate(part)).abs())
            out[part] = geometric_bits(m.mean(1) * 2.0 ** exponents[part]) * m.shape[1]
        return out

    def bits(self) -> Tensor | None:
        """Of the update as it stands, differentiable; None before it is settled."""
        return torch.cat(list(self.part_bits(self.exponents).values())).sum() if self.settled else None

    # ------------------------------------------------------------------ settling

    def usual_exponents(self) -> dict[str, int]:
        """Steps of `UNSETTLED` root mean squares."""
        return {part: _exponent(UNSETTLED * _rms(x)) for part, x in self.u.items()}

    def curvature_exponents(self, probes: list[dict[str, Tensor]], pixels: int, coarsest: float) -> dict[str, int]:
        """Steps from gradients of random probes by the weights (`Objective.probe`), at the weights as they stand.

        With h the mean curvature of a part's entries in bits of the whole video, a uniform step t costs h t^2 / 24
        bits an entry and saves log2 t: least at t^2 = 12 / (h ln 2). No step is beyond `coarsest` root mean squares.
        """
        squares = dict.fromkeys(self.u, 0.0)
        for grads in probes:
            for n in self.base:
                if (g := grads.get(n)) is None:
                    continue
                if n not in self.factored:
                    squares[n] += float(g.square().mean())
                    continue
                g = g.reshape(g.shape[0], -1).float()
                left, right = self.u[n + LEFT].detach(), self.u[n + RIGHT].detach()
                squares[n + LEFT] += float((g @ right.t()).square().mean())
                squares[n + RIGHT] += float((left.t() @ g).square().mean())
        out = {}
        for part, x in self.u.items():
            h = squares[part] / len(probes) * pixels
            step = math.sqrt(12 / (h * math.log(2))) if h > 0 else math.inf
            out[part] = _exponent(min(step, coarsest * _rms(x)))
        return out

    def settle(self, exponents: dict[str, int]) -> None:
        """From now on the network sees the update rounded to these steps."""
        self.exponents = dict(exponents)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int]]:
        """To come back to."""
        return {n: u.detach().clone() for n, u in self.u.items()}, dict(self.gates), dict(self.exponents)

    @torch.no_grad()
    def restore(self, state: tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int]]) -> None:
        for n, u in state[0].items():
            self.u[n].copy_(u)
        self.gates, self.exponents = dict(state[1]), dict(state[2])
        self._before = {}

    # ------------------------------------------------------------------ what components bring

    @torch.no_grad()
    def account(self) -> None:
        """Before a step of the optimiser: what the one before it has gained, by this batch's gradient.

        Adds - gradient * movement to `gained`, in units of the loss: to first order, and on other pictures than those
        that decided the movement. Of bold steps it is a noisy sum: less its standard deviation it shut nearly all of
        the synthesis, where most of the gain is.
        """
        for part, x in self.u.items():
            if x.grad is not None and part in self._before:
                self.gained[part] += self.by_component(part, x.grad * (self._before[part] - x)).sum(1)
            self._before[part] = x.detach().clone()

    def payoff(self, pixels: int) -> dict[str, Tensor]:
        """Bits that every component of every tensor has gained the video, both factors together (components,)."""
        out = {n: self.gained[n + LEFT] + self.gained[n + RIGHT] for n in self.factored}
        out |= {n: self.gained[n] for n in self.base if n not in self.factored}
        return {n: g * pixels for n, g in out.items()}

    @torch.no_grad()
    def prune(self, pixels: int, exponents: dict[str, int], hope: float) -> int:
        """Shut the components that cost more than `hope` times what they have gained; how many."""
        bits, shut = self.part_bits(exponents), 0
        for n, gained in self.payoff(pixels).items():
            parts = [n + LEFT, n + RIGHT] if n in self.factored else [n]
            cost = torch.stack([bits[part] for part in parts]).sum(0)
            live = (hope * gained > cost).to(gained)
            for part in parts:
                shut += int((self.gates[part] > live).sum()) if part == parts[0] else 0
                self.gates[part] = self.gates[part] * live
        return shut


def _rms(x: Tensor) -> float:
    """Root mean square of what is not zero; 0 where all is."""
    moved = x.detach()[x.detach() != 0]
    return float(moved.square().mean().sqrt()) if moved.numel() else 0.0


def _exponent(step: float) -> int:
    """Of the power of two nearest to a step."""
    return int(np.clip(round(-math.log2(step)), 0, MAX_STEP_EXPONENT)) if step > 0 else MAX_STEP_EXPONENT
