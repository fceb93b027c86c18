"""What adaptation lowers of the default codec: R and D of its pictures at one rate level."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.entropy.rates import CellCoder
from vidcodec.entropy.scales import LOG_STEP, MAX_INDEX, index_to_scale
from vidcodec.families.msp.network import Msp
from vidcodec.rate import PLANE_WEIGHTS, TradeOff, weighted_mse
from vidcodec.updates.objective import Outcome, autocast, signs


class MspObjective:
    """The lossy codec at one rate level: D is the plane-weighted error, worth lambda * 255^2.

    level: (1,). Batches are planes (B, 6, H/2, W/2). code: decides the symbols of y, as the quantiser of the file
    will (`vidcodec.latents.deciding`); rounding without.
    """

    def __init__(self, network: Msp, level: Tensor, code: CellCoder | None = None) -> None:
        self.level, self.code = level, code
        self.worth = TradeOff(float(network.rate_lambda(level))).worth

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Tensor, *, hard: bool) -> Outcome:
        """With symbols decided; soft: the gradient towards a latent is that of its unrounded value."""
        levels = self.level.expand(batch.shape[0])
        with autocast(batch.device):
            how = {"rate": "rounded" if hard else "mixed", "code": self.code}
            out = functional_call(network, parameters, (batch, levels), how)
        error = weighted_mse(out.planes.float(), batch).mean()
        return Outcome((out.y_bits + out.z_bits).sum(), error, batch.shape[0] * batch.shape[-1] * batch.shape[-2] * 4)

    def probe(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs whose squares make the loss: decoded samples, and means / scale and sqrt(2) * log scale of symbols.

        The latter two in bits: the Fisher information of a normal distribution's mean and log deviation.
        """
        assert isinstance(network, Msp)
        b, _, h, w = batch.shape
        pixels = b * h * w * 4
        means: list[Tensor] = []
        indices: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, out, seen=seen: seen.extend(out))  # type: ignore[misc]
            for seen, modules in ((means, network.pass_mean), (indices, network.pass_scale))
            for module in modules
        ]
        try:
            out = network(batch, self.level.expand(b))
        finally:
            for hook in hooks:
                hook.remove()
        wy, wu, wv = (v * 2 * self.worth for v in PLANE_WEIGHTS)
        # D averages over samples: 4 luma phases of h * w samples, then U and V.
        weights = torch.tensor([wy / 4] * 4 + [wu, wv], device=batch.device)[None, :, None, None] / (b * h * w)
        probe = (out.planes * weights.sqrt() * signs(out.planes, generator)).sum()
        unit = 1.0 / math.sqrt(math.log(2) * pixels)
        for mean, index in zip(means, indices, strict=True):
            live = (index > 0) & (index < MAX_INDEX)
            scale = index_to_scale(index.detach().clamp(0, MAX_INDEX)).clamp_min(0.3)
            probe = probe + (mean / scale * signs(index, generator)).sum() * unit
            probe = probe + (index * (LOG_STEP * math.sqrt(2)) * live * signs(index, generator)).sum() * unit
        z = network.z_indices(self.level)
        sites = (h // 8) * (w // 8) / 16 * b
        return probe + (z * signs(z, generator)).sum() * LOG_STEP * math.sqrt(2 * sites / (math.log(2) * pixels))
