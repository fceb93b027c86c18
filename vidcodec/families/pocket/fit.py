"""Encoding is training: gradient descent on the symbols of all frames and on the one network that they share.

    loss = distortion + lambda * (bits of symbols / luma samples + bits of the network / luma samples of all frames)

Symbols are real numbers at first, rounded softly and disturbed by noise; the temperature falls; in the last part they
are rounded. Frames are visited in turn, each visit is one step of Adam for the frame's symbols and for the network.
So the network is paid once, and what has to stay in memory is a frame's symbols with two moments.

Sources: soft rounding, Agustsson & Theis 2020 (arXiv 2006.09952), its schedule as in C3, Kim et al. 2023 (arXiv
2312.02753), and Cool-Chic 5.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from vidcodec.families.pocket.exact import SYMBOL_LIMIT
from vidcodec.families.pocket.network import PocketConfig, flatten, initial, unflatten
from vidcodec.families.pocket.soap import Soap
from vidcodec.families.pocket.symbol_kernels import adam, round_hard, round_softly
from vidcodec.families.pocket.workspace import Workspace

Array = np.ndarray

POOLED = (4 / 6, 1 / 6, 1 / 6)  # all samples of the three planes alike


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    trade_off: lambda, squared error (samples span 1) for one bit per luma sample. weights: of the squared errors of Y,
    U, V; None follows PSNR-YUV, (6 Y + U + V) / 8 in decibels. rounds: visits to each frame. hard: the last share of
    them, on rounded symbols. Rates are those of Adam (symbols, in steps) and of SOAP or Adam (network); a frozen
    network has a rate of 0. shared: frames that pay for the network, those at hand if None; network_step: of a typical
    parameter when it is sent.
    """

    trade_off: float = 5e-4
    weights: tuple[float, float, float] | None = None
    rounds: int = 500
    hard: float = 0.04
    symbol_rate: float = 0.16
    network_rate: float = 0.01
    hard_symbol_rate: float = 0.001
    hard_network_rate: float = 5e-4
    temperature: tuple[float, float] = (0.35, 0.08)
    noise: tuple[float, float] = (0.22, 0.15)
    optimizer: str = "soap"
    shared: int | None = None
    network_step: float = 2.0**-6
    seed: int = 0


class Cost(NamedTuple):
    """Of rounded symbols: squared errors of Y, U, V (samples span 1, unclipped and unrounded), bits of symbols."""

    errors: Array
    bits: float


@dataclass
class FrameState:
    """One frame in a fit."""

    symbols: Array  # float32 (T,), in steps; real numbers, rounded for whoever codes them
    first: Array  # moments of Adam
    second: Array
    errors: Array = field(default_factory=lambda: np.zeros(3))  # at the last visit
    bits: float = 0.0


