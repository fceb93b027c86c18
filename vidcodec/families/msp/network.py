"""The default network: a multi-scale progressive codec for YUV 4:2:0 pictures.

Reads top to bottom: configuration, building blocks, analysis and synthesis, the
hyperprior, the networks of the coarse-to-fine passes (`msp_passes` has their order), the
model. Shapes stand at line ends, with

    B   pictures                h, w    size of the luma plane / 16 (the latent grid)
    C   latent channels         P, S    channels of the mean and of the scale features
    K   rate levels

Sources: hyperprior, Minnen et al. 2018 (arXiv 1809.02736); coarse-to-fine passes over
2x2 subsampled latents and channel groups, after Zhang et al. 2022 (arXiv 2210.04112;
the paper's layer tables were not at hand, the layout here is ours); gain vectors,
Cui et al. 2021 (arXiv 2003.02012); residual symbols whose distribution depends on a
scale alone, as in JPEG AI, so that only the scale path has to be exact.

The network has two kinds of parameters behind its entropy model:

* the **mean path** is ordinary floating point. A last-bit difference there moves a
  pixel by at most one code value.
* the **scale path** (`HyperScale`, `PassScale`) sees integers only: the decoded z
  symbols and the magnitudes of earlier y symbols. Here it is written in floating point,
  for training; `vidcodec.entropy.exact` runs the same layers on integers, for coding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcodec.entropy.rates import CellCoder, rate_of_symbols, rounding, ste_round
from vidcodec.entropy.scales import MAX_INDEX, scale_to_index
from vidcodec.families.msp.passes import Cell, Pass, schedule
from vidcodec.rate import RateLevel, TradeOff

# The scale path keeps activations in [0, 128), so that 16 bits hold them exactly.
SCALE_CLIP = 127.996
# A unit of the last scale layer is this many indices of the scale table.
INDEX_GAIN = 8.0


@dataclass(frozen=True)
class MspConfig:
    """Shape of an `Msp` network; stored in every checkpoint.

    The defaults are the profile `base`; `PROFILES` has the others.

    widths: channels of analysis and synthesis at 1/8 and 1/16 of the luma size (of the first edition's: 1/4 as well).
    blocks: residual blocks at each of these; analysis_blocks: those of the analysis, where they are others.
    latent: channels of y; 384 is as many as a 16x16 block has samples, so that no rate is
    out of reach (144 stopped at 38 to 42 dB).
    pass_known, scale_known: channels the known latents are reduced to inside a pass.
    scales: coarse-to-fine scales; 0 is the plain hyperprior, each scale adds 3 passes.
    lambda_range: the ends of the rate range, for `Msp.rate_lambda`.
    """

    widths: tuple[int, ...] = (160, 256)
    blocks: tuple[int, ...] = (4, 2)
    analysis_blocks: tuple[int, ...] | None = (4, 4)
    latent: int = 384
    hyper: int = 64
    mean_features: int = 96
    scale_features: int = 48
    pass_width: int = 96
    pass_known: int = 64
    scale_width: int = 48
    scale_known: int = 48
    scales: int = 2
    levels: int = 9
    lambda_range: tuple[float, float] = (2e-4, 1.185)

    def __post_init__(self) -> None:
        if self.latent % 3:
            raise ValueError(f"latent must be a multiple of 3 (three channel groups), not {self.latent}")

    def to_dict(self) -> dict[str, Any]:
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in fields.items() if v is not None}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> MspConfig:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**{"analysis_blocks": None, **fields})

    @property
    def encoder_blocks(self) -> tuple[int, ...]:
        """Residual blocks of the analysis."""
        return self.analysis_blocks or self.blocks

    @property
    def first_edition(self) -> bool:
        """Whether stages at 1/4 of the luma size are asked for."""
        return len(self.widths) == 3


# Multiplications to decode: about 6, 14 and 35 thousand a pixel (scripts/measure_complexity.py).
PROFILES = {
    "small": MspConfig(
        widths=(96, 160),
        blocks=(3, 2),
        analysis_blocks=(3, 3),
        hyper=48,
        mean_features=64,
        scale_features=32,
        pass_width=64,
        pass_known=32,
        scale_width=32,
        scale_known=32,
    ),
    "base": MspConfig(),
    "large": MspConfig(
        widths=(256, 384),
        blocks=(5, 4),
        analysis_blocks=(6, 6),
        hyper=96,
        mean_features=160,
        scale_features=64,
        pass_width=160,
        pass_known=96,
        scale_width=64,
        scale_known=64,
    ),
}


class MspOutput(NamedTuple):
    """What a training step needs; rates are in bits per picture."""

    planes: Tensor  # (B, 6, H/2, W/2), not clamped
    y_bits: Tensor  # (B,)
    z_bits: Tensor  # (B,)


# --------------------------------------------------------------------------- blocks


def leaky(x: Tensor) -> Tensor:
    """The activation, of a layer's output that nothing else uses: in its place unless a gradient will want it."""
    return F.leaky_relu(x, 0.1, inplace=not torch.is_grad_enabled())


class Block(nn.Module):
    """1x1, depthwise 3x3, 1x1, then a 1x1 pair; both halves residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.mix1 = nn.Conv2d(width, width, 1)
        self.mix2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, ., .) -> same
        x = x + self.conv2(self.depth(leaky(self.conv1(x))))
        return x + self.mix2(leaky(self.mix1(x)))


def init_weights(module: nn.Module) -> None:
    """Variance-preserving start; residual branches small, pass heads at zero."""
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=fan_in**-0.5)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, Block):
        module.conv1.weight.data.mul_(1.4)
        module.mix1.weight.data.mul_(1.4)
        module.conv2.weight.data.mul_(0.2)
        module.mix2.weight.data.mul_(0.2)
    elif isinstance(module, (Analysis, Synthesis)):
        transform = block_transform(module.linear.weight.shape[0 if isinstance(module, Analysis) else 1])
        matrix = transform if isinstance(module, Analysis) else transform.T
        module.linear.weight.data.copy_(matrix[:, :, None, None])
        module.head.weight.data.mul_(0.1)
    elif isinstance(module, (PassMean, PassScale, HyperAnalysis)):
        module.head.weight.data.mul_(0.1)
        if isinstance(module, PassMean) and module.linear is not None:
            nn.init.zeros_(module.linear.weight)


class LevelVectors(nn.Module):
    """One vector per rate level, linearly interpolated between levels."""

    def __init__(self, init: Tensor) -> None:  # (K, width)
        super().__init__()
        self.table = nn.Parameter(init.clone())

    def forward(self, level: Tensor) -> Tensor:  # (B,) in [0, K-1] -> (B, width, 1, 1)
        low = level.floor().clamp(0, self.table.shape[0] - 2).long()
        t = (level - low)[:, None]
        return torch.lerp(self.table[low], self.table[low + 1], t)[:, :, None, None]


class Stage(nn.Module):
    """A per-level, per-channel gain, then residual blocks."""

    def __init__(self, width: int, blocks: int, levels: int) -> None:
        super().__init__()
        self.gain = LevelVectors(torch.zeros(levels, width))
        self.blocks = nn.Sequential(*[Block(width) for _ in range(blocks)])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # (B, width, ., .) -> same
        return self.blocks(x * torch.exp(self.gain(level)).to(x.dtype))


def full_precision(conv: nn.Module, x: Tensor) -> Tensor:
    """Run one layer in float32 even under autocast: outputs whose last bits matter."""
    with torch.autocast(x.device.type, enabled=False):
        return conv(x.float())


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 layer in float32 even under autocast, as the matrix product it is."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float().permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


# ----------------------------------------------------------- analysis and synthesis


def block_transform(channels: int) -> Tensor:
    """Orthonormal rows (channels, 384): the lowest DCT frequencies of a 16x16 block.

    A block is 256 luma and 2 x 64 chroma samples, ordered as `pixel_unshuffle(planes, 8)`.
    Two rows in three are luma. Where networks start from; see `Analysis`.
    """

    def lowest(size: int, count: int) -> Tensor:  # (count, size, size)
        n = torch.arange(size, dtype=torch.float64)
        basis = torch.cos(torch.pi * (2 * n[None] + 1) * n[:, None] / (2 * size)) * math.sqrt(2 / size)
        basis[0] /= math.sqrt(2)
        order = sorted(((u, v) for u in range(size) for v in range(size)), key=lambda f: (f[0] + f[1], f))
        return torch.stack([torch.outer(basis[u], basis[v]) for u, v in order[:count]])

    chroma = min(64, channels // 6)
    luma = channels - 2 * chroma
    out = torch.zeros(channels, 6, 8, 8, dtype=torch.float64)
    out[:luma, :4] = F.pixel_unshuffle(lowest(16, luma)[:, None], 2)
    out[luma : luma + chroma, 4] = lowest(8, chroma)
    out[luma + chroma :, 5] = lowest(8, chroma)
    # Mix the order so that each of the three channel groups holds all kinds.
    order = torch.cat([torch.arange(g, channels, 3) for g in range(3)])
    return out.flatten(1).float()[order]


class Analysis(nn.Module):
    """Picture planes to latents. Never sent: the encoder adapts it freely.

    A network beside a linear block transform that starts as a DCT: training begins at a
    working transform codec instead of at noise, and the high rates stay easy.
    """

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        w8, w16 = c.widths
        self.stem = nn.Conv2d(96, w8, 1)
        self.stage8 = Stage(w8, c.encoder_blocks[0], c.levels)
        self.down16 = nn.Conv2d(w8, w16, 2, stride=2)
        self.stage16 = Stage(w16, c.encoder_blocks[1], c.levels)
        self.head = nn.Conv2d(w16, c.latent, 1)
        self.linear = nn.Conv2d(384, c.latent, 1)

    def forward(self, planes: Tensor, level: Tensor) -> Tensor:  # (B, 6, 8h, 8w)
        blocks = F.pixel_unshuffle(planes, 4)  # (B, 96, 2h, 2w)
        x = self.stage8(self.stem(blocks), level)  # (B, w8, 2h, 2w)
        x = self.stage16(self.down16(x), level)  # (B, w16, h, w)
        linear = pointwise(self.linear, F.pixel_unshuffle(planes, 8))
        return pointwise(self.head, x) + linear  # (B, C, h, w)


class Synthesis(nn.Module):
    """Latents to picture planes: a network beside the inverse block transform."""

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        w8, w16 = c.widths
        self.stem = nn.Conv2d(c.latent, w16, 1)
        self.stage16 = Stage(w16, c.blocks[1], c.levels)
        self.up8 = nn.Conv2d(w16, 4 * w8, 1)
        self.stage8 = Stage(w8, c.blocks[0], c.levels)
        self.head = nn.Conv2d(w8, 96, 1)
        self.linear = nn.Conv2d(c.latent, 384, 1)

    def forward(self, y: Tensor, level: Tensor) -> Tensor:  # (B, C, h, w)
        x = self.stage16(self.stem(y), level)  # (B, w16, h, w)
        x = self.stage8(F.pixel_shuffle(self.up8(x), 2), level)  # (B, w8, 2h, 2w)
        x = F.pixel_shuffle(pointwise(self.head, x), 4)  # (B, 6, 8h, 8w)
        return x + F.pixel_shuffle(pointwise(self.linear, y), 8)


# ------------------------------------------------------------------------ hyperprior


class HyperAnalysis(nn.Module):
    """Scaled latents to z. The grid is padded to a multiple of 4 by replication.

    It sees asinh(y): amplitudes differ a thousandfold over the rate range, and what z has
    to tell is mostly the logarithm of a scale.
    """

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        width = c.mean_features
        self.stem = nn.Conv2d(c.latent, width, 3, padding=1)
        self.down1 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.head = nn.Conv2d(width, c.hyper, 1)

    def forward(self, y: Tensor) -> Tensor:  # (B, C, h, w)
        h, w = y.shape[-2:]
        y = F.pad(y, (0, -w % 4, 0, -h % 4), mode="replicate")
        x = leaky(self.stem(torch.asinh(y)))
        x = leaky(self.down1(x))
        x = leaky(self.down2(x))
        return full_precision(self.head, x)  # (B, Z, ceil(h/4), ceil(w/4))


class HyperMean(nn.Module):
    """z symbols to the features of the mean path."""

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        width = c.mean_features
        self.stem = nn.Conv2d(c.hyper, width, 3, padding=1)
        self.up1 = nn.Conv2d(width, 4 * width, 1)
        self.mid = nn.Conv2d(width, width, 3, padding=1)
        self.up2 = nn.Conv2d(width, 4 * width, 1)
        self.bias = LevelVectors(torch.zeros(c.levels, width))

    def forward(self, z: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:  # (B, Z, h/4, w/4)
        x = leaky(self.stem(z))
        x = leaky(F.pixel_shuffle(self.up1(x), 2))
        x = leaky(self.mid(x))
        x = F.pixel_shuffle(self.up2(x), 2)
        x = leaky(x + self.bias(level).to(x.dtype))
        return x[..., : size[0], : size[1]]  # (B, P, h, w)


def clipped_relu(x: Tensor) -> Tensor:
    return x.clamp(0.0, SCALE_CLIP)


class HyperScale(nn.Module):
    """z symbols to the features of the scale path. Integer arithmetic when coding."""

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        width = c.scale_features
        self.stem = nn.Conv2d(c.hyper, width, 3, padding=1)
        self.up1 = nn.Conv2d(width, 4 * width, 1)
        self.up2 = nn.Conv2d(width, 4 * width, 1)
        self.bias = LevelVectors(torch.zeros(c.levels, width))

    def forward(self, z: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:  # (B, Z, h/4, w/4)
        x = clipped_relu(self.stem(z))
        x = clipped_relu(F.pixel_shuffle(self.up1(x), 2))
        x = F.pixel_shuffle(self.up2(x), 2) + self.bias(level).to(x.dtype)
        return clipped_relu(x)[..., : size[0], : size[1]]  # (B, S, h, w)


# ---------------------------------------------------------------------------- passes


def head_at(head: nn.Conv2d, x: Tensor, cell: Cell) -> Tensor:
    """The head's output where the cell is, and nowhere else; float32 even under autocast."""
    assert head.bias is not None
    part = x[(..., *cell.phase)].permute(0, 2, 3, 1)  # no row or column where a small grid lacks the phase
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(part.float(), head.weight[cell.group].flatten(1), head.bias[cell.group]).permute(0, 3, 1, 2)


class PassMean(nn.Module):
    """The means of one pass, from hyperprior features and the latents known so far.

    A network beside a linear prediction of every channel from its own neighbours, in full
    precision: DC values run into the hundreds at high rates, and smooth pictures need them exact.
    """

    def __init__(self, c: MspConfig, coded: Pass) -> None:
        super().__init__()
        self.cells = coded.cells(c.latent)
        width, coarsest = c.pass_width, not coded.phases
        self.reduce = None if coarsest else nn.Conv2d(c.latent, c.pass_known, 1)
        self.known = None if coarsest else nn.Conv2d(c.pass_known, width, 3, padding=1)
        self.linear = None if coarsest else nn.Conv2d(c.latent, c.latent, 3, padding=1, groups=c.latent)
        self.stem = nn.Conv2d(c.mean_features, width, 1)
        self.mid = nn.Conv2d(width, width, 1 if coarsest else 3, padding=0 if coarsest else 1)
        self.head = nn.Conv2d(width, c.latent, 1)

    def forward(self, features: Tensor, known: Tensor) -> list[Tensor]:  # (B, P, ., .), (B, C, ., .)
        x = self.stem(features)
        if self.reduce is not None and self.known is not None:
            x = x + self.known(self.reduce(known))
        x = leaky(x)
        x = x + leaky(self.mid(x))
        means = [head_at(self.head, x, cell) for cell in self.cells]  # each (B, C or C/3, ., .)
        if self.linear is None:
            return means
        linear = full_precision(self.linear, known)
        parts = (linear[(slice(None), cell.group, *cell.phase)] for cell in self.cells)
        return [mean + part for mean, part in zip(means, parts, strict=True)]


class PassScale(nn.Module):
    """The scale indices of one pass, from integers only, on top of each channel's own.

    Integer arithmetic when coding.
    """

    def __init__(self, c: MspConfig, coded: Pass) -> None:
        super().__init__()
        self.cells = coded.cells(c.latent)
        width, coarsest = c.scale_width, not coded.phases
        self.reduce = None if coarsest else nn.Conv2d(c.latent, c.scale_known, 1)
        self.known = None if coarsest else nn.Conv2d(c.scale_known, width, 3, padding=1)
        self.stem = nn.Conv2d(c.scale_features, width, 1)
        self.mid = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, c.latent, 1)

    def forward(self, features: Tensor, magnitudes: Tensor, base: Tensor) -> list[Tensor]:
        """features (B, S, ., .), magnitudes (B, C, ., .), base (B, C, 1, 1)."""
        x = self.stem(features)
        if self.reduce is not None and self.known is not None:
            x = x + self.known(clipped_relu(self.reduce(magnitudes)))
        x = clipped_relu(x)
        x = clipped_relu(self.mid(x))
        # In index units, each (B, C or C/3, ., .)
        return [(head_at(self.head, x, cell) + base[:, cell.group]) * INDEX_GAIN for cell in self.cells]


