"""A video file to one adapted bitstream, readable top to bottom.

    footage     sampled I-frames, read for as many passes as it takes
    level       the rate level that meets the request
    steps       quantised   settings of the quantiser that suit a sample of the frames
                adapted     the network finetuned to these frames, as that quantiser codes them
                refined     better latents, searched frame by frame
                fitted      in place of all three: network and symbols together, for families that have no analysis
                every step gives a candidate; adapted and refined ones code all frames for real, and are kept if the
                true cost fell
    write       HEAD, [UPDT, FRAM...]..., INDX, DONE, renamed into place when complete

A video in segments goes through level and steps once for each of them, from the base network or from the one that the
segment before was left with, whichever costs less there.

The same steps serve every family of networks (`vidcodec.families`), those that it knows. Settings, the adapted network
and refined frames are kept in a folder where one is given (`vidcodec.codec.work`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from vidcodec.bitstream import FrameUnit, UpdateUnit
from vidcodec.codec.candidates import Candidate, CodedVideo
from vidcodec.codec.coding import code
from vidcodec.codec.device import pick_device
from vidcodec.codec.files import units_size, write_file
from vidcodec.codec.fitting import fitted
from vidcodec.codec.footage import Footage, Report, Stretch
from vidcodec.codec.job import Budget, Job, Plan, Record
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.presets import DEFAULT_QUALITY
from vidcodec.codec.quality import quality_figures
from vidcodec.codec.ratecontrol import Target, meet_target, search_level
from vidcodec.codec.shares import Helpers, Share
from vidcodec.codec.steps import quantised, steps_of
from vidcodec.codec.work import Work, work_key
from vidcodec.denormals import flushed_denormals
from vidcodec.errors import RateControlError, UnsupportedInputError
from vidcodec.executor import Executor
from vidcodec.families import load_family
from vidcodec.rate import RateLevel
from vidcodec.video.passed import write_sound

SEARCH_FRAMES = 6
FITTED_SHARE = 0.5  # of the time left, for one of the fits that a target may take
FILE_OVERHEAD = 200  # bytes that all files have besides their updates and frames, an upper bound


@dataclass(frozen=True)
class EncodeResult:
    """What was written; sizes in bytes, rates in bits per pixel of the sampled frames.

    compared: frames whose decoded pictures the quality figures are of: all, or an even part of a long video that was
    coded one way. Without loss there is no z but the frames' hashes, and no PSNR to tell. sound_size: of audio and
    subtitles, which bpp leaves out. tensors: what every part of the adapted network cost and saves
    (`vidcodec.updates.worth.account`). segments: of a video in several, what each holds (`Segment.to_dict`); costs and
    quality are then means over their frames.
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
    compared: int
    quality_figures: dict[str, float]
    seconds: dict[str, float]
    costs: dict[str, float]
    curve: list[dict]
    notes: list[str]
    lossless: bool = False
    sound_size: int = 0
    tensors: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        d = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in ("output", "quality_figures")}
        return {"output": str(self.output), **d, **self.quality_figures}


@dataclass(frozen=True)
class Segment:
    """Frames that share a network, coded. start: the number of the first. record: what was noted of them alone."""

    start: int
    video: CodedVideo
    record: Record

    def units(self) -> Iterator[UpdateUnit | FrameUnit]:
        """As they stand in the file."""
        c = self.video.candidate
        if c.update:
            yield UpdateUnit(c.number, c.parent, self.start, c.update)
        for unit in self.video.units:
            yield replace(unit, index=unit.index + self.start)

    def to_dict(self) -> dict[str, Any]:
        """For reports: sizes in bytes, costs in bits per pixel; update: the number of the one in force."""
        c = self.video.candidate
        return {
            "first_frame": self.start,
            "frames": len(self.video),
            "chosen": c.name,
            "size": self.video.size,
            "update": c.in_force,
            "parent": c.parent if c.update else None,
            "update_size": len(c.update),
            "costs": self.record.costs,
            "curve": self.record.curve,
            "tensors": self.record.tensors,
        }


