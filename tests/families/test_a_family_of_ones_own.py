"""A family in one file, named by an installed package, goes through the ordinary commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidcodec import VideoDecoder
from vidcodec.cli import main
from vidcodec.errors import ModelNotFoundError
from vidcodec.families import family_of, known_families

HERE = Path(__file__).parent
CLIP = HERE.parent / "data" / "car_park.mp4"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package with the toy family were installed, for other processes as well."""
    package = tmp_path / "site" / "toy-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[vidcodec.families]\ntoy = toy_family:ToyFamily\n")
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path[:2]))
    known_families.cache_clear()
    yield
    known_families.cache_clear()


def coded(capsys: pytest.CaptureFixture[str], output: Path, *words: str) -> dict:
    """What `vidcodec encode` tells of four frames at a low rate."""
    common = ["--model", "toy", "--fps", "1", "--duration", "2", "--quality", "20", "--threads", "1", "--json"]
    assert main(["encode", str(CLIP), "-o", str(output), *common, *words]) == 0
    result: dict = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_it_encodes_and_decodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = coded(capsys, tmp_path / "o.vdc", "--preset", "fast")
    assert result["chosen"] == "plain"
    assert result["psnr_y"] > 25
    with VideoDecoder(tmp_path / "o.vdc") as decoder:
        assert [index for index, _, _ in decoder.frames()] == [0, 1]
        assert decoder.problems == []
    assert main(["verify", str(tmp_path / "o.vdc"), "--against", str(CLIP)]) == 0
    assert main(["info", str(tmp_path / "o.vdc"), "--decode"]) == 0


def test_it_is_adapted_and_refined(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = coded(
        capsys, tmp_path / "o.vdc", "--preset", "medium", "--adapt", "decoder", "--max-time", "0.2", "--refine", "lof"
    )
    plain, adapted, refined = result["costs"].values()
    assert refined <= adapted < plain
    assert result["update_size"] > 0
    assert main(["verify", str(tmp_path / "o.vdc"), "--against", str(CLIP)]) == 0
    assert main(["info", str(tmp_path / "o.vdc")]) == 0
    assert "synthesis" in capsys.readouterr().out  # a tensor of the update


def test_it_is_measured_beside_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    codecs = "vidcodec:model=toy,preset=fast,rates=10/30,jpeg,rates=50"
    words = ["evaluate", str(CLIP), "--codecs", codecs, "--fps", "1", "--frames", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["event"] == "result"
    points = [json.loads(p.read_text()) for p in (tmp_path / "out" / "points").iterdir()]
    ours = sorted((p["bytes"], p["quality"]["psnr_yuv"]) for p in points if p["codec"].startswith("vidcodec"))
    assert len(ours) == 2 < len(points)
    assert ours == sorted(ours, key=lambda point: point[1])  # more bytes, more quality


def test_names_without_a_family_are_msp_checkpoints() -> None:
    assert family_of("toy").__name__ == "ToyFamily"
    assert family_of("compressai:mbt2018-mean:1").__name__ == "CompressAIFamily"
    assert family_of("nothing-here").__name__ == "MspFamily"


def test_a_family_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_families(), "broken", "no_such_module:Family")
    with pytest.raises(ModelNotFoundError, match="no_such_module"):
        family_of("broken")
