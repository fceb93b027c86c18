"""What every part of an update brings: the gain of a finetuning, shared out along the way from the base weights.

Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365): with all weights moved together from the base ones a
to the adapted ones b, tensor i brings - integral_0^1 dL/dw_i . (b_i - a_i) dt, and what all bring adds up to the gain
(midpoint rule, on crops drawn anew at every point; straight-through gradients of rounded symbols).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from vidcodec.checkpoint import is_sent
from vidcodec.updates.objective import Batches, Objective
from vidcodec.updates.update import is_matrix

POINTS = 6
ENCODER = "encoder"


def brought_bits(
    base: nn.Module, adapted: nn.Module, objective: Objective, batches: Batches, batch: int, seed: int = 0
) -> dict[str, float]:
    """Bits of the whole video that every parameter's change saves, by name; those that did not change are left out.

    base, adapted: the same network with both weights. batch: crops of one point; `POINTS` batches are taken.
    """
    before, after = dict(base.named_parameters()), dict(adapted.named_parameters())
    moved = {n: (p.detach(), after[n].detach() - p.detach()) for n, p in before.items() if not p.equal(after[n])}
    rng, brought = np.random.default_rng([seed, 4]), dict.fromkeys(moved, 0.0)
    with torch.random.fork_rng([]):
        for k in range(POINTS if moved else 0):
            torch.manual_seed(seed * 7919 + k)
            at = (k + 0.5) / POINTS
            weights = {n: (p + at * d).requires_grad_(True) for n, (p, d) in moved.items()}
            out = objective.outcome(adapted, weights, batches.crops(rng, batch), hard=False)
            loss = out.bits / out.pixels + objective.worth * out.error
            grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for (n, (_, d)), g in zip(moved.items(), grads, strict=True):
                if g is not None:
                    brought[n] -= float((g * d).sum()) * batches.pixels / POINTS
    return brought


def account(network: nn.Module, bits: Mapping[str, float], brought: Mapping[str, float]) -> list[dict[str, Any]]:
    """What every tensor cost and saved, in bits of the video, dearest first; the encoder's all in one row.

    Rows have name, kind ('biases', 'tables', 'depthwise', 'matrices', 'encoder'), bits and brought.
    """
    rows = []
    for name, p in network.named_parameters():
        if is_sent(network, name) and name in brought:
            row = {"name": name, "kind": kind_of(name, tuple(p.shape))}
            rows.append({**row, "bits": float(bits.get(name, 0.0)), "brought": brought[name]})
    free = [b for n, b in brought.items() if not is_sent(network, n)]
    rows += [{"name": ENCODER, "kind": ENCODER, "bits": 0.0, "brought": sum(free)}] * bool(free)
    return sorted(rows, key=lambda row: -row["bits"])


def kind_of(name: str, shape: tuple[int, ...]) -> str:
    """What sort of parameters a tensor holds."""
    if not is_matrix(name, shape):
        return "tables" if name.endswith(".table") else "biases"
    return "depthwise" if len(shape) > 2 and shape[1] == 1 else "matrices"
