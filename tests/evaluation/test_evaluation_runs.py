"""Runs over clips, codecs and rates: what is kept, what is measured again, what fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidcodec.errors import InputError, OutputError
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.evaluate import Request, evaluate
from vidcodec.evaluation.metrics import measure
from vidcodec.evaluation.pictures import clip_format, decoded_frames, source_frames
from vidcodec.evaluation.results import Failure, Point, Results
from vidcodec.evaluation.rivals import parse_codecs
from vidcodec.evaluation.runner import Clock, State, Store, Task
from vidcodec.video import Frame

MakeClip = Callable[..., Path]
TWO = "x264:intra,preset=ultrafast,rates=25/40,jpeg,rates=50"


class Told(list[Point | Failure]):
    """What a run reported as finished just now."""

    def __call__(self, done: Point | Failure | None, state: State) -> None:
        assert 0 <= state.done <= state.total
        if done is not None:
            self.append(done)


def measure_all(clips: list[Path], folder: Path, codecs: str = TWO, **changes: object) -> tuple[Results, Told]:
    request = Request([str(c) for c in clips], parse_codecs(codecs), folder, FrameChoice(None, None), jobs=2)
    told = Told()
    return evaluate(replace(request, **changes), told), told  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def measured(gradients_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Told, Path]:
    """Results, what was told of them, their folder."""
    out = tmp_path_factory.mktemp("measured") / "out"
    return *measure_all([gradients_clip], out), out


def test_points_are_measured_once_and_kept(measured: tuple[Results, Told, Path], gradients_clip: Path) -> None:
    results, told, out = measured
    clip = gradients_clip
    assert len(told) == 3
    assert [(p.codec[:4], p.rate_point) for p in results.points] == [("x264", 25), ("x264", 40), ("jpeg", 50)]
    for point in results.points:
        assert point.file_bytes == sum((out / file).stat().st_size for file in point.files)
        assert point.bpp == 8 * point.bytes / (96 * 80 * 3)
        assert 20 < (point.quality["psnr_yuv"] or 0) < 60
        assert len(point.frame_psnr["y"]) == len(point.frame_bits or []) == 3
        assert (point.encode_memory or 0) > 10_000_000
        assert point.decode_seconds is not None
    assert Results.from_json((out / "results.json").read_text()) == results
    assert not list((out / "work").iterdir())

    again, told = measure_all([clip], out)
    assert told == []
    assert again.points == results.points

    more, told = measure_all([clip], out, TWO.replace("rates=50", "rates=50/70"))
    assert [p.rate_point for p in told if isinstance(p, Point)] == [70]
    assert len(more.points) == 4
    results.write(out)


@pytest.mark.usefixtures("workers_here")
def test_only_what_a_point_depends_on_makes_it_new(make_clip: MakeClip, tmp_path: Path) -> None:
    out = tmp_path / "out"
    measure_all([make_clip()], out, "jpeg,rates=50")
    renamed = make_clip("other.mkv")  # the same frames under another name
    results, told = measure_all([renamed], out, "jpeg,rates=50,name=pictures")
    assert told == []
    assert (results.points[0].clip, results.points[0].codec) == ("other", "pictures")
    _, told = measure_all([make_clip("clip.mkv", seed=1)], out, "jpeg,rates=50")
    assert len(told) == 1


@pytest.mark.usefixtures("workers_here")
def test_a_point_whose_file_lost_its_end_is_measured_again(make_clip: MakeClip, tmp_path: Path) -> None:
    clip, out = make_clip(), tmp_path / "out"
    results, _ = measure_all([clip], out, "jpeg,rates=50")
    file = out / results.points[0].files[1]
    file.write_bytes(file.read_bytes()[:-1])
    _, told = measure_all([clip], out, "jpeg,rates=50")
    assert len(told) == 1


def test_pictures_of_a_point_are_those_that_were_measured(measured: tuple[Results, Told, Path]) -> None:
    results, _, out = measured
    clip = results.clips[0]
    for point in results.points:
        found = measure(source_frames(out, clip), decoded_frames(out, results, point), clip_format(out, clip))
        assert found.quality == point.quality


@pytest.mark.usefixtures("workers_here")
def test_every_codec_gets_the_sampled_frames(
    make_clip: MakeClip, make_frames: Callable[..., list[Frame]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    results, _ = measure_all([make_clip(count=5)], out, "jpeg,rates=50", choice=FrameChoice(1, 2))  # type: ignore[arg-type]
    clip = results.clips[0]
    assert (clip.frames, clip.fps) == (2, 1.0)
    assert results.sampling == {"fps": "1", "frames": 2}
    for shown, made in zip(source_frames(out, clip), make_frames(5)[:4:2], strict=True):
        assert np.array_equal(shown.y, made.y)


@pytest.mark.usefixtures("workers_here")
def test_a_failed_point_is_told_and_ends_nothing(make_clip: MakeClip, tmp_path: Path) -> None:
    results, told = measure_all([make_clip(size=(8, 8))], tmp_path / "out", "x265:intra,rates=30,jpeg,rates=50")
    assert [p.codec for p in results.points] == ["jpeg"]
    (failure,) = results.failures
    assert "UnsupportedInputError: x265:intra cannot code 8x8" in failure.error
    assert failure in told
    _, told = measure_all([make_clip(size=(8, 8))], tmp_path / "out", "x265:intra,rates=30,jpeg,rates=50")
    assert len(told) == 1  # tried again, and only that


def test_a_process_that_dies_is_a_failed_point(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken" / "PIL"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text("__version__ = '0'")
    package.joinpath("Image.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    results, _ = measure_all([make_clip()], tmp_path / "out", "jpeg,rates=50")
    assert "SIGKILL" in results.failures[0].error


@pytest.mark.usefixtures("workers_here")
def test_two_clips_of_one_name_are_told_apart(make_clip: MakeClip, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    results, _ = measure_all([make_clip(), make_clip("sub/clip.mkv", seed=2)], tmp_path / "out", "jpeg,rates=50")
    assert [c.name for c in results.clips] == ["clip", "clip-2"]
    assert [p.clip for p in results.points] == ["clip", "clip-2"]


def test_points_measured_elsewhere_count_for_the_same_frames_only(make_clip: MakeClip, tmp_path: Path) -> None:
    file, out = tmp_path / "rivals.json", tmp_path / "out"
    rows = [{"q": 22, "bytes": 720, "psnr_y": 40.5, "psnr_yuv": 41.0}]
    entry = {"width": 96, "height": 80, "frames": 3, "fps": 2, "codecs": {"hm": rows}}
    file.write_text(json.dumps({"clip": entry, "other": {**entry, "frames": 4}}))
    results, told = measure_all([make_clip(), make_clip("other.mkv", seed=3)], out, f"points:{file}#hm")
    assert told == []
    (point,) = results.points
    assert (point.clip, point.codec, point.rate_point, point.bytes) == ("clip", "points:hm", 22, 720)
    assert (point.bpp, point.quality["psnr_y"]) == (0.25, 40.5)
    assert "no points of hm for other" in results.notes[0]
    with pytest.raises(InputError, match="measured elsewhere"):
        list(decoded_frames(out, results, point))
    with pytest.raises(InputError, match="has no points of 'vtm': it has hm"):
        measure_all([make_clip()], out, f"points:{file}#vtm")


def test_results_serve_as_points(measured: tuple[Results, Told, Path], gradients_clip: Path, tmp_path: Path) -> None:
    before, _, out = measured
    found, told = measure_all([gradients_clip], tmp_path, f"points:{out / 'results.json'}#jpeg")
    assert told == []
    assert found.points[0].bytes == before.points[2].bytes


def test_mistakes_are_told_before_any_work(make_clip: MakeClip, tmp_path: Path) -> None:
    clip, out = make_clip(), tmp_path / "out"
    with pytest.raises(InputError, match="anchor 'x265' is none of the codecs"):
        measure_all([clip], out, anchor="x265")
    with pytest.raises(InputError, match="does not exist"):
        measure_all([tmp_path / "none.mkv"], out)
    with pytest.raises(InputError, match="no file of points"):
        measure_all([clip], out, f"points:{clip}#x")
    assert not out.exists() or not list((out / "points").iterdir())


def test_a_second_evaluation_in_the_same_folder_is_refused(make_clip: MakeClip, tmp_path: Path) -> None:
    with Store(tmp_path / "out").locked(), pytest.raises(OutputError, match="another vidcodec evaluate"):
        measure_all([make_clip()], tmp_path / "out")


@pytest.mark.usefixtures("workers_here")
def test_a_killed_run_goes_on_where_it_was(make_clip: MakeClip, tmp_path: Path) -> None:
    clip, out = make_clip(), tmp_path / "out"
    slow = "jpeg,rates=30/50/70/90"
    words = ["evaluate", str(clip), "--codecs", slow, "--fps", "source", "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcodec", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (out / "points").is_dir() or len(list((out / "points").glob("*.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list((out / "points").glob("*.json")))
    assert 2 <= kept < 4
    results, told = measure_all([clip], out, slow)
    assert len(told) == 4 - kept
    assert len(results.points) == 4


def test_the_rest_is_estimated_from_points_of_the_same_codec() -> None:
    from vidcodec.evaluation.results import ClipInfo

    small, large = (ClipInfo(n, "", "", side, 100, 1, 2.0) for n, side in (("s", 100), ("l", 300)))
    tasks = [Task(f"{c.name}{codec}", c, codec, codec, 1) for c in (small, large) for codec in ("quick", "slow")]
    clock = Clock(tasks)
    assert clock.left({}, 1) is None
    clock.finished(tasks[0], 1.0)
    assert clock.left({}, 1) == pytest.approx(1 + 3 + 3)
    clock.finished(tasks[1], 9.0)
    assert clock.left({}, 1) == pytest.approx(3 + 27)
    assert clock.left({tasks[3].key: 7.0}, 2) == pytest.approx((3 + 20) / 2)
