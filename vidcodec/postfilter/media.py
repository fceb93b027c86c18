"""Containers: coded pictures with the messages beside them, and streams passed through untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import av.error
from av.container import InputContainer, OutputContainer

from vidcodec.errors import BitstreamError, OutputError
from vidcodec.files import partial_of, publish
from vidcodec.postfilter.carriage import CODECS, Framing, insert, messages, without_messages
from vidcodec.postfilter.message import UUID, FilterMessage
from vidcodec.video.output import Reporting
from vidcodec.video.passed import Passed, copied_stream
from vidcodec.video.source import MediaSource

ATTACHMENT = "vidcodec-filter"
ATTACHMENT_TYPE = "application/x-vidcodec-filter"


class PacketSurvey(NamedTuple):
    """What the packets of a video stream tell."""

    times: list[int]  # of all pictures, in order of presentation
    keys: list[int]  # of the key frames
    size: int  # bytes, without our messages
    delay: int | None  # from presentation to decoding, where packets lack decoding times (Matroska); else None


class CodedVideo:
    """The video stream of a coded file: its packets' times, and its pictures with the messages that come up.

    Raises what `MediaSource` raises.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0  # packets that could not be decoded in the last pass
        with closing(MediaSource(path)) as source:
            context = source.stream.codec_context
            self.codec = context.name if context.name in CODECS else "av1" if "av1" in context.name else context.name
            self.framing = Framing.of(self.codec, context.extradata) if self.codec in CODECS else None
            self.width, self.height = context.width, context.height
            self.rate = source.average_rate
            self.time_base = source.time_base
            self.attached = sorted(_attached(source.container), key=_start_of)

    def packets(self) -> PacketSurvey:
        """Read through the file without decoding."""
        order, keys, size, complete = [], [], 0, True
        with closing(MediaSource(self.path)) as source:
            for packet in self.demux(source):
                if not packet.size or packet.pts is None:
                    continue
                order.append(packet.pts)
                size += packet.size
                complete &= packet.dts is not None
                if packet.is_keyframe:
                    keys.append(packet.pts)
                    if self.framing:
                        size -= packet.size - len(without_messages(bytes(packet), self.framing))
        times = sorted(order)
        delay = max((time - pts for time, pts in zip(times, order, strict=True)), default=0)
        return PacketSurvey(times, sorted(keys), size, None if complete else delay)

    def pictures(self) -> Iterator[tuple[av.VideoFrame, list[bytes]]]:
        """Decoded pictures in order of presentation, each with the messages that begin to hold with it."""
        self.damaged = 0
        coming: dict[int, list[bytes]] = {}  # by the time stamp of their picture
        attached = [(_start_of(data), data) for data in self.attached]
        first: Fraction | None = None
        with closing(MediaSource(self.path)) as source:
            for packet in self.demux(source):
                if self.framing and packet.is_keyframe and (found := messages(bytes(packet), self.framing)):
                    coming.setdefault(packet.pts or 0, []).extend(found)
                for picture in self._decoded(packet):
                    pts = picture.pts or 0
                    due = [data for t in sorted(coming) if t <= pts for data in coming.pop(t)]
                    now = pts * self.time_base
                    first = now if first is None else first
                    while attached and attached[0][0] <= (now - first) * 1000 + 1:  # containers round to milliseconds
                        due.append(attached.pop(0)[1])
                    yield picture, due

    def demux(self, source: MediaSource) -> Iterator[av.Packet]:
        """The packets of the video stream, as far as the file can be read, then an empty one."""
        try:
            yield from source.container.demux(source.stream)
        except av.error.FFmpegError:
            self.damaged += 1

    def _decoded(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return packet.decode()  # type: ignore[return-value]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.damaged += 1
            return []


def _attached(container: InputContainer) -> list[bytes]:
    found = []
    for stream in container.streams.attachments:
        data = bytes(stream.data or b"")
        if (stream.name or "").startswith(ATTACHMENT) and data[:16] == UUID:
            found.append(data[16:])
    return found


def _start_of(data: bytes) -> int:
    """When an attached message begins to hold, in milliseconds; at once for one that cannot be read."""
    try:
        return FilterMessage.from_bytes(data).start
    except BitstreamError:
        return 0


# ----------------------------------------------------------------------------- writing


class Output:
    """A container written under a temporary name; takes its own name when the block ends well.

    Raises OutputError when it cannot be written.
    """

    def __init__(self, path: Path, *, format: str | None = None) -> None:
        self.path = path
        self.partial = partial_of(path)
        name = format or container_format(path)
        # Time stamps are not ours to move, and the same input gives the same bytes.
        options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
        if name == "mp4":
            options["movflags"] = "+faststart"
        with Reporting(path):
            self.container: OutputContainer = av.open(f"file:{self.partial}", "w", format=name, options=options)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with Reporting(self.path):
                    self.container.close()
                    publish(self.partial, self.path)
            else:
                with suppress(av.error.FFmpegError, OSError, ValueError):
                    self.container.close()
        finally:
            self.partial.unlink(missing_ok=True)


def container_format(path: Path) -> str:
    """FFmpeg's muxer by suffix; raises OutputError for one that is not taken."""
    formats = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".ts": "mpegts"}
    if path.suffix.lower() not in formats:
        raise OutputError(f"{path}: cannot write {path.suffix or 'this'}: use .mp4, .mkv or .ts")
    return formats[path.suffix.lower()]


