"""The scale path of `Msp` on integers, as encoder and decoder run it.

The same layers as `HyperScale` and `PassScale`, on the arithmetic of
`vidcodec.entropy.exact`. Inputs are decoded symbols, outputs are table indices.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vidcodec.entropy.exact import (
    ACTIVATION_BITS,
    WEIGHT_BITS,
    IntConv,
    IntLevels,
    shift_to_int,
    to_activation,
)
from vidcodec.entropy.scales import MAX_INDEX
from vidcodec.families.msp.network import INDEX_GAIN, Msp, PassScale
from vidcodec.rate import RateLevel

Z_LIMIT = 127.0


def _int(conv: nn.Conv2d) -> IntConv:
    assert conv.bias is not None
    return IntConv.from_float(conv.weight, conv.bias)


def to_index(acc: Tensor) -> Tensor:
    """Accumulators to table indices 0 .. 63 (INDEX_GAIN = 2^3 indices a unit)."""
    bits = WEIGHT_BITS + ACTIVATION_BITS - int(INDEX_GAIN).bit_length() + 1
    return shift_to_int(acc, bits).clamp(0, MAX_INDEX)


class ExactPass:
    """`PassScale` on integers; base: accumulators (1, C, 1, 1)."""

    def __init__(self, p: PassScale, base: Tensor) -> None:
        assert p.head.bias is not None
        self.known = None if p.reduce is None or p.known is None else (_int(p.reduce), _int(p.known))
        self.stem, self.mid = _int(p.stem), _int(p.mid)
        self.heads = [
            (cell.phase, IntConv.from_float(p.head.weight[cell.group], p.head.bias[cell.group]), base[:, cell.group])
            for cell in p.cells
        ]

    def __call__(self, features: Tensor, magnitudes: Tensor) -> list[Tensor]:
        x = self.stem(features)
        if self.known is not None:
            reduce, known = self.known
            x = x + known(to_activation(reduce(magnitudes)))
        x = to_activation(self.mid(to_activation(x)))
        return [to_index(head(x[(..., *phase)]) + base) for phase, head, base in self.heads]


class ExactScales:
    """Table indices of z and of every pass, for one rate level.

    model: its weights are read once; build a new object after changing them.
    """

    def __init__(self, model: Msp, level: RateLevel) -> None:
        hyper = model.hyper_scale
        self.stem, self.up1, self.up2 = _int(hyper.stem), _int(hyper.up1), _int(hyper.up2)
        self.bias = IntLevels.from_float(hyper.bias.table).at(level.steps)
        base = IntLevels.from_float(model.y_index.table).at(level.steps)
        self.passes = [ExactPass(p, base) for p in model.pass_scale]  # type: ignore[arg-type]
        z_level = IntLevels.from_float(model.z_index.table).at(level.steps)
        self.z_index = to_index(z_level)  # (1, Z, 1, 1)
        self.device = model.hyper_scale.stem.weight.device

    def features(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """z symbols (B, Z, h/4, w/4), any dtype, to scale features (B, S, h, w) float64."""
        x = z.to(self.device).double().clamp(-Z_LIMIT, Z_LIMIT) * 2.0**ACTIVATION_BITS
        x = to_activation(self.stem(x))
        x = to_activation(F.pixel_shuffle(self.up1(x), 2))
        x = to_activation(F.pixel_shuffle(self.up2(x), 2) + self.bias)
        return x[..., : size[0], : size[1]]

    def pass_index(self, k: int, features: Tensor, known: Tensor) -> list[Tensor]:
        """Table indices of pass k, one tensor a cell, from features and known magnitudes (2^8 log2(1 + |q|)).

        Both lie on the pass's grid and are float64.
        """
        return self.passes[k](features, known)
