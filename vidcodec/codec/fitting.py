"""Families whose symbols are fitted, not analysed: the network and some frames together, the other frames with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidcodec.codec.candidates import Candidate, CodedVideo, MeasuredFrame
from vidcodec.codec.job import Budget, Job
from vidcodec.codec.work import network_digest, pack_frames, unpack_frames
from vidcodec.families.family import CodedFrame, Fitter
from vidcodec.rate import RateLevel
from vidcodec.video import Frame

# Luma samples of the frames that a network is fitted on, and the least of these; seconds of a fit that may be lost.
FITTED_PIXELS, LEAST_FITTED, KEPT_SECONDS = 4_000_000, 4, 30.0


def fitted(job: Job, candidate: Candidate, level: RateLevel, share: float = 1.0) -> Candidate:
    """The network fitted to frames of the video, all of them where they are few, together with their symbols.

    share: of the time that is left.
    """
    o, family, footage = job.options, job.family, job.footage
    if o.adapt not in ("full", "decoder"):
        return replace(candidate, name="fitted, network as it is")
    came_from = ("fitted", level)
    with job.record.timed("fit"):
        if not (known := job.work.load(came_from)):
            frames = footage.sample.spread(max(LEAST_FITTED, FITTED_PIXELS // (job.format.width * job.format.height)))
            fitter = family.fitter(level, job.format, frames, o.rounds, len(footage), o.seed)
            seconds = share * job.budget.left * len(frames) / len(footage)
            _run(job, fitter, (level, "network"), seconds, lambda done, figures: job.report("fit", done, figures))
            update = fitter.update()
            coded = fitter.coded(family.updated(update))
            payloads = {str(f.pts): np.frombuffer(c.payload, np.uint8) for f, c in zip(frames, coded, strict=True)}
            known = {"curve": fitter.curve}, {"update:": np.frombuffer(update, np.uint8), **payloads}
            job.work.save(came_from, *known)
        about, arrays = known
        job.record.curve[:] = about["curve"]
        update = arrays["update:"].tobytes()
        found = {int(name): payload.tobytes() for name, payload in arrays.items() if name != "update:"}
        return replace(candidate, name="fitted", family=family.updated(update), update=update, found=found)


def code_fitted(job: Job, candidate: Candidate, level: RateLevel) -> CodedVideo:
    """Code all frames: as the network's fit left them, or fitted to the network now, while there is time."""
    coder = candidate.family.picture_coder(level, job.format)
    video, count = CodedVideo(candidate, level, coder.extra), len(job.footage)
    digest, before = network_digest(candidate.family.network), None
    for i, frame in enumerate(job.footage):
        if payload := candidate.found.get(frame.pts):
            video.append(MeasuredFrame.of(i, frame, coder.reconstruct(payload, frame.pts), candidate, level))
        elif kept := job.work.load(came_from := ("frame", digest, level, i)):
            video.append(unpack_frames(kept[1])[0])
        else:
            coded = _alone(job, candidate, level, i, frame, before)
            video.append(MeasuredFrame.of(i, frame, coded, candidate, level))
            job.work.save(came_from, {}, pack_frames([video[i]]))
        before = frame, video[i].unit.payload
        job.report(f"code {candidate.name}", (i + 1) / count, {})
    return video


def _alone(
    job: Job, candidate: Candidate, level: RateLevel, index: int, frame: Frame, before: tuple[Frame, bytes] | None
) -> CodedFrame:
    """A frame fitted to a candidate's network; before: the frame before it, and its payload."""
    o, count = job.options, len(job.footage)
    fitter = candidate.family.fitter(level, job.format, [frame], o.rounds, 0, o.seed + index, before)
    stage = f"code {candidate.name}"
    _run(
        job,
        fitter,
        (level, candidate.name, index),
        job.budget.left / (count - index),
        lambda done, figures: job.report(stage, (index + done) / count, figures),
    )
    return fitter.coded(candidate.family)[0]


def _run(
    job: Job, fitter: Fitter, which: Sequence[object], seconds: float, progress: Callable[[float, dict[str, Any]], None]
) -> None:
    """A fit to its end, from where an earlier run left it: one file is kept, of the fit that was last at work."""
    came_from, about, budget = ("fitting",), {"of": repr(which)}, Budget(seconds)
    if (known := job.work.load(came_from)) and known[0] == about:
        fitter.load(known[1])
    while not fitter.run(budget.left, KEPT_SECONDS, progress):
        job.work.save(came_from, about, fitter.state())
