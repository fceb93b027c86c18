"""Frames to the network's planes and back: padding, depth, phases.

Planes are (1, 6, H/2, W/2) float32 in [-0.5, 0.5], H and W padded to the model's multiple
by repeating the last row and column: four luma phases (row, column) = (0,0), (0,1),
(1,0), (1,1), then U, V.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidcodec.video import Frame, VideoFormat


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pack(y: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Luma (H, W) and chroma (2, ceil(H/2), ceil(W/2)) to planes (6, ceil(H/2), ceil(W/2))."""
    y = np.pad(y, ((0, y.shape[0] % 2), (0, y.shape[1] % 2)), mode="edge")
    return np.stack([y[i::2, j::2] for i in (0, 1) for j in (0, 1)] + [uv[0], uv[1]])


def unpack(planes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `pack`, cropped to a luma size."""
    y = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), planes.dtype)
    for k, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
        y[i::2, j::2] = planes[k]
    return y[:height, :width], planes[4:, : -(-height // 2), : -(-width // 2)]


def frame_to_planes(frame: Frame, bit_depth: int, multiple: int) -> Tensor:
    """Planes of one frame, padded."""
    height, width = frame.y.shape
    h, w = padded_size(height, width, multiple)
    y = np.pad(frame.y, ((0, h - height), (0, w - width)), mode="edge")
    ch, cw = frame.uv.shape[1:]
    uv = np.pad(frame.uv, ((0, 0), (0, h // 2 - ch), (0, w // 2 - cw)), mode="edge")
    x = torch.from_numpy(pack(y, uv).astype(np.float32))
    return (x / float((1 << bit_depth) - 1) - 0.5)[None]


def planes_to_frame(planes: Tensor, video: VideoFormat, pts: int) -> Frame:
    """The frame a decoder shows: cropped, rounded to the video's bit depth."""
    top = (1 << video.bit_depth) - 1
    codes = ((planes[0].cpu() + 0.5) * top).round().clamp(0, top).numpy()
    y, uv = unpack(codes.astype(video.dtype), video.height, video.width)
    return Frame(y.copy(), uv.copy(), pts)


def plane_errors(a: Frame, b: Frame) -> np.ndarray:
    """Mean squared error of Y, U, V in code values squared, float64 (3,)."""
    pairs = ((a.y, b.y), (a.uv[0], b.uv[0]), (a.uv[1], b.uv[1]))
    return np.array([np.square(p.astype(np.float64) - q.astype(np.float64)).mean() for p, q in pairs])
