"""The lossless network on integers, as encoder and decoder run it.

What the passes see is whole numbers (`vidcodec.families.lossless.network`); compiled loops find the same ones here, and
the layers run on the arithmetic of `vidcodec.entropy.exact`: float64 that holds integers, matrix products, rounding by
shifts. So the distributions, means included, are the same on every machine.

    inputs         2^-8, |.| <= 2^11 (12 bits and a sign)
    weights        round(w * 2^12), 16 bits
    accumulators   2^-20; |acc| < 2^15 * 2^15 * fan-in < 2^53 for fan-in < 2^23
    activations    2^-8, in [0, 2^15)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidcodec.entropy.compiling import compiled
from vidcodec.entropy.exact import WEIGHT_BITS, WEIGHT_LIMIT, accumulate_bias, to_activation, to_grid
from vidcodec.entropy.logistics import INPUT_BITS, INPUT_LIMIT, RECIPROCAL_BITS
from vidcodec.entropy.mixtures import MixtureDecoder, MixtureEncoder, Mixtures
from vidcodec.families.lossless.network import (
    CHROMA_REACH,
    GUIDE,
    KNOWN,
    LUMA_REACH,
    MARGIN,
    PHASES,
    SPREAD,
    Lossless,
    Offset,
    PassNetwork,
    filled,
    level_input,
    neighbours,
    unit_input,
    unit_table,
    wide_input,
)
from vidcodec.families.lossless.planes import chroma_levels

Array = np.ndarray
SampleCoder = MixtureEncoder | MixtureDecoder
BAND = 1 << 14  # samples that go through a network at once


# ----------------------------------------------------------------------- what a pass sees


@compiled
def measure(
    phases: Array, places: Array, nearest: Array, spread: int, thresholds: Array, centre: Array, unit: Array
) -> None:
    """Sum of the nearest four and the unit of every cell, as `see` finds them; writes centre, unit int64 (h, w).

    phases: int32 (4, h + 2 MARGIN, w + 2 MARGIN). places: int64 (n, 3): phase and cell offsets, margin included.
    """
    h, w = centre.shape
    for i in range(h):
        for j in range(w):
            total = np.int64(0)
            for k in nearest:
                total += phases[places[k, 0], i + places[k, 1], j + places[k, 2]]
            deviation = np.int64(spread)
            for k in range(spread):
                deviation += abs(4 * np.int64(phases[places[k, 0], i + places[k, 1], j + places[k, 2]]) - total)
            low, high = 0, thresholds.size
            while low < high:  # the number of thresholds that are reached
                middle = (low + high) >> 1
                if thresholds[middle] <= deviation:
                    low = middle + 1
                else:
                    high = middle
            centre[i, j], unit[i, j] = total, max(low - 1, 0)


@compiled
def scale_differences(
    phases: Array,
    places: Array,
    centre: Array,
    unit: Array,
    reciprocals: Array,
    reciprocal_bits: int,
    limit: int,
    first: int,
    rows: int,
    inputs: Array,
) -> None:
    """Inputs of rows first .. first + rows of the cells, within +-limit: float64 (n, rows * w), written.

    What is a constant elsewhere comes as an argument: machine code kept on disk knows of changes in this file only.
    """
    w = centre.shape[1]
    for k in range(places.shape[0]):
        phase, top, left = places[k, 0], places[k, 1], places[k, 2]
        for i in range(rows):
            row = first + i
            for j in range(w):
                d = 4 * np.int64(phases[phase, row + top, j + left]) - centre[row, j]
                d = (d * reciprocals[unit[row, j]] + (1 << (reciprocal_bits - 1))) >> reciprocal_bits
                inputs[k, i * w + j] = min(max(d, -limit), limit)


@dataclass(frozen=True, eq=False)
class View:
    """One plane around the cells of a pass."""

    phases: Array  # int32 (4, h + 2 MARGIN, w + 2 MARGIN), those that are known
    places: Array  # int64 (n, 3)
    centre: Array  # int64 (h, w)
    unit: Array  # int64 (h, w)

    @classmethod
    def of(
        cls,
        x: Array,
        sites: tuple[Offset, ...],
        phase: int,
        offsets: tuple[Offset, ...],
        nearest: tuple[int, ...],
        spread: int,
    ) -> View:
        """x: int32 (H, W), the plane at the scale; sites: its phases that are known."""
        first = torch.from_numpy(np.ascontiguousarray(x[::2, ::2]))[None]
        h, w = first.shape[-2:]
        phases = np.zeros((4, h + 2 * MARGIN, w + 2 * MARGIN), np.int32)
        for a, b in sites:
            part = filled(torch.from_numpy(np.ascontiguousarray(x[a::2, b::2]))[None], first)[0].numpy()
            phases[2 * a + b] = np.pad(part, MARGIN, mode="edge")
        (py, px), places = PHASES[phase], []
        for y, z in offsets:
            (i, a), (j, b) = divmod(py + y, 2), divmod(px + z, 2)
            places.append((2 * a + b, MARGIN + i, MARGIN + j))
        view = cls(phases, np.array(places, np.int64), np.empty((h, w), np.int64), np.empty((h, w), np.int64))
        thresholds = unit_table(spread)[0].numpy().astype(np.int64)
        measure(phases, view.places, np.array(nearest, np.int64), spread, thresholds, view.centre, view.unit)
        return view

    def inputs(self, first: int, rows: int) -> Array:
        """Scaled differences: float64 (n, rows * w)."""
        out = np.empty((len(self.places), rows * self.centre.shape[1]))
        scale_differences(
            self.phases,
            self.places,
            self.centre,
            self.unit,
            TABLES[1],
            RECIPROCAL_BITS,
            INPUT_LIMIT << INPUT_BITS,
            first,
            rows,
            out,
        )
        return out

    def wide(self, side: int) -> Array:
        """`wide_input` of the cells: (h, w) float64."""
        h, w = self.unit.shape
        unit = torch.from_numpy(self.unit).flatten()
        return wide_input(unit, side, torch.zeros((), dtype=torch.float64), (h, w)).view(h, w).numpy()


def _tables() -> tuple[Array, Array]:
    """Units and reciprocals: int64."""
    _, units, reciprocals = unit_table(1)
    return units.numpy().astype(np.int64), reciprocals.numpy().astype(np.int64)


TABLES = _tables()


# --------------------------------------------------------------------------- the network


class ExactPassNetwork:
    """`PassNetwork` on integers."""

    def __init__(self, network: PassNetwork) -> None:
        self.layers = [
            (to_grid(layer.weight.cpu(), WEIGHT_BITS, WEIGHT_LIMIT), accumulate_bias(layer.bias.cpu())[:, None])
            for layer in network.dense
        ]
        self.linear = to_grid(network.linear.weight.cpu(), WEIGHT_BITS, WEIGHT_LIMIT)

    def __call__(self, x: Tensor) -> tuple[Array, Array]:
        """Inputs (n, N) float64 to outputs and linear predictions of the means, accumulators."""
        y = x
        for k, (weight, bias) in enumerate(self.layers):
            y = torch.addmm(bias, weight, y)
            if k < len(self.layers) - 1:
                y = to_activation(y)
        return y.numpy(), (self.linear @ x).numpy()


class ExactLossless:
    """Codes whole pictures with a network's weights, which are read once; build a new object after changing them."""

    def __init__(self, model: Lossless) -> None:
        self.config = model.config
        tiers = range(self.config.tiers)
        self.luma, self.chroma = (
            [[ExactPassNetwork(of(tier, phase)) for phase in range(3)] for tier in tiers]
            for of in (model.luma_pass, model.chroma_pass)
        )

    @torch.no_grad()
    def encode(self, y: Array, uv: Array, bits: int, *, rgb: bool) -> MixtureEncoder:
        """Luma (H, W) and chroma (2, ., .), whole numbers from 0 on; `finish()` of what comes back gives the bytes."""
        coder = MixtureEncoder()
        self._run(coder, y.astype(np.int32), uv.astype(np.int32), bits, rgb)
        return coder

    @torch.no_grad()
    def decode(self, payload: bytes, height: int, width: int, bits: int, *, rgb: bool) -> tuple[Array, Array]:
        """The planes, int32. Raises CorruptBitstreamError for a payload that ends before its samples."""
        y = np.zeros((height, width), np.int32)
        uv = np.zeros((2, height, width) if rgb else (2, -(-height // 2), -(-width // 2)), np.int32)
        self._run(MixtureDecoder(payload), y, uv, bits, rgb)
        return y, uv

    def _run(self, coder: SampleCoder, y: Array, uv: Array, bits: int, rgb: bool) -> None:
        """All passes; a decoder writes the planes."""
        levels = 1 << bits
        self._plain(coder, y[None], levels)
        for scale in reversed(range(self.config.scales)):
            x = y[:: 2**scale, :: 2**scale]
            for phase in range(3):
                self._luma_pass(coder, x, scale, phase, levels)
        guide = y * 4 if rgb else _sums(y)
        both = chroma_levels(bits, rgb=rgb)
        self._plain(coder, uv, both)
        for scale in reversed(range(self.config.scales)):
            grid = (..., slice(None, None, 2**scale), slice(None, None, 2**scale))
            for phase in range(3):
                self._chroma_pass(coder, uv[grid], guide[grid], scale, phase, both, 4 * levels)

    def _plain(self, coder: SampleCoder, planes: Array, levels: int) -> None:
        step = 2**self.config.scales
        x = planes[:, ::step, ::step]
        if isinstance(coder, MixtureEncoder):
            coder.put_plain(x, levels)
        else:
            x[:] = coder.get_plain(x.size, levels).reshape(x.shape)

    def _luma_pass(self, coder: SampleCoder, x: Array, scale: int, phase: int, levels: int) -> None:
        site = PHASES[phase]
        target = x[site[0] :: 2, site[1] :: 2]
        if not target.size:
            return
        view = View.of(x, KNOWN[phase], phase, neighbours(phase, LUMA_REACH[phase]), (0, 1, 2, 3), SPREAD[phase])
        wide = [view.wide(side) for side in (4, 8)]
        network = self.luma[self._tier(scale)][phase]
        for rows in bands(target.shape):
            parts = [view.inputs(rows.start, rows.stop - rows.start), *self._more([view], [levels], wide, rows)]
            self._code(coder, target[None], rows, [view], network(torch.from_numpy(np.concatenate(parts))), levels)

    def _chroma_pass(
        self, coder: SampleCoder, uv: Array, guide: Array, scale: int, phase: int, levels: int, guide_levels: int
    ) -> None:
        site = PHASES[phase]
        target = uv[:, site[0] :: 2, site[1] :: 2]
        if not target.size:
            return
        offsets = neighbours(phase, CHROMA_REACH[phase])
        views = [View.of(p, KNOWN[phase], phase, offsets, (0, 1, 2, 3), SPREAD[phase]) for p in uv]
        nearest = tuple(GUIDE.index(o) for o in offsets[:4])
        every = ((0, 0), (0, 1), (1, 0), (1, 1))
        views.append(View.of(guide, every, phase, GUIDE, nearest, len(GUIDE)))
        wide = [view.wide(8) for view in views[:2]]
        network = self.chroma[self._tier(scale)][phase]
        kind = 2.0**INPUT_BITS if levels % 2 else 0.0
        for rows in bands(target.shape[1:]):
            parts = [view.inputs(rows.start, rows.stop - rows.start) for view in views]
            parts += self._more(views, [levels, levels, guide_levels], wide, rows)
            parts.append(np.full_like(parts[-1][:1], kind))
            outputs = network(torch.from_numpy(np.concatenate(parts)))
            self._code(coder, target, rows, views[:2], outputs, levels)

    def _tier(self, scale: int) -> int:
        return min(scale, self.config.tiers - 1)

    @staticmethod
    def _more(views: list[View], levels: list[int], wide: list[Array], rows: slice) -> list[Array]:
        """Inputs besides the differences, each (1, N)."""
        like = torch.zeros((), dtype=torch.float64)
        units = [unit_input(torch.from_numpy(v.unit[rows]), like) for v in views]
        centres = [
            level_input(torch.from_numpy(v.centre[rows]).double(), n) for v, n in zip(views, levels, strict=True)
        ]
        return [x.numpy().reshape(1, -1) for x in (*units, *centres)] + [x[rows].reshape(1, -1) for x in wide]

    @staticmethod
    def _code(
        coder: SampleCoder, target: Array, rows: slice, views: list[View], outputs: tuple[Array, Array], levels: int
    ) -> None:
        """Code the samples of a band of cells; where odd sizes leave a phase short, its last cells have none."""
        out, linear = outputs
        band = target[:, rows]
        h, w = band.shape[1:]
        cells = rows.stop - rows.start, views[0].centre.shape[1]

        def live(a: Array) -> Array:
            return np.ascontiguousarray(a.reshape(len(a), *cells)[:, :h, :w].reshape(len(a), -1))

        centre, unit = (np.stack([getattr(v, name)[rows] for v in views]) for name in ("centre", "unit"))
        flat = np.ascontiguousarray(band.reshape(len(band), -1))
        coded = coder.code(flat, Mixtures(live(out), live(linear), live(centre), live(unit), levels, TABLES))
        band[:] = coded.reshape(band.shape)


def bands(shape: tuple[int, ...]) -> list[slice]:
    """Rows of a pass that go through the network together."""
    step = max(1, BAND // shape[1])
    return [slice(i, min(i + step, shape[0])) for i in range(0, shape[0], step)]


def _sums(y: Array) -> Array:
    """Sums of 2x2 luma samples, edges repeated."""
    y = np.pad(y, ((0, y.shape[0] % 2), (0, y.shape[1] % 2)), mode="edge")
    return y[::2, ::2] + y[1::2, ::2] + y[::2, 1::2] + y[1::2, 1::2]
