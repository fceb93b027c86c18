"""One HTML page about an evaluation that a stranger can read: curves, tables, pictures, bits, time, provenance.

The page needs nothing from outside: style, script, drawings and pictures are in it, and its content policy forbids it
to load anything. Without its script it still shows the first measure, every codec and the middle of each picture.

What is said and drawn lies in `templates/`, one file a section (Jinja, every text escaped); here are the figures.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidcodec.errors import OutputError
from vidcodec.evaluation import report_charts
from vidcodec.evaluation.report_charts import Chart, Line, Mark
from vidcodec.evaluation.report_pictures import SideBySide, choose_points, compare, is_ours, main_codec, nearest
from vidcodec.evaluation.results import ClipInfo, Comparison, Point, Results
from vidcodec.files import write_whole

PAGE = "index.html"
PICTURE_BUDGET = 11_000_000  # bytes of pictures in the page, as text
SECTIONS = (
    "result",
    "curves",
    "pictures",
    "bits",
    "time",
    "method",
)  # templates; those that come out empty are left out
ELSEWHERE = "points"  # family of what was not measured here
OUR_STYLES, RIVAL_STYLES = 4, 8  # as many as the style sheet has
LARGEST_TENSORS = 9
PARTS = {"update_bytes": "model update", "y_bytes": "latents y", "z_bytes": "latents z", "rest_bytes": "container"}
FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32)
FINE_FACTORS = (0.8, 0.9, 1, 1.1, 1.25, 1.5)


def write_report(
    results: Results, folder: Path, out: Path, *, frames: Sequence[int] | None = None, budget: int = PICTURE_BUDGET
) -> Path:
    """Write the page about `results` to `out`/index.html and return its path.

    folder: of the results, where sources and coded files lie. frames: whose pictures to show, by number in each clip;
    None chooses. budget: bytes of pictures in the page.

    Raises OutputError when the page cannot be written. What cannot be shown (files that are gone, points measured
    elsewhere) is said in the page.
    """
    page = render(Facts(results, compare(results, folder, frames, budget)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Only ASCII, so that no locale can harm it.
        write_whole(out / PAGE, page.encode("ascii", "xmlcharrefreplace").decode("ascii"))
    except OSError as error:
        raise OutputError(f"{out / PAGE} cannot be written ({error.strerror}): choose another --report") from error
    return out / PAGE


def render(facts: Facts) -> str:
    """The page as text."""
    loader = PackageLoader("vidcodec.evaluation")
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"count": count, "signed": signed, "percent": percent, "size": size, "decibels": decibels}
    env.globals |= {"facts": facts, "results": facts.results, "METRICS": METRICS, "PARTS": PARTS, "box": report_charts}
    env.globals |= {"figure": figure, "settings": settings}
    bodies = {name: Markup(env.get_template(f"{name}.html").render().strip()) for name in SECTIONS}
    style, script = (Markup(loader.get_source(env, f"report.{kind}")[0]) for kind in ("css", "js"))
    return env.get_template("page.html").render(bodies=bodies, style=style, script=script)


# ------------------------------------------------------------------- figures as words


def count(number: int, what: str) -> str:
    """'3 clips', 'one clip'."""
    return f"one {what}" if number == 1 else f"{number} {what}s"


def signed(value: float, digits: int) -> str:
    """+1.20 or −1.20."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """+34.2 %; whole from 100 % on."""
    return f"{signed(value, 0 if abs(value) >= 100 else 1)} %"


def size(number: float) -> str:
    """812 B, 29.6 kB, 1.20 MB."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            value = number / factor
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{number:.0f} B"


def decibels(value: float | None) -> str:
    """37.29 dB."""
    return "N/A" if value is None else f"{value:.2f} dB"


# ------------------------------------------------------------------------------ metrics


@dataclass(frozen=True)
class Metric:
    """A way to measure quality. scale: from the figure in the results to what is drawn."""

    name: str
    axis: str
    scale: Callable[[float], float] = float

    def of(self, point: Point, key: str) -> float | None:
        """What is drawn of a point; None where it was not measured, or has no end."""
        value = point.quality.get(key)
        try:
            shown = math.nan if value is None else self.scale(value)
        except ValueError:  # the logarithm of nothing: a perfect picture
            return None
        return shown if math.isfinite(shown) else None