@flushed_denormals()
def encode_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    report: Report | None = None,
    executor: Executor | None = None,
) -> EncodeResult:
    """Compress `source` into the .vdc file `output`.

    executor: codes and refines frames in processes of its own; the file is the same as without it, and settings and
    finetuning stay in this process. Without `options.work` steps are exchanged in a folder beside the output.

    Raises InputError and its kin for the source, ModelError for the model, OutputError for
    the target, RateControlError when a target cannot be met. The output appears only when
    it is complete.
    """
    o, output, report = options or EncodeOptions(), Path(output), report or (lambda *_: None)
    if executor and math.isfinite(o.max_minutes):
        raise UnsupportedInputError("other processes would not know what is left of 'max_minutes': leave it out")
    with ExitStack() as stack:
        if executor and not o.work:
            beside = stack.enter_context(TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent))
            o = replace(o, work=Path(beside))
        job = stack.enter_context(opened(Path(source), output, o, report, executor=executor))
        result = _write(job, list(coded(job)))
        job.work.finish()
        return result


@contextmanager
def opened(
    source: Path,
    output: Path,
    o: EncodeOptions,
    report: Report,
    *,
    executor: Executor | None = None,
    share: Share | None = None,
) -> Iterator[Job]:
    """An encode with its frames read."""
    # What is missing is told before a long video is read.
    record, family = Record(), load_family(o.network, o.weights, pick_device(o.device))
    plan = Plan.of(o, family)
    with record.timed("read"):
        footage = Footage(source, o.sampling, report, exact=family.lossless)
    with footage, ExitStack() as stack:
        record.notes.extend(footage.notes)
        work = Work(o.work, work_key(o, family, footage) if o.work else "", record.notes)
        sound = None
        if o.audio == "copy" and share is None:
            sound = _sound(source, footage, stack.enter_context(TemporaryDirectory(prefix="vidcodec-")), record.notes)
        helpers = Helpers(executor, source, o, record.notes) if executor and not family.fitted else None
        yield Job(
            output, o, family, plan, footage, work, Budget(60 * o.max_minutes), record, report, helpers, share, sound
        )


def _sound(source: Path, footage: Footage, folder: str, notes: list[str]) -> Path | None:
    """A file in a folder with the audio and subtitles of what a footage shows, None where there are none."""
    path, sampling = Path(folder, "sound.mka"), footage.sampling
    first = footage.sample[0].pts * footage.format.time_base
    begin = first if sampling.begin else Fraction(-1)
    found = write_sound(source, path, begin, None if sampling.span is None else first + sampling.span, notes)
    return path if found else None


def coded(job: Job) -> Iterator[Segment]:
    """The video in segments, one after the other, or whole."""
    o, footage, before, number = job.options, cast(Footage, job.footage), None, 1
    if not o.segment_minutes:
        yield Segment(0, _best(job), job.record)
        return
    for i, stretch in enumerate(footage.stretches(60 * o.segment_minutes), 1):

        def report(stage: str, share: float, figures: dict[str, Any], i: int = i) -> None:
            job.report(f"segment {i}: {stage}", share, figures)

        job.work.stretch = i
        part = replace(
            job,
            footage=stretch,
            options=o if o.target_size is None else replace(o, target_size=_share(o.target_size, stretch, footage)),
            budget=Budget(job.budget.left * len(stretch) / (len(footage) - stretch.start)),
            record=replace(job.record, curve=[], costs={}, tensors=[]),
            report=report,
        )
        video = _best(part, before, number)
        before, number = video.candidate, number + bool(video.candidate.update)
        video.candidate = replace(before, family=job.family, found={})  # what is coded needs no network
        yield Segment(stretch.start, video, part.record)


