"""All frames of a job through a candidate: coded for real, measured as a decoder shows them, kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from vidcodec.codec.candidates import Candidate, CodedVideo, MeasuredFrame
from vidcodec.codec.chains import Chains
from vidcodec.codec.fitting import code_fitted
from vidcodec.codec.job import Job
from vidcodec.codec.shares import ShareDone
from vidcodec.codec.steps import decisions_of
from vidcodec.codec.work import CameFrom, network_digest, pack_frames, step_digest, unpack_frames
from vidcodec.families.planes import padded_size
from vidcodec.rate import RateLevel
from vidcodec.video import Frame

# A long video that is coded one way has one picture in so many compared with its source, but this many at least.
COMPARED, LEAST_COMPARED = 8, 16

# Luma samples coded together and kept, some seconds' work; of a shorter video this share, for processes to share.
KEPT_PIXELS, LEAST_BATCHES = 16_000_000, 16

# Luma samples refined together: more fill a GPU better, and take more memory.
IN_FLIGHT = {"cpu": 1_500_000, "cuda": 12_000_000}


def code(
    job: Job,
    candidate: Candidate,
    level: RateLevel,
    picked: Sequence[Frame] | None = None,
    known: CodedVideo | None = None,
) -> CodedVideo:
    """Code all frames (or the picked ones) for real, and measure what a decoder shows of them.

    Where nothing but the report asks for quality, of some of them: making the picture is half of the work.

    known: all frames coded before. Refinement takes one over where it costs less, at the same level and for the same
    decoder.
    """
    if candidate.family.fitted and picked is None:
        return code_fitted(job, candidate, level)
    if candidate.refine != "none" and picked is None:
        return _refined(job, candidate, level, known)
    coder = candidate.family.picture_coder(level, job.format, decisions=decisions_of(job, candidate, level))
    if picked is not None:
        video = CodedVideo(candidate, level, coder.extra)
        for i, frame in enumerate(picked):
            video.append(MeasuredFrame.of(i, frame, coder.encode(frame), candidate, level))
        return video
    count = len(job.footage)
    stride = max(1, min(COMPARED, count // LEAST_COMPARED)) if job.codes_once else 1
    stage, name = ("coded", _digest(job, candidate), candidate.settings, level), f"code {candidate.name}"
    chains = Chains(job, candidate, level, stride) if job.in_chains else None
    video = CodedVideo(candidate, level, chains.extra if chains else coder.extra)

    def make(start: int, frames: Iterable[Frame]) -> Iterator[MeasuredFrame]:
        for i, frame in enumerate(frames, start):
            yield MeasuredFrame.of(i, frame, coder.encode(frame), candidate, level, compare=i % stride == 0)
            job.report(name, (i + 1) / count, {})

    size = max(1, min(KEPT_PIXELS // (job.format.width * job.format.height), -(-count // LEAST_BATCHES)))
    batches = chains.intervals() if chains else _batches(job, size)
    for _, found in _kept(job, stage, name, batches, chains.code if chains else make):
        for measured in found:
            video.append(measured)
        job.report(name, len(video) / count, {})
    return video


Batch = tuple[int, Iterable[Frame]]  # number of the first frame, all of them


def _kept(
    job: Job,
    stage: CameFrom,
    name: str,
    batches: Iterable[Batch],
    make: Callable[[int, Iterable[Frame]], Iterable[MeasuredFrame]],
) -> Iterator[tuple[int, list[MeasuredFrame]]]:
    """Every batch of all frames, coded: as it was kept, by a process that helps, or by `make`, and then kept.

    stage: what this coding came from. A process that has a share of it raises ShareDone at its end.
    """
    named = step_digest((job.work.stretch, *stage))
    share = job.share if job.share and job.share.stage == named else None
    if job.helpers:
        job.helpers.code(named, name, job.report)
    for number, (start, frames) in enumerate(batches):
        came_from = (*stage, start)
        if kept := job.work.load(came_from):
            yield start, unpack_frames(kept[1])
        elif share is None or number % share.of == share.number:
            found = list(make(start, frames))
            if found and job.budget.left > 0:  # another run may have more time
                job.work.save(came_from, {}, pack_frames(found))
            yield start, found
    if share:
        raise ShareDone


def _digest(job: Job, candidate: Candidate) -> str:
    """Names a candidate's network, where that matters."""
    return network_digest(candidate.family.network) if job.options.work else ""


def _refined(job: Job, candidate: Candidate, level: RateLevel, known: CodedVideo | None) -> CodedVideo:
    """Code all frames with refined latents, as many together as the device takes, while there is time."""
    family, count, trade_off = candidate.family, len(job.footage), job.trade_off(level)
    methods = family.refining_methods(candidate.refine)
    decisions = {method: decisions_of(job, candidate, level, method) for method in methods}
    steps, seed = job.plan.refine_steps, job.options.seed
    refiner = family.refiner(level, job.format, candidate.refine, decisions, steps, seed)
    plain = family.picture_coder(level, job.format, decisions=decisions_of(job, candidate, level))
    if known is None or known.level != level or not known.decodes_like(candidate):
        known = code(job, replace(candidate, refine="none"), level) if job.in_chains else None
    video = CodedVideo(candidate, level, known.extra if known is not None else plain.extra)
    height, width = padded_size(job.format.height, job.format.width, family.multiple)
    stage = ("refined", _digest(job, candidate), candidate.settings, candidate.refine, level)
    name = f"refine {candidate.name}"

    def bound(i: int) -> bool:  # what others refer to stays as it is, and what refers to others
        return known is not None and job.in_chains and known.is_bound(i)

    def make(start: int, pictures: Iterable[Frame]) -> list[MeasuredFrame]:
        frames = {i: frame for i, frame in enumerate(pictures, start) if not bound(i)}
        if not frames:
            return []
        left = job.budget.left * len(frames) / (count - start)

        def progress(share: float) -> None:
            job.report(name, (start + share * len(frames)) / count, {})

        pictures, numbers = list(frames.values()), list(frames)
        ways = refiner.encode(pictures, numbers, left, progress) if left > 0 else [[plain.encode(f)] for f in pictures]
        measured = (
            [MeasuredFrame.of(i, f, c, candidate, level) for c in coded]
            for i, f, coded in zip(numbers, pictures, ways, strict=True)
        )
        return [min(tried, key=lambda m: m.cost(trade_off, job.format)) for tried in measured]

    size = max(1, IN_FLIGHT.get(family.device.type, IN_FLIGHT["cpu"]) // (height * width))
    for start, found in _kept(job, stage, name, _batches(job, size), make):
        refined = {m.unit.index: m for m in found}
        for i in range(start, min(start + size, count)):
            ways_there = [refined.get(i), None if known is None else known[i]]
            video.append(min(filter(None, ways_there), key=lambda m: m.cost(trade_off, job.format)))
        job.report(name, len(video) / count, {})
    return video


def _batches(job: Job, size: int) -> Iterator[Batch]:
    """All frames in order, `size` at a time."""
    frames, start = iter(job.footage), 0
    while batch := list(islice(frames, size)):
        yield start, batch
        start += len(batch)
