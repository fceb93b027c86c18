"""Calls in processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError
from vidcodec.executor.calls import Call, Executor, Outcome, Running
from vidcodec.executor.worker import CALL, OUTCOME, PROGRESS
from vidcodec.version import PACKAGE

STOP_SECONDS = 5.0  # that a process has to put away what is half done
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class LocalExecutor(Executor):
    """Processes of this machine, `slots` at a time with `threads` threads each."""

    def __init__(self, slots: int = 1, threads: int = 1) -> None:
        self._slots, self.threads = slots, threads

    @property
    def slots(self) -> int:
        return self._slots

    def start(self, call: Call) -> LocalCall:
        return LocalCall(call, self.threads)


class LocalCall(Running):
    """A process, and the folder in which it tells what comes of its call."""

    def __init__(self, call: Call, threads: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vidcodec-call-"))
        (self.folder / CALL).write_text(json.dumps(asdict(call)))
        path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vidcodec.executor.worker", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path},
                start_new_session=True,
            )

    def poll(self) -> Outcome | None:
        if (code := self.process.poll()) is None:
            return None
        found = _read(self.folder / OUTCOME)
        outcome = Outcome(**found) if found else Outcome(error=_last_words(code, self.folder / "log"))
        self._forget()
        return outcome

    def progress(self) -> tuple[str, float]:
        stage, share = _read(self.folder / PROGRESS) or ("", 0.0)
        return stage, share

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
                break
        self._forget()

    def _forget(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def open_executor(slots: int, threads: int, cluster: str | None = None) -> Executor:
    """Processes of this machine, or those of the Ray cluster at an address, where there are as many as it has cores.

    Raises InputError where Ray is not installed or there is no such cluster.
    """
    if cluster is None:
        return LocalExecutor(slots, threads)
    try:
        from vidcodec.executor.cluster import RayExecutor
    except ImportError as error:
        raise InputError("a cluster needs Ray: pip install 'vidcodec[ray]'") from error
    return RayExecutor(cluster, threads)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(count: int, jobs: int | None, threads: int | None, memory: int) -> tuple[int, int]:
    """How many of `count` jobs at a time with how many threads each, where not given, on this machine.

    memory: bytes that one job may need.
    """
    fit = min(count, cores() // (threads or 1), _free_memory() // memory)
    jobs = jobs or max(1, fit)
    return jobs, threads or max(1, cores() // jobs)


def _free_memory() -> int:
    """Bytes; where the system does not tell, as much as anything needs."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return sys.maxsize


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _last_words(code: int, log: Path) -> str:
    """Why a process ended without an outcome."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")
