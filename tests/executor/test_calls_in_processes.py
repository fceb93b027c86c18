"""Calls in processes of their own: what they give, how they fail, and that none outlives what started it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcodec.errors import InputError
from vidcodec.executor import Call, LocalExecutor, Outcome, Task, run_tasks
from vidcodec.executor.calls import Busy
from vidcodec.executor.local import LocalCall

SLEEPER = """
import os, signal, time
from pathlib import Path
from vidcodec.errors import InputError

def told(report, folder, **more):
    return {"threads": os.environ["OMP_NUM_THREADS"], **more}

def refused(report, folder):
    raise InputError("no such thing")

def killed(report, folder):
    Path(folder, "tried").open("a").write(".")
    os.kill(os.getpid(), signal.SIGKILL)

def broken(report, folder):
    raise ValueError("broken")

def sleeping(report, folder):
    Path(folder, "pid").write_text(str(os.getpid()))
    report("asleep", 0.5)
    time.sleep(60)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Call]:
    """call(name, ...): of a function of the module above."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return lambda name, **more: Call(f"sleeper:{name}", {"folder": str(tmp_path), **more})


def outcomes(calls: list[Call], slots: int = 2) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}

    def task(c: Call) -> Task[Outcome]:
        return (yield c)

    def finished(key: int, outcome: Outcome, seconds: float) -> None:
        assert seconds > 0
        found[key] = outcome

    run_tasks(LocalExecutor(slots, threads=3), {i: lambda c=c: task(c) for i, c in enumerate(calls)}, finished)
    return found


def test_what_a_call_gives_and_how_it_fails(call: Callable[..., Call]) -> None:
    found = outcomes([call("told", number=1.5), call("refused"), call("killed"), call("broken")])
    assert found[0] == Outcome({"threads": "3", "number": 1.5})
    assert found[1] == Outcome(error="no such thing", kind=InputError.__name__)
    assert "signal SIGKILL" in found[2].error
    assert found[3].error.endswith("exit code 1: ValueError: broken")


def test_a_task_makes_one_call_after_the_other(call: Callable[..., Call]) -> None:
    results = []

    def task() -> Task[list[int]]:
        first = yield call("told", number=1)
        second = yield call("told", number=first.value["number"] + 1)
        return [first.value["number"], second.value["number"]]

    run_tasks(LocalExecutor(), {"key": task}, lambda key, result, _: results.append((key, result)))
    assert results == [("key", [1, 2])]


def test_an_interruption_stops_what_is_under_way(call: Callable[..., Call], tmp_path: Path) -> None:
    def task() -> Task[None]:
        yield call("sleeping")

    def tick(busy: list[Busy[str, None]]) -> None:
        if busy[0].running.progress() == ("asleep", 0.5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(LocalExecutor(), {"key": task}, lambda *_: None, tick)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_no_process_outlives_what_started_it(call: Callable[..., Call]) -> None:
    running = LocalCall(call("sleeping"), 1)
    while running.progress() != ("asleep", 0.5):
        time.sleep(0.01)
    assert running.poll() is None
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(60) == -signal.SIGKILL
    running.stop()
    assert not running.folder.exists()
