"""Training from the command line: start, stop, go on, export; on a machine without PyAV and CompressAI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_support import TINY, Vidcodec

from vidcodec.families.msp.checkpoint import load_model


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One step on two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(1)
    for index in range(2):
        picture = noise.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(picture, (256, 256)))
    path = tmp_path / "run.json"
    fields = {"data": str(folder), "out": str(tmp_path / "run"), "model": TINY, "holdout": 4}
    path.write_text(json.dumps({**fields, "steps": 1, "batch": 1, "crop": 64, "device": "cpu"}))
    return path


def test_run_and_export(vidcodec: Vidcodec, config: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    outcome = vidcodec("train", "--config", config, "--export", weights)
    assert outcome.code == 0, outcome.err
    assert load_model(weights=weights)[1].hex() in outcome.out
    again = vidcodec("train", "codec", "--config", config)
    assert again.code == 8
    assert "--resume" in again.err
    assert vidcodec("train", "codec", "--resume", tmp_path / "run").code == 0
    kept = vidcodec("train", "export", tmp_path / "run", "-o", weights)
    assert kept.code == 6
    assert "--overwrite" in kept.err
    assert vidcodec("train", "export", tmp_path / "run", "-o", weights, "-y").code == 0


def test_bare_machine_can_train(config: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('av', 'compressai', 'safetensors', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from vidcodec.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "codec", "--config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("codec", "--config", "no.json"), "cannot read the training configuration"),
        (("codec", "--resume", "."), "holds no run to resume"),
        (("export", ".", "-o", "w.safetensors"), "holds no training run"),
    ],
)
def test_nothing_to_work_on(
    vidcodec: Vidcodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = vidcodec("train", *words)
    assert outcome.code == 8
    assert said in outcome.err


def test_damaged_state(vidcodec: Vidcodec, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"nothing")
    outcome = vidcodec("train", "export", tmp_path, "-o", tmp_path / "w.safetensors")
    assert outcome.code == 8
    assert "cannot be read as the state of a training run" in outcome.err
