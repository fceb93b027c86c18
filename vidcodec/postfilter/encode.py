"""A conventional codec's file with a filter update beside its pictures.

    source -> x264 | x265 | SVT-AV1 -> coded file                 (or a coded file as it is)
    coded + source pictures -> samples -> QP labels, finetuning -> update
    all pictures: errors without filter, with the base filter, with the adapted one
    the best of the three, its bytes counted -> message -> SEI or attachment

Memory is bounded: of the pictures only the samples are kept.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import OutputContainer

from vidcodec.denormals import flushed_denormals
from vidcodec.errors import InputError, OutputError, UnsupportedInputError
from vidcodec.postfilter.apply import ActiveFilter, picture_type, updated
from vidcodec.postfilter.carriage import sei_unit
from vidcodec.postfilter.checkpoint import DIGEST_BYTES, load_filter
from vidcodec.postfilter.finetune import FilterFinetuneConfig, finetune_filter
from vidcodec.postfilter.media import CodedVideo, Output, check_carriage, embed
from vidcodec.postfilter.message import FilterMessage
from vidcodec.postfilter.network import PROFILES, Filter
from vidcodec.postfilter.objective import PLANE_WEIGHTS, Sample
from vidcodec.postfilter.planes import depth_of, pack, put_planes, samples_of, squared_errors, to_planes
from vidcodec.postfilter.vvenc import VvencFile
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader
from vidcodec.video.passed import Passed, copied_stream

ENCODERS = {"x264": "libx264", "x265": "libx265", "svtav1": "libsvtav1", "vvenc": "libvvenc"}
DECODED_AS = {"x264": "h264", "x265": "hevc", "svtav1": "av1", "vvenc": "vvc"}
PRESETS = {"x264": "medium", "x265": "medium", "svtav1": "8", "vvenc": "medium"}
COARSEST = {"x264": 51, "x265": 51, "svtav1": 63, "vvenc": 63}  # of crf and qp
DEFAULT_QP = 32  # of VVenC, which has no constant quality
DEFAULT_CRF = 28.0
# Encoders count frames, or few seconds, between key frames: too few where there are not many pictures a second.
SLOW_RATE, SLOW_KEY_SECONDS = 8, 60
CANDIDATES = ("off", "base", "adapted")
SAMPLE_BYTES = 160_000_000  # of pictures kept to learn from, decoded and source together
MAX_SEGMENTS = 64
# Labels tried for the base filter's QP input: all of these, then their neighbours.
COARSE_LABELS = (20.0, 24.0, 28.0, 32.0, 36.0, 40.0, 44.0)
LABEL_PICTURES = 3  # of each frame type

Progress = Callable[[str, float, dict[str, Any]], None]


@dataclass(frozen=True)
class FilterEncodeOptions:
    """How a video is coded and its filter adapted.

    codec: 'x264', 'x265', 'svtav1', or 'vvenc' (in a program of its own, a quantiser only); crf or qp: its constant
    quality or quantiser (by default crf 28, of vvenc qp 32);
    preset: its own name for speed.
    sampling: which pictures are coded, all unless said otherwise; from a `start` of its own, they begin at time 0.
    copy_of: the source that the input was coded from, by that sampling; given, the input's pictures stay as they are.
    profile, weights: the base filter. segment: seconds between updates, each from a key frame on; 0: one update.
    finetune: how the filter is adapted; None: the base filter only.

    Raises UnsupportedInputError for what no codec or filter here takes.
    """

    codec: str = "x265"
    crf: float | None = None
    qp: int | None = None
    preset: str | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(fps=None))
    copy_of: Path | None = None
    profile: str = "base"
    weights: Path | None = None
    segment: float = 0.0
    finetune: FilterFinetuneConfig | None = field(default_factory=FilterFinetuneConfig)

    def __post_init__(self) -> None:
        for name, known in (("codec", ENCODERS), ("profile", PROFILES)):
            if getattr(self, name) not in known:
                raise UnsupportedInputError(f"'{name}' is one of {', '.join(known)}; not {getattr(self, name)!r}")
        if self.crf is not None and self.qp is not None:
            raise UnsupportedInputError("'crf' and 'qp' both say how finely to code: leave one of them out")
        for name in ("crf", "qp"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= COARSEST[self.codec]:
                raise UnsupportedInputError(f"'{name}' of {self.codec} is 0 to {COARSEST[self.codec]}, not {value}")
        if self.codec == "vvenc" and self.crf is not None:
            raise UnsupportedInputError("vvenc has no constant quality: give 'qp' instead of 'crf'")
        if not self.segment >= 0:
            raise UnsupportedInputError(f"'segment' is a number of seconds, not {self.segment}")


@dataclass
class FilterEncodeResult:
    """What was written.

    segments: one entry per update: which candidate was kept, bytes of its message and of its update, cost in bits
    and PSNR of Y, U, V of every candidate (errors averaged over pictures before the logarithm).
    psnr: the same for the whole video, by candidate and for what was kept.
    """

    output: str
    codec: str
    frames: int
    width: int
    height: int
    video_bytes: int  # of the pictures, without messages
    message_bytes: int
    file_bytes: int
    psnr: dict[str, list[float]]
    segments: list[dict[str, Any]]
    notes: list[str]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@flushed_denormals()
def filter_encode(
    source: Path, output: Path, options: FilterEncodeOptions, progress: Progress | None = None
) -> FilterEncodeResult:
    """Write `output`: the coded video, and the update that wins beside it.

    Raises InputError, OutputError and ModelError (see `vidcodec.errors`).
    """
    report = progress or (lambda stage, share, figures: None)
    base, digest = load_filter(options.profile, options.weights)
    notes: list[str] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        if options.copy_of is None:
            check_carriage(DECODED_AS[options.codec], output)
            coded, original = Path(folder) / f"coded{output.suffix}", source
            with timed(seconds, "encode"):
                encode_source(source, coded, options, notes, report)
        else:
            coded, original = source, options.copy_of
        adaptation = Adaptation(CodedVideo(coded), original, base, digest, options, report)
        check_carriage(adaptation.video.codec, output)
        with timed(seconds, "survey"):
            adaptation.survey()
        with timed(seconds, "adapt"):
            adaptation.adapt()
        with timed(seconds, "measure"):
            adaptation.measure()
        chosen = adaptation.choose()
        with timed(seconds, "write"):
            embed(coded, output, [(s.pts, s.message(s.chosen)) for s in chosen], notes)
    video = adaptation.video
    return FilterEncodeResult(
        output=str(output),
        codec=video.codec,
        frames=len(adaptation.times),
        width=video.width,
        height=video.height,
        video_bytes=adaptation.video_bytes,
        message_bytes=sum(s.cost_bytes(s.chosen) for s in chosen),
        file_bytes=output.stat().st_size,
        psnr=adaptation.psnr(),
        segments=[s.to_dict() for s in chosen],
        notes=notes,
        seconds={k: round(v, 2) for k, v in seconds.items()},
    )


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Notes the seconds spent in a block."""
    begin = time.monotonic()
    yield
    into[name] = time.monotonic() - begin


