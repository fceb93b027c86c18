"""Many commands, one for each of many files: read, checked, run on an executor, each output whole or not there.

    OUT/NAME.vdc ...             finished outputs
    OUT/.vidcodec-batch/NAME/    one job's, while it is not finished: what it writes, and its steps (`encode --work`)

An output gets its name when its command has ended well. A job that fails is tried once more; it, or the next run of the
batch, goes on from the steps that it has finished.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache, partial
from glob import glob
from pathlib import Path
from typing import Any

from vidcodec.cli.parser import UsageError, parse
from vidcodec.errors import InputError, OutputError, VidcodecError
from vidcodec.evaluation.datasets import load
from vidcodec.executor import Call, Executor, Task, run_tasks
from vidcodec.executor.calls import Busy
from vidcodec.files import locked

FOLDER = ".vidcodec-batch"
TRIES = 2
SUFFIXES = {"encode": ".vdc", "decode": ".mkv", "filter encode": ".mkv", "filter decode": ".mkv", "evaluate": ""}


@dataclass(frozen=True)
class Job:
    """A command on some files. output: below the folder of outputs; options: words of the command line."""

    command: str
    inputs: tuple[Path, ...]
    output: Path
    options: tuple[str, ...]

    def words(self, output: Path) -> list[str]:
        """The command line, with another output in the place of its own."""
        to = "--out" if self.command == "evaluate" else "--output"
        return [*self.command.split(), *map(str, self.inputs), to, str(output), *self.options]


@dataclass(frozen=True)
class Finished:
    """How a job ended. status: 'done', 'skipped' (its output was there) or 'failed'. result: the command's own."""

    command: str
    inputs: list[str]
    output: str
    status: str
    tries: int = 0
    seconds: float = 0.0
    error: str = ""
    result: dict[str, Any] | None = None


def jobs_of(inputs: Iterable[str], words: Sequence[str]) -> list[Job]:
    """A job for every file, with the command and options in `words` ('encode' where they begin with an option).

    inputs: files, folders, patterns, fetched sets; of a .jsonl file every line is a job of its own, see `job_of`.
    Raises InputError and UsageError.
    """
    command, options = _split(words)
    jobs: list[Job] = []
    for word in inputs:
        if word.endswith(".jsonl"):
            jobs += _listed(Path(word))
            continue
        # A file of this name wins over what the name could stand for.
        paths = sorted(glob(word, recursive=True)) if any(c in word for c in "*?[") and not os.path.exists(word) else []
        for found in (s for path in paths or [word] for s in load(path)):
            jobs.append(Job(command, (found.path.absolute(),), Path(found.name + SUFFIXES[command]), options))
    _check(jobs)
    return jobs


