"""The network of the lossless mode: distributions of samples, coarse to fine.

A plane is subsampled 2x2, again and again; nothing is averaged, so every sample is coded once. Going down from one
scale to the next, a quarter of the samples is known and three passes code the other phases of each 2x2 cell:

    A B    A  known from the scale above                   D  sees A            (diagonal neighbours)
    C D                                                    B  sees A, D         (a quincunx)
                                                           C  sees A, D, B      (all eight neighbours)

The luma plane comes first, then the two chroma planes together: they see the whole luma plane, and the second one the
sample of the first at the same place. 4:2:0 planes see the sums of 2x2 luma samples. So the number of passes is fixed,
and each works on all its samples at once.

A pass is a small network of one sample: the known samples around, less the mean of the nearest four, in units of
their own mean deviation, to the parameters of a mixture of logistic distributions, in the same units. A picture twice
as contrasty, or of two more bits, is the same picture to it. Shapes stand at line ends, with

    B   pictures       h, w    cells of a pass: half the size of its scale, rounded up
    N   = B * h * w    samples of a pass

Everything that chooses a distribution is integer arithmetic when coding (`vidcodec.families.lossless.exact`), the means
included; what is written here serves both, in float32 for training, in float64 for coding.

Sources: multi-scale progressive order, Zhang et al. 2021 (arXiv 2108.10551; its layer tables were not at hand, the
layout here is ours); mixtures of logistics, Salimans et al. 2017 (arXiv 1701.05517); dependence of one colour on the
one before through a coefficient of the mean, the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcodec.entropy.logistics import (
    FLOOR_MASS,
    INPUT_BITS,
    INPUT_LIMIT,
    MAX_SCALE,
    MIN_SCALE,
    MIN_UNIT,
    PRECISION,
    RECIPROCAL_BITS,
    UNIT_BITS,
    UNIT_LIMIT,
    UNIT_STEPS,
    root8,
)
from vidcodec.families.lossless.planes import PlaneBatch, chroma_levels, guide_of

Offset = tuple[int, int]

PHASES: tuple[Offset, ...] = ((1, 1), (0, 1), (1, 0))  # D, B, C in coding order: (row, column) in the cell
KNOWN: tuple[tuple[Offset, ...], ...] = (((0, 0),), ((0, 0), (1, 1)), ((0, 0), (1, 1), (0, 1)))
# Squared distances of the furthest neighbours that the passes D, B, C see.
LUMA_REACH = (26, 17, 13)
CHROMA_REACH = (18, 13, 10)
SPREAD = (12, 12, 16)  # nearest neighbours whose mean deviation is the unit
GUIDE: tuple[Offset, ...] = tuple((y, x) for y in range(-2, 3) for x in range(-2, 3) if y * y + x * x in (0, 1, 2, 4))
MARGIN = 3

FLOOR = FLOOR_MASS / 2**PRECISION  # share of the uniform distribution in every mixture


@dataclass(frozen=True)
class LosslessConfig:
    """Shape of a `Lossless` network; stored in every checkpoint.

    luma, chroma: widths of the hidden layers of a pass. mixtures: logistics in a mixture. scales: how often a plane is
    subsampled; what is left is stored plainly. tiers: sets of passes, one for each of the finest scales, the last one
    for all others.
    """

    luma: tuple[int, ...] = (40, 40, 40)
    chroma: tuple[int, ...] = (36, 36)
    mixtures: int = 3
    scales: int = 6
    tiers: int = 3

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> LosslessConfig:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**fields)


def order_digest() -> bytes:
    """8 bytes that name the order of the passes and what each of them sees."""
    order = (PHASES, KNOWN, LUMA_REACH, CHROMA_REACH, SPREAD, GUIDE, MARGIN)
    return hashlib.sha256(repr(order).encode()).digest()[:8]


# ---------------------------------------------------------------------- what a pass sees


@cache
def neighbours(phase: int, reach: int) -> tuple[Offset, ...]:
    """Known samples around one of a pass, (rows, columns) away, the nearest first; the nearest four come first."""
    py, px = PHASES[phase]
    span = range(-5, 6)
    known = [
        (y, x) for y in span for x in span if y * y + x * x <= reach and ((py + y) % 2, (px + x) % 2) in KNOWN[phase]
    ]
    return tuple(sorted(known, key=lambda o: (o[0] ** 2 + o[1] ** 2, o)))


@cache
def unit_table(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a mean deviation over `count` neighbours: (thresholds, units, reciprocals), integers in float64.

    Unit j is 2^(j/8 - 2). The sum of deviations in quarters, plus count, reaches it from threshold j on: the least t
    with t^8 >= count^8 2^j. Units are in 2^-8, reciprocals take quarters to 2^-8 units, in 2^-14: exact integer roots.
    """
    js = range(UNIT_LIMIT + 1)
    thresholds = [root8(count**8 * 2**j - 1) + 1 for j in js]
    units = [root8(2 ** (j + 8 * (UNIT_BITS + MIN_UNIT))) for j in js]
    spare = UNIT_LIMIT // 8
    reciprocals = [root8(2 ** (8 * (RECIPROCAL_BITS + INPUT_BITS + spare) - j)) >> spare for j in js]
    return tuple(torch.tensor(t, dtype=torch.float64) for t in (thresholds, units, reciprocals))  # type: ignore[return-value]


