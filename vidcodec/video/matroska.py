"""A small Matroska muxer for one video track whose frames are all key frames.

FFmpeg's own muxer counts in milliseconds only, and PyAV cannot tell it the sample aspect. This one counts in the
time base of the frames where that is a whole number of nanoseconds (so time stamps come back exactly), else in
microseconds. Every frame is a cluster of its own, indexed by the cues at the end.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import BinaryIO

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
        self._write_head(codec_id, codec_private)

    def ticks(self, pts: int) -> int:
        """A time stamp in the unit that the file counts in."""
        return round(pts * self._format.time_base * _NANOSECOND / self._tick)

    def write(self, packet: bytes, ticks: int) -> None:
        """Add one coded frame at `ticks` (from 0 on)."""
        self._cues.append((ticks, self._file.tell() - self._segment))
        block = _vint(_TRACK) + struct.pack(">hB", 0, 0x80) + packet  # at the cluster's time, a key frame
        self._file.write(_master(0x1F43B675, _uint(0xE7, ticks), _element(0xA3, block)))

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
        self._file.write(seek + info + _master(0x1654AE6B, self._track(codec_id, codec_private)))

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
