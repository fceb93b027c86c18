"""What adaptation asks of a network: one objective, whichever codec it is of.

Finetuning (`vidcodec.adapt.finetune`) and importance learning (`vidcodec.training.importance`) lower

    L = R + worth * E + M / N        [bits per pixel]

R: bits of the symbols, E: error, `worth`: bits per pixel that an error of 1 is worth, M: bits of the model update, N:
pixels of the video. A lossy codec has R and E, a filter behind a codec E alone, a lossless codec R alone. Batches are
the source's affair and the objective's: nothing in between looks inside them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidcodec.entropy.scales import LOG_STEP, MAX_INDEX, index_to_scale
from vidcodec.models.msp import PLANE_WEIGHTS, Msp, weighted_mse
from vidcodec.models.rates import CellCoder


class Source(Protocol):
    """Where finetuning gets its batches."""

    pixels: int  # of the whole video, all frames together

    def crops(self, rng: np.random.Generator, count: int) -> Any: ...  # a batch of `count` random crops

    def checks(self) -> list[Any]: ...  # fixed batches for measuring


class Outcome(NamedTuple):
    """Of one batch."""

    bits: Tensor  # all symbols together, a scalar; zero where none are coded
    error: Tensor  # mean over the batch, a scalar; zero where nothing is lost
    pixels: int


class Objective(Protocol):
    """R and E of a network, differentiable in its parameters."""

    worth: float

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Any, *, hard: bool) -> Outcome:
        """Run the network with some of its parameters replaced; hard: rates of symbols as a coder charges them."""
        ...

    def probe(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """A random scalar; the square of its gradient is, on average, the curvature of R + worth * E.

        In bits per pixel; see `vidcodec.adapt.curvature`. `fisher_probe` gives one from the bits of symbols alone.
        """
        ...


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the processor has it, else no change."""
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(fast))


def signs(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs in the shape of x."""
    return (torch.randint(0, 2, x.shape, generator=generator).to(x.device) * 2 - 1).to(x.dtype)


def fisher_probe(bits: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """A probe from the bits of every symbol, any shape: the curvature of their sum per pixel.

    The curvature of an expected code length is its Fisher information, the mean square of its gradient: in bits,
    ln 2 * sum_i (d bits_i / d w)^2. The symbols that occurred stand for those expected.
    """
    return (bits * signs(bits, generator)).sum() * math.sqrt(math.log(2) / pixels)


class MspObjective:
    """The lossy codec at one rate level: D is the plane-weighted error, worth lambda * 255^2.

    level: (1,). Batches are planes (B, 6, H/2, W/2). code: decides the symbols of y, as the quantiser of the file
    will (`vidcodec.adapt.deciding`); rounding without.
    """

    def __init__(
        self,
        network: Msp,
        level: Tensor,
        plane_weights: tuple[float, float, float] = PLANE_WEIGHTS,
        code: CellCoder | None = None,
    ) -> None:
        self.level, self.plane_weights, self.code = level, plane_weights, code
        self.lam = float(network.rate_lambda(level))
        self.worth = self.lam * 255.0**2

    def outcome(self, network: nn.Module, parameters: dict[str, Tensor], batch: Tensor, *, hard: bool) -> Outcome:
        """With symbols decided; soft: the gradient towards a latent is that of its unrounded value."""
        levels = self.level.expand(batch.shape[0])
        with autocast(batch.device):
            how = {"rate": "rounded" if hard else "mixed", "code": self.code}
            out = functional_call(network, parameters, (batch, levels), how)
        error = weighted_mse(out.planes.float(), batch, self.plane_weights).mean()
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
        wy, wu, wv = (v * 2 * self.lam * 255.0**2 for v in self.plane_weights)
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
