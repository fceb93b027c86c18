"""Pairs for training the post-filter: short clips made from photographs, coded, and their decoded pictures.

A clip pans and zooms over one photograph, often with a piece of another moving across it,
so that predicted pictures with motion vectors, skipped and intra-coded blocks all occur.
Pairs are made once and kept as one compact file per clip:

    NNNNN.npy     uint8 (frames, 2, 6, h, w): decoded and source planes (4 luma phases, U, V)
    index.jsonl   one line per clip: file, codec, the QP of every frame
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from vidcodec.errors import TrainingError
from vidcodec.postfilter.planes import pack, to_tensor
from vidcodec.postfilter.quantiser import frame_type, level_of_qp, packet_qp
from vidcodec.training.data import load_pictures

SIDE = 256  # luma samples
FRAMES = 8  # of a clip
KEPT = 4  # of them
QP_RANGE = (18.0, 46.0)
CODECS = {"x264": ("libx264", "h264"), "x265": ("libx265", "hevc"), "svtav1": ("libsvtav1", "libdav1d")}
CODEC_SHARES = (0.4, 0.4, 0.2)

Pictures = list[tuple[str, np.ndarray]]


# ---------------------------------------------------------------------------------- clips


def path_over(rng: np.random.Generator, frames: int, reach: float) -> np.ndarray:
    """(frames, 2): a start in 0 and a steady motion of up to `reach` samples a frame, with a little shake."""
    speed = rng.normal(0, reach / 2, 2).clip(-reach, reach)
    shake = rng.normal(0, 0.3, (frames, 2)) if rng.random() < 0.3 else 0.0
    return np.arange(frames)[:, None] * speed + shake


def view(picture: np.ndarray, centre: np.ndarray, zoom: float, angle: float) -> np.ndarray:
    """The SIDE x SIDE part of a picture (H, W, 3) around a point (x, y), enlarged and turned (degrees)."""
    turn = np.asarray(cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, zoom), np.float64)
    turn[:, 2] += SIDE / 2 - centre
    return cv2.warpAffine(picture, turn, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def make_clip(rng: np.random.Generator, pictures: Pictures) -> np.ndarray:
    """(FRAMES, 1.5 SIDE, SIDE) uint8, I420."""

    def scene() -> tuple[np.ndarray, np.ndarray]:
        picture = pictures[int(rng.integers(len(pictures)))][1]
        shrink = max(float(rng.uniform(0.5, 1.0)), (SIDE + 32) / min(picture.shape[:2]))
        if shrink < 0.95:
            picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
        low, high = np.array([SIDE / 2, SIDE / 2]), np.array([width - SIDE / 2, height - SIDE / 2])
        return picture, rng.uniform(low, np.maximum(high, low + 1))

    still = rng.random() < 0.25  # a fixed camera
    back, start = scene()
    motion = np.zeros((FRAMES, 2)) if still else path_over(rng, FRAMES, 6.0)
    zoom, turn = (0.0, 0.0) if still or rng.random() < 0.5 else (rng.normal(0, 0.006), rng.normal(0, 0.4))
    thing = scene() if rng.random() < 0.5 else None
    if thing is not None:
        axes, tilt = tuple(int(a) for a in rng.integers(24, 90, 2)), float(rng.uniform(0, 180))
        mask: Any = np.zeros((SIDE, SIDE), np.float32)
        cv2.ellipse(mask, (SIDE // 2, SIDE // 2), axes, tilt, 0, 360, (1.0,), -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
        place, travel = rng.uniform(-SIDE / 3, SIDE / 3, 2), path_over(rng, FRAMES, 8.0)
    noise = float(rng.uniform(0, 2.5)) if rng.random() < 0.3 else 0.0
    gain = float(rng.uniform(0.5, 1.05)) if rng.random() < 0.3 else 1.0
    out = []
    for i in range(FRAMES):
        bgr: Any = view(back, start + motion[i], 1.0 + zoom * i, turn * i).astype(np.float32)
        if thing is not None:
            shift = np.array([[1, 0, place[0] + travel[i, 0]], [0, 1, place[1] + travel[i, 1]]], np.float32)
            over = cv2.warpAffine(view(thing[0], thing[1], 1.0, 0.0), shift, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
            alpha = cv2.warpAffine(mask, shift, (SIDE, SIDE))[..., None]
            bgr = bgr * (1 - alpha) + over * alpha
        bgr = bgr * gain
        if noise:
            bgr = bgr + rng.normal(0, noise, bgr.shape[:2]).astype(np.float32)[..., None]
        out.append(cv2.cvtColor(np.clip(np.rint(bgr), 0, 255).astype(np.uint8), cv2.COLOR_BGR2YUV_I420))
    return np.stack(out)


# --------------------------------------------------------------------------------- coding


def coded(clip: np.ndarray, codec: str, qp: float, *, constant: bool) -> tuple[np.ndarray, list[float]]:
    """Code and decode a clip (frames, 1.5 H, W): the decoded pictures, the mean QP of each one's frame type."""
    encoder_name, decoder_name = CODECS[codec]
    encoder: Any = av.CodecContext.create(encoder_name, "w")
    encoder.height, encoder.width = clip.shape[1] * 2 // 3, clip.shape[2]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
    encoder.thread_count = 1
    mode = "qp" if constant else "crf"
    encoder.options = {
        "x264": {"preset": "medium", mode: f"{qp:.0f}"},
        "x265": {"preset": "medium", "x265-params": f"{mode}={qp:.0f}:log-level=none:pools=none:frame-threads=1"},
        "svtav1": {"preset": "9", "crf": f"{level_of_qp(qp)}", "svtav1-params": "lp=1"},
    }[codec]
    packets = []
    for i, picture in enumerate(clip):
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = i, Fraction(1, 30)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    told = {p.pts: packet_qp(p) for p in packets}
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoder.thread_count = 1
    frames = sorted((f for p in [*packets, None] for f in decoder.decode(p)), key=lambda f: f.pts)
    types = np.array([frame_type(int(f.pict_type)) for f in frames])
    labels = np.array([qp if codec == "svtav1" or told[f.pts] is None else told[f.pts] for f in frames], np.float64)
    means = {t: float(labels[types == t].mean()) for t in set(types.tolist())}
    return np.stack([f.to_ndarray() for f in frames]), [means[t] for t in types.tolist()]


