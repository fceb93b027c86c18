"""Which settings of a quantiser suit a video: a search by true cost on a sample of its pictures.

What a symbol does to the passes after its own is not in a quantiser's own sums, so settings are compared by coding
pictures: real bytes and the picture a decoder gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.latents.decisions import PLAIN_SETTINGS, Decisions, Settings
from vidcodec.latents.quantizer import MAX_SHIFT, MIN_SHIFT, Quantizer
from vidcodec.latents.tables import SETS
from vidcodec.rate import PLANE_WEIGHTS, RateLevel, weighted_mse
from vidcodec.updates.objective import signs

# Factors on the bits of a symbol. What costs least on real latents with the shipped weights: about 0.16 at quality
# 10, 0.25 at 20, 0.35 at 40, 0.5 from 60 on; refinement, which knows the later passes, likes 0.7.
TRADE_OFFS = (0.088, 0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1.0)
# Where the search begins, by kind; each kind only where the name allows it.
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
    network: Msp, level: RateLevel, pictures: Sequence[Tensor], quantizer: str, step: Callable[[int], None]
) -> Settings:
    """The settings of least true cost that a search finds, among the kinds that a quantiser's name stands for.

    Plain rounding is among them.

    pictures: planes (1, 6, H/2, W/2) to code; step: called before the n-th of about 13 trials.
    """
    rate_level = level.tensor(network.gain.table.device)
    weight = error_weights(network, pictures, rate_level)
    worth = network.trade_off(level).worth
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
            error = float(weighted_mse(coded.show(), x)) * 4 * x.shape[-1] * x.shape[-2]
            total += 8 * len(coded.payload) + worth * error
        return total / pixels

    best = min((STARTS[kind] for kind in KINDS[quantizer]), key=cost)
    best = _downhill(best, _other_trade_offs, cost)
    best = min((best, *_other_tables(best)), key=cost)
    best = _downhill(best, _other_steps, cost)
    best = _downhill(best, _other_trade_offs, cost)
    return min((best, PLAIN_SETTINGS), key=cost)


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


def error_weights(model: Msp, pictures: Sequence[Tensor], level: Tensor) -> np.ndarray:
    """Bits that a squared step of error in each channel of y is worth, float64 (C,).

    pictures: planes (1, 6, H/2, W/2) each, to measure at; level: (1,).
    """
    generator = torch.Generator().manual_seed(0)
    wy, wu, wv = PLANE_WEIGHTS
    # N D: D averages luma over N samples, chroma over N / 4.
    weight = torch.tensor([wy] * 4 + [4 * wu, 4 * wv], device=level.device)[None, :, None, None]
    total, sites = torch.zeros(model.config.latent, dtype=torch.float64, device=level.device), 0
    for planes in pictures:
        with torch.no_grad():
            y = model.analyse(planes.to(level.device), level)
        y.requires_grad_(True)
        out = model.synthesise(y, level)
        (gradient,) = torch.autograd.grad((out * weight.sqrt() * signs(out, generator)).sum(), y)
        total += gradient.double().square().sum((0, 2, 3))
        sites += y.shape[-1] * y.shape[-2]
    return (float(model.rate_lambda(level)) * 255.0**2 * total / sites).cpu().numpy()
