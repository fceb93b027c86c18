"""The default network: a multi-scale progressive codec for YUV 4:2:0 pictures.

Reads top to bottom: configuration, building blocks, analysis and synthesis, the
hyperprior, the coarse-to-fine passes, the model. Shapes stand at line ends, with

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
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcodec.entropy.scales import MAX_INDEX, index_to_scale

# The scale path keeps activations in [0, 128), so that 16 bits hold them exactly.
SCALE_CLIP = 127.996
# A unit of the last scale layer is this many indices of the scale table.
INDEX_GAIN = 8.0
INDEX_OFFSET = 24.0


@dataclass(frozen=True)
class MspConfig:
    """Shape of an `Msp` network; stored in every checkpoint.

    widths: channels of analysis and synthesis at 1/4, 1/8 and 1/16 of the luma size.
    blocks: residual blocks at each of these.
    block: 'conv' (two 3x3) or 'depthwise' (1x1, depthwise 3x3, 1x1, and a 1x1 pair).
    scales: coarse-to-fine scales; 0 is the plain hyperprior, each scale adds 3 passes.
    lambda_range: the ends of the rate range, for `Msp.rate_lambda`.
    """

    widths: tuple[int, int, int] = (48, 96, 144)
    blocks: tuple[int, int, int] = (1, 2, 2)
    block: str = "conv"
    latent: int = 144
    hyper: int = 64
    mean_features: int = 96
    scale_features: int = 48
    pass_width: int = 96
    scale_width: int = 48
    scales: int = 2
    levels: int = 8
    lambda_range: tuple[float, float] = (2e-4, 0.4)

    def __post_init__(self) -> None:
        if self.latent % 3:
            raise ValueError(f"latent must be a multiple of 3 (three channel groups), not {self.latent}")

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> MspConfig:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**fields)


class MspOutput(NamedTuple):
    """What a training step needs; rates are in bits per picture."""

    planes: Tensor  # (B, 6, H/2, W/2), not clamped
    y_bits: Tensor  # (B,)
    z_bits: Tensor  # (B,)


# Weights of the planes' mean squared errors in D (Y, U, V).
PLANE_WEIGHTS = (0.5, 0.25, 0.25)


def weighted_mse(x: Tensor, target: Tensor, weights: tuple[float, float, float] = PLANE_WEIGHTS) -> Tensor:
    """Per-picture D: plane-weighted mean squared error of (B, 6, ., .) planes -> (B,)."""
    error = (x - target).square().mean((2, 3))  # (B, 6)
    return weights[0] * error[:, :4].mean(1) + weights[1] * error[:, 4] + weights[2] * error[:, 5]


# --------------------------------------------------------------------------- blocks


class ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, ., .) -> same
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))


class DepthwiseBlock(nn.Module):
    """1x1, depthwise 3x3, 1x1, then a 1x1 pair; both halves residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.mix1 = nn.Conv2d(width, width, 1)
        self.mix2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, ., .) -> same
        x = x + self.conv2(self.depth(F.leaky_relu(self.conv1(x), 0.1)))
        return x + self.mix2(F.leaky_relu(self.mix1(x), 0.1))


def init_weights(module: nn.Module) -> None:
    """Variance-preserving start; residual branches small, pass heads at zero."""
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=fan_in**-0.5)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, ConvBlock):
        module.conv1.weight.data.mul_(1.4)
        module.conv2.weight.data.mul_(0.2)
    elif isinstance(module, DepthwiseBlock):
        module.conv1.weight.data.mul_(1.4)
        module.mix1.weight.data.mul_(1.4)
        module.conv2.weight.data.mul_(0.2)
        module.mix2.weight.data.mul_(0.2)
    elif isinstance(module, (Analysis, Synthesis)):
        transform = block_transform(module.linear.weight.shape[0 if isinstance(module, Analysis) else 1])
        matrix = transform if isinstance(module, Analysis) else transform.T
        module.linear.weight.data.copy_(matrix[:, :, None, None])
        module.head.weight.data.mul_(0.1)
    elif isinstance(module, (PassMean, PassScale)):
        module.head.weight.data.mul_(0.1)


BLOCKS = {"conv": ConvBlock, "depthwise": DepthwiseBlock}


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

    def __init__(self, width: int, blocks: int, kind: str, levels: int) -> None:
        super().__init__()
        self.gain = LevelVectors(torch.zeros(levels, width))
        self.blocks = nn.Sequential(*[BLOCKS[kind](width) for _ in range(blocks)])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # (B, width, ., .) -> same
        return self.blocks(x * torch.exp(self.gain(level)).to(x.dtype))


def full_precision(conv: nn.Module, x: Tensor) -> Tensor:
    """Run one layer in float32 even under autocast: outputs whose last bits matter."""
    with torch.autocast(x.device.type, enabled=False):
        return conv(x.float())


