"""The lossless mode: a video or picture to a .vdc file and back, every sample as it was.

    frames      sampled, spooled to disk; RGB stays RGB
    adapt       finetune the network to them: fewer bits, a model update to pay for
    code        all frames for real, with and without the update; the smaller file is kept
    write       the units of every .vdc file

A frame's payload is a byte that says how, and its samples: coded, or packed where that is shorter. FRAM's z holds the
first bytes of the SHA-256 of the samples, its checksum their CRC-32: what a decoder shows is what went in, or an error.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcodec.adapt.lossless import LosslessObjective
from vidcodec.bitstream import FrameUnit
from vidcodec.codec.adapting import finetuned, settled_strategy
from vidcodec.codec.encode import EncodeResult
from vidcodec.codec.files import RGB, YUV, Report, spool, units_size, write_file
from vidcodec.codec.models import BaseModel, load_base, pick_device
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.unit_spool import UnitSpool
from vidcodec.denormals import flushed_denormals
from vidcodec.errors import CorruptBitstreamError
from vidcodec.models.lossless import Lossless
from vidcodec.models.lossless_checkpoint import NAME
from vidcodec.models.lossless_exact import ExactLossless
from vidcodec.models.lossless_planes import PlaneBatch, rgb_to_ycocg, ycocg_to_rgb
from vidcodec.video import Frame, VideoFormat

CODED, PACKED = b"\x00", b"\x01"
HASH_BYTES = 8
# Of one finetuning step, and of what adaptation is measured on.
STEP_PIXELS, CHECK_PIXELS = 1 << 17, 1 << 21
CACHE_PIXELS = 128_000_000
# Of `FinetuneConfig`. A fortieth of the lossy codec's weights, and no error to weigh against bits: much bolder steps
# than there are still safe, and matrices move nearly from the beginning.
PACE: dict[str, Any] = {
    "vector_lr": 0.5,
    "matrix_lr": 0.05,
    "damping": 0.8,
    "vector_share": 0.1,
    "latent_share": 0.0,
}

Array = np.ndarray


# ----------------------------------------------------------------------------- one picture


class LosslessPictureCodec:
    """Codes frames of one format with a network's weights."""

    def __init__(self, network: Lossless, video: VideoFormat) -> None:
        self.exact, self.video = ExactLossless(network), video

    def encode(self, frame: Frame, index: int) -> FrameUnit:
        """One FRAM."""
        f = self.video
        payload = CODED + self.exact.encode(*to_planes(frame, f), f.bit_depth, rgb=f.rgb).finish()
        if len(payload) > 1 + _packed_size(f):
            payload = PACKED + _pack(frame, f.bit_depth)
        crc, digest = fingerprints(frame)
        return FrameUnit(index=index, pts=frame.pts, z=digest, y=payload, checksum=crc)

    def decode(self, unit: FrameUnit) -> Frame:
        """The frame; raises CorruptBitstreamError unless every sample is as it was."""
        f, how, data = self.video, unit.y[:1], unit.y[1:]
        if how == PACKED:
            frame = _unpack(data, f, unit.pts)
        elif how == CODED:
            planes = self.exact.decode(data, f.height, f.width, f.bit_depth, rgb=f.rgb)
            frame = from_planes(*planes, f, unit.pts)
        else:
            raise CorruptBitstreamError(f"frame {unit.index}: stored in an unknown way: use a newer vidcodec")
        if (unit.checksum, unit.z) != fingerprints(frame):
            raise CorruptBitstreamError(
                f"frame {unit.index}: the decoded samples do not match their hash; payload or model differ from the "
                "encoder's"
            )
        return frame


def to_planes(frame: Frame, video: VideoFormat) -> tuple[Array, Array]:
    """Luma (H, W) and chroma (2, ., .) as the network sees them."""
    if not video.rgb:
        return frame.y, frame.uv
    return rgb_to_ycocg(np.stack([frame.uv[1], frame.y, frame.uv[0]], -1), video.bit_depth)


def from_planes(y: Array, chroma: Array, video: VideoFormat, pts: int) -> Frame:
    """The opposite of `to_planes`. Planes of a damaged payload may lead out of the range: they wrap around."""
    if video.rgb:
        r, g, b = np.moveaxis(ycocg_to_rgb(y, chroma, video.bit_depth), 2, 0)
        y, chroma = g, np.stack([b, r])
    top = (1 << video.bit_depth) - 1
    return Frame((y & top).astype(video.dtype), (chroma & top).astype(video.dtype), pts)


