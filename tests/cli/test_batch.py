"""vidcodec batch: many files, one command each; what is skipped, tried again, left behind."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_support import Vidcodec, make_clip, start

from vidcodec.cli.jobs import FOLDER, Finished, jobs_of, run_jobs
from vidcodec.cli.parser import UsageError
from vidcodec.errors import InputError, OutputError
from vidcodec.executor import Call, LocalExecutor
from vidcodec.executor.local import LocalCall, shares
from vidcodec.files import locked


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of two clips."""
    (folder := tmp_path / "clips").mkdir()
    for index, name in enumerate(("a", "b")):
        make_clip(folder / f"{name}.mkv", frames=2 + index)
    return folder


@pytest.fixture
def options(weights: Path) -> list[str]:
    return ["--weights", str(weights), "--adapt", "none", "--preset", "fast", "--fps", "source"]


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.usefixtures("workers_here")
def test_a_folder_is_encoded_and_finished_outputs_are_skipped(
    vidcodec: Vidcodec, clips: Path, options: list[str], tmp_path: Path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone.vdc"
    outcome = vidcodec("batch", clips, "-o", out, "--", *options)
    assert outcome.code == 0, outcome.err
    jobs = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(j["status"], Path(j["output"]).name, j["result"]["frames"]) for j in jobs] == [
        ("done", "a.vdc", 2),
        ("done", "b.vdc", 3),
    ]
    assert left_in(out) == ["a.vdc", "b.vdc"]
    assert vidcodec("encode", clips / "a.mkv", "-o", alone, *options).code == 0
    assert (out / "a.vdc").read_bytes() == alone.read_bytes()

    (out / "b.vdc").unlink()
    outcome = vidcodec("batch", clips, "-o", out, "--", *options)
    assert [json.loads(line)["status"] for line in outcome.out.splitlines()] == ["skipped", "done"]
    outcome = vidcodec("batch", clips / "*.mkv", "-o", out, "-y", "--", *options)
    assert [json.loads(line)["status"] for line in outcome.out.splitlines()] == ["done", "done"]


@pytest.mark.usefixtures("workers_here")
def test_what_fails_is_tried_twice_and_named(
    vidcodec: Vidcodec, clips: Path, options: list[str], tmp_path: Path
) -> None:
    (clips / "b.mkv").write_text("no video " * 50)
    outcome = vidcodec("batch", clips, "-o", tmp_path / "out", "--", *options)
    assert outcome.code == 1
    _, failed = (json.loads(line) for line in outcome.out.splitlines())
    assert (failed["status"], failed["tries"]) == ("failed", 2)
    assert "is not a video" in failed["error"]
    assert "b.mkv failed: " in outcome.err
    assert outcome.err.splitlines()[-1].startswith("vidcodec: error: 1 of 2 jobs failed")
    assert left_in(tmp_path / "out") == ["a.vdc"]


@pytest.mark.usefixtures("workers_here")
def test_every_line_of_a_list_is_a_job_of_its_own(
    vidcodec: Vidcodec, clips: Path, weights: Path, filter_weights: Path, tmp_path: Path
) -> None:
    usual = {"weights": str(weights), "preset": "fast", "fps": "source"}
    lines = [
        {"input": "clips/a.mkv", "quality": 30, **usual},
        {"input": "clips/a.mkv", "output": "fine/a.vdc", "quality": 80, **usual},
        {
            "command": "filter encode",
            "input": "clips/b.mkv",
            "codec": "x264",
            "qp": 40,
            "strategy": "none",
            "weights": str(filter_weights),
            "overwrite": False,
        },
        {
            "command": "evaluate",
            "input": ["clips/a.mkv"],
            "output": "eval",
            "codecs": "jpeg",
            "points": 1,
            "exact": True,
        },
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(map(json.dumps, lines)))
    outcome = vidcodec("batch", jobs, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert left_in(tmp_path / "out") == ["a.vdc", "b.mkv", "eval", "fine"]
    assert (tmp_path / "out/fine/a.vdc").stat().st_size > (tmp_path / "out/a.vdc").stat().st_size
    assert (tmp_path / "out/eval/results.json").is_file()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no job"),
        ('{"input": "a.mkv", "presets": "fast"}', "unknown argument --presets .did you mean --preset"),
        ('{"input": "a.mkv", "command": "train"}', "no command 'train'"),
        ('{"output": "a.vdc"}', "'input'"),
        ('{"input": "a.mkv", "output": "../a.vdc"}', "not below"),
        ('{"input": "other/a.mkv"}', "both be written to a.vdc"),
    ],
)
def test_mistakes_in_a_list_are_told_before_any_work(tmp_path: Path, line: str, said: str) -> None:
    (jobs := tmp_path / "jobs.jsonl").write_text('{"input": "a.mkv"}\n' + line)
    with pytest.raises((InputError, UsageError), match=said):
        jobs_of([str(jobs)], [])


