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

A selection of low rank goes another way (`factors`): Adam on real factors and an encoder that moves boldly, then, from
`free_share` of the time on, on factors rounded in the loop, their bits in the loss.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.checkpoint import sent_parameters
from vidcodec.updates.curvature import loss_gradients, step_exponents, weight_probes
from vidcodec.updates.factors import FactorGrid
from vidcodec.updates.grid import UpdateGrid
from vidcodec.updates.objective import Batches, Objective
from vidcodec.updates.optim import AdamSteps, FactorSteps, SparseMomentum, UpdateOptimiser, is_vector
from vidcodec.updates.prior import UpdatePrior
from vidcodec.updates.selection import Selection, everything
from vidcodec.updates.update import MAX_STEP_EXPONENT, Update


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
    measure_every: share of the run between measures.
    patience: so many measures in a row clearly worse than the best, and the tuner goes back to it.
    factor_lr, whole_lr: of Adam where the update is of low rank, in weight units: of factors, of everything that is
        sent whole.
    free_share: the part of the steps before factors are rounded and charged.
    hope: components are shut then that cost more than so many times what they have brought.
    """

    scope: str = "full"
    steps: int = 300
    max_seconds: float = math.inf
    batch: int = 4
    encoder_lr: float = 6e-4
    vector_lr: float = 0.1
    matrix_lr: float = 0.005
    damping: float = 0.1
    quantise: bool = True
    dither: float = 0.9
    adam_lr: float = 0.0128
    vector_share: float = 0.4
    latent_share: float = 0.2
    measure_every: float = 0.05
    patience: int = 2
    seed: int = 0
    coarsest: float = 0.5  # no grid step beyond this part of a tensor's root mean square
    factor_lr: float = 1.2e-3
    whole_lr: float = 6e-4
    free_share: float = 0.4
    hope: float = 6.0


@dataclass
class Finetuned:
    """What finetuning gives: an adapted network (update applied), the update itself and its bytes."""

    model: nn.Module
    update: Update
    payload: bytes = b""
    curve: list[dict] = field(default_factory=list)
    seconds: float = 0.0


Report = Callable[[float, dict[str, Any]], None]


@torch.no_grad()
def measured_cost(
    network: nn.Module, parameters: dict[str, Tensor], objective: Objective, batches: Batches, payload: bytes
) -> dict[str, float]:
    """The R-D-M cost over the checks of batches: symbols as the objective decides them, the update's real bytes.

    parameters: of the network, replaced. With rates of symbols under tables at real-valued indices, which the coder
    rounds. Bits per pixel, but for the error and `update_bits`.
    """
    rates, errors, pixels = 0.0, 0.0, 0
    for batch in batches.checks():
        out = objective.outcome(network, parameters, batch, hard=True)
        rates += float(out.bits)
        errors += out.pixels * float(out.error)
        pixels += out.pixels
    bpp, mse, update_bits = rates / pixels, errors / pixels, 8.0 * len(payload)
    cost = bpp + objective.worth * mse + update_bits / batches.pixels
    return {"bpp": bpp, "mse": mse, "update_bits": update_bits, "cost": cost}


class Pace:
    """How much of a run is over, from 0 to 1: of its steps or of its time, whichever ends first."""

    def __init__(self, c: FinetuneConfig, start: float, measuring: float) -> None:
        """start: from when on `c.max_seconds` count. measuring: seconds of a measure; time for a last one is kept."""
        self.c, self.begin, self.end = c, time.monotonic(), start + c.max_seconds
        self.measured(0.0, measuring)

    def share(self, step: int) -> float:
        """After so many steps, now."""
        return max(step / self.c.steps, self._lasting(time.monotonic() - self.begin))

    def is_due(self, share: float) -> bool:
        """Whether to measure: at the end, and before it where there is time for another one then."""
        return share >= 1.0 or (share >= self.next_measure and share + self._lasting(self.measuring) < 1.0)

    def measured(self, share: float, seconds: float) -> None:
        """A measure took so long; of limited time they take no more than about a twelfth."""
        self.measuring = seconds
        self.next_measure = share + max(self.c.measure_every, 12 * self._lasting(seconds))

    def _lasting(self, seconds: float) -> float:
        """As a share of the time there is, but for a last measure."""
        left = self.end - self.measuring - self.begin
        return seconds / left if left > 0 else 1.0


class Finetuner:
    """One adaptation of one network to one video.

    base: with its base weights, not touched. objective: R and D. prior: charges the update and writes it. selection:
    what the update may change (default: everything that travels).
    """

    def __init__(
        self,
        base: nn.Module,
        objective: Objective,
        batches: Batches,
        prior: UpdatePrior,
        config: FinetuneConfig,
        selection: Selection | None = None,
    ) -> None:
        self.start = time.monotonic()
        self.c, self.objective, self.batches, self.prior = config, objective, batches, prior
        self.model: nn.Module = copy.deepcopy(base).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.requires_grad_(False)
        self.device = next(base.parameters()).device
        self.selection = selection or everything(base)
        chosen = self.selection if config.scope != "encoder" else Selection()
        prior.confine(chosen)
        # What the encoder alone uses moves freely, what the decoder uses on a grid.
        sent = dict(sent_parameters(self.model))
        self.free = [] if config.scope == "decoder" else [p for n, p in self.model.named_parameters() if n not in sent]
        self.grid = self._grid({n: p.detach().clone() for n, p in sent.items() if n in chosen.masks}, chosen)
        self.u = self.grid.u
        self.free_optimiser = torch.optim.Adam(self.free or [torch.zeros(1)], lr=config.encoder_lr, betas=(0.9, 0.99))
        self.update_optimiser = self._update_optimiser()
        # Vectors first: they explain what whole channels have in common, so that matrices need not.
        vectors_first = prior.slope is not None and not self.factors and any(map(is_vector, self.u))
        selected = config.vector_share * self.selection.count / sum(p.numel() for p in sent.values())
        self.vector_share = selected if vectors_first else 0.0

    def _grid(self, base: dict[str, Tensor], chosen: Selection) -> UpdateGrid | FactorGrid:
        """Where the update moves: steps from curvature or the prior's own; real factors for an update of low rank."""
        c, fixed = self.c, self.prior.fixed_exponent
        if chosen.rank:
            return FactorGrid(base, chosen, loss_gradients(self.model, self.objective, self.batches, c, chosen))
        exponents = (
            dict.fromkeys(base, fixed)
            if fixed is not None
            else step_exponents(self.model, self.objective, self.batches, c, chosen)
        )
        return UpdateGrid(base, chosen, exponents, dither=c.dither, rounded=c.quantise, seed=c.seed)

    @property
    def factors(self) -> FactorGrid | None:
        """The grid, where the update is of low rank."""
        return self.grid if isinstance(self.grid, FactorGrid) else None

    def _update_optimiser(self) -> UpdateOptimiser | None:
        c = self.c
        if not self.u:
            return None
        if self.factors:
            return FactorSteps(self.u, c.factor_lr, c.whole_lr)
        if self.prior.slope is None:
            return AdamSteps(self.u, c.adam_lr)
        return SparseMomentum(self.u, c.vector_lr, c.matrix_lr, c.damping, self.prior.slope, 1.0 / self.batches.pixels)

    # ------------------------------------------------------------------ the loss

    def loss(self, batch: Any, *, hard: bool) -> tuple[Tensor, dict[str, float]]:
        """R + lambda 255^2 D + M / N in bits per pixel, and its parts."""
        out = self.objective.outcome(self.model, self.grid.parameters(), batch, hard=hard)
        rate = out.bits / out.pixels
        loss = rate + self.objective.worth * out.error
        if (model_bits := self._charge()) is not None:
            loss = loss + model_bits / self.batches.pixels
        return loss, {"bpp": rate.item(), "mse": out.error.item(), "loss": loss.item()}

    def _charge(self) -> Tensor | None:
        """Bits of the update as a term of the loss, where it is one."""
        if self.factors:
            return self.factors.bits() if self.prior.charges else None
        return self.prior.bits(self.u)

    @property
    def is_finite(self) -> bool:
        """Whether the state could be one to keep."""
        return self.grid.is_finite and all(bool(torch.isfinite(p).all()) for p in self.free)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """`measured_cost` of the state as it is, infinite where that is not finite: no update is written of it."""
        if not self.is_finite:
            return dict.fromkeys(("bpp", "mse", "update_bits", "cost"), math.inf)
        payload = self.prior.encode(self.grid.update(), self.model)
        parameters = self.factors.sent() if self.factors else self.grid.parameters()
        return measured_cost(self.model, parameters, self.objective, self.batches, payload)

    # ------------------------------------------------------------------ the loop

    def run(self, progress: Report | None = None) -> Finetuned:
        """Finetune; keeps the state with the least measured cost. The global random generators stay as they were.

        progress: called with the share done and the last measures, every step, at least once.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            curve = self._learn(progress or (lambda share, figures: None))
        update = self.grid.update()
        payload = self.prior.encode(update, self.model)
        update.apply(self.model)
        return Finetuned(self.model.requires_grad_(False), update, payload, curve, time.monotonic() - self.start)

    def _learn(self, report: Report) -> list[dict[str, Any]]:
        """From the base weights to the state of the least measured cost; returns all measures."""
        c, rng = self.c, np.random.default_rng([self.c.seed, 1])
        best, seconds = self._timed_measure()
        best |= {"step": 0, "phase": "start"}
        best_state, curve = self._state(), [best]
        pace = Pace(c, self.start, seconds)
        share, step, recent, trust, worse = pace.share(0), 0, 0.0, 1.0, 0
        if share >= 1.0:  # no time for a step
            report(1.0, best)
        while share < 1.0:
            phase = self._enter_phase(share)
            batch = self.batches.crops(rng, c.batch)
            torch.manual_seed(c.seed * 7919 + step)
            parts = self._step(phase, batch, trust * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * share)))
            if math.isfinite(parts["loss"]):
                recent = parts["loss"] if step == 0 else 0.9 * recent + 0.1 * parts["loss"]
            step += 1
            share = pace.share(step)
            if pace.is_due(share) and (share >= 1.0 or phase != "free"):  # real factors could not be sent
                now, seconds = self._timed_measure()
                now |= {"step": step, "phase": phase, "loss": recent, "trust": trust}
                pace.measured(share, seconds)
                if math.isfinite(now["cost"]):
                    curve.append(now)
                if now["cost"] < best["cost"]:
                    best, best_state, worse = now, self._state(), 0
                elif not now["cost"] < 1.005 * best["cost"] and not (self.factors and best["phase"] == "start"):
                    worse += 1  # clearly worse, or not a number; rounded factors may yet have to earn their bits
                if worse >= c.patience:  # too bold for this video: back to the best state, with shorter steps
                    self._restore(best_state)
                    trust, worse = trust / 3, 0
                    if self.update_optimiser:
                        self.update_optimiser.forget()
            report(min(share, 1.0), {**curve[-1], **parts})
        self._restore(best_state)
        return curve

    def _enter_phase(self, share: float) -> str:
        """'vectors' (and the encoder), then 'all', then the decoder's part alone on 'latents' that no longer move.

        Of low rank: all is 'free', then factors are 'rounded'.
        """
        if self.factors:
            for x in (*self.free, *self.u.values()):
                x.requires_grad_(True)
            if not self.factors.settled and share >= self.c.free_share and self.c.quantise:
                self.settle(self.factors)
            return "rounded" if self.factors.settled else "free"
        phase = "vectors" if share < self.vector_share else "all"
        if self.u and share >= 1.0 - self.c.latent_share:
            phase = "latents"
        for p in self.free:
            p.requires_grad_(phase != "latents")
        for n, u in self.u.items():
            u.requires_grad_(phase != "vectors" or is_vector(n))
        return phase

    def _step(self, phase: str, batch: Any, rate: float) -> dict[str, float]:
        """One step of what moves in a phase, at a part of the learning rates; returns the parts of the loss."""
        loss, parts = self.loss(batch, hard=phase == "latents")
        loss.backward()
        moving = [x for x in (*self.free, *self.u.values()) if x.grad is not None]
        if not (math.isfinite(parts["loss"]) and all(bool(x.grad.isfinite().all()) for x in moving)):  # type: ignore[union-attr]
            for x in moving:  # a step that nothing would come back from, the optimisers' memory included
                x.grad = None
        if self.factors and not self.factors.settled:
            self.factors.account()
        for g in self.free_optimiser.param_groups:
            g["lr"] = self.c.encoder_lr * rate
        self.free_optimiser.step()
        self.free_optimiser.zero_grad(set_to_none=True)
        if self.update_optimiser:
            self.update_optimiser.step(rate)
        self.prior.observe(self.u)
        return parts

    @torch.no_grad()
    def settle(self, grid: FactorGrid) -> None:
        """Choose the grids of factors by curvature, then all finer or coarser by true cost; shut what is dear."""
        pixels = self.batches.pixels
        with torch.enable_grad():
            weights = {n: w.detach() for n, w in grid.parameters().items()}
            probes = weight_probes(self.model, weights, self.objective, self.batches, self.c)
        steps = grid.curvature_exponents(probes, pixels, 2.0)
        del probes, weights
        if self.prior.charges:
            grid.prune(pixels, steps, self.c.hope)

        def settle(shift: int) -> None:
            grid.settle({part: min(max(k - shift, 0), MAX_STEP_EXPONENT) for part, k in steps.items()})

        def cost(shift: int) -> float:  # with the bits that training charges: writing an update takes long
            settle(shift)
            found = measured_cost(self.model, grid.parameters(), self.objective, self.batches, b"")
            return found["cost"] + float(grid.component_bits(grid.step).sum()) / pixels

        costs = {shift: cost(shift) for shift in (0, 1)}
        way = 1 if costs[1] < costs[0] else -1
        best = max(way, 0)
        while abs(best + way) <= 3:
            costs[best + way] = cost(best + way)
            if costs[best + way] >= costs[best]:
                break
            best += way
        settle(best)
        self.settled_at = {"shift": best, "costs": costs}

    def _timed_measure(self) -> tuple[dict[str, Any], float]:
        """`measure`, and the seconds it took."""
        start = time.monotonic()
        return self.measure(), time.monotonic() - start

    def _state(self) -> tuple[dict[str, Tensor], Any]:
        return {n: p.detach().clone() for n, p in self.model.state_dict().items()}, self.grid.state()

    def _restore(self, state: tuple[dict[str, Tensor], Any]) -> None:
        self.model.load_state_dict(state[0])
        self.grid.restore(state[1])
