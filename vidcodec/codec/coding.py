"""All frames of a job through a candidate: coded for real, measured as a decoder shows them, kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch

from vidcodec.codec.candidates import Candidate, CodedVideo, MeasuredFrame
from vidcodec.codec.chains import Chains
from vidcodec.codec.fitting import code_fitted
from vidcodec.codec.job import Job
from vidcodec.codec.steps import decisions_of
from vidcodec.codec.work import network_digest, pack_frames, unpack_frames
from vidcodec.families.planes import padded_size
from vidcodec.rate import RateLevel
from vidcodec.video import Frame

# A long video that is coded one way has one picture in so many compared with its source, but this many at least.
COMPARED, LEAST_COMPARED = 8, 16

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
    count = len(job.footage if picked is None else picked)
    stride = max(1, min(COMPARED, count // LEAST_COMPARED)) if picked is None and job.codes_once else 1
    if picked is None and job.in_chains:
        chains = Chains(job, candidate, level, stride)
        video = CodedVideo(candidate, level, chains.extra)
        for measured in chains.code(job.footage):
            video.append(measured)
            job.report(f"code {candidate.name}", len(video) / count, {})
        return video
    coder = candidate.family.picture_coder(level, job.format, decisions=decisions_of(job, candidate, level))
    video = CodedVideo(candidate, level, coder.extra)
    for i, frame in enumerate(job.footage if picked is None else picked):
        coded = coder.encode(frame)
        video.append(MeasuredFrame.of(i, frame, coded, candidate, level, compare=i % stride == 0))
        if picked is None:
            job.report(f"code {candidate.name}", (i + 1) / count, {})
    return video


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
    digest = network_digest(family.network) if job.options.work else ""
    for batch, pictures in _batches(job, height * width, family.device):
        # What others refer to stays as it is, and what refers to others.
        numbers = [i for i in batch if known is None or not (job.in_chains and known.is_bound(i))]
        frames = [f for i, f in zip(batch, pictures, strict=True) if i in numbers]
        came_from = ("refined", digest, candidate.settings, candidate.refine, level, numbers)
        left = job.budget.left * len(batch) / (count - batch.start)

        def progress(share: float, batch: range = batch) -> None:
            job.report(f"refine {candidate.name}", (batch.start + share * len(batch)) / count, {})

        if not numbers:
            found = []
        elif kept := job.work.load(came_from):
            found = unpack_frames(kept[1])
        else:
            ways = refiner.encode(frames, numbers, left, progress) if left > 0 else [[plain.encode(f)] for f in frames]
            found = []
            for i, frame, coded in zip(numbers, frames, ways, strict=True):
                measured = (MeasuredFrame.of(i, frame, c, candidate, level) for c in coded)
                found.append(min(measured, key=lambda m: m.cost(trade_off, job.format)))
            if left > 0:
                job.work.save(came_from, {}, pack_frames(found))
        refined = dict(zip(numbers, found, strict=True))
        for i in batch:
            ways_there = [refined.get(i), None if known is None else known[i]]
            video.append(min(filter(None, ways_there), key=lambda m: m.cost(trade_off, job.format)))
        progress(1.0)
    return video


def _batches(job: Job, pixels: int, device: torch.device) -> Iterator[tuple[range, list[Frame]]]:
    """Numbers and frames in order, as many of `pixels` luma samples together as the device takes."""
    size = max(1, IN_FLIGHT.get(device.type, IN_FLIGHT["cpu"]) // pixels)
    frames, start = iter(job.footage), 0
    while batch := list(islice(frames, size)):
        yield range(start, start + len(batch)), batch
        start += len(batch)
