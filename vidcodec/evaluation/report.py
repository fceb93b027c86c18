"""One HTML page about an evaluation that a stranger can read: curves, tables, pictures, bits, time, provenance.

The page needs nothing from outside: style, script, drawings and pictures are in it, and its content policy forbids it
to load anything. Without its script it still shows the first measure, every codec and the middle of each picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vidcodec.errors import OutputError
from vidcodec.evaluation.report_common import ELSEWHERE, Section, count, decibels, rate_point, section, size, styles_of
from vidcodec.evaluation.report_figures import bits_section, cost_section, curves_section
from vidcodec.evaluation.report_html import Child, Markup, join, tag, terms
from vidcodec.evaluation.report_pictures import Shot, SideBySide, compare
from vidcodec.evaluation.report_result import result_section
from vidcodec.evaluation.results import Point, Results
from vidcodec.files import write_whole

PAGE = "index.html"
PICTURE_BUDGET = 11_000_000  # bytes of pictures in the page, as text

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(
    results: Results, folder: Path, out: Path, *, frames: Sequence[int] | None = None, budget: int = PICTURE_BUDGET
) -> Path:
    """Write the page about `results` to `out`/index.html and return its path.

    folder: of the results, where sources and coded files lie. frames: whose pictures to show, by number in each clip;
    None chooses. budget: bytes of pictures in the page.

    Raises OutputError when the page cannot be written. What cannot be shown (files that are gone, points measured
    elsewhere) is said in the page.
    """
    page = _page(results, compare(results, folder, frames, budget))
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Only ASCII, so that no locale can harm it.
        write_whole(out / PAGE, page.encode("ascii", "xmlcharrefreplace").decode("ascii"))
    except OSError as error:
        raise OutputError(f"{out / PAGE} cannot be written ({error.strerror}): choose another --report") from error
    return out / PAGE


def _page(results: Results, pictures: list[SideBySide]) -> Markup:
    styles = styles_of(results)
    found = [
        result_section(results, styles),
        curves_section(results, styles),
        _pictures_section(results, pictures),
        bits_section(results, styles),
        cost_section(results, styles),
        _method_section(results),
    ]
    sections = [part for part in found if part]
    names = [clip.name for clip in results.clips]
    on = ", ".join(names) if len(names) <= 4 else f"{len(names)} clips"
    style, script = (files("vidcodec.evaluation").joinpath(f"report.{k}").read_text("ascii") for k in ("css", "js"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"vidcodec: size against quality on {on}"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("header", _head(results, on, sections), class_="wrap"),
        tag("main", [part.body for part in sections], class_="wrap"),
        tag("div", id="tip", hidden=True),
        tag("script", Markup(script)),
    )
    return join([Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en")])


def _head(results: Results, on: str, sections: Sequence[Section]) -> Markup:
    codecs = len({point.codec for point in results.points})
    elsewhere = [codec.label for codec in results.codecs if codec.family == ELSEWHERE]
    lead = (
        f"{count(codecs, 'way')} of compressing video, tried on the same frames of "
        f"{count(len(results.clips), 'clip')}, each at several file sizes. Every file was decoded again and compared "
        "with the original frames: no figure here is an estimate."
    )
    if elsewhere:
        lead += f" The points of {', '.join(elsewhere)} were measured elsewhere."
    return join(
        [
            tag("p", "vidcodec evaluation", class_="eyebrow"),
            tag("h1", "How many bits for how good a picture", tag("span", on)),
            tag("p", lead[0].upper() + lead[1:], class_="lead"),
            tag("nav", [tag("a", part.menu, href=f"#{part.id}") for part in sections], aria_label="Sections"),
        ]
    )


# --------------------------------------------------------------------------- pictures


def _pictures_section(results: Results, found: list[SideBySide]) -> Section | None:
    """The same frames side by side, under a slider."""
    if not found:
        return None
    return section(
        "pictures",
        "Pictures",
        "See for yourself",
        tag(
            "p",
            "Frames from files of about the same size. Drag the handle, or focus it and use the arrow keys. The "
            "pictures are stored losslessly, as decoded.",
        ),
        [_slider(results, comparison, number) for number, comparison in enumerate(found)],
    )


def _slider(results: Results, comparison: SideBySide, number: int) -> Markup:
    clip, points = comparison.clip, [p for p in (comparison.left, comparison.right) if p]
    heading = tag("h3", clip.name, tag("small", " and ".join(f"{p.codec} {size(p.bytes)}" for p in points)))
    if comparison.note:
        return tag("figure", heading, tag("p", comparison.note, class_="quiet"), class_="compare")
    x, y, width, height = comparison.window
    sides = [("source", "original"), *(zip(("left", "right"), (p.codec for p in points), strict=False))]
    shown = {(0, sides[-2][0]): "over", (0, sides[-1][0]): "under"}
    images = [
        tag(
            "img",
            src=getattr(shot, side),
            alt=f"{clip.name}, frame {shot.frame}, {name}",
            data_frame=k,
            data_side=side,
            class_=shown.get((k, side), "off"),
            width=width,
            height=height,
            decoding="sync",
        )
        for k, shot in enumerate(comparison.shots)
        for side, name in sides
    ]
    stage = tag(
        "div",
        images,
        tag("b", sides[-2][1], class_="badge left"),
        tag("b", sides[-1][1], class_="badge right"),
        tag("i", class_="divider"),
        tag("input", type="range", min=0, max=100, step=0.5, value=50, aria_label=f"{clip.name}: where pictures meet"),
        class_="stage",
        style=f"aspect-ratio:{width}/{height};max-width:{max(2 * width, 560)}px",
    )
    frames = [
        tag("button", f"frame {shot.frame}", type="button", data_frame=k, aria_pressed="true" if k == 0 else "false")
        for k, shot in enumerate(comparison.shots)
    ]
    menus = [
        tag(
            "label",
            f"{place} ",
            tag(
                "select",
                [tag("option", name, value=side, selected=side == chosen) for side, name in sides],
                data_place=place,
            ),
        )
        for place, chosen in (("left", sides[-2][0]), ("right", sides[-1][0]))
    ]
    notes = [
        tag("p", _told(results, shot, points), data_frame=k, hidden=k > 0) for k, shot in enumerate(comparison.shots)
    ]
    part = f"The middle {width}×{height} of {clip.width}×{clip.height}." if (x, y) != (0, 0) else None
    controls = tag("div", tag("span", frames, role="group", aria_label="Frame"), menus, class_="choice")
    caption = tag("figcaption", notes, tag("p", part) if part else None)
    return tag("figure", heading, stage, controls, caption, class_="compare", id=f"pictures-{number}")


def _told(results: Results, shot: Shot, points: Sequence[Point]) -> str:
    """Size and quality of both files, and of this frame in them."""
    said = []
    for point in points:
        psnr, bits = point.frame_psnr.get("yuv", []), point.frame_bits or []
        frame = [decibels(psnr[shot.frame])] if shot.frame < len(psnr) else []
        frame += [f"{bits[shot.frame]:,} bits"] if shot.frame < len(bits) else []
        here = f"; this frame {', '.join(frame)}" if frame else ""
        file = f"{point.bytes:,} bytes, PSNR-YUV {decibels(point.quality.get('psnr_yuv'))}"
        said.append(f"{point.codec} ({rate_point(results, point)}): {file}{here}.")
    return " ".join(said)


# ----------------------------------------------------------------------------- method


def _method_section(results: Results) -> Section:
    """What anyone needs to measure it again."""
    who = results.provenance
    fps, most = results.sampling.get("fps"), results.sampling.get("frames")
    taken = "every frame of a clip" if fps == "source" else f"{fps} frames a second"
    facts: list[tuple[str, Child]] = [
        ("frames", f"{taken}{f', at most {most}' if most else ''}; the same ones for every codec, 8-bit 4:2:0"),
        (
            "rates",
            "bytes of coded packets with their parameter sets for conventional video codecs, whole files for "
            "vidcodec and picture codecs",
        ),
        ("quality", "squared errors averaged over all frames, then the logarithm; on frames decoded from the files"),
        ("version", f"vidcodec {who.vidcodec}{f', commit {who.commit}' if who.commit else ''}"),
        ("date", who.date),
        ("machine", f"{who.cpu}, {count(who.cores, 'core')}"),
        ("software", ", ".join([f"Python {who.python}", *(f"{k} {v}" for k, v in who.libraries.items())])),
    ]
    by = {" ".join(filter(None, (p.measured.get("vidcodec"), p.measured.get("commit")))) for p in results.points}
    if others := sorted(by - {"", f"{who.vidcodec} {who.commit}".strip()}):
        facts.append(("earlier runs", f"some points were measured by vidcodec {', '.join(others)}"))
    rows = [
        tag("tr", tag("th", codec.label, scope="row"), tag("td", tag("code", _settings(codec.settings))))
        for codec in results.codecs
    ]
    settings = tag("table", tag("tbody", rows), class_="plain wide")
    children: list[Child] = [
        tag("p", "This command gives the results again:"),
        tag("pre", tag("code", who.command)),
        terms(facts, "facts"),
        tag("details", tag("summary", "Settings of every codec"), settings),
    ]
    notes = [f"{clip.name}: {note}" for clip in results.clips for note in clip.notes]
    notes += sorted({f"{p.codec} on {p.clip}: {note}" for p in results.points for note in p.notes})
    notes += [f"{c.codec} on {c.clip}, {c.metric}: {c.note}" for c in results.comparisons if c.note and c.clip]
    if notes:
        items = tag("ul", [tag("li", note) for note in notes])
        children.append(tag("details", tag("summary", f"Notes ({len(notes)})"), items))
    if results.failures:
        failed = [
            tag("li", f"{f.codec} on {f.clip}{f' at {f.rate_point:g}' if f.rate_point else ''}: {f.error}")
            for f in results.failures
        ]
        children += [tag("h3", "What could not be measured"), tag("ul", failed)]
    return section("method", "Method", "How it was measured", *children)


def _settings(settings: dict[str, object]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in settings.items()
    )
