"""What a pipeline calls: frames to one network and a payload each, and back.

    fit = Fit(targets, options, config, base_weights(options.trade_off))
    fit.run(seconds)
    coded = finish(fit)                                             coded.network, coded.frames: bytes

    theta = decode_update(config, base, coded.network)
    decoder = FrameDecoder(config, theta, h, w)
    planes = decoder.planes(decoder.symbols(coded.frames[0]))

The true cost is that of the bytes: `finish` rounds the network to the steps that pay, and codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcodec.families.pocket.exact import ExactContext
from vidcodec.families.pocket.fit import Fit
from vidcodec.families.pocket.network import PocketConfig, unflatten
from vidcodec.families.pocket.update import choose_steps, encode_update
from vidcodec.families.pocket.workspace import Workspace

Array = np.ndarray

JUDGED = 4  # frames that a network's steps are chosen on


@dataclass(frozen=True, eq=False)
class Coded:
    """One network and all frames of a fit, as bytes."""

    network: bytes
    frames: list[bytes]
    theta: Array  # the network as whoever decodes has it

    @property
    def bits(self) -> int:
        return 8 * (len(self.network) + sum(len(f) for f in self.frames))


def finish(fit: Fit) -> Coded:
    """Bytes of a fit as it stands; what it started from is what the decoder has, multiples of 2^-12."""
    shared, base = fit.options.shared or len(fit.frames), fit.base
    indices = np.unique(np.linspace(0, len(fit.frames) - 1, min(JUDGED, len(fit.frames))).round().astype(int)).tolist()
    price = fit.options.trade_off / fit.samples / shared
    exponents, theta = choose_steps(fit.config, base, fit.theta, lambda t: fit.loss(t, indices), price)
    coder = ExactContext.of(fit.config, theta)
    payloads = [coder.encode(fit.grids(i)) for i in range(len(fit.frames))]
    return Coded(encode_update(fit.config, base, exponents, theta), payloads, theta)


class FrameDecoder:
    """Decodes frames of one size with one network; holds the buffers."""

    def __init__(self, config: PocketConfig, theta: Array, h: int, w: int) -> None:
        self.theta, self.work = theta, Workspace(config, h, w)
        self.coder = ExactContext.of(config, theta)

    def symbols(self, payload: bytes) -> list[Array]:
        """Grids of whole numbers, the finest first. Raises CorruptBitstreamError."""
        return self.coder.decode(payload, self.work.h, self.work.w)

    def planes(self, grids: list[Array]) -> Array:
        """Float32 (6, h, w), in [-0.5, 0.5]."""
        for mine, grid in zip(self.work.grids(self.work.symbols), grids, strict=True):
            mine[:] = grid
        self.work.synthesise(self.theta)
        return np.clip(self.work.planes(), -0.5, 0.5)


def base_weights(trade_off: float) -> Array:
    """The shipped parameters, float32 in a row, multiples of 2^-12; their steps follow the trade-off.

    They were fitted at lambda 5e-4 (scripts/train_pocket_base.py).
    """
    theta = np.load(Path(__file__).parent / "base.npy", allow_pickle=False).astype(np.float32)
    config = PocketConfig()
    unflatten(config, theta)["gain"][:] += np.float32(round(512 * math.log2(trade_off / 5e-4)) / 1024)
    return theta


def on_grid(theta: Array) -> Array:
    """Parameters rounded to multiples of 2^-12, as base weights have to be."""
    return (np.rint(theta.astype(np.float64) * 4096) / 4096).astype(np.float32)
