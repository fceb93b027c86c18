"""A video file to one adapted bitstream, readable top to bottom.

    frames      sampled I-frames, spooled to disk
    level       the rate level that meets the request
    adapt       finetune the network to these frames; a candidate beside the plain one
    choose      code every frame with each candidate; keep the least true cost
    write       HEAD, UPDT, FRAM..., INDX, DONE, renamed into place when complete
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcodec.adapt.finetune import FinetuneConfig, Finetuner
from vidcodec.adapt.prior import AdaptivePrior, SpikeSlabPrior, UpdatePrior
from vidcodec.bitstream import BitstreamWriter, FrameUnit, Header, UpdateUnit
from vidcodec.codec.crops import FrameCrops
from vidcodec.codec.models import LEVEL_STEP, BaseModel, load_base, pick_device
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.planes import frame_to_planes, plane_errors, planes_to_frame
from vidcodec.codec.presets import DEFAULT_QUALITY
from vidcodec.codec.quality import quality_figures
from vidcodec.codec.ratecontrol import Target, meet_target, search_level
from vidcodec.entropy.bank import bank
from vidcodec.entropy.exact import ARITHMETIC_VERSION
from vidcodec.errors import ModelError, NoVideoError, RateControlError
from vidcodec.models.msp import PLANE_WEIGHTS, Msp
from vidcodec.video import FrameSpool, VideoFormat, VideoReader

# (stage, share done, figures to show)
Report = Callable[[str, float, dict[str, Any]], None]

SEARCH_FRAMES = 6
# Bytes of the container, an upper bound: per file, per frame, per update.
FILE_OVERHEAD, FRAME_OVERHEAD, UPDATE_OVERHEAD = 200, 27, 20


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way of coding the video: a network, and the update that takes a decoder there."""

    name: str
    model: BaseModel
    update: bytes = b""


@dataclass
class CodedVideo:
    """All frames coded one way, in memory."""

    candidate: Candidate
    level: int
    extra: bytes
    frames: list[FrameUnit] = field(default_factory=list)
    errors: list[np.ndarray] = field(default_factory=list)  # (3,) each, code values squared
    y_bits: float = 0.0
    z_bits: float = 0.0

    @property
    def payload_bytes(self) -> int:
        return sum(len(f.y) + len(f.z) for f in self.frames) + len(self.candidate.update)

    def cost(self, lam: float, pixels: int, bit_depth: int) -> float:
        """True R-D-M cost in bits per pixel: coded bytes and decoded pictures."""
        peak = float((1 << bit_depth) - 1)
        d = float(np.mean(self.errors, axis=0) @ PLANE_WEIGHTS) / peak**2
        return 8 * self.payload_bytes / pixels + lam * 255.0**2 * d


@dataclass(frozen=True)
class EncodeResult:
    """What was written; sizes in bytes, rates in bits per pixel of the sampled frames."""

    output: Path
    frames: int
    width: int
    height: int
    chosen: str
    quality: float
    size: int
    update_size: int
    z_size: float
    y_size: float
    bpp: float
    quality_figures: dict[str, float]
    seconds: dict[str, float]
    costs: dict[str, float]
    curve: list[dict]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        d = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in ("output", "quality_figures")}
        return {"output": str(self.output), **d, **self.quality_figures}


def encode_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    report: Report | None = None,
) -> EncodeResult:
    """Compress `source` into the .vdc file `output`.

    Raises InputError and its kin for the source, ModelError for the model, OutputError for
    the target, RateControlError when a target cannot be met. The output appears only when
    it is complete.
    """
    o = options or EncodeOptions()
    return _Encoder(Path(source), Path(output), o, report or (lambda *_: None)).run()