def to_planes(i420: np.ndarray) -> np.ndarray:
    """(1.5 H, W) to (6, H/2, W/2)."""
    h = i420.shape[0] * 2 // 3
    return pack(i420[:h], i420[h:].reshape(2, h // 2, -1))


def prepare_pairs(pictures: Path, folder: Path, clips: int, *, seed: int) -> None:
    """Make pairs until the folder holds `clips` of them; clip i is a function of (seed, i).

    Raises TrainingError when the pictures or the folder cannot be used.
    """
    index = folder / "index.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = len(index.read_text().splitlines()) if index.exists() else 0
        if done >= clips:
            return
        sources: Pictures = []
        for name, planes in load_pictures(pictures):
            i420 = np.concatenate([planes.y, planes.uv.reshape(-1, planes.y.shape[1])])
            if min(planes.y.shape) >= SIDE:
                sources.append((name, cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)))
        if not sources:
            raise TrainingError(f"no picture of {SIDE} pixels or more on both sides under {pictures}")
        begin = time.monotonic()
        for i in range(done, clips):
            rng = np.random.default_rng([seed, i])
            clip = make_clip(rng, sources)
            codec = str(rng.choice(list(CODECS), p=CODEC_SHARES))
            decoded, qps = coded(clip, codec, float(rng.uniform(*QP_RANGE)), constant=bool(rng.random() < 0.5))
            kept = [0, *sorted(rng.choice(np.arange(1, FRAMES), KEPT - 1, replace=False).tolist())]
            pairs = np.stack([[to_planes(decoded[k]), to_planes(clip[k])] for k in kept])
            np.save(folder / f"{i:05d}.npy", pairs)
            row = {"file": f"{i:05d}.npy", "codec": codec, "qp": [round(qps[k], 2) for k in kept]}
            with index.open("a") as f:
                f.write(json.dumps(row) + "\n")
            if (i + 1) % 50 == 0:
                left = (time.monotonic() - begin) / (i + 1 - done) * (clips - i - 1)
                print(f"pairs: {i + 1} of {clips} clips, {left / 60:.1f} min left", file=sys.stderr, flush=True)
    except OSError as e:
        raise TrainingError(f"cannot keep training pairs in {folder}: {e.strerror or e}") from e


# ------------------------------------------------------------------------------- batches


class Pairs:
    """What `prepare_pairs` made; every 40th clip is held out.

    Raises TrainingError when the folder holds no pairs.
    """

    def __init__(self, folder: Path) -> None:
        try:
            rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
            self.clips = [(np.load(folder / row["file"], mmap_mode="r"), list(row["qp"])) for row in rows]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise TrainingError(f"{folder} holds no training pairs: {e}") from e
        self.held = self.clips[::40]
        self.kept = [c for i, c in enumerate(self.clips) if i % 40] or self.held
        if not self.clips:
            raise TrainingError(f"{folder} holds no training pairs: remove it, and they are made again")

    def batches(self, *, seed: int, start: int, batch: int, crop: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Endless (step, decoded (B, 6, crop/2, crop/2), source like it, qp (B,)); a function of (seed, step)."""
        step, side = start, crop // 2
        while True:
            rng = np.random.default_rng([seed, step])
            crops, qps = [], []
            for i in rng.integers(len(self.kept), size=batch):
                pairs, qp = self.kept[i]
                k = int(rng.integers(len(pairs)))
                top, left = (int(v) for v in rng.integers(0, np.array(pairs.shape[-2:]) - side + 1))
                crops.append(mirrored(rng, pairs[k, :, :, top : top + side, left : left + side]))
                qps.append(qp[k] + rng.normal(0, 1.0))
            pair = to_tensor(np.stack(crops), 8)  # (B, 2, 6, ., .)
            yield step, pair[:, 0], pair[:, 1], torch.tensor(qps, dtype=torch.float32)
            step += 1

    def checks(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Whole held-out clips: (decoded (frames, 6, ., .), source, qp (frames,))."""
        out = []
        for pairs, qp in self.held:
            pair = to_tensor(np.asarray(pairs), 8)
            out.append((pair[:, 0], pair[:, 1], torch.tensor(qp)))
        return out


def mirrored(rng: np.random.Generator, planes: np.ndarray) -> np.ndarray:
    """(..., 6, h, w), flipped and transposed at random; the luma phases change places with the samples."""
    phases = np.arange(4).reshape(2, 2)
    if rng.random() < 0.5:
        planes, phases = planes[..., ::-1], phases[:, ::-1]
    if rng.random() < 0.5:
        planes, phases = planes[..., ::-1, :], phases[::-1]
    if rng.random() < 0.5:
        planes, phases = planes.swapaxes(-1, -2), phases.T
    return planes[..., [*phases.ravel().tolist(), 4, 5], :, :]
