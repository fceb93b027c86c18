"""Which settings of a quantiser suit a video: a search by true cost on a sample of its pictures.

What a symbol does to the passes after its own is not in a quantiser's own sums, so settings are compared by coding
pictures: real bytes and the picture a decoder gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from vidcodec.adapt.decisions import ROUNDING, Decisions, error_weights
from vidcodec.codec.pictures import MspPictureCodec
from vidcodec.models.msp import Msp, weighted_mse
from vidcodec.quantize.quantizer import MAX_SHIFT, MIN_SHIFT, Quantizer
from vidcodec.quantize.tables import SETS


@dataclass(frozen=True)
class Settings:
    """A quantiser and how many times its symbols' bits count; None for plain rounding. See `Decisions`."""

    quantizer: Quantizer = ROUNDING
    trade_off: float | None = None


PLAIN_SETTINGS = Settings()
# Factors on the bits of a symbol. What costs least on real latents with the shipped weights: about 0.16 at quality
# 10, 0.25 at 20, 0.35 at 40, 0.5 from 60 on; refinement, which knows the later passes, likes 0.7.
TRADE_OFFS = (0.088, 0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1.0)
# Where the search begins, by kind; each kind only where `--quantizer` allows it.
STARTS = {
    "scalar": Settings(Quantizer("scalar", 1, 0), 0.354),
    "trellis4": Settings(Quantizer("trellis4", 1, 3), 0.354),
    "trellis8": Settings(Quantizer("trellis8", 1, 3), 0.354),
}
KINDS = {
    "uniform": (),
    "rdoq": ("scalar",),
    "trellis4": ("trellis4", "scalar"),
    "trellis": ("trellis8", "scalar"),
}


def search_settings(
    network: Msp, level: int, pictures: Sequence[Tensor], quantizer: str, step: Callable[[int], None]
) -> Settings:
    """The settings of least true cost that a search finds, among the kinds of a `--quantizer`.

    pictures: planes (1, 6, H/2, W/2) to code; step: called before the n-th of about 12 trials.
    """
    rate_level = torch.full((1,), level / 256, device=network.gain.table.device)
    weight = error_weights(network, pictures, rate_level)
    lam = float(network.rate_lambda(rate_level))
    with torch.no_grad():
        latents = [(y := network.analyse(x, rate_level), network.hyper_analysis(y)) for x in pictures]
    pixels = sum(4 * x.shape[-1] * x.shape[-2] for x in pictures)
    trials = 0

    @cache
    def cost(settings: Settings) -> float:
        nonlocal trials
        step(trials)
        trials += 1
        codec = MspPictureCodec(network, level, Decisions(settings.quantizer, settings.trade_off, weight))
        total = 0.0
        for x, (y, z) in zip(pictures, latents, strict=True):
            coded = codec.encode_latents(y, z)
            error = float(weighted_mse(coded.planes, x)) * 4 * x.shape[-1] * x.shape[-2]
            total += 8 * len(coded.payload) + lam * 255.0**2 * error
        return total / pixels

    best = min((STARTS[kind] for kind in KINDS[quantizer]), key=cost)
    best = _downhill(best, _other_trade_offs, cost)
    best = min((best, *_other_tables(best)), key=cost)
    best = _downhill(best, _other_steps, cost)
    return _downhill(best, _other_trade_offs, cost)


def _downhill(
    best: Settings, neighbours: Callable[[Settings], list[Settings]], cost: Callable[[Settings], float]
) -> Settings:
    while (lower := min((best, *neighbours(best)), key=cost)) != best:
        best = lower
    return best


def _other_trade_offs(s: Settings) -> list[Settings]:
    assert s.trade_off is not None
    at = TRADE_OFFS.index(s.trade_off)
    return [Settings(s.quantizer, t) for t in TRADE_OFFS[max(at - 1, 0) : at + 2]]


def _other_tables(s: Settings) -> list[Settings]:
    q = s.quantizer
    return [Settings(Quantizer(q.kind, table_set, q.shift), s.trade_off) for table_set in range(SETS)]


def _other_steps(s: Settings) -> list[Settings]:
    q = s.quantizer
    shifts = range(max(q.shift - 1, MIN_SHIFT), min(q.shift + 1, MAX_SHIFT) + 1)
    return [Settings(Quantizer(q.kind, q.table_set, shift), s.trade_off) for shift in shifts]
