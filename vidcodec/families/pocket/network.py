"""The network of the family `pocket`: a few thousand parameters, sent whole, one set for all frames of a video.

A frame is a pyramid of integer grids, one channel each: luma size, 1/2, 1/4 ... Every grid is filtered, scaled by its
own gain and brought to luma size by learned separable filters, x2 by x2; a 1x1 network of two layers makes luma and
chroma of them, two residual 3x3 layers smooth the result, and chroma is averaged over 2x2. A small network gives mean
and scale of every symbol from symbols that are known already: those before it in its own grid, in raster order, and
those around it in the next coarser grid.

    symbols --+-> filters, gains -> upsampling -> mix (1x1) -> smooth (3x3) -> planes (6, h, w)
              +-> context network -> mean, log2 scale of a logistic distribution

Shapes stand at line ends, with

    h, w      half the luma size, rounded up           N    symbols of a grid
    H, W      2h, 2w: luma size, made even             C    symbols that a context holds

What is written here runs on autograd: the reference for `vidcodec.families.pocket.workspace`, and the path for GPUs.

Sources: overfitted grids with an autoregressive network, COOL-CHIC (Ladune et al. 2023, arXiv 2212.05458) and C3
(Kim et al. 2023, arXiv 2312.02753); separable learned upsampling and linear branches beside the networks, Cool-Chic
4 and 5 (Orange-OpenSource/Cool-Chic), as are filters before upsampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MARGIN = 3  # zeros around every grid: contexts reach that far
MIN_LOG_SCALE, MAX_LOG_SCALE = -5.0, 8.0  # log2, in steps

Offset = tuple[int, int]

# Known symbols of the own grid, (rows, columns) away, the nearest first.
OWN: tuple[Offset, ...] = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2),
    (-2, -1), (-2, 1), (0, -3), (-3, 0), (-2, -2), (-2, 2), (-1, 3), (-1, -3),
)  # fmt: skip
# Symbols of the next coarser grid, repeated to this one's size: an offset of one reaches the nearer neighbour only.
COARSE: tuple[Offset, ...] = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (2, 0), (0, 2))

CUBIC = (-0.0234375, 0.2265625, 0.8671875, -0.0703125)  # what upsampling starts from (Keys 1981, a = -1/2)


@dataclass(frozen=True)
class PocketConfig:
    """Shape of a network; whoever decodes needs the same.

    grids: number of grids. own, coarse: symbols of a context from the own and from the next coarser grid. context,
    hidden: widths of the hidden layers of the context network (two) and of the synthesis.
    """

    grids: int = 7
    own: int = 16
    coarse: int = 8
    context: int = 16
    hidden: int = 48

    def __post_init__(self) -> None:
        if not (0 < self.own <= len(OWN) and 0 <= self.coarse <= len(COARSE)):
            raise ValueError(f"a context holds at most {len(OWN)} own and {len(COARSE)} coarser symbols")
        if (self.own + self.coarse) % 4 or self.context % 8 or self.hidden % 8:
            raise ValueError("contexts come in fours, widths in eights")
        if not 1 < self.grids <= 8:
            raise ValueError("a pyramid has 2 to 8 grids")

    @property
    def inputs(self) -> int:
        """Symbols of a context."""
        return self.own + self.coarse

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order in which they are sent."""
        g, c, p, n = self.grids, self.inputs, self.context, self.hidden
        return {
            "gain": (g,),  # log2
            "filter": (g, 4),  # of each grid: the middle tap and those beside it
            "up": (g - 1, 4),  # taps of the even samples of each x2, the odd ones' are the same mirrored
            "mix_0_weight": (n, g),
            "mix_0_bias": (n,),
            "mix_1_weight": (3, n),
            "mix_1_bias": (3,),
            "smooth_0_weight": (3, 3, 3, 3),
            "smooth_0_bias": (3,),
            "smooth_1_weight": (3, 3, 3, 3),
            "smooth_1_bias": (3,),
            "context_0_weight": (p, c),
            "context_0_bias": (g, p),  # by grid
            "context_1_weight": (p, p),
            "context_1_bias": (p,),
            "context_2_weight": (2, p),
            "context_2_bias": (g, 2),  # by grid
            "context_skip": (2, c),
        }

    def count(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(s)) for s in self.shapes().values())

    def multiplications(self) -> float:
        """Of decoding, for each luma sample."""
        c, p, n = self.inputs, self.context, self.hidden
        symbols = sum(4.0**-k for k in range(self.grids))
        upsampling = sum(6 * (self.grids - 1 - k) * 4.0**-k for k in range(self.grids - 1))
        return symbols * (c * p + p * p + 2 * p + 2 * c + 15) + upsampling + self.grids * n + 3 * n + 2 * 81

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> PocketConfig:
        return cls(**d)


