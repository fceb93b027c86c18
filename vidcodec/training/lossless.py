"""Training of the lossless network: one visible loop.

    vidcodec train lossless --config FILE [--resume DIR]

Data are functions of (seed, step, worker); see `vidcodec.training.run` for how a run is kept and resumed.

Photographs come as JPEG files, whose 8x8 quantisation has eaten the noise that lossless coding mostly spends its bits
on. So most crops are shrunk until it is natural again. Most video that is kept without loss has been coded with loss
before: half of the 8-bit 4:2:0 crops go through H.264.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.families.lossless.network import Lossless, LosslessConfig
from vidcodec.families.lossless.planes import PlaneBatch, rgb_to_ycocg
from vidcodec.training.codec import split_pictures
from vidcodec.training.data import coded_before, read_pictures, synthetic_crop
from vidcodec.training.run import PictureRunConfig, Run, described

if TYPE_CHECKING:
    from vidcodec.checkpoint import Format

CHECK_SIDE = 256
TEN_BIT_SHARE = 0.15
COARSE_CHROMA_SHARE = 0.4
VIDEO_SHARE, JPEG_SHARE = 0.5, 0.15  # of 8-bit 4:2:0 crops: what they have been coded with before
VIDEO_QP = (8.0, 34.0)
SYNTHETIC_SHARE = 0.04
MATRICES = ((0.299, 0.114), (0.2126, 0.0722))  # Kr, Kb of BT.601 and BT.709

Pictures = list[tuple[str, np.ndarray]]  # 8-bit BGR


@dataclass(frozen=True, kw_only=True)
class LosslessTrainConfig(PictureRunConfig):
    """One training run of the lossless network.

    batch: crops a step, half of them RGB, half 4:2:0.

    Raises TrainingError for an entry of the wrong type or out of its range.
    """

    crop: int = 128
    lr: float = 3e-3
    warmup: int = 100
    validate_minutes: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 32 <= self.crop <= 256 or self.crop % 4:
            raise TrainingError(f"'crop' must be a multiple of 4 from 32 to 256, not {self.crop}")
        if self.batch < 2:
            raise TrainingError(f"'batch' must be 2 or more, one RGB and one 4:2:0 crop, not {self.batch}")


# -------------------------------------------------------------------------------- data


def load_photographs(folder: Path, *, limit: int | None = None, progress: bool = True) -> Pictures:
    """Every picture under `folder`, 8-bit BGR, in name order; raises TrainingError when nothing could be read."""
    return read_pictures(folder, lambda bgr: bgr, limit=limit, progress=progress)


def crop_of(rng: np.random.Generator, bgr: np.ndarray, size: int) -> np.ndarray:
    """A random crop, mostly shrunk, at times grown, sharpened, darkened, made noisy: float32 BGR (size, size, 3)."""
    h, w = bgr.shape[:2]
    kind, room = rng.random(), min(h, w) / size
    if kind < 0.72:
        scale = math.exp(rng.uniform(math.log(1.5), math.log(max(1.6, min(room, 5.0)))))
    else:
        scale = 1.0 if kind < 0.9 else float(rng.uniform(0.5, 1.0))
    scale = min(scale, room)
    side = min(h, w, max(8, round(size * scale)))
    top, left = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w - side + 1))
    x: np.ndarray = bgr[top : top + side, left : left + side].astype(np.float32)
    if side > size and rng.random() < 0.4:  # between sharp with aliasing and soft
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.15, 0.45)) * scale)
        x = cv2.resize(x, (size, size), interpolation=cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_LINEAR)
    elif side != size:
        x = cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        x = x[:, ::-1]
    if rng.random() < 0.5:
        x = x[::-1]
    if rng.random() < 0.5:
        x = x.transpose(1, 0, 2)
    if rng.random() < 0.15:  # cameras sharpen
        x = x + float(rng.uniform(0.2, 1.0)) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    if rng.random() < 0.2:
        x = x * float(rng.uniform(0.2, 0.7) if rng.random() < 0.4 else rng.uniform(0.7, 1.3))
    if rng.random() < 0.25:  # sensors' noise, with and without the smoothing of demosaicing
        noise = rng.standard_normal(x.shape, np.float32) * float(rng.uniform(0.3, 4.0))
        x = x + (noise if rng.random() < 0.5 else cv2.GaussianBlur(noise, (0, 0), 0.6) * 2)
    return np.ascontiguousarray(x)


def with_coarse_chroma(rng: np.random.Generator, bgr: np.ndarray) -> np.ndarray:
    """Float BGR after its chroma has been halved and brought back, as JPEG, Photo CD and most video store it."""
    h, w = bgr.shape[:2]
    ycc = cv2.cvtColor(bgr / 255, cv2.COLOR_BGR2YCrCb)
    half = cv2.resize(ycc[..., 1:], (w // 2, h // 2), interpolation=cv2.INTER_AREA)
    way = cv2.INTER_NEAREST if rng.random() < 0.1 else cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
    ycc[..., 1:] = cv2.resize(half, (w, h), interpolation=way)
    if rng.random() < 0.5:  # stored in 8 bits
        ycc = np.rint(ycc * 255) / 255
    return cv2.cvtColor(ycc, cv2.COLOR_YCrCb2BGR) * 255


def to_420(rng: np.random.Generator, bgr: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Float BGR to planes y (H, W), uv (2, H/2, W/2) of whole numbers; matrix and range at random."""
    kr, kb = MATRICES[int(rng.random() < 0.5)]
    b, g, r = (bgr[..., i] for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    uv = np.stack([(b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)])
    uv = (uv[:, ::2, ::2] + uv[:, 1::2, ::2] + uv[:, ::2, 1::2] + uv[:, 1::2, 1::2]) / 4
    full, unit = rng.random() < 0.15, 2.0 ** (bits - 8)
    y, uv = (y, uv + 128) if full else (y * (219 / 255) + 16, uv * (224 / 255) + 128)
    y, uv = (np.rint(x * unit).clip(0, 256 * unit - 1) for x in (y, uv))
    before = rng.random() if bits == 8 else 1.0  # most video has been coded before
    if before < VIDEO_SHARE:
        return filmed(rng, y.astype(np.uint8), uv.astype(np.uint8))
    if before < VIDEO_SHARE + JPEG_SHARE:
        quality = int(rng.integers(40, 98))
        y, *uv = (coded_before(p.astype(np.uint8), quality) for p in (y, *uv))  # type: ignore[assignment]
    return y, np.stack(uv)  # type: ignore[call-overload]


def filmed(rng: np.random.Generator, y: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8-bit planes y (H, W), uv (2, H/2, W/2) as a frame of H.264 shows them: one of three of a camera that pans."""
    from vidcodec.training.filter_data import coded  # PyAV

    size = y.shape[0]
    speed = np.zeros(2) if rng.random() < 0.4 else rng.normal(0, 2.0, 2)

    def moved(plane: np.ndarray, shift: np.ndarray) -> np.ndarray:
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        side = plane.shape[::-1]
        return cv2.warpAffine(plane, matrix, side, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

    clip = []
    for k in range(3):
        planes = (moved(y, 2 * k * speed), *(moved(p, k * speed) for p in uv)) if speed.any() else (y, *uv)
        clip.append(np.concatenate([p.reshape(-1, size) for p in planes]))
    pictures, _ = coded(np.stack(clip), "x264", float(rng.uniform(*VIDEO_QP)), constant=True)
    shown = pictures[int(rng.integers(len(pictures)))]
    return shown[:size], shown[size:].reshape(2, size // 2, size // 2)


def rgb_batch(bgr: list[np.ndarray]) -> PlaneBatch:
    """Float BGR pictures, rounded, as 8-bit RGB."""
    planes = [rgb_to_ycocg(np.rint(x[..., ::-1]).clip(0, 255), 8) for x in bgr]
    return PlaneBatch.of(planes, 8, rgb=True)


def yuv_batch(rng: np.random.Generator, bgr: list[np.ndarray], bits: int) -> PlaneBatch:
    """Float BGR pictures as 4:2:0."""
    return PlaneBatch.of([to_420(rng, x, bits) for x in bgr], bits, rgb=False)


def batches(
    pictures: Pictures, *, seed: int, start: int, batch: int, crop: int, worker: int = 0
) -> Iterator[tuple[int, list[PlaneBatch]]]:
    """Endless (step, [RGB, 4:2:0])."""
    share = np.array([p.size for _, p in pictures], np.float64) ** 0.5
    share /= share.sum()
    step = start
    while True:
        rng = np.random.default_rng([seed, step, worker])

        def draw(rng: np.random.Generator = rng) -> np.ndarray:
            if rng.random() < SYNTHETIC_SHARE:
                y, uv = synthetic_crop(rng, crop)
                i420 = np.concatenate([y, uv.reshape(-1, crop)])
                return cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420).astype(np.float32)
            return crop_of(rng, pictures[rng.choice(len(pictures), p=share)][1], crop)

        rgb = [draw() for _ in range(batch // 2)]
        rgb = [with_coarse_chroma(rng, x) if rng.random() < COARSE_CHROMA_SHARE else x for x in rgb]
        bits = 10 if rng.random() < TEN_BIT_SHARE else 8
        yield step, [rgb_batch(rgb), yuv_batch(rng, [draw() for _ in range(batch - batch // 2)], bits)]
        step += 1


def check_batches(pictures: Pictures) -> list[PlaneBatch]:
    """The middles of pictures, halved; RGB and 4:2:0."""
    middles = []
    for _, bgr in pictures:
        h, w = bgr.shape[:2]
        side = min(2 * CHECK_SIDE, h, w) // 8 * 8
        top, left = (h - side) // 2, (w - side) // 2
        x = bgr[top : top + side, left : left + side].astype(np.float32)
        middles.append(cv2.resize(x, (side // 2, side // 2), interpolation=cv2.INTER_AREA))
    rng = np.random.default_rng(0)
    return [b for x in middles for b in (rgb_batch([x]), yuv_batch(rng, [x], 8))]


# ---------------------------------------------------------------------------- the loss


def plane_bpp(model: Lossless, batch: PlaneBatch) -> Tensor:
    """Mean bits a pixel of the planes of a batch: (3,)."""
    return torch.stack([bits.sum() for bits in model(batch)]) / batch.y.numel()


@torch.no_grad()
def validate(model: Lossless, checks: list[PlaneBatch]) -> dict[str, Any]:
    """Mean bits a pixel of held-out pictures, plane by plane and together; the score is the mean of both kinds."""
    kinds = {}
    for name, rgb in (("rgb", True), ("yuv420", False)):
        mean = torch.stack([plane_bpp(model, b) for b in checks if b.rgb == rgb]).mean(0)
        kinds[name] = [round(float(v), 4) for v in (mean.sum(), *mean)]
    return {**kinds, "score": round((kinds["rgb"][0] + kinds["yuv420"][0]) / 2, 4)}


def said(figures: dict[str, Any]) -> str:
    """What `validate` found, as progress."""
    return f"bpp rgb {figures['rgb']}  4:2:0 {figures['yuv420']}"


# ------------------------------------------------------------------------ the training


def checkpoint() -> Format[Lossless]:
    """What this network's weights are kept in."""
    from vidcodec.families.lossless.checkpoint import LOSSLESS  # safetensors: not needed to train

    return LOSSLESS


def train_lossless(c: LosslessTrainConfig, *, resume: bool = False) -> Path:
    """Run (or continue) one training; returns the path of the final state.

    Raises TrainingError when the data or the state to resume cannot be read. On
    KeyboardInterrupt the state is saved first.
    """

    def build() -> tuple[Lossless, dict[str, Any]]:
        model = described(lambda: Lossless(LosslessConfig.from_dict({**LosslessConfig().to_dict(), **c.model})))
        return model, model.config.to_dict()

    run = Run(c, build, checkpoint, device=c.device, resume=resume)
    held, kept = split_pictures(load_photographs(Path(c.data), progress=run.workers.first), c.holdout)
    checks = [b.to(run.device) for b in check_batches(held or kept[:8])]
    source = batches(kept, seed=c.seed, start=run.done, batch=c.batch, crop=c.crop, worker=run.workers.rank)
    with run.recorded(lambda network: validate(network, checks), said):
        for step, parts in run.paced(source):
            bpp = [plane_bpp(run.network, b.to(run.device)).sum() for b in parts]
            norm = run.step(torch.stack(bpp).sum())
            if step % 100 == 0:
                run.tell(step, f"bpp rgb {bpp[0].item():.3f}  4:2:0 {bpp[1].item():.3f}  |g| {norm:.2f}")
    return run.state_path
