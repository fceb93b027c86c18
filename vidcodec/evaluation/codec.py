"""What evaluation sees of a codec: frames to files that really exist, and those files to frames.

Every codec is a small frozen dataclass whose fields are its options. It takes 8-bit 4:2:0 frames and gives 8-bit
4:2:0 frames; what a picture codec does in between is said at its class. A lossless one also takes 10 bits and R'G'B',
and gives back every sample. The rate point is a number on the codec's own scale (a quantiser, a quality); lossless
codecs have one, 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vidcodec.errors import InputError, UnsupportedInputError
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader


@dataclass(frozen=True)
class Source:
    """The sampled frames of a clip as a lossless file: the same for every codec.

    count: number of frames. exact: R'G'B' stays R'G'B'; else it is seen as 4:2:0.
    """

    path: Path
    format: VideoFormat
    count: int
    exact: bool = False

    @classmethod
    def open(cls, path: Path, count: int, *, exact: bool = False) -> Source:
        """The source in a file that `vidcodec.evaluation.clips` wrote. Raises InputError and its kin."""
        with VideoReader(path, Sampling(fps=None), exact=exact) as reader:
            return cls(path, reader.format, count, exact)

    @property
    def rate(self) -> Fraction:
        """Frames per second; 25 where the spacing varies. At a constant quantiser it hardly moves a bit."""
        return self.format.frame_rate or Fraction(25)

    def frames(self) -> Iterator[Frame]:
        """The frames in order; raises InputError for another number of frames than expected."""
        yield from exactly(self.count, read_frames([self.path], exact=self.exact), self.path)


@dataclass(frozen=True)
class Encoded:
    """What coding one clip gave.

    files: in order. rate_bytes: what rate comparisons count (see `vidcodec.evaluation.results`). frame_bits: by frame
    in order of presentation, or None. details, notes: as in `results.Point`.
    """

    files: list[Path]
    rate_bytes: int
    frame_bits: list[int] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Codec(ABC):
    """A codec with its options.

    family: its name before the colon. rate_name: what the rate points are. lowest, highest: the scale's ends. usual:
    the part of the scale that curves span unless asked otherwise, from high rate to low or the other way round.
    decimals: of the rate points. alone: the option that is given without its name, '' for none. choices: of options.
    code: the parts of the package that its files depend on, as `provenance.code_digest` takes them.
    """

    family: ClassVar[str]
    rate_name: ClassVar[str]
    lowest: ClassVar[float]
    highest: ClassVar[float]
    usual: ClassVar[tuple[float, float]]
    decimals: ClassVar[int] = 0
    alone: ClassVar[str] = ""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    code: ClassVar[tuple[str, ...]] = ()

    @property
    def lossless(self) -> bool:
        """Whether every sample comes back: R'G'B' and 10 bits are taken, and there is one rate point."""
        return False

    @abstractmethod
    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        """Code all frames into files in `folder`. Raises VidcodecError for what this codec cannot take."""

    @abstractmethod
    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        """The frames in `files`, in order of presentation; format: of the source."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the files depend on besides frames, rate point and `code`: options, versions, weights."""

    def inspect(self, files: list[Path]) -> dict[str, Any]:
        """More for `Point.details`, from the files; no clock runs."""
        return {}

    def check(self) -> None:
        """Raise VidcodecError, before any work, when this codec cannot run here."""
        return

    def check_format(self, format: VideoFormat) -> None:
        """Raise UnsupportedInputError for frames that it is not measured on."""
        if format.bit_depth != 8 and not self.lossless:
            raise UnsupportedInputError(
                f"{self.label} is measured at 8 bits, these frames have {format.bit_depth}: leave --exact out, or "
                "take lossless codecs"
            )

    def prepare(self) -> None:
        """Import what `encode` and `decode` need, so that no clock runs meanwhile."""
        return

    @property
    def label(self) -> str:
        """Its spec: family, the option that goes without a name, and those that are not at their defaults."""
        own = [f for f in fields(self) if f.name != self.alone and getattr(self, f.name) != f.default]
        words = [str(getattr(self, self.alone))] if self.alone else []
        words += [f"{f.name}={getattr(self, f.name)}" for f in own]
        return ":".join([self.family, ",".join(words)]) if words else self.family

    def options(self) -> dict[str, Any]:
        """The options by name, as JSON has them."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    def rate_points(self, count: int) -> list[float]:
        """`count` rate points over the usual part of the scale."""
        return [0.0] if self.lossless else [round(float(x), self.decimals) for x in np.linspace(*self.usual, count)]

    def from_qp(self, qp: float) -> float | None:
        """The rate point that stands for a quantiser of H.264 and HEVC (0 .. 51); None: no such thing here."""
        return None

    def check_rate(self, rate_point: float) -> None:
        """Raise InputError for a rate point outside the scale."""
        if self.lossless:
            if rate_point:
                raise InputError(f"{self.label} has one rate: leave rates= out")
            return
        if not self.lowest <= rate_point <= self.highest or rate_point != round(rate_point, self.decimals):
            whole = "a whole number " if not self.decimals else ""
            raise InputError(
                f"{self.label}: {self.rate_name} is {whole}from {self.lowest:g} to {self.highest:g}, not {rate_point:g}"
            )


def read_frames(files: list[Path], *, exact: bool = False) -> Iterator[Frame]:
    """Every frame of media files, one file after the other, decoded on one thread; exact: as `VideoReader` has it."""
    for path in files:
        with VideoReader(path, Sampling(fps=None), threads=1, exact=exact) as reader:
            yield from reader.frames()


def exactly(count: int, frames: Iterator[Frame], where: object) -> Iterator[Frame]:
    """The same frames; raises InputError unless there are `count`."""
    number = 0
    for frame in frames:
        number += 1
        if number > count:
            break
        yield frame
    if number != count:
        more = "more" if number > count else f"{number}"
        raise InputError(f"{where} holds {more} frames where {count} were expected: measure it again")


def padded(frame: Frame, multiple: int) -> Frame:
    """The last column and line repeated until both luma sides are multiples of an even number."""
    height, width = (-(-side // multiple) * multiple for side in frame.y.shape)
    if frame.y.shape == (height, width):
        return frame

    def wider(plane: np.ndarray, h: int, w: int) -> np.ndarray:
        return np.pad(plane, ((0, h - plane.shape[0]), (0, w - plane.shape[1])), mode="edge")

    uv = np.stack([wider(plane, height // 2, width // 2) for plane in frame.uv])
    return Frame(wider(frame.y, height, width), uv, frame.pts)


def shown(frame: Frame, format: VideoFormat) -> Frame:
    """A decoded frame cropped to the source's size, and rounded to 8 bits where that has 8."""
    y = frame.y[: format.height, : format.width]
    uv = frame.uv[:, : format.chroma_height, : format.chroma_width]
    if frame.y.dtype != format.dtype:
        y, uv = (np.minimum((plane.astype(np.uint16) + 2) >> 2, 255).astype(np.uint8) for plane in (y, uv))
    return Frame(y, uv, frame.pts)
