"""Pictures as the lossless network sees them: planes of whole numbers.

YUV 4:2:0 planes stay as they are. RGB goes through YCoCg-R (Malvar and Sullivan 2003, JVT-I014), which is reversible
and spreads the chroma planes over one bit more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray


class PlaneBatch(NamedTuple):
    """Pictures of one kind, whole numbers from 0 on in float32.

    y: (B, H, W). uv: (B, 2, H, W) of RGB, half that size, rounded up, of 4:2:0. bits: per sample of the source.
    """

    y: Tensor
    uv: Tensor
    bits: int
    rgb: bool

    @classmethod
    def of(cls, pictures: Sequence[tuple[Array, Array]], bits: int, *, rgb: bool) -> PlaneBatch:
        """Of pictures of one size: planes y (H, W) and uv (2, ., .) each, any number type."""
        y, uv = (torch.from_numpy(np.stack(p).astype(np.float32)) for p in zip(*pictures, strict=True))
        return cls(y, uv, bits, rgb)

    def to(self, device: torch.device) -> PlaneBatch:
        return self._replace(y=self.y.to(device), uv=self.uv.to(device))


def rgb_to_ycocg(rgb: Array, bits: int) -> tuple[Array, Array]:
    """RGB (H, W, 3) to luma (H, W) in 0 .. 2^bits - 1 and chroma (2, H, W) in 0 .. 2^(bits + 1) - 2, int32."""
    r, g, b = (rgb[..., i].astype(np.int32) for i in range(3))
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    offset = (1 << bits) - 1
    return t + (cg >> 1), np.stack([co + offset, cg + offset])


def ycocg_to_rgb(y: Array, chroma: Array, bits: int) -> Array:
    """The inverse: RGB (H, W, 3) int32."""
    co, cg = chroma.astype(np.int32) - ((1 << bits) - 1)
    t = y - (cg >> 1)
    g = cg + t
    b = t - (co >> 1)
    return np.stack([b + co, g, b], -1)


def chroma_levels(bits: int, *, rgb: bool) -> int:
    """Values a chroma sample may take."""
    return (2 << bits) - 1 if rgb else 1 << bits


def guide_of(y: Tensor, *, rgb: bool) -> Tensor:
    """Luma (B, H, W) at the size of the chroma planes: as it is, or sums of 2x2; in quarters of a code value."""
    if rgb:
        return y * 4
    y = F.pad(y[:, None], (0, y.shape[-1] % 2, 0, y.shape[-2] % 2), mode="replicate")[:, 0]
    return y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]
