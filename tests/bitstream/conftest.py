"""A small file of four chains and three updates."""

from __future__ import annotations

from fractions import Fraction

import pytest
from bitstream_support import Sample, make_frame

from vidcodec.bitstream import Header, UpdateUnit, bitstream_bytes


@pytest.fixture(scope="session")
def header() -> Header:
    return Header(
        model="msp-base",
        model_digest=bytes(range(16)),
        tables_digest=bytes(range(100, 108)),
        arithmetic=1,
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
    )


@pytest.fixture(scope="session")
def sample(header: Header) -> Sample:
    updates = [UpdateUnit(1, 0, 0, b"first update"), UpdateUnit(2, 1, 3, b"second"), UpdateUnit(3, 0, 6, b"")]
    frames = [
        make_frame(0, update=1),
        make_frame(1, 1, update=1),
        make_frame(2, 2, level=0x1000, quantizer=0x91, update=1),  # not like its key frame
        make_frame(3, level=0xFFFF, quantizer=0x53, update=2),
        make_frame(4, 1, level=0xFFFF, quantizer=0x53, update=2),
        make_frame(5, 1, level=0xFFFF, quantizer=0x53, update=2),
        make_frame(6, level=0, update=3),
        make_frame(7, 1, level=0, update=3),
        make_frame(8),  # with the base weights again
    ]
    return Sample(header, updates, frames, bitstream_bytes(header, updates, frames))
