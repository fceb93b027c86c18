"""Files made once must decode for ever: changing their symbols is a breaking change."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
from pathlib import Path

import pytest

from vidcodec import Frame, VideoDecoder
from vidcodec.latents import symbols
from vidcodec.latents.quantizer import Quantizer
from vidcodec.latents.symbols import SymbolLog

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_exactness.py"
GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.mark.parametrize(("name", "quantizer"), [("clip", "scalar"), ("trellis", "trellis8"), ("rdoq", "scalar")])
def test_golden_file_decodes_to_the_same_symbols_and_pictures(name: str, quantizer: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    with VideoDecoder(GOLDEN / f"{name}.vdc", weights=GOLDEN / "tiny.safetensors", device="cpu") as decoder:
        assert decoder.reader.complete
        assert {Quantizer.from_code(f.quantizer).kind for f in decoder.reader.frames()} == {quantizer}
        assert sum(len(p) for p in decoder.reader.update_chain(1)) == expected["update_bytes"] > 0
        frames = [decoder.frame(i) for i in range(len(decoder))]
    assert [log.crc for _, log in frames] == expected["checksums"]
    assert_means(frames, expected["means"])


def test_golden_chain_decodes_to_the_same_symbols_and_pictures() -> None:
    expected = json.loads((GOLDEN / "chain.json").read_text())
    with VideoDecoder(GOLDEN / "chain.vdc", weights=GOLDEN / "tiny.safetensors", device="cpu") as decoder:
        assert [f.is_key for f in decoder.reader.frames()] == [True, False, False]
        assert any(f.payload for f in decoder.reader.frames(1))
        frames = [decoder.frame(i) for i in range(len(decoder))]
    assert [log.crc for _, log in frames] == expected["checksums"]
    assert_means(frames, expected["means"])


@pytest.mark.parametrize("name", ["lossless", "pocket"])
def test_golden_files_of_other_families_decode_to_the_same(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    with VideoDecoder(GOLDEN / f"{name}.vdc", weights=GOLDEN / f"tiny_{name}.safetensors", device="cpu") as decoder:
        assert sum(len(p) for p in decoder.reader.update_chain(1)) == expected["update_bytes"] > 0
        frames = [decoder.frame(i) for i in range(len(decoder))]
    assert [log.crc for _, log in frames] == expected["checksums"]
    assert_means(frames, expected["means"])


def test_the_measure_of_exactness_takes_lossless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one of its processes runs: every sample counts as a symbol."""
    words = [SCRIPT, GOLDEN / "lossless.vdc", "--frames", "1", "--weights", GOLDEN / "tiny_lossless.safetensors"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--child", "1", "on", str(tmp_path / "planes")])
    monkeypatch.setattr(symbols, "SymbolLog", SymbolLog)  # that it replaces
    runpy.run_path(str(SCRIPT), run_name="__main__")
    [frame] = json.loads(capsys.readouterr().out)["frames"]
    planes = (tmp_path / "planes").read_bytes()
    assert frame["symbols"] == 50 * 34 * 3 // 2 == len(planes) // 2
    assert frame["sha256"] == hashlib.sha256(planes).hexdigest()


def assert_means(frames: list[tuple[Frame, SymbolLog]], expected: list[list[float]]) -> None:
    for (frame, _), means in zip(frames, expected, strict=True):
        assert [frame.y.mean(), frame.uv[0].mean(), frame.uv[1].mean()] == pytest.approx(means, abs=0.02)
