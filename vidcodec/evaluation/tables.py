"""Results as rows of text, for a terminal and for Markdown. N/A stands for what could not be measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.results import Comparison, Point, Provenance, Results

Rows = tuple[list[str], list[list[str]]]  # head and body


def show(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number for a table; N/A for none, and for what is no finite one."""
    if value is None or not math.isfinite(value):
        return "N/A"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def per_cent(value: float | None, of: float | None, digits: int = 1) -> str:
    """How much larger than `of`."""
    return "N/A" if not value or not of else f"{100 * (value / of - 1):+.{digits}f} %"


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None for nothing."""
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns to the left."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([":--"] * left + ["--:"] * (len(head) - left)) + "|"]
    lines += ["| " + " | ".join("N/A" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def point_rows(points: Iterable[Point]) -> Rows:
    """One point each."""
    head = ["clip", "codec", "rate", "bytes", "of it update", "bpp", "YUV dB", "Y dB", "RGB dB", "MS-SSIM"]
    rows = []
    for p in points:
        memory = max(p.encode_memory or 0, p.decode_memory or 0)
        psnr = [show(p.quality.get(f"psnr_{k}")) for k in ("yuv", "y", "rgb")]
        quality = (
            ["identical"] * 3 + [""] if p.details.get("identical") else [*psnr, show(p.quality.get("ms_ssim_y"), 4)]
        )
        rows.append(
            [
                *(p.clip, p.codec, f"{p.rate_point:g}", f"{p.bytes:,}", f"{p.details.get('update_bytes', 0):,}"),
                *(f"{p.bpp:.4f}", *quality, show(p.encode_seconds, 1), show(p.decode_seconds, 1)),
                f"{memory / 1e6:,.0f}" if memory else "",
            ]
        )
    return [*head, "encode s", "decode s", "MB"], rows


def comparison_rows(comparisons: Iterable[Comparison]) -> Rows:
    """Clips by codecs: BD-rate (per cent of bytes, of lossless codecs), in brackets BD-quality; then the means."""
    found = {(c.clip, c.codec): c for c in comparisons}
    clips, codecs = list(dict.fromkeys(k[0] for k in found)), list(dict.fromkeys(k[1] for k in found))

    def cell(c: Comparison) -> str:
        rate = "N/A" if c.bd_rate is None else f"{c.bd_rate:+.1f} %"
        small = abs(c.bd_psnr or 0) < 0.1 and "psnr" not in c.metric
        gain = "" if c.metric == bdrate.BYTES else f" ({show(c.bd_psnr, 4 if small else 2, sign=True)})"
        return rate + gain + (f" of {c.clips[0]}" if c.clip is None else "")

    return ["", *codecs], [[clip or "mean", *(cell(found[clip, c]) for c in codecs)] for clip in clips]


def comparison_title(results: Results) -> str:
    """What `comparison_rows` compares with, and how."""
    metrics = {c.metric for c in results.comparisons}
    if metrics == {bdrate.BYTES}:
        return f"Bytes against {results.anchor}, decoded frames identical"
    metric = next(iter(sorted(metrics - {bdrate.BYTES})))
    unit = " dB" if "psnr" in metric else ""
    how = "below zero: fewer bits), in brackets BD-quality"
    return f"BD-rate against {results.anchor} ({metric}, Akima; {how}{unit}"


def step_rows(results: Results, labels: Sequence[str], metric: str = bdrate.METRIC) -> Rows:
    """BD-rate in per cent of each codec against the one before it, by clip, and the mean."""
    rows = []
    for before, after in pairwise(labels):
        found = {c.clip: c.bd_rate for c in bdrate.compare(results.points, before, metric) if c.codec == after}
        clips = [*(clip.name for clip in results.clips), None]
        rows.append([f"{after} against {before}", *(show(found.get(clip), 1, sign=True) for clip in clips)])
    return ["BD-rate, %", *(clip.name for clip in results.clips), "mean"], rows


def cost_of(p: Point, name: str | None = None) -> float | None:
    """True R-D-M cost of a point of ours in bits per pixel; name: how its candidate's name begins (None: the kept one).

    The cheapest of those candidates; None where there was none.
    """
    costs: dict[str, float] = p.details.get("costs", {})
    asked = [v for k, v in costs.items() if (k == p.details["chosen"] if name is None else k.startswith(name))]
    return min(asked, default=None)


def told_by(provenance: Provenance, points: Iterable[Point] = ()) -> str:
    """One line on a run, and on the points' own commits where they differ."""
    p = provenance
    libraries = ", ".join(f"{name} {version}" for name, version in p.libraries.items())
    commits = sorted({point.measured["commit"] for point in points if point.measured} - {p.commit})
    older = f"; points also from {', '.join(commits)}" if commits else ""
    return (
        f"Measured by: `{p.command}`, vidcodec {p.vidcodec}, commit {p.commit or 'unknown'}{older}, {p.date}; {p.cpu}, "
        f"{p.cores} cores; Python {p.python}, {libraries}."
    )
