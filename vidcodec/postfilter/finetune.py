"""Turning the base filter towards one video, with what the update costs in the objective.

Rate and error have one currency, bits of the video itself. Over their usual range codecs
halve the squared error where they double the rate, D ~ 1 / R, so that an error lower by the
part x is worth x R bits. With R the bits of the video, D_p and D0_p the squared errors of
plane p with and without the filter, and M the bits of the update, finetuning minimises

    J = R * sum_p w_p D_p / D0_p + M,    w = 6:1:1 over Y, U, V.

Update integers move on the codec's grid, priced by the codec's prior and written by its
coder (`vidcodec.adapt`). The reference objective of Lam et al. 2019 (arXiv 1905.04079), M
replaced by a term that makes the update w sparse and near ternary,

    alpha * (|w|_1 / |w|_2 + gamma |w|_2^2 / |w|_1),

is there as `objective='sparsity'`: real-valued training, then pruning and quantisation.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.adapt.coder import encode_update
from vidcodec.adapt.finetune import loss_gradients, step_exponents
from vidcodec.adapt.grid import UpdateGrid, uncharged_right
from vidcodec.adapt.objective import Outcome, autocast, signs
from vidcodec.adapt.optim import SparseMomentum
from vidcodec.adapt.prior import AdaptivePrior
from vidcodec.adapt.selection import Selection, Strategy, select
from vidcodec.adapt.update import MAX_STEP_EXPONENT, MAX_STEPS, TensorUpdate, Update
from vidcodec.errors import UnsupportedInputError
from vidcodec.postfilter.network import Filter
from vidcodec.postfilter.planes import to_tensor

STRATEGIES = {"multipliers": (".multiplier",), "biases": (".bias",), "full": (".multiplier", ".bias", ".weight")}
OBJECTIVES = ("rate", "sparsity")
PLANE_WEIGHTS = (0.75, 0.125, 0.125)
CHECK_PIXELS = 1_500_000


@dataclass(frozen=True)
class Sample:
    """A picture to learn from: decoded and source planes (6, h, w) and its frame type (0 I, 1 P, 2 B)."""

    decoded: np.ndarray
    source: np.ndarray
    type: int


@dataclass(frozen=True)
class FilterFinetuneConfig:
    """How the filter is adapted.

    strategy: which numbers may change. objective: 'rate' or 'sparsity'.
    parameters: instead of a strategy, one of `vidcodec.adapt.strategy`, with objective 'rate'; its importance scores
        are looked for in `folder` as well as beside the shipped weights.
    steps, max_seconds: whichever ends first. batch, crop: crops per step, luma samples a side.
    lr, weight_lr, damping: of the proximal steps of vectors and of weights (`SparseMomentum`), in grid steps.
    real_lr, alpha, gamma: of the sparsity objective.
    """

    strategy: str = "multipliers"
    objective: str = "rate"
    parameters: str = ""
    folder: Path | None = None
    steps: int = 150
    max_seconds: float = math.inf
    batch: int = 8
    crop: int = 128
    lr: float = 0.1
    weight_lr: float = 0.02
    damping: float = 0.1
    coarsest: float = 0.5
    real_lr: float = 1e-4
    alpha: float = 200.0
    gamma: float = 1.0
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parameters and self.objective != "rate":
            raise UnsupportedInputError("the sparsity objective takes a strategy: multipliers, biases or full")


@dataclass
class FilterUpdate:
    """What finetuning gives: the update, its bytes, its measured course."""

    update: Update = field(default_factory=Update)
    payload: bytes = b""
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


Batch = tuple[Tensor, Tensor, Tensor]  # decoded (B, 6, ., .), source like it, qp (B,)


class FilterCrops:
    """Samples of one stretch of video, as finetuning draws them. Shared by the bits of the video: its `pixels`."""

    def __init__(
        self, samples: list[Sample], depth: int, qp: tuple[float, float, float], bits: float, crop: int
    ) -> None:
        self.samples, self.depth, self.qp, self.crop = samples, depth, qp, crop
        self.pixels = max(1, round(bits))

    def crops(self, rng: np.random.Generator, count: int) -> Batch:
        """Random crops of random samples."""
        pairs, qps = [], []
        for i in rng.integers(len(self.samples), size=count):
            s = self.samples[i]
            h, w = (min(self.crop // 2, side) for side in s.decoded.shape[1:])
            top, left = (int(rng.integers(0, a - b + 1)) for a, b in zip(s.decoded.shape[1:], (h, w), strict=True))
            pairs.append(np.stack([a[:, top : top + h, left : left + w] for a in (s.decoded, s.source)]))
            qps.append(self.qp[s.type])
        x = to_tensor(np.stack(pairs), self.depth)
        decoded, source = (x[:, k].contiguous(memory_format=torch.channels_last) for k in (0, 1))
        return decoded, source, torch.tensor(qps)

    def checks(self) -> list[Batch]:
        """Samples spread over the stretch, for measuring."""
        size = self.samples[0].decoded[:4].size
        count = max(1, min(len(self.samples), CHECK_PIXELS // size))
        picked = (self.samples[i * len(self.samples) // count] for i in range(count))
        return [
            (
                to_tensor(s.decoded, self.depth)[None],
                to_tensor(s.source, self.depth)[None],
                torch.tensor([self.qp[s.type]]),
            )
            for s in picked
        ]


class FilterObjective:
    """sum_p price_p D_p: bits that the filtered picture's squared errors (samples in [0, 1]) of Y, U, V are worth.

    price: (3,), R w_p / D0_p. bits: R. No symbols are coded; L is counted per bit of the video.
    """

    def __init__(self, price: Tensor, bits: float) -> None:
        self.price, self.worth = price, 1.0 / bits

    @classmethod
    def of(cls, error: np.ndarray, depth: int, bits: float) -> FilterObjective:
        """error: D0, mean squared errors of Y, U, V without the filter, code values squared."""
        unit = float((1 << depth) - 1) ** 2
        share = torch.tensor(PLANE_WEIGHTS) / torch.from_numpy(np.maximum(error, 1e-3) / unit).float()
        return cls(bits * share, bits)

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Batch, *, hard: bool) -> Outcome:
        """The same, hard or not: there are no symbols."""
        decoded, source, qp = batch
        with autocast(decoded.device):
            out = functional_call(network, parameters, (decoded, qp))
        error = (out - source).square().mean((0, 2, 3))  # (6,)
        bits = (torch.stack([error[:4].mean(), error[4], error[5]]) * self.price).sum()
        return Outcome(bits.new_zeros(()), bits, decoded[:, :4].numel())

    def probe(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Samples, each weighted by the root of what its squared error costs."""
        decoded, _, qp = batch
        out = network(decoded, qp)
        b, _, h, w = out.shape
        y, u, v = (2 * self.worth * self.price / (b * h * w)).tolist()
        weights = torch.tensor([y / 4] * 4 + [u, v]).sqrt()[None, :, None, None]
        return (out * weights * signs(out, generator)).sum()


