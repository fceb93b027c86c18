"""A tiny network, a tiny clip, and the command line called in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_support import TINY, Outcome, Vidcodec, make_clip

from vidcodec.cli import main
from vidcodec.families.msp.checkpoint import save_model
from vidcodec.families.msp.network import Msp, MspConfig


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a very small network with random weights."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(Msp(MspConfig.from_dict(TINY)), path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """3 frames of 48x32, 2 a second."""
    return make_clip(tmp_path / "clip.mkv")


@pytest.fixture
def vidcodec(capsys: pytest.CaptureFixture[str]) -> Vidcodec:
    """vidcodec('info', path, ...): the command line in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def shared_vdc(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """(clip, .vdc of it), for tests that only read."""
    folder = tmp_path_factory.mktemp("shared")
    clip = make_clip(folder / "clip.mkv")
    assert main(["encode", str(clip), "--weights", str(weights), "--adapt", "none", "--threads", "1"]) == 0
    return clip, folder / "clip.vdc"


@pytest.fixture
def vdc(shared_vdc: tuple[Path, Path], tmp_path: Path) -> Path:
    """A .vdc file of 3 frames that may be damaged."""
    path = tmp_path / "coded.vdc"
    path.write_bytes(shared_vdc[1].read_bytes())
    return path
