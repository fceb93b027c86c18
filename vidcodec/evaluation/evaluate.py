"""Sequences x codecs x rate points, start to end.

clips       words to sampled frames, written once without loss
codecs      checked before any work
points      measured, or found where an earlier run left them
compare     Bjontegaard figures against the anchor
write       results.json, results.csv
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vidcodec.errors import InputError
from vidcodec.evaluation import bdrate
from vidcodec.evaluation.clips import FrameChoice, find_clips, prepare_clip
from vidcodec.evaluation.codec import Codec
from vidcodec.evaluation.provenance import provenance
from vidcodec.evaluation.results import ClipInfo, CodecInfo, Point, Results
from vidcodec.evaluation.rivals import Chosen
from vidcodec.evaluation.runner import Report, Runner, Store, Task
from vidcodec.executor import open_executor

POINT_VERSION = 2  # raised when what a point holds, or how it is measured, changes
USUAL_ANCHOR = "x265:intra"


@dataclass(frozen=True)
class Request:
    """What to measure.

    clips: files, folders, sets. choice: of frames. points: how many rate points a codec, where it has none of its own
    and `qps` (quantisers as H.264 and HEVC count them) say nothing of it. anchor: label of a codec; None: x265:intra
    when it is there, else the first rival, else the first codec. metric: that BD figures use. jobs: points at a time.
    threads: of each. cluster: address of a Ray cluster that measures instead of this machine; `folder` is on a path
    that its nodes share. cache: of fetched sets.
    """

    clips: list[str]
    codecs: list[Chosen]
    folder: Path
    choice: FrameChoice = field(default_factory=FrameChoice)
    points: int = 4
    qps: list[float] | None = None
    anchor: str | None = None
    metric: str = bdrate.METRIC
    jobs: int = 1
    threads: int = 1
    cluster: str | None = None
    cache: Path | None = None
    command: str = ""


def evaluate(
    request: Request, report: Report = lambda *_: None, preparing: Callable[[str, int, int], None] = lambda *_: None
) -> Results:
    """Measure what is not measured yet, and write the results.

    report: of points, see `runner`. preparing: called with a clip's name, its number and how many there are.
    Raises VidcodecError before any point is measured: for clips, codecs, the anchor, the folder. What fails later is
    in the results' failures.
    """
    r = request
    anchor = _anchor(r)
    for chosen in r.codecs:
        chosen.codec.check()
    rates = [chosen.rate_points(r.points, r.qps) for chosen in r.codecs]
    sequences = find_clips(r.clips, r.cache)
    store = Store(r.folder)
    with store.locked():
        clips = []
        for number, sequence in enumerate(sequences, 1):
            preparing(sequence.name, number, len(sequences))
            clips.append(prepare_clip(sequence, r.choice, r.folder))
        infos = [chosen.info() for chosen in r.codecs]
        tasks = [
            task_of(clip, chosen, info, rate)
            for clip in clips
            for chosen, info, points in zip(r.codecs, infos, rates, strict=True)
            for rate in points
        ]
        with open_executor(r.jobs, r.threads, r.cluster) as executor:
            measured, failures = Runner(store, executor, threads=r.threads, report=report).run(tasks)
        points, notes = _with_measured_elsewhere(r, clips, measured)
        results = Results(
            provenance=provenance(r.command),
            sampling=r.choice.to_dict(),
            anchor=anchor,
            clips=clips,
            codecs=infos,
            points=points,
            comparisons=bdrate.compare(points, anchor, r.metric) if anchor else [],
            failures=failures,
            notes=notes,
        )
        results.write(r.folder)
    return results


def task_of(clip: ClipInfo, chosen: Chosen, info: CodecInfo, rate_point: float) -> Task:
    """A point to measure, under the digest of everything it depends on."""
    depends = [POINT_VERSION, clip.digest, clip.fps, info.family, info.settings, rate_point]
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]
    return Task(key, clip, chosen.label, chosen.spec, rate_point)


def _anchor(r: Request) -> str | None:
    labels = [chosen.label for chosen in r.codecs]
    if r.anchor is not None and r.anchor not in labels:
        raise InputError(f"the anchor {r.anchor!r} is none of the codecs: {', '.join(labels)}")
    if len(labels) < 2:
        return None
    rivals = [chosen.label for chosen in r.codecs if chosen.codec.family != "vidcodec"]
    return r.anchor or (USUAL_ANCHOR if USUAL_ANCHOR in labels else (rivals or labels)[0])


def _with_measured_elsewhere(r: Request, clips: list[ClipInfo], measured: list[Point]) -> tuple[list[Point], list[str]]:
    """All points in the order of clips and codecs, with those of `points:FILE`; a note for clips that have none."""
    points, notes = [], []
    for clip in clips:
        for chosen in r.codecs:
            if isinstance(chosen.codec, Codec):
                points += [p for p in measured if (p.clip, p.codec) == (clip.name, chosen.label)]
                continue
            found = chosen.codec.points(clip)
            points += found
            if not found:
                frames = f"{clip.frames} frames of {clip.width}x{clip.height}"
                notes.append(f"{chosen.codec.path.name} has no points of {chosen.codec.name} for {clip.name}, {frames}")
    return points, notes
