"""Pictures of FFmpeg's to the filter's planes and back, for 4:2:0 in 8 and 10 bit.

Planes are (6, h, w) code values: four luma phases (row, column) = (0,0), (0,1), (1,0), (1,1),
then U, V; h and w are half the luma's size, rounded up, odd sizes grown by repeating the edge.
"""

from __future__ import annotations

import av
import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import UnsupportedInputError
from vidcodec.families.planes import pack, unpack
from vidcodec.postfilter.network import Filter

DEPTHS = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10}
# Large pictures are filtered in strips of rows: bounded memory, and caches are used well.
STRIP_SAMPLES = 1 << 18


def depth_of(picture: av.VideoFrame) -> int:
    """Bits per sample; raises UnsupportedInputError for anything but 4:2:0 of 8 or 10 bit."""
    name = picture.format.name
    if name not in DEPTHS:
        raise UnsupportedInputError(f"pictures in {name}: the filter takes 4:2:0 of 8 or 10 bit only")
    return DEPTHS[name]


def _rows(picture: av.VideoFrame, index: int) -> np.ndarray:
    """One plane as a view of FFmpeg's memory."""
    plane, depth = picture.planes[index], depth_of(picture)
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    samples = rows if depth == 8 else rows.view("<u2")
    return samples[: plane.height, : plane.width]


def to_planes(picture: av.VideoFrame) -> np.ndarray:
    """Planes of a decoded picture, a copy."""
    return pack(_rows(picture, 0), np.stack([_rows(picture, 1), _rows(picture, 2)]))


def put_planes(planes: np.ndarray, picture: av.VideoFrame) -> None:
    """Write planes into a picture."""
    y, uv = unpack(planes, picture.height, picture.width)
    for index, samples in enumerate((y, uv[0], uv[1])):
        _rows(picture, index)[:] = samples


def to_tensor(planes: np.ndarray, depth: int) -> Tensor:
    """Code values to float32 in [-0.5, 0.5]."""
    return torch.from_numpy(planes.astype(np.float32)) / float((1 << depth) - 1) - 0.5


@torch.no_grad()
def filtered(network: Filter, planes: np.ndarray, depth: int, qp: float) -> np.ndarray:
    """Planes (6, h, w) after the filter, rounded and clipped to their depth.

    The same function filters in the encoder's measurement and in the decoder, in float32 on every machine.
    """
    _, h, w = planes.shape
    halo = 2 + 2 * network.config.blocks  # rows that a convolution chain looks at
    step = max(2 * halo, STRIP_SAMPLES // w)
    top_code = (1 << depth) - 1
    level = torch.tensor([qp])
    out = np.empty_like(planes)
    for top in range(0, h, step):
        bottom = min(h, top + step)
        first, last = max(0, top - halo), min(h, bottom + halo)
        x = to_tensor(planes[:, first:last], depth)[None].contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, enabled=False):
            y = network(x, level)[0, :, top - first : bottom - first]
        out[:, top:bottom] = ((y + 0.5) * top_code).round().clamp(0, top_code).numpy().astype(planes.dtype)
    return out


def samples_of(height: int, width: int) -> np.ndarray:
    """Samples of Y, U, V in a picture of that luma size: float64 (3,)."""
    chroma = ((height + 1) // 2) * ((width + 1) // 2)
    return np.array([height * width, chroma, chroma], np.float64)


def squared_errors(a: np.ndarray, b: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sums of squared errors of Y, U, V between planes, in code values squared: float64 (3,).

    height, width: of the luma plane; what `pack` added to odd ones does not count.
    """
    error = np.square(a.astype(np.int32) - b.astype(np.int32))
    phases = [error[2 * i + j, : (height - i + 1) // 2, : (width - j + 1) // 2] for i in (0, 1) for j in (0, 1)]
    luma = sum(int(phase.sum(dtype=np.int64)) for phase in phases)
    return np.array([luma, *error[4:].sum((1, 2), dtype=np.int64)], np.float64)