def fingerprints(frame: Frame) -> tuple[int, bytes]:
    """CRC-32 of a frame's samples, and the first bytes of their SHA-256."""
    planes = [np.ascontiguousarray(p, p.dtype.newbyteorder("<")) for p in (frame.y, frame.uv)]
    crc, digest = 0, hashlib.sha256()
    for plane in planes:
        crc = zlib.crc32(plane.data, crc)
        digest.update(plane.data)
    return crc, digest.digest()[:HASH_BYTES]


def _samples(video: VideoFormat) -> int:
    return video.frame_bytes // video.dtype.itemsize


def _packed_size(video: VideoFormat) -> int:
    return (_samples(video) * video.bit_depth + 7) // 8


def _pack(frame: Frame, bits: int) -> bytes:
    """All samples of 8 or 10 bits, the highest bit first."""
    flat = np.concatenate([frame.y.ravel(), frame.uv.ravel()])
    if bits == 8:
        return flat.tobytes()
    a, b, c, d = np.pad(flat, (0, -flat.size % 4)).reshape(-1, 4).T
    out = np.empty((a.size, 5), np.uint8)  # four samples to five bytes
    for i, of_two in enumerate((a >> 2, a << 6 | b >> 4, b << 4 | c >> 6, c << 2 | d >> 8, d)):
        out[:, i] = of_two & 0xFF
    return out.tobytes()[: (flat.size * bits + 7) // 8]


def _unpack(data: bytes, video: VideoFormat, pts: int) -> Frame:
    if len(data) != _packed_size(video):
        raise CorruptBitstreamError("a frame's packed samples are not as many as it has: it is cut off or damaged")
    flat = np.frombuffer(data, np.uint8)
    if video.bit_depth == 10:
        p, q, r, s, t = np.pad(flat, (0, -flat.size % 5)).reshape(-1, 5).T.astype(np.uint16)
        fours = (p << 2 | q >> 6, (q & 63) << 4 | r >> 4, (r & 15) << 6 | s >> 2, (s & 3) << 8 | t)
        flat = np.stack(fours, 1).ravel()[: _samples(video)]
    luma = video.width * video.height
    uv = flat[luma:].reshape(2, video.chroma_height, video.chroma_width)
    return Frame(flat[:luma].reshape(video.height, video.width).astype(video.dtype), uv.astype(video.dtype), pts)


# ------------------------------------------------------------------------------ adaptation


class LosslessCrops:
    """Crops of a video's frames for finetuning, at places where the coarse scales fall as in the whole picture."""

    def __init__(
        self, frames: Sequence[Frame], video: VideoFormat, scales: int, device: torch.device, *, size: int = 256
    ) -> None:
        """frames: any sequence of Frames (a spool, a list). Small sets are kept as planes in memory."""
        self.frames, self.video, self.device, self.grid = frames, video, device, 1 << scales
        self.pixels = video.width * video.height * len(frames)
        self.crop = (min(size, video.height), min(size, video.width))
        self.batch = max(1, STEP_PIXELS // (self.crop[0] * self.crop[1]))
        self._small = self.pixels <= CACHE_PIXELS
        self._cache: dict[int, tuple[Array, Array]] = {}
        self._checks: list[PlaneBatch] | None = None

    def planes(self, i: int) -> tuple[Array, Array]:
        """Of frame i."""
        if i in self._cache:
            return self._cache[i]
        y, chroma = to_planes(self.frames[i], self.video)
        if self.video.rgb:  # differences of 10 bits have 11
            y, chroma = y.astype(np.int16), chroma.astype(np.int16)
        if self._small:
            self._cache[i] = y, chroma
        return y, chroma

    def crops(self, rng: np.random.Generator, count: int) -> PlaneBatch:
        """`count` random crops."""
        picked = rng.choice(len(self.frames), count, replace=count > len(self.frames))
        return self._batch([self._random_crop(rng, int(i)) for i in picked])

    def checks(self) -> list[PlaneBatch]:
        """Fixed pictures for measuring: all frames when they are few, else crops."""
        if self._checks is None:
            if self.pixels <= CHECK_PIXELS:
                self._checks = [self._batch([self.planes(i)]) for i in range(len(self.frames))]
            else:
                rng, count = np.random.default_rng(12345), max(1, CHECK_PIXELS // (self.crop[0] * self.crop[1]))
                self._checks = [self.crops(rng, 1) for _ in range(count)]
        return self._checks

    def _random_crop(self, rng: np.random.Generator, i: int) -> tuple[Array, Array]:
        y, uv = self.planes(i)
        (h, w), step = self.crop, 1 if self.video.rgb else 2
        room = [(a - b) // self.grid for a, b in zip(y.shape, (h, w), strict=True)]
        top, left = (self.grid * int(rng.integers(0, n + 1)) for n in room)
        chroma = (slice(top // step, -(-(top + h) // step)), slice(left // step, -(-(left + w) // step)))
        return y[top : top + h, left : left + w], uv[(slice(None), *chroma)]

    def _batch(self, pictures: list[tuple[Array, Array]]) -> PlaneBatch:
        return PlaneBatch.of(pictures, self.video.bit_depth, rgb=self.video.rgb).to(self.device)


# ----------------------------------------------------------------------------- whole videos


def encode_lossless(source: Path, output: Path, o: EncodeOptions, report: Report) -> EncodeResult:
    """`vidcodec.codec.encode.encode_video` with o.lossless."""
    return _LosslessEncoder(source, output, o, report).run()


@dataclass(frozen=True, eq=False)
class _Coded:
    """All frames coded one way, on disk."""

    name: str
    update: bytes
    units: UnitSpool

    @property
    def size(self) -> int:
        """Bytes of the file but for HEAD, DONE and the ends of INDX, which all ways share."""
        return units_size(self.update, self.units.sizes)


class _LosslessEncoder:
    def __init__(self, source: Path, output: Path, options: EncodeOptions, report: Report) -> None:
        self.source, self.output, self.o, self.report = source, output, options, report
        self.spools = ExitStack()
        self.seconds: dict[str, float] = {}
        self.costs: dict[str, float] = {}
        self.curve: list[dict] = []

    @flushed_denormals()
    def run(self) -> EncodeResult:
        start = time.monotonic()
        # What is missing is told before a long video is read.
        base = load_base(NAME, self.o.weights, pick_device(self.o.device))
        if self.o.finetuning_steps:
            self.strategy = settled_strategy(self.o, base)
        self.frames, self.notes = spool(self.source, self.o.sampling, self.report, exact=True)
        self._timed("read", start)
        with self.frames, self.spools:
            self.video = self.frames.format
            best = self.code("plain", base, b"")
            if self.o.finetuning_steps:
                name, model, update = self.adapt(base)
                if update:
                    best, other = sorted((best, self.code(name, model, update)), key=lambda coded: coded.size)
                    other.units.close()
            units, extra = best.units, RGB if self.video.rgb else YUV
            size = write_file(self.output, base, self.video, best.update, units, extra=extra)
        return EncodeResult(
            output=self.output,
            frames=len(units),
            width=self.video.width,
            height=self.video.height,
            chosen=best.name,
            quality=100.0,
            size=size,
            update_size=len(best.update),
            z_size=float(HASH_BYTES * len(units)),
            y_size=float(units.y_size),
            bpp=8 * size / self.pixels,
            quality_figures={},
            seconds=self.seconds,
            costs=self.costs,
            curve=self.curve,
            notes=self.notes,
            lossless=True,
        )

    @property
    def pixels(self) -> int:
        return self.video.width * self.video.height * len(self.frames)

    def _timed(self, stage: str, start: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start

    def code(self, name: str, model: BaseModel, update: bytes) -> _Coded:
        """All frames for real; notes their cost, update and container included, in bits per pixel."""
        start = time.monotonic()
        assert isinstance(model.network, Lossless)
        codec = LosslessPictureCodec(model.network, self.video)
        coded = _Coded(name, update, self.spools.enter_context(UnitSpool()))
        for i in range(len(self.frames)):
            coded.units.append(codec.encode(self.frames[i], i))
            self.report(f"code {name}", (i + 1) / len(self.frames), {})
        self.costs[name] = 8 * coded.size / self.pixels
        self._timed("code", start)
        return coded

    def adapt(self, base: BaseModel) -> tuple[str, BaseModel, bytes]:
        """A name, the network finetuned to the video, and the update that takes a decoder there."""
        start, o, network = time.monotonic(), self.o, base.network
        assert isinstance(network, Lossless)
        self.report("adapt", 0.0, {})
        crops = LosslessCrops(self.frames, self.video, network.config.scales, base.device)  # type: ignore[arg-type]
        tuned, selection = finetuned(
            o,
            base,
            self.strategy,
            LosslessObjective(),
            crops,
            self.report,
            scope="decoder",
            max_seconds=60 * o.max_minutes,
            **PACE,
        )
        self.curve = tuned.curve
        self._timed("adapt", start)
        name = "adapted" if self.strategy.name == "all" else f"adapted ({selection.strategy})"
        return name, base.with_network(tuned.model.eval()), tuned.payload
