"""A small Matroska muxer for one video track whose frames are all key frames, and tracks of another file beside it.

FFmpeg's own muxer counts in milliseconds only, and PyAV cannot tell it the sample aspect. This one counts in the
time base of the frames where that is a whole number of nanoseconds (so time stamps come back exactly), else in
microseconds. Every frame is a cluster of its own, indexed by the cues at the end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error

from vidcodec.video.frame import UNSPECIFIED, ColourTags, VideoFormat

_NANOSECOND = 1_000_000_000
_MICROSECOND = 1_000  # nanoseconds
_APPLICATION = b"vidcodec"
_TRACK = 1
_UNKNOWN_UNIT_OF_8 = b"\x01\xff\xff\xff\xff\xff\xff\xff"
_SITING = {0: (0, 0), 1: (1, 2), 2: (2, 2), 3: (1, 1), 4: (2, 1), 5: (0, 0), 6: (0, 0)}  # 1: on the sample, 2: half way


class MatroskaMuxer:
    """Writes packets of one intra-only codec to an open file.

    codec_id: Matroska's name, such as "V_FFV1"; codec_private: the codec's own header.
    """

    def __init__(self, file: BinaryIO, format: VideoFormat, codec_id: str, codec_private: bytes) -> None:
        self._file = file
        self._format = format
        nanoseconds = format.time_base * _NANOSECOND
        self._tick = int(nanoseconds) if nanoseconds.denominator == 1 else _MICROSECOND
        self._cues: list[tuple[int, int]] = []  # time in ticks, offset within the segment
        self._described = codec_id, codec_private
        self._others: list[bytes] = []  # entries of further tracks
        self._segment = 0  # until the head is written, with the first block

    def add_tracks(self, entries: Iterable[bytes]) -> None:
        """Further tracks, before anything is written: their entries, numbered from 2 on."""
        self._others += entries

    def seconds(self, ticks: int) -> Fraction:
        """A time in the unit that the file counts in."""
        return Fraction(ticks * self._tick, _NANOSECOND)

    def ticks_of(self, seconds: Fraction) -> int:
        """The opposite of `seconds`, rounded."""
        return round(seconds * _NANOSECOND / self._tick)

    def ticks(self, pts: int) -> int:
        """A time stamp in the unit that the file counts in."""
        return round(pts * self._format.time_base * _NANOSECOND / self._tick)

    def write(self, packet: bytes, ticks: int) -> None:
        """Add one coded frame at `ticks` (from 0 on)."""
        self._begin()
        self._cues.append((ticks, self._file.tell() - self._segment))
        block = _vint(_TRACK) + struct.pack(">hB", 0, 0x80) + packet  # at the cluster's time, a key frame
        self._file.write(_master(0x1F43B675, _uint(0xE7, ticks), _element(0xA3, block)))

    def write_block(self, block: Block, ticks: int) -> None:
        """Add a block of another track at `ticks`."""
        self._begin()
        content = _vint(block.track) + struct.pack(">hB", 0, 0) + block.data
        length = [_uint(0x9B, self.ticks_of(block.duration))] if block.duration else []
        group = _master(0xA0, _element(0xA1, content), *length)
        self._file.write(_master(0x1F43B675, _uint(0xE7, ticks), group))

    def _begin(self) -> None:
        if not self._segment:
            self._write_head(*self._described)

    def finish(self, duration: int) -> None:
        """Write the index and the sizes left open. duration: of the whole, in ticks."""
        cues = self._file.tell() - self._segment
        self._file.write(_master(0x1C53BB6B, *(self._cue(time, offset) for time, offset in self._cues)))
        size = self._file.tell() - self._segment
        self._patch(self._segment - 8, struct.pack(">Q", (1 << 56) | size))
        self._patch(self._cues_position, struct.pack(">Q", cues))
        self._patch(self._duration, struct.pack(">d", duration))

    def _write_head(self, codec_id: str, codec_private: bytes) -> None:
        ebml = _master(
            0x1A45DFA3,
            *(_uint(number, 1) for number in (0x4286, 0x42F7)),  # version, read version
            *(_uint(number, size) for number, size in ((0x42F2, 4), (0x42F3, 8))),  # longest id and size
            _element(0x4282, b"matroska"),
            *(_uint(number, version) for number, version in ((0x4287, 4), (0x4285, 2))),
        )
        self._file.write(ebml + _id(0x18538067) + _UNKNOWN_UNIT_OF_8)
        self._segment = self._file.tell()
        seek_cues = _master(0x4DBB, _element(0x53AB, _id(0x1C53BB6B)), _element(0x53AC, bytes(8)))
        seek = _master(0x114D9B74, seek_cues)
        info = _master(
            0x1549A966,
            _uint(0x2AD7B1, self._tick),
            _element(0x4D80, _APPLICATION),
            _element(0x5741, _APPLICATION),
            _element(0x4489, bytes(8)),  # duration, last so that its place is known
        )
        self._cues_position = self._segment + len(seek) - 8
        self._duration = self._segment + len(seek) + len(info) - 8
        self._file.write(seek + info + _master(0x1654AE6B, self._track(codec_id, codec_private), *self._others))

    def _track(self, codec_id: str, codec_private: bytes) -> bytes:
        rate = self._format.frame_rate
        spacing = [_uint(0x23E383, round(_NANOSECOND / rate))] if rate else []
        return _master(
            0xAE,
            *(_uint(number, _TRACK) for number in (0xD7, 0x73C5, 0x83)),  # number, id, type: video
            _uint(0x9C, 0),  # no lacing
            _element(0x22B59C, b"und"),
            _element(0x86, codec_id.encode()),
            *spacing,
            self._video(),
            _element(0x63A2, codec_private),
        )

    def _video(self) -> bytes:
        format = self._format
        shape = [_uint(0xB0, format.width), _uint(0xBA, format.height), _uint(0x9A, 2)]  # progressive
        if format.sample_aspect != 1:
            across, down = _display_size(format.width, format.height, format.sample_aspect)
            shape += [_uint(0x54B0, across), _uint(0x54BA, down), _uint(0x54B2, 3)]  # an aspect, not pixels
        shape.append(_colour(format.colour))
        if format.rotation:
            roll = -format.rotation if format.rotation <= 180 else 360 - format.rotation  # anticlockwise
            shape.append(_master(0x7670, _uint(0x7671, 0), _element(0x7675, struct.pack(">d", roll))))
        return _master(0xE0, *shape)

    def _cue(self, ticks: int, offset: int) -> bytes:
        place = _master(0xB7, _uint(0xF7, _TRACK), _uint(0xF1, offset))
        return _master(0xBB, _uint(0xB3, ticks), place)

    def _patch(self, position: int, value: bytes) -> None:
        end = self._file.tell()
        self._file.seek(position)
        self._file.write(value)
        self._file.seek(end)


def _display_size(width: int, height: int, sample_aspect: Fraction) -> tuple[int, int]:
    aspect = Fraction(width, height) * sample_aspect
    return aspect.numerator, aspect.denominator


def _colour(tags: ColourTags) -> bytes:
    across, down = _SITING.get(tags.chroma_location, (0, 0))
    known = [_uint(0x55B9, 2 if tags.full_range else 1)]
    numbers = ((0x55B1, tags.matrix), (0x55BA, tags.transfer), (0x55BB, tags.primaries))
    known += [_uint(number, value) for number, value in numbers if value != UNSPECIFIED]
    known += [_uint(number, value) for number, value in ((0x55B7, across), (0x55B8, down)) if value]
    return _master(0x55B0, *known)


@dataclass(frozen=True)
class Block:
    """What one block of a track holds. seconds: of its begin; duration: in seconds, 0 where its codec knows it."""

    track: int
    seconds: Fraction
    duration: Fraction
    data: bytes


class Sound:
    """The tracks of a Matroska file, for another one in which they are numbered from 2 on.

    Raises what PyAV raises for a file that it cannot read.
    """

    def __init__(self, path: Path) -> None:
        self._container = av.open(f"file:{path}")
        with path.open("rb") as file:
            entries = _track_entries(file.read(1 << 24))
        self.entries = [_renumbered(entry, i) for i, entry in enumerate(entries, 2)]
        self._delays = [_codec_delay(entry) for entry in entries]  # blocks stand so much later than what they hold
        self._blocks = self._read()
        self._next = next(self._blocks, None)

    def until(self, seconds: Fraction | None) -> Iterator[Block]:
        """The blocks that come next and begin before a time; None: the rest."""
        while (block := self._next) is not None and (seconds is None or block.seconds <= seconds):
            self._next = next(self._blocks, None)
            yield block

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def _read(self) -> Iterator[Block]:
        with suppress(av.error.FFmpegError):  # damaged from here on
            for packet in self._container.demux():
                if packet.size and packet.pts is not None and packet.stream_index < len(self.entries):
                    lasting = packet.stream.type == "subtitle"
                    duration = (packet.duration or 0) * packet.time_base if lasting else Fraction(0)
                    at = packet.pts * packet.time_base + self._delays[packet.stream_index]
                    yield Block(packet.stream_index + 2, at, Fraction(duration), bytes(packet))


def _track_entries(data: bytes) -> list[bytes]:
    """The contents of the track entries, as they stand in the head of a Matroska file."""
    segment = next((body for number, body in _children(data) if number == 0x18538067), b"")
    tracks = next((body for number, body in _children(segment) if number == 0x1654AE6B), b"")
    return [body for number, body in _children(tracks) if number == 0xAE]


def _codec_delay(entry: bytes) -> Fraction:
    """Seconds, of a track."""
    return Fraction(next((int.from_bytes(body, "big") for i, body in _children(entry) if i == 0x56AA), 0), _NANOSECOND)


def _renumbered(entry: bytes, number: int) -> bytes:
    """A track entry with another number and, so that none is there twice, another id."""
    rest = [_element(i, body) for i, body in _children(entry) if i not in (0xD7, 0x73C5)]
    return _master(0xAE, _uint(0xD7, number), _uint(0x73C5, number), *rest)


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Ids and contents of the elements in a piece of EBML, the last one as far as it is there."""
    at = 0
    while at < len(data):
        width = 9 - data[at].bit_length()
        number, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at >= len(data):
            return
        width = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
        at += width
        unknown = size == (1 << 7 * width) - 1
        yield number, data[at:] if unknown else data[at : at + size]
        at = len(data) if unknown else at + size


# EBML: id, size, content


def _id(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _vint(value: int) -> bytes:
    """A size: the number of leading zeros tells how many bytes follow (all ones would mean unknown)."""
    length = max(1, math.ceil((value + 2).bit_length() / 7))
    return ((1 << (7 * length)) | value).to_bytes(length, "big")


def _element(number: int, content: bytes) -> bytes:
    return _id(number) + _vint(len(content)) + content


def _uint(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _master(number: int, *children: bytes) -> bytes:
    return _element(number, b"".join(children))