# ------------------------------------------------------------------------------- coding


def encoder_options(o: FilterEncodeOptions) -> dict[str, str]:
    """What FFmpeg's encoder is told."""
    rate = {"qp": str(o.qp)} if o.qp is not None else {"crf": f"{DEFAULT_CRF if o.crf is None else o.crf:g}"}
    out = {"preset": o.preset or PRESETS[o.codec], **rate}
    if o.codec == "x264":
        out["x264-params"] = "log-level=none"
    if o.codec == "x265":  # x265 takes its quantiser among its own parameters
        qp = f":qp={o.qp}" if o.qp is not None else ""
        out["x265-params"] = f"log-level=none:info=0{qp}"
        out.pop("qp", None)
    return out


def encode_source(source: Path, output: Path, o: FilterEncodeOptions, notes: list[str], report: Progress) -> None:
    """Code the pictures that `o.sampling` takes; audio and subtitles are passed through.

    Raises InputError for a source that cannot be read, OutputError when there is no such encoder.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    with VideoReader(source, o.sampling) as reader, Output(output) as out:
        video, frames = reader.format, reader.frames()
        first = next(frames)
        begin = first.pts if o.sampling.begin else 0
        taken = (replace(frame, pts=frame.pts - begin) for frame in chain([first], frames))
        if video.width % 2 or video.height % 2:
            notes.append(f"{video.width}x{video.height} grown to even sides: {o.codec} takes no odd ones in 4:2:0")

        def told() -> Iterator[Frame]:
            for done, frame in enumerate(taken, 1):
                yield frame
                report("encode", min(0.99, done / (reader.estimated_frames or done + 1)), {"frames": done})

        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            coder: Inside | Vvenc
            if o.codec == "vvenc":
                coder = Vvenc(Path(folder), out.container, video, o, told())
            else:
                coder = Inside(out.container, video, o, told())
            span, start = o.sampling.span, begin * video.time_base
            passed = Passed(source, out.container, notes, start, None if span is None else start + span, start)
            try:
                for packet in coder.packets():
                    passed.until((packet.dts or 0) * packet.time_base)
                    out.container.mux(packet)
                passed.until(None)
            except av.error.FFmpegError as error:
                raise OutputError(f"{o.codec} cannot code this with these options: {error.strerror}") from error
            finally:
                passed.close()
        notes += [n for n in reader.notes if n not in notes]


class Inside:
    """One of the encoders of PyAV's FFmpeg, and a stream of a container for its packets.

    Raises OutputError where there is no such encoder.
    """

    def __init__(
        self, container: OutputContainer, video: VideoFormat, o: FilterEncodeOptions, frames: Iterable[Frame]
    ) -> None:
        self.video, self.frames = video, frames
        try:
            stream: Any = container.add_stream(
                ENCODERS[o.codec], rate=video.frame_rate or 25, options=encoder_options(o)
            )
        except (ValueError, av.error.FFmpegError) as error:
            raise OutputError(f"FFmpeg has no {o.codec} here: choose another 'codec'") from error
        self.stream = stream
        describe(stream, video)
        if keys := key_pictures(video):
            stream.codec_context.gop_size = keys
        if video.rotation and hasattr(stream, "set_display_rotation"):
            stream.set_display_rotation(-video.rotation)  # FFmpeg counts anticlockwise

    def packets(self) -> Iterator[av.Packet]:
        """The frames, coded."""
        for picture in chain((picture_of(frame, self.video) for frame in self.frames), [None]):
            for packet in self.stream.encode(picture):
                if packet.dts is not None and packet.pts is not None and packet.dts > packet.pts:
                    packet.dts = packet.pts  # x265 makes up decoding times from two pictures on
                yield packet


class Vvenc:
    """VVenC in a program of its own, and a stream of a container for its packets.

    folder: for what the program writes. Raises OutputError where there is no such program, or it fails.
    """

    def __init__(
        self,
        folder: Path,
        container: OutputContainer,
        video: VideoFormat,
        o: FilterEncodeOptions,
        frames: Iterable[Frame],
    ) -> None:
        qp = DEFAULT_QP if o.qp is None else o.qp
        self.file = VvencFile(folder / "coded.mp4", video, o.preset or PRESETS[o.codec], qp, key_pictures(video))
        self.file.write(frames)
        with av.open(f"file:{self.file.path}") as coded:
            self.stream = copied_stream(coded.streams.video[0], container)
        self.stream.time_base = video.time_base

    def packets(self) -> Iterator[av.Packet]:
        """The packets of the stream."""
        for packet in self.file.packets():
            packet.stream = self.stream
            yield packet


def key_pictures(video: VideoFormat) -> int | None:
    """Pictures between key frames where there are few a second; None: as the encoder has it."""
    rate = video.frame_rate
    return max(1, round(SLOW_KEY_SECONDS * rate)) if rate and rate <= SLOW_RATE else None


def describe(stream: Any, video: VideoFormat) -> None:
    """Tell an encoder what it will get."""
    context = stream.codec_context
    context.width, context.height = video.width + video.width % 2, video.height + video.height % 2
    context.pix_fmt = "yuv420p" if video.bit_depth == 8 else "yuv420p10le"
    context.time_base = stream.time_base = video.time_base
    context.framerate = video.frame_rate or 25
    context.sample_aspect_ratio = video.sample_aspect
    context.colorspace, context.color_primaries = video.colour.matrix, video.colour.primaries
    context.color_trc, context.color_range = video.colour.transfer, 2 if video.colour.full_range else 1


def picture_of(frame: Frame, video: VideoFormat) -> av.VideoFrame:
    """FFmpeg's picture of a frame, with even sides."""
    planes = pack(frame.y, frame.uv)
    picture = av.VideoFrame(
        2 * planes.shape[2], 2 * planes.shape[1], "yuv420p" if video.bit_depth == 8 else "yuv420p10le"
    )
    put_planes(planes, picture)
    picture.pts, picture.time_base = frame.pts, video.time_base
    picture.colorspace, picture.color_range = video.colour.matrix, 2 if video.colour.full_range else 1
    return picture


