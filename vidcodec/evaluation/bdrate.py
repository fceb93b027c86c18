"""Bjontegaard figures (VCEG-M33): the mean distance between two rate-distortion curves.

Interpolation is Akima's, by the package `bjontegaard` (Herglotz et al. 2022 and 2024 found it closest to densely
measured curves). A figure is None, printed N/A, where it would stand on nothing: fewer than four points that rise, or
curves that share too little of their range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from vidcodec.evaluation.results import Comparison, Point

MIN_POINTS = 4  # Akima's least
MIN_OVERLAP = 0.5  # of the shorter curve's range
METRIC = "psnr_yuv"
BYTES = "bytes"  # instead of a metric between lossless codecs

Pair = tuple[float, float]  # bits per pixel, quality


@dataclass(frozen=True)
class Bd:
    """rate: per cent at equal quality, below zero: fewer bits. psnr: of the metric at equal rate. note: why not."""

    rate: float | None
    psnr: float | None
    note: str = ""


def bd(anchor: Iterable[Pair], test: Iterable[Pair]) -> Bd:
    """Figures of `test` against `anchor`."""
    sides = {name: rising(pairs) for name, pairs in (("anchor", anchor), ("test", test))}
    notes = [
        f"{name}: {left} of {len(curve) + left} points cost more for no more quality, left out"
        for name, (curve, left) in sides.items()
        if left
    ]
    a, t = (np.array(curve).reshape(-1, 2) for curve, _ in sides.values())
    points = len(a), len(t)
    if short := [f"{name} has {n}" for name, n in zip(sides, points, strict=True) if n < MIN_POINTS]:
        note = f"N/A: needs {MIN_POINTS} rising points, {' and '.join(short)}"
        return Bd(None, None, "; ".join([*notes, note]))
    shared = overlap(a[:, 1], t[:, 1]), overlap(np.log(a[:, 0]), np.log(t[:, 0]))
    package: Any = import_module("bjontegaard")
    options = {"require_matching_points": False, "min_overlap": 0}
    figures: list[float | None] = []
    for what, figure, part in zip(("quality", "rate"), (package.bd_rate, package.bd_psnr), shared, strict=True):
        if part < MIN_OVERLAP:
            notes.append(f"N/A at equal {what}: the curves share {100 * part:.0f} % of the shorter range")
            figures.append(None)
        else:
            value = float(figure(a[:, 0], a[:, 1], t[:, 0], t[:, 1], "akima", **options))
            figures.append(value if math.isfinite(value) else None)
    return Bd(figures[0], figures[1], "; ".join(notes))


def rising(pairs: Iterable[Pair]) -> tuple[list[Pair], int]:
    """The pairs by rising rate, without those that cost more for no more quality, and how many those were."""
    kept: list[Pair] = []
    left = 0
    for rate, quality in sorted(pairs):
        if rate <= 0 or (kept and quality <= kept[-1][1]) or (kept and rate <= kept[-1][0]):
            left += 1
        else:
            kept.append((rate, quality))
    return kept, left


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The part of the shorter range that lies within the other one, 0 .. 1."""
    common = min(a.max(), b.max()) - max(a.min(), b.min())
    shorter = min(np.ptp(a), np.ptp(b))
    return max(0.0, float(common / shorter)) if shorter > 0 else 0.0


def compare(points: Sequence[Point], anchor: str, metric: str = METRIC) -> list[Comparison]:
    """Every codec against the anchor on every clip, and per codec the mean over the clips that have a figure.

    Lossless ones, whose points are known to be identical to their source, are compared by bytes.
    """
    clips, codecs = (list(dict.fromkeys(getattr(p, name) for p in points)) for name in ("clip", "codec"))
    curves: dict[tuple[str, str], list[Pair]] = {}
    whole = {(p.clip, p.codec): p.bytes for p in points if p.details.get("identical")}
    for p in points:
        if (quality := p.quality.get(metric)) is not None:
            curves.setdefault((p.clip, p.codec), []).append((p.bpp, quality))
    out = []
    for codec in codecs:
        if codec == anchor:
            continue
        single = []
        for clip in clips:
            if (clip, codec) in whole and (clip, anchor) in whole:
                rate = 100 * (whole[clip, codec] / whole[clip, anchor] - 1)
                single.append(Comparison(codec, anchor, clip, BYTES, rate, None))
                continue
            found = bd(curves.get((clip, anchor), []), curves.get((clip, codec), []))
            single.append(Comparison(codec, anchor, clip, metric, found.rate, found.psnr, note=found.note))
        rates = [c.bd_rate for c in single if c.bd_rate is not None]
        gains = [c.bd_psnr for c in single if c.bd_psnr is not None]
        counts = [len(rates), len(gains)]
        out += [*single, Comparison(codec, anchor, None, single[0].metric, _mean(rates), _mean(gains), counts)]
    return out


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
