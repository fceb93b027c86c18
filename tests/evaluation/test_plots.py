"""Figures are files that open, the same for the same figures."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from vidcodec.evaluation.plots import ablation_bars, lines, rd_curves
from vidcodec.evaluation.results import ClipInfo, CodecInfo, Point, Provenance, Results


def results() -> Results:
    """One clip, ours with two points and a rival without any."""
    points = [Point(str(k), "clip", "vidcodec", k, 10 * k, 0, 0.1 * k, {"psnr_yuv": 30.0 + k}) for k in (1, 2)]
    points.append(Point("n", "clip", "vidcodec", 3, 30, 0, 0.3, {"psnr_yuv": None}))
    codecs = [CodecInfo(name, name, name, "qp") for name in ("vidcodec", "x265")]
    clip = ClipInfo("clip", "", "", 10, 10, 1, None)
    return Results(Provenance("", "", "", "", "", 1, "", {}), {}, None, [clip], codecs, points)


def check(files: list[Path]) -> str:
    """Both files hold a picture; the text of the SVG."""
    png, svg = files
    assert (png.suffix, svg.suffix) == (".png", ".svg")
    picture = cv2.imread(str(png))
    assert picture is not None
    assert picture.std() > 5
    assert "</svg>" in svg.read_text()
    return svg.read_text()


def test_curves_are_drawn_of_codecs_that_have_points(tmp_path: Path) -> None:
    first = check(rd_curves(results(), "clip", tmp_path / "new" / "rd-clip"))
    assert first == check(rd_curves(results(), "clip", tmp_path / "again.of"))
    assert (tmp_path / "again.of.png").is_file()


def test_bars_that_are_missing_are_not_zero(tmp_path: Path) -> None:
    some = check(ablation_bars({"clip": {"ours": -2.0, "other": None}}, tmp_path / "some", "%"))
    every = check(ablation_bars({"clip": {"ours": -2.0, "other": 0.0}}, tmp_path / "every", "%"))
    assert some != every


@pytest.mark.parametrize("curves", [{}, {"clip": [(1, 500.0), (20, 25.0)], "nothing sent": [(1, 0.0)]}])
def test_lines_are_drawn_of_what_a_logarithm_can_show(curves: dict, tmp_path: Path) -> None:
    text = check(lines(curves, tmp_path / "bits", "frames", "bits", log="xy"))
    assert "nothing sent" not in text


def test_lines_are_drawn_around_zero(tmp_path: Path) -> None:
    plain, zero = (
        lines({"clip": [(0, 1.0), (10, 3.0)]}, tmp_path / f"{z}", "step", "%", zero=z) for z in (False, True)
    )
    assert check(plain) != check(zero)
