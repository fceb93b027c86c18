"""Measures of quality between 8-bit 4:2:0 frames.

PSNR       of Y, U, V and R'G'B' (BT.601 below 720 lines, else BT.709, unless tagged), both ways of averaging:
           mean squared errors over frames before the logarithm, and PSNR frame by frame
SSIM       Wang et al. 2004 ("Image quality assessment"), of Y, by scikit-image, Gaussian window of sigma 1.5
MS-SSIM    Wang et al. 2003 ("Multiscale structural similarity"), of Y, see `ms_ssim`
XPSNR      Helmrich et al. 2020, by FFmpeg's filter, see `xpsnr`
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidcodec.codec.quality import psnr
from vidcodec.errors import UnsupportedInputError
from vidcodec.video import Frame, VideoFormat, yuv_to_rgb
from vidcodec.video.encoders import picture_of

PLANES = ("y", "u", "v", "rgb")
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, table 1, fine to coarse
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
PEAK = 255.0
SMALLEST_XPSNR = 64 * 64  # samples; FFmpeg's filter divides by a block size that is 0 below 45x45


@dataclass(frozen=True)
class Measures:
    """quality: as in `results.Point`. frame_psnr: 'y' and 'yuv' by frame. notes: what was left out."""

    quality: dict[str, float | None]
    frame_psnr: dict[str, list[float]]
    notes: list[str]


def measure(
    source: Iterable[Frame], decoded: Iterable[Frame], format: VideoFormat, rgb: Iterable[Frame | None] = ()
) -> Measures:
    """Everything, over all frames; rgb: the source's R'G'B' where that is what it was made from.

    Raises ValueError unless all have the same number of frames, one at least.
    """
    errors: list[np.ndarray] = []
    similarity: dict[str, list[float]] = {"ssim_y": [], "ms_ssim_y": []}
    notes = []
    with Xpsnr(format) as filtered:
        for (a, b), whole in zip(zip(source, decoded, strict=True), rgb or repeat(None), strict=False):
            errors.append(squared_errors(a, b, format, whole))
            if (value := ssim(a.y, b.y)) is not None:
                similarity["ssim_y"].append(value)
            if scales_of(*a.y.shape):
                similarity["ms_ssim_y"].append(ms_ssim(a.y, b.y))
            filtered.add(a, b)
    scales = scales_of(format.height, format.width)
    if scales < len(MS_SSIM_WEIGHTS):
        notes.append(f"MS-SSIM over {scales} of 5 scales: the pictures are too small" if scales else "no MS-SSIM")
    if not similarity["ssim_y"]:
        notes.append("no SSIM: it needs scikit-image and pictures of 11x11 samples")
    if filtered.problem:
        notes.append(f"no XPSNR: {filtered.problem}")
    quality = {**psnr_figures(errors), **filtered.result}
    quality |= {name: float(np.mean(values)) if values else None for name, values in similarity.items()}
    return Measures(quality, frame_figures(errors), notes)


# ------------------------------------------------------------------------------------ PSNR


def squared_errors(a: Frame, b: Frame, format: VideoFormat, rgb: Frame | None = None) -> np.ndarray:
    """Mean squared errors of Y, U, V and R'G'B' in code values squared: (4,), not a number where there is no R'G'B'.

    rgb: a's, where there is more of it than a tells.
    """
    pairs = [(a.y, b.y), (a.uv[0], b.uv[0]), (a.uv[1], b.uv[1])]
    try:
        whole = yuv_to_rgb(a, format) if rgb is None else np.stack([rgb.uv[1], rgb.y, rgb.uv[0]], -1)
        pairs.append((whole, yuv_to_rgb(b, format)))
    except UnsupportedInputError:  # a matrix that has none
        return np.array([*map(_mse, pairs), math.nan])
    return np.array([_mse(pair) for pair in pairs])


def _mse(pair: tuple[np.ndarray, np.ndarray]) -> float:
    x, y = pair
    return float(np.square(x.astype(np.float64) - y).mean())


def psnr_figures(errors: list[np.ndarray]) -> dict[str, float | None]:
    """PSNR in decibels by plane, from `squared_errors` of every frame; '_frame_mean': of every frame, then the mean."""
    whole = _planes(np.mean(errors, axis=0))
    frames = [_planes(e) for e in errors]
    every = {k: [v for f in frames if (v := f[k]) is not None] for k in whole}
    return {**whole, **{f"{k}_frame_mean": float(np.mean(v)) if v else None for k, v in every.items()}}


def frame_figures(errors: list[np.ndarray]) -> dict[str, list[float]]:
    """PSNR of Y and of YUV (6:1:1) of every frame."""
    frames = [_planes(e) for e in errors]
    return {name: [float(f[f"psnr_{name}"] or 0) for f in frames] for name in ("y", "yuv")}


def _planes(mse: np.ndarray) -> dict[str, float | None]:
    out = {f"psnr_{k}": None if math.isnan(e) else psnr(float(e), 8) for k, e in zip(PLANES, mse, strict=True)}
    y, u, v = (float(out[f"psnr_{k}"] or 0) for k in "yuv")
    return {**out, "psnr_yuv": (6 * y + u + v) / 8}


# ------------------------------------------------------------------------------------ SSIM


def ssim(a: np.ndarray, b: np.ndarray) -> float | None:
    """SSIM of two planes (H, W) uint8; None below 11x11 samples and without scikit-image."""
    try:
        structural_similarity: Any = import_module("skimage.metrics").structural_similarity
    except ImportError:
        return None
    if min(a.shape) < WINDOW:
        return None
    return float(structural_similarity(a, b, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False))


def scales_of(height: int, width: int) -> int:
    """How many of the five scales a picture has room for: the window must fit at the coarsest. None: 0."""
    room = min(height, width) // WINDOW
    return min(len(MS_SSIM_WEIGHTS), room.bit_length())


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM of two planes (H, W) uint8, between 0 and 1 (Wang et al. 2003, equation 7 with the weights of table 1).

    Contrast and structure at every scale, luminance at the coarsest; between scales a mean of 2x2 samples. Pictures
    with a side below 176 samples have no room for five scales: they get as many as fit, with the weights of those
    scaled to a sum of one. Raises ValueError below 11x11.
    """
    scales = scales_of(*a.shape)
    if not scales:
        raise ValueError(f"MS-SSIM of {a.shape[1]}x{a.shape[0]} samples: the window has {WINDOW}x{WINDOW}")
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(weights):
        luminance, structure = _similarity(x, y)
        last = scale == scales - 1
        value = float((luminance * structure).mean() if last else structure.mean())
        product *= max(value, 0.0) ** weight
        if not last:
            x, y = _halved(x), _halved(y)
    return product


