"""Training crops: YUV 4:2:0 planes cut from photographs, with a small synthetic part.

Imports torch, numpy and OpenCV only, so that training runs on a bare GPU machine.
Every crop is a pure function of (seed, step, worker, position), so a resumed run sees the
same data as an uninterrupted one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import TrainingError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
SYNTHETIC_SHARE = 0.06
FLAT = 8.0  # standard deviation of luma code values

Picture = TypeVar("Picture")


class Planes(NamedTuple):
    """8-bit 4:2:0 planes: y (H, W), uv (2, H/2, W/2); H and W even."""

    y: np.ndarray
    uv: np.ndarray


def bgr_to_planes(bgr: np.ndarray) -> Planes:
    """8-bit BGR (H, W, 3) to limited-range BT.601 4:2:0; odd sizes lose a row or column."""
    h, w = bgr.shape[0] // 2 * 2, bgr.shape[1] // 2 * 2
    i420 = cv2.cvtColor(np.ascontiguousarray(bgr[:h, :w]), cv2.COLOR_BGR2YUV_I420)
    return Planes(i420[:h].copy(), i420[h:].reshape(2, h // 2, w // 2).copy())


def planes_to_tensor(y: np.ndarray, uv: np.ndarray) -> Tensor:
    """Planes to the model's input (6, H/2, W/2) in [-0.5, 0.5]: 4 luma phases, U, V."""
    luma = torch.from_numpy(np.stack([y[i::2, j::2] for i in (0, 1) for j in (0, 1)]))
    x = torch.cat([luma, torch.from_numpy(np.ascontiguousarray(uv))]).float()
    return x / 255.0 - 0.5


def load_pictures(folder: Path, *, limit: int | None = None, progress: bool = True) -> list[tuple[str, Planes]]:
    """Every picture under `folder` as planes; see `read_pictures`."""
    return read_pictures(folder, bgr_to_planes, limit=limit, progress=progress)


