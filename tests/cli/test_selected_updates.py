"""Importance learned from pictures, an encode that goes by it, and a decoder that finds it or says what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("some", "biases+multipliers"),
        ("biases:3", "biases+multipliers"),
        ("learned:x", "biases+multipliers"),
        ("random", "random:10000"),
        ("low-rank:0", "a rank from 1 to 16"),
        ("low-rank:17", "a rank from 1 to 16"),
    ],
)
def test_unknown_selections_are_wrong_arguments(vidcodec: Vidcodec, clip: Path, what: str, said: str) -> None:
    for command in (("encode", clip), ("filter", "encode", clip, "-o", clip.with_suffix(".mp4"))):
        outcome = vidcodec(*command, "--update-parameters", what)
        assert outcome.code == 2
        assert said in outcome.err
        assert outcome.err.count("\n") == 1


def test_reading_selections_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from vidcodec.cli.arguments import update_parameters\n"
        "print(update_parameters('learned:5'), sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "learned:5 []"


def test_selections_without_an_update_are_refused(vidcodec: Vidcodec, clip: Path, weights: Path) -> None:
    outcome = vidcodec("encode", clip, "--weights", weights, "--update-parameters", "biases", "--adapt", "none")
    assert outcome.code == 3
    assert "for --update-parameters take full or decoder" in outcome.err


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