class _Encoder:
    def __init__(self, source: Path, output: Path, options: EncodeOptions, report: Report) -> None:
        self.source, self.output, self.o, self.report = source, output, options, report
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.curve: list[dict] = []

    # -------------------------------------------------------------------- the pipeline

    def run(self) -> EncodeResult:
        torch.set_flush_denormal(True)
        self.spool_frames()
        with self.frames:
            self.base = load_base(self.o.model, self.o.weights, pick_device(self.o.device))
            if self.o.finetuning_steps and not self.base.adaptable:
                raise ModelError(f"{self.o.model} cannot be adapted; use --adapt none")
            plain = Candidate("plain", self.base)
            self.target = Target.of(self.o, self.pixels)
            level = self.starting_level(plain)
            candidates = [plain]
            if self.o.finetuning_steps:
                candidates.append(self.adapt(level))
            best = self.choose(candidates, level)
            if self.target:
                best = self.meet_target(best)
            return self.write(best)

    def timed(self, stage: str, start: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start

    def spool_frames(self) -> None:
        start = time.monotonic()
        with VideoReader(self.source, self.o.sampling) as reader:
            self.format: VideoFormat = reader.format
            self.frames = FrameSpool(reader.format)
            try:
                for frame in reader.frames():
                    self.frames.append(frame)
                    n = len(self.frames)
                    self.report("read", min(1.0, n / (reader.estimated_frames or n)), {"frames": n})
            except BaseException:
                self.frames.close()
                raise
            self.notes += reader.notes
        if not len(self.frames):
            self.frames.close()
            raise NoVideoError(f"{self.source} has no frame in the range asked for")
        self.pixels = self.format.width * self.format.height * len(self.frames)
        self.timed("read", start)

    def adapt(self, level: int) -> Candidate:
        start = time.monotonic()
        self.report("adapt", 0.0, {})
        network = self.base.network
        assert isinstance(network, Msp)
        crops = FrameCrops(self.frames, self.format.bit_depth, self.base.multiple, self.base.device)  # type: ignore[arg-type]
        prior: UpdatePrior = SpikeSlabPrior() if self.o.update_prior == "spike-slab" else AdaptivePrior()
        config = FinetuneConfig(
            scope=self.o.adapt,
            steps=self.o.finetuning_steps,
            max_seconds=60 * self.o.max_minutes,
            batch=crops.batch,
            seed=self.o.seed,
        )
        rate_level = torch.full((1,), level / LEVEL_STEP, device=self.base.device)
        tuner = Finetuner(network, crops, rate_level, prior, config)
        tuned = tuner.run(lambda share, figures: self.report("adapt", share, figures))
        self.curve = tuned.curve
        self.timed("adapt", start)
        update = prior.encode(tuned.update, network)
        return Candidate(f"adapted ({self.o.adapt})", self.base.with_network(tuned.model.eval()), update)

    def choose(self, candidates: list[Candidate], level: int) -> CodedVideo:
        """Code every frame with every candidate; the least true cost wins."""
        start = time.monotonic()
        lam = self.rate_lambda(level)
        coded = [self.code(c, level) for c in candidates]
        costs = {v.candidate.name: v.cost(lam, self.pixels, self.format.bit_depth) for v in coded}
        self.costs = costs
        self.timed("code", start)
        return min(coded, key=lambda v: costs[v.candidate.name])

    def write(self, video: CodedVideo) -> EncodeResult:
        f, c = self.format, self.format.colour
        updates = [UpdateUnit(0, video.candidate.update)] if video.candidate.update else []
        header = Header(
            model=self.base.name, model_digest=self.base.digest, bank_digest=bank().digest,
            arithmetic=ARITHMETIC_VERSION, level=video.level, width=f.width, height=f.height,
            bit_depth=f.bit_depth, matrix=c.matrix, primaries=c.primaries, transfer=c.transfer,
            full_range=c.full_range, chroma_location=c.chroma_location, sample_aspect=f.sample_aspect,
            rotation=f.rotation, time_base=f.time_base, frame_rate=f.frame_rate,
            frame_count=len(video.frames), update_count=len(updates), extra=video.extra,
        )  # fmt: skip
        with BitstreamWriter(self.output, header) as writer:
            for update in updates:
                writer.write_update(update)
            for unit in video.frames:
                writer.write_frame(unit)
        size = self.output.stat().st_size if self.output.is_file() else 0
        top = self.base.max_level
        return EncodeResult(
            output=self.output, frames=len(video.frames), width=f.width, height=f.height,
            chosen=video.candidate.name, quality=round(100 * video.level / top, 2) if top else 0.0, size=size,
            update_size=len(video.candidate.update), z_size=video.z_bits / 8, y_size=video.y_bits / 8,
            bpp=8 * size / self.pixels, quality_figures=quality_figures(video.errors, f.bit_depth),
            seconds=self.seconds, costs=self.costs, curve=self.curve, notes=self.notes,
        )  # fmt: skip

    # ------------------------------------------------------------------- coding frames

    def rate_lambda(self, level: int) -> float:
        network = self.base.network
        return float(network.rate_lambda(torch.tensor(level / LEVEL_STEP))) if isinstance(network, Msp) else 0.0

    def code(self, candidate: Candidate, level: int, picked: list[int] | None = None) -> CodedVideo:
        """Code all frames (or the picked ones) for real, and measure what a decoder shows."""
        codec = candidate.model.picture_codec(level, self.format)
        video = CodedVideo(candidate, level, getattr(codec, "extra", b""))
        indices = range(len(self.frames)) if picked is None else picked
        for done, i in enumerate(indices, 1):
            frame = self.frames[i]
            coded = codec.encode(frame_to_planes(frame, self.format.bit_depth, codec.multiple))
            decoded = planes_to_frame(coded.planes, self.format, frame.pts)
            video.frames.append(FrameUnit(index=i, pts=frame.pts, z=b"", y=coded.payload, checksum=coded.log.crc))
            video.errors.append(plane_errors(frame, decoded))
            video.y_bits += coded.log.y_bits
            video.z_bits += coded.log.z_bits
            if picked is None:
                self.report("code " + candidate.name, done / len(indices), {})
        return video

    # -------------------------------------------------------------------- rate control

    def starting_level(self, plain: Candidate) -> int:
        """The rate level asked for, or the one that meets the target on a few frames unadapted."""
        top = self.base.max_level
        if top == 0:
            if self.target or self.o.quality is not None:
                raise RateControlError(f"{self.o.model} has one rate; choose it by the number at the end of its name")
            return 0
        if self.target is None:
            return round((DEFAULT_QUALITY if self.o.quality is None else self.o.quality) / 100 * top)
        return search_level(self.sample_measure(plain), top, self.target, self.target.value)

    def meet_target(self, video: CodedVideo) -> CodedVideo:
        """After adaptation a level means another rate: search again with the candidate that won."""
        assert self.target is not None

        def whole(level: int) -> tuple[float, CodedVideo]:
            coded = video if level == video.level else self.code(video.candidate, level)
            return self.measure(coded, len(self.frames)), coded

        start = time.monotonic()
        best = meet_target(self.sample_measure(video.candidate), whole, self.base.max_level, self.target)
        self.timed("rate control", start)
        return best

    def sample_measure(self, candidate: Candidate) -> Callable[[int], float]:
        """PSNR or predicted size of the whole file, from a few frames, by level."""
        count = min(SEARCH_FRAMES, len(self.frames))
        picked = sorted({round(i) for i in np.linspace(0, len(self.frames) - 1, count)})

        @cache
        def value(level: int) -> float:
            self.report("search", 0.0, {"level": level})
            return self.measure(self.code(candidate, level, picked), len(picked))

        return value

    def measure(self, video: CodedVideo, frames: int) -> float:
        """What the target is about; for sizes the bytes of the whole file, exact when all frames are coded."""
        if self.target is not None and self.target.kind == "psnr":
            return quality_figures(video.errors, self.format.bit_depth)["psnr_yuv"]
        update = len(video.candidate.update)
        per_frame = (video.payload_bytes - update) / frames + FRAME_OVERHEAD
        fixed = FILE_OVERHEAD + 2 * len(video.extra) + (update + UPDATE_OVERHEAD if update else 0)
        return fixed + per_frame * len(self.frames)
