"""vidcodec evaluate from the command line: tables, files, exit codes."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from cli_support import Vidcodec, make_clip, start
from worker_support import work_here

from vidcodec.cli import main

FAST = "x264:intra,preset=ultrafast,rates=20/26/32/38,jpeg,rates=20/45/70/90"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(clip, results) of one evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    clip = make_clip(folder / "waves.mkv", frames=2, size=(96, 64))
    words = ["evaluate", clip, "--codecs", FAST, "--fps", "source", "--out", folder / "out"]
    typed = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        work_here(patch)
        patch.setattr(sys, "argv", ["vidcodec", *typed])
        assert main(typed) == 0, err.getvalue()
    (folder / "stdout").write_text(out.getvalue())
    (folder / "stderr").write_text(err.getvalue())
    return clip, folder / "out"


def test_the_table_compares_with_the_anchor(evaluated: tuple[Path, Path]) -> None:
    text = evaluated[1].with_name("stdout").read_text()
    assert "BD-rate against x264:intra,preset=ultrafast" in text
    assert len([line for line in text.splitlines() if line.startswith("  waves  x264")]) == 4
    assert "mean" in text


def test_progress_tells_of_every_point_and_the_time_left(evaluated: tuple[Path, Path]) -> None:
    lines = evaluated[1].with_name("stderr").read_text().splitlines()
    assert len([line for line in lines if " bpp, " in line]) == 8
    assert "[8/8, 0:00 left]" in lines[-1]


def test_results_say_how_they_came_about(evaluated: tuple[Path, Path]) -> None:
    found = json.loads((evaluated[1] / "results.json").read_text())
    p = found["provenance"]
    assert p["command"].startswith("vidcodec evaluate ")
    assert f"--codecs {FAST}" in p["command"]
    assert p["vidcodec"]
    assert p["cpu"]
    assert p["cores"] >= 1
    assert "av" in p["libraries"]
    assert len((evaluated[1] / "results.csv").read_text().splitlines()) == 9
    for suffix in ("png", "svg"):
        assert (evaluated[1] / "plots" / f"rd-waves.{suffix}").stat().st_size > 5000


@pytest.mark.usefixtures("workers_here")
def test_json_gives_events(evaluated: tuple[Path, Path], vidcodec: Vidcodec, tmp_path: Path) -> None:
    done = vidcodec("evaluate", evaluated[0], "--codecs", "jpeg,rates=50", "--out", tmp_path, "--json", "--frames", "1")
    assert done.code == 0
    assert [e["event"] for e in done.events] == ["point", "result"]
    assert done.events[0]["rate_point"] == 50
    assert done.result["points"] == 1


def test_a_page_is_written_from_points_that_are_there(evaluated: tuple[Path, Path], vidcodec: Vidcodec) -> None:
    clip, out = evaluated
    page = out.with_name("page")
    done = vidcodec("evaluate", clip, "--codecs", FAST, "--fps", "source", "--out", out, "--report", page)
    assert done.code == 0
    assert " bpp, " not in done.err  # nothing was measured again
    assert "<html" in (page / "index.html").read_text()
    assert "index.html" in done.out


@pytest.mark.usefixtures("workers_here")
def test_a_failed_point_is_told_by_the_exit_code(vidcodec: Vidcodec, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "small.mkv", size=(8, 8))
    done = vidcodec("evaluate", clip, "--codecs", "x265:intra,rates=30", "--out", tmp_path / "out")
    assert done.code == 1
    assert "x265:intra cannot code 8x8" in done.err
    assert json.loads((tmp_path / "out" / "results.json").read_text())["failures"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--codecs", "x256:intra"], 3, "did you mean x265"),
        (["--codecs", "x265:intra", "--anchor", "x264"], 3, "none of the codecs"),
        (["--rates", "22,99"], 2, "0 to 51"),
        (["--rates", "low"], 2, "no quantisers"),
        (["--points", "0"], 2, "from 1 to 50"),
        (["--metric", "psnr"], 2, "did you mean psnr_"),
        (["--codecs", "vidcodec:weights=nowhere.safetensors"], 5, "no weights nowhere.safetensors"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, says: str, clip: Path, vidcodec: Vidcodec) -> None:
    done = vidcodec("evaluate", clip, *words, "--out", clip.parent / "out")
    assert done.code == code
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (clip.parent / "out").exists()


def test_a_clip_that_is_not_there_is_told(vidcodec: Vidcodec, tmp_path: Path) -> None:
    done = vidcodec("evaluate", tmp_path / "none.mkv", "--codecs", "jpeg", "--out", tmp_path / "out")
    assert done.code == 3
    assert "does not exist" in done.err


def test_a_clip_that_is_no_video_is_told(vidcodec: Vidcodec, tmp_path: Path) -> None:
    (tmp_path / "clip.mkv").write_bytes(b"no video at all")
    done = vidcodec("evaluate", tmp_path / "clip.mkv", "--codecs", "jpeg", "--out", tmp_path / "out")
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("vidcodec: error:")


def test_a_file_in_the_way_of_the_results_is_told(vidcodec: Vidcodec, clip: Path) -> None:
    done = vidcodec("evaluate", clip, "--codecs", "jpeg", "--out", clip)
    assert done.code == 6
    assert "is no folder" in done.err


def test_ctrl_c_keeps_finished_points(tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "clip.mkv"), tmp_path / "out"
    process = start("evaluate", clip, "--codecs", "jpeg,rates=20/30/40/50/60/70", "--out", out, "--jobs", "1")
    deadline = time.monotonic() + 60
    while not list((out / "points").glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished points are kept" in err.splitlines()[-1]
    assert list((out / "points").glob("*.json"))
    assert not list((out / "work").iterdir())
