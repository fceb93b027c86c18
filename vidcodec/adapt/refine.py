"""Refining the latents of one picture with the model fixed: the decoder never knows.

Both methods lower  L = R + lambda * 255^2 * D  of the picture as it will be coded. The caller codes what they return
and keeps it only if the true cost fell.

**lof**, latent overfitting by greedy search. (Named by Zhang et al. 2022, arXiv 2210.04112, who do not print their
search; this one is ours.) A quantiser decides every symbol by its own rate and its own error. What it leaves out,
the other latents' share in the error and what later passes learn from a symbol, is in the gradient g of L at the
decided values v, without each symbol's own rate. So the quantiser is given new targets, the proximal gradient step

    t <- (1 - eta) t + eta (v - g / 2w)          w: `error_weights`, the curvature of the error

and decides again, by its real rates: the proximal operator. Changed symbols of z are tried in between, those of the
greatest predicted gain. Whatever does not lower the cost, all symbols decided and all passes run again, is taken back
and tried with half the reach.

**sga**, stochastic Gumbel annealing (Yang, Bamler, Mandt 2020, arXiv 2006.04240): y and z descend together through
rounding that is random, towards floor or ceiling, with a temperature that falls to zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidcodec.adapt.decisions import Decisions
from vidcodec.adapt.objective import autocast
from vidcodec.entropy.scales import MAX_INDEX
from vidcodec.models.msp import PLANE_WEIGHTS, Msp, weighted_mse
from vidcodec.models.rates import symbol_bits
from vidcodec.quantize import quantizer as quantisers
from vidcodec.quantize.quantizer import UNIT

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
    """Latents as decided and coded: y's targets, z's symbols, what came of them."""

    target: Tensor
    z_hat: Tensor
    y_hat: Tensor
    loss: Tensor  # differentiable in target and z_hat
    cost: float  # bits, with the tables' rates

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of the loss, towards the decided values of y and the symbols of z."""
        y, z = torch.autograd.grad(self.loss, (self.target, self.z_hat))
        return y, z


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
        self, planes: Tensor, y: Tensor, z: Tensor, seconds: float = math.inf,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Better latents y (1, C, h, w) and z for planes (1, 6, H/2, W/2); to be coded with `decisions`.

        seconds: bounds the time, whatever the machine; the schedule shrinks with it.
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

        run = self._lof if self.c.method == "lof" else self._sga
        with torch.enable_grad():
            return run(planes.to(self.level.device), y.detach(), z.detach(), share)

    # ---------------------------------------------------------------- greedy search

    def _lof(self, planes: Tensor, y: Tensor, z: Tensor, share: Callable[[int], float]) -> tuple[Tensor, Tensor]:
        best = self._state(planes, y, torch.round(z))
        to_y, to_z = best.gradients()
        reach, z_share, step = self.c.reach, self.c.z_share, 0
        while reach >= self.c.least_reach and share(step) < 1.0:
            if changed := step % 3 == 2:
                trial = self._state(planes, best.target, self._moved(best.z_hat, to_z, z_share))
            else:
                trial = self._state(planes, self._closer(best, to_y, reach), best.z_hat)
            step += 1
            if trial.cost < best.cost:
                best = trial
                to_y, to_z = best.gradients()
            elif changed:
                z_share /= 2
            else:
                reach /= 2
        return best.target.detach(), best.z_hat.detach()

    def _closer(self, s: _State, gradient: Tensor, reach: float) -> Tensor:
        """Targets of y after a proximal gradient step."""
        assert self.decisions.weight is not None
        weight = torch.from_numpy(self.decisions.weight).to(gradient)[:, None, None]
        return torch.lerp(s.target.detach(), s.y_hat - gradient / (2 * weight), reach)

    def _moved(self, z_hat: Tensor, gradient: Tensor, share: float) -> Tensor:
        """Symbols of z, those of the greatest predicted gain one step downhill."""
        index = self.model.z_indices(self.level)
        step = -gradient.sign() * (index.round() > 0)
        gain = gradient.abs() * step.abs() + symbol_bits(z_hat, index) - symbol_bits(z_hat + step, index)
        gaining = gain[(gain > 0) & (step != 0)]
        if not gaining.numel():
            return z_hat.detach()
        least = torch.quantile(gaining, max(0.0, 1.0 - share))
        return (z_hat + step * (gain >= least)).detach()

    def _state(self, planes: Tensor, target: Tensor, z_hat: Tensor) -> _State:
        """Decide all symbols for these targets, and what comes of it."""
        target, z_hat = target.detach().requires_grad_(True), z_hat.detach().requires_grad_(True)
        table_bits = 0.0
        quantizer = self.decisions.quantizer
        unit, finer = quantizer.spacing, quantizer.finer

        def code(y: Tensor, mean: Tensor, index: Tensor, channels: slice) -> tuple[Tensor, Tensor]:
            nonlocal table_bits
            residual = y - mean
            tables = index.detach().round().clamp(0, MAX_INDEX).to(torch.uint8).cpu().numpy()
            symbols, values = self.decisions.quantise(residual.detach().cpu().numpy(), tables, channels)
            table_bits += float(quantisers.symbol_bits(quantizer, symbols, tables).sum())
            decided = torch.from_numpy(values).to(residual) / UNIT
            # Its own rate is the quantiser's affair: here, rate is a function of mean and index only.
            moving = decided + mean.detach() - mean
            return residual + (decided - residual).detach(), symbol_bits(moving / unit, index + finer).sum((1, 2, 3))

        with autocast(planes.device):
            y_hat, y_bits = self.model.code_passes(target, z_hat, self.level, code)
            out = self.model.synthesise(y_hat, self.level)
        z_bits = symbol_bits(z_hat.detach(), self.model.z_indices(self.level)).sum()
        error = self._error_bits(out, planes)
        cost = table_bits + z_bits.item() + error.item()
        return _State(target, z_hat, y_hat.detach(), y_bits.sum() + error, cost)

    def _error_bits(self, out: Tensor, planes: Tensor) -> Tensor:
        """lambda * 255^2 * D of the whole picture."""
        pixels = 4 * planes.shape[-1] * planes.shape[-2]
        return self.lam * 255.0**2 * pixels * weighted_mse(out.float(), planes, PLANE_WEIGHTS).sum()

    # ------------------------------------------------------------ stochastic annealing

    def _sga(self, planes: Tensor, y: Tensor, z: Tensor, share: Callable[[int], float]) -> tuple[Tensor, Tensor]:
        y, z = y.clone().requires_grad_(True), z.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([y, z], lr=self.c.learning_rate, betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(self.c.seed)
        index, step = self.model.z_indices(self.level), 0
        while (done := share(step)) < 1.0:
            temperature = annealed(done, self.c.hot)

            def code(y: Tensor, mean: Tensor, index: Tensor, _: slice) -> tuple[Tensor, Tensor]:
                q = gumbel_round(y - mean, temperature, generator)  # noqa: B023 (called in this round only)
                return q, symbol_bits(q, index).sum((1, 2, 3))

            with autocast(planes.device):
                z_soft = gumbel_round(z, temperature, generator)
                y_hat, y_bits = self.model.code_passes(y, z_soft, self.level, code)
                out = self.model.synthesise(y_hat, self.level)
            loss = y_bits.sum() + symbol_bits(z_soft, index).sum() + self._error_bits(out, planes)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
        return y.detach(), z.detach()


def annealed(share: float, hot: float) -> float:
    """Temperature after a share of the steps: the paper's min(0.5, exp(-0.001 (t - t0))) over its 2000 steps."""
    return min(0.5, math.exp(-2.0 * (share - hot)))


def gumbel_round(x: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """x rounded at random towards floor or ceiling, differentiable: the paper's equations 9 and 10.

    Nearer is likelier, by the inverse hyperbolic tangent of the distance; both the odds and their softmax sharpen
    as the temperature falls.
    """
    low = x.detach().floor()
    away = torch.stack([x - low, low + 1 - x]).clamp(1e-4, 1 - 1e-4)  # from floor, from ceiling
    uniform = torch.rand(away.shape, generator=generator).clamp(1e-9, 1 - 1e-7).to(x.device)
    gumbel = -torch.log(-torch.log(uniform))
    odds = torch.softmax((-torch.atanh(away) / temperature + gumbel) / temperature, 0)
    return low + odds[1]
