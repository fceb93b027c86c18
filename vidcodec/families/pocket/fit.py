"""Encoding is training: gradient descent on the symbols of some frames and on the one network that they share.

    loss = distortion + lambda * (bits of symbols / luma samples + bits of the network / luma samples of all frames)

Symbols are real numbers at first, rounded softly and disturbed by noise; the temperature falls; in the last part they
are rounded. Frames are visited in turn, each visit is one step of Adam for the frame's symbols, divided by what a
grid's gradients have in common, and of SOAP for the network. What stays in memory is each frame's symbols with two
moments: 16 bytes for each luma sample.

Sources: soft rounding, Agustsson & Theis 2020 (arXiv 2006.09952), its schedule as in C3, Kim et al. 2023 (arXiv
2312.02753), and Cool-Chic 5.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vidcodec.families.pocket.exact import SYMBOL_LIMIT
from vidcodec.families.pocket.network import PocketConfig, unflatten
from vidcodec.families.pocket.soap import Soap
from vidcodec.families.pocket.symbol_kernels import descend, round_hard, round_softly
from vidcodec.families.pocket.workspace import Workspace
from vidcodec.rate import PLANE_WEIGHTS

Array = np.ndarray

LEAST_ROUNDS = 30  # however little time there is
LOOK = 3  # frames that a true cost is measured on while fitting
# Temperature of soft rounding, its noise and the rate of symbols, as they are at first: hot for few visits to a frame,
# cool for many, between the two in the logarithm.
HOT, COOL, VISITS = (0.5, 0.3, 0.25), (0.35, 0.22, 0.16), (200, 1200)
LAST = (0.08, 0.1)  # temperature and noise before symbols are rounded


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    trade_off: lambda, weighted squared error (samples span 1) for one bit per luma sample. weights: of the squared
    errors of Y, U, V. rounds: visits to each frame. shared: frames that pay for the network; 0: it stays as it is.
    hard: the last share of the visits, on rounded symbols. Rates are those of symbols (hard ones, in steps) and of SOAP
    (network). network_step: of a typical parameter when it is sent. memory, own: of symbols, see `descend`.
    coarser: rate of a grid's symbols to that of the next finer.
    """

    trade_off: float = 5e-4
    weights: tuple[float, float, float] = PLANE_WEIGHTS
    rounds: int = 500
    shared: int = 1
    hard: float = 0.04
    network_rate: float = 0.01
    hard_symbol_rate: float = 0.001
    hard_network_rate: float = 5e-4
    network_step: float = 2.0**-6
    seed: int = 0
    memory: tuple[float, float] = (0.5, 0.95)
    own: float = 0.1
    coarser: float = 1.2


class Cost(NamedTuple):
    """Of rounded symbols: squared errors of Y, U, V (samples span 1, unclipped and unrounded), bits of symbols."""

    errors: Array
    bits: float


class FrameState(NamedTuple):
    """One frame in a fit."""

    symbols: Array  # float32 (T,), in steps; real numbers, rounded for whoever codes them
    first: Array  # moments of its gradients
    second: Array


