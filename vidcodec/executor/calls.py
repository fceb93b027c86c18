"""What is called in another process, what comes of it, and tasks that are made of such calls."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Call:
    """A function that a process of its own is told to call, by name.

    function: 'module:name', called as name(report, **arguments), report(stage, share) telling how far it is. arguments
    and what it returns are values that JSON has.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a call gave. error: why it gave nothing, else ''; kind: the error's type, where it was one of ours."""

    value: Any = None
    error: str = ""
    kind: str = ""


class Running(ABC):
    """A call under way."""

    @abstractmethod
    def poll(self) -> Outcome | None:
        """What came of it; None while it runs."""

    def progress(self) -> tuple[str, float]:
        """Stage and share of it done, as the function reported last; ('', 0) where nothing tells."""
        return "", 0.0

    @abstractmethod
    def stop(self) -> None:
        """End it, and what it runs. What has ended already stays as it is."""


class Executor(ABC):
    """Runs calls, each in a process of its own; use it in a `with` statement."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many calls run at a time."""

    @abstractmethod
    def start(self, call: Call) -> Running:
        """Begin a call."""

    def close(self) -> None:
        """Let go of what it holds; calls under way are stopped before."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


R = TypeVar("R")
K = TypeVar("K")
Task = Generator[Call, Outcome, R]  # yields calls one after the other, is sent what came of each, returns a result


@dataclass
class Busy(Generic[K, R]):
    """A task under way."""

    key: K
    task: Task[R]
    running: Running
    started: float


def run_tasks(
    executor: Executor,
    tasks: Mapping[K, Callable[[], Task[R]]],
    finished: Callable[[K, R, float], None],
    tick: Callable[[list[Busy[K, R]]], None] = lambda busy: None,
) -> None:
    """Run tasks to their ends, in their order, as many at a time as the executor has slots.

    finished: called with a task's key, result and seconds. tick: called every so often with what is under way. When
    anything raises, KeyboardInterrupt included, all calls under way are stopped.
    """
    waiting, busy = deque(tasks), list[Busy[K, R]]()
    try:
        while waiting or busy:
            while waiting and len(busy) < executor.slots:
                task = tasks[key := waiting.popleft()]()
                busy.append(Busy(key, task, executor.start(next(task)), time.monotonic()))
            for b in list(busy):
                if (outcome := b.running.poll()) is None:
                    continue
                try:
                    b.running = executor.start(b.task.send(outcome))
                except StopIteration as end:
                    busy.remove(b)
                    finished(b.key, end.value, time.monotonic() - b.started)
            tick(busy)
            time.sleep(POLL_SECONDS)
    finally:
        for b in busy:
            b.running.stop()