# --------------------------------------------------------------------------- adaptation


@dataclass
class Segment:
    """A stretch of video under one update: from the key frame at `pts` on."""

    pts: int
    start_ms: int
    bits: float
    profile: str
    digest: bytes
    sample_at: set[int] = field(default_factory=set)  # indices of pictures in the whole video
    samples: list[Sample] = field(default_factory=list)
    frames: np.ndarray = field(default_factory=lambda: np.zeros(3))  # of types I, P, B
    errors: dict[str, np.ndarray] = field(default_factory=dict)  # candidate: (types, planes) sums of squares
    qp: tuple[float, float, float] = (32.0, 32.0, 32.0)
    update: bytes = b""
    adapted: Filter | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    chosen: str = "off"

    def better(self, candidate: str) -> np.ndarray:
        """Where a candidate lowers the error: (types, planes), bool."""
        return self.errors[candidate] < self.errors["off"]

    def total(self, candidate: str) -> np.ndarray:
        """Sums of squared errors of Y, U, V with the candidate where it is better."""
        return np.minimum(self.errors[candidate], self.errors["off"]).sum(0)

    def message(self, candidate: str) -> FilterMessage:
        update = self.update if candidate == "adapted" else b""
        enabled = sum(1 << i for i, on in enumerate(self.better(candidate).ravel()) if on)
        return FilterMessage(self.profile, self.digest[:DIGEST_BYTES], enabled, self.qp, self.start_ms, update)

    def cost_bytes(self, candidate: str) -> int:
        """Bytes of the message as an SEI NAL unit of HEVC with its length; an attachment takes about as many."""
        return 4 + len(sei_unit("hevc", self.message(candidate).to_bytes()))

    def cost(self, candidate: str) -> float:
        """R * sum_p w_p ln(D_p / D0_p) + message, in bits: 0 is the plain video, less is better."""
        before, after = (np.maximum(self.total(c), 1.0) for c in ("off", candidate))
        return self.bits * float(np.log(after / before) @ np.array(PLANE_WEIGHTS)) + 8.0 * self.cost_bytes(candidate)

    def to_dict(self) -> dict[str, Any]:
        return {
            "start": self.start_ms / 1000,
            "frames": int(self.frames.sum()),
            "kept": self.chosen,
            "filtered": {
                t: [p for p, on in zip("YUV", row, strict=True) if on]
                for t, row in zip("IPB", self.better(self.chosen), strict=True)
            },
            "qp": list(self.qp),
            "update_bytes": len(self.update) if self.chosen == "adapted" else 0,
            "message_bytes": self.cost_bytes(self.chosen),
            "cost_bits": {c: round(self.cost(c), 1) for c in self.errors},
            "curve": self.curve,
        }


