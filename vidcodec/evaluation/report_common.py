"""What the parts of the report share: quality measures, colours of codecs, figures as words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vidcodec.evaluation.report_html import Child, Markup, tag
from vidcodec.evaluation.report_pictures import is_ours
from vidcodec.evaluation.results import Point, Results

ELSEWHERE = "points"  # family of what was not measured here
OUR_STYLES, RIVAL_STYLES = 4, 8  # as many as the style sheet has


@dataclass(frozen=True)
class Section:
    """A part of the page, and its name in the menu."""

    id: str
    menu: str
    body: Markup


def section(id: str, menu: str, title: str, *children: Child) -> Section:
    """A part with a heading."""
    return Section(id, menu, tag("section", tag("h2", title), *children, id=id))


@dataclass(frozen=True)
class Metric:
    """A way to measure quality. scale: from the figure in the results to what is drawn."""

    name: str
    axis: str
    scale: Callable[[float], float] = float

    def of(self, point: Point, key: str) -> float | None:
        """What is drawn of a point; None where it was not measured, or has no end."""
        value = point.quality.get(key)
        if value is None:
            return None
        try:
            shown = self.scale(value)
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


def metrics_of(results: Results) -> list[str]:
    """Keys of the measures that any point has; the first is what the page shows until another is chosen."""
    return [key for key, metric in METRICS.items() if any(metric.of(p, key) is not None for p in results.points)]


def compared_by(results: Results) -> list[str]:
    """The same, and 'bytes' where lossless codecs are compared."""
    return metrics_of(results) + ["bytes"] * any(c.metric == "bytes" for c in results.comparisons)


def styles_of(results: Results) -> dict[str, int]:
    """Number of colour and marker of every codec: ours from 0 on, rivals behind."""
    ours = [codec.label for codec in results.codecs if is_ours(results, codec.label)]
    rivals = [codec.label for codec in results.codecs if codec.label not in ours]
    return {
        **{label: number % OUR_STYLES for number, label in enumerate(ours)},
        **{label: OUR_STYLES + number % RIVAL_STYLES for number, label in enumerate(rivals)},
    }


# ------------------------------------------------------------------- figures as words


def count(number: int, what: str) -> str:
    """'3 clips', 'one clip'."""
    return f"one {what}" if number == 1 else f"{number} {what}s"


def signed(value: float, digits: int) -> str:
    """+1.20 or −1.20."""
    text = f"{value:+,.{digits}f}"
    return text.replace("-", "−")


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


def rate_point(results: Results, point: Point) -> str:
    """'qp 32'."""
    return f"{results.codec(point.codec).rate_name} {point.rate_point:g}"


def decibels(value: float | None) -> str:
    """37.29 dB."""
    return "N/A" if value is None else f"{value:.2f} dB"