def grid_sizes(config: PocketConfig, h: int, w: int) -> list[tuple[int, int]]:
    """(rows, columns) of every grid, the finest first, of planes (6, h, w)."""
    return [(2 * h, 2 * w), *((-(-h // 2**k), -(-w // 2**k)) for k in range(config.grids - 1))]


# ----------------------------------------------------------------------------- parameters


def initial(config: PocketConfig, trade_off: float = 5e-4, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters to start from, float32: random features of all grids, every symbol's distribution narrow around zero.

    The steps follow the trade-off; coarser grids have finer ones.
    """
    rng = np.random.default_rng(seed)
    out = {name: np.zeros(shape, np.float32) for name, shape in config.shapes().items()}
    g, n, p = config.grids, config.hidden, config.context
    out["gain"][:] = np.log2(3.0 * np.sqrt(trade_off)) - 0.5 * np.arange(g)
    out["filter"][:, 0] = 1
    out["gain"][:] -= 1
    out["up"][:] = CUBIC
    out["mix_0_weight"][:] = rng.normal(0, 1, (n, g))
    out["mix_0_bias"][:] = rng.normal(0, 0.3, n)
    out["mix_1_weight"][:] = rng.normal(0, np.sqrt(2 / n), (3, n))
    out["mix_1_bias"][:] = -(out["mix_1_weight"] @ np.maximum(out["mix_0_bias"], 0))  # grey where all is zero
    out["smooth_0_weight"][:] = rng.normal(0, 0.02, (3, 3, 3, 3))
    out["smooth_1_weight"][:] = rng.normal(0, 0.02, (3, 3, 3, 3))
    out["context_0_weight"][:] = rng.normal(0, 1 / np.sqrt(config.inputs), (p, config.inputs))
    out["context_0_bias"][:] = rng.normal(0, 0.1, p)
    out["context_1_weight"][:] = rng.normal(0, 1 / np.sqrt(p), (p, p))
    out["context_2_weight"][:] = rng.normal(0, 0.1 / np.sqrt(p), (2, p))
    out["context_2_bias"][:, 1] = -2
    return out


def flatten(config: PocketConfig, parameters: dict[str, np.ndarray]) -> np.ndarray:
    """All parameters in a row, float32."""
    return np.concatenate([np.asarray(parameters[name], np.float32).ravel() for name in config.shapes()])


def unflatten(config: PocketConfig, theta: np.ndarray) -> dict[str, np.ndarray]:
    """Views of the parameters in a row."""
    out, at = {}, 0
    for name, shape in config.shapes().items():
        size = int(np.prod(shape))
        out[name] = theta[at : at + size].reshape(shape)
        at += size
    return out


class Pocket(nn.Module):
    """The parameters as the pipeline knows them: a tensor for each name of `PocketConfig.shapes`, and no forward."""

    def __init__(self, config: PocketConfig, theta: np.ndarray | None = None) -> None:
        """theta: all parameters in a row; `initial` ones if None."""
        super().__init__()
        self.config = config
        theta = flatten(config, initial(config)) if theta is None else theta
        for name, values in unflatten(config, theta).items():
            self.register_parameter(name, nn.Parameter(torch.tensor(values, dtype=torch.float32)))

    @property
    def theta(self) -> np.ndarray:
        """All parameters in a row, float32 (`PocketConfig.count`,), a copy."""
        return flatten(self.config, {name: p.detach().cpu().numpy() for name, p in self.named_parameters()})


# ------------------------------------------------------------------------------ synthesis


def upsample(x: Tensor, taps: Tensor, rows: int, columns: int) -> Tensor:
    """x2 in both directions, edges repeated, cut to (rows, columns). x: (n, a, b), taps: (4,)."""
    kernels = torch.stack([F.pad(taps, (0, 1)), F.pad(taps.flip(0), (1, 0))])  # even, odd: 2, 5
    n, a, b = x.shape
    padded = F.pad(x[:, None], (2, 2, 0, 0), mode="replicate")
    x = F.conv2d(padded, kernels[:, None, None, :])  # n, 2, a, b
    x = x.permute(0, 2, 3, 1).reshape(n, 1, a, 2 * b)[..., :columns]
    x = F.conv2d(F.pad(x, (0, 0, 2, 2), mode="replicate"), kernels[:, None, :, None])  # n, 2, a, columns
    return x.permute(0, 2, 1, 3).reshape(n, 2 * a, columns)[:, :rows]


def refine(x: Tensor, taps: Tensor) -> Tensor:
    """What is there and what seven symmetric, separable taps make of it, zeros around. x: (a, b), taps: (4,)."""
    kernel = torch.cat([taps.flip(0), taps[1:]])
    y = F.conv2d(x[None, None], kernel[None, None, None, :], padding=(0, 3))
    return x + F.conv2d(y, kernel[None, None, :, None], padding=(3, 0))[0, 0]


def smooth(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3, edges repeated. x: (3, H, W)."""
    return F.conv2d(F.pad(x[None], (1, 1, 1, 1), mode="replicate"), weight, bias)[0]


def synthesise(parameters: dict[str, Tensor], grids: list[Tensor]) -> Tensor:
    """Symbols to planes (6, h, w): four luma phases, U, V, in [-0.5, 0.5]."""
    gains = torch.exp2(parameters["gain"])
    refined = [refine(grid, taps) * gain for grid, taps, gain in zip(grids, parameters["filter"], gains, strict=True)]
    x = refined[-1][None]
    for k in range(len(grids) - 2, -1, -1):
        x = upsample(x, parameters["up"][k], *grids[k].shape)
        x = torch.cat([refined[k][None], x])
    y = torch.einsum("nc,chw->nhw", parameters["mix_0_weight"], x) + parameters["mix_0_bias"][:, None, None]
    y = torch.einsum("on,nhw->ohw", parameters["mix_1_weight"], y.relu())  # 3, H, W
    y = y + parameters["mix_1_bias"][:, None, None]
    y = y + smooth(y, parameters["smooth_0_weight"], parameters["smooth_0_bias"]).relu()
    y = y + smooth(y, parameters["smooth_1_weight"], parameters["smooth_1_bias"])
    return torch.cat([F.pixel_unshuffle(y[None, :1], 2)[0], F.avg_pool2d(y[None, 1:], 2)[0]])  # 6, h, w


# --------------------------------------------------------------------------- distributions


def contexts(config: PocketConfig, grid: Tensor, coarser: Tensor | None) -> Tensor:
    """What is known of each symbol of a grid when it is coded: (C, N)."""
    rows, columns = grid.shape
    own = F.pad(grid, (MARGIN,) * 4)
    if coarser is None:
        above = torch.zeros_like(own)
    else:
        repeated = coarser.repeat_interleave(2, 0).repeat_interleave(2, 1)[:rows, :columns]
        above = F.pad(repeated, (MARGIN,) * 4)

    def at(x: Tensor, offset: Offset) -> Tensor:
        i, j = MARGIN + offset[0], MARGIN + offset[1]
        return x[i : i + rows, j : j + columns].flatten()

    return torch.stack([at(own, o) for o in OWN[: config.own]] + [at(above, o) for o in COARSE[: config.coarse]])


def distribution(parameters: dict[str, Tensor], x: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Mean and log2 scale of symbols of a grid, (N,) each, from contexts (C, N)."""
    y = (parameters["context_0_weight"] @ x + parameters["context_0_bias"][grid, :, None]).relu()  # p, N
    y = (parameters["context_1_weight"] @ y + parameters["context_1_bias"][:, None]).relu()  # p, N
    y = parameters["context_2_weight"] @ y + parameters["context_2_bias"][grid, :, None]  # 2, N
    mean, log_scale = y + parameters["context_skip"] @ x
    return mean, log_scale.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)


def symbol_bits(symbols: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of symbols under logistic distributions, integrated over each symbol's step."""
    width = torch.exp2(-log_scale)
    low = (symbols - mean - 0.5) * width
    high = low + width
    nats = F.softplus(-high) + F.softplus(low) - torch.log(-torch.expm1(-width))
    return nats / np.log(2.0)


def rate(config: PocketConfig, parameters: dict[str, Tensor], grids: list[Tensor]) -> Tensor:
    """Bits of all symbols."""
    total = grids[0].new_zeros(())
    for k, grid in enumerate(grids):
        coarser = grids[k + 1] if k + 1 < len(grids) else None
        mean, log_scale = distribution(parameters, contexts(config, grid, coarser), k)
        total = total + symbol_bits(grid.flatten(), mean, log_scale).sum()
    return total


def distortion(planes: Tensor, target: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Weighted sum of the mean squared errors of Y, U and V; planes (6, h, w)."""
    error = (planes - target).square().mean((1, 2))
    return weights[0] * error[:4].mean() + weights[1] * error[4] + weights[2] * error[5]