class Fit:
    """A network and the symbols of all frames, while they are being found."""

    def __init__(
        self,
        targets: Sequence[Array],
        options: FitOptions,
        config: PocketConfig | None = None,
        theta: Array | None = None,
        store: Path | None = None,
    ) -> None:
        """targets: planes float32 (6, h, w) of every frame, all of one size, read one at a time at every visit.

        theta: parameters to start from, which whoever decodes has too. store: a file that holds symbols and moments,
        12 bytes for each symbol, where memory is not to grow with the frames. Symbols start from zero: a pyramid of
        the picture leaves a descent in worse places (measured).
        """
        self.config = config or PocketConfig()
        self.options = options
        h, w = targets[0].shape[1:]
        self.work = Workspace(self.config, h, w)
        if theta is None:
            theta = flatten(self.config, initial(self.config, options.trade_off, options.seed))
        self.base = theta.astype(np.float32)
        self.theta = self.base.copy()
        self.moments = np.zeros((2, self.theta.size), np.float32)
        self.soap = Soap(self.config.shapes())
        self.samples = 4 * h * w
        self.targets = targets
        size = (len(targets), 3, self.work.length)
        states = np.zeros(size, np.float32) if store is None else open_memmap(store, "w+", np.float32, size)
        self.frames = [FrameState(*np.asarray(state)) for state in states]
        self.visits = 0

    @property
    def total(self) -> int:
        return self.options.rounds * len(self.frames)

    def weights(self) -> Array:
        """Of the squared errors of Y, U, V."""
        if self.options.weights is not None:
            return np.array(self.options.weights)
        seen = [f.errors for f in self.frames if f.errors[0] > 0]
        share = np.array([0.75, 0.125, 0.125])
        if not seen:
            return share
        errors = np.maximum(np.mean(seen, 0), 1e-6)
        ratio = np.clip(share / errors / (share[0] / errors[0]), 1 / 12, 2.0)
        return share[0] * ratio

    def step(self) -> None:
        """One visit to one frame."""
        o, work = self.options, self.work
        index = self.visits % len(self.frames)
        frame, target = self.frames[index], self.targets[index]
        turn = self.visits // len(self.frames)
        soft = max(1, round(o.rounds * (1 - o.hard)))
        if turn < soft:
            t = self.visits / (soft * len(self.frames))
            fall = 0.5 * (1 + math.cos(math.pi * t))
            temperature, noise = (a + (b - a) * t for a, b in (o.temperature, o.noise))
            round_softly(frame.symbols, work.mask, temperature, noise, self.visits + o.seed, work.symbols, work.slope)
            symbol_rate, network_rate = o.symbol_rate * fall, o.network_rate * fall
            symbol_rate = max(symbol_rate, o.hard_symbol_rate)
        else:
            t = (self.visits - soft * len(self.frames)) / max(1, self.total - soft * len(self.frames))
            fall = 0.5 * (1 + math.cos(math.pi * t))
            round_hard(frame.symbols, work.symbols)
            work.slope[:] = work.mask[: work.length]
            symbol_rate, network_rate = o.hard_symbol_rate * fall, o.hard_network_rate * fall
        errors, bits, gradient = work.evaluate(self.theta, target, self.weights(), o.trade_off / self.samples)
        frame.errors, frame.bits = errors, float(bits.sum())
        adam(
            frame.symbols,
            work.gradient,
            work.slope,
            frame.first,
            frame.second,
            turn + 1,
            symbol_rate,
            0.9,
            0.999,
            1e-12,
        )
        if network_rate <= 0:
            pass
        elif o.optimizer == "soap":
            self.soap.step(unflatten(self.config, self.theta), unflatten(self.config, gradient), network_rate)
        else:
            ones = np.ones_like(self.theta)
            first, second = self.moments
            adam(self.theta, gradient, ones, first, second, self.visits + 1, network_rate, 0.9, 0.99, 1e-12)
        self.visits += 1

    def _network_gradient(self) -> Array:
        """Of lambda times the network's bits for each luma sample, by parameter: log2(1 + |difference| / step)."""
        o = self.options
        price = o.trade_off / (self.samples * (o.shared or len(self.frames)))
        away = self.theta - self.base
        return price * np.sign(away) / (math.log(2) * (np.abs(away) + np.float32(o.network_step)))

    def cost(self, index: int, theta: Array | None = None) -> Cost:
        """True cost of a frame as it stands, symbols rounded."""
        frame = self.frames[index]
        round_hard(frame.symbols, self.work.symbols)
        theta = self.theta if theta is None else theta
        errors, bits, _ = self.work.evaluate(theta, self.targets[index], np.ones(3), 0.0, backward=False)
        return Cost(errors, float(bits.sum()))

    def grids(self, index: int) -> list[Array]:
        """A frame's symbols as whole numbers, int32, the finest grid first."""
        whole = np.clip(np.floor(self.frames[index].symbols + np.float32(0.5)), -SYMBOL_LIMIT, SYMBOL_LIMIT)
        return [np.ascontiguousarray(g, np.int32) for g in self.work.grids(whole)]

    def loss(self, theta: Array, indices: Sequence[int] | None = None) -> float:
        """True cost a frame of other parameters, symbols rounded: weighted error + lambda * bits per luma sample."""
        chosen = range(len(self.frames)) if indices is None else indices
        weights, total = self.weights(), 0.0
        for i in chosen:
            errors, bits = self.cost(i, theta)
            total += float(weights @ errors) + self.options.trade_off * bits / self.samples
        return total / len(chosen)

    def run(self, seconds: float = math.inf, report: Callable[[Fit], None] | None = None) -> bool:
        """Go on to the end, or for so long; True at the end. Call again to go on."""
        end = time.monotonic() + seconds
        while self.visits < self.total and time.monotonic() < end:
            self.step()
            if report is not None:
                report(self)
        return self.visits >= self.total

    def save(self, path: Path) -> None:
        """All that `load` needs to go on, written beside and renamed."""
        arrays: dict[str, Array] = {"theta": self.theta, "moments": self.moments, "visits": np.array(self.visits)}
        arrays["soap"] = np.array(self.soap.count)
        for name, slot in self.soap.slots.items():
            arrays |= {f"soap/{name}/{k}": v for k, v in slot.items()}
        for i, f in enumerate(self.frames):
            arrays[f"frame/{i}"] = np.stack([f.symbols, f.first, f.second])
            arrays[f"errors/{i}"] = np.append(f.errors, f.bits)
        beside = path.with_name(path.name + ".part")
        with beside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote, with the same frames and options."""
        with np.load(path, allow_pickle=False) as d:
            self.theta, self.moments, self.visits = d["theta"], d["moments"], int(d["visits"])
            self.soap.count = int(d["soap"])
            for name, slot in self.soap.slots.items():
                for k in slot:
                    slot[k] = d[f"soap/{name}/{k}"]
            for i, f in enumerate(self.frames):
                f.symbols[:], f.first[:], f.second[:] = d[f"frame/{i}"]
                f.errors, f.bits = d[f"errors/{i}"][:3], float(d[f"errors/{i}"][3])
