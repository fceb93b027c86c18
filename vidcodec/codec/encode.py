"""A video file to one adapted bitstream, readable top to bottom.

    frames      sampled I-frames, spooled to disk
    level       the rate level that meets the request
    quantise    search settings of the quantiser that suit them
    adapt       finetune the network to these frames, as that quantiser codes them
    refine      search better latents of every frame
                every step codes all frames for real and is kept if the true cost fell
    write       HEAD, UPDT, FRAM..., INDX, DONE, renamed into place when complete

Settings, the adapted network and refined frames are kept in a folder where one is given (`vidcodec.codec.work`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcodec.adapt.deciding import deciding
from vidcodec.adapt.decisions import Decisions, error_weights
from vidcodec.adapt.objective import MspObjective
from vidcodec.codec.adapting import finetuned, settled_strategy
from vidcodec.codec.candidates import Candidate, CodedFrame, CodedVideo
from vidcodec.codec.crops import FrameCrops
from vidcodec.codec.files import Report, spool, units_size, write_file
from vidcodec.codec.models import LEVEL_STEP, load_base, pick_device
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.planes import frame_to_planes, padded_size
from vidcodec.codec.presets import DEFAULT_QUALITY, PRESETS
from vidcodec.codec.quality import quality_figures
from vidcodec.codec.quantising import Settings, search_settings
from vidcodec.codec.ratecontrol import Target, meet_target, search_level
from vidcodec.codec.refining import LOF_TRADE_OFF, RefinedPictures, batches, methods_of
from vidcodec.codec.work import (
    Work,
    encoder_side,
    network_digest,
    pack_frames,
    rebuilt,
    unpack_frames,
    work_key,
)
from vidcodec.denormals import flushed_denormals
from vidcodec.errors import ModelError, RateControlError, VidcodecError
from vidcodec.models.msp import Msp
from vidcodec.quantize.quantizer import Quantizer
from vidcodec.video import VideoFormat

SEARCH_FRAMES = 6
# Luma samples that a quantiser's settings are searched on, and about how many codings of them that takes.
SAMPLE_PIXELS, TRIALS = 250_000, 14
FILE_OVERHEAD = 200  # bytes that all files have besides their updates and frames, an upper bound


@dataclass(frozen=True)
class EncodeResult:
    """What was written; sizes in bytes, rates in bits per pixel of the sampled frames.

    Without loss there is no z but the frames' hashes, and no PSNR to tell.
    """

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
    lossless: bool = False

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
    if o.lossless:
        from vidcodec.codec.lossless import encode_lossless  # which needs this module

        return encode_lossless(Path(source), Path(output), o, report or (lambda *_: None))
    return _Encoder(Path(source), Path(output), o, report or (lambda *_: None)).run()


class _Encoder:
    def __init__(self, source: Path, output: Path, options: EncodeOptions, report: Report) -> None:
        self.source, self.output, self.o, self.report = source, output, options, report
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.curve: list[dict] = []
        self.costs: dict[str, float] = {}
        self.weights: dict[tuple[Msp, int], np.ndarray] = {}  # of `decisions`
        self.start = time.monotonic()

    # -------------------------------------------------------------------- the pipeline

    @flushed_denormals()
    def run(self) -> EncodeResult:
        self.base = load_base(self.o.model, self.o.weights, pick_device(self.o.device))
        self.check_model()
        self.spool_frames()
        with self.frames:
            self.open_work()
            plain = Candidate("plain", self.base)
            self.unadapted = [plain]
            self.target = Target.of(self.o, self.pixels)
            level = self.starting_level(plain)
            best = self.better(None, plain, level)
            if self.quantizer != "uniform":
                self.unadapted.append(self.quantise(plain, level))
                best = self.better(best, self.unadapted[-1], level)
            if self.o.finetuning_steps:
                best = self.better(best, self.adapt(best.candidate, level), level)
            if self.refining != "none":
                best = self.better(best, self.refined(best.candidate), level)
            if self.target:
                best = self.meet_target(best)
            result = self.write(best)
            self.work.finish()
            return result

    def check_model(self) -> None:
        """Settle what the options leave open; raises ModelError for what the model cannot do, before slow work."""
        o, preset = self.o, PRESETS[self.o.preset]
        adaptable = self.base.adaptable
        self.quantizer = o.quantizer or (preset.quantizer if adaptable else "uniform")
        self.refining = o.refine or (preset.refine if adaptable else "none")
        self.refine_steps = preset.refine_steps if o.refine_steps is None else o.refine_steps
        if o.finetuning_steps and not adaptable:
            raise ModelError(f"{o.model} cannot be adapted; use --adapt none")
        if not adaptable and (self.quantizer, self.refining) != ("uniform", "none"):
            raise ModelError(f"{o.model} is coded with --quantizer uniform --refine none only")
        if not self.refine_steps:
            self.refining = "none"
        if o.finetuning_steps:
            self.strategy = settled_strategy(o, self.base)
        # Frame by frame refinement comes last: it has what is left of the time, at least this share of it.
        self.adapting_seconds = 60 * o.max_minutes * (0.6 if self.refining != "none" else 1.0)
        self.refining_until = math.inf

    def timed(self, stage: str, start: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start

    def spool_frames(self) -> None:
        start = time.monotonic()
        self.frames, notes = spool(self.source, self.o.sampling, self.report)
        self.format: VideoFormat = self.frames.format
        self.notes += notes
        self.pixels = self.format.width * self.format.height * len(self.frames)
        self.timed("read", start)

    def open_work(self) -> None:
        key = work_key(self.o, self.base, self.format, self.frames) if self.o.work else ""
        self.work = Work(self.o.work, key, self.notes)

    def adapt(self, candidate: Candidate, level: int) -> Candidate:
        """The candidate's network finetuned to the video, on symbols as the candidate's settings decide them."""
        start = time.monotonic()
        self.report("adapt", 0.0, {})
        came_from = ("adapted", level, candidate.settings)
        if known := self.work.load(came_from):
            try:
                return self.adapted(candidate, *known)
            except VidcodecError as error:  # other importance scores, say
                self.work.refuse(came_from, error)
        network = self.msp(candidate)
        crops = FrameCrops(self.frames, self.format.bit_depth, self.base.multiple, self.base.device)  # type: ignore[arg-type]
        rate_level = torch.full((1,), level / LEVEL_STEP, device=self.base.device)
        decisions = self.decisions(candidate, level)
        code = None if decisions.trade_off is None else deciding([decisions])
        tuned, selection = finetuned(
            self.o,
            candidate.model,
            self.strategy,
            MspObjective(network, rate_level, code=code),
            crops,
            self.report,
            scope=self.o.adapt,
            max_seconds=self.adapting_seconds,
        )
        self.timed("adapt", start)
        what = self.o.adapt if self.strategy.name == "all" else f"{self.o.adapt}, {selection.strategy}"
        name = candidate.name.replace("plain", f"adapted ({what})")
        if self.work.folder:
            arrays = encoder_side(tuned.model, self.base, tuned.payload)
            arrays["update:"] = np.frombuffer(tuned.payload, np.uint8)
            self.work.save(came_from, {"name": name, "curve": tuned.curve}, arrays)
        self.curve = tuned.curve
        return replace(candidate, name=name, model=self.base.with_network(tuned.model.eval()), update=tuned.payload)

    def adapted(self, candidate: Candidate, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Candidate:
        """With the network that finetuning gave in an earlier run."""
        payload = arrays.pop("update:").tobytes()
        model = rebuilt(self.base, payload, arrays)
        self.curve = about["curve"]
        return replace(candidate, name=about["name"], model=model, update=payload)

    def quantise(self, candidate: Candidate, level: int) -> Candidate:
        """The same network, under the quantiser that suits a sample of the frames best."""
        start = time.monotonic()
        came_from = ("settings", level, candidate.name)
        if known := self.work.load(came_from):
            settings = Settings(Quantizer(**known[0]["quantizer"]), known[0]["trade_off"])
        else:
            settings = search_settings(
                self.msp(candidate),
                level,
                self.sample,
                self.quantizer,
                lambda n: self.report("quantiser", min(1.0, n / TRIALS), {}),
            )
            self.work.save(came_from, asdict(settings), {})
        self.timed("quantiser", start)
        return replace(candidate, name=f"{candidate.name}, {settings.quantizer.kind}", settings=settings)

    def refined(self, candidate: Candidate) -> Candidate:
        """The same decoder's view, with latents to be refined while there is time."""
        self.refining_until = self.start + 60 * self.o.max_minutes
        return replace(candidate, name=f"{candidate.name}, {self.refining}", refine=self.refining)

    def better(self, best: CodedVideo | None, candidate: Candidate, level: int) -> CodedVideo:
        """Code every frame with the candidate; keep it if its true cost is less than the best's."""
        start = time.monotonic()
        coded = self.code(candidate, level, known=best)
        self.costs[candidate.name] = coded.cost(self.rate_lambda(level), self.format)
        self.timed("refine" if candidate.refine != "none" else "code", start)
        if best is None or self.costs[candidate.name] < self.costs[best.candidate.name]:
            return coded
        return best

    def write(self, video: CodedVideo) -> EncodeResult:
        f, candidate = self.format, video.candidate
        size = write_file(
            self.output,
            self.base,
            f,
            candidate.update,
            video.frames,
            level=video.level,
            quantizer=candidate.settings.quantizer.code,
            extra=video.extra,
        )
        top = self.base.max_level
        return EncodeResult(
            output=self.output,
            frames=len(video.frames),
            width=f.width,
            height=f.height,
            chosen=candidate.name,
            quality=round(100 * video.level / top, 2) if top else 0.0,
            size=size,
            update_size=len(candidate.update),
            z_size=video.z_bits / 8,
            y_size=video.y_bits / 8,
            bpp=8 * size / self.pixels,
            quality_figures=quality_figures(video.errors, f.bit_depth),
            seconds=self.seconds,
            costs=self.costs,
            curve=self.curve,
            notes=self.notes,
        )

    # ------------------------------------------------------------------- coding frames

    def rate_lambda(self, level: int) -> float:
        network = self.base.network
        return float(network.rate_lambda(torch.tensor(level / LEVEL_STEP))) if isinstance(network, Msp) else 0.0

    @cached_property
    def sample(self) -> list[torch.Tensor]:
        """A few fixed pictures of the video, or crops of them."""
        crops = FrameCrops(
            self.frames,
            self.format.bit_depth,
            self.base.multiple,
            self.base.device,  # type: ignore[arg-type]
            check_pixels=SAMPLE_PIXELS,
        )
        return crops.checks()

    def decisions(self, candidate: Candidate, level: int, method: str = "") -> Decisions:
        """The candidate's settings at a rate level, with weights measured there; method: of refinement, if any."""
        settings = candidate.settings
        if method == "lof":
            settings = replace(settings, trade_off=max(LOF_TRADE_OFF, settings.trade_off or 0.0))
        if settings.trade_off is None:
            return Decisions(settings.quantizer)
        network = self.msp(candidate)
        if (network, level) not in self.weights:
            rate_level = torch.full((1,), level / LEVEL_STEP, device=self.base.device)
            self.weights[network, level] = error_weights(network, self.sample, rate_level)
        return Decisions(settings.quantizer, settings.trade_off, self.weights[network, level])

    def msp(self, candidate: Candidate) -> Msp:
        network = candidate.model.network
        assert isinstance(network, Msp)
        return network

    def code(
        self, candidate: Candidate, level: int, picked: list[int] | None = None, known: CodedVideo | None = None
    ) -> CodedVideo:
        """Code all frames (or the picked ones) for real, and measure what a decoder shows.

        known: frames coded before at this level. Refinement takes one over where it costs less and the same decoder
        reads it.
        """
        if candidate.refine != "none":
            return self.code_refined(candidate, level, known)
        codec = candidate.model.picture_codec(level, self.format, decisions=self.decisions(candidate, level))
        video = CodedVideo(candidate, level, getattr(codec, "extra", b""))
        indices = range(len(self.frames)) if picked is None else picked
        for done, i in enumerate(indices):
            frame = self.frames[i]
            coded = codec.encode(frame_to_planes(frame, self.format.bit_depth, codec.multiple))
            video.coded.append(CodedFrame.of(i, frame, coded, self.format))
            if picked is None:
                self.report(f"code {candidate.name}", (done + 1) / len(indices), {})
        return video

    def code_refined(self, candidate: Candidate, level: int, known: CodedVideo | None) -> CodedVideo:
        """Code all frames with refined latents, as many together as the device takes, while there is time."""
        video, count, lam = CodedVideo(candidate, level, b""), len(self.frames), self.rate_lambda(level)
        network, multiple = self.msp(candidate), self.base.multiple
        decisions = {method: self.decisions(candidate, level, method) for method in methods_of(candidate.refine)}
        pictures = RefinedPictures(network, level, candidate.refine, decisions, self.refine_steps, self.o.seed)
        plain = candidate.model.picture_codec(level, self.format, decisions=self.decisions(candidate, level))
        height, width = padded_size(self.format.height, self.format.width, multiple)
        digest = network_digest(network) if self.o.work else ""
        for batch in batches(count, height * width, self.base.device):
            came_from = ("refined", digest, candidate.settings, candidate.refine, level, batch)
            if kept := self.work.load(came_from):
                video.coded += unpack_frames(kept[1])
                continue
            frames = [self.frames[i] for i in batch]
            planes = [frame_to_planes(frame, self.format.bit_depth, multiple) for frame in frames]
            left = (self.refining_until - time.monotonic()) * len(batch) / (count - batch.start)

            def progress(share: float, batch: range = batch) -> None:
                self.report(f"refine {candidate.name}", (batch.start + share * len(batch)) / count, {})

            if left > 0:
                ways = pictures.encode(torch.cat(planes), batch, left, progress)
            else:
                ways = [[plain.encode(x)] for x in planes]
            for i, frame, coded in zip(batch, frames, ways, strict=True):
                found = [CodedFrame.of(i, frame, c, self.format) for c in coded]
                video.coded.append(min(found, key=lambda c: c.cost(lam, self.format)))
            if left > 0:
                self.work.save(came_from, {}, pack_frames(video.coded[batch.start :]))
            progress(1.0)
        if known is not None and known.level == level:
            video.take_over(known, lam, self.format)
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
        # A sample of the frames is searched as they are: refinement shifts the goal by what the whole video shows.
        unrefined = replace(video.candidate, refine="none")

        def whole(level: int) -> tuple[float, CodedVideo]:
            if level == video.level:
                return self.measure(video, len(self.frames)), video
            known = None if video.candidate.refine == "none" else self.code(unrefined, level)
            coded = self.code(video.candidate, level, known=known)
            return self.measure(coded, len(self.frames)), coded

        start = time.monotonic()
        best = meet_target(self.sample_measure(unrefined), whole, self.base.max_level, self.target)
        if best.level != video.level:
            best = self.at_least_unadapted(best, self.target)
        self.timed("rate control", start)
        return best

    def at_least_unadapted(self, video: CodedVideo, target: Target) -> CodedVideo:
        """A video that meets the target at a level of its own, or an unadapted one that does at less cost there."""
        rivals = [self.code(c, video.level) for c in self.unadapted if c is not video.candidate]
        met = [v for v in rivals if target.met(self.measure(v, len(self.frames)))] + [video]
        lam = self.rate_lambda(video.level)
        self.costs = {v.candidate.name: v.cost(lam, self.format) for v in met}
        return min(met, key=lambda v: self.costs[v.candidate.name])

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
        """What the target is about; for sizes the bytes of the whole file, exact but for `FILE_OVERHEAD` when all
        frames are coded.
        """
        if self.target is not None and self.target.kind == "psnr":
            return quality_figures(video.errors, self.format.bit_depth)["psnr_yuv"]
        per_frame = units_size(b"", video.frame_sizes) / frames
        fixed = FILE_OVERHEAD + 2 * len(video.extra) + units_size(video.candidate.update, [])
        return fixed + per_frame * len(self.frames)
