"""A small file with two updates and four frames, and where each of its units lies."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from vidcodec.bitstream import FrameUnit, Header, UpdateUnit, bitstream_bytes


@dataclass(frozen=True)
class Sample:
    """A file in memory and what it was made of."""

    header: Header
    updates: list[UpdateUnit]
    frames: list[FrameUnit]
    data: bytes

    def units(self) -> list[tuple[bytes, int, int]]:
        """(type, offset, end) of every unit."""
        found, at = [], 8
        while at < len(self.data):
            end = at + 13 + int.from_bytes(self.data[at + 5 : at + 9], "little")
            found.append((self.data[at : at + 4], at, end))
            at = end
        return found

    def frame_spans(self) -> list[tuple[int, int]]:
        """(offset, end) of every frame."""
        return [(start, end) for kind, start, end in self.units() if kind == b"FRAM"]

    def update_spans(self) -> list[tuple[int, int]]:
        """(offset, end) of every update."""
        return [(start, end) for kind, start, end in self.units() if kind == b"UPDT"]


@pytest.fixture
def header() -> Header:
    return Header(
        model="msp-base",
        model_digest=bytes(range(16)),
        bank_digest=bytes(range(100, 108)),
        arithmetic=1,
        level=0x1234,
        width=352,
        height=288,
        bit_depth=8,
        matrix=6,
        primaries=6,
        transfer=6,
        full_range=False,
        chroma_location=1,
        sample_aspect=Fraction(128, 117),
        rotation=90,
        time_base=Fraction(1, 90000),
        frame_rate=Fraction(2),
        frame_count=4,
        update_count=2,
    )


@pytest.fixture
def sample(header: Header) -> Sample:
    updates = [UpdateUnit(0, b"first update"), UpdateUnit(2, b"second")]
    frames = [FrameUnit(i, 45000 * i, b"z" * i, bytes((i, 255)) * (5 - i), 0xDEADBEEF + i) for i in range(4)]
    return Sample(header, updates, frames, bitstream_bytes(header, updates, frames))
