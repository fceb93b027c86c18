"""A file made once must decode for ever: changing its symbols is a breaking change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidcodec import VideoDecoder

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


def test_golden_file_decodes_to_the_same_symbols_and_pictures() -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())
    with VideoDecoder(GOLDEN / "clip.vdc", weights=GOLDEN / "tiny.safetensors", device="cpu") as decoder:
        assert decoder.reader.complete
        assert sum(len(u.payload) for u in decoder.reader.updates) == expected["update_bytes"] > 0
        frames = [decoder.frame(i) for i in range(len(decoder))]
    assert [log.crc for _, log in frames] == expected["checksums"]
    for (frame, _), means in zip(frames, expected["means"], strict=True):
        assert [frame.y.mean(), frame.uv[0].mean(), frame.uv[1].mean()] == pytest.approx(means, abs=0.02)