class Adaptation:
    """The passes over one coded video and its source."""

    def __init__(
        self,
        video: CodedVideo,
        original: Path,
        base: Filter,
        digest: bytes,
        options: FilterEncodeOptions,
        report: Progress,
    ) -> None:
        self.video, self.original, self.base, self.o, self.report = video, original, base, options, report
        self.times, keys, self.video_bytes, _ = video.packets()
        if not self.times or not keys:
            raise InputError(f"{video.path}: its pictures carry no time stamps: put it into .mp4 or .mkv first")
        self.depth = 8
        self.size = (video.height, video.width)  # that errors are counted over: where both videos have samples
        starts = keys[:1]
        gap = max(options.segment, float((self.times[-1] - keys[0]) * video.time_base) / MAX_SEGMENTS)
        if options.segment:
            for key in keys[1:]:
                if (key - starts[-1]) * video.time_base >= gap:
                    starts.append(key)
        bounds = [0, *(bisect_right(self.times, s - 1) for s in starts[1:]), len(self.times)]
        rng = np.random.default_rng(0)
        self.segments = []
        samples = max(2, SAMPLE_BYTES // (6 * video.width * video.height) // len(starts))  # 16 bits, 4:2:0, in pairs
        for start, first, stop in zip(starts, bounds, bounds[1:], strict=False):
            count = stop - first
            picked: Any = first + rng.choice(count, min(count, samples), replace=False) if count else []
            self.segments.append(
                Segment(
                    start,
                    int((start - self.times[0]) * video.time_base * 1000),
                    8.0 * self.video_bytes * count / len(self.times),
                    options.profile,
                    digest,
                    {int(i) for i in picked},
                )
            )

    def pairs(self, stage: str) -> Iterator[tuple[int, Segment, int, np.ndarray, np.ndarray]]:
        """(index, segment, frame type, decoded planes, source planes) of every picture."""
        starts = [s.pts for s in self.segments]
        with VideoReader(self.original, self.o.sampling) as reader:
            frames = reader.frames()
            index = -1
            for index, (picture, _) in enumerate(self.video.pictures()):
                frame = next(frames, None)
                if frame is None:
                    raise InputError(f"{self.original} has only {index} pictures, fewer than {self.video.path}")
                self.depth = depth_of(picture)
                self.size = (min(picture.height, len(frame.y)), min(picture.width, frame.y.shape[1]))
                decoded = to_planes(picture)
                source = fitted(frame, reader.format.bit_depth, self.depth)
                if decoded.shape != source.shape:
                    raise InputError(
                        f"{self.original} is {reader.format.width}x{reader.format.height}, {self.video.path} is "
                        f"{picture.width}x{picture.height}: the source must be what the file was coded from"
                    )
                segment = self.segments[max(0, bisect_right(starts, picture.pts or 0) - 1)]
                yield index, segment, picture_type(picture), decoded, source
                self.report(stage, (index + 1) / len(self.times), {"frames": index + 1})
            if index < 0:
                raise InputError(f"{self.video.path}: no picture could be decoded: the file is damaged")
            if next(frames, None) is not None:
                raise InputError(f"{self.original} has more pictures than the {index + 1} of {self.video.path}")

    def add_errors(self, segment: Segment, name: str, type: int, shown: np.ndarray, source: np.ndarray) -> None:
        """Of one picture under one candidate."""
        segment.errors.setdefault(name, np.zeros((3, 3)))[type] += squared_errors(shown, source, *self.size)

    def unfiltered(self, segment: Segment) -> np.ndarray:
        """Mean squared errors of Y, U, V without a filter, in code values squared: (3,)."""
        return segment.errors["off"].sum(0) / (max(segment.frames.sum(), 1) * samples_of(*self.size))

    def survey(self) -> None:
        """Errors without a filter, and the samples."""
        for index, segment, type, decoded, source in self.pairs("survey"):
            self.add_errors(segment, "off", type, decoded, source)
            segment.frames[type] += 1
            if index in segment.sample_at:
                segment.samples.append(Sample(decoded, source, type))

    def adapt(self) -> None:
        """QP labels and an update for every segment; the samples are let go."""
        for number, segment in enumerate(self.segments):
            if not segment.samples:
                continue
            error = self.unfiltered(segment)
            segment.qp = best_labels(self.base, segment.samples, self.depth, error, self.size)
            config = self.o.finetune
            if config is not None:

                def told(share: float, figures: dict[str, Any], n: int = number) -> None:
                    self.report("adapt", (n + share) / len(self.segments), figures)

                mine = replace(config, max_seconds=config.max_seconds / len(self.segments))
                done = finetune_filter(
                    self.base, segment.samples, self.depth, segment.qp, segment.bits, error, mine, told
                )
                segment.update, segment.curve = done.payload, done.curve
                if done.payload:
                    segment.adapted = updated(self.base, done.payload, config.folder)
            segment.samples = []

    def measure(self) -> None:
        """Errors of every candidate over all pictures, by the decoder's own function."""
        for _, segment, type, decoded, source in self.pairs("measure"):
            networks = {"base": self.base, "adapted": segment.adapted}
            for name, network in networks.items():
                if network is not None:
                    shown = ActiveFilter(network, qp=segment.qp).apply(decoded, self.depth, type)
                    self.add_errors(segment, name, type, shown, source)

    def choose(self) -> list[Segment]:
        """The candidate of the least cost in every segment."""
        for segment in self.segments:
            segment.chosen = min(segment.errors, key=lambda c, s=segment: s.cost(c))  # type: ignore[misc]
        return self.segments

    def psnr(self) -> dict[str, list[float]]:
        """PSNR of Y, U, V over the whole video, by candidate (where it is enabled) and of what was kept."""
        samples = len(self.times) * samples_of(*self.size)
        peak = float((1 << self.depth) - 1) ** 2
        out = {}
        for name in (*CANDIDATES, "kept"):
            picked = [(s, s.chosen if name == "kept" else name) for s in self.segments]
            total = sum((s.total(c if c in s.errors else "off") for s, c in picked), np.zeros(3))
            out[name] = [round(10 * math.log10(peak / max(e, 1e-9)), 4) for e in total / samples]
        return out


def fitted(frame: Frame, depth: int, wanted: int) -> np.ndarray:
    """Planes of a source frame in the coded video's depth."""
    planes = pack(frame.y, frame.uv)
    if depth > wanted:
        return np.minimum((planes + 2) >> 2, 255).astype(np.uint8)
    return planes.astype(np.uint16) << 2 if depth < wanted else planes


def best_labels(
    base: Filter, samples: list[Sample], depth: int, error: np.ndarray, size: tuple[int, int]
) -> tuple[float, float, float]:
    """The QP to tell the base filter of I, P and B pictures: those it does best with on a few samples each.

    error: mean squared errors of Y, U, V without the filter. size: height and width of the pictures.
    """
    weights = np.array(PLANE_WEIGHTS) / (np.maximum(error, 1e-3) * samples_of(*size))

    def best(type: int) -> float | None:
        few = [s for s in samples if s.type == type][:LABEL_PICTURES]
        if not few:
            return None
        costs: dict[float, float] = {}

        def cost(label: float) -> float:
            if label not in costs:
                told = ActiveFilter(base, qp=(label, label, label))
                errors = (squared_errors(told.apply(s.decoded, depth, type), s.source, *size) for s in few)
                costs[label] = sum(float(e @ weights) for e in errors)
            return costs[label]

        label = min(COARSE_LABELS, key=cost)
        for step in (2.0, 1.0):
            label = min((label - step, label, label + step), key=cost)
        return label

    found = [best(type) for type in range(3)]
    known = [label for label in found if label is not None]
    i, p, b = (label if label is not None else known[0] for label in found)
    return i, p, b
