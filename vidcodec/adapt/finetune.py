"""Adapting a network to one video: finetuning on its frames with the update's rate inside.

The loss of van Rozendaal et al. 2021 (arXiv 2101.08687),

    L = R + lambda * 255^2 * D + M / N      [bits per pixel]

with M the bits of the model update and N the pixels of all frames: paid once per video. R and
D are the objective's (`objective`): the same loop serves every codec here.
The encoder's parameters are free. Those the decoder shares move on the grid the stream
carries (`grid`), as far as they are selected (`selection`), with a grid step per tensor from
the measured curvature of the loss (`step_exponents`). M enters either as a term of the loss
(spike and slab) or as the soft threshold of a proximal step (`optim`).

A second phase freezes the encoder and its latents and goes on with decoder and priors
alone, on the latents truly quantised (after Borzechowski et al. 2024, arXiv 2506.08662). An
objective whose symbols are decided by their rate decides them anew at every step there too.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.adapt.curvature import mean_curvature
from vidcodec.adapt.grid import UpdateGrid, uncharged_right
from vidcodec.adapt.objective import Objective, Source
from vidcodec.adapt.optim import AdamSteps, SparseMomentum, UpdateOptimiser, is_vector
from vidcodec.adapt.prior import UpdatePrior
from vidcodec.adapt.selection import Selection, everything
from vidcodec.adapt.update import MAX_STEP_EXPONENT, Update, is_matrix, sent_parameters


@dataclass(frozen=True)
class FinetuneConfig:
    """How long and how fast.

    scope: 'encoder' (nothing is sent), 'decoder' (analysis frozen), 'full'.
    steps: of both phases together; the last `latent_share` of them run on frozen latents.
    max_seconds: bounds the time from the making of the tuner to its end, whatever the machine; the schedule shrinks
        with it. What is begun is finished: the search of grid steps, one measure, one step.
    encoder_lr: of Adam, in weight units. vector_lr, matrix_lr, damping: of SparseMomentum, the
        first two in grid steps. adam_lr: of the update under a prior that is a term of the
        loss, in grid steps.
    quantise: round updates at every step of training; without it, only at its end (an ablation).
    dither: width of d, the weights' own offsets on the grid, below 1. Without it weights that
        the gradient moves alike change at the same instant, and their sum overshoots.
    vector_share: the part of the steps before matrices may move too; of a selection that takes some of the
        parameters, the same part less. Few entries do not overshoot, and want the time.
    patience: so many measures in a row clearly worse than the best, and the tuner goes back to it.
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
    patience: int = 2
    seed: int = 0
    coarsest: float = 0.5  # no grid step beyond this part of a tensor's root mean square


@dataclass
class Finetuned:
    """What finetuning gives: an adapted network (update applied), the update itself and its bytes."""

    model: nn.Module
    update: Update
    payload: bytes = b""
    curve: list[dict] = field(default_factory=list)
    seconds: float = 0.0