class Seen(NamedTuple):
    """Neighbours of N samples as a pass's network takes them; whole numbers in a float type."""

    inputs: Tensor  # (n, N): differences to the centre, in 2^-8 units, within +-8 units
    centre: Tensor  # (N,): sum of the nearest four, that is in quarters of a code value
    unit: Tensor  # (N,) int64: 0 .. UNIT_LIMIT


def see(samples: Tensor, nearest: tuple[int, ...], spread: int) -> Seen:
    """samples (n, N): known samples around. The unit is the mean deviation of the first `spread`."""
    thresholds, _, reciprocals = (t.to(samples.device) for t in unit_table(spread))
    centre = samples[list(nearest)].sum(0)
    difference = samples * 4 - centre
    deviation = difference[:spread].abs().sum(0) + spread
    unit = (torch.bucketize(deviation, thresholds.to(samples.dtype), right=True) - 1).clamp(0, UNIT_LIMIT)
    scaled = difference * reciprocals.to(samples.dtype)[unit]
    scaled = torch.floor(scaled * 2.0**-RECIPROCAL_BITS + 0.5)
    limit = INPUT_LIMIT << INPUT_BITS
    return Seen(scaled.clamp_(-limit, limit), centre, unit)


def unit_input(unit: Tensor, like: Tensor) -> Tensor:
    """log2 of the unit as an input: halves of an octave over eight, whole numbers in 2^-8."""
    return (unit * 16 - 512).to(like.dtype)


