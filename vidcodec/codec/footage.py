"""A source's sampled frames, for as many passes as coding takes, in bounded memory and disk space."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.errors import InputError, NoVideoError
from vidcodec.files import Closing
from vidcodec.video import Frame, FrameSpool, Sampling, VideoFormat, VideoReader

# (stage, share done, figures to show)
Report = Callable[[str, float, dict[str, Any]], None]

KEPT_BYTES, LEAST_KEPT = 512_000_000, 16  # of frames on disk


class Footage(Closing):
    """The frames of a sampling: read once when it is made, then from disk where they are few, else read again.

    format: of all frames. sample: frames spread evenly over the video, all of them where they are few; bounded.
    digest: names samples and time stamps. notes: of the reader.

    Raises InputError and its kin, NoVideoError where there are no frames.
    """

    def __init__(
        self, source: Path, sampling: Sampling, report: Report, *, exact: bool = False, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """exact: as in `VideoReader`. kept_bytes: about so much disk space is taken."""
        self.source, self.sampling, self.exact = source, sampling, exact
        content = hashlib.sha256()
        with VideoReader(source, sampling, exact=exact) as reader:
            self.format: VideoFormat = reader.format
            self._kept = FrameSpool(reader.format)
            limit = max(LEAST_KEPT, kept_bytes // reader.format.frame_bytes)
            places: list[int] = []  # in the spool, of frames 0, stride, 2 stride, ...
            free: list[int] = []
            self._stride, self._count = 1, 0
            self._pts = array("q")
            try:
                for frame in reader.frames():
                    _digest(content, frame)
                    self._pts.append(frame.pts)
                    if self._count % self._stride == 0:
                        if len(places) == limit:
                            places, free = places[::2], places[1::2]
                            self._stride *= 2
                        if self._count % self._stride == 0:
                            places.append(self._keep(frame, free))
                    self._count += 1
                    report("read", min(1.0, self._count / (reader.estimated_frames or self._count)), {})
            except BaseException:
                self._kept.close()
                raise
            self.notes = list(reader.notes)
        if not self._count:
            self._kept.close()
            raise NoVideoError(f"{source} has no frame in the range asked for")
        self.digest = content.hexdigest()
        self.sample = Picked(self._kept, places)

    def __len__(self) -> int:
        return self._count

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return self.format.width * self.format.height * self._count

    @property
    def complete(self) -> bool:
        """Whether the sample is all there is."""
        return self._stride == 1

    def __iter__(self) -> Iterator[Frame]:
        """All frames in order. Raises InputError where the source has others now than it had."""
        if self.complete:
            yield from self.sample
            return
        count = 0
        with VideoReader(self.source, self.sampling, exact=self.exact) as reader:
            for count, frame in enumerate(islice(reader.frames(), self._count + 1), 1):
                if count > self._count or reader.format != self.format:
                    break
                yield frame
        if count != self._count:
            raise InputError(f"{self.source} changed while it was read: encode it again")

    def stretches(self, seconds: float) -> Iterator[Stretch]:
        """All frames in stretches of so many seconds, the last one at least half as long; each lasts until the next."""
        length = seconds / float(self.format.time_base)
        starts = [0]
        for i, pts in enumerate(self._pts):
            if pts - self._pts[starts[-1]] >= length and self._pts[-1] - pts >= length / 2:
                starts.append(i)
        frames = iter(self)
        for start, stop in pairwise([*starts, self._count]):
            if self.complete:
                yield Stretch(self.format, self.sample[start:stop], start)
                continue
            with FrameSpool(self.format) as kept:
                for frame in islice(frames, stop - start):
                    kept.append(frame)
                yield Stretch(self.format, Picked(kept, range(len(kept))), start)

    def close(self) -> None:
        """Give the disk space back."""
        self._kept.close()

    def _keep(self, frame: Frame, free: list[int]) -> int:
        """Put a frame in a free place of the spool, or at its end; says where."""
        if free:
            self._kept[place := free.pop()] = frame
            return place
        self._kept.append(frame)
        return len(self._kept) - 1


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of a footage, all of them on disk; start: the number of the first."""

    format: VideoFormat
    sample: Picked
    start: int

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return self.format.width * self.format.height * len(self)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.sample)


class Picked(Sequence[Frame]):
    """Some frames of a spool, in an order of their own."""

    def __init__(self, frames: FrameSpool, places: Sequence[int]) -> None:
        self._frames, self._places = frames, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Picked(self._frames, self._places[index])
        return self._frames[self._places[index]]

    def spread(self, count: int) -> Picked:
        """At most so many of them, from the first to the last."""
        picked = sorted({round(i) for i in np.linspace(0, len(self) - 1, min(count, len(self)))})
        return Picked(self._frames, [self._places[i] for i in picked])


def _digest(content: Any, frame: Frame) -> None:
    content.update(f"{frame.pts} ".encode())
    for plane in (frame.y, frame.uv):
        content.update(np.ascontiguousarray(plane).data)
