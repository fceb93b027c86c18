"""Conversion between Y'CbCr 4:2:0 and R'G'B', by matrix, range and chroma location.

With Kr, Kb of the matrix and Kg = 1 - Kr - Kb, on Y in 0..1, Cb and Cr in -1/2..1/2:

    Y  = Kr R + Kg G + Kb B        R = Y + 2 (1 - Kr) Cr
    Cb = (B - Y) / (2 (1 - Kb))    B = Y + 2 (1 - Kb) Cb
    Cr = (R - Y) / (2 (1 - Kr))    G = (Y - Kr R - Kb B) / Kg

    n bits, limited range:  y = 2^(n-8) (219 Y + 16),  c = 2^(n-8) (224 C + 128)
    n bits, full range:     y = (2^n - 1) Y,           c = (2^n - 1) C + 2^(n-1)

The maths is float32, the results are rounded and clipped. R'G'B' is uint8 (0..255) or uint16 (0..65535).
"""

from __future__ import annotations

import numpy as np

from vidcodec.errors import UnsupportedInputError
from vidcodec.video.frame import BT601, BT709, Frame, VideoFormat

LUMA_WEIGHTS: dict[int, tuple[float, float]] = {  # H.273 matrix: (Kr, Kb)
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}

LEFT, CENTRE = 1, 2
_PHASES: dict[int, tuple[float, float]] = {  # chroma location: (across, down), in luma samples past the even one
    0: (0.0, 0.5),
    LEFT: (0.0, 0.5),
    CENTRE: (0.5, 0.5),
    3: (0.0, 0.0),
    4: (0.5, 0.0),
    5: (0.0, 1.0),
    6: (0.5, 1.0),
}


def yuv_to_rgb(frame: Frame, format: VideoFormat) -> np.ndarray:
    """R'G'B' of `frame`: (H, W, 3), uint8 for 8 bit; for 10 bit uint16 scaled to 0..65535.

    Chroma is interpolated linearly from its location. Raises UnsupportedInputError for a matrix that is not
    a linear Y'CbCr one (YCgCo, ICtCp, constant luminance).
    """
    if format.rgb:
        rgb = np.stack([frame.uv[1], frame.y, frame.uv[0]], -1)
        return rgb if format.bit_depth == 8 else rgb << 6 | rgb >> 4
    kr, kb = luma_weights(format)
    y_scale, y_zero, c_scale, c_zero = _quantisation(format)
    luma = (frame.y.astype(np.float32) - y_zero) / y_scale  # H, W
    cb, cr = ((upsample_chroma(plane.astype(np.float32), format) - c_zero) / c_scale for plane in frame.uv)  # H, W each
    rgb = np.empty((format.height, format.width, 3), np.float32)
    rgb[..., 0] = luma + np.float32(2 * (1 - kr)) * cr
    rgb[..., 2] = luma + np.float32(2 * (1 - kb)) * cb
    rgb[..., 1] = (luma - np.float32(kr) * rgb[..., 0] - np.float32(kb) * rgb[..., 2]) / np.float32(1 - kr - kb)
    return _rounded(rgb, 8 if format.bit_depth == 8 else 16)


def rgb_to_yuv(rgb: np.ndarray, format: VideoFormat, pts: int) -> Frame:
    """The frame in `format` of `rgb` ((H, W, 3), uint8 0..255 or uint16 0..65535).

    Raises ValueError for another shape or type, UnsupportedInputError as `yuv_to_rgb`.
    """
    if rgb.shape != (format.height, format.width, 3) or rgb.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"RGB of {rgb.shape} {rgb.dtype} for a picture of {format.width}x{format.height}")
    kr, kb = luma_weights(format)
    y_scale, y_zero, c_scale, c_zero = _quantisation(format)
    red, green, blue = np.moveaxis(rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max), 2, 0)
    luma = np.float32(kr) * red + np.float32(1 - kr - kb) * green + np.float32(kb) * blue
    chroma = np.stack(
        [
            downsample_chroma((blue - luma) / np.float32(2 * (1 - kb)), format.colour.chroma_location),
            downsample_chroma((red - luma) / np.float32(2 * (1 - kr)), format.colour.chroma_location),
        ]
    )
    return Frame(
        y=_rounded((luma * y_scale + y_zero) / _peak(format), format.bit_depth),
        uv=_rounded((chroma * c_scale + c_zero) / _peak(format), format.bit_depth),
        pts=pts,
    )


def luma_weights(format: VideoFormat) -> tuple[float, float]:
    """(Kr, Kb) of the format's matrix. Raises UnsupportedInputError where there are none."""
    matrix = format.colour.resolved_matrix(format.height)
    if matrix not in LUMA_WEIGHTS:
        raise UnsupportedInputError(
            f"colour matrix {matrix} (H.273) has no conversion to RGB here: convert the video to BT.709 first"
        )
    return LUMA_WEIGHTS[matrix]


def upsample_chroma(plane: np.ndarray, format: VideoFormat) -> np.ndarray:
    """(ceil(H/2), ceil(W/2)) float32 to (H, W), linear between chroma locations, edges replicated."""
    across, down = _PHASES.get(format.colour.chroma_location, _PHASES[LEFT])
    return _stretch(_stretch(plane, format.height, down).T, format.width, across).T


def downsample_chroma(plane: np.ndarray, location: int, *, horizontally: bool = True) -> np.ndarray:
    """(H, W) float32 to (ceil(H/2), ceil(W/2)), or only halving the lines, centred on the chroma location.

    The weights are 1/2 1/2 between two samples, or 1/4 1/2 1/4 on top of one; edges replicated.
    """
    across, down = _PHASES.get(location, _PHASES[LEFT])
    halved = _halve(plane, down)
    return _halve(halved.T, across).T if horizontally else halved


def _stretch(plane: np.ndarray, size: int, phase: float) -> np.ndarray:
    """Lengthen the first axis to `size`: sample i of `plane` lies at 2 i + phase."""
    position = np.clip((np.arange(size) - phase) / 2, 0, plane.shape[0] - 1)
    before = position.astype(np.intp)
    after = np.minimum(before + 1, plane.shape[0] - 1)
    weight = (position - before).astype(np.float32)[:, None]
    return plane[before] * (1 - weight) + plane[after] * weight


def _halve(plane: np.ndarray, phase: float) -> np.ndarray:
    """Halve the first axis: sample i of the result lies at 2 i + phase."""
    last = plane.shape[0] - 1
    even = np.arange(0, plane.shape[0], 2)
    if phase == 0.5:
        return (plane[even] + plane[np.minimum(even + 1, last)]) * np.float32(0.5)
    centre = even + int(phase)
    before, at, after = (plane[np.clip(centre + step, 0, last)] for step in (-1, 0, 1))
    return (before + after) * np.float32(0.25) + at * np.float32(0.5)


def _quantisation(format: VideoFormat) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Luma scale and zero, chroma scale and zero, in code values."""
    unit = 1 << (format.bit_depth - 8)
    if format.colour.full_range:
        values = (_peak(format), 0, _peak(format), 128 * unit)
    else:
        values = (219 * unit, 16 * unit, 224 * unit, 128 * unit)
    y_scale, y_zero, c_scale, c_zero = (np.float32(value) for value in values)
    return y_scale, y_zero, c_scale, c_zero


def _peak(format: VideoFormat) -> int:
    return (1 << format.bit_depth) - 1


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Values in 0..1 as integers of `bits` bits, clipped."""
    peak = (1 << bits) - 1
    scaled = np.rint(np.clip(values, 0, 1) * np.float32(peak))
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)
