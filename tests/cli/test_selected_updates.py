"""Importance learned from pictures, an encode that goes by it, and a decoder that finds it or says what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_support import Vidcodec


@pytest.fixture
def own_weights(weights: Path, tmp_path: Path) -> Path:
    """The tiny network in a folder where scores may be left."""
    return Path(shutil.copy(weights, tmp_path / "own.safetensors"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "0.png"), cv2.resize(noise, (256, 256)))
    return folder


def test_learn_encode_and_decode(vidcodec: Vidcodec, clip: Path, own_weights: Path, pictures: Path) -> None:
    scores = own_weights.with_name("own-importance.safetensors")
    learn = ("train", "importance", pictures, "--weights", own_weights, "--contents", "1", "--threads", "1")
    assert vidcodec(*learn).code == 0
    assert 0 < scores.stat().st_size < 1_000_000
    assert vidcodec(*learn).code == 6  # not over what is there, unless told
    options = ("--update-parameters", "learned:300", "--max-time", "0.03")
    encode = ("encode", clip, "-y", "--weights", own_weights, *options)
    outcome = vidcodec(*encode, "--json")
    assert outcome.code == 0
    assert any("learned-laplace:300" in name for name in outcome.result["costs"])
    decode = ("decode", clip.with_suffix(".vdc"), "-o", clip.with_name("shown.mkv"), "--weights", own_weights)
    assert vidcodec(*decode).code == 0
    scores.unlink()
    without = vidcodec(*encode)
    assert without.code == 5
    assert "importance" in without.err


@pytest.mark.parametrize("what", ["some", "random", "biases:3", "learned:x"])
def test_unknown_selections_are_named(vidcodec: Vidcodec, clip: Path, what: str) -> None:
    outcome = vidcodec("encode", clip, "--update-parameters", what)
    assert outcome.code == 2
    assert "biases+multipliers" in outcome.err


def test_the_fixed_prior_takes_no_selection(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    options = ("--update-prior", "spike-slab", "--update-parameters", "biases")
    outcome = vidcodec("encode", clip, "--weights", weights, *options)
    assert outcome.code == 3
    assert "spike-slab" in outcome.err


def test_models_without_scores_are_named(vidcodec: Vidcodec, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    assert vidcodec("train", "importance", pictures, "--model", "mbt2018", "-o", output).code == 5
    assert vidcodec("train", "importance", tmp_path / "nowhere", "-o", output).code == 3
    assert not output.exists()
