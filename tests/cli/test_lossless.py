"""vidcodec encode --lossless and what the other commands make of its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_support import Vidcodec
from lossless_support import tiny_lossless_weights

from vidcodec.cli import main


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
    assert "Y 100.00, U 100.00, V 100.00" in shown.out


def test_a_picture_is_verified_against_its_source(
    vidcodec: Vidcodec, coded: tuple[Path, Path], lossless: Path
) -> None:
    source, file = coded
    done = vidcodec("verify", file, "--against", source, "--weights", lossless, "--json")
    result = json.loads(done.out.splitlines()[-1])
    assert done.code == 0, done.err
    assert (result["ok"], result["compared"], result["psnr_rgb"]) == (True, 1, 100.0)


def test_info_names_the_model(vidcodec: Vidcodec, coded: tuple[Path, Path]) -> None:
    assert json.loads(vidcodec("info", coded[1], "--json").out)["model"] == "lossless"


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
