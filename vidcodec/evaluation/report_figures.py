"""The report's curves, bits and costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from vidcodec.evaluation.report_charts import Axis, Line, Mark, chart, swatch
from vidcodec.evaluation.report_common import METRICS, Section, metrics_of, rate_point, section, size
from vidcodec.evaluation.report_html import Child, Markup, bar, join, table, tag
from vidcodec.evaluation.report_pictures import choose_points, is_ours, main_codec, nearest
from vidcodec.evaluation.results import ClipInfo, Point, Results

LARGEST_TENSORS = 9
PARTS = {"update_bytes": "model update", "y_bytes": "latents y", "z_bytes": "latents z", "rest_bytes": "container"}


# ---------------------------------------------------------------------------- curves


def curves_section(results: Results, styles: dict[str, int]) -> Section:
    """An R-D chart per clip and metric, and the points as tables."""
    metrics = metrics_of(results)
    figures = []
    for clip in results.clips:
        charts = [
            tag("div", drawn, data_metric=key, hidden=number > 0)
            for number, key in enumerate(metrics)
            if (drawn := _rd_chart(results, styles, clip, key))
        ]
        if not any(point.clip == clip.name for point in results.points):
            figures.append(tag("figure", tag("h3", clip.name), tag("p", "No point was measured.", class_="quiet")))
            continue
        rate = f", {clip.fps:.4g} a second" if clip.fps else ""
        said = f"{clip.frames} frames of {clip.width}×{clip.height}{rate}"
        figures.append(
            tag("figure", tag("h3", clip.name, tag("small", said)), charts, _points_table(results, clip, metrics))
        )
    return section(
        "curves",
        "Curves",
        "Size against quality",
        tag(
            "p",
            "Up and left is better. A step to the right is the same factor in size everywhere. Point at a mark "
            "for its figures; untick a codec to hide it.",
        ),
        _legend(results, styles, switches=True),
        tag("div", figures, class_="grid2"),
    )


def _rd_chart(results: Results, styles: dict[str, int], clip: ClipInfo, key: str) -> Markup | None:
    metric, lines = METRICS[key], []
    for codec in results.codecs:
        marks = []
        for point in results.curve(clip.name, codec.label):
            quality = metric.of(point, key)
            if quality is not None and point.bpp > 0:
                told = (rate_point(results, point), f"{size(point.bytes)}, {point.bpp:.4g} bpp", _figure(key, point))
                marks.append(Mark(point.bpp, quality, told))
        if marks:
            lines.append(Line(codec.label, styles[codec.label], tuple(marks), codec.label == main_codec(results)))
    if not lines:
        return None
    title = f"{clip.name}: {metric.name} against bits per pixel of {len(lines)} codecs; a table follows"
    return chart(title, lines, Axis("bits per pixel", log=True), Axis(metric.axis))


def _figure(key: str, point: Point) -> str:
    """The quality of a point as it was measured."""
    value = point.quality.get(key)
    if value is None:
        return "N/A"
    return f"{METRICS[key].name} {value:.4f}" if "ssim" in key else f"{METRICS[key].name} {value:.2f} dB"


def _legend(results: Results, styles: dict[str, int], *, switches: bool = False, only: Sequence[str] = ()) -> Markup:
    """Colours and markers of the codecs that have points."""
    measured = {point.codec for point in results.points}
    items = []
    for codec in results.codecs:
        label = codec.label
        if label not in measured or (only and label not in only):
            continue
        sign = swatch(styles[label], strong=label == main_codec(results))
        box = tag("input", type="checkbox", checked=True, data_codec=label) if switches else None
        items.append(tag("label" if switches else "span", box, sign, label))
    kind = {"role": "group", "aria_label": "Codecs shown"} if switches else {}
    return tag("div", items, class_="legend", **kind)


def _points_table(results: Results, clip: ClipInfo, metrics: Sequence[str]) -> Markup:
    head = ["codec", "rate point", "bytes", "bpp", *(METRICS[key].name for key in metrics)]
    rows = [
        tag(
            "tr",
            tag("th", point.codec, scope="row"),
            tag("td", rate_point(results, point)),
            tag("td", f"{point.bytes:,}"),
            tag("td", f"{point.bpp:.4f}"),
            [tag("td", _figure(key, point).removeprefix(METRICS[key].name + " ")) for key in metrics],
        )
        for codec in results.codecs
        for point in results.curve(clip.name, codec.label)
    ]
    scroll = tag(
        "div",
        table(head, rows, "plain"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"Points of {clip.name}",
    )
    return tag("details", tag("summary", f"All points of {clip.name}"), scroll)


# ------------------------------------------------------------------------------ bits


def bits_section(results: Results, styles: dict[str, int]) -> Section | None:
    """Bits of every frame at about equal size, what our bytes went to, and how finetuning went."""
    groups = [
        (
            "Bits of every frame",
            "One file per codec: the closest in size, within a factor of two. A codec that codes every frame on its "
            "own spends about as much on each; one that copies from other frames spends most on the first.",
            [_frame_bits(results, styles, clip) for clip in results.clips],
        ),
        (
            "What vidcodec's bytes went to",
            "The model update is paid once for a whole clip, so more frames would share it. The latents are the frames "
            "themselves.",
            [_composition(results, clip) for clip in results.clips],
        ),
        (
            "What changed in the model",
            "The update by tensor, largest first. Tensors whose change did not pay stay as they are and cost nothing.",
            [_tensor_bits(results, clip) for clip in results.clips],
        ),
        (
            "How finetuning went",
            "The cost that is minimised (bits, error and the bits of the update in one), as a share of what it was at "
            "the start. Each line is one file.",
            [_training(results, styles, clip) for clip in results.clips],
        ),
    ]
    children = [
        [tag("h3", title), tag("p", said), tag("div", figures, class_="grid2")]
        for title, said, figures in groups
        if any(figures)
    ]
    return section("bits", "Bits", "Where the bits go", *children) if children else None


def _frame_bits(results: Results, styles: dict[str, int], clip: ClipInfo) -> Markup | None:
    """Of our main codec and all rivals, each by its file closest in size to the one in the pictures."""
    main = main_codec(results)
    pair = choose_points(results, clip)
    points = [p for p in results.points if p.clip == clip.name and p.frame_bits]
    points = [p for p in points if main is None or p.codec == main or not is_ours(results, p.codec)]
    if not points:
        return None
    target = pair[0].bytes if pair else sorted(p.bytes for p in points)[len(points) // 2]
    lines = []
    for codec in results.codecs:
        point = nearest((p for p in points if p.codec == codec.label), target)
        if point is None or not 0.5 <= point.bytes / target <= 2:
            continue
        marks = tuple(
            Mark(number, bits / 1000, (f"frame {number}", f"{bits:,} bits"))
            for number, bits in enumerate(point.frame_bits or [])
            if bits > 0
        )
        lines.append(Line(codec.label, styles[codec.label], marks, codec.label == main))
    lines = [line for line in lines if line.marks]
    if not lines:
        return None
    title = f"{clip.name}: bits of every frame of {len(lines)} codecs"
    drawn = chart(title, lines, Axis("frame"), Axis("kilobits", log=True), markers=clip.frames <= 60)
    legend = _legend(results, styles, only=[line.name for line in lines])
    return tag("figure", tag("h4", clip.name, tag("small", f"files of about {size(target)}")), drawn, legend)


def _composition(results: Results, clip: ClipInfo) -> Markup | None:
    """A stacked bar per file of our main codec."""
    main = main_codec(results)
    points = results.curve(clip.name, main) if main else []
    points = [p for p in points if all(isinstance(p.details.get(key), int | float) for key in PARTS)]
    if not points:
        return None
    largest = max(sum(p.details[key] for key in PARTS) for p in points) or 1
    rows = []
    for point in points:
        pieces = [
            tag(
                "i",
                class_=f"part p{number}",
                style=f"width:{100 * point.details[key] / largest:.2f}%",
                title=f"{name}: {point.details[key]:,} bytes",
            )
            for number, (key, name) in enumerate(PARTS.items())
        ]
        told = ", ".join(f"{name} {point.details[key]:,} bytes" for key, name in PARTS.items())
        whole = size(sum(point.details[key] for key in PARTS))
        rows.append(bar(rate_point(results, point), pieces, whole, "row tall short", role="img", aria_label=told))
    names = [tag("span", tag("i", class_=f"part p{n}"), name) for n, name in enumerate(PARTS.values())]
    heading = tag("h4", clip.name, tag("small", main))
    return tag("figure", heading, tag("div", rows, class_="bars"), tag("div", names, class_="legend"))


def _tensor_bits(results: Results, clip: ClipInfo) -> Markup | None:
    points = [p for p in results.points if p.clip == clip.name and any((p.details.get("tensor_bits") or {}).values())]
    if not points:
        return None
    point = max(points, key=lambda p: sum(p.details["tensor_bits"].values()))
    bits = sorted(point.details["tensor_bits"].items(), key=lambda item: -item[1])
    shown, rest = bits[:LARGEST_TENSORS], [item for item in bits[LARGEST_TENSORS:] if item[1]]
    if rest:
        shown = [*shown, (f"{len(rest)} more", sum(value for _, value in rest))]
    largest = max(value for _, value in shown) or 1
    brought = {t["name"]: f", saves {t['brought'] / 8:,.0f} B" for t in point.details.get("tensors") or []}
    rows = [
        bar(
            name,
            tag("i", class_="part p0", style=f"width:{100 * value / largest:.2f}%"),
            f"{value / 8:,.0f} B{brought.get(name, '')}",
            "row tall",
        )
        for name, value in shown
        if value
    ]
    said = tag("small", f"{point.codec}, {rate_point(results, point)}: {size(sum(v for _, v in bits) / 8)} in all")
    return tag("figure", tag("h4", clip.name, said), tag("div", rows, class_="bars"))


def _training(results: Results, styles: dict[str, int], clip: ClipInfo) -> Markup | None:
    lines, trained = [], []
    for codec in results.codecs:
        for point in results.curve(clip.name, codec.label):
            curve = [e for e in point.details.get("curve") or [] if e.get("cost") and e.get("step") is not None]
            if len(curve) < 2:
                continue
            name = f"{codec.label}, {rate_point(results, point)}"
            marks = tuple(
                Mark(e["step"], e["cost"] / curve[0]["cost"], (f"step {e['step']}", f"cost {e['cost']:.4f}"))
                for e in curve
            )
            lines.append(Line(name, styles[codec.label], marks, strong=codec.label == main_codec(results)))
            trained.append(codec.label)
    if not lines:
        return None
    drawn = chart(f"{clip.name}: cost over finetuning steps", lines, Axis("step"), Axis("cost, share of the start"))
    return tag("figure", tag("h4", clip.name), drawn, _legend(results, styles, only=trained))


# ------------------------------------------------------------------------------ cost


def cost_section(results: Results, styles: dict[str, int]) -> Section | None:
    """Seconds a frame and memory, by codec."""
    frames = {clip.name: clip.frames for clip in results.clips}
    rows = []
    for codec in results.codecs:
        points = [p for p in results.points if p.codec == codec.label]
        encode = [p.encode_seconds / frames[p.clip] for p in points if p.encode_seconds is not None]
        decode = [p.decode_seconds / frames[p.clip] for p in points if p.decode_seconds is not None]
        if not encode and not decode:
            continue
        memory = [[m for p in points if (m := getattr(p, f"{what}_memory"))] for what in ("encode", "decode")]
        threads = sorted({str(p.threads) for p in points if p.threads})
        cells = [
            ("encoding", _seconds(encode)),
            ("decoding", _seconds(decode)),
            ("memory to encode", _memory(memory[0])),
            ("memory to decode", _memory(memory[1])),
            ("threads", ", ".join(threads) or "N/A"),
        ]
        label = tag("th", swatch(styles[codec.label]), codec.label, scope="row")
        rows.append(tag("tr", label, [tag("td", text, data_label=name) for name, text in cells]))
    if not rows:
        return None
    head = ["codec", "encoding", "decoding", "memory to encode", "memory to decode", "threads"]
    caption = (
        "Time of a frame: the median file, and the range. Memory: the largest file's process, interpreter and "
        "libraries included."
    )
    return section("cost", "Time", "Time and memory", table(head, rows, "cards", caption))


def _seconds(values: list[float]) -> Child:
    if not values:
        return "N/A"
    middle, low, high = statistics.median(values), min(values), max(values)
    if high < 1.05 * low:
        return _time(middle)
    return join([_time(middle), tag("small", f"{_time(low)} to {_time(high)}")])


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _memory(values: list[int]) -> str:
    return f"{max(values) / 1e6:,.0f} MB" if values else "N/A"
