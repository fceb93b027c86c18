"""Adapting the codec to one video: finetuning on its I-frames with the update's rate inside.

The loss of van Rozendaal et al. 2021 (arXiv 2101.08687),

    L = R + lambda * 255^2 * D + M / N      [bits per pixel]

with M the bits of the model update and N the pixels of all frames: paid once per video.
The encoder's parameters are free. Those the decoder shares move on the grid the stream
carries: theta = base + round(u + d) * 2^-k with a straight-through gradient, u = 0 at start,
d a fixed offset of each weight, k per tensor from the measured curvature of the loss
(`step_exponents`). M enters either as a term of the loss (spike and slab) or as the soft
threshold of a proximal step (`optim`).

A second phase freezes the encoder and its truly quantised latents and goes on with
decoder and priors alone (after Borzechowski et al. 2024, arXiv 2506.08662).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from vidcodec.adapt.curvature import mean_curvature
from vidcodec.adapt.optim import AdamSteps, SparseMomentum, UpdateOptimiser, is_vector
from vidcodec.adapt.prior import UpdatePrior
from vidcodec.adapt.update import MAX_STEP_EXPONENT, MAX_STEPS, TensorUpdate, Update, sent_parameters
from vidcodec.models.msp import PLANE_WEIGHTS, Msp, ste_round, weighted_mse


class CropSource(Protocol):
    """Where finetuning gets its pictures."""

    pixels: int  # of all frames together

    def crops(self, rng: np.random.Generator, count: int) -> Tensor: ...  # (count, 6, ., .)

    def checks(self) -> list[Tensor]: ...  # fixed pictures for measuring, (1, 6, ., .) each


@dataclass(frozen=True)
class FinetuneConfig:
    """How long and how fast.

    scope: 'encoder' (nothing is sent), 'decoder' (analysis frozen), 'full'.
    steps: of both phases together; the last `latent_share` of them run on frozen latents.
    max_seconds: bounds the time, whatever the machine; the schedule shrinks with it.
    encoder_lr: of Adam, in weight units. vector_lr, matrix_lr, damping: of SparseMomentum, the
        first two in grid steps. adam_lr: of the update under a prior that is a term of the
        loss, in grid steps.
    quantise: round updates at every step of training; without it, only at its end (an ablation).
    dither: width of d, the weights' own offsets on the grid, below 1. Without it weights that
        the gradient moves alike change at the same instant, and their sum overshoots.
    vector_share: the part of the steps before matrices may move too.
    patience: so many measures in a row clearly worse than the best, and the tuner goes back to it.
    plane_weights: of the squared errors of Y, U, V in D.
    """

    scope: str = "full"
    steps: int = 300
    max_seconds: float = math.inf
    batch: int = 4
    encoder_lr: float = 5e-5
    vector_lr: float = 0.1
    matrix_lr: float = 0.005
    damping: float = 0.1
    quantise: bool = True
    dither: float = 0.9
    adam_lr: float = 0.0128
    vector_share: float = 0.4
    latent_share: float = 0.2
    plane_weights: tuple[float, float, float] = PLANE_WEIGHTS
    patience: int = 2
    seed: int = 0
    coarsest: float = 0.5  # no grid step beyond this part of a tensor's root mean square
    only: str = ""  # regular expression of the parameters that may be updated; all when empty


@dataclass
class Finetuned:
    """What finetuning gives: an adapted network (update applied) and the update itself."""

    model: Msp
    update: Update
    curve: list[dict] = field(default_factory=list)
    seconds: float = 0.0


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor has it, else no change."""
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(fast))