def embed(coded: Path, output: Path, found: list[tuple[int, FilterMessage]], notes: list[str]) -> None:
    """Copy a coded file with messages put in: (time stamp of the key frame, message); earlier messages are dropped.

    Raises OutputError when the container cannot carry messages for this codec.
    """
    video = CodedVideo(coded)
    check_carriage(video.codec, output)
    with closing(MediaSource(coded)) as source, Output(output) as out:
        stream: Any = copied_stream(source.stream, out.container)
        passed = Passed(coded, out.container, notes)
        try:
            _attachments(source.container, out.container, [] if video.framing else [m for _, m in found])
            waiting, survey = dict(found), video.packets()
            decoding_times = iter(survey.times)
            for packet in video.demux(source):
                if not packet.size or packet.pts is None:
                    continue
                time = next(decoding_times)
                if survey.delay is not None:
                    packet.dts = time - survey.delay
                passed.until(time * video.time_base)
                if video.framing and packet.is_keyframe:
                    data = without_messages(bytes(packet), video.framing)
                    message = waiting.pop(packet.pts, None)
                    if message is not None:
                        data = insert(data, video.framing, message.to_bytes())
                    packet = replaced(packet, data)
                packet.stream = stream
                out.container.mux(packet)
            passed.until(None)
        finally:
            passed.close()


def check_carriage(codec: str, output: Path) -> None:
    """Raise OutputError unless messages for this codec fit into this kind of file."""
    name = container_format(output)
    if codec not in CODECS and name != "matroska":
        raise OutputError(f"{output}: beside {codec} the update travels as a Matroska attachment: write .mkv")


def _attachments(source: InputContainer, target: OutputContainer, found: list[FilterMessage]) -> None:
    """Copy attachments but ours, then add the messages."""
    if "matroska" not in target.format.name:
        return
    for stream in source.streams.attachments:
        if not (stream.name or "").startswith(ATTACHMENT):
            kind = stream.mimetype or "application/octet-stream"
            target.add_attachment(stream.name or "attachment", kind, bytes(stream.data or b""))
    for i, message in enumerate(found):
        target.add_attachment(f"{ATTACHMENT}-{i}", ATTACHMENT_TYPE, UUID + message.to_bytes())


def replaced(packet: av.Packet, data: bytes) -> av.Packet:
    """A packet with other bytes and the same times."""
    other = av.Packet(data)
    other.pts, other.dts, other.duration, other.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    other.is_keyframe = packet.is_keyframe
    return other
