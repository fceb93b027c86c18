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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.entropy.rates import ste_round
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import MAX_FACTOR, MAX_STEP_EXPONENT, MAX_STEPS, Factors, TensorUpdate, Update, is_matrix

LEFT, RIGHT = ".left", ".right"
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
    """u of what is sent, in weight units, as two vectors of numbers: 'factors', and 'whole' for everything else.

    A part is a tensor sent whole, or a factor (its tensor's name with `LEFT` or `RIGHT` behind it); its components are
    the ranks of a factor, the rows of a table, or the one of everything else. Entries of all parts lie one after the
    other, and so do their components: a step of training takes few operations, however many tensors there are.

    base: the tensors' base weights. gradients: of the loss at the base weights, by name.
    """

    def __init__(self, base: dict[str, Tensor], selection: Selection, gradients: dict[str, Tensor]) -> None:
        self.base = base
        self.factored = [n for n, p in base.items() if is_factored(n, tuple(p.shape))]
        start: dict[str, Tensor] = {}
        for n in self.factored:
            g = gradients[n].reshape(base[n].shape[0], -1).float()
            rank = min(selection.rank, *g.shape)
            start[n + LEFT] = g.new_zeros(g.shape[0], rank)
            # Right singular vectors by way of the left ones: rows are few, columns of 3x3 kernels are not.
            unit = F.normalize(torch.linalg.eigh(g @ g.t())[1][:, -rank:].flip(1).t() @ g, dim=1)
            start[n + RIGHT] = unit * (RIGHT_RMS * g.shape[1] ** 0.5)
        factors = sum(x.numel() for x in start.values())
        start |= {n: torch.zeros_like(p) for n, p in base.items() if n not in self.factored}
        self.shapes = {part: tuple(x.shape) for part, x in start.items()}
        flat = torch.cat([x.flatten() for x in start.values()])
        self.u = {"factors": flat[:factors].requires_grad_(True), "whole": flat[factors:].clone().requires_grad_(True)}
        numbers = [_components(part, shape) for part, shape in self.shapes.items()]
        counts = [int(c.max()) + 1 for c in numbers]
        first = np.cumsum([0, *counts])
        self.components = {part: slice(a, a + n) for part, a, n in zip(start, first, counts, strict=False)}
        self.component = torch.cat([c.flatten() + a for c, a in zip(numbers, first, strict=False)]).to(flat.device)
        self.size = self.component.bincount().to(flat)  # entries of every component
        limits = [MAX_FACTOR if part.endswith((LEFT, RIGHT)) else MAX_STEPS for part in start]
        self.limit = self._by_entry(dict(zip(start, map(float, limits), strict=True)))
        self.gates, self.gained = torch.ones_like(self.size), torch.zeros_like(self.size)
        self.exponents: dict[str, int] = {}  # of every part, once settled
        self.step = torch.ones_like(flat)  # 2^-exponent by entry
        self._before: Tensor | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all entries are numbers."""
        return all(bool(torch.isfinite(u).all()) for u in self.u.values())

    @property
    def settled(self) -> bool:
        return bool(self.exponents)

    def _by_entry(self, values: dict[str, float]) -> Tensor:
        """A number of every part, for each of its entries (entries,)."""
        counts = torch.tensor([c.stop - c.start for c in self.components.values()])
        by_component = self.size.new_tensor([values[part] for part in self.components]).repeat_interleave(
            counts.to(self.size.device)
        )
        return by_component[self.component]

    # ------------------------------------------------------------------ values

    def parts(self, x: Tensor | None = None) -> dict[str, Tensor]:
        """All parts in their shapes, of values by entry; of u by default."""
        x = torch.cat(list(self.u.values())) if x is None else x
        cut = x.split([math.prod(shape) for shape in self.shapes.values()])
        return {part: v.view(shape) for v, (part, shape) in zip(cut, self.shapes.items(), strict=True)}

    def _open(self) -> Tensor:
        """u, zero where a component is shut (entries,)."""
        return torch.cat(list(self.u.values())) * self.gates[self.component]

    def _steps(self, step: Tensor) -> Tensor:
        """Whole steps of u, straight through (entries,)."""
        return ste_round((self._open() / step).clamp(-self.limit, self.limit))

    def parameters(self) -> dict[str, Tensor]:
        """The adapted weights, differentiable in u; rounded once settled."""
        return self._weights(self._steps(self.step) * self.step if self.settled else self._open())

    @torch.no_grad()
    def sent(self) -> dict[str, Tensor]:
        """The weights that a decoder will have."""
        step = self._step_of(self.exponents or self.usual_exponents())
        return self._weights(self._steps(step) * step)

    def _weights(self, values: Tensor) -> dict[str, Tensor]:
        parts, out = self.parts(values), {}
        for n, p in self.base.items():
            out[n] = p + ((parts[n + LEFT] @ parts[n + RIGHT]).reshape(p.shape) if n in self.factored else parts[n])
        return out

    @torch.no_grad()
    def update(self) -> Update:
        """As the stream carries it, without the components that are zero."""
        exponents, tensors = self.exponents or self.usual_exponents(), {}
        steps = {
            n: x.cpu().numpy().astype(np.int32) for n, x in self.parts(self._steps(self._step_of(exponents))).items()
        }
        for n, p in self.base.items():
            if n in self.factored:
                left, right = steps[n + LEFT], steps[n + RIGHT]
                if (live := left.any(0) & right.any(1)).any():
                    parts = (
                        TensorUpdate(left[:, live], exponents[n + LEFT]),
                        TensorUpdate(right[live], exponents[n + RIGHT]),
                    )
                    tensors[n] = Factors(*parts).product(tuple(p.shape))
            elif steps[n].any():
                tensors[n] = TensorUpdate(steps[n], exponents[n])
        return Update(tensors)

    # ------------------------------------------------------------------ the rate

    def component_bits(self, step: Tensor) -> Tensor:
        """Bits of every component at steps by entry (components,), differentiable in u."""
        sums = torch.zeros_like(self.size).index_add(0, self.component, (self._open() / step).abs())
        return geometric_bits(sums / self.size) * self.size

    def bits(self) -> Tensor | None:
        """Of the update as it stands, differentiable; None before it is settled."""
        return self.component_bits(self.step).sum() if self.settled else None

    # ------------------------------------------------------------------ settling

    def _step_of(self, exponents: dict[str, int]) -> Tensor:
        return self._by_entry({part: 2.0**-k for part, k in exponents.items()})

    def usual_exponents(self) -> dict[str, int]:
        """Steps of `UNSETTLED` root mean squares."""
        return {part: _exponent(UNSETTLED * _rms(x)) for part, x in self.parts().items()}

    @torch.no_grad()
    def curvature_exponents(self, probes: list[dict[str, Tensor]], pixels: int, coarsest: float) -> dict[str, int]:
        """Steps from gradients of random probes by the weights (`Objective.probe`), at the weights as they stand.

        With h the mean curvature of a part's entries in bits of the whole video, a uniform step t costs h t^2 / 24
        bits an entry and saves log2 t: least at t^2 = 12 / (h ln 2). No step is beyond `coarsest` root mean squares.
        """
        parts, squares = self.parts(), dict.fromkeys(self.shapes, 0.0)
        for grads in probes:
            for n in self.base:
                if (g := grads.get(n)) is None:
                    continue
                if n not in self.factored:
                    squares[n] += float(g.square().mean())
                    continue
                g = g.reshape(g.shape[0], -1).float()
                squares[n + LEFT] += float((g @ parts[n + RIGHT].t()).square().mean())
                squares[n + RIGHT] += float((parts[n + LEFT].t() @ g).square().mean())
        out = {}
        for part, x in parts.items():
            h = squares[part] / len(probes) * pixels
            step = math.sqrt(12 / (h * math.log(2))) if h > 0 else math.inf
            out[part] = _exponent(min(step, coarsest * _rms(x)))
        return out

    def settle(self, exponents: dict[str, int]) -> None:
        """From now on the network sees the update rounded to these steps."""
        self.exponents, self.step = dict(exponents), self._step_of(exponents)

    def state(self) -> tuple[dict[str, Tensor], Tensor, dict[str, int]]:
        """To come back to."""
        return {n: u.detach().clone() for n, u in self.u.items()}, self.gates, self.exponents

    @torch.no_grad()
    def restore(self, state: tuple[dict[str, Tensor], Tensor, dict[str, int]]) -> None:
        for n, u in state[0].items():
            self.u[n].copy_(u)
        self.gates, self.exponents, self._before = state[1], {}, None
        if state[2]:
            self.settle(state[2])

    # ------------------------------------------------------------------ what components bring

    @torch.no_grad()
    def account(self) -> None:
        """Before a step of the optimiser: what the one before it has gained, by this batch's gradient.

        Adds - gradient * movement to `gained`, in units of the loss: to first order, and on other pictures than those
        that decided the movement. Of bold steps it is a noisy sum: less its standard deviation it shut nearly all of
        the synthesis, where most of the gain is.
        """
        now = torch.cat(list(self.u.values()))
        if self._before is not None and all(x.grad is not None for x in self.u.values()):
            slope = torch.cat([x.grad for x in self.u.values()])  # type: ignore[misc]
            self.gained.index_add_(0, self.component, slope * (self._before - now))
        self._before = now

    def payoff(self, pixels: int) -> dict[str, Tensor]:
        """Bits that every component of every tensor has gained the video, both factors together (components,)."""
        return {n: pixels * self.gained[places].sum(0) for n, places in self._places().items()}

    def _places(self) -> dict[str, Tensor]:
        """By tensor: numbers of its components, a row for each of its parts (1 or 2, components)."""
        numbers = {part: torch.arange(c.start, c.stop) for part, c in self.components.items()}
        pairs = {n: [n + LEFT, n + RIGHT] if n in self.factored else [n] for n in self.base}
        return {n: torch.stack([numbers[part] for part in parts]) for n, parts in pairs.items()}

    @torch.no_grad()
    def prune(self, pixels: int, exponents: dict[str, int], hope: float) -> int:
        """Shut the components that cost more than `hope` times what they have gained; how many."""
        bits, payoff = self.component_bits(self._step_of(exponents)), self.payoff(pixels)
        gates, shut = self.gates.clone(), 0
        for n, places in self._places().items():
            live = hope * payoff[n] > bits[places].sum(0)
            shut += int((self.gates[places[0]] > live).sum())
            gates[places] *= live
        self.gates = gates
        return shut


def _components(part: str, shape: tuple[int, ...]) -> Tensor:
    """The component of every entry, in a part's shape: of a factor its rank, of a table its row, else 0."""
    if part.endswith(LEFT):
        return torch.arange(shape[1]).expand(shape)
    if part.endswith((RIGHT, ".table")):
        return torch.arange(shape[0])[:, None].expand(shape)
    return torch.zeros(shape, dtype=torch.long)


def _rms(x: Tensor) -> float:
    """Root mean square of what is not zero; 0 where all is."""
    moved = x.detach()[x.detach() != 0]
    return float(moved.square().mean().sqrt()) if moved.numel() else 0.0


def _exponent(step: float) -> int:
    """Of the power of two nearest to a step."""
    return int(np.clip(round(-math.log2(step)), 0, MAX_STEP_EXPONENT)) if step > 0 else MAX_STEP_EXPONENT
