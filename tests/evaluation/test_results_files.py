"""results.json and results.csv: what is written comes back; what is foreign is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from vidcodec.errors import InputError
from vidcodec.evaluation.results import (
    ClipInfo,
    CodecInfo,
    Comparison,
    Failure,
    Point,
    Provenance,
    Results,
)


def example() -> Results:
    point = Point(
        key="k",
        clip="c",
        codec="x264:intra",
        rate_point=22,
        bytes=100,
        file_bytes=120,
        bpp=0.5,
        quality={"psnr_y": 40.0, "xpsnr_y": None},
        files=["coded/k/coded.mkv"],
        frame_bits=[300, 500],
        frame_psnr={"y": [40.0, 41.0]},
        encode_seconds=1.5,
        details={"update_bytes": 7},
    )
    return Results(
        provenance=Provenance("vidcodec evaluate c", "1", "abc", "2026-01-01T00:00:00Z", "cpu", 2, "3.11", {"av": "1"}),
        sampling={"fps": "2", "frames": None},
        anchor="x264:intra",
        clips=[ClipInfo("c", "d", "sources/c.mkv", 40, 20, 2, 2.0, ["a note"])],
        codecs=[CodecInfo("x264:intra", "x264:intra", "x264", "qp", {"preset": "veryslow"})],
        points=[point, Point("l", "c", "x264:intra", 37, 50, 60, 0.25, {"psnr_y": 35.0})],
        comparisons=[Comparison("b", "x264:intra", None, "psnr_yuv", None, 0.5, [0, 1])],
        failures=[Failure("c", "b", 1, "why")],
    )


def test_everything_comes_back(tmp_path: Path) -> None:
    example().write(tmp_path)
    assert Results.from_json((tmp_path / "results.json").read_text()) == example()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_curves_rise_with_the_rate() -> None:
    assert [p.bytes for p in example().curve("c", "x264:intra")] == [50, 100]


def test_the_table_has_a_line_per_point(tmp_path: Path) -> None:
    example().write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["bytes"] for row in rows] == ["100", "50"]
    assert (rows[0]["width"], rows[0]["psnr_y"], rows[0]["xpsnr_y"], rows[0]["update_bytes"]) == ("40", "40.0", "", "7")


def test_fields_of_later_versions_are_left_out() -> None:
    found = json.loads(example().to_json())
    found["points"][0]["mood"] = "good"
    assert Results.from_json(json.dumps(found)) == example()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "no results.json"),
        ('{"format": "vidcodec-results", "version": 99}', "version 99"),
        ('{"format": "vidcodec-results", "version": 1}', "without what they need"),
        ('{"format": "vidcodec-results", "version": 1, "provenance": {"command": "x"}}', "without what they need"),
    ],
)
def test_foreign_files_are_told(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Results.from_json(text)
