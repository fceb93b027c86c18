"""Frames of one video coded by several processes: every one keeps the batches that it codes, and `code` joins them.

Each process goes through the same encode, from the same source, options and folder of finished steps, up to the coding
that is to be shared; there it codes every so many-eth batch of frames, keeps them as steps, and ends. What another one
has not done, because it or its machine failed, the encode does itself, so the file does not depend on who coded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from vidcodec.codec.footage import Report
from vidcodec.codec.options import EncodeOptions
from vidcodec.executor import Call, Executor, Outcome, Task, run_tasks
from vidcodec.video import Sampling


class ShareDone(Exception):
    """A process has coded its share."""


@dataclass(frozen=True)
class Share:
    """One of `of` processes. stage: names the coding that they share."""

    stage: str
    number: int
    of: int


@dataclass(frozen=True)
class Helpers:
    """The processes that code a video's frames. notes: takes what the user should know of those that failed."""

    executor: Executor
    source: Path
    options: EncodeOptions
    notes: list[str]

    def code(self, stage: str, name: str, report: Report) -> None:
        """Have all batches of a coding coded and kept, as far as nothing fails."""
        count, ended, most = self.executor.slots, 0, 0.0
        told = {"source": str(self.source.absolute()), "options": told_options(self.options), "stage": stage}
        told["name"] = name
        calls = [Call(f"{__name__}:work", {**told, "number": k, "of": count}) for k in range(count)]

        def finished(number: int, outcome: Outcome, seconds: float) -> None:
            nonlocal ended
            ended += 1
            if outcome.error:
                self.notes.append(f"one of {count} processes failed, its frames are coded here: {outcome.error}")

        def tick(busy: list[Any]) -> None:
            nonlocal most
            most = max(most, (ended + sum(b.running.progress()[1] for b in busy)) / count)
            report(name, most, {})

        run_tasks(self.executor, {k: partial(_single, call) for k, call in enumerate(calls)}, finished, tick)


def _single(call: Call) -> Task[Outcome]:
    return (yield call)


def work(
    report: Callable[[str, float], None],
    source: str,
    options: dict[str, Any],
    stage: str,
    name: str,
    number: int,
    of: int,
) -> None:
    """In a process of its own: code and keep a share of a video's frames. name: that the coding is reported by."""
    from vidcodec.codec.encode import coded, opened

    def told(now: str, share: float, _: dict[str, Any]) -> None:
        report(now, share if now == name else 0.0)

    o = options_of(options)
    with opened(Path(source), Path(), o, told, share=Share(stage, number, of)) as job, suppress(ShareDone):
        for _ in coded(job):
            continue


def told_options(o: EncodeOptions) -> dict[str, Any]:
    """Options as JSON has them; paths are absolute."""
    values = {f.name: getattr(o, f.name) for f in fields(o)}
    paths = {k: str(v.absolute()) for k, v in values.items() if isinstance(v, Path)}
    fps = o.sampling.fps
    return {**values, **paths, "sampling": {**asdict(o.sampling), "fps": None if fps is None else str(fps)}}


def options_of(told: dict[str, Any]) -> EncodeOptions:
    """The opposite of `told_options`."""
    sampling = dict(told["sampling"])
    fps = sampling["fps"]
    paths = {k: Path(told[k]) for k in ("weights", "work") if told[k] is not None}
    o = EncodeOptions(**{**told, **paths, "sampling": Sampling()})
    return replace(o, sampling=Sampling(**{**sampling, "fps": None if fps is None else Fraction(fps)}))
