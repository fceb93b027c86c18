"""A reference to compare with: an update that is made sparse instead of cheap.

Lam et al. 2019 (arXiv 1905.04079) put in the place of M, the update's bits, a term that makes the update w sparse and
near ternary,

    alpha * (|w|_1 / |w|_2 + gamma |w|_2^2 / |w|_1),

and train real numbers; pruning and quantisation come afterwards. Here they are the best of a few by true cost, written
by the coder of all updates.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.errors import UnsupportedInputError
from vidcodec.updates.coder import encode_update
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Report, measured_cost
from vidcodec.updates.objective import Batches, Objective
from vidcodec.updates.selection import Selection, Strategy
from vidcodec.updates.update import MAX_STEP_EXPONENT, MAX_STEPS, TensorUpdate, Update

PRUNED = (0.5, 1.5, 3.0)  # below so many root mean squares of the update
STEPS = range(-2, 3)  # octaves of the grid step below the root mean square


@dataclass(frozen=True)
class SparseConfig:
    """lr: of Adam, in weight units. alpha: in bits of the video. gamma: against alpha."""

    lr: float = 1e-4
    alpha: float = 200.0
    gamma: float = 1.0

    def check(self, strategy: Strategy) -> None:
        """Raises UnsupportedInputError for a strategy that takes parts of tensors."""
        if strategy.count or strategy.learned:
            raise UnsupportedInputError(f"the sparsity objective takes whole tensors: 'strategy' cannot be {strategy}")


class SparseFinetuner:
    """`vidcodec.updates.finetune.Finetuner` for the reference: the same crops, steps and seconds, and the same cost."""

    def __init__(
        self,
        base: nn.Module,
        objective: Objective,
        batches: Batches,
        config: FinetuneConfig,
        sparse: SparseConfig,
        selection: Selection,
    ) -> None:
        self.start = time.monotonic()
        self.base, self.objective, self.batches, self.c, self.sparse = base, objective, batches, config, sparse
        self.selection = selection
        self.network = copy.deepcopy(base).requires_grad_(False)
        self.weights = {n: p for n, p in self.network.named_parameters() if n in selection.masks}

    def run(self, progress: Report | None = None) -> Finetuned:
        """Train, then prune and quantise; the least true cost counts, and no update where none pays."""
        best = Finetuned(self.network, Update(), curve=[{"step": 0, **self._measure(self.network, b"")}])
        moves, steps = self._learn(progress or (lambda share, figures: None), best.curve[0])
        for update in self._candidates(moves):
            network = copy.deepcopy(self.network)
            update.apply(network)
            payload = encode_update(update, self.network, selection=self.selection)
            row = {"step": steps, **self._measure(network, payload)}
            if row["cost"] < min(r["cost"] for r in best.curve):
                best.model, best.update, best.payload = network, update, payload
            best.curve.append(row)
        best.seconds = time.monotonic() - self.start
        return best

    def _measure(self, network: nn.Module, payload: bytes) -> dict[str, Any]:
        return measured_cost(network, {}, self.objective, self.batches, payload)

    def _learn(self, report: Report, shown: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
        """The update as real numbers, and the steps taken."""
        c, rng, begin = self.c, np.random.default_rng([self.c.seed, 1]), time.monotonic()
        moves = {n: torch.zeros_like(p, requires_grad=True) for n, p in self.weights.items()}
        adam = torch.optim.Adam(moves.values(), lr=self.sparse.lr, betas=(0.9, 0.99))
        share, step = 0.0, 0
        while share < 1.0:
            moved = {n: self.weights[n] + d for n, d in moves.items()}
            out = self.objective.outcome(self.network, moved, self.batches.crops(rng, c.batch), hard=False)
            w = torch.cat([d.flatten() for d in moves.values()])
            one, two = w.abs().sum() + 1e-8, w.norm() + 1e-8
            sparsity = self.sparse.alpha * (one / two + self.sparse.gamma * two * two / one)
            (out.bits / out.pixels + self.objective.worth * out.error + sparsity / self.batches.pixels).backward()
            for group in adam.param_groups:
                group["lr"] = self.sparse.lr * 0.5 * (1 + math.cos(math.pi * share))
            adam.step()
            adam.zero_grad(set_to_none=True)
            step += 1
            share = max(step / c.steps, (time.monotonic() - begin) / c.max_seconds)
            report(min(share, 1.0), shown)
        return {n: d.detach() for n, d in moves.items()}, step

    def _candidates(self, moves: dict[str, Tensor]) -> list[Update]:
        """Pruned below a part of the root mean square, then in one grid step for all tensors."""
        rms = float(torch.cat([d.flatten() for d in moves.values()]).square().mean().sqrt()) or 1e-6
        middle = round(-math.log2(rms))
        updates = []
        for k in sorted({min(max(middle + octave, 0), MAX_STEP_EXPONENT) for octave in STEPS}):
            for prune in PRUNED:
                kept = {n: (d * (d.abs() >= prune * rms) * 2.0**k).round() for n, d in moves.items()}
                n = {name: x.clamp(-MAX_STEPS, MAX_STEPS).numpy().astype(np.int32) for name, x in kept.items()}
                updates.append(Update({name: TensorUpdate(x, k) for name, x in n.items() if x.any()}))
        return updates
