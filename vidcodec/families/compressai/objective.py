"""What adaptation lowers of a CompressAI network: R and D of its pictures, D on the planes of 4:2:0."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.entropy.scales import LOG_STEP, MAX_INDEX, index_to_scale
from vidcodec.families.compressai.pictures import planes_to_rgb, rgb_to_planes
from vidcodec.rate import TradeOff, weighted_mse
from vidcodec.updates.objective import Outcome, autocast, signs


class HyperpriorObjective:
    """The codec at its one rate. Batches are planes (B, 6, H/2, W/2), H and W multiples of 64.

    matrix, full_range: the planes' colour, as `planes_to_rgb` takes it.
    """

    def __init__(self, trade_off: TradeOff, matrix: int, full_range: bool) -> None:
        self.trade_off, self.matrix, self.full_range = trade_off, matrix, full_range
        self.worth = trade_off.worth

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Tensor, *, hard: bool) -> Outcome:
        """With symbols rounded; soft: the gradient towards a latent is that of its unrounded value."""
        rgb = planes_to_rgb(batch, self.matrix, self.full_range)
        with autocast(batch.device):
            out = functional_call(network, parameters, (rgb,), {"rate": "rounded" if hard else "mixed"})
        error = weighted_mse(rgb_to_planes(out.rgb, self.matrix, self.full_range), batch).mean()
        return Outcome((out.y_bits + out.z_bits).sum(), error, rgb[:, 0].numel())

    def probe(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Decoded samples, and means / scale and sqrt(2) * log scale of symbols, as for the default network."""
        rgb = planes_to_rgb(batch, self.matrix, self.full_range)
        out = network(rgb)
        planes = rgb_to_planes(out.rgb, self.matrix, self.full_range)
        b, _, h, w = planes.shape
        wy, wu, wv = (v * 2 * self.worth for v in self.trade_off.weights)
        weights = torch.tensor([wy / 4] * 4 + [wu, wv], device=batch.device)[None, :, None, None] / (b * h * w)
        probe = (planes * weights.sqrt() * signs(planes, generator)).sum()
        unit = 1.0 / math.sqrt(math.log(2) * rgb[:, 0].numel())
        live = (out.table > 0) & (out.table < MAX_INDEX)
        scale = index_to_scale(out.table.detach().clamp(0, MAX_INDEX)).clamp_min(0.3)
        probe = probe + (out.mean / scale * signs(out.mean, generator)).sum() * unit
        return probe + (out.table * (LOG_STEP * math.sqrt(2)) * live * signs(out.table, generator)).sum() * unit
