"""Points measured in processes of their own, several at a time, each kept as soon as it is done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError, OutputError
from vidcodec.evaluation import provenance
from vidcodec.evaluation.results import ClipInfo, Failure, Point, point_text, read_point
from vidcodec.evaluation.worker import Job
from vidcodec.executor import Call, Executor, run_tasks
from vidcodec.executor.calls import Busy
from vidcodec.executor.calls import Task as Calls
from vidcodec.files import locked, write_whole
from vidcodec.version import __version__

POINTS, CODED, WORK = "points", "coded", "work"


@dataclass(frozen=True)
class Task:
    """One point to measure. key: digest of everything it depends on. spec: of the codec; codec: its label."""

    key: str
    clip: ClipInfo
    codec: str
    spec: str
    rate_point: float

    def __str__(self) -> str:
        return f"{self.clip.name}, {self.codec} at {self.rate_point:g}"


@dataclass(frozen=True)
class State:
    """How far a run is. running: points being measured. left: seconds, None while there is no telling."""

    done: int
    total: int
    running: list[str]
    left: float | None


# (what was finished just now, or None every so often; how far the run is)
Report = Callable[[Point | Failure | None, State], None]


class Store:
    """The finished points in a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (POINTS, CODED, WORK):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def get(self, task: Task) -> Point | None:
        """The point as measured before; None when there is none whose files are whole."""
        try:
            point = read_point((self.folder / POINTS / f"{task.key}.json").read_text())
        except (OSError, InputError):
            return None
        files = [self.folder / file for file in point.files]
        if not all(file.is_file() for file in files) or sum(f.stat().st_size for f in files) != point.file_bytes:
            return None
        return replace(point, clip=task.clip.name, codec=task.codec)

    def put(self, point: Point, coded: Path) -> None:
        """Keep a point, and take over the folder with its coded files."""
        target = self.folder / CODED / point.key
        shutil.rmtree(target, ignore_errors=True)
        os.replace(coded, target)
        write_whole(self.folder / POINTS / f"{point.key}.json", point_text(point))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out, and leaves no unfinished work behind. Raises OutputError when it is taken."""
        taken = f"another vidcodec evaluate is writing in {self.folder}: wait for it, or give another --out"
        with locked(self.folder / ".lock", OutputError(taken)):
            self._clear()
            try:
                yield
            finally:
                self._clear()

    def _clear(self) -> None:
        for left in (self.folder / WORK).iterdir():
            shutil.rmtree(left, ignore_errors=True)


class Runner:
    """Measures tasks on an executor, each call with `threads` threads."""

    def __init__(self, store: Store, executor: Executor, *, threads: int, report: Report, every: float = 10.0) -> None:
        self.store, self.executor, self.threads, self.report, self.every = store, executor, threads, report, every
        self.measured = {
            "date": provenance.now(),
            "cpu": provenance.cpu_model(),
            "vidcodec": __version__,
            "commit": provenance.commit(),
        }

    def run(self, tasks: Sequence[Task]) -> tuple[list[Point], list[Failure]]:
        """Points in the order of the tasks, and what failed. After KeyboardInterrupt the finished ones are kept."""
        single = {t.key: t for t in reversed(tasks)}  # what is asked for under two names is measured once
        points: dict[str, Point] = {k: p for k, t in single.items() if (p := self.store.get(t)) is not None}
        failures: dict[str, Failure] = {}
        waiting = {k: single[k] for k in dict.fromkeys(t.key for t in tasks) if k not in points}
        clock, running, told = Clock(list(waiting.values())), list[Busy[str, Point | Failure]](), time.monotonic()

        def tell(done: Point | Failure | None) -> None:
            nonlocal told
            told = time.monotonic()
            left = clock.left({b.key: told - b.started for b in running}, self.executor.slots)
            names = [str(single[b.key]) for b in running]
            self.report(done, State(len(points) + len(failures), len(single), names, left))

        def finished(key: str, done: Point | Failure, seconds: float) -> None:
            clock.finished(single[key], seconds)
            if isinstance(done, Point):
                points[key] = done
            else:
                failures[key] = done
            running[:] = [b for b in running if b.key != key]
            tell(done)

        def tick(busy: list[Busy[str, Point | Failure]]) -> None:
            running[:] = busy
            if time.monotonic() - told > self.every:
                tell(None)

        run_tasks(self.executor, {k: partial(self._measured, t) for k, t in waiting.items()}, finished, tick)
        found = [replace(points[t.key], clip=t.clip.name, codec=t.codec) for t in tasks if t.key in points]
        return found, list(failures.values())

    def _measured(self, task: Task) -> Calls[Point | Failure]:
        """One point: its files made in one process, decoded and compared in another one."""
        folder = self.store.folder / WORK / task.key
        shutil.rmtree(folder, ignore_errors=True)
        (coded := folder / CODED).mkdir(parents=True)
        files: list[str] = []
        outcomes = []
        for step in ("encode", "measure"):
            outcome = yield self._call(task, step, coded, files)
            if outcome.error:
                shutil.rmtree(folder, ignore_errors=True)
                error = f"{outcome.kind}: {outcome.error}" if outcome.kind else outcome.error
                return Failure(task.clip.name, task.codec, task.rate_point, error)
            outcomes.append(outcome.value)
            files = outcomes[0]["files"]
        point = self._point(task, *outcomes)
        self.store.put(point, coded)
        shutil.rmtree(folder, ignore_errors=True)
        return point

    def _call(self, task: Task, step: str, coded: Path, files: list[str]) -> Call:
        job = Job(
            step=step,
            spec=task.spec,
            rate_point=task.rate_point,
            source=str((self.store.folder / task.clip.source).absolute()),
            count=task.clip.frames,
            folder=str(coded.absolute()),
            files=files,
            threads=self.threads,
        )
        return Call("vidcodec.evaluation.worker:work", asdict(job))

    def _point(self, task: Task, coded: dict[str, Any], shown: dict[str, Any]) -> Point:
        return Point(
            key=task.key,
            clip=task.clip.name,
            codec=task.codec,
            rate_point=task.rate_point,
            bytes=coded["rate_bytes"],
            file_bytes=coded["file_bytes"],
            bpp=8 * coded["rate_bytes"] / task.clip.pixels,
            quality=shown["quality"],
            files=[f"{CODED}/{task.key}/{name}" for name in coded["files"]],
            frame_bits=coded["frame_bits"],
            frame_psnr=shown["frame_psnr"],
            encode_seconds=coded["seconds"],
            decode_seconds=shown["seconds"],
            threads=self.threads,
            encode_memory=coded["memory"],
            decode_memory=shown["memory"],
            details={**coded["details"], **shown["details"]},
            notes=[*coded["notes"], *shown["notes"]],
            measured={**self.measured, "date": provenance.now()},
        )


class Clock:
    """How long the rest will take, from what points of the same codec took per pixel."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._open = {t.key: t for t in tasks}
        self._speeds: dict[str, list[float]] = {}  # seconds per pixel by codec

    def finished(self, task: Task, seconds: float) -> None:
        """A point took so long."""
        self._open.pop(task.key, None)
        self._speeds.setdefault(task.codec, []).append(seconds / task.clip.pixels)

    def left(self, spent: dict[str, float], jobs: int) -> float | None:
        """Seconds; spent: on the points under way, by key. None before the first point."""
        if not self._speeds:
            return None
        mean = {codec: sum(speeds) / len(speeds) for codec, speeds in self._speeds.items()}
        other = sum(mean.values()) / len(mean)
        whole = [(mean.get(t.codec, other) * t.clip.pixels, spent.get(k, 0.0)) for k, t in self._open.items()]
        return sum(max(0.0, expected - gone) for expected, gone in whole) / max(1, min(jobs, len(whole)))
