"""Refining the latents of pictures with the model fixed: the decoder never knows.

Both methods lower  L = R + lambda * 255^2 * D  of the picture as it will be coded. The caller codes what they return
and keeps it only if the true cost fell. Pictures of one size are refined together, each for itself: its own cost,
reach and random numbers.

**lof**, latent overfitting by greedy search. (Named by Zhang et al. 2022, arXiv 2210.04112, who do not print their
search; this one is ours.) A quantiser decides every symbol by its own rate and its own error. What it leaves out,
the other latents' share in the error and what later passes learn from a symbol, is in the gradient g of L at the
decided values v, without each symbol's own rate. So the quantiser is given new targets, the proximal gradient step

    t <- (1 - eta) t + eta (v - g / 2w)          w: `error_weights`, the curvature of the error

and decides again, by its real rates: the proximal operator. Changed symbols of z are tried in between, those of the
greatest predicted gain. Whatever does not lower the cost, all symbols decided and all passes run again, is taken back
and tried with half the reach, picture by picture.

**sga**, stochastic Gumbel annealing (Yang, Bamler, Mandt 2020, arXiv 2006.04240): y and z descend together through
rounding that is random, towards floor or ceiling, with a temperature that falls to zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import symbol_bits
from vidcodec.entropy.scales import MAX_INDEX
from vidcodec.families.msp.network import Msp
from vidcodec.latents import quantizer as quantisers
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import UNIT
from vidcodec.rate import PLANE_WEIGHTS, weighted_mse
from vidcodec.updates.objective import autocast

METHODS = ("lof", "sga")


@dataclass(frozen=True)
class RefineConfig:
    """How long and how boldly.

    method: of `METHODS`. steps: at most, per picture. reach, least_reach: eta of the first step of lof, and where it
    gives up. z_share: part of z's symbols with a predicted gain that lof changes at once. learning_rate: of sga's
    Adam, in quantiser steps. hot: share of sga's steps before its temperature falls below 0.5.
    """

    method: str = "lof"
    steps: int = 12
    reach: float = 0.3
    least_reach: float = 0.03
    z_share: float = 0.25
    learning_rate: float = 0.01
    hot: float = 0.35
    seed: int = 0


@dataclass
class _State:
    """Latents of B pictures as decided and coded: y's targets, z's symbols, what came of them."""

    target: Tensor  # (B, C, h, w)
    z_hat: Tensor
    y_hat: Tensor
    to_y: Tensor  # gradient of the loss towards the decided values of y
    to_z: Tensor  # and towards the symbols of z
    cost: Tensor  # (B,) bits, with the tables' rates; float64, on the CPU

    def of(self, pictures: Tensor) -> _State:
        """Some of the pictures, by a mask or indices (on the CPU)."""
        return _State(*(getattr(self, f.name)[pictures] for f in fields(self)))

    def take(self, pictures: Tensor, other: _State) -> None:
        """Replace these pictures by those of `other`, in its order."""
        for f in fields(self):
            getattr(self, f.name)[pictures] = getattr(other, f.name)


class Refiner:
    """Refines pictures under one network at one rate level, for one quantiser.

    decisions: with a trade-off and weights for lof.
    """

    def __init__(self, model: Msp, level: Tensor, decisions: Decisions, config: RefineConfig) -> None:
        if config.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {config.method!r}")
        if config.method == "lof" and (decisions.trade_off is None or decisions.weight is None):
            raise ValueError("lof decides by rate: it needs a trade-off and weights")
        self.model, self.level, self.decisions, self.c = model, level, decisions, config
        self.lam = float(model.rate_lambda(level))

    def refine(
        self,
        planes: Tensor,
        y: Tensor,
        z: Tensor,
        seconds: float = math.inf,
        progress: Callable[[float], None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Better latents y (B, C, h, w) and z for planes (B, 6, H/2, W/2); to be coded with `decisions`.

        seconds: bounds the time, whatever the machine; the schedule shrinks with it. numbers: of the pictures in their
        video, by which each has random numbers of its own; from 0 by default.
        """
        if seconds <= 0:
            return y, z
        start = time.monotonic()

        def share(step: int) -> float:
            """Of the work, that is done before this step."""
            done = min(1.0, max(step / self.c.steps, (time.monotonic() - start) / seconds))
            if progress:
                progress(done)
            return done

        planes, y, z = planes.to(self.level.device), y.detach(), z.detach()
        with torch.enable_grad():
            if self.c.method == "lof":
                return self._lof(planes, y, z, share)
            return self._sga(planes, y, z, share, range(len(y)) if numbers is None else numbers)

    # ---------------------------------------------------------------- greedy search

    def _lof(self, planes: Tensor, y: Tensor, z: Tensor, share: Callable[[int], float]) -> tuple[Tensor, Tensor]:
        best = self._state(planes, y.clone(), torch.round(z))  # changed in place
        reach, z_share = (torch.full((len(y),), v) for v in (self.c.reach, self.c.z_share))
        step = 0
        while len(at := torch.nonzero(reach >= self.c.least_reach)[:, 0]) and share(step) < 1.0:
            now, pictures = best.of(at), planes[at]
            if changed := step % 3 == 2:
                trial = self._state(pictures, now.target, self._moved(now, z_share[at]), now.cost)
            else:
                trial = self._state(pictures, self._closer(now, reach[at]), now.z_hat, now.cost)
            step += 1
            better = trial.cost < now.cost
            best.take(at[better], trial.of(better))
            (z_share if changed else reach)[at[~better]] /= 2
        return best.target, best.z_hat

    def _closer(self, s: _State, reach: Tensor) -> Tensor:
        """Targets of y after a proximal gradient step."""
        assert self.decisions.weight is not None
        weight = torch.from_numpy(self.decisions.weight).to(s.to_y)[:, None, None]
        return torch.lerp(s.target, s.y_hat - s.to_y / (2 * weight), reach.to(s.target)[:, None, None, None])

    def _moved(self, s: _State, shares: Tensor) -> Tensor:
        """Symbols of z, those of the greatest predicted gain in each picture one step downhill."""
        index = self.model.z_indices(self.level)
        step = -s.to_z.sign() * (index.round() > 0)
        gain = s.to_z.abs() * step.abs() + symbol_bits(s.z_hat, index) - symbol_bits(s.z_hat + step, index)
        possible, moved = (gain > 0) & (step != 0), s.z_hat.clone()
        for i, share in enumerate(shares.tolist()):
            if possible[i].any():
                least = torch.quantile(gain[i][possible[i]], max(0.0, 1.0 - share))
                moved[i] += step[i] * (gain[i] >= least)
        return moved

    def _state(self, planes: Tensor, target: Tensor, z_hat: Tensor, below: Tensor | None = None) -> _State:
        """Decide all symbols for these targets, and what comes of it.

        below: costs (B,); gradients are taken of the pictures that cost less, and are zero for the others.
        """
        target, z_hat = target.detach().requires_grad_(True), z_hat.detach().requires_grad_(True)
        level = self.level.expand(len(planes))
        table_bits = torch.zeros(len(planes), dtype=torch.float64)
        quantizer = self.decisions.quantizer
        unit, finer = quantizer.spacing, quantizer.finer

        def code(y: Tensor, mean: Tensor, index: Tensor, channels: slice) -> tuple[Tensor, Tensor]:
            residual = y - mean
            tables = index.detach().round().clamp(0, MAX_INDEX).to(torch.uint8).cpu().numpy()
            x, values = residual.detach().cpu().numpy(), np.empty(residual.shape, np.int32)
            for i in range(len(x)):  # a trellis starts anew in each
                one = slice(i, i + 1)
                symbols, values[one] = self.decisions.quantise(x[one], tables[one], channels)
                table_bits[i] += float(quantisers.symbol_bits(quantizer, symbols, tables[one]).sum())
            decided = torch.from_numpy(values).to(residual) / UNIT
            # Its own rate is the quantiser's affair: here, rate is a function of mean and index only.
            moving = decided + mean.detach() - mean
            return residual + (decided - residual).detach(), symbol_bits(moving / unit, index + finer).sum((1, 2, 3))

        with autocast(planes.device):
            y_hat, y_bits = self.model.code_passes(target, z_hat, level, code)
            out = self.model.synthesise(y_hat, level)
        z_bits = symbol_bits(z_hat.detach(), self.model.z_indices(self.level)).sum((1, 2, 3))
        error = self._error_bits(out, planes)
        cost = table_bits + (z_bits + error.detach()).double().cpu()
        better = torch.ones(len(cost), dtype=torch.bool) if below is None else cost < below
        to_y, to_z = torch.zeros_like(target), torch.zeros_like(z_hat)
        if better.any():
            loss = (y_bits + error)[better.to(error.device)].sum()
            to_y, to_z = torch.autograd.grad(loss, (target, z_hat))
        return _State(target.detach(), z_hat.detach(), y_hat.detach(), to_y, to_z, cost)

    def _error_bits(self, out: Tensor, planes: Tensor) -> Tensor:
        """lambda * 255^2 * D of whole pictures, (B,)."""
        pixels = 4 * planes.shape[-1] * planes.shape[-2]
        return self.lam * 255.0**2 * pixels * weighted_mse(out.float(), planes, PLANE_WEIGHTS)

    # ------------------------------------------------------------ stochastic annealing

    def _sga(
        self, planes: Tensor, y: Tensor, z: Tensor, share: Callable[[int], float], numbers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        y, z = y.clone().requires_grad_(True), z.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([y, z], lr=self.c.learning_rate, betas=(0.9, 0.99))
        generators = [generator_of(self.c.seed, n) for n in numbers]
        level, index, step = self.level.expand(len(y)), self.model.z_indices(self.level), 0
        while (done := share(step)) < 1.0:
            temperature = annealed(done, self.c.hot)

            def code(y: Tensor, mean: Tensor, index: Tensor, _: slice) -> tuple[Tensor, Tensor]:
                q = gumbel_round(y - mean, temperature, generators)  # noqa: B023 (called in this round only)
                return q, symbol_bits(q, index).sum((1, 2, 3))

            with autocast(planes.device):
                z_soft = gumbel_round(z, temperature, generators)
                y_hat, y_bits = self.model.code_passes(y, z_soft, level, code)
                out = self.model.synthesise(y_hat, level)
            loss = y_bits.sum() + symbol_bits(z_soft, index).sum() + self._error_bits(out, planes).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
        return y.detach(), z.detach()


def annealed(share: float, hot: float) -> float:
    """Temperature after a share of the steps: the paper's min(0.5, exp(-0.001 (t - t0))) over its 2000 steps."""
    return min(0.5, math.exp(-2.0 * (share - hot)))


def generator_of(seed: int, number: int) -> torch.Generator:
    """Random numbers of one picture of a video, whatever others it is refined with."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]))


def gumbel_round(x: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """x (B, ...) rounded at random towards floor or ceiling, differentiable: the paper's equations 9 and 10.

    Nearer is likelier, by the inverse hyperbolic tangent of the distance; both the odds and their softmax sharpen
    as the temperature falls. generators: one for each picture.
    """
    low = x.detach().floor()
    away = torch.stack([x - low, low + 1 - x]).clamp(1e-4, 1 - 1e-4)  # from floor, from ceiling
    drawn = [torch.rand((2, 1, *x.shape[1:]), generator=g) for g in generators]
    uniform = torch.cat(drawn, 1).clamp(1e-9, 1 - 1e-7).to(x.device)
    gumbel = -torch.log(-torch.log(uniform))
    odds = torch.softmax((-torch.atanh(away) / temperature + gumbel) / temperature, 0)
    return low + odds[1]