class Fit:
    """A network and the symbols of frames, while they are being found.

    Symbols start from zero, or from those of a frame before: a pyramid of the picture leaves a descent in worse places
    (measured).
    """

    def __init__(self, targets: Sequence[Array], options: FitOptions, config: PocketConfig, theta: Array) -> None:
        """targets: planes float32 (6, h, w) of every frame, all of one size, read one at a time at every visit.

        theta: parameters to start from, which whoever decodes has too.
        """
        self.config, self.options, self.targets = config, options, targets
        h, w = targets[0].shape[1:]
        self.work = Workspace(config, h, w)
        self.base = theta.astype(np.float32)
        self.theta = self.base.copy()
        self.soap = Soap(config.shapes())
        self.samples = 4 * h * w
        self.states = np.zeros((len(targets), 3, self.work.length), np.float32)
        self.visits, self.total = 0, options.rounds * len(targets)

    def start(self, index: int, grids: Sequence[Array]) -> None:
        """Let a frame start from symbols, the finest grid first."""
        for mine, grid in zip(self.work.grids(self.frame(index).symbols), grids, strict=True):
            mine[:] = grid

    def frame(self, index: int) -> FrameState:
        """Views of a frame's symbols and moments."""
        return FrameState(*self.states[index])

    def step(self) -> None:
        """One visit to one frame."""
        o, work, t = self.options, self.work, self.visits / self.total
        turn, index = divmod(self.visits, len(self.targets))
        frame, soft = self.frame(index), 1 - o.hard
        if t < soft:
            t /= soft
            fall = 0.5 * (1 + math.cos(math.pi * t))
            *heat, symbol_rate = self._heat()
            temperature, noise = (a + (b - a) * t for a, b in zip(heat, LAST, strict=True))
            round_softly(frame.symbols, work.mask, temperature, noise, self.visits + o.seed, work.symbols, work.slope)
            symbol_rate, network_rate = max(symbol_rate * fall, o.hard_symbol_rate), o.network_rate * fall
        else:
            fall = 0.5 * (1 + math.cos(math.pi * (t - soft) / o.hard))
            round_hard(frame.symbols, work.symbols)
            work.slope[:] = work.mask[: work.length]
            symbol_rate, network_rate = o.hard_symbol_rate * fall, o.hard_network_rate * fall
        weights = np.array(o.weights)
        _, _, gradient = work.evaluate(self.theta, self.targets[index], weights, o.trade_off / self.samples)
        for k, (rows, columns) in enumerate(work.sizes):
            part = work.parts[k]
            descend(
                frame.symbols[part],
                work.gradient[part],
                work.slope[part],
                frame.first[part],
                frame.second[part],
                rows * columns,
                turn + 1,
                symbol_rate * o.coarser**k,
                o.memory,
                o.own,
            )
        if o.shared:
            gradient += self._network_gradient()
            self.soap.step(unflatten(self.config, self.theta), unflatten(self.config, gradient), network_rate)
        self.visits += 1

    def _heat(self) -> tuple[float, ...]:
        """Temperature, noise and rate of symbols at first, for as many visits as are planned."""
        few, many = VISITS
        share = math.log(self.total / len(self.targets) / few) / math.log(many / few)
        return tuple(a + (b - a) * min(max(share, 0.0), 1.0) for a, b in zip(HOT, COOL, strict=True))

    def _network_gradient(self) -> Array:
        """Of lambda times the network's bits for each luma sample, by parameter: log2(1 + |difference| / step)."""
        o = self.options
        price = o.trade_off / (self.samples * o.shared)
        away = self.theta - self.base
        return (price * np.sign(away) / (math.log(2) * (np.abs(away) + np.float32(o.network_step)))).astype(np.float32)

    def cost(self, index: int, theta: Array | None = None) -> Cost:
        """True cost of a frame as it stands, symbols rounded."""
        round_hard(self.frame(index).symbols, self.work.symbols)
        theta = self.theta if theta is None else theta
        errors, bits, _ = self.work.evaluate(theta, self.targets[index], np.ones(3), 0.0, backward=False)
        return Cost(errors, float(bits.sum()))

    def grids(self, index: int) -> list[Array]:
        """A frame's symbols as whole numbers, int32, the finest grid first."""
        whole = np.clip(np.floor(self.frame(index).symbols + np.float32(0.5)), -SYMBOL_LIMIT, SYMBOL_LIMIT)
        return [np.ascontiguousarray(g, np.int32) for g in self.work.grids(whole)]

    def loss(self, theta: Array) -> float:
        """True cost of a frame with other parameters, bits per luma sample: of a few of them, symbols rounded."""
        o, count = self.options, len(self.targets)
        chosen = np.unique(np.linspace(0, count - 1, min(LOOK, count)).round().astype(int)).tolist()
        costs = [self.cost(i, theta) for i in chosen]
        return sum(c.bits / self.samples + float(np.array(o.weights) @ c.errors) / o.trade_off for c in costs) / len(
            chosen
        )

    def run(self, seconds: float = math.inf, pause: float = math.inf, step: Callable[[], None] = lambda: None) -> bool:
        """Go on to the end, which comes sooner where there are fewer seconds left; True at the end.

        pause: seconds after which to come back before it, to go on by another call. step: called at every visit. At
        least `LEAST_ROUNDS` visits are made to each frame, or as many as were asked for.
        """
        start, first, asked = time.monotonic(), self.visits, self.options.rounds * len(self.targets)
        least = min(asked, LEAST_ROUNDS * len(self.targets))
        while self.visits < self.total:
            self.step()
            step()
            spent = time.monotonic() - start
            if seconds < math.inf:
                left = max(0.0, seconds - spent) * (self.visits - first) / spent
                self.total = max(least, self.visits, min(asked, self.visits + int(left)))
            if spent > pause:
                break
        return self.visits >= self.total

    def state(self) -> dict[str, Array]:
        """All that `load` needs to go on."""
        slots = {f"soap:{name}:{k}": v for name, slot in self.soap.slots.items() for k, v in slot.items()}
        counts = np.array([self.visits, self.soap.count])
        return {"theta": self.theta, "states": self.states, "counts": counts, **slots}

    def load(self, state: Mapping[str, Array]) -> None:
        """Go on from a `state` of a fit of the same frames with the same options."""
        self.theta, self.states = state["theta"].copy(), state["states"].copy()
        self.visits, self.soap.count = (int(n) for n in state["counts"])
        for name, slot in self.soap.slots.items():
            for k in slot:
                slot[k] = state[f"soap:{name}:{k}"].copy()
