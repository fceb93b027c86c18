"""The filter behind conventional codecs, measured as a codec of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vidcodec.errors import InputError, ModelNotFoundError
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.evaluate import Request, evaluate
from vidcodec.evaluation.filters import Filter
from vidcodec.evaluation.rivals import parse_codec, parse_codecs


@pytest.mark.usefixtures("workers_here")
def test_base_and_adapted_filter_are_measured_against_none(
    filter_weights: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    usual = f"codec=x264,preset=ultrafast,weights={filter_weights},rates=36"
    codecs = f"filter:strategy=none,{usual},name=none,filter:strategy=base,{usual},name=base,filter:steps=4,{usual}"
    request = Request([str(make_clip(size=(99, 77)))], parse_codecs(codecs), tmp_path / "out", FrameChoice(None))
    results = evaluate(request)
    assert results.failures == []
    none, base, adapted = results.points
    assert none.bytes < base.bytes <= none.bytes + 80  # the message
    assert base.bytes == base.details["video_bytes"] + base.details["message_bytes"]
    assert base.details["video_bytes"] == none.bytes
    assert (base.details["kept"], base.details["update_bytes"]) in (("off", 0), ("base", 0))
    assert {"off", "base"} <= adapted.details["cost_bits"].keys()
    for p in results.points:
        assert 20 < (p.quality["psnr_yuv"] or 0) < 60
        assert len(p.frame_psnr["y"]) == 3
    if base.details["kept"] == "off":
        assert base.quality["psnr_y"] == pytest.approx(none.quality["psnr_y"])


def test_rate_points_are_the_codecs() -> None:
    x265, svt = (parse_codec(f"filter:codec={c}") for c in ("x265", "svtav1"))
    assert x265.rate_points(4) == [27, 32, 37, 42]
    assert svt.rate_points(4, [22, 37]) == [20, 50]
    with pytest.raises(InputError, match="from 0 to 51, not 60"):
        x265.codec.check_rate(60)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("filter:codec=vp9", "x264, x265, svtav1"),
        ("filter:strategy=some", "what may be updated is one of"),
        ("filter:x265", "it takes codec=, preset="),
    ],
)
def test_mistakes_are_told_with_what_is_possible(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_codec(text)


def test_weights_that_are_not_there_are_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no filter"):
        Filter(weights=tmp_path / "none.safetensors").check()


def test_settings_follow_filter_and_options(filter_weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(filter_weights.read_bytes() + b"x")
    every = [Filter(), Filter(weights=filter_weights), Filter(weights=other), Filter("x264"), Filter(steps=3)]
    found = [codec.settings() for codec in every]
    assert all(found.count(settings) == 1 for settings in found)