class FilterFinetuner:
    """One adaptation of one base filter to one stretch of video.

    samples: pictures to learn from. depth: bits per sample. qp: of I, P, B pictures.
    bits: R, of the stretch. error: D0, mean squared errors of Y, U, V without the filter, code values squared.
    """

    def __init__(
        self,
        base: Filter,
        samples: list[Sample],
        depth: int,
        qp: tuple[float, float, float],
        bits: float,
        error: np.ndarray,
        config: FilterFinetuneConfig,
    ) -> None:
        self.c, self.bits = config, bits
        self.source = FilterCrops(samples, depth, qp, bits, config.crop)
        self.objective = FilterObjective.of(error, depth, bits)
        self.network = copy.deepcopy(base).requires_grad_(False)
        self.selection: Selection | None = None
        if config.parameters:
            strategy = Strategy.parse(config.parameters, config.seed)
            self.selection = select(strategy, base, pixels=self.source.pixels, folder=config.folder)
        names = (
            self.selection.masks
            if self.selection
            else [n for n, _ in base.named_parameters() if n.endswith(STRATEGIES[config.strategy])]
        )
        self.base = {n: p.detach().clone() for n, p in self.network.named_parameters() if n in names}
        self.prior = AdaptivePrior()
        if self.selection:
            self.prior.confine(self.selection)
        chosen = self.selection or Selection(masks={n: np.ones(tuple(p.shape), bool) for n, p in self.base.items()})
        probed = (self.network, self.objective, self.source, config, chosen)
        self.grid = UpdateGrid(
            self.base, chosen, step_exponents(*probed), gradients=lambda: loss_gradients(*probed), seed=config.seed
        )
        self.u = self.grid.u

    # ------------------------------------------------------------------ the objective

    def _distortion(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        """R * sum_p w_p D_p / D0_p, in bits."""
        return self.objective.outcome(self.network, parameters, batch, hard=False).error

    @torch.no_grad()
    def _measure(self, parameters: dict[str, Tensor], payload: bytes) -> float:
        """J over the checks, with the update's real bytes."""
        checks = self.source.checks()
        return sum(float(self._distortion(parameters, b)) for b in checks) / len(checks) + 8.0 * len(payload)

    def _update(self, u: dict[str, Tensor], exponents: dict[str, int]) -> Update:
        """Of real numbers in grid steps."""
        rounded = {n: x.round().clamp(-MAX_STEPS, MAX_STEPS).numpy().astype(np.int32) for n, x in u.items()}
        return Update({name: TensorUpdate(n, exponents[name]) for name, n in rounded.items() if n.any()})

    def _applied(self, update: Update) -> dict[str, Tensor]:
        return {
            n: p + torch.from_numpy(t.n.astype(np.float32)) * 2.0**-t.exponent if (t := update.tensors.get(n)) else p
            for n, p in self.base.items()
        }

    # ------------------------------------------------------------------ the loops

    def run(self, progress: Callable[[float, dict[str, Any]], None] | None = None) -> FilterUpdate:
        """Finetune; the best measured state counts, and no update where none pays."""
        torch.manual_seed(self.c.seed)
        start = time.monotonic()
        best = FilterUpdate(curve=[{"step": 0, "cost": self._measure(self.base, b""), "bytes": 0}])
        learn = self._priced if self.c.objective == "rate" else self._sparse
        learn(best, start, progress)
        best.seconds = time.monotonic() - start
        return best

    def _consider(self, update: Update, best: FilterUpdate, step: int) -> bool:
        """Measure an update and keep it when it is the best so far; whether it was."""
        payload = encode_update(update, self.network, selection=self.selection)
        cost = self._measure(self._applied(update), payload)
        better = cost < min(row["cost"] for row in best.curve)
        best.curve.append({"step": step, "cost": cost, "bytes": len(payload)})
        if better:
            best.update, best.payload = update, payload
        return better

    def _priced(
        self, best: FilterUpdate, start: float, progress: Callable[[float, dict[str, Any]], None] | None
    ) -> None:
        c, rng = self.c, np.random.default_rng([self.c.seed, 1])
        optimiser = SparseMomentum(self.u, c.lr, c.weight_lr, c.damping, uncharged_right(self.prior.slope), 1.0)
        share, step, next_measure, worse = 0.0, 0, 0.15, 0
        while share < 1.0 and worse < c.patience:
            self._distortion(self.grid.parameters(), self.source.crops(rng, c.batch)).backward()
            optimiser.step(min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * share)))
            self.prior.observe(self.u)
            step += 1
            share = max(step / c.steps, (time.monotonic() - start) / c.max_seconds)
            if share >= next_measure or share >= 1.0:
                next_measure = share + 0.15
                worse = 0 if self._consider(self.grid.update(), best, step) else worse + 1
            if progress:
                progress(min(share, 1.0), {"cost": best.curve[-1]["cost"], "update_bits": 8 * best.curve[-1]["bytes"]})

    def _sparse(
        self, best: FilterUpdate, start: float, progress: Callable[[float, dict[str, Any]], None] | None
    ) -> None:
        c, rng = self.c, np.random.default_rng([self.c.seed, 1])
        moves = {n: torch.zeros_like(p, requires_grad=True) for n, p in self.base.items()}
        adam = torch.optim.Adam(moves.values(), lr=c.real_lr, betas=(0.9, 0.99))
        share, step = 0.0, 0
        while share < 1.0:
            loss = self._distortion({n: self.base[n] + d for n, d in moves.items()}, self.source.crops(rng, c.batch))
            w = torch.cat([d.flatten() for d in moves.values()])
            one, two = w.abs().sum() + 1e-8, w.norm() + 1e-8
            (loss / self.bits + (c.alpha / self.bits) * (one / two + c.gamma * two * two / one)).backward()
            for group in adam.param_groups:
                group["lr"] = c.real_lr * 0.5 * (1 + math.cos(math.pi * share))
            adam.step()
            adam.zero_grad(set_to_none=True)
            step += 1
            share = max(step / c.steps, (time.monotonic() - start) / c.max_seconds)
            if progress:
                progress(min(share, 1.0), {"cost": best.curve[-1]["cost"]})
        # Prune below a part of the root mean square, then one step for all: the best of a few by true cost.
        with torch.no_grad():
            rms = float(torch.cat([d.flatten() for d in moves.values()]).square().mean().sqrt()) or 1e-6
            for k in range(max(0, round(-math.log2(rms)) - 2), min(MAX_STEP_EXPONENT, round(-math.log2(rms)) + 2) + 1):
                for prune in (0.5, 1.5, 3.0):
                    kept = {n: d * (d.abs() >= prune * rms) * 2.0**k for n, d in moves.items()}
                    self._consider(self._update(kept, dict.fromkeys(kept, k)), best, step)
