"""What an evaluation gives, as frozen dataclasses, and its two files.

A folder of results holds

    results.json        everything below, as `Results.to_json` writes it
    results.csv         one line per point: clip, codec, rate point, sizes, quality, seconds, memory
    sources/            the sampled frames every codec got, lossless (FFV1 in Matroska), one file a clip: 8-bit 4:2:0
                        unless they were to be kept exactly
    coded/              one folder a point, named by its key, with what the codec wrote: decode it again at any time
                        (`vidcodec.evaluation.pictures`)
    points/             one JSON file a finished point, named by its key: what a stopped run goes on from

results.json:

    {"format": "vidcodec-results", "version": 1,
     "provenance":  {command, vidcodec, commit, date, cpu, cores, python, libraries},
     "sampling":    {"fps": "2" | "source", "frames": 20 | null},
     "anchor":      label of the codec that `comparisons` compare with, or null,
     "clips":       [ClipInfo...], "codecs": [CodecInfo...],
     "points":      [Point...],       in the order of clips, codecs, rates
     "comparisons": [Comparison...],  one per clip and codec, and per codec the mean over clips (clip null)
     "failures":    [Failure...], "notes": [text...]}

Paths in it are relative to the folder. Points name clips by `ClipInfo.name` and codecs by `CodecInfo.label`.

Rates. `Point.bytes` is the rate that comparisons use, `bpp` = 8 bytes / (width height frames). For a conventional
video codec it counts the bare coded packets, as published comparisons do: neither the container nor the parameter sets
it holds (with the latter where it is lossless). For ours and for picture codecs it counts whole files with everything
in them, for a filter the packets with its messages. `file_bytes` counts whole files for all.

Frames of a lossless codec are compared sample by sample, other ones than went in are a failure: `details` has
'identical' and there is no quality. That of other codecs is measured on frames decoded from the files written, at 8
bits; of an R'G'B' source kept exactly psnr_rgb is against that source, the rest against its 4:2:0. Keys of
`Point.quality`, decibels where not said otherwise, null where it could not be measured:

    psnr_y, psnr_u, psnr_v, psnr_rgb      mean squared errors averaged over frames, then the logarithm
    psnr_yuv                              (6 psnr_y + psnr_u + psnr_v) / 8
    psnr_y_frame_mean, ..., psnr_yuv_frame_mean, psnr_rgb_frame_mean
                                          PSNR of every frame, then the mean
    ms_ssim_y, ssim_y                     0 .. 1, mean over frames
    xpsnr_y, xpsnr_u, xpsnr_v             by FFmpeg's filter, its own average over frames
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from vidcodec.errors import InputError
from vidcodec.files import write_whole

FORMAT, VERSION = "vidcodec-results", 1
RESULTS_JSON, RESULTS_CSV = "results.json", "results.csv"

T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """Who measured. commit: '' outside a git tree, '+changes' behind it where files differ from it."""

    command: str
    vidcodec: str
    commit: str
    date: str  # ISO 8601, UTC
    cpu: str
    cores: int
    python: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class ClipInfo:
    """A clip as all codecs got it.

    name: unique in the results. digest: of the sampled frames. source: the lossless file of them. fps: of the sampled
    frames, None where it varies. bit_depth, rgb: 8 bits of 4:2:0, unless frames were kept exactly. notes: what
    reading and sampling changed.
    """

    name: str
    digest: str
    source: str
    width: int
    height: int
    frames: int
    fps: float | None
    notes: list[str] = field(default_factory=list)
    bit_depth: int = 8
    rgb: bool = False

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return self.width * self.height * self.frames


@dataclass(frozen=True)
class CodecInfo:
    """A codec with its options.

    label: how results name it, 'x265:intra' or 'vidcodec:adapt=none'. spec: what `parse_codec` takes to make it again.
    family: the part before the colon. rate_name: what the rate points mean ('qp', 'quality', ...). settings:
    everything its files depend on besides the rate point.
    """

    label: str
    spec: str
    family: str
    rate_name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One clip coded by one codec at one rate point, decoded again and measured.

    key: digest of everything it depends on.
    bytes, file_bytes: see above. files: the coded ones; none for points that were measured elsewhere.
    frame_bits: of every frame, in order of presentation; headers and model updates that belong to no frame are not
        in it. None where the codec does not tell.
    frame_psnr: 'y' and 'yuv' of every frame, in decibels.
    encode_seconds, decode_seconds: wall clock, from reading the lossless source to the finished file, and from that
        file to frames; loading of a model included, starting of Python not. threads: that were allowed.
    encode_memory, decode_memory: peak resident bytes of the process that did it, interpreter and libraries included.
    details: what only this codec tells. Ours: 'chosen', 'update_bytes', 'y_bytes', 'z_bytes', 'rest_bytes',
        'tensor_bits' (name to bits of the model update), 'tensors' (what each of them cost and saves), 'curve' (one
        dict per measure while finetuning: step, bpp, mse, update_bits, cost ...), 'costs', 'stage_seconds'. A filter's:
        its segments' entries, of the first one.
    measured: date, cpu, vidcodec version and commit; a resumed run may mix several.
    """

    key: str
    clip: str
    codec: str
    rate_point: float
    bytes: int
    file_bytes: int
    bpp: float
    quality: dict[str, float | None]
    files: list[str] = field(default_factory=list)
    frame_bits: list[int] | None = None
    frame_psnr: dict[str, list[float]] = field(default_factory=dict)
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    threads: int | None = None
    encode_memory: int | None = None
    decode_memory: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Bjontegaard figures of a codec against the anchor on one clip, or their mean over clips (clip None).

    bd_rate: per cent of rate at equal quality, below zero: fewer bits. bd_psnr: decibels at equal rate. metric: of
    quality; 'bytes' between lossless codecs, whose bd_rate is per cent of bytes. None (N/A):
    the curves overlap too little, or are too short; `note` says which. clips: how many a mean stands for, [of the
    rate, of the PSNR].
    """

    codec: str
    anchor: str
    clip: str | None
    metric: str
    bd_rate: float | None
    bd_psnr: float | None
    clips: list[int] = field(default_factory=lambda: [1, 1])
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """A point that could not be measured."""

    clip: str
    codec: str
    rate_point: float
    error: str


@dataclass(frozen=True)
class Results:
    """Everything one evaluation gave."""

    provenance: Provenance
    sampling: dict[str, Any]
    anchor: str | None
    clips: list[ClipInfo]
    codecs: list[CodecInfo]
    points: list[Point]
    comparisons: list[Comparison] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def clip(self, name: str) -> ClipInfo:
        """The clip of that name; KeyError without."""
        return {clip.name: clip for clip in self.clips}[name]

    def codec(self, label: str) -> CodecInfo:
        """The codec of that label; KeyError without."""
        return {codec.label: codec for codec in self.codecs}[label]

    def curve(self, clip: str, codec: str) -> list[Point]:
        """The points of one clip and codec by rising rate."""
        return sorted((p for p in self.points if (p.clip, p.codec) == (clip, codec)), key=lambda p: p.bytes)

    def to_json(self) -> str:
        """The text of results.json."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The inverse of `to_json`; fields this version does not know are left out.

        Raises InputError for a text that is no such thing, or of a newer version.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"this is no JSON ({error})") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InputError("this is no results.json of vidcodec evaluate")
        if found.get("version") != VERSION:
            raise InputError(f"results of version {found.get('version')}: this vidcodec reads version {VERSION}")
        try:
            parts = {name: [_read(kind, d) for d in found[name]] for name, kind in _PARTS.items()}
            return _read(cls, {**found, "provenance": _read(Provenance, found["provenance"]), **parts})
        except (KeyError, TypeError) as error:
            raise InputError(f"results without what they need ({error})") from error

    def to_csv(self) -> str:
        """The text of results.csv: one line per point."""
        names = list(dict.fromkeys(name for point in self.points for name in point.quality))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*CSV_CLIP, *CSV_POINT, *names, *CSV_DETAILS])
        for point in self.points:
            clip = self.clip(point.clip)
            row = [getattr(clip, name) for name in CSV_CLIP] + [getattr(point, name) for name in CSV_POINT]
            row += [point.quality.get(name) for name in names] + [point.details.get(name) for name in CSV_DETAILS]
            writer.writerow(row)
        return out.getvalue()

    def write(self, folder: Path) -> None:
        """Write both files, each complete or not at all."""
        write_whole(folder / RESULTS_JSON, self.to_json())
        write_whole(folder / RESULTS_CSV, self.to_csv())


_PARTS: dict[str, type[Any]] = {
    "clips": ClipInfo,
    "codecs": CodecInfo,
    "points": Point,
    "comparisons": Comparison,
    "failures": Failure,
}
CSV_CLIP = ("name", "width", "height", "frames", "fps")
CSV_POINT = (
    *("codec", "rate_point", "bytes", "file_bytes", "bpp", "encode_seconds", "decode_seconds", "threads"),
    *("encode_memory", "decode_memory", "key"),
)
CSV_DETAILS = ("update_bytes", "y_bytes", "z_bytes", "rest_bytes")


def read_point(text: str) -> Point:
    """A point from its own file. Raises InputError when it is none."""
    try:
        return _read(Point, json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"this is no point ({error})") from error


def point_text(point: Point) -> str:
    """A point for its own file."""
    return json.dumps(asdict(point), indent=1, allow_nan=False) + "\n"


def _read(kind: type[T], values: Mapping[str, Any]) -> T:
    known: Iterable[str] = (f.name for f in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: values[name] for name in known if name in values})
