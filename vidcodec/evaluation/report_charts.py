"""Charts as SVG inside a page: lines with markers over one another, with axes a person can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidcodec.evaluation.report_html import Markup, join, tag

WIDTH, HEIGHT = 460, 330  # units of the drawing; on a telephone one is a little less than a pixel
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 30, 44

_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # circle
    "M-3.5-3.5h7v7h-7z",  # square
    "M0-5l5 5l-5 5l-5-5z",  # diamond
    "M0-4.6l4.6 8.2h-9.2z",  # triangle
    "M0 4.6l4.6-8.2h-9.2z",  # triangle on its tip
    "M-4-2l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",  # cross
    "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",  # plus
    "M-2.4-4.2h4.8l2.4 4.2l-2.4 4.2h-4.8l-2.4-4.2z",  # hexagon
)


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


@dataclass(frozen=True)
class Axis:
    """A scale. log: equal steps are equal factors. zero: it begins there."""

    label: str
    log: bool = False
    zero: bool = False


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, *, markers: bool = True) -> Markup:
    """An SVG of the lines; `title` says to a screen reader what it shows."""
    marks = [mark for line in lines for mark in line.marks]
    to_x, x_ticks = _scale(x, [mark.x for mark in marks], LEFT, WIDTH - RIGHT)
    to_y, y_ticks = _scale(y, [mark.y for mark in marks], HEIGHT - BOTTOM, TOP)
    grid = [
        join(
            [
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_n(to_y(v)), y2=_n(to_y(v))),
                tag("text", _tick(v), class_="ytick", x=LEFT - 7, y=_n(to_y(v) + 4)),
            ]
        )
        for v in y_ticks
    ] + [
        join(
            [
                tag("line", x1=_n(to_x(v)), x2=_n(to_x(v)), y1=TOP, y2=HEIGHT - BOTTOM),
                tag("text", _tick(v), class_="xtick", x=_n(to_x(v)), y=HEIGHT - BOTTOM + 17),
            ]
        )
        for v in x_ticks
    ]
    drawn = sorted(lines, key=lambda line: line.strong)
    return tag(
        "svg",
        tag("title", title),
        tag("g", grid, class_="grid"),
        tag("text", x.label, class_="axis", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8),
        tag("text", y.label, class_="axis top", x=4, y=14),
        [_line(line, to_x, to_y, markers) for line in drawn],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )


def marker(style: int, x: float = 0.0, y: float = 0.0, **attributes: str | None) -> Markup:
    """The marker of a style, about 8 units wide, at (x, y)."""
    x, y = _n(x), _n(y)
    shape = _SHAPES[style % len(_SHAPES)]
    return tag("path", d=shape, transform=f"translate({x} {y})", class_=f"mark s{style}", **attributes)


def swatch(style: int, *, strong: bool = False) -> Markup:
    """A short piece of a line with its marker, for a legend."""
    weight = "line strong" if strong else "line"
    return tag(
        "svg",
        tag("path", d="M1 7h26", class_=f"{weight} s{style}"),
        marker(style, 14, 7),
        viewBox="0 0 28 14",
        width=28,
        height=14,
        class_="swatch",
        aria_hidden="true",
    )


def _line(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float], markers: bool) -> Markup:
    places = [(to_x(mark.x), to_y(mark.y)) for mark in line.marks]
    path = "".join(f"{'L' if number else 'M'}{_n(x)} {_n(y)}" for number, (x, y) in enumerate(places))
    weight = "line strong" if line.strong else "line"
    dots = [
        marker(
            line.style,
            x,
            y,
            data_x=str(_n(x)),
            data_y=str(_n(y)),
            data_told="\n".join((line.name, *mark.told)),
            opacity=None if markers else "0",
        )
        for mark, (x, y) in zip(line.marks, places, strict=True)
    ]
    return tag("g", tag("path", d=path, class_=f"{weight} s{line.style}"), dots, class_="series", data_name=line.name)


def _scale(axis: Axis, values: list[float], begin: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Value to place, and the ticks between."""
    low, high = min(values), max(values)
    if axis.log:
        low, high = low / 1.08, high * 1.08
        bottom, span = math.log(low), math.log(high) - math.log(low)
        return (lambda v: begin + (end - begin) * (math.log(v) - bottom) / span), log_ticks(low, high)
    low = 0.0 if axis.zero else low
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = (0.0 if axis.zero else low - margin), high + margin
    return (lambda v: begin + (end - begin) * (v - low) / (high - low)), ticks(low, high)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most so many."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


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


def _n(value: float) -> float:
    """Short enough for a drawing."""
    return round(value, 1)
