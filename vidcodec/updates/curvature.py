"""How much each tensor's grid step matters: the curvature of the loss, by random probes, and the steps it asks for.

Gauss-Newton: if the loss were a sum of squares of some outputs o with unit weights, its
curvature along weight w would be sum_i (d o_i / d w)^2, and for random signs v_i the
square of d (sum_i v_i o_i) / d w is an unbiased estimate of it: one backward pass for all
weights at once (Hutchinson's estimator). What the outputs are is the objective's affair (`Objective.probe`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.updates.objective import Batches, Objective
from vidcodec.updates.selection import Selection
from vidcodec.updates.update import MAX_STEP_EXPONENT


def mean_curvature(
    network: nn.Module,
    objective: Objective,
    names: list[str],
    draw: Callable[[], Any],
    *,
    masks: dict[str, Tensor] | None = None,
    probes: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """Mean curvature of L (bits per pixel) over each named tensor's weights, or those of them in its mask.

    draw: gives a batch. masks: bool, by name. Returns curvature per squared weight; multiply by the pixels of the
    video for bits.
    """
    if not names:
        return {}
    generator = torch.Generator().manual_seed(seed)
    parameters = {n: p for n, p in network.named_parameters() if n in set(names)}
    for p in parameters.values():
        p.requires_grad_(True)
    total = dict.fromkeys(parameters, 0.0)
    try:
        for _ in range(probes):
            probe = objective.probe(network, draw(), generator)
            grads = torch.autograd.grad(probe, list(parameters.values()), allow_unused=True)
            for n, g in zip(parameters, grads, strict=True):
                if g is not None:
                    g = g if masks is None or n not in masks else g * masks[n]
                    used = max(int(torch.count_nonzero(g)), 1)
                    total[n] += float(g.square().sum()) / used / probes
    finally:
        for p in parameters.values():
            p.requires_grad_(False)
    return total


class Probing(Protocol):
    """What probes of the loss ask of a configuration: crops at once, a seed, and the coarsest step there may be."""

    @property
    def batch(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def coarsest(self) -> float: ...


def step_exponents(
    network: nn.Module, objective: Objective, batches: Batches, c: Probing, selection: Selection
) -> dict[str, int]:
    """Grid exponents from the curvature of the loss.

    With h the mean curvature of a tensor's selected weights (bits of the whole video per
    squared weight), a uniform step t costs h t^2 / 24 bits a weight by its error and saves
    log2 t bits: least at t^2 = 12 / (h ln 2). The step is the nearest power of two.
    """
    rng = np.random.default_rng(c.seed)
    parameters = dict(network.named_parameters())
    masks = {n: torch.from_numpy(m).to(parameters[n].device) for n, m in selection.partial.items()}
    curvature = mean_curvature(
        network, objective, list(selection.masks), lambda: batches.crops(rng, c.batch), masks=masks, seed=c.seed
    )
    exponents = {}
    for name in selection.masks:
        h = max(curvature[name] * batches.pixels, 1e-12)
        # The quadratic view ends where a step is large against the weights themselves.
        spread = float(parameters[name].square().mean().sqrt()) or 0.1
        k = max(0.5 * math.log2(h * math.log(2) / 12), -math.log2(c.coarsest * min(spread, 1.0)))
        exponents[name] = int(np.clip(round(k), 0, MAX_STEP_EXPONENT))
    return exponents


def loss_gradients(
    network: nn.Module, objective: Objective, batches: Batches, c: Probing, selection: Selection
) -> dict[str, Tensor]:
    """Of R + worth * E by the selected parameters, at the network's weights and summed over a few batches."""
    rng = np.random.default_rng([c.seed, 2])
    parameters = {n: p.detach().requires_grad_(True) for n, p in network.named_parameters() if n in selection.masks}
    total = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for _ in range(2):
        out = objective.outcome(network, parameters, batches.crops(rng, c.batch), hard=False)
        loss = out.bits / out.pixels + objective.worth * out.error
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for n, g in zip(parameters, grads, strict=True):
            if g is not None:
                total[n] += g
    return total


def weight_probes(
    network: nn.Module, weights: dict[str, Tensor], objective: Objective, batches: Batches, c: Probing, count: int = 2
) -> list[dict[str, Tensor]]:
    """Gradients by the named weights, at these values, of random probes (`Objective.probe`)."""
    rng = np.random.default_rng([c.seed, 3])
    generator = torch.Generator().manual_seed(c.seed)
    parameters = {n: p for n, p in network.named_parameters() if n in weights}
    kept = {n: p.detach().clone() for n, p in parameters.items()}
    out = []
    try:
        for n, p in parameters.items():
            p.data.copy_(weights[n])
            p.requires_grad_(True)
        for _ in range(count):
            probe = objective.probe(network, batches.crops(rng, c.batch), generator)
            grads = torch.autograd.grad(probe, list(parameters.values()), allow_unused=True)
            out.append({n: g for n, g in zip(parameters, grads, strict=True) if g is not None})
    finally:
        for n, p in parameters.items():
            p.data.copy_(kept[n])
            p.requires_grad_(False)
    return out