def _share(size: int, stretch: Stretch, footage: Footage) -> int:
    """Of a whole file's bytes, what a stretch may aim at; each reckons with `FILE_OVERHEAD`, which is there once."""
    return max(1, (size - FILE_OVERHEAD) * len(stretch) // len(footage) + FILE_OVERHEAD)


def _best(job: Job, before: Candidate | None = None, number: int = 1) -> CodedVideo:
    """All frames coded the way that costs least, or that meets the target with least.

    before: how the segment before was coded. number: of the update that there may be.
    """
    target = Target.of(job.options, job.footage.pixels)
    candidate = Candidate("plain", job.family, number=number)
    level = _starting_level(job, candidate, target)
    if job.family.fitted:
        unadapted = fitted(job, candidate, level, FITTED_SHARE if target else 1.0)
    else:
        unadapted = quantised(job, candidate, level)
    best = _coded(job, unadapted, level)
    if before and before.family is not job.family and not job.family.fitted:
        best = _better(job, best, _coded(job, _continued(before, number), level))
        unadapted = best.candidate
    for step in steps_of(job):
        tried = step(job, best)
        if tried is not best.candidate:
            best = _better(job, best, _coded(job, tried, level, best))
    return best if target is None else _meet_target(job, best, target, unadapted)


def _continued(before: Candidate, number: int) -> Candidate:
    """The network of the segment before, its encoder too, as it is; number: of an update that changes it further."""
    family, parent = before.family.with_network(before.family.network), before.in_force
    name = f"plain on update {parent}" if parent else "plain on the encoder before"
    return Candidate(name, family, b"", parent, number, before.settings)


def _coded(job: Job, candidate: Candidate, level: RateLevel, known: CodedVideo | None = None) -> CodedVideo:
    """All frames coded with a candidate; notes their true cost."""
    with job.record.timed("refine" if candidate.refine != "none" else "code"):
        video = code(job, candidate, level, known=known)
    job.record.costs[candidate.name] = video.cost(job.trade_off(level), job.format)
    return video


def _better(job: Job, best: CodedVideo, other: CodedVideo) -> CodedVideo:
    """The one of less true cost; the other one's disk space is given back."""
    a, b = (v.cost(job.trade_off(v.level), job.format) for v in (best, other))
    kept, left = (other, best) if b < a else (best, other)
    left.close()
    return kept


def _write(job: Job, segments: Sequence[Segment]) -> EncodeResult:
    f, top, record = job.format, job.family.top.steps, job.record
    videos = [s.video for s in segments]
    units = (unit for s in segments for unit in s.units())
    size = write_file(job.output, job.family, f, units, videos[0].extra, job.sound)
    sound = job.sound.stat().st_size if job.sound else 0
    y, z = (sum(bits) / 8 for bits in zip(*(b for v in videos for b in v.bits), strict=True))
    errors, frames = [e for v in videos for e in v.compared], sum(map(len, videos))
    level = sum(v.level.steps * len(v) for v in videos) / frames
    updates = [len(v.candidate.update) for v in videos]
    alone = len(segments) == 1
    several = f"{len(segments)} segments, {sum(map(bool, updates))} updates"
    return EncodeResult(
        output=job.output,
        frames=frames,
        width=f.width,
        height=f.height,
        chosen=videos[0].candidate.name if alone else several,
        quality=round(100 * level / top, 2) if top else 100.0 * job.family.lossless,
        size=size,
        update_size=sum(updates),
        z_size=z,
        y_size=y,
        sound_size=sound,
        bpp=8 * (size - sound) / job.footage.pixels,
        compared=len(errors),
        quality_figures={} if job.family.lossless else quality_figures(errors, f.bit_depth),
        seconds=record.seconds,
        costs=segments[0].record.costs if alone else _mean_costs(segments, several),
        curve=segments[0].record.curve if alone else [],
        notes=record.notes,
        lossless=job.family.lossless,
        tensors=segments[0].record.tensors if alone else [],
        segments=[] if alone else [s.to_dict() for s in segments],
    )


def _mean_costs(segments: Sequence[Segment], kept: str) -> dict[str, float]:
    """Of what was kept, and of the base network wherever that was coded, over the frames of all segments."""
    shares = [len(s.video) / sum(len(o.video) for o in segments) for s in segments]
    named = {
        "plain": [
            next((c for n, c in s.record.costs.items() if re.match("plain(,|$)", n)), math.nan) for s in segments
        ],
        kept: [s.record.costs.get(s.video.candidate.name, math.nan) for s in segments],
    }
    means = {n: sum(c * w for c, w in zip(costs, shares, strict=True)) for n, costs in named.items()}
    return {n: mean for n, mean in means.items() if math.isfinite(mean)}


# -------------------------------------------------------------------------- rate control


def _starting_level(job: Job, plain: Candidate, target: Target | None) -> RateLevel:
    """The rate level asked for, or the one that meets the target on a few frames unadapted."""
    top, o = job.family.top, job.options
    if not top.steps:
        if target or o.quality is not None:
            raise RateControlError(f"{job.family.name} has one rate; choose it by the number at the end of its name")
        return top
    if target is None:
        return RateLevel(round((DEFAULT_QUALITY if o.quality is None else o.quality) / 100 * top.steps))
    return RateLevel(search_level(_sample_measure(job, plain, target), top.steps, target, target.value))


def _meet_target(job: Job, video: CodedVideo, target: Target, unadapted: Candidate) -> CodedVideo:
    """After adaptation a level means another rate: search again with the candidate that won."""
    # A sample of the frames is searched as they are: refinement shifts the goal by what the whole video shows.
    unrefined = replace(video.candidate, refine="none")

    def whole(steps: int) -> tuple[float, CodedVideo]:
        level = RateLevel(steps)
        if level == video.level:
            return _measure(job, video, target), video
        candidate = fitted(job, unadapted, level, FITTED_SHARE) if job.family.fitted else video.candidate
        known = None if candidate.refine == "none" else code(job, unrefined, level)
        coded = code(job, candidate, level, known=known)
        return _measure(job, coded, target), coded

    with job.record.timed("rate control"):
        sample = _sample_measure(job, unrefined, target)
        best = meet_target(sample, whole, job.family.top.steps, target)
        if job.family.fitted or best.level == video.level or unadapted in (best.candidate, unrefined):
            return best
        # An adapted video met the target at a level of its own: an unadapted one that does so at less cost is better.
        rival = code(job, unadapted, best.level)
        trade_off = job.trade_off(best.level)
        met = [v for v in (rival, best) if v is best or target.met(_measure(job, v, target))]
        job.record.costs.clear()
        job.record.costs.update({v.candidate.name: v.cost(trade_off, job.format) for v in met})
        return min(met, key=lambda v: v.cost(trade_off, job.format))


def _sample_measure(job: Job, candidate: Candidate, target: Target) -> Callable[[int], float]:
    """PSNR or predicted size of the whole file, from a few frames, by level."""
    picked = job.footage.sample.spread(2 if job.family.fitted else SEARCH_FRAMES)

    @cache
    def value(steps: int) -> float:
        job.report("search", 0.0, {"level": steps})
        with (video := code(job, candidate, RateLevel(steps), picked)).units:
            return _measure(job, video, target)

    return value


def _measure(job: Job, video: CodedVideo, target: Target) -> float:
    """What the target is about, of coded frames; for sizes the bytes of the whole file, exact but for `FILE_OVERHEAD`
    when all frames are coded.
    """
    if target.kind == "psnr":
        return quality_figures(video.compared, job.format.bit_depth)["psnr_yuv"]
    per_frame = units_size(b"", video.units.sizes) / len(video)
    fixed = FILE_OVERHEAD + 2 * len(video.extra) + units_size(video.candidate.update, [])
    return fixed + per_frame * len(job.footage) + (job.sound.stat().st_size if job.sound else 0)
