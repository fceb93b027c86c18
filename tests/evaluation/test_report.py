"""The page about an evaluation: whole, self-contained, true to the results, and safe whatever is in them."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_support import FRAMES, NASTY, OURS, X264, X265, Pictures, nasty_results, noise, point, small_results

from vidcodec.errors import InputError, OutputError
from vidcodec.evaluation import report_pictures
from vidcodec.evaluation.report import write_report
from vidcodec.evaluation.report_charts import log_ticks, ticks
from vidcodec.evaluation.report_pictures import choose_frames, choose_points
from vidcodec.evaluation.results import Results
from vidcodec.video import VideoFormat, yuv_to_rgb

VOID = {"meta", "img", "input", "br"}


class Reader(HTMLParser):
    """Elements with their attributes, texts, and whether every element was closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Pictures without files to decode."""
    made = Pictures()
    for name in ("clip_format", "source_frames", "decoded_frames"):
        monkeypatch.setattr(report_pictures, name, getattr(made, name))
    return made


def read(results: Results, tmp_path: Path, **options: object) -> Reader:
    path = write_report(results, tmp_path, tmp_path / "out" / "deep", **options)  # type: ignore[arg-type]
    assert path == tmp_path / "out" / "deep" / "index.html"
    return Reader(path.read_text("ascii"))


def test_the_page_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    page = read(small_results(), tmp_path)
    assert page.open == []
    assert [p.name for p in (tmp_path / "out" / "deep").iterdir()] == ["index.html"]
    for element, attributes in page.elements:
        assert element not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:image/webp;base64,", "#")), (element, value)
        assert not re.search(r"url\(|@import|//", attributes.get("style") or "")
    policy = next(a["content"] for e, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    style = (tmp_path / "out" / "deep" / "index.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "http" not in style


def test_a_stranger_finds_what_the_words_mean(tmp_path: Path) -> None:
    text = read(small_results(), tmp_path).text
    for word in ("Bits per pixel (bpp)", "PSNR", "BD-rate", "Curve", "this project's learned codec", "H.265/HEVC"):
        assert word in text
    assert "For the same quality vidcodec:adapt=full needs 12.3 % more bits than x265:intra on average." in text


def test_every_clip_codec_and_figure_is_there(tmp_path: Path) -> None:
    results = small_results()
    page = read(results, tmp_path)
    told = [a["data-told"] or "" for e, a in page.elements if "data-told" in a]
    for p in results.points:
        assert any(t.startswith(f"{p.codec}\n") and f"{p.bpp:.4g} bpp" in t for t in told)
        assert f"{p.bytes:,}" in page.text
    assert "+12.3 %" in page.text
    assert "−0.50 dB" in page.text
    assert "N/A" in page.text
    assert "vidcodec evaluate a.mkv --fps 2" in page.text
    assert "A CPU, 2 cores" in page.text
    assert "vidcodec 0.1.0, commit abc" in page.text
    assert "2 frames a second, at most 4" in page.text
    assert "synthesis.0.weight" in page.text
    assert "11 more" in page.text, "of 20 tensors"
    assert "500 ms" in page.text, "2 s over 4 frames"
    assert "5 ms" in page.text
    assert "akiyo: bits of every frame of 3 codecs" in page.text


def test_every_picture_and_control_has_a_name(tmp_path: Path) -> None:
    page = read(small_results(), tmp_path)
    images = [a for e, a in page.elements if e == "img"]
    assert len(images) == 2 * 2 * 3, "clips, frames, sides"
    assert all(a["alt"] for a in images)
    assert all(a["aria-label"] for e, a in page.elements if e == "input" and a["type"] == "range")
    names = [element for element, _ in page.elements]
    charts = [names[n + 1] for n, (e, a) in enumerate(page.elements) if e == "svg" and a.get("role") == "img"]
    assert len(charts) == 2 * (3 + 1 + 1), "clips, and measures, bits of frames, finetuning"
    assert set(charts) == {"title"}
    assert next(a for e, a in page.elements if e == "html")["lang"] == "en"


def test_pictures_are_shown_without_loss(tmp_path: Path) -> None:
    page = read(small_results(("akiyo",)), tmp_path, frames=[2])
    images = {a["data-side"]: a["src"] or "" for e, a in page.elements if e == "img"}
    for side, seed in (("source", 0), ("left", 1), ("right", 2)):
        data = base64.b64decode(images[side].partition(",")[2])
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        frame = list(noise(seed))[2]
        assert np.array_equal(shown, yuv_to_rgb(frame, VideoFormat(64, 48)))


def test_pictures_shrink_to_their_budget_and_say_so(tmp_path: Path, pictures: Pictures) -> None:
    pictures.size = (160, 120)
    results = small_results()
    results = replace(results, clips=[replace(c, width=160, height=120) for c in results.clips])
    page = read(results, tmp_path, budget=150_000)
    images = [a for e, a in page.elements if e == "img"]
    assert 50_000 < sum(len(a["src"] or "") for a in images) <= 150_000
    assert all(8 <= int(a["width"] or 0) < 160 for a in images)
    assert re.search(r"The middle \d+×\d+ of 160×120\.", page.text)


@pytest.mark.parametrize("make", [small_results, nasty_results])
def test_hostile_names_stay_text(tmp_path: Path, make: object) -> None:
    page = read(make(), tmp_path)  # type: ignore[operator]
    assert page.open == []
    assert sum(element == "script" for element, _ in page.elements) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    if make is nasty_results:
        joined = " ".join(page.texts)
        assert joined.count(NASTY) >= 20
        assert any(a.get("alt", "") and NASTY in (a["alt"] or "") for e, a in page.elements if e == "img")


def test_characters_that_no_encoding_has_do_no_harm(tmp_path: Path) -> None:
    results = small_results(("akiyo",))
    odd = "snow\u2603 \ud800 \x00 \U0001f600"
    results = replace(results, provenance=replace(results.provenance, cpu=odd))
    assert "snow\u2603" in read(results, tmp_path).text


def test_files_that_are_gone_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise InputError("coded/x is gone")

    monkeypatch.setattr(report_pictures, "decoded_frames", gone)
    page = read(small_results(), tmp_path)
    assert "The pictures cannot be shown: coded/x is gone" in page.text
    assert not any(e == "img" for e, _ in page.elements)


def without_files(results: Results) -> Results:
    return replace(results, points=[replace(p, files=[]) for p in results.points])


def bare(results: Results) -> Results:
    return replace(
        results,
        points=[
            replace(
                p,
                frame_bits=None,
                frame_psnr={},
                details={},
                encode_seconds=None,
                decode_seconds=None,
                threads=None,
                encode_memory=None,
                decode_memory=None,
                measured={},
            )
            for p in results.points
        ],
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, points=[]),
        lambda r: replace(r, points=r.points[:1]),
        lambda r: replace(r, comparisons=[], anchor=None),
        lambda r: replace(r, comparisons=[], points=[], clips=[], codecs=[]),
        lambda r: replace(r, points=[replace(p, quality={"psnr_yuv": math.inf}) for p in r.points]),
        lambda r: replace(r, points=[replace(p, quality={"psnr_yuv": None}) for p in r.points]),
        lambda r: replace(r, points=[replace(p, quality={"ms_ssim_y": 1.0}) for p in r.points]),
        lambda r: replace(r, points=[replace(p, quality={"psnr_yuv": 33.0}) for p in r.points]),
        lambda r: replace(r, points=[replace(p, bytes=0, bpp=0.0) for p in r.points]),
        lambda r: replace(r, points=[replace(p, frame_bits=[0] * FRAMES) for p in r.points]),
        lambda r: replace(r, points=[p for p in r.points if p.codec == OURS]),
        lambda r: replace(r, points=[p for p in r.points if p.codec != OURS]),
        lambda r: replace(r, comparisons=[replace(c, bd_rate=None, bd_psnr=None) for c in r.comparisons]),
        lambda r: replace(r, comparisons=[replace(c, bd_rate=1e9, bd_psnr=-99.0) for c in r.comparisons]),
        lambda r: replace(r, comparisons=[replace(c, bd_rate=-100.0, bd_psnr=99.0) for c in r.comparisons]),
        lambda r: replace(r, anchor=OURS, comparisons=[replace(c, anchor=OURS) for c in r.comparisons[3:]]),
        without_files,
        bare,
    ],
)
def test_results_of_any_kind_give_a_page(tmp_path: Path, change: object) -> None:
    page = read(change(small_results()), tmp_path)  # type: ignore[operator]
    assert page.open == []
    assert "nan" not in " ".join(a.get("d") or "" for _, a in page.elements)
    assert "How it was measured" in page.text


def test_what_could_not_be_measured_is_listed(tmp_path: Path) -> None:
    page = read(nasty_results(), tmp_path)
    assert "What could not be measured" in page.text


def test_a_page_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--report"):
        write_report(small_results(("akiyo",)), tmp_path, tmp_path / "file")


# ------------------------------------------------------------------ what is looked at


def test_points_of_about_equal_size_are_compared_with_the_anchor() -> None:
    results = small_results(("akiyo",))
    chosen = choose_points(results, results.clips[0])
    assert chosen is not None
    left, right = chosen
    assert (left.codec, right.codec if right else None) == (OURS, X265)  # 0.9 of the size; nothing is closer to x264
    close = replace(results, points=[*results.points, point("akiyo", X264, 2001, 31)])
    assert choose_points(close, close.clips[0]) == chosen, "the anchor goes first while it is near"


def test_without_a_near_anchor_the_closest_pair_is_compared() -> None:
    results = small_results(("akiyo",))
    points = [point("akiyo", OURS, 1000, 30), point("akiyo", X265, 5000, 35), point("akiyo", X264, 1700, 31)]
    chosen = choose_points(replace(results, points=points), results.clips[0])
    assert chosen is not None
    assert chosen[1] is not None
    assert (chosen[0].bytes, chosen[1].bytes) == (1000, 1700)


def test_points_without_files_are_not_looked_at() -> None:
    results = without_files(small_results(("akiyo",)))
    assert choose_points(results, results.clips[0]) is None


def test_the_middle_frame_and_the_worst_are_shown() -> None:
    shown = point("akiyo", OURS, 1000, 30)
    assert choose_frames(shown, FRAMES) == [0, 2]
    assert choose_frames(replace(shown, frame_psnr={}), FRAMES) == [2]


def test_frames_beyond_the_clip_are_left_out(tmp_path: Path) -> None:
    page = read(small_results(("akiyo",)), tmp_path, frames=[1, 99, -1])
    assert {a["alt"] for e, a in page.elements if e == "img"} == {
        f"akiyo, frame 1, {name}" for name in ("original", OURS, X265)
    }


# ---------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(("low", "high"), [(0, 1), (29.3, 51.2), (-5, 5), (0, 3e6), (31.001, 31.002)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 <= v <= high + 1e-9 for v in found)


@pytest.mark.parametrize(("low", "high"), [(0.01, 2), (0.1, 0.12), (1e-6, 1e6), (3, 70)])
def test_logarithmic_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 14
    assert all(low - 1e-9 <= v <= high + 1e-9 for v in found)
