"""Which frames of a video are taken, and their time stamps made to rise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

_COARSE_CLOCK = Fraction(1, 1000)  # containers that count in milliseconds round their time stamps
_TIMELINE_BREAK = 1  # seconds: a longer step back starts a new stretch of timeline


@dataclass(frozen=True)
class Sampling:
    """Which frames to take.

    fps: the first frame in range, then for each k = 1, 2, … the first one at or after k / fps; None: every frame.
    keyframes: the container's own key frames instead, all of them (`fps` is not used); the rest is not decoded.
    start, duration: the range [start, start + duration), seconds from the start of the video; None: to its end.

    Raises ValueError when a number is out of range.
    """

    fps: Fraction | float | None = 2
    keyframes: bool = False
    start: float = 0.0
    duration: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not (0 < self.fps < math.inf):
            raise ValueError(f"fps {self.fps}: must be above zero")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start {self.start}: must be zero or more seconds")
        if self.duration is not None and not (0 < self.duration < math.inf):
            raise ValueError(f"duration {self.duration}: must be above zero seconds")

    @property
    def rate(self) -> Fraction | None:
        """`fps` as an exact fraction; None when every frame or every key frame is taken."""
        return None if self.fps is None or self.keyframes else _exact(self.fps)

    @property
    def begin(self) -> Fraction:
        """Start of the range, seconds."""
        return _exact(self.start)

    @property
    def span(self) -> Fraction | None:
        """Length of the range, seconds; None: to the end."""
        return None if self.duration is None else _exact(self.duration)


class Stamped(Protocol):
    """What a decoder gives: a picture with the time stamps it found, in units of the stream's time base."""

    @property
    def pts(self) -> int | None: ...

    @property
    def dts(self) -> int | None: ...


Picture = TypeVar("Picture", bound=Stamped)


class _Series:
    """Counts how often a series of time stamps fails to rise."""

    def __init__(self) -> None:
        self._last: int | None = None
        self.falls = 0

    def add(self, value: int | None) -> None:
        if value is None:
            return
        self.falls += self._last is not None and value <= self._last
        self._last = value


class Clock:
    """Gives every decoded picture a time stamp, each one later than the one before.

    time_base: seconds per unit. step: units between two frames on average, used where a picture has no time stamp.
    last: the latest time stamp given, None before the first.
    synthetic, repaired: how many had none, and how many had to be moved.
    """

    def __init__(self, time_base: Fraction, step: int) -> None:
        self._time_base = time_base
        self.step = max(1, step)
        self._shift = 0
        self.last: int | None = None
        self._presentation, self._decoding = _Series(), _Series()
        self.synthetic = 0
        self.repaired = 0

    def stamp(self, picture: Stamped) -> int:
        """The time stamp of the next picture. No picture is ever dropped for its time stamp."""
        found = self._most_trusted(picture)
        if self.last is None:
            self.last = 0 if found is None else found
            self.synthetic += found is None
        elif found is None:
            self.last += self.step
            self.synthetic += 1
        elif found + self._shift > self.last:
            self.last = found + self._shift
        else:
            self.last = self._repair(found)
            self.repaired += 1
        return self.last

    def _most_trusted(self, picture: Stamped) -> int | None:
        """The pts, unless those fell more often than the dts: then they were written in order of decoding."""
        self._presentation.add(picture.pts)
        self._decoding.add(picture.dts)
        if picture.pts is None or (picture.dts is not None and self._presentation.falls > self._decoding.falls):
            return picture.dts
        return picture.pts

    def _repair(self, found: int) -> int:
        """A repeated time stamp moves by one unit; after a long step back the timeline goes on from here."""
        last = self.last or 0
        if (last - found - self._shift) * self._time_base <= _TIMELINE_BREAK:
            return last + 1
        self._shift = last + self.step - found
        return last + self.step


def select(
    timed: Iterable[tuple[Picture, int]], sampling: Sampling, time_base: Fraction, origin: Fraction
) -> Iterator[tuple[Picture, int]]:
    """Those of `timed` (picture, pts in units of `time_base`, rising) that `sampling` asks for.

    origin: seconds at which the video stream starts; a range is counted from there.
    """
    slack = time_base if time_base <= _COARSE_CLOCK else Fraction(0)
    begin = origin + sampling.begin if sampling.begin else None
    end = None if sampling.span is None else origin + sampling.begin + sampling.span
    rate = sampling.rate
    first: Fraction | None = None
    due = 0  # the next k
    for picture, pts in timed:
        time = pts * time_base + slack
        if begin is not None and time < begin:
            continue
        if end is not None and time >= end:
            return
        if rate is not None:
            if first is None:
                first = pts * time_base
            ticks = (time - first) * rate
            if ticks < due:
                continue
            due = math.floor(ticks) + 1
        yield picture, pts


def _exact(seconds: Fraction | float) -> Fraction:
    """A number as typed: 0.1 is one tenth, not the nearest binary fraction."""
    return seconds if isinstance(seconds, Fraction) else Fraction(seconds).limit_denominator(1_000_000)
