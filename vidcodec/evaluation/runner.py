"""Points measured in processes of their own, several at a time, each kept as soon as it is done."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError, OutputError
from vidcodec.evaluation import provenance
from vidcodec.evaluation.results import ClipInfo, Failure, Point, point_text, read_point
from vidcodec.evaluation.worker import Job
from vidcodec.files import write_whole
from vidcodec.version import PACKAGE, __version__

POINTS, CODED, WORK = "points", "coded", "work"
POLL_SECONDS = 0.05


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
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"another vidcodec evaluate is writing in {self.folder}: wait for it, or give another --out"
                ) from error
            self._clear()
            try:
                yield
            finally:
                self._clear()

    def _clear(self) -> None:
        for left in (self.folder / WORK).iterdir():
            shutil.rmtree(left, ignore_errors=True)


@dataclass
class Running:
    """A task under way: its process and what the steps gave so far."""

    task: Task
    folder: Path
    started: float
    process: subprocess.Popen[bytes] | None = None
    step: str = ""
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def coded(self) -> Path:
        return self.folder / CODED


class Runner:
    """Measures tasks, `jobs` at a time with `threads` threads each."""

    def __init__(self, store: Store, *, jobs: int, threads: int, report: Report, every: float = 10.0) -> None:
        self.store, self.jobs, self.threads, self.report, self.every = store, jobs, threads, report, every
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
        waiting = deque(t for k in dict.fromkeys(t.key for t in tasks) if (t := single[k]).key not in points)
        clock = Clock(waiting)
        running: list[Running] = []
        told = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    running.append(self._begin(waiting.popleft()))
                for r in [r for r in running if r.process is not None and r.process.poll() is not None]:
                    done = self._advance(r)
                    if done is None:
                        continue
                    running.remove(r)
                    clock.finished(r.task, time.monotonic() - r.started)
                    if isinstance(done, Point):
                        points[r.task.key] = done
                    else:
                        failures[r.task.key] = done
                    self.report(done, self._state(len(single), points, failures, running, clock))
                    told = time.monotonic()
                if time.monotonic() - told > self.every:
                    self.report(None, self._state(len(single), points, failures, running, clock))
                    told = time.monotonic()
                time.sleep(POLL_SECONDS)
        finally:
            for r in running:
                _stop(r.process)
        found = [replace(points[t.key], clip=t.clip.name, codec=t.codec) for t in tasks if t.key in points]
        return found, list(failures.values())

    def _state(
        self, total: int, points: dict[str, Point], failures: dict[str, Failure], running: list[Running], clock: Clock
    ) -> State:
        spent = {r.task.key: time.monotonic() - r.started for r in running}
        left = clock.left(spent, self.jobs)
        return State(len(points) + len(failures), total, [str(r.task) for r in running], left)

    # ------------------------------------------------------------------ one point, step by step

    def _begin(self, task: Task) -> Running:
        r = Running(task, self.store.folder / WORK / task.key, time.monotonic())
        shutil.rmtree(r.folder, ignore_errors=True)
        r.coded.mkdir(parents=True)
        self._start(r, "encode", [])
        return r

    def _start(self, r: Running, step: str, files: list[str]) -> None:
        """Start the process of a step."""
        job, outcome = r.folder / f"{step}.json", r.folder / f"{step}-outcome.json"
        folder, task = self.store.folder, r.task
        Job(
            step=step,
            spec=task.spec,
            rate_point=task.rate_point,
            source=str(folder / task.clip.source),
            count=task.clip.frames,
            folder=str(r.coded),
            files=files,
            outcome=str(outcome),
            threads=self.threads,
        ).write(job)
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        root = str(PACKAGE.parent)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        with (r.folder / f"{step}.log").open("wb") as log:
            r.step = step
            r.process = subprocess.Popen(
                [sys.executable, "-m", "vidcodec.evaluation.worker", str(job)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **threads, "PYTHONPATH": path},
                start_new_session=True,
            )

    def _advance(self, r: Running) -> Point | Failure | None:
        """After a step: the next one (None), or the end."""
        assert r.process is not None
        code = r.process.wait()
        if r.process.stdin:
            r.process.stdin.close()
        outcome = _outcome(r.folder / f"{r.step}-outcome.json")
        if outcome is None or "error" in outcome:
            error = outcome["error"] if outcome else _last_words(code, r.folder / f"{r.step}.log")
            shutil.rmtree(r.folder, ignore_errors=True)
            return Failure(r.task.clip.name, r.task.codec, r.task.rate_point, error)
        r.outcomes[r.step] = outcome
        if r.step == "encode":
            self._start(r, "measure", outcome["files"])
            return None
        point = self._point(r)
        self.store.put(point, r.coded)
        shutil.rmtree(r.folder, ignore_errors=True)
        return point

    def _point(self, r: Running) -> Point:
        coded, shown, task = r.outcomes["encode"], r.outcomes["measure"], r.task
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

    def __init__(self, tasks: Sequence[Task] | deque[Task]) -> None:
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


def _outcome(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _last_words(code: int, log: Path) -> str:
    """Why a process ended without an outcome."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    """End a process and what it runs; its standard input, once closed, would do it as well."""
    if process is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
            break
    if process.stdin:
        process.stdin.close()