def _in_decibels(similarity: float) -> float:
    return -10 * math.log10(1 - similarity)


METRICS = {
    "psnr_yuv": Metric("PSNR-YUV", "PSNR-YUV, dB"),
    "psnr_y": Metric("PSNR-Y", "PSNR of brightness (Y), dB"),
    "psnr_rgb": Metric("PSNR-RGB", "PSNR-RGB, dB"),
    "ms_ssim_y": Metric("MS-SSIM", "MS-SSIM of brightness, as −10 log10(1 − x) dB", _in_decibels),
    "ssim_y": Metric("SSIM", "SSIM of brightness, as −10 log10(1 − x) dB", _in_decibels),
    "xpsnr_y": Metric("XPSNR", "XPSNR of brightness, dB"),
    "bytes": Metric("size alone", "bytes"),  # of lossless codecs: no point has such a quality
}


# -------------------------------------------------------------------------------- facts


class Facts:
    """What the templates ask for. metrics: keys of the measures that any point has; the first is shown until another
    is chosen. compared: the same, and 'bytes' where lossless codecs are. styles: number of colour and marker of every
    codec, ours from 0 on, rivals behind. main: our best codec.
    """

    def __init__(self, results: Results, pictures: list[SideBySide]) -> None:
        self.results, self.pictures, self.main = results, pictures, main_codec(results)
        labels = [codec.label for codec in results.codecs]
        self.ours = [label for label in labels if is_ours(results, label)]
        rivals = [label for label in labels if label not in self.ours]
        self.styles = {label: number % OUR_STYLES for number, label in enumerate(self.ours)}
        self.styles |= {label: OUR_STYLES + number % RIVAL_STYLES for number, label in enumerate(rivals)}
        points = results.points
        self.metrics = [k for k, metric in METRICS.items() if any(metric.of(p, k) is not None for p in points)]
        self.compared = self.metrics + ["bytes"] * any(c.metric == "bytes" for c in results.comparisons)
        self.measured = [label for label in labels if any(p.codec == label for p in points)]
        self.elsewhere = [codec.label for codec in results.codecs if codec.family == ELSEWHERE]

    def rate(self, point: Point) -> str:
        """'qp 32'."""
        return f"{self.results.codec(point.codec).rate_name} {point.rate_point:g}"

    def named(self, modes: Iterable[str]) -> list[str]:
        """Those that a codec's name has behind its colon."""
        return [mode for mode in modes if any(re.search(rf":{mode}\b", label) for label in self.styles)]

    # Distances between curves

    def distance(self, metric: str, codec: str) -> tuple[Comparison | None, list[Comparison]]:
        """Of a codec from the anchor: the mean over clips, and single clips."""
        mine = [c for c in self.results.comparisons if (c.metric, c.codec) == (metric, codec)]
        single = [c for c in mine if c.clip is not None]
        mean = next((c for c in mine if c.clip is None), single[0] if len(single) == 1 else None)
        return mean, single

    @property
    def verdict_by(self) -> str | None:
        """The metric of the main result, the first that was compared with; None where ours was not."""
        if self.main is None or self.main == self.results.anchor:
            return None
        return next((k for k in self.compared if any(c.metric == k for c in self.results.comparisons)), None)

    def order(self, metric: str) -> list[str]:
        """Codecs that were compared, best mean first, those without a mean last."""
        found = [c for c in self.results.comparisons if c.metric == metric and c.codec != self.results.anchor]
        means = {c.codec: c.bd_rate for c in found if c.clip is None and c.bd_rate is not None}
        return sorted(dict.fromkeys(c.codec for c in found), key=lambda codec: means.get(codec, math.inf))

    def bars(self, metric: str) -> dict[str, Any] | None:
        """Marks on a logarithmic scale of factors, in per cent of its width, and rows: of every codec its mean as a bar
        from 1x on, clips as dots. None where nothing was compared.
        """
        codecs = {codec: self.distance(metric, codec) for codec in self.order(metric)}
        every = [c for mean, single in codecs.values() for c in (mean, *single) if c and c.bd_rate is not None]
        factors = [_factor(c.bd_rate) for c in every]
        if not factors:
            return None
        low, high = min(0.8, *factors), max(1.25, *factors)
        begin, span = math.log(low) - 0.1, math.log(high) - math.log(low) + 0.2

        def at(factor: float) -> float:
            return round(100 * (math.log(factor) - begin) / span, 2)

        rows = []
        for codec, (mean, single) in codecs.items():
            value = None if mean is None else mean.bd_rate
            bar = None if value is None else sorted((at(_factor(value)), at(1)))
            rows.append((codec, value, bar, [(at(_factor(c.bd_rate)), c) for c in single if c.bd_rate is not None]))
        marks = [f for f in (FACTORS if high / low > 3 else FINE_FACTORS) if low <= f <= high]
        return {"marks": [(at(f), f"{f:.3g}×" if f > 0.5 else f"1/{1 / f:.0f}×") for f in marks], "rows": rows}

    # Curves

    def rd_chart(self, clip: ClipInfo, key: str) -> Chart | None:
        """Quality over bits per pixel."""
        metric, lines = METRICS[key], []
        for codec in self.measured:
            points = [(p, metric.of(p, key)) for p in self.results.curve(clip.name, codec) if p.bpp > 0]
            marks = [
                Mark(p.bpp, y, (self.rate(p), f"{size(p.bytes)}, {p.bpp:.4g} bpp", f"{metric.name} {figure(key, p)}"))
                for p, y in points
                if y is not None
            ]
            lines += self._line(codec, codec, marks)
        title = f"{clip.name}: {metric.name} against bits per pixel of {len(lines)} codecs; a table follows"
        return Chart(title, lines, ("bits per pixel", metric.axis), "x") if lines else None

    def _line(self, name: str, codec: str, marks: Sequence[Mark]) -> list[Line]:
        return [Line(name, self.styles[codec], tuple(marks), strong=codec == self.main)] if marks else []

    # Bits

    @cached_property
    def bits(self) -> dict[str, list[Any]]:
        """By what is shown: pairs of clips and what there is to show of them."""
        asked = {"frames": self.frame_bits, "parts": self.parts, "tensors": self.tensors, "training": self.training}
        return {k: [(c, found) for c in self.results.clips if (found := of(c))] for k, of in asked.items()}

    def frame_bits(self, clip: ClipInfo) -> tuple[float, Chart] | None:
        """Bits of every frame of our main codec and all rivals, each by its file closest in size to the one in the
        pictures, and that size.
        """
        pair = choose_points(self.results, clip)
        points = [p for p in self.results.points if p.clip == clip.name and p.frame_bits]
        points = [p for p in points if self.main is None or p.codec == self.main or p.codec not in self.ours]
        if not points:
            return None
        target = pair[0].bytes if pair else sorted(p.bytes for p in points)[len(points) // 2]
        lines = []
        for codec in self.measured:
            point = nearest((p for p in points if p.codec == codec), target)
            if point is not None and 0.5 <= point.bytes / target <= 2:
                bits = [(n, b) for n, b in enumerate(point.frame_bits or []) if b > 0]
                marks = [Mark(n, b / 1000, (f"frame {n}", f"{b:,} bits")) for n, b in bits]
                lines += self._line(codec, codec, marks)
        title, labels = f"{clip.name}: bits of every frame of {len(lines)} codecs", ("frame", "kilobits")
        return (target, Chart(title, lines, labels, "y", markers=clip.frames <= 60)) if lines else None

    def parts(self, clip: ClipInfo) -> list[tuple[Point, dict[str, Any]]]:
        """Bytes of a file's parts, for every file of our main codec that tells them."""
        points = self.results.curve(clip.name, self.main) if self.main else []
        told = [(p, {key: p.details.get(key) for key in PARTS}) for p in points]
        return [(p, parts) for p, parts in told if all(isinstance(v, int | float) for v in parts.values())]

    def tensors(self, clip: ClipInfo) -> tuple[Point, float, list[tuple[str, float, str]]] | None:
        """The clip's point with the largest update, its bits, and those of its largest tensors, the rest as one.

        With each tensor what it saves, where the encoder told.
        """
        all_bits = [(p, p.details.get("tensor_bits") or {}) for p in self.results.points if p.clip == clip.name]
        point, bits = max(all_bits, key=lambda item: sum(item[1].values()), default=(None, {}))
        if point is None or not any(bits.values()):
            return None
        largest = sorted(bits.items(), key=lambda item: -item[1])
        rest = [value for _, value in largest[LARGEST_TENSORS:] if value]
        shown = [*largest[:LARGEST_TENSORS], (f"{len(rest)} more", sum(rest))]
        saved = {t["name"]: f", saves {t['brought'] / 8:,.0f} B" for t in point.details.get("tensors") or []}
        return point, sum(bits.values()), [(name, value, saved.get(name, "")) for name, value in shown if value]

    def training(self, clip: ClipInfo) -> tuple[list[str], Chart] | None:
        """Cost over finetuning steps, a line per file, and the codecs that were finetuned."""
        lines, codecs = [], []
        for codec in self.measured:
            for point in self.results.curve(clip.name, codec):
                curve = [e for e in point.details.get("curve") or [] if e.get("cost") and e.get("step") is not None]
                if len(curve) > 1:
                    first = curve[0]["cost"]
                    told = [(e["step"], e["cost"]) for e in curve]
                    marks = [Mark(n, cost / first, (f"step {n}", f"cost {cost:.4f}")) for n, cost in told]
                    lines += self._line(f"{codec}, {self.rate(point)}", codec, marks)
                    codecs.append(codec)
        title, labels = f"{clip.name}: cost over finetuning steps", ("step", "cost, share of the start")
        return (codecs, Chart(title, lines, labels)) if lines else None

    # Time and memory

    def costs(self) -> list[tuple[str, dict[str, tuple[str, str]]]]:
        """By codec: seconds a frame, memory, threads; every cell a figure and its range, or ''."""
        frames, rows = {clip.name: clip.frames for clip in self.results.clips}, []
        for codec in self.measured:
            points = [p for p in self.results.points if p.codec == codec]
            encode = [p.encode_seconds / frames[p.clip] for p in points if p.encode_seconds is not None]
            decode = [p.decode_seconds / frames[p.clip] for p in points if p.decode_seconds is not None]
            if encode or decode:
                threads = sorted({str(p.threads) for p in points if p.threads})
                cells = {
                    "encoding": _seconds(encode),
                    "decoding": _seconds(decode),
                    "memory to encode": (_memory([p.encode_memory for p in points]), ""),
                    "memory to decode": (_memory([p.decode_memory for p in points]), ""),
                    "threads": (", ".join(threads) or "N/A", ""),
                }
                rows.append((codec, cells))
        return rows

    # Provenance

    def earlier(self) -> list[str]:
        """Other versions than this one that measured points."""
        who, measured = self.results.provenance, [p.measured for p in self.results.points]
        by = {" ".join(filter(None, (m.get("vidcodec"), m.get("commit")))) for m in measured}
        return sorted(by - {"", f"{who.vidcodec} {who.commit}".strip()})

    def notes(self) -> list[str]:
        """Of clips, points and comparisons."""
        r = self.results
        notes = [f"{clip.name}: {note}" for clip in r.clips for note in clip.notes]
        notes += sorted({f"{p.codec} on {p.clip}: {note}" for p in r.points for note in p.notes})
        return notes + [f"{c.codec} on {c.clip}, {c.metric}: {c.note}" for c in r.comparisons if c.note and c.clip]


def figure(key: str, point: Point) -> str:
    """The quality of a point as it was measured."""
    value = point.quality.get(key)
    return decibels(value) if value is None or "ssim" not in key else f"{value:.4f}"


def settings(of: dict[str, Any]) -> str:
    """A codec's settings in a line."""
    return ", ".join(f"{k} {v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}" for k, v in of.items())


def _factor(bd_rate: float | None) -> float:
    """-50 % as 0.5; bounded, so that no outlier takes the whole scale."""
    return min(max(1 + (bd_rate or 0) / 100, 1 / 20), 40.0)


def _seconds(values: list[float]) -> tuple[str, str]:
    if not values:
        return "N/A", ""
    low, high = min(values), max(values)
    return _time(statistics.median(values)), f"{_time(low)} to {_time(high)}" if high >= 1.05 * low else ""


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _memory(values: list[int | None]) -> str:
    return f"{max(filter(None, values)) / 1e6:,.0f} MB" if any(values) else "N/A"
