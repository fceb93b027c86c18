"""Geometry of the report's charts: scales, ticks, places. `templates/drawings.html` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 330  # units of the drawing; on a telephone one is a little less than a pixel
LEFT, RIGHT, TOP, BOTTOM = 44, 446, 30, 286  # of the axes


@dataclass(frozen=True)
class Mark:
    """A measured point: where it lies, and what is told of it, one line each."""

    x: float
    y: float
    told: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """Marks joined from left to right. style: number of colour and marker. strong: drawn thicker, and last."""

    name: str
    style: int
    marks: tuple[Mark, ...]
    strong: bool = False


class Scale:
    """Values to places between `begin` and `end`. log: equal steps are equal factors. ticks: (place, text) each."""

    def __init__(self, label: str, values: Sequence[float], begin: float, end: float, *, log: bool = False) -> None:
        self.label, self.begin, self.end, self.log = label, begin, end, log
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        self.low, self.high = (low / 1.08, high * 1.08) if log else (low - margin, high + margin)
        places = (log_ticks if log else ticks)(self.low, self.high)
        self.ticks = [(self.at(value), _tick(value)) for value in places]

    def at(self, value: float) -> float:
        """Its place, short enough for a drawing."""
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return round(self.begin + (self.end - self.begin) * (v - low) / (high - low), 1)


@dataclass(frozen=True)
class Chart:
    """Lines over one another. title: says to a screen reader what it shows. log: which of 'xy' are logarithmic."""

    title: str
    lines: Sequence[Line]
    labels: tuple[str, str]
    log: str = ""
    markers: bool = True

    @cached_property
    def x(self) -> Scale:
        return Scale(self.labels[0], [m.x for line in self.lines for m in line.marks], LEFT, RIGHT, log="x" in self.log)

    @cached_property
    def y(self) -> Scale:
        return Scale(self.labels[1], [m.y for line in self.lines for m in line.marks], BOTTOM, TOP, log="y" in self.log)


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers from low to high."""
    found = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in found if low <= value <= high]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from low to high where there are many, else 1, 2, 5, 10 ..., else finer ones."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) >= (4 if len(factors) == 1 else 3):
            return found
    return ticks(low, high)


def _tick(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−") if abs(value) >= 1e-4 or not value else f"{value:.0e}"
