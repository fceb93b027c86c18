"""What scripts are made of: requests and figures that are kept, and the two files of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcodec.evaluation import tables
from vidcodec.evaluation.measurement import Measurement, parser, spec, without_folders
from vidcodec.evaluation.provenance import code_digest
from vidcodec.evaluation.results import Comparison, Point
from vidcodec.version import PACKAGE

ABOUT = "What is measured.\n\nHow."


def arguments(folder: Path, *words: str) -> argparse.Namespace:
    usual = ["--results", str(folder / "results"), "--work", str(folder / "work"), "--fps", "source", "--jobs", "1"]
    return parser(ABOUT, "example").parse_args([*usual, *words])


@pytest.mark.usefixtures("workers_here")
def test_results_and_figures_come_into_both_files(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    m = Measurement(arguments(tmp_path, "--frames", "2"), ABOUT, ["some/folder/clip.mkv", "--rates", "20/40"])
    results = m.evaluate([make_clip(count=3)], ["jpeg:rates=50,name=pictures"], "one part")
    assert (results.clips[0].frames, results.points[0].codec) == (2, "pictures")
    assert m.figure({"what": "a figure"}, lambda: {"value": 1}) is not None
    m.publish("A table.", summary={"mean": 2})
    found = json.loads((tmp_path / "results" / "example.json").read_text())
    assert (found["format"], found["version"], found["about"]) == ("vidcodec-measurement", 1, "What is measured.")
    assert found["provenance"]["command"].endswith("clip.mkv --rates 20/40")
    assert "some/folder" not in found["provenance"]["command"]
    assert [p["rate_point"] for p in found["parts"]["one part"]["points"]] == [50]
    assert found["figures"][0]["value"] == 1
    assert found["figures"][0]["measured"]["date"]
    assert found["summary"] == {"mean": 2}
    text = (tmp_path / "results" / "example.md").read_text()
    assert text.startswith("What is measured.\n\nA table.\n\nMeasured by: `python scripts/")


def test_figures_are_measured_once_and_fail_alone(tmp_path: Path) -> None:
    calls = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"value": len(calls)}

    def broken() -> dict[str, int]:
        raise ValueError("no such thing")

    for _ in range(2):
        m = Measurement(arguments(tmp_path), ABOUT, [])
        figure = m.figure({"what": "a figure"}, measure, ["version.py"])
        assert figure is not None
        assert figure["value"] == 1
    assert m.figure({"what": "a figure"}, measure, ["rate.py"]) == {**m.figures[-1], "value": 2}  # other code
    assert m.figure({"what": "another"}, broken) is None
    with pytest.raises(SystemExit) as left:
        m.publish("")
    assert left.value.code == 1
    assert "another: ValueError: no such thing" in (tmp_path / "results" / "example.md").read_text()


def test_specs_leave_out_what_is_not_given() -> None:
    assert (
        spec("vidcodec", [30, 50.5], name="ours", weights=None, steps=3) == "vidcodec:name=ours,steps=3,rates=30/50.5"
    )
    assert spec("jpeg") == "jpeg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/clips/a.mkv", "a.mkv"),
        ("vidcodec:weights=/tmp/x/w.safetensors,rates=20/40/60", "vidcodec:weights=w.safetensors,rates=20/40/60"),
        ("points:some/dir/rivals.json#hm", "points:rivals.json#hm"),
    ],
)
def test_folders_are_left_out(text: str, shown: str) -> None:
    assert without_folders(text) == shown


# ---------------------------------------------------------------------------- digests and tables


def test_the_digest_of_code_follows_what_it_does(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        code_digest.cache_clear()
        (tmp_path / "code.py").write_text(text)
        return code_digest((str(tmp_path / "code.py"),))

    plain = digest('def f(x):\n    """Words."""\n    return x + 1\n')
    assert digest('"""More."""\n\n\ndef f(x):  # a comment\n    return (x + 1)\n') == plain
    assert digest("def f(x):\n    return x + 2\n") != plain
    code_digest.cache_clear()


def test_every_codec_names_code_that_exists() -> None:
    from vidcodec.evaluation.rivals import CODECS

    for kind in CODECS.values():
        assert kind.code
        assert all((PACKAGE / part).exists() for part in kind.code)


def test_lossless_codecs_are_compared_by_bytes() -> None:
    comparisons = [
        Comparison("png", "ffv1", "clip", "bytes", 12.5, None),
        Comparison("png", "ffv1", None, "bytes", 12.5, None, [1, 0]),
    ]
    assert tables.comparison_rows(comparisons) == (["", "png"], [["clip", "+12.5 %"], ["mean", "+12.5 % of 1"]])


def test_what_is_not_there_is_not_available() -> None:
    points = [Point("k", "c", "x", 22, 1000, 1000, 0.5, {"psnr_yuv": None}), Point("l", "c", "y", 0, 9, 9, 0.1, {})]
    points[1].details["identical"] = True
    head, rows = tables.point_rows(points)
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["YUV dB"] for row in shown] == ["N/A", "identical"]
    assert tables.show(None) == tables.show(float("inf")) == tables.per_cent(1, None) == "N/A"
    assert tables.mean_of([None, 2.0]) == 2.0
    assert tables.markdown(["a", "b"], [["x", None]]) == "| a | b |\n|:--|--:|\n| x | N/A |"


def test_costs_are_of_the_candidates_asked_for() -> None:
    costs = {"plain": 3.0, "plain, trellis8": 2.5, "adapted": 2.0}
    p = Point("k", "c", "x", 22, 1, 1, 0.5, {}, details={"costs": costs, "chosen": "plain, trellis8"})
    assert [tables.cost_of(p, name) for name in (None, "plain", "adapted", "", "other")] == [2.5, 2.5, 2.0, 2.0, None]