def step_exponents(
    model: Msp, source: CropSource, level: Tensor, c: FinetuneConfig, names: list[str]
) -> dict[str, int]:
    """Grid exponents from the curvature of the loss.

    With h the mean curvature of a tensor (bits of the whole video per squared weight), a
    uniform step t costs h t^2 / 24 bits a weight by its error and saves log2 t bits: least
    at t^2 = 12 / (h ln 2). The step is the nearest power of two.
    """
    rng = np.random.default_rng(c.seed)
    curvature = mean_curvature(
        model, names, lambda: source.crops(rng, c.batch), level, c.plane_weights, seed=c.seed
    )  # fmt: skip
    exponents = {}
    parameters = dict(model.named_parameters())
    for name in names:
        h = max(curvature[name] * source.pixels, 1e-12)
        # The quadratic view ends where a step is large against the weights themselves.
        spread = float(parameters[name].square().mean().sqrt()) or 0.1
        k = max(0.5 * math.log2(h * math.log(2) / 12), -math.log2(c.coarsest * min(spread, 1.0)))
        exponents[name] = int(np.clip(round(k), 0, MAX_STEP_EXPONENT))
    return exponents


class Finetuner:
    """One adaptation of one network to one video at one rate level."""

    def __init__(
        self, base: Msp, source: CropSource, level: Tensor, prior: UpdatePrior, config: FinetuneConfig
    ) -> None:
        self.c, self.source, self.level, self.prior = config, source, level, prior
        self.model = Msp(base.config).to(level.device).to(memory_format=torch.channels_last)
        self.model.load_state_dict(base.state_dict())
        self.lam = float(self.model.rate_lambda(level))
        sent = dict(sent_parameters(self.model)) if config.scope != "encoder" else {}
        if config.only:
            sent = {n: p for n, p in sent.items() if re.search(config.only, n)}
        all_sent = {n for n, _ in sent_parameters(self.model)}
        self.free = [] if config.scope == "decoder" else [
            p for n, p in self.model.named_parameters() if n not in all_sent
        ]  # fmt: skip
        self.model.requires_grad_(False)
        for p in self.free:
            p.requires_grad_(True)
        self.base = {n: p.detach().clone() for n, p in sent.items()}
        exponents = prior.fixed_exponent
        self.exponents = (
            dict.fromkeys(sent, exponents) if exponents is not None
            else step_exponents(self.model, source, level, config, list(sent))
        )  # fmt: skip
        self.u = {n: torch.zeros_like(p, requires_grad=True) for n, p in self.base.items()}
        generator = torch.Generator().manual_seed(config.seed)
        self.dither = {
            n: ((torch.rand(p.shape, generator=generator) - 0.5) * config.dither).to(p.device)
            for n, p in self.base.items()
        }  # fmt: skip

    # ------------------------------------------------------------------ the grid

    def parameters(self) -> dict[str, Tensor]:
        """base + round(u + dither) * 2^-k, differentiable in u."""
        limit = float(MAX_STEPS)
        steps = {n: (u + self.dither[n]).clamp(-limit, limit) if self.c.quantise else u for n, u in self.u.items()}
        on_grid = ste_round if self.c.quantise else Tensor.clone
        return {n: self.base[n] + on_grid(x) * 2.0 ** -self.exponents[n] for n, x in steps.items()}

    def update(self) -> Update:
        tensors = {}
        for name, u in self.u.items():
            n = (u.detach() + self.dither[name]).round().clamp(-MAX_STEPS, MAX_STEPS).cpu().numpy().astype(np.int32)
            if n.any():
                tensors[name] = TensorUpdate(n, self.exponents[name])
        return Update(tensors)

    # ------------------------------------------------------------------ the loss

    def loss(self, planes: Tensor, *, hard: bool) -> tuple[Tensor, dict[str, float]]:
        """R + lambda 255^2 D + M / N in bits per pixel, and its parts."""
        pixels = planes.shape[0] * planes.shape[-1] * planes.shape[-2] * 4
        levels = self.level.expand(planes.shape[0])
        how = {"rate": "rounded" if hard else "mixed"}
        with autocast(planes.device):
            out = functional_call(self.model, self.parameters(), (planes, levels), how)
        rate = (out.y_bits + out.z_bits).sum() / pixels
        error = weighted_mse(out.planes.float(), planes, self.c.plane_weights).mean()
        loss = rate + self.lam * 255.0**2 * error
        if (model_bits := self.prior.bits(self.u)) is not None:
            loss = loss + model_bits / self.source.pixels
        return loss, {"bpp": rate.item(), "mse": error.item(), "loss": loss.item()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The R-D-M cost with rounding everywhere and the update's real bytes."""
        rates, errors, pixels = 0.0, 0.0, 0
        parameters = self.parameters()
        for x in self.source.checks():
            with autocast(x.device):
                out = functional_call(self.model, parameters, (x, self.level), {"rate": "rounded"})
            n = x.shape[-1] * x.shape[-2] * 4
            rates += float(out.y_bits + out.z_bits)
            errors += n * float(weighted_mse(out.planes.float(), x, self.c.plane_weights).mean())
            pixels += n
        update_bits = 8.0 * len(self.prior.encode(self.update(), self.model))
        bpp, mse = rates / pixels, errors / pixels
        cost = bpp + self.lam * 255.0**2 * mse + update_bits / self.source.pixels
        return {"bpp": bpp, "mse": mse, "update_bits": update_bits, "cost": cost}

    def update_optimiser(self) -> UpdateOptimiser | None:
        c = self.c
        if not self.u:
            return None
        if self.prior.slope is None:
            return AdamSteps(self.u, c.adam_lr)
        return SparseMomentum(self.u, c.vector_lr, c.matrix_lr, c.damping, self.prior.slope, 1.0 / self.source.pixels)

    # ------------------------------------------------------------------ the loop

    def run(self, progress: Callable[[float, dict], None] | None = None, measure_every: float = 0.05) -> Finetuned:
        """Finetune; keeps the state with the least measured cost.

        progress: called with the share done and the last measures, every step.
        """
        c = self.c
        start = time.monotonic()
        optimiser = torch.optim.Adam(self.free or [torch.zeros(1)], lr=c.encoder_lr, betas=(0.9, 0.99))
        updater = self.update_optimiser()
        best: dict[str, Any] = {**self.measure(), "step": 0, "phase": "start"}
        best_state, curve, shown = self._state(), [best], dict(best)
        next_measure, share, step, recent = measure_every, 0.0, 0, 0.0
        trust, worse = 1.0, 0
        rng = np.random.default_rng([c.seed, 1])
        while share < 1.0:
            hard = bool(self.u) and share >= 1.0 - c.latent_share
            # Vectors first: they explain what whole channels have in common, so that matrices need not.
            vectors_only = share < c.vector_share and self.prior.slope is not None
            phase = "latents" if hard else "vectors" if vectors_only else "all"
            for p in self.free:
                p.requires_grad_(not hard)
            for n, u in self.u.items():
                u.requires_grad_(phase != "vectors" or is_vector(n))
            planes = self.source.crops(rng, c.batch)
            torch.manual_seed(c.seed * 7919 + step)
            loss, parts = self.loss(planes, hard=hard)
            loss.backward()
            recent = parts["loss"] if step == 0 else 0.9 * recent + 0.1 * parts["loss"]
            rate = trust * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * share))
            for g in optimiser.param_groups:
                g["lr"] = c.encoder_lr * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if updater:
                updater.step(rate)
            self.prior.observe(self.u)
            step += 1
            share = max(step / c.steps, (time.monotonic() - start) / c.max_seconds)
            if share >= next_measure or share >= 1.0:
                next_measure = share + measure_every
                now = {**self.measure(), "step": step, "phase": phase, "loss": recent, "trust": trust}
                curve.append(now)
                shown.update(now)
                if now["cost"] < best["cost"]:
                    best, best_state, worse = now, self._state(), 0
                elif not now["cost"] < 1.005 * best["cost"]:  # clearly worse, or not a number
                    worse += 1
                    if worse >= c.patience:  # too bold for this video: back to the best state, with shorter steps
                        self._restore(best_state)
                        trust, worse = trust / 3, 0
                        if updater:
                            updater.forget()
            if progress:
                progress(min(share, 1.0), {**shown, **parts})
        self._restore(best_state)
        update = self.update()
        update.apply(self.model)
        return Finetuned(self.model.requires_grad_(False), update, curve, time.monotonic() - start)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return (
            {n: p.detach().clone() for n, p in self.model.state_dict().items()},
            {n: u.detach().clone() for n, u in self.u.items()},
        )

    def _restore(self, state: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        self.model.load_state_dict(state[0])
        with torch.no_grad():
            for n, u in state[1].items():
                self.u[n].copy_(u)
