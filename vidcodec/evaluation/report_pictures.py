"""Pictures for the report: the same frames from the source, from us and from a rival at about the same size."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vidcodec.errors import VidcodecError
from vidcodec.evaluation.pictures import clip_format, decoded_frames, source_frames
from vidcodec.evaluation.results import ClipInfo, Point, Results
from vidcodec.video import Frame, VideoFormat, yuv_to_rgb

OURS = "vidcodec"
NEAR = math.log(1.15)  # sizes within 15 % are about equal
LARGEST = (960, 720)  # of a picture, so that details are seen and the page stays small
_LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]


@dataclass(frozen=True)
class Shot:
    """One frame of the source and of both codecs as data addresses of lossless WebP pictures."""

    frame: int
    source: str
    left: str
    right: str | None


@dataclass(frozen=True)
class SideBySide:
    """Frames of one clip side by side.

    left, right: the points they come from; right is None where there is nothing to compare with. window: of the
    picture that is shown, (x, y, width, height). note: why there are no shots, or ''.
    """

    clip: ClipInfo
    left: Point
    right: Point | None
    window: tuple[int, int, int, int] = (0, 0, 0, 0)
    shots: list[Shot] = field(default_factory=list)
    note: str = ""


def is_ours(results: Results, label: str) -> bool:
    """Whether a codec is this project's."""
    return results.codec(label).family == OURS


def main_codec(results: Results) -> str | None:
    """Our codec that does best on average, else the first of ours; None without any."""
    measured = {point.codec for point in results.points}
    ours = [codec.label for codec in results.codecs if codec.family == OURS and codec.label in measured]
    means = {c.codec: c.bd_rate for c in results.comparisons if c.clip is None and c.metric == "psnr_yuv"}
    means[results.anchor or ""] = 0.0

    def mean(label: str) -> float:
        found = means.get(label)
        return math.inf if found is None else found

    return min(ours, key=mean, default=None)


def choose_points(results: Results, clip: ClipInfo) -> tuple[Point, Point | None] | None:
    """The two points of a clip to look at: ours and a rival's of about equal size.

    Among pairs that differ by less than 15 % in bytes one with the anchor is taken, and our main codec; else, and among
    those, the closest pair. None when no file was kept.
    """
    points = [p for p in results.points if p.clip == clip.name and p.files and p.bytes > 0]
    main = main_codec(results)
    left = [p for p in points if is_ours(results, p.codec)] or points
    right = [p for p in points if not is_ours(results, p.codec)]
    pairs = [(a, b) for a, b in itertools.product(left, right) if a.codec != b.codec]
    if not pairs:
        return (sorted(left, key=lambda p: p.bytes)[len(left) // 2], None) if left else None

    def unfit(pair: tuple[Point, Point]) -> tuple[bool, bool, bool, float]:
        apart = abs(math.log(pair[0].bytes / pair[1].bytes))
        near = apart <= NEAR
        return (not near, near and pair[1].codec != results.anchor, near and pair[0].codec != main, apart)

    return min(pairs, key=unfit)


def choose_frames(point: Point, count: int) -> list[int]:
    """The frame in the middle, and the one this point shows worst."""
    psnr = point.frame_psnr.get("yuv", [])
    worst = [int(np.argmin(psnr))] if len(psnr) == count else []
    return sorted({count // 2, *worst})


def compare(results: Results, folder: Path, frames: Sequence[int] | None, budget: int) -> list[SideBySide]:
    """For every clip the pictures to look at.

    frames: which, by number; None chooses. budget: bytes for all pictures together; windows shrink to stay within.
    What cannot be decoded again becomes a note.
    """
    chosen = [(clip, pair) for clip in results.clips if (pair := choose_points(results, clip))]
    found = []
    for number, (clip, (left, right)) in enumerate(chosen):
        numbers = choose_frames(left, clip.frames) if frames is None else frames
        numbers = sorted({n for n in numbers if 0 <= n < clip.frames}) or [clip.frames // 2]
        try:
            comparison = _shots(results, folder, clip, left, right, numbers, budget // (len(chosen) - number))
        except (VidcodecError, OSError) as error:
            comparison = SideBySide(clip, left, right, note=f"The pictures cannot be shown: {error}")
        budget -= sum(len(u) for s in comparison.shots for u in (s.source, s.left, s.right or ""))
        found.append(comparison)
    return found


def _shots(
    results: Results, folder: Path, clip: ClipInfo, left: Point, right: Point | None, numbers: list[int], budget: int
) -> SideBySide:
    format = clip_format(folder, clip)
    streams: list[Iterator[Frame]] = [source_frames(folder, clip), decoded_frames(folder, results, left)]
    if right is not None:
        streams.append(decoded_frames(folder, results, right))
    rgb = [_pictures(frames, numbers, format) for frames in streams]  # codec, frame
    each = budget // (len(rgb) * len(numbers))
    window, addresses = _fit(rgb, each)
    by_frame = zip(numbers, *addresses, strict=True)
    shots = [Shot(n, source, ours, rest[0] if rest else None) for n, source, ours, *rest in by_frame]
    return SideBySide(clip, left, right, window, shots)


def _pictures(frames: Iterator[Frame], numbers: list[int], format: VideoFormat) -> list[np.ndarray]:
    """R'G'B' of the frames with these (rising) numbers, turned upright: (H, W, 3) uint8 each."""
    taken = {}
    for number, frame in enumerate(frames):
        if number in numbers:
            taken[number] = np.rot90(yuv_to_rgb(frame, format), -format.rotation // 90)
        if number == numbers[-1]:
            break
    return [taken[number] for number in numbers]


def _fit(rgb: list[list[np.ndarray]], budget: int) -> tuple[tuple[int, int, int, int], list[list[str]]]:
    """The window around the middle, and the pictures in it, of which the largest takes at most `budget` bytes."""
    height, width = rgb[0][0].shape[:2]
    scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
    while True:
        w, h = max(8, round(scale * width)), max(8, round(scale * height))
        w, h = min(w, width), min(h, height)
        x, y = (width - w) // 2, (height - h) // 2
        addresses = [[_address(picture[y : y + h, x : x + w]) for picture in row] for row in rgb]
        largest = max(map(len, itertools.chain.from_iterable(addresses)))
        if largest <= budget or scale < 0.05:
            return (x, y, w, h), addresses
        scale *= min(0.95, math.sqrt(budget / largest))


def _address(rgb: np.ndarray) -> str:
    """A picture, losslessly, as a data address."""
    _, data = cv2.imencode(".webp", np.ascontiguousarray(rgb[..., ::-1]), _LOSSLESS)
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()


def nearest(points: Iterable[Point], size: int) -> Point | None:
    """The point whose bytes are closest to a size, as a factor; None without any."""
    return min((p for p in points if p.bytes > 0), key=lambda p: abs(math.log(p.bytes / size)), default=None)
