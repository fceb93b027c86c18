"""Progress of long commands: a bar on a terminal, plain lines elsewhere, NDJSON events on request."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any, Protocol

from vidcodec.cli import console
from vidcodec.files import Closing

LINE_SECONDS = 10.0
EVENT_SECONDS = 0.5

Figures = dict[str, Any]


def describe(figures: Figures) -> str:
    """The figures a person wants to see, in short."""
    parts = [figures["text"]] if "text" in figures else []
    if "frames" in figures:
        parts.append(f"{figures['frames']} frame{'s' * (figures['frames'] != 1)}")
    if "bytes" in figures:
        parts.append(f"{figures['bytes'] / 1e6:.1f} MB")
    if "bpp" in figures:
        parts.append(f"{figures['bpp']:.4f} bpp")
    if "mse" in figures:
        parts.append(f"{decibels(figures['mse']):.2f} dB")
    if "update_bits" in figures:
        parts.append(f"update {figures['update_bits'] / 8000:.1f} kB")
    if (cost := figures.get("cost", figures.get("loss"))) is not None:
        parts.append(f"cost {cost:.4f}")
    return ", ".join(parts)


def decibels(mse: float) -> float:
    """PSNR of a mean squared error on the scale of 0 to 1; at most 100."""
    return min(100.0, -10 * math.log10(mse)) if mse > 0 else 100.0


class View(Protocol):
    """One way of showing progress."""

    def start(self, stage: str) -> None: ...

    def show(self, share: float, figures: Figures, left: float | None) -> None: ...

    def finish(self) -> None: ...


class Bar:
    """A tqdm bar per stage."""

    FORMAT = "{desc}: {percentage:3.0f}%|{bar:10}| {elapsed}<{remaining}{postfix}"

    def start(self, stage: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=1.0, desc=stage, file=sys.stderr, bar_format=self.FORMAT, ncols=terminal_columns())

    def show(self, share: float, figures: Figures, left: float | None) -> None:
        self._bar.set_postfix_str(describe(figures), refresh=False)
        self._bar.update(share - self._bar.n)

    def finish(self) -> None:
        self._bar.close()


def terminal_columns() -> int:
    """Width of the terminal behind stderr; 80 where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Lines:
    """A plain line at the start of every stage and every ten seconds."""

    def start(self, stage: str) -> None:
        self._stage, self._last = stage, -math.inf

    def show(self, share: float, figures: Figures, left: float | None) -> None:
        now = time.monotonic()
        if now - self._last < LINE_SECONDS:
            return
        self._last = now
        line = f"{self._stage}: {100 * share:.0f} %"
        if left is not None and left >= 1:
            line += f", {clock(left)} left"
        if text := describe(figures):
            line += f", {text}"
        print(line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        return


class Events:
    """NDJSON on stdout: the first and last of every stage, and at most two a second between."""

    def start(self, stage: str) -> None:
        self._stage, self._last = stage, -math.inf

    def show(self, share: float, figures: Figures, left: float | None) -> None:
        now = time.monotonic()
        if now - self._last < EVENT_SECONDS and share < 1:
            return
        self._last = now
        if "mse" in figures:
            figures = {**figures, "psnr": decibels(figures["mse"])}
        console.event("progress", stage=self._stage, share=round(share, 4), seconds_left=left, figures=figures)

    def finish(self) -> None:
        return


def clock(seconds: float) -> str:
    """h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress(Closing):
    """Takes (stage, share done, figures), as the library reports; use it in a `with` statement.

    A stage begins when its name first comes, or its share falls back; it ends with the next.
    """

    def __init__(self, *, json: bool = False) -> None:
        self._views: list[View] = [Bar() if sys.stderr.isatty() else Lines()]
        if json:
            self._views.append(Events())
        self._stage: str | None = None
        self._share = 0.0
        self._begin = 0.0

    def __call__(self, stage: str, share: float, figures: Figures | None = None) -> None:
        share = min(max(share, 0.0), 1.0)
        if stage != self._stage or share < self._share:
            self.close()
            self._stage, self._begin = stage, time.monotonic()
            for view in self._views:
                view.start(stage)
        self._share = share
        spent = time.monotonic() - self._begin
        left = spent * (1 - share) / share if share > 0 and spent > 1 else None
        for view in self._views:
            view.show(share, figures or {}, left)

    def close(self) -> None:
        """End the stage that is shown."""
        if self._stage is not None:
            self._stage, self._share = None, 0.0
            for view in self._views:
                view.finish()
