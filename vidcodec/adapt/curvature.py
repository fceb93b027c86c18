"""How much each tensor's grid step matters: the curvature of the loss, by random probes.

Gauss-Newton: if the loss were a sum of squares of some outputs o with unit weights, its
curvature along weight w would be sum_i (d o_i / d w)^2, and for random signs v_i the
square of d (sum_i v_i o_i) / d w is an unbiased estimate of it: one backward pass for all
weights at once (Hutchinson's estimator). Here the outputs are

    the decoded samples, times sqrt(2 * lambda * 255^2 * plane weight)   (distortion)
    means / scale and sqrt(2) * log scale of every coded symbol, in bits (rate; the
    Fisher information of a normal distribution's mean and log deviation)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vidcodec.entropy.scales import LOG_STEP, MAX_INDEX, index_to_scale
from vidcodec.models.msp import Msp


def signs(x: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, x.shape, generator=generator).to(x.device) * 2 - 1).to(x.dtype)


def mean_curvature(
    model: Msp,
    names: list[str],
    draw: Callable[[], Tensor],
    level: Tensor,
    plane_weights: tuple[float, float, float],
    *,
    probes: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """Mean curvature of L (bits per pixel) over each named tensor's weights.

    draw: gives a batch of planes (B, 6, ., .); level: (1,). Returns curvature per squared
    weight; multiply by the pixels of the video for bits.
    """
    if not names:
        return {}
    generator = torch.Generator().manual_seed(seed)
    parameters = {n: p for n, p in model.named_parameters() if n in set(names)}
    for p in parameters.values():
        p.requires_grad_(True)
    total = dict.fromkeys(parameters, 0.0)
    lam = float(model.rate_lambda(level))
    means: list[Tensor] = []
    indices: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, seen=seen: seen.extend(out))  # type: ignore[misc]
        for seen, modules in ((means, model.pass_mean), (indices, model.pass_scale))
        for module in modules
    ]
    try:
        for _ in range(probes):
            planes = draw()
            b, _, h, w = planes.shape
            pixels = b * h * w * 4
            means.clear()
            indices.clear()
            out = model(planes, level.expand(b))
            wy, wu, wv = (v * 2 * lam * 255.0**2 for v in plane_weights)
            # D averages over samples: 4 luma phases of h * w samples, then U and V.
            weights = torch.tensor([wy / 4] * 4 + [wu, wv], device=planes.device)[None, :, None, None] / (b * h * w)
            probe = (out.planes * weights.sqrt() * signs(out.planes, generator)).sum()
            unit = 1.0 / math.sqrt(math.log(2) * pixels)
            for mean, index in zip(means, indices, strict=True):
                live = (index > 0) & (index < MAX_INDEX)
                scale = index_to_scale(index.detach().clamp(0, MAX_INDEX)).clamp_min(0.3)
                probe = probe + (mean / scale * signs(index, generator)).sum() * unit
                probe = probe + (index * (LOG_STEP * math.sqrt(2)) * live * signs(index, generator)).sum() * unit
            z = model.z_indices(level)
            sites = (h // 8) * (w // 8) / 16 * b
            probe = probe + (z * signs(z, generator)).sum() * LOG_STEP * math.sqrt(2 * sites / (math.log(2) * pixels))
            grads = torch.autograd.grad(probe, list(parameters.values()), allow_unused=True)
            for n, g in zip(parameters, grads, strict=True):
                if g is not None:
                    used = max(int(torch.count_nonzero(g)), 1)
                    total[n] += float(g.square().sum()) / used / probes
    finally:
        for hook in hooks:
            hook.remove()
        for p in parameters.values():
            p.requires_grad_(False)
    return total