def wide_input(unit: Tensor, side: int, like: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of log2 of the unit over side x side cells around, less its own, as an input; side a power of two."""
    x = unit.view(-1, 1, *size).to(like.dtype)
    around = F.pad(x, (side // 2 - 1, side // 2, side // 2 - 1, side // 2), mode="replicate")
    return torch.floor((F.avg_pool2d(around, side, 1) - x) * 16).flatten()


def level_input(centre: Tensor, levels: int) -> Tensor:
    """Where in the range of sample values the centre lies, -1 .. 1, whole numbers in 2^-8."""
    bits = (levels - 1).bit_length()
    return torch.floor(centre * 2.0 ** (INPUT_BITS - 1 - bits)) - 2**INPUT_BITS


def filled(phase: Tensor, first: Tensor) -> Tensor:
    """A phase (B, ., .) as large as phase A, `first`: the last row or column repeated, or A's where there is none."""
    h, w = first.shape[-2:]
    if phase.shape[-2] and phase.shape[-2] < h:
        phase = torch.cat([phase, phase[..., -1:, :]], -2)
    if phase.shape[-1] and phase.shape[-1] < w:
        phase = torch.cat([phase, phase[..., -1:]], -1)
    return phase if phase.shape == first.shape else first


def to_cells(x: Tensor) -> dict[Offset, Tensor]:
    """All four phases of a scale (B, H, W), filled."""
    first = x[:, ::2, ::2]
    return {(i, j): filled(x[:, i::2, j::2], first) for i in (0, 1) for j in (0, 1)}


def live(x: Tensor, scale: Tensor, site: Offset) -> Tensor:
    """Of values of all cells (N,), those of a phase's samples in a scale (B, H, W); flat."""
    b, height, width = scale.shape
    h, w = (height - site[0] + 1) // 2, (width - site[1] + 1) // 2
    return x.view(b, (height + 1) // 2, (width + 1) // 2)[:, :h, :w].flatten()


def padded(cells: dict[Offset, Tensor]) -> dict[Offset, Tensor]:
    """Phases with their edges repeated by MARGIN."""
    return {k: F.pad(v[:, None], (MARGIN,) * 4, mode="replicate")[:, 0] for k, v in cells.items()}


def size_of(cells: dict[Offset, Tensor]) -> tuple[int, int]:
    """Cells of padded phases: (h, w)."""
    h, w = cells[0, 0].shape[-2:]
    return h - 2 * MARGIN, w - 2 * MARGIN


def gather(cells: dict[Offset, Tensor], phase: int, offsets: tuple[Offset, ...]) -> Tensor:
    """Samples at the offsets from each sample of a phase: (n, N), from padded phases (B, h + 6, w + 6)."""
    (py, px), views = PHASES[phase], []
    h, w = size_of(cells)
    for y, x in offsets:
        (i, a), (j, b) = divmod(py + y, 2), divmod(px + x, 2)
        views.append(cells[a, b][:, MARGIN + i : MARGIN + i + h, MARGIN + j : MARGIN + j + w])
    return torch.stack(views).flatten(1)


# --------------------------------------------------------------------------- the network


class PassNetwork(nn.Module):
    """1x1 layers with ReLU from inputs to outputs, beside linear predictions of the means."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int, means: int) -> None:
        super().__init__()
        sizes = (inputs, *widths, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.linear = nn.Linear(inputs, means, bias=False)
        *hidden, last = self.dense
        for k, layer in enumerate(hidden):
            nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5 * (1.0 if k else 0.5))
            nn.init.zeros_(layer.bias)
        nn.init.normal_(last.weight, std=0.02)
        nn.init.zeros_(self.linear.weight)

    @property
    def dense(self) -> list[nn.Linear]:
        """The layers beside the linear prediction."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (inputs, N) -> (outputs, N), (means, N)
        y = x
        for k, layer in enumerate(self.dense):
            y = torch.addmm(layer.bias[:, None], layer.weight, y)
            if k < len(self.layers) - 1:
                y = y.relu_()
        return y, self.linear.weight @ x

    @property
    def macs(self) -> int:
        """Multiplications a sample."""
        return sum(p.numel() for n, p in self.named_parameters() if n.endswith("weight"))


class Mixture(NamedTuple):
    """Parameters of K logistics for N samples."""

    logits: Tensor  # (K, N)
    means: Tensor  # (K, N), code values
    log_scales: Tensor  # (K, N), log2 of code values


def mixture_bits(values: Tensor, mixture: Mixture, levels: int) -> Tensor:
    """Bits of whole `values` (N,) in 0 .. levels - 1, as the coder charges them but for rounding: (N,)."""
    inverse = torch.exp2(-mixture.log_scales.clamp(MIN_SCALE, MAX_SCALE))
    x = (values - mixture.means) * inverse  # (K, N)
    half = 0.5 * inverse
    below = torch.where(values == 0, 0.0, torch.sigmoid(x - half))
    above = torch.where(values == levels - 1, 1.0, torch.sigmoid(x + half))
    p = (torch.softmax(mixture.logits, 0) * (above - below)).sum(0)
    return -torch.log2((1 - FLOOR) * p + FLOOR / levels)


class Lossless(nn.Module):
    """The networks of all passes; see the module's head."""

    def __init__(self, config: LosslessConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LosslessConfig()
        k, passes = c.mixtures, [f"{t}.{p}" for t in range(c.tiers) for p in range(3)]
        # Parameters that make the mixtures, for updates of nothing else.
        self.last_layer = tuple(
            f"{plane}.{p}.{layer}."
            for plane, widths in (("luma", c.luma), ("chroma", c.chroma))
            for p in passes
            for layer in (f"layers.{len(widths)}", "linear")
        )
        self.luma = nn.ModuleList(
            nn.ModuleList(PassNetwork(len(neighbours(p, LUMA_REACH[p])) + 4, c.luma, 3 * k, 1) for p in range(3))
            for _ in range(c.tiers)
        )
        # Both chroma planes' neighbours, luma's, three units and three levels, the kind of picture.
        self.chroma = nn.ModuleList(
            nn.ModuleList(
                PassNetwork(2 * len(neighbours(p, CHROMA_REACH[p])) + len(GUIDE) + 9, c.chroma, 6 * k + 2, 2)
                for p in range(3)
            )
            for _ in range(c.tiers)
        )
        start = torch.linspace(-2.0, 0.7, k)
        for m in self.modules():
            if isinstance(m, PassNetwork):
                bias = m.dense[-1].bias
                for plane in range(len(bias) // (3 * k)):
                    bias.data[3 * k * plane + 2 * k : 3 * k * (plane + 1)] = start

    def tier(self, scale: int) -> int:
        return min(scale, self.config.tiers - 1)

    @staticmethod
    def _network(nets: nn.ModuleList, tier: int, phase: int) -> PassNetwork:
        passes = nets[tier]
        assert isinstance(passes, nn.ModuleList)
        network = passes[phase]
        assert isinstance(network, PassNetwork)
        return network

    def luma_pass(self, scale: int, phase: int) -> PassNetwork:
        """The network of a luma pass."""
        return self._network(self.luma, self.tier(scale), phase)

    def chroma_pass(self, scale: int, phase: int) -> PassNetwork:
        """The network of a pass of both chroma planes."""
        return self._network(self.chroma, self.tier(scale), phase)

    def macs(self) -> dict[str, float]:
        """Multiplications a pixel, all scales together: of 4:2:0 and of 4:4:4 pictures."""

        scales = range(self.config.scales)
        luma, chroma = (
            sum(4.0 ** -(s + 1) * of(s, p).macs for s in scales for p in range(3))
            for of in (self.luma_pass, self.chroma_pass)
        )
        return {"4:2:0": luma + chroma / 4, "4:4:4": luma + chroma}

    # ------------------------------------------------------------------------ training

    def forward(self, planes: PlaneBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Bits of every sample of the three planes, each flat, without those that are stored plainly."""
        luma_levels, levels = 1 << planes.bits, chroma_levels(planes.bits, rgb=planes.rgb)
        guide = guide_of(planes.y, rgb=planes.rgb)
        return self.luma_bits(planes.y, luma_levels), *self.chroma_bits(planes.uv, guide, levels, 4 * luma_levels)

    def luma_bits(self, y: Tensor, levels: int) -> Tensor:
        """Bits of the samples of planes (B, H, W), whole numbers 0 .. levels - 1."""
        bits = []
        for scale in range(self.config.scales):
            x = y[:, :: 2**scale, :: 2**scale]
            cells = to_cells(x)
            seen = padded(cells)
            for phase, site in enumerate(PHASES):
                inputs, seen_y = luma_inputs(seen, phase, levels)
                out, linear = self.luma_pass(scale, phase)(inputs * 2.0**-INPUT_BITS)
                mixture = self.mixture(out, linear[0], seen_y)
                bits.append(live(mixture_bits(cells[site].flatten(), mixture, levels), x, site))
        return torch.cat(bits)

    def chroma_bits(self, uv: Tensor, guide: Tensor, levels: int, guide_levels: int) -> tuple[Tensor, Tensor]:
        """Bits of the samples of planes (B, 2, H, W): of the first and of the second.

        guide: what they see of the luma, (B, H, W), whole numbers 0 .. guide_levels - 1.
        """
        k3 = 3 * self.config.mixtures
        bits: tuple[list[Tensor], list[Tensor]] = [], []
        for scale in range(self.config.scales):
            grid = (slice(None), slice(None, None, 2**scale), slice(None, None, 2**scale))
            u, v, y = (to_cells(x[grid]) for x in (uv[:, 0], uv[:, 1], guide))
            seen_u, seen_v, seen_y = padded(u), padded(v), padded(y)
            for phase, site in enumerate(PHASES):
                inputs, at_u, at_v = chroma_inputs(seen_u, seen_v, seen_y, phase, levels, guide_levels)
                out, linear = self.chroma_pass(scale, phase)(inputs * 2.0**-INPUT_BITS)
                values = u[site].flatten(), v[site].flatten()
                # The second plane follows the first one's surprise, each in its own unit.
                surprise = (values[0] - at_u.centre / 4) * torch.exp2(-MIN_UNIT - at_u.unit / UNIT_STEPS)
                surprise = surprise.clamp(-INPUT_LIMIT, INPUT_LIMIT)
                first = self.mixture(out[:k3], linear[0], at_u)
                second = self.mixture(out[k3:-2], linear[1] + out[-2] * surprise, at_v)
                second = second._replace(log_scales=second.log_scales + out[-1] * surprise.abs())
                for plane, mixture in enumerate((first, second)):
                    bits[plane].append(live(mixture_bits(values[plane], mixture, levels), guide[grid], site))
        return torch.cat(bits[0]), torch.cat(bits[1])

    def mixture(self, out: Tensor, linear: Tensor, seen: Seen) -> Mixture:
        """Outputs (3K, N) and linear part of the means (N,), in units around the centre, to a mixture."""
        logits, means, scales = out.chunk(3)
        log_unit = seen.unit.to(out.dtype) / UNIT_STEPS + MIN_UNIT
        return Mixture(logits, seen.centre / 4 + (means + linear) * torch.exp2(log_unit), scales + log_unit)


def luma_inputs(cells: dict[Offset, Tensor], phase: int, levels: int) -> tuple[Tensor, Seen]:
    """Inputs (n, N) of a luma pass, from padded phases; whole numbers in 2^-8."""
    seen = see(gather(cells, phase, neighbours(phase, LUMA_REACH[phase])), (0, 1, 2, 3), SPREAD[phase])
    more = [unit_input(seen.unit, seen.inputs), level_input(seen.centre, levels)]
    more += [wide_input(seen.unit, side, seen.inputs, size_of(cells)) for side in (4, 8)]
    return torch.cat([seen.inputs, torch.stack(more)]), seen


def chroma_inputs(
    u: dict[Offset, Tensor],
    v: dict[Offset, Tensor],
    guide: dict[Offset, Tensor],
    phase: int,
    levels: int,
    guide_levels: int,
) -> tuple[Tensor, Seen, Seen]:
    """Inputs (n, N) of a chroma pass, from padded phases; whole numbers in 2^-8."""
    offsets = neighbours(phase, CHROMA_REACH[phase])
    nearest = tuple(GUIDE.index(o) for o in offsets[:4])
    at_u, at_v = (see(gather(x, phase, offsets), (0, 1, 2, 3), SPREAD[phase]) for x in (u, v))
    at_y = see(gather(guide, phase, GUIDE), nearest, len(GUIDE))
    more = [unit_input(s.unit, s.inputs) for s in (at_u, at_v, at_y)]
    more += [level_input(s.centre, n) for s, n in ((at_u, levels), (at_v, levels), (at_y, guide_levels))]
    more += [wide_input(s.unit, 8, s.inputs, size_of(u)) for s in (at_u, at_v)]
    kind = 2.0**INPUT_BITS if levels % 2 else 0.0  # signed differences of RGB have an odd number of values
    more.append(torch.full_like(more[0], kind))
    return torch.cat([at_u.inputs, at_v.inputs, at_y.inputs, torch.stack(more)]), at_u, at_v