def _split(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A command and its options."""
    for count in (2, 1):
        if (command := " ".join(words[:count])) in SUFFIXES:
            return command, tuple(words[count:])
    if words and not words[0].startswith("-"):
        raise UsageError(f"batch cannot run {words[0]!r}: it runs {', '.join(SUFFIXES)}")
    return "encode", tuple(words)


def _listed(path: Path) -> Iterator[Job]:
    """The jobs of a .jsonl file."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield job_of(json.loads(line), path.parent)
            except (ValueError, TypeError, KeyError, UsageError) as error:
                raise InputError(f"{path}, line {number} is no job: {error}") from error


def job_of(told: dict[str, Any], folder: Path) -> Job:
    """A job from a line like {"input": "a.mp4", "output": "a.vdc", "command": "encode", "preset": "fast"}.

    Everything but input (a list of them for evaluate), output and command is an option of the command: true for one
    without a value. Inputs are relative to `folder`. Raises ValueError and its kin.
    """
    rest = dict(told)
    command, source = rest.pop("command", "encode"), rest.pop("input")
    if command not in SUFFIXES:
        raise ValueError(f"there is no command {command!r} here: {', '.join(SUFFIXES)}")
    inputs = tuple((folder / name).absolute() for name in ([source] if isinstance(source, str) else source))
    output = Path(rest.pop("output", inputs[0].stem + SUFFIXES[command]))
    if output.is_absolute() or ".." in output.parts:
        raise ValueError(f"its output {output} is not below the folder of outputs")
    words: list[str] = []
    for name, value in rest.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return Job(command, inputs, output, tuple(words))


def _check(jobs: Sequence[Job]) -> None:
    """Raise UsageError for options that no command takes, InputError for two jobs that would write one file."""

    @cache
    def parsed(command: str, options: tuple[str, ...]) -> None:
        parse(Job(command, (Path("in"),), Path("out"), options).words(Path("out")))

    outputs: dict[Path, Job] = {}
    for job in jobs:
        parsed(job.command, job.options)
        if (other := outputs.setdefault(job.output, job)) is not job:
            raise InputError(f"{job.inputs[0]} and {other.inputs[0]} would both be written to {job.output}")


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    executor: Executor,
    finished: Callable[[Finished], None],
    tick: Callable[[float, dict[str, str]], None] = lambda share, running: None,
    *,
    overwrite: bool = False,
) -> None:
    """Run jobs into a folder; outputs that are there are skipped unless `overwrite`; an evaluation goes on by itself.

    finished: called for every job. tick: called with the share of all work that is done, and what every job under way
    is doing. Raises OutputError where another batch writes there; KeyboardInterrupt leaves no unfinished output.
    """
    private, count = (folder / FOLDER).absolute(), len(jobs)
    private.mkdir(parents=True, exist_ok=True)
    ended, most = 0, 0.0

    def end(job: Job, result: Finished, seconds: float = 0.0) -> None:
        nonlocal ended
        ended += 1
        finished(Finished(**{**asdict(result), "seconds": round(seconds, 2)}))

    def told(busy: list[Busy[Job, Finished]]) -> None:
        nonlocal most
        now = {str(b.key.output): b.running.progress() for b in busy}
        # Every stage of a job begins at 0 again.
        most = max(most, (ended + sum(share for _, share in now.values())) / max(1, count))
        tick(most, {name: stage for name, (stage, _) in now.items()})

    taken = OutputError(f"another vidcodec batch is writing in {folder}: wait for it, or give another folder")
    with locked(private / "lock", taken):
        try:
            todo = []
            for job in jobs:
                if job.command != "evaluate" and (folder / job.output).exists() and not overwrite:
                    end(job, _ended(job, folder, "skipped"))
                else:
                    todo.append(job)
            run_tasks(executor, {j: partial(_job, j, folder, private) for j in todo}, end, told)
        finally:
            for job in jobs:
                _put_away(private / _key(job))
    if set(os.listdir(private)) <= {"lock"}:
        shutil.rmtree(private, ignore_errors=True)


def _job(job: Job, folder: Path, private: Path) -> Task[Finished]:
    mine, error = private / _key(job), ""
    partial_output = mine / job.output.name
    for tried in range(1, TRIES + 1):
        _put_away(mine)
        mine.mkdir(exist_ok=True)
        at = (folder / job.output).absolute() if job.command == "evaluate" else partial_output
        words = job.words(at)
        if job.command == "encode" and "--work" not in job.options:
            words += ["--work", str(mine / "steps")]
        outcome = yield Call("vidcodec.cli.jobs:work", {"words": words})
        if not outcome.error:
            target = folder / job.output
            target.parent.mkdir(parents=True, exist_ok=True)
            if at == partial_output:
                os.replace(partial_output, target)
            shutil.rmtree(mine, ignore_errors=True)
            return _ended(job, folder, "done", tried, result=outcome.value)
        error = outcome.error
    return _ended(job, folder, "failed", TRIES, error=error)


def _ended(job: Job, folder: Path, status: str, tries: int = 0, **more: Any) -> Finished:
    return Finished(job.command, [str(p) for p in job.inputs], str(folder / job.output), status, tries, **more)


def _key(job: Job) -> str:
    return "-".join(job.output.parts)


def _put_away(mine: Path) -> None:
    """Leave nothing of an unfinished job but its finished steps."""
    for left in mine.iterdir() if mine.is_dir() else ():
        if left.name == "steps":
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    if mine.is_dir() and not any(p.is_file() for p in mine.rglob("*")):
        shutil.rmtree(mine, ignore_errors=True)


# ------------------------------------------------------------------- in a worker's process


def work(report: Callable[[str, float], None], words: list[str]) -> dict[str, Any]:
    """The result of a command line, without paths of what it wrote. Raises VidcodecError where it fails."""
    from vidcodec.cli import main

    events = Events(report)
    with redirect_stdout(events):
        code = main([*words, "--json"])
    if code:
        raise VidcodecError(events.error or f"exit code {code}")
    return {k: v for k, v in events.result.items() if k not in ("event", "output")}


class Events(io.TextIOBase):
    """Takes the NDJSON that a command prints: passes progress on, keeps its result or its error."""

    def __init__(self, report: Callable[[str, float], None]) -> None:
        self._report, self._rest = report, ""
        self.result: dict[str, Any] = {}
        self.error = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for event in map(json.loads, lines):
            if event["event"] == "progress":
                self._report(event["stage"], event["share"])
            elif event["event"] == "result":
                self.result = event
            elif event["event"] == "error":
                self.error = event["message"]
        return len(text)