# ----------------------------------------------------------------------------- model


def magnitude(q: Tensor) -> Tensor:
    """log2(1 + |q|): what the scale path sees of a decoded y symbol (an integer table there)."""
    return torch.log2(1.0 + q.abs())


class Msp(nn.Module):
    """The codec network; see the module's head for its parts.

    `level` is the rate level in [0, levels - 1], one per picture, real-valued.
    """

    encoder_only = ("analysis.", "hyper_analysis.", "gain.")  # never sent
    last_layer = ("synthesis.head.", "synthesis.linear.")  # what makes the output, for updates of nothing else

    def __init__(self, config: MspConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MspConfig()
        self.schedule = schedule(c.scales)
        if c.first_edition:
            from vidcodec.families.msp.first_edition import FirstAnalysis, FirstSynthesis

            self.analysis, self.synthesis = FirstAnalysis(c), FirstSynthesis(c)
        else:
            self.analysis, self.synthesis = Analysis(c), Synthesis(c)  # type: ignore[assignment]
        self.hyper_analysis = HyperAnalysis(c)
        self.hyper_mean = HyperMean(c)
        self.hyper_scale = HyperScale(c)
        self.pass_mean = nn.ModuleList(PassMean(c, coded) for coded in self.schedule)
        self.pass_scale = nn.ModuleList(PassScale(c, coded) for coded in self.schedule)
        # High-resolution theory for an orthonormal transform: step = 1 / (67 sqrt(lambda)).
        log_gain = 4.2 + 0.5 * torch.linspace(math.log(c.lambda_range[0]), math.log(c.lambda_range[1]), c.levels)
        start = log_gain[:, None].expand(c.levels, c.latent)
        self.gain = LevelVectors(start)
        self.inverse_gain = LevelVectors(-start)
        # In INDEX_GAIN units; `calibrate` sets them by the pictures at hand.
        self.y_index = LevelVectors(torch.full((c.levels, c.latent), 3.0))
        self.z_index = LevelVectors(torch.full((c.levels, c.hyper), 1.5))
        self.apply(init_weights)

    # ------------------------------------------------------------------ rate levels

    def rate_lambda(self, level: Tensor) -> Tensor:
        """The trade-off of L = R + lambda * 255^2 * D at a level; D on planes in [0, 1]."""
        a, b = (math.log(v) for v in self.config.lambda_range)
        return torch.exp(a + (b - a) * level / (self.config.levels - 1))

    def trade_off(self, level: RateLevel) -> TradeOff:
        """That of a rate level of streams."""
        return TradeOff(float(self.rate_lambda(level.tensor(self.gain.table.device))))

    @torch.no_grad()
    def calibrate(self, planes: Tensor) -> None:
        """Start every latent channel's scale at its spread over these pictures, level by level."""
        for k in range(self.config.levels):
            y = self.analyse(planes, torch.full((len(planes),), float(k), device=planes.device))
            deviation = y.transpose(0, 1).flatten(1).std(1)  # (C,)
            self.y_index.table[k] = scale_to_index(deviation).clamp(0, MAX_INDEX) / INDEX_GAIN

    # ---------------------------------------------------------------------- forward

    def analyse(self, planes: Tensor, level: Tensor) -> Tensor:
        """Planes in [-0.5, 0.5] (B, 6, H/2, W/2) to gained latents y (B, C, h, w)."""
        return self.analysis(planes, level) * torch.exp(self.gain(level))

    def synthesise(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """Decoded latents (B, C, h, w) to planes around [-0.5, 0.5] (B, 6, H/2, W/2)."""
        return self.synthesis(y_hat * torch.exp(self.inverse_gain(level)), level)

    def z_indices(self, level: Tensor) -> Tensor:  # (B,) -> (B, Z, 1, 1), real-valued
        return self.z_index(level) * INDEX_GAIN

    def forward(
        self, planes: Tensor, level: Tensor, *, rate: str = "mixed", code: CellCoder | None = None
    ) -> MspOutput:
        """One pass: symbols rounded (straight through), their rate charged as `rate` says.

        planes: (B, 6, H/2, W/2), H and W multiples of 16. rate: see `rate_of_symbols`. code: decides the symbols of y
        instead of rounding.
        """
        y = self.analyse(planes, level)
        z = self.hyper_analysis(y)
        z_hat = ste_round(z)
        z_bits = rate_of_symbols(z, z_hat, self.z_indices(level), rate).sum((1, 2, 3))
        y_hat, y_bits = self.code_passes(y, z_hat, level, code or rounding(rate))
        return MspOutput(self.synthesise(y_hat, level), y_bits, z_bits)

    def code_passes(self, y: Tensor, z_hat: Tensor, level: Tensor, code: CellCoder) -> tuple[Tensor, Tensor]:
        """Quantise y pass by pass, cell by cell with `code`: (y_hat (B, C, h, w), bits (B,))."""
        size = (y.shape[-2], y.shape[-1])
        mean_features = self.hyper_mean(z_hat, level, size)  # (B, P, h, w)
        scale_features = self.hyper_scale(z_hat, level, size)  # (B, S, h, w)
        base = self.y_index(level)  # (B, C, 1, 1)
        cells = [cell for coded in self.schedule for cell in coded.cells(y.shape[1])]
        latents = iter(CutCells.apply(y, cells))
        values: list[Tensor] = []  # of the cells coded so far
        magnitudes: list[Tensor] = []
        bits = y.new_zeros(y.shape[0])
        for k, coded in enumerate(self.schedule):
            grid = (..., *coded.grid)
            done = cells[: len(values)]
            known = JoinCells.apply(y.shape, done, *values) if done else y
            known_magnitude = JoinCells.apply(y.shape, done, *magnitudes) if done else y
            means = self.pass_mean[k](mean_features[grid], known[grid])
            indices = self.pass_scale[k](scale_features[grid], known_magnitude[grid], base)
            for cell, mean, index in zip(coded.cells(y.shape[1]), means, indices, strict=True):
                q, cell_bits = code(next(latents), mean, index, cell.group)
                bits = bits + cell_bits
                values.append(q + mean)
                magnitudes.append(magnitude(q))
        return JoinCells.apply(y.shape, cells, *values), bits


class CutCells(torch.autograd.Function):
    """A tensor (B, C, h, w) to its cells; with a backward pass that fills one tensor instead of one for each cell."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: list[Cell]) -> tuple[Tensor, ...]:
        ctx.cells, ctx.like = cells, x
        return tuple(x[(slice(None), cell.group, *cell.site)].clone() for cell in cells)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _joined(torch.empty_like(ctx.like), ctx.cells, grads), None


class JoinCells(torch.autograd.Function):
    """Cells to the tensor they are of, zero where none is."""

    @staticmethod
    def forward(ctx: Any, shape: torch.Size, cells: list[Cell], *parts: Tensor) -> Tensor:
        ctx.cells = cells
        x = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device).contiguous(
            memory_format=torch.channels_last
        )
        return _joined(x, cells, parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad[(slice(None), cell.group, *cell.site)] for cell in ctx.cells)


def _joined(x: Tensor, cells: Sequence[Cell], parts: Sequence[Tensor]) -> Tensor:
    for cell, part in zip(cells, parts, strict=True):
        x[(slice(None), cell.group, *cell.site)] = part
    return x