class Probing(Protocol):
    """What probes of the loss ask of a configuration: crops at once, a seed, and the coarsest step there may be."""

    @property
    def batch(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def coarsest(self) -> float: ...


def step_exponents(
    network: nn.Module, objective: Objective, source: Source, c: Probing, selection: Selection
) -> dict[str, int]:
    """Grid exponents from the curvature of the loss.

    With h the mean curvature of a tensor's selected weights (bits of the whole video per
    squared weight), a uniform step t costs h t^2 / 24 bits a weight by its error and saves
    log2 t bits: least at t^2 = 12 / (h ln 2). The step is the nearest power of two. An entry
    of a left factor moves a whole row of columns, by about its own size.
    """
    rng = np.random.default_rng(c.seed)
    parameters = dict(network.named_parameters())
    masks = {n: torch.from_numpy(m).to(parameters[n].device) for n, m in selection.partial.items()}
    curvature = mean_curvature(
        network, objective, list(selection.masks), lambda: source.crops(rng, c.batch), masks=masks, seed=c.seed
    )
    exponents = {}
    for name, mask in selection.masks.items():
        columns = mask.size // mask.shape[0] if selection.rank and is_matrix(name, mask.shape) else 1
        h = max(curvature[name] * source.pixels * columns, 1e-12)
        # The quadratic view ends where a step is large against the weights themselves.
        spread = float(parameters[name].square().mean().sqrt()) or 0.1
        k = max(0.5 * math.log2(h * math.log(2) / 12), -math.log2(c.coarsest * min(spread, 1.0)))
        exponents[name] = int(np.clip(round(k), 0, MAX_STEP_EXPONENT))
    return exponents


def loss_gradients(
    network: nn.Module, objective: Objective, source: Source, c: Probing, selection: Selection
) -> dict[str, Tensor]:
    """Of R + worth * E by the selected parameters, at the network's weights and summed over a few batches."""
    rng = np.random.default_rng([c.seed, 2])
    parameters = {n: p.detach().requires_grad_(True) for n, p in network.named_parameters() if n in selection.masks}
    total = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for _ in range(4):
        out = objective.outcome(network, parameters, source.crops(rng, c.batch), hard=False)
        loss = out.bits / out.pixels + objective.worth * out.error
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for n, g in zip(parameters, grads, strict=True):
            if g is not None:
                total[n] += g
    return total


class Finetuner:
    """One adaptation of one network to one video.

    base: with its base weights, not touched. objective: R and D. prior: charges the update and writes it. selection:
    what the update may change (default: everything that travels).
    """

    def __init__(
        self,
        base: nn.Module,
        objective: Objective,
        source: Source,
        prior: UpdatePrior,
        config: FinetuneConfig,
        selection: Selection | None = None,
    ) -> None:
        self.start = time.monotonic()
        self.c, self.objective, self.source, self.prior = config, objective, source, prior
        self.model: nn.Module = copy.deepcopy(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.selection = selection or everything(base)
        all_sent = {n for n, _ in sent_parameters(self.model)}
        self.free = (
            [] if config.scope == "decoder" else [p for n, p in self.model.named_parameters() if n not in all_sent]
        )
        self.model.requires_grad_(False)
        for p in self.free:
            p.requires_grad_(True)
        chosen = self.selection if config.scope != "encoder" else Selection()
        prior.confine(chosen)
        base_weights = {n: p.detach().clone() for n, p in sent_parameters(self.model) if n in chosen.masks}
        fixed = prior.fixed_exponent
        exponents = (
            dict.fromkeys(base_weights, fixed)
            if fixed is not None
            else step_exponents(self.model, objective, source, config, chosen)
        )
        self.grid = UpdateGrid(
            base_weights,
            chosen,
            exponents,
            dither=config.dither,
            rounded=config.quantise,
            seed=config.seed,
            gradients=lambda: loss_gradients(self.model, objective, source, config, chosen),
        )
        self.u = self.grid.u
        self.measuring = 0.0  # seconds of the latest measure

    # ------------------------------------------------------------------ the loss

    def loss(self, batch: Any, *, hard: bool) -> tuple[Tensor, dict[str, float]]:
        """R + lambda 255^2 D + M / N in bits per pixel, and its parts."""
        out = self.objective.outcome(self.model, self.grid.parameters(), batch, hard=hard)
        rate = out.bits / out.pixels
        loss = rate + self.objective.worth * out.error
        if (model_bits := self.prior.bits(self.u)) is not None:
            loss = loss + model_bits / self.source.pixels
        return loss, {"bpp": rate.item(), "mse": out.error.item(), "loss": loss.item()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The R-D-M cost of the update's real bytes and of latents as the objective decides them.

        With rates of symbols under tables at real-valued indices, which the coder rounds.
        """
        rates, errors, pixels = 0.0, 0.0, 0
        parameters = self.grid.parameters()
        for batch in self.source.checks():
            out = self.objective.outcome(self.model, parameters, batch, hard=True)
            rates += float(out.bits)
            errors += out.pixels * float(out.error)
            pixels += out.pixels
        update_bits = 8.0 * len(self.prior.encode(self.grid.update(), self.model))
        bpp, mse = rates / pixels, errors / pixels
        cost = bpp + self.objective.worth * mse + update_bits / self.source.pixels
        return {"bpp": bpp, "mse": mse, "update_bits": update_bits, "cost": cost}

    def update_optimiser(self) -> UpdateOptimiser | None:
        c = self.c
        if not self.u:
            return None
        if self.prior.slope is None:
            return AdamSteps(self.u, c.adam_lr)
        slope = uncharged_right(self.prior.slope)
        return SparseMomentum(self.u, c.vector_lr, c.matrix_lr, c.damping, slope, 1.0 / self.source.pixels)

    # ------------------------------------------------------------------ the loop

    def run(self, progress: Callable[[float, dict], None] | None = None, measure_every: float = 0.05) -> Finetuned:
        """Finetune; keeps the state with the least measured cost.

        progress: called with the share done and the last measures, every step, at least once.
        """
        c = self.c
        optimiser = torch.optim.Adam(self.free or [torch.zeros(1)], lr=c.encoder_lr, betas=(0.9, 0.99))
        updater = self.update_optimiser()
        best: dict[str, Any] = {**self._measured(), "step": 0, "phase": "start"}
        best_state, curve, shown = self._state(), [best], dict(best)
        begin = time.monotonic()

        def lasting(seconds: float) -> float:
            """As a share of the time there is from here on, but for a last measure."""
            left = self.start + c.max_seconds - self.measuring - begin
            return seconds / left if left > 0 else 1.0

        def gap() -> float:
            """Between measures: of limited time they take no more than about a quarter."""
            return max(measure_every, 4 * lasting(self.measuring))

        next_measure, share, step, recent = gap(), lasting(0.0), 0, 0.0
        trust, worse = 1.0, 0
        vector_share = c.vector_share * self.selection.count / sum(p.numel() for _, p in sent_parameters(self.model))
        if not any(map(is_vector, self.u)):  # none was selected
            vector_share = 0.0
        rng = np.random.default_rng([c.seed, 1])
        if share >= 1.0 and progress:  # no time for a step
            progress(1.0, shown)
        while share < 1.0:
            hard = bool(self.u) and share >= 1.0 - c.latent_share
            # Vectors first: they explain what whole channels have in common, so that matrices need not.
            vectors_only = share < vector_share and self.prior.slope is not None
            phase = "latents" if hard else "vectors" if vectors_only else "all"
            for p in self.free:
                p.requires_grad_(not hard)
            for n, u in self.u.items():
                u.requires_grad_(phase != "vectors" or is_vector(n))
            batch = self.source.crops(rng, c.batch)
            torch.manual_seed(c.seed * 7919 + step)
            loss, parts = self.loss(batch, hard=hard)
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
            share = max(step / c.steps, lasting(time.monotonic() - begin))
            if share >= 1.0 or (share >= next_measure and share + lasting(self.measuring) < 1.0):
                now = {**self._measured(), "step": step, "phase": phase, "loss": recent, "trust": trust}
                next_measure = share + gap()
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
        update = self.grid.update()
        payload = self.prior.encode(update, self.model)
        update.apply(self.model)
        return Finetuned(self.model.requires_grad_(False), update, payload, curve, time.monotonic() - self.start)

    def _measured(self) -> dict[str, float]:
        """`measure`, noting the time it took."""
        start = time.monotonic()
        now = self.measure()
        self.measuring = time.monotonic() - start
        return now

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
