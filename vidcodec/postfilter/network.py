"""The post-filter: a small residual network over the planes of a decoded picture.

Reads top to bottom: configuration, the convolution with its multiplier, the network.
Shapes stand at line ends, with

    B       pictures
    h, w    half the height and width of the luma plane (the size of the chroma planes)
    W       the network's width

Everything happens at half resolution: 4 luma phases + U + V + one plane with the quantiser
(QP) in, a correction of the six sample planes out. After each convolution stands one
multiplier per channel, 1 in the base filter: the smallest set of numbers that turns the
filter towards one video (Santamaria et al., EUVIP 2022, doi 10.1109/EUVIP53989.2022.9922721).
Weights are float32 on exact binary grids; without an update the multipliers cost nothing,
since they are folded into the weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLANES = 6  # 4 luma phases, U, V
# The range of quantisers as H.264 and HEVC count them; other codecs' are translated (`quantiser.py`).
MAX_QP = 51.0
# What the last convolution counts in: corrections are a few code values of 255, its weights ordinary numbers.
UNIT = 1 / 64
CONTRAST = 16.0


@dataclass(frozen=True)
class FilterConfig:
    """Shape of a `Filter`; stored in every checkpoint.

    width: channels at half resolution. blocks: residual blocks of two 3x3 convolutions.
    """

    width: int = 16
    blocks: int = 3

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


# In multiplications per luma sample: 3.9 thousand and 19.4 thousand.
PROFILES = {"small": FilterConfig(16, 3), "base": FilterConfig(32, 4)}


class Conv(nn.Module):
    """3x3 convolution, then one multiplier per output channel."""

    def __init__(self, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.multiplier = nn.Parameter(torch.ones(outputs))
        if not zero:
            nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        # m * (W x + b), with m folded into what is small.
        return F.conv2d(x, self.weight * self.multiplier[:, None, None, None], self.bias * self.multiplier, padding=1)


class Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(width, width)
        self.second = Conv(width, width, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Filter(nn.Module):
    """Decoded planes and their quantiser to corrected planes."""

    last_layer = ("tail.",)  # parameters that make the output, for updates of nothing else

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        self.config = config
        self.head = Conv(PLANES + 1, config.width)
        self.blocks = nn.ModuleList(Block(config.width) for _ in range(config.blocks))
        self.tail = Conv(config.width, PLANES, zero=True)
        with torch.no_grad():  # begin with contrasts: brightness says little of what coding did to a picture
            luma, chroma = self.head.weight[:, :4], self.head.weight[:, 4:PLANES]
            luma.sub_(luma.mean((1, 2, 3), keepdim=True)).mul_(CONTRAST)
            chroma.sub_(chroma.mean((2, 3), keepdim=True)).mul_(CONTRAST)

    def forward(self, planes: Tensor, qp: Tensor) -> Tensor:
        """planes: (B, 6, h, w) in [-0.5, 0.5]; qp: (B,), 0 .. 51. Returns planes like them, not clipped."""
        level = (qp / MAX_QP - 0.5)[:, None, None, None].expand(-1, 1, *planes.shape[2:])  # (B, 1, h, w)
        x = F.relu(self.head(torch.cat([planes, level], 1)))  # (B, W, h, w)
        for block in self.blocks:
            x = block(x)
        return planes + UNIT * self.tail(F.relu(x)).float()  # (B, 6, h, w)


def freeze_multipliers(network: Filter) -> None:
    """Keep the multipliers at 1 and out of training: base weights say the same without them."""
    for name, p in network.named_parameters():
        if name.endswith("multiplier"):
            p.requires_grad_(False)
