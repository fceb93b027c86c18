"""Files made once must decode for ever: changing their symbols is a breaking change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidcodec import VideoDecoder

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.mark.parametrize(("name", "quantizer"), [("clip", "scalar"), ("trellis", "trellis8"), ("rdoq", "scalar")])
def test_golden_file_decodes_to_the_same_symbols_and_pictures(name: str, quantizer: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    with VideoDecoder(GOLDEN / f"{name}.vdc", weights=GOLDEN / "tiny.safetensors", device="cpu") as decoder:
        assert decoder.reader.complete
        assert decoder.decisions.quantizer.kind == quantizer
        assert sum(len(u.payload) for u in decoder.reader.updates) == expected["update_bytes"] > 0
        frames = [decoder.frame(i) for i in range(len(decoder))]
    assert [log.crc for _, log in frames] == expected["checksums"]
    for (frame, _), means in zip(frames, expected["means"], strict=True):
        assert [frame.y.mean(), frame.uv[0].mean(), frame.uv[1].mean()] == pytest.approx(means, abs=0.02)
