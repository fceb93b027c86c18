"""vidcodec encode --lossless and what the other commands make of its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_support import Vidcodec, make_clip
from lossless_support import tiny_lossless_weights

from vidcodec.cli import main
from vidcodec.errors import InputError
from vidcodec.video import Sampling, VideoReader, open_writer


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lossless_weights(tmp_path_factory.mktemp("lossless"))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory, lossless: Path) -> tuple[Path, Path]:
    """An RGB picture, and the file made of it."""
    folder = tmp_path_factory.mktemp("coded")
    picture = np.random.default_rng(0).integers(90, 130, (24, 36, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "in.png"), picture)
    words = ("encode", folder / "in.png", "--lossless", "--adapt", "none", "--weights", lossless)
    assert main([str(word) for word in words]) == 0
    return folder / "in.png", folder / "in.vdc"


def test_a_video_goes_there_and_back(vidcodec: Vidcodec, clip: Path, lossless: Path, tmp_path: Path) -> None:
    done = vidcodec("encode", clip, "-o", tmp_path / "c.vdc", "--lossless", "--preset", "fast", "--weights", lossless)
    assert done.code == 0, done.err
    assert "every sample is kept; coded plain" in done.out
    assert "PSNR" not in done.out
    assert vidcodec("decode", tmp_path / "c.vdc", "-o", tmp_path / "shown.mkv", "--weights", lossless).code == 0
    shown = vidcodec("verify", tmp_path / "c.vdc", "--against", tmp_path / "shown.mkv", "--weights", lossless)
    assert shown.code == 0, shown.err
    assert "3 of 3 frames compared" in shown.out
    assert "3 of them the same in every sample" in shown.out
    assert "PSNR" not in shown.out


def test_a_picture_is_verified_against_its_source(vidcodec: Vidcodec, coded: tuple[Path, Path], lossless: Path) -> None:
    source, file = coded
    done = vidcodec("verify", file, "--against", source, "--weights", lossless, "--json")
    result = json.loads(done.out.splitlines()[-1])
    assert done.code == 0, done.err
    assert (result["ok"], result["compared"], result["identical"], result["psnr_rgb"]) == (True, 1, 1, 100.0)
    assert not {"psnr_y", "psnr_u", "psnr_v", "psnr_yuv"} & set(result)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_other_sample_is_another_source(
    vidcodec: Vidcodec, coded: tuple[Path, Path], lossless: Path, tmp_path: Path, channel: int
) -> None:
    picture = cv2.imread(str(coded[0]))
    picture[3, 4, channel] += 1
    cv2.imwrite(str(tmp_path / "other.png"), picture)
    words = ("verify", coded[1], "--against", tmp_path / "other.png", "--weights", lossless)
    done = vidcodec(*words)
    assert done.code == InputError.exit_code
    assert "1 of 1 frames differ" in done.err.splitlines()[-1]
    assert "all is well" not in done.out
    assert "YUV" not in done.out
    result = vidcodec(*words, "--json").result
    assert (result["ok"], result["compared"], result["identical"]) == (False, 1, 0)
    assert [result[f"psnr_{plane}"] < 100 for plane in "bgr"] == [i == channel for i in range(3)]


def test_frames_that_differ_are_counted(vidcodec: Vidcodec, clip: Path, lossless: Path, tmp_path: Path) -> None:
    assert vidcodec("encode", clip, "--lossless", "--adapt", "none", "--weights", lossless).code == 0
    with VideoReader(clip, Sampling(fps=None), exact=True) as reader:
        video, frames = reader.format, list(reader.frames())
    frames[1].uv[1, 0, 0] ^= 1
    with open_writer(tmp_path / "other.mkv", video) as writer:
        for frame in frames:
            writer.write(frame)
    done = vidcodec("verify", clip.with_suffix(".vdc"), "--against", tmp_path / "other.mkv", "--weights", lossless)
    assert done.code == InputError.exit_code
    assert "1 of 3 frames differ" in done.err.splitlines()[-1]
    assert "Y 100.00, U 100.00, V " in done.out


def test_info_tells_of_the_mode(vidcodec: Vidcodec, coded: tuple[Path, Path], lossless: Path) -> None:
    facts = json.loads(vidcodec("info", coded[1], "--json").out)
    assert (facts["model"], facts["lossless"], facts["rgb"]) == ("lossless", True, True)
    assert facts["rate_levels"] == facts["quantizers"] == []
    shown = vidcodec("info", coded[1], "--decode", "--weights", lossless).out
    assert "8 bit RGB" in shown
    assert "samples" in shown
    assert not any(word in shown for word in ("4:2:0", "rate level", "quantiser"))


def test_info_tells_of_planes_that_are_not_rgb(vidcodec: Vidcodec, clip: Path, lossless: Path) -> None:
    assert vidcodec("encode", clip, "--lossless", "--adapt", "none", "--weights", lossless).code == 0
    file = clip.with_suffix(".vdc")
    facts = json.loads(vidcodec("info", file, "--json").out)
    assert (facts["lossless"], facts["rgb"]) == (True, False)
    assert "8 bit 4:2:0" in vidcodec("info", file).out


@pytest.mark.parametrize(("words", "left"), [((), True), (("--fps", "source"), False), (("--start", "1"), True)])
def test_frames_that_are_left_out_are_told(
    vidcodec: Vidcodec, lossless: Path, tmp_path: Path, words: tuple[str, ...], left: bool
) -> None:
    clip = make_clip(tmp_path / "fast.mkv", frames=8, rate=4)
    done = vidcodec("encode", clip, "--lossless", "--adapt", "none", "--weights", lossless, *words)
    assert done.code == 0
    count = "2 of 4" if "--start" in words else "4 of 8"
    assert (f"note: {count} frames left out by the sampling: every one with --fps source" in done.err) == left


def test_the_result_says_what_was_written(vidcodec: Vidcodec, clip: Path, lossless: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.vdc"
    done = vidcodec("encode", clip, "-o", output, "--lossless", "--adapt", "none", "--weights", lossless, "--json")
    result = json.loads(done.out.splitlines()[-1])
    assert (result["event"], result["lossless"], result["size"]) == ("result", True, output.stat().st_size)


@pytest.mark.parametrize("words", [("--refine", "lof"), ("--quantizer", "rdoq"), ("--adapt", "encoder")], ids=" ".join)
def test_options_that_choose_a_loss_are_refused_in_one_line(
    vidcodec: Vidcodec, clip: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = vidcodec("encode", clip, "-o", tmp_path / "c.vdc", "--lossless", *words)
    assert done.code != 0
    assert done.err.strip().splitlines()[-1].startswith("vidcodec: error: --lossless")
    assert not (tmp_path / "c.vdc").exists()


def test_a_rate_cannot_be_asked_for_as_well(vidcodec: Vidcodec, clip: Path, tmp_path: Path) -> None:
    done = vidcodec("encode", clip, "-o", tmp_path / "c.vdc", "--lossless", "--quality", "40")
    assert done.code == 2
    assert "--quality" in done.err


def test_rgb_is_not_written_where_it_cannot_be_kept(
    vidcodec: Vidcodec, coded: tuple[Path, Path], lossless: Path, tmp_path: Path
) -> None:
    done = vidcodec("decode", coded[1], "-o", tmp_path / "shown.y4m", "--weights", lossless)
    assert done.code != 0
    assert "RGB" in done.err.strip().splitlines()[-1]
    assert not (tmp_path / "shown.y4m").exists()
