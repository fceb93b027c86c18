"""A clip goes into a .vdc file and comes back, with everything a user is told on the way."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest
from cli_support import Outcome, Vidcodec, damage_frame, make_clip, start

from vidcodec.video import Sampling, VideoReader

RESULT_KEYS = {
    "event",
    "output",
    "frames",
    "width",
    "height",
    "chosen",
    "quality",
    "size",
    "update_size",
    "z_size",
    "y_size",
    "bpp",
    "seconds",
    "costs",
    "curve",
    "notes",
    "psnr_y",
    "psnr_u",
    "psnr_v",
    "psnr_yuv",
}


def plain(vidcodec: Vidcodec, clip: Path, weights: Path, *more: object) -> Outcome:
    return vidcodec("encode", clip, "--weights", weights, "--adapt", "none", *more)


def test_output_is_named_after_the_input(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    outcome = plain(vidcodec, clip, weights)
    assert outcome.code == 0
    size = clip.with_suffix(".vdc").stat().st_size
    assert f"3 frames of 48x32, {size:,} bytes" in outcome.out
    for told in ("model update", "container", "PSNR (dB, errors averaged over frames", "quality 50", "seconds: read"):
        assert told in outcome.out
    assert "read: " in outcome.err
    assert "%|" not in outcome.err  # no bar where nobody looks


def test_json_has_progress_and_a_result(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    outcome = plain(vidcodec, clip, weights, "--json", "--quality", "20")
    assert outcome.code == 0
    assert set(outcome.result) >= RESULT_KEYS
    assert outcome.result["frames"] == 3
    assert outcome.result["size"] == clip.with_suffix(".vdc").stat().st_size
    progress = [e for e in outcome.events if e["event"] == "progress"]
    stages = {e["stage"] for e in progress}
    assert "read" in stages
    assert any(stage.startswith("code plain") for stage in stages)
    assert all(0 <= e["share"] <= 1 for e in progress)


def test_adaptation_shows_its_figures(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    outcome = vidcodec("encode", clip, "--weights", weights, "--max-time", "0.01", "--json")
    assert outcome.code == 0
    adapting = [e for e in outcome.events if e.get("stage") == "adapt"]
    assert adapting
    assert {"bpp", "mse", "psnr", "update_bits"} <= set(adapting[-1]["figures"])
    plain, *_, refined = outcome.result["costs"]
    assert plain.startswith("plain")
    assert any(name.startswith("adapted (full)") for name in outcome.result["costs"])
    assert refined.endswith(", lof")


@pytest.mark.parametrize(
    ("options", "frames"),
    [(("--fps", "1"), 2), (("--fps", "source"), 3), (("--start", "0.5"), 2), (("--duration", "0:00.6"), 2)],
)
def test_frames_are_chosen(
    vidcodec: Vidcodec, clip: Path, weights: Path, options: tuple[str, ...], frames: int
) -> None:
    assert plain(vidcodec, clip, weights, "--json", *options).result["frames"] == frames


def test_target_size_is_kept(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    words = ("--json", "-y", "--duration", "0.5")
    small = plain(vidcodec, clip, weights, *words, "--quality", "0").result["size"]
    large = plain(vidcodec, clip, weights, *words, "--quality", "100").result["size"]
    target = (small + large) // 2 + 1
    outcome = plain(vidcodec, clip, weights, *words, "--target-size", target)
    assert outcome.code == 0
    assert outcome.result["size"] <= target


def test_existing_output_is_kept_unless_told(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    output = clip.with_suffix(".vdc")
    output.write_text("mine")
    outcome = plain(vidcodec, clip, weights)
    assert outcome.code == 6
    assert "--overwrite" in outcome.err
    assert output.read_text() == "mine"
    assert plain(vidcodec, clip, weights, "--overwrite").code == 0
    assert output.read_bytes() != b"mine"


@pytest.mark.parametrize("suffix", ["y4m", "mkv", "mp4"])
def test_decodes_to_a_video(vidcodec: Vidcodec, vdc: Path, weights: Path, suffix: str) -> None:
    output = vdc.with_name(f"out.{suffix}")
    outcome = vidcodec("decode", vdc, "-o", output, "--weights", weights)
    assert (outcome.code, outcome.out) == (0, f"{output}: 3 of 3 frames\n")
    with VideoReader(output, Sampling(fps=None)) as reader:
        times = [float(frame.pts * reader.format.time_base) for frame in reader.frames()]
    assert times == [0.0, 0.5, 1.0]
    assert ("note: MP4 is a lossy copy" in outcome.err) == (suffix == "mp4")
    assert vidcodec("decode", vdc, "-o", output, "--weights", weights).code == 6
    assert vidcodec("decode", vdc, "-o", output, "--weights", weights, "--overwrite").code == 0


def test_decodes_to_pictures(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    folder = vdc.with_name("stills")
    assert vidcodec("decode", vdc, "-o", folder, "--weights", weights).code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["frame_000000_0.000000.png", "frame_000001_0.500000.png", "frame_000002_1.000000.png"]
    picture = cv2.imread(str(folder / names[0]))
    assert picture is not None
    assert picture.shape == (32, 48, 3)
    assert vidcodec("decode", vdc, "-o", folder, "--weights", weights).code == 6
    again = vidcodec("decode", vdc, "-o", folder, "--weights", weights, "--overwrite", "--frames", "1")
    assert again.code == 0
    assert [path.name for path in folder.iterdir()] == ["frame_000000_0.500000.png"]


@pytest.mark.parametrize(("frames", "count"), [("1", 1), ("1:", 2), (":2", 2), ("0:9", 3)])
def test_decodes_a_range(vidcodec: Vidcodec, vdc: Path, weights: Path, frames: str, count: int) -> None:
    outcome = vidcodec("decode", vdc, "-o", vdc.with_suffix(".y4m"), "--weights", weights, "--json", "--frames", frames)
    assert outcome.code == 0
    assert outcome.result["frames"] == outcome.result["expected"] == count
    assert outcome.result["complete"] is True


def test_range_beyond_the_end_is_refused(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    outcome = vidcodec("decode", vdc, "-o", vdc.with_suffix(".y4m"), "--weights", weights, "--frames", "7:9")
    assert outcome.code == 4
    assert "it has frames 0:3" in outcome.err


def test_damaged_frame_is_left_out_and_told(vidcodec: Vidcodec, vdc: Path, weights: Path) -> None:
    damage_frame(vdc, 1)
    output = vdc.with_suffix(".y4m")
    outcome = vidcodec("decode", vdc, "-o", output, "--weights", weights)
    assert outcome.code == 4
    assert output.is_file()
    assert "warning: frame 1: " in outcome.err
    assert "warning: 2 of 3 frames decoded" in outcome.err
    whole = vidcodec("decode", vdc, "-o", output, "--weights", weights, "--frames", "2", "-y")
    assert whole.code == 0  # all that was asked for is there
    none = vidcodec("decode", vdc, "-o", vdc.with_suffix(".mkv"), "--weights", weights, "--frames", "1")
    assert none.code == 4
    assert not vdc.with_suffix(".mkv").exists()


def test_bar_on_a_terminal(vidcodec: Vidcodec, clip: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    outcome = plain(vidcodec, make_clip(clip.with_name("other.mkv")), weights)
    assert outcome.code == 0
    assert re.search(r"code plain[^:]*: 100%\|", outcome.err)


def test_a_pipe_gives_the_file_that_its_content_gives(clip: Path, weights: Path, tmp_path: Path) -> None:
    usual = ("--weights", weights, "--adapt", "none", "--preset", "fast")
    for name, source in (("file", clip), ("pipe", "-")):
        process = start("encode", source, "-o", tmp_path / f"{name}.vdc", *usual, stdin=clip.open("rb"))
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert (tmp_path / "pipe.vdc").read_bytes() == (tmp_path / "file.vdc").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "file.vdc", "pipe.vdc"]
    nameless = start("encode", "-", *usual, stdin=clip.open("rb"))
    assert "give -o OUT.vdc" in nameless.communicate(timeout=300)[1]
    assert nameless.returncode == 2