def _similarity(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The luminance term and the product of contrast and structure, where the whole window lies inside."""
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mx, my = _blurred(x), _blurred(y)
    vx, vy, vxy = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * vxy + c2) / (vx + vy + c2)


def _blurred(x: np.ndarray) -> np.ndarray:
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    edge = WINDOW // 2
    return cv2.sepFilter2D(x, -1, kernel, kernel)[edge : x.shape[0] - edge, edge : x.shape[1] - edge]


def _halved(x: np.ndarray) -> np.ndarray:
    h, w = (side // 2 * 2 for side in x.shape)
    return x[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))


# ----------------------------------------------------------------------------------- XPSNR


class Xpsnr:
    """FFmpeg's xpsnr filter in a graph of PyAV's; use it in a `with` statement.

    result: xpsnr_y, _u, _v in decibels, the filter's average over all frames, None each where there is none; known at
    the end of the block. problem: why there is none, or ''.
    """

    def __init__(self, format: VideoFormat) -> None:
        self.result: dict[str, float | None] = dict.fromkeys(("xpsnr_y", "xpsnr_u", "xpsnr_v"))
        self.problem = ""
        self._format = format
        self._count = 0

    def __enter__(self) -> Xpsnr:
        self._folder = tempfile.TemporaryDirectory(prefix="vidcodec-")
        self._log = Path(self._folder.name, "xpsnr.log")
        self._graph, self._inputs = self._build()
        return self

    def _build(self) -> tuple[Any, list[Any]]:
        import av.filter

        if "xpsnr" not in av.filter.filters_available:
            self.problem = "this PyAV's FFmpeg has no such filter"
            return None, []
        if self._format.width * self._format.height < SMALLEST_XPSNR:
            self.problem = "the pictures are too small"
            return None, []
        graph = av.filter.Graph()
        size: dict[str, Any] = {"width": self._format.width, "height": self._format.height, "format": "yuv420p"}
        inputs = [graph.add_buffer(time_base=Fraction(1, 25), **size) for _ in range(2)]
        compare, sink = graph.add("xpsnr", f"stats_file={self._log}"), graph.add("buffersink")
        for i, node in enumerate(inputs):
            node.link_to(compare, 0, i)
        compare.link_to(sink)
        graph.configure()
        return graph, inputs

    def add(self, a: Frame, b: Frame) -> None:
        """One pair of frames."""
        if self._graph is None:
            return
        for node, frame in zip(self._inputs, (a, b), strict=True):
            picture = picture_of(frame, "yuv420p", self._format.width, self._format.height)
            picture.pts, picture.time_base = self._count, Fraction(1, 25)
            node.push(picture)
        self._count += 1
        self._drain()

    def _drain(self) -> None:
        import av.error

        try:
            while True:
                self._graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return

    def __exit__(self, *exc: object) -> None:
        if self._graph is not None and exc[0] is None:
            for node in self._inputs:
                node.push(None)
            self._drain()
            self._graph, self._inputs = None, []  # the log is complete once the filter is gone
            self._read(self._log.read_text() if self._log.is_file() else "")
        self._folder.cleanup()

    def _read(self, log: str) -> None:
        found = re.search(r"XPSNR average, (\d+) frames(.*)", log)
        if found is None or int(found[1]) != self._count:
            self.problem = f"FFmpeg's filter did not report on all {self._count} frames"
            return
        for plane, value in re.findall(r"([yuv]): *([\d.]+|inf)", found[2]):
            self.result[f"xpsnr_{plane}"] = min(100.0, float(value))