# ----------------------------------------------------------- analysis and synthesis


def block_transform(channels: int) -> Tensor:
    """Orthonormal rows (channels, 384): the lowest DCT frequencies of a 16x16 block.

    A block is 256 luma and 2 x 64 chroma samples, ordered as `pixel_unshuffle(planes, 8)`.
    Seven in nine rows are luma. Where networks start from; see `Analysis`.
    """

    def lowest(size: int, count: int) -> Tensor:  # (count, size, size)
        n = torch.arange(size, dtype=torch.float64)
        basis = torch.cos(torch.pi * (2 * n[None] + 1) * n[:, None] / (2 * size)) * math.sqrt(2 / size)
        basis[0] /= math.sqrt(2)
        order = sorted(((u, v) for u in range(size) for v in range(size)), key=lambda f: (f[0] + f[1], f))
        return torch.stack([torch.outer(basis[u], basis[v]) for u, v in order[:count]])

    chroma = min(64, channels // 9)
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
        w4, w8, w16 = c.widths
        self.stem = nn.Conv2d(24, w4, 3, padding=1)
        self.stage4 = Stage(w4, c.blocks[0], c.block, c.levels)
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.stage8 = Stage(w8, c.blocks[1], c.block, c.levels)
        self.down16 = nn.Conv2d(w8, w16, 3, stride=2, padding=1)
        self.stage16 = Stage(w16, c.blocks[2], c.block, c.levels)
        self.head = nn.Conv2d(w16, c.latent, 3, padding=1)
        self.linear = nn.Conv2d(384, c.latent, 1)

    def forward(self, planes: Tensor, level: Tensor) -> Tensor:  # (B, 6, 8h, 8w)
        x = self.stem(F.pixel_unshuffle(planes, 2))  # (B, w4, 4h, 4w)
        x = self.stage4(x, level)
        x = self.stage8(self.down8(x), level)  # (B, w8, 2h, 2w)
        x = self.stage16(self.down16(x), level)  # (B, w16, h, w)
        linear = full_precision(self.linear, F.pixel_unshuffle(planes, 8))
        return full_precision(self.head, x) + linear  # (B, C, h, w)


class Synthesis(nn.Module):
    """Latents to picture planes: a network beside the inverse block transform."""

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        w4, w8, w16 = c.widths
        self.stem = nn.Conv2d(c.latent, w16, 3, padding=1)
        self.stage16 = Stage(w16, c.blocks[2], c.block, c.levels)
        self.up8 = nn.Conv2d(w16, 4 * w8, 1)
        self.stage8 = Stage(w8, c.blocks[1], c.block, c.levels)
        self.up4 = nn.Conv2d(w8, 4 * w4, 1)
        self.stage4 = Stage(w4, c.blocks[0], c.block, c.levels)
        self.head = nn.Conv2d(w4, 24, 3, padding=1)
        self.linear = nn.Conv2d(c.latent, 384, 1)

    def forward(self, y: Tensor, level: Tensor) -> Tensor:  # (B, C, h, w)
        x = self.stage16(self.stem(y), level)  # (B, w16, h, w)
        x = F.pixel_shuffle(self.up8(x), 2)  # (B, w8, 2h, 2w)
        x = self.stage8(x, level)
        x = F.pixel_shuffle(self.up4(x), 2)  # (B, w4, 4h, 4w)
        x = self.stage4(x, level)
        x = F.pixel_shuffle(full_precision(self.head, x), 2)  # (B, 6, 8h, 8w)
        return x + F.pixel_shuffle(full_precision(self.linear, y), 8)


# ------------------------------------------------------------------------ hyperprior


class HyperAnalysis(nn.Module):
    """Scaled latents to z. The grid is padded to a multiple of 4 by replication."""

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
        x = F.leaky_relu(self.stem(y), 0.1)
        x = F.leaky_relu(self.down1(x), 0.1)
        x = F.leaky_relu(self.down2(x), 0.1)
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
        x = F.leaky_relu(self.stem(z), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.up1(x), 2), 0.1)
        x = F.leaky_relu(self.mid(x), 0.1)
        x = F.pixel_shuffle(self.up2(x), 2)
        x = F.leaky_relu(x + self.bias(level).to(x.dtype), 0.1)
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


class Step(NamedTuple):
    """One parallel pass: at `stride`, group g of the channels is coded in phase[g] of 2x2."""

    stride: int
    phases: tuple[tuple[int, int], ...]


FINE_PHASES = ((1, 1), (0, 1), (1, 0))