def test_mistakes_on_the_command_line(vidcodec: Vidcodec, clips: Path, tmp_path: Path) -> None:
    for words, code, said in (
        ((clips, "-o", tmp_path / "out", "--", "--presets", "fast"), 2, "unknown argument --presets"),
        ((clips, "-o", tmp_path / "out", "--", "train"), 2, "cannot run 'train'"),
        ((tmp_path / "none", "-o", tmp_path / "out"), 3, "none"),
        ((clips, "-o", tmp_path / "no" / "out"), 6, "does not exist"),
    ):
        outcome = vidcodec("batch", *words)
        assert outcome.code == code, outcome
        assert said in outcome.err
    assert not (tmp_path / "out").exists()


class Killing(LocalExecutor):
    """Kills the first process that it starts."""

    def start(self, call: Call) -> LocalCall:
        running = super().start(call)
        if not hasattr(self, "killed"):
            self.killed = running.process.pid
            running.process.kill()
        return running


def results(clips: Path, out: Path, executor: LocalExecutor, options: Sequence[str]) -> list[Finished]:
    found: list[Finished] = []
    run_jobs(jobs_of([str(clips)], options), out, executor, found.append)
    return found


def test_a_job_whose_process_is_killed_is_done_all_the_same(clips: Path, options: list[str], tmp_path: Path) -> None:
    found = results(clips, tmp_path / "out", Killing(2), options)
    assert sorted((Path(f.output).name, f.status, f.tries) for f in found) == [
        ("a.vdc", "done", 2),
        ("b.vdc", "done", 1),
    ]


def test_a_second_batch_in_the_same_folder_is_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    taken = locked(tmp_path / "out" / FOLDER / "lock", AssertionError())
    with taken, pytest.raises(OutputError, match="another vidcodec batch"):
        results(clips, tmp_path / "out", LocalExecutor(), [])


def test_an_interrupted_batch_leaves_nothing_but_finished_steps(clips: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = ["--weights", str(weights), "--fps", "source", "--preset", "best"]
    process = start("batch", clips, "-o", out, "--jobs", 1, "--", *slow)
    deadline = time.monotonic() + 120
    while not list(out.glob(f"{FOLDER}/a.vdc/steps/*/*.step")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("vidcodec: error: interrupted; finished outputs and steps are kept")
    assert left_in(out) == [FOLDER]
    assert left_in(out / FOLDER) == ["a.vdc", "lock"]
    assert left_in(out / FOLDER / "a.vdc") == ["steps"]


def test_cores_and_memory_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    from vidcodec.executor import local

    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr(local, "_free_memory", lambda: 10_000)
    assert shares(100, None, None, 1_000) == (8, 1)
    assert shares(3, None, None, 1_000) == (3, 2)
    assert shares(100, None, None, 5_000) == (2, 4)
    assert shares(100, None, 4, 1_000) == (2, 4)
    assert shares(100, 3, None, 20_000) == (3, 2)
    assert shares(100, None, None, 20_000) == (1, 8)