def read_pictures(
    folder: Path, convert: Callable[[np.ndarray], Picture], *, limit: int | None = None, progress: bool = True
) -> list[tuple[str, Picture]]:
    """Names of the pictures under `folder` and what `convert` makes of them (8-bit BGR), in name order.

    Unreadable ones are reported.

    Raises TrainingError when nothing could be read.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)[:limit]

    def load(path: Path) -> tuple[str, Picture] | None:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None or min(bgr.shape[:2]) < 64:
            print(f"training data: skipped {path.name} (unreadable or under 64 pixels)", file=sys.stderr)
            return None
        return path.name, convert(bgr)

    with ThreadPoolExecutor(2) as pool:
        pictures = [p for p in pool.map(load, paths) if p is not None]
    if not pictures:
        raise TrainingError(f"no usable picture under {folder}; it must hold .jpg or .png files of 64 pixels or more")
    if progress:
        print(f"training data: {len(pictures)} pictures", file=sys.stderr)
    return pictures


def coded_before(plane: np.ndarray, quality: int) -> np.ndarray:
    """A plane as JPEG of that quality shows it."""
    coded = cv2.imencode(".jpg", np.ascontiguousarray(plane), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)


def photo_crop(rng: np.random.Generator, picture: Planes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A random crop, flipped, with changes of contrast, colour and sharpness.

    Shrunk by up to the whole picture, because small video frames hold whole scenes; or grown
    by up to 2.5, because video is often softer than photographs: enlarged, denoised, coded before.
    """
    h, w = picture.y.shape
    kind = rng.random()
    if kind < 0.6:
        scale = math.exp(rng.uniform(0.0, math.log(max(1.0, min(h, w) / size))))
    else:
        scale = float(rng.uniform(0.4, 1.0)) if kind < 0.75 else 1.0
    scale = max(min(scale, h / size, w / size), min(scale, 1.0))
    side = round(size * scale / 2) * 2
    y, uv = picture.y, picture.uv
    if min(h, w) < side:  # smaller than a crop: extend by reflection
        grow = ((0, max(0, side - h) // 2), (0, max(0, side - w) // 2))
        uv = np.pad(uv, ((0, 0), *grow), mode="symmetric")
        y = np.pad(y, tuple((2 * a, 2 * b) for a, b in grow), mode="symmetric")
        h, w = y.shape
    top = int(rng.integers(0, (h - side) // 2 + 1)) * 2
    left = int(rng.integers(0, (w - side) // 2 + 1)) * 2
    y = y[top : top + side, left : left + side]
    uv = uv[:, top // 2 : (top + side) // 2, left // 2 : (left + side) // 2]
    if side != size:
        method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        y = cv2.resize(y, (size, size), interpolation=method)
        uv = np.stack([cv2.resize(p, (size // 2, size // 2), interpolation=method) for p in uv])
    if rng.random() < 0.5:
        y, uv = y[:, ::-1], uv[:, :, ::-1]
    if rng.random() < 0.5:
        y, uv = y[::-1], uv[:, ::-1]
    if rng.random() < 0.5:
        y, uv = y.T, uv.transpose(0, 2, 1)
    if rng.random() < 0.1:
        sigma = float(rng.uniform(0.4, 1.5))
        y, uv = cv2.GaussianBlur(y, (0, 0), sigma), np.stack([cv2.GaussianBlur(p, (0, 0), sigma / 2) for p in uv])
    if rng.random() < 0.2:
        quality = int(rng.integers(25, 95))
        y, uv = coded_before(y, quality), np.stack([coded_before(p, quality) for p in uv])
    if rng.random() < 0.3:  # exposure and saturation; dark scenes among them
        gain = rng.uniform(0.15, 0.6) if rng.random() < 0.25 else rng.uniform(0.8, 1.1)
        y = np.clip((y.astype(np.float32) - 16) * gain + 16, 0, 255)
        uv = np.clip((uv.astype(np.float32) - 128) * gain * rng.uniform(0.6, 1.3) + 128, 0, 255)
        if gain < 0.6:  # night footage is noisy
            y = np.clip(y + rng.normal(0, rng.uniform(0, 3), y.shape), 0, 255)
        y, uv = np.rint(y).astype(np.uint8), np.rint(uv).astype(np.uint8)
    return y, uv


def synthetic_crop(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients, flat areas, text and lines: what screens show and photographs do not."""
    a, b = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    t = ramp[:, None] if rng.random() < 0.5 else ramp[None, :]
    if rng.random() < 0.4:
        t = np.zeros((1, 1), np.float32)
    bgr = a[None, None] * (1 - t[..., None]) + b[None, None] * t[..., None]
    bgr = np.ascontiguousarray(np.broadcast_to(bgr, (size, size, 3))).astype(np.uint8)
    for _ in range(int(rng.integers(0, 5))):
        p, q = rng.integers(0, size, (2, 2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.rectangle(bgr, tuple(map(int, p)), tuple(map(int, q)), colour, -1 if rng.random() < 0.6 else 1)
    letters = "etaoin shrdlu ETAOIN 0123456789 .,:;()[]{}=+-*/<>"
    for _ in range(int(rng.integers(0, 12))):
        text = "".join(rng.choice(list(letters), int(rng.integers(4, 30))))
        at = (int(rng.integers(-20, size - 10)), int(rng.integers(8, size)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        aliasing = cv2.LINE_AA if rng.random() < 0.8 else cv2.LINE_8
        cv2.putText(bgr, text, at, int(rng.integers(0, 8)), float(rng.uniform(0.3, 0.9)), colour, 1, aliasing)
    if rng.random() < 0.2:
        bgr = np.clip(bgr + rng.normal(0, rng.uniform(1, 12), bgr.shape), 0, 255).astype(np.uint8)
    return bgr_to_planes(bgr)


def batches(
    pictures: list[tuple[str, Planes]], *, seed: int, start: int, batch: int, crop: int, worker: int = 0
) -> Iterator[tuple[int, Tensor, np.random.Generator]]:
    """Endless (step, planes (batch, 6, crop/2, crop/2), generator for the step's other choices)."""
    areas = np.array([p.y.size for _, p in pictures], np.float64) ** 0.5
    share = areas / areas.sum()
    step = start
    while True:
        rng = np.random.default_rng([seed, step, worker])
        crops = []
        for i in rng.choice(len(pictures), batch, p=share):
            if rng.random() < SYNTHETIC_SHARE:
                crops.append(planes_to_tensor(*synthetic_crop(rng, crop)))
            else:
                y, uv = photo_crop(rng, pictures[i][1], crop)
                if y.std() < FLAT:  # skies teach little: draw once more
                    y, uv = photo_crop(rng, pictures[i][1], crop)
                crops.append(planes_to_tensor(y, uv))
        yield step, torch.stack(crops), rng
        step += 1