def schedule(scales: int) -> list[Step]:
    """The passes in coding order, coarse to fine; 1 + 3 * scales of them.

    The first pass codes every 2^scales-th sample of each row and column, all channels.
    At each finer scale three channel groups rotate through the three new phases of the
    2x2 cells, so that every pass sees neighbours in space and in the other groups.
    """
    steps = [Step(2**scales, ((0, 0),) * 3)]
    for s in reversed(range(scales)):
        for k in range(3):
            steps.append(Step(2**s, tuple(FINE_PHASES[(g + k) % 3] for g in range(3))))
    return steps


def step_mask(step: Step, channels: int, h: int, w: int, coarsest: bool, device: torch.device) -> Tensor:
    """1 where a pass codes, on the pass's own grid of h x w samples: (1, C, h, w)."""
    if coarsest:
        return torch.ones(1, channels, h, w, device=device)
    mask = torch.zeros(1, 3, h, w, device=device)
    for g, (i, j) in enumerate(step.phases):
        mask[:, g, i::2, j::2] = 1.0
    return mask.repeat_interleave(channels // 3, 1)


class PassMean(nn.Module):
    """The means of one pass, from hyperprior features and the latents known so far."""

    def __init__(self, c: MspConfig, coarsest: bool) -> None:
        super().__init__()
        width = c.pass_width
        self.known = None if coarsest else nn.Conv2d(c.latent, width, 3, padding=1)
        self.stem = nn.Conv2d(c.mean_features, width, 1)
        self.mid = nn.Conv2d(width, width, 1 if coarsest else 3, padding=0 if coarsest else 1)
        self.head = nn.Conv2d(width, c.latent, 1)

    def forward(self, features: Tensor, known: Tensor) -> Tensor:  # (B, P, ., .), (B, C, ., .)
        x = self.stem(features)
        if self.known is not None:
            x = x + self.known(known)
        x = F.leaky_relu(x, 0.1)
        x = x + F.leaky_relu(self.mid(x), 0.1)
        return full_precision(self.head, x)  # (B, C, ., .)


class PassScale(nn.Module):
    """The scale indices of one pass, from integers only. Integer arithmetic when coding."""

    def __init__(self, c: MspConfig, coarsest: bool) -> None:
        super().__init__()
        width = c.scale_width
        self.known = None if coarsest else nn.Conv2d(c.latent, width, 3, padding=1)
        self.stem = nn.Conv2d(c.scale_features, width, 1)
        self.mid = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, c.latent, 1)

    def forward(self, features: Tensor, magnitudes: Tensor) -> Tensor:  # (B, S, ., .), (B, C, ., .)
        x = self.stem(features)
        if self.known is not None:
            x = x + self.known(magnitudes)
        x = clipped_relu(x)
        x = clipped_relu(self.mid(x))
        return full_precision(self.head, x) * INDEX_GAIN + INDEX_OFFSET  # (B, C, ., .), in index units


# ----------------------------------------------------------------------------- model


def ste_round(x: Tensor) -> Tensor:
    """Round with a straight-through gradient."""
    return x + (torch.round(x) - x).detach()


def symbol_bits(x: Tensor, index: Tensor) -> Tensor:
    """Bits of real-valued `x` under the zero-mean normal of a (real-valued) scale index.

    The rate the integer tables charge, as a differentiable function; the tables' escape
    and 16-bit floor enter as a lower bound on the probability.
    """
    # The gradient at the ends of the table must be able to lead back inside.
    clipped = index.clamp(0.0, float(MAX_INDEX))
    index = index + (clipped - index).detach()
    inv = 1.0 / index_to_scale(clipped + (index - index.detach()))
    x = x.abs()
    c = -math.sqrt(0.5)
    p = 0.5 * (torch.erfc(c * (0.5 - x) * inv) - torch.erfc(c * (-0.5 - x) * inv))
    return -torch.log2(p.clamp_min(2.0**-20)) + F.relu(x * inv - 5.0) * 0.5


def rate_of_symbols(x: Tensor, q: Tensor, index: Tensor, rate: str) -> Tensor:
    """Bits of values x, rounded to q (straight through), under scale indices.

    'rounded': of the symbols themselves. 'noise': of x plus uniform noise, the usual
    differentiable stand-in, which charges a sure zero 0.1 bit it does not cost.
    'mixed': the value and the gradient towards the index of the symbols themselves, the
    gradient towards x of the noisy stand-in. What the coder charges, yet smooth in x.
    """
    if rate == "rounded":
        return symbol_bits(q, index)
    noisy = x + torch.rand_like(x) - 0.5
    if rate == "noise":
        return symbol_bits(noisy, index)
    smooth = symbol_bits(noisy, index.detach())
    return symbol_bits(q.detach(), index) + smooth - smooth.detach()


def magnitude(q: Tensor) -> Tensor:
    """log2(1 + |q|): what the scale path sees of a decoded y symbol (an integer table there)."""
    return torch.log2(1.0 + q.abs())


