"""A quantiser's decisions at every rate level, for a run's steps, which mix levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.rates import CellCoder
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.quantising import error_weights
from vidcodec.latents.deciding import deciding
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import Quantizer
from vidcodec.training.run import Run

# What a training step may quantise with, by the name in a configuration; every step draws one. None rounds.
RDOQ, TRELLIS = Quantizer("scalar", 1, 0), Quantizer("trellis8", 1, 3)
MIXES: dict[str, tuple[Quantizer | None, ...]] = {
    "rdoq": (RDOQ,),
    "trellis": (TRELLIS,),
    "mixed": (None, RDOQ, TRELLIS, TRELLIS),
}
DECIDERS_STEPS = 500  # so often a run's weights are measured anew
# How many times a symbol's bits count, by the share of the rate range: near what `codec.quantising` finds.
SHARES, TRADE_OFFS = (0.0, 0.1, 0.2, 0.4, 0.6, 1.0), (0.12, 0.16, 0.25, 0.35, 0.5, 0.5)


@dataclass(frozen=True, eq=False)
class Deciders:
    """Decisions for pictures of any rate level.

    log_weight: natural logarithm of `error_weights` at whole levels, (K, C).
    """

    log_weight: np.ndarray

    @classmethod
    def measured(cls, model: Msp, pictures: Sequence[Tensor]) -> Deciders:
        """Weights measured on pictures, planes (1, 6, ., .) each: a synthesis and its gradient a picture and level."""
        device = model.gain.table.device
        levels = [torch.full((1,), float(k), device=device) for k in range(model.config.levels)]
        return cls(np.stack([np.log(np.maximum(error_weights(model, pictures, level), 1e-12)) for level in levels]))

    def at(self, level: float, quantizer: Quantizer) -> Decisions:
        """Those of one real-valued level."""
        low = min(int(level), len(self.log_weight) - 2)
        weight = np.exp(self.log_weight[low] * (low + 1 - level) + self.log_weight[low + 1] * (level - low))
        trade_off = float(np.interp(level / (len(self.log_weight) - 1), SHARES, TRADE_OFFS))
        return Decisions(quantizer, trade_off, weight)

    def coder(self, levels: Tensor, quantizer: Quantizer | None) -> CellCoder | None:
        """What decides the symbols of pictures of these levels (B,); None, plain rounding, for no quantiser."""
        return None if quantizer is None else deciding([self.at(level, quantizer) for level in levels.tolist()])


class Decided:
    """What decides the symbols in a run's steps and checks, with weights measured every so often.

    quantizer: of `MIXES`. pictures: to measure at, planes (1, 6, ., .) each.
    """

    def __init__(self, quantizer: str, run: Run[Msp], pictures: Sequence[Tensor]) -> None:
        self.mix, self.run, self.pictures = MIXES[quantizer], run, pictures

    @property
    def deciders(self) -> Deciders:
        """As last measured; the run's state keeps them."""
        return Deciders(self.run.kept["log_weight"].cpu().numpy())

    def training(self, step: int, rng: np.random.Generator, level: Tensor) -> CellCoder | None:
        """For the pictures of a step, of these levels (B,)."""
        if step % DECIDERS_STEPS == 0 or "log_weight" not in self.run.kept:
            measured = Deciders.measured(self.run.network, self.pictures)
            self.run.kept["log_weight"] = torch.from_numpy(measured.log_weight)
        return self.deciders.coder(level, self.mix[int(rng.integers(len(self.mix)))])

    def checking(self, level: Tensor) -> CellCoder | None:
        """For checks: the last quantiser of the mix."""
        return self.deciders.coder(level, self.mix[-1])
