"""How much each tensor's grid step matters: the curvature of the loss, by random probes.

Gauss-Newton: if the loss were a sum of squares of some outputs o with unit weights, its
curvature along weight w would be sum_i (d o_i / d w)^2, and for random signs v_i the
square of d (sum_i v_i o_i) / d w is an unbiased estimate of it: one backward pass for all
weights at once (Hutchinson's estimator). What the outputs are is the objective's affair (`Objective.probe`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vidcodec.adapt.objective import Objective


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