class Msp(nn.Module):
    """The codec network; see the module's head for its parts.

    `level` is the rate level in [0, levels - 1], one per picture, real-valued.
    """

    def __init__(self, config: MspConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MspConfig()
        self.schedule = schedule(c.scales)
        self.analysis = Analysis(c)
        self.synthesis = Synthesis(c)
        self.hyper_analysis = HyperAnalysis(c)
        self.hyper_mean = HyperMean(c)
        self.hyper_scale = HyperScale(c)
        self.pass_mean = nn.ModuleList(PassMean(c, k == 0) for k in range(len(self.schedule)))
        self.pass_scale = nn.ModuleList(PassScale(c, k == 0) for k in range(len(self.schedule)))
        # High-resolution theory for an orthonormal transform: step = 1 / (67 sqrt(lambda)).
        log_gain = 4.2 + 0.5 * torch.linspace(math.log(c.lambda_range[0]), math.log(c.lambda_range[1]), c.levels)
        start = log_gain[:, None].expand(c.levels, c.latent)
        self.gain = LevelVectors(start)
        self.inverse_gain = LevelVectors(-start)
        self.z_index = LevelVectors(torch.full((c.levels, c.hyper), 3.0))  # in INDEX_GAIN units
        self.apply(init_weights)

    # ------------------------------------------------------------------ rate levels

    def rate_lambda(self, level: Tensor) -> Tensor:
        """The trade-off of L = R + lambda * 255^2 * D at a level; D on planes in [0, 1]."""
        a, b = (math.log(v) for v in self.config.lambda_range)
        return torch.exp(a + (b - a) * level / (self.config.levels - 1))

    # ---------------------------------------------------------------------- forward

    def analyse(self, planes: Tensor, level: Tensor) -> Tensor:
        """Planes in [-0.5, 0.5] (B, 6, H/2, W/2) to gained latents y (B, C, h, w)."""
        return self.analysis(planes, level) * torch.exp(self.gain(level))

    def synthesise(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """Decoded latents (B, C, h, w) to planes around [-0.5, 0.5] (B, 6, H/2, W/2)."""
        return self.synthesis(y_hat * torch.exp(self.inverse_gain(level)), level)

    def z_indices(self, level: Tensor) -> Tensor:  # (B,) -> (B, Z, 1, 1), real-valued
        return self.z_index(level) * INDEX_GAIN

    def forward(self, planes: Tensor, level: Tensor, *, rate: str = "mixed") -> MspOutput:
        """One pass: symbols rounded (straight through), their rate charged as `rate` says.

        planes: (B, 6, H/2, W/2), H and W multiples of 16. rate: see `rate_of_symbols`.
        """
        y = self.analyse(planes, level)
        z = self.hyper_analysis(y)
        z_hat = ste_round(z)
        z_bits = rate_of_symbols(z, z_hat, self.z_indices(level), rate).sum((1, 2, 3))
        y_hat, y_bits = self.code_passes(y, z_hat, level, rate=rate)
        return MspOutput(self.synthesise(y_hat, level), y_bits, z_bits)

    def code_passes(self, y: Tensor, z_hat: Tensor, level: Tensor, *, rate: str) -> tuple[Tensor, Tensor]:
        """Quantise y pass by pass: (y_hat (B, C, h, w), bits (B,))."""
        h, w = y.shape[-2:]
        mean_features = self.hyper_mean(z_hat, level, (h, w))  # (B, P, h, w)
        scale_features = self.hyper_scale(z_hat, level, (h, w))  # (B, S, h, w)
        y_hat = torch.zeros_like(y)
        known_magnitude = torch.zeros_like(y)
        bits = y.new_zeros(y.shape[0])
        for k, step in enumerate(self.schedule):
            grid = (..., slice(None, None, step.stride), slice(None, None, step.stride))
            target = y[grid]  # (B, C, h/stride, w/stride)
            rows, columns = target.shape[-2:]
            mask = step_mask(step, y.shape[1], rows, columns, k == 0, y.device)
            mean = self.pass_mean[k](mean_features[grid], y_hat[grid])
            index = self.pass_scale[k](scale_features[grid], known_magnitude[grid])
            residual = target - mean
            q = ste_round(residual)
            bits = bits + (rate_of_symbols(residual, q, index, rate) * mask).sum((1, 2, 3))
            y_hat = add_on_grid(y_hat, (q + mean) * mask, step.stride)
            known_magnitude = add_on_grid(known_magnitude, magnitude(q) * mask, step.stride)
        return y_hat, bits


def add_on_grid(full: Tensor, part: Tensor, stride: int) -> Tensor:
    """full[..., ::stride, ::stride] + part, written out of place (autograd-friendly)."""
    if stride == 1:
        return full + part
    out = full.clone()
    out[..., ::stride, ::stride] += part
    return out
