"""Frames that refer to the one before them, in chains that begin with a key frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import chain, count, groupby, islice
from typing import Any, NamedTuple

from vidcodec.codec.candidates import Candidate, MeasuredFrame
from vidcodec.codec.job import Job
from vidcodec.codec.steps import decisions_of
from vidcodec.families.family import CodedFrame
from vidcodec.rate import RateLevel
from vidcodec.video import Frame

# A key frame may be coded finer than the frames that refer to it, by so many steps of a rate level; so many frames
# after it are coded to see what pays.
FINER, LOOK = (0, 128, 256), 5


class _Last(NamedTuple):
    """The frame coded last, and what it left to the next one."""

    frame: MeasuredFrame
    left: Any


class Chains:
    """Codes the frames of a video in order, each by itself or predicted from the one before, whichever costs less."""

    def __init__(self, job: Job, candidate: Candidate, level: RateLevel, compared: int = 1) -> None:
        """compared: one picture in so many is compared with its source where no choice depends on it."""
        self.job, self.candidate, self.level, self.compared = job, candidate, level, compared
        self.trade_off = job.trade_off(level)
        self.coder = cache(self._coder)
        self.extra: bytes = self.coder(level).chain_extra

    def intervals(self) -> Iterator[tuple[int, Iterator[Frame]]]:
        """All frames in stretches of `key_seconds`, each with the number of its first one: no chain crosses their ends.

        A stretch is read while it is used; the next one begins where it ends.
        """
        for _, group in groupby(enumerate(self.job.footage), key=lambda item: self._interval(item[1])):
            numbered = iter(group)
            start, frame = next(numbered)
            yield start, chain([frame], (f for _, f in numbered))

    def code(self, start: int, frames: Iterable[Frame]) -> Iterator[MeasuredFrame]:
        """The frames of an interval, coded, from number `start` on; the first is a key frame."""
        source, ahead = iter(frames), deque[Frame]()
        last: _Last | None = None
        for index in count(start):
            ahead.extend(islice(source, LOOK - len(ahead)))
            if not ahead:
                return
            frame = ahead.popleft()
            if last is None:
                last = self._key(index, frame, ahead)
            else:
                cut = not last.frame.unit.is_key
                last = self._next(index, frame, last)
                if cut and last.frame.unit.is_key:
                    last = self._key(index, frame, ahead)
            yield last.frame

    def _interval(self, frame: Frame) -> int:
        """The number of a frame's interval."""
        passed = (frame.pts - self.job.footage.sample[0].pts) * self.job.format.time_base
        return int(passed // Fraction(self.job.options.key_seconds))

    def _coder(self, level: RateLevel) -> Any:
        decisions = decisions_of(self.job, self.candidate, level)
        return self.candidate.family.picture_coder(level, self.job.format, decisions=decisions)

    def _seconds(self, first: Frame, second: Frame) -> float:
        return float((second.pts - first.pts) * self.job.format.time_base)

    def _next(self, index: int, frame: Frame, last: _Last, compare: bool = False) -> _Last:
        """The frame after another one; compare: its picture with the source's in any case."""
        ways = self.coder(self.level).encode_after(frame, last.left)
        compare = compare or len(ways) > 1 or index % self.compared == 0
        found = [self._measured(index, frame, way, self.level, compare) for way in ways]
        return min(found, key=self._cost) if len(found) > 1 else found[0]

    def _key(self, index: int, frame: Frame, ahead: Sequence[Frame]) -> _Last:
        """A key frame, as fine as suits the frames that refer to it."""
        rest = self._chain_length(frame, ahead, len(self.job.footage) - index) - 1
        best, least = None, float("inf")
        for finer in FINER:
            level = RateLevel(min(self.level.steps + finer, self.job.family.top.steps))
            key = last = self._measured(index, frame, self.coder(level).encode_after(frame, None)[0], level, True)
            costs = []
            for i, following in enumerate(ahead, index + 1):
                last = self._next(i, following, last, compare=True)
                if last.frame.unit.is_key:
                    break
                costs.append(self._cost(last))
            cost = self._cost(key) + (rest * sum(costs) / len(costs) if costs else 0.0)
            if cost >= least:
                break
            best, least = key, cost
            if not costs:
                break
        assert best is not None
        return best

    def _chain_length(self, frame: Frame, ahead: Sequence[Frame], left: int) -> int:
        """Frames of a chain that begins with a frame, if nothing ends it before its time."""
        if not ahead:
            return 1
        end = (self._interval(frame) + 1) * self.job.options.key_seconds
        seconds = end - self._seconds(self.job.footage.sample[0], frame)
        apart = self._seconds(frame, ahead[-1]) / len(ahead)
        return min(left, max(1, round(seconds / apart))) if apart > 0 else left

    def _measured(self, index: int, frame: Frame, coded: CodedFrame, level: RateLevel, compare: bool) -> _Last:
        return _Last(MeasuredFrame.of(index, frame, coded, self.candidate, level, compare=compare), coded.left)

    def _cost(self, last: _Last) -> float:
        return last.frame.cost(self.trade_off, self.job.format)
