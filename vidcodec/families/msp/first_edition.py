"""Analysis and synthesis as the first edition of the weights has them, with stages at 1/4 of the luma size.

Until weights of the present ones ship; see `vidcodec.families.msp.network` for everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from vidcodec.families.msp.network import Stage, full_precision

if TYPE_CHECKING:
    from vidcodec.families.msp.network import MspConfig


class FirstAnalysis(nn.Module):
    """Picture planes to latents. Never sent: the encoder adapts it freely.

    A network beside a linear block transform that starts as a DCT: training begins at a
    working transform codec instead of at noise, and the high rates stay easy.
    """

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        w4, w8, w16 = c.widths
        self.stem = nn.Conv2d(24, w4, 3, padding=1)
        self.stage4 = Stage(w4, c.blocks[0], c.levels)
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.stage8 = Stage(w8, c.blocks[1], c.levels)
        self.down16 = nn.Conv2d(w8, w16, 3, stride=2, padding=1)
        self.stage16 = Stage(w16, c.blocks[2], c.levels)
        self.head = nn.Conv2d(w16, c.latent, 3, padding=1)
        self.linear = nn.Conv2d(384, c.latent, 1)

    def forward(self, planes: Tensor, level: Tensor) -> Tensor:  # (B, 6, 8h, 8w)
        x = self.stem(F.pixel_unshuffle(planes, 2))  # (B, w4, 4h, 4w)
        x = self.stage4(x, level)
        x = self.stage8(self.down8(x), level)  # (B, w8, 2h, 2w)
        x = self.stage16(self.down16(x), level)  # (B, w16, h, w)
        linear = full_precision(self.linear, F.pixel_unshuffle(planes, 8))
        return full_precision(self.head, x) + linear  # (B, C, h, w)


class FirstSynthesis(nn.Module):
    """Latents to picture planes: a network beside the inverse block transform."""

    def __init__(self, c: MspConfig) -> None:
        super().__init__()
        w4, w8, w16 = c.widths
        self.stem = nn.Conv2d(c.latent, w16, 3, padding=1)
        self.stage16 = Stage(w16, c.blocks[2], c.levels)
        self.up8 = nn.Conv2d(w16, 4 * w8, 1)
        self.stage8 = Stage(w8, c.blocks[1], c.levels)
        self.up4 = nn.Conv2d(w8, 4 * w4, 1)
        self.stage4 = Stage(w4, c.blocks[0], c.levels)
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
