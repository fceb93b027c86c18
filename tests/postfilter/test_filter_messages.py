"""Messages: bytes and back, in access units of H.264 and HEVC, whatever they hold."""

from __future__ import annotations

import random
import zlib
from contextlib import suppress

import pytest

from vidcodec.errors import BitstreamError, CorruptBitstreamError, UnsupportedVersionError
from vidcodec.postfilter.carriage import Framing, insert, messages, sei_unit, without_messages
from vidcodec.postfilter.message import VERSION, FilterMessage

MESSAGE = FilterMessage("base", b"\x00\x00\x01\x02", 0b101_111_001, (27.25, 30.0, 31.5), 70_000, b"\x00\x00\x00\x03up")
SLICES = {"h264": b"\x65slice\x00\x01\x02", "hevc": b"\x26\x01slice\x02", "vvc": b"\x00\x39slice\x02"}
PARAMETERS = {"h264": b"\x67sps", "hevc": b"\x42\x01sps", "vvc": b"\x00\x79sps"}


def access_unit(framing: Framing) -> bytes:
    """Parameter sets, another one's SEI, two slices."""
    header = {"h264": b"\x06", "hevc": b"\x4e\x01", "vvc": b"\x00\xb9"}[framing.codec]
    foreign = header + b"\x05\x11" + b"x" * 17 + b"\x80"
    units = (PARAMETERS[framing.codec], foreign, SLICES[framing.codec], SLICES[framing.codec])
    return b"".join(framing.framed(unit) for unit in units)


def test_message_comes_back() -> None:
    assert FilterMessage.from_bytes(MESSAGE.to_bytes()) == MESSAGE


@pytest.mark.parametrize("at", range(0, len(MESSAGE.to_bytes()), 3))
def test_any_damage_is_noticed(at: int) -> None:
    data = bytearray(MESSAGE.to_bytes())
    data[at] ^= 0x10
    with pytest.raises(CorruptBitstreamError):
        FilterMessage.from_bytes(bytes(data))
    with pytest.raises(CorruptBitstreamError):
        FilterMessage.from_bytes(MESSAGE.to_bytes()[:at])


def test_newer_version_is_told() -> None:
    body = bytes([VERSION + 1]) + MESSAGE.to_bytes()[1:-4]
    with pytest.raises(UnsupportedVersionError, match="newer"):
        FilterMessage.from_bytes(body + zlib.crc32(body).to_bytes(4, "little"))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vvc"])
@pytest.mark.parametrize("length", [0, 4, 2])
@pytest.mark.parametrize("data", [b"", b"\x00" * 700, b"\x00\x00\x01\x00\x00\x03" * 50, bytes(range(256)) * 4])
def test_access_unit_carries_any_bytes(codec: str, length: int, data: bytes) -> None:
    framing = Framing(codec, length)
    plain = access_unit(framing)
    carrying = insert(plain, framing, data)
    assert messages(carrying, framing) == [data]
    assert without_messages(carrying, framing) == plain
    assert carrying.index(SLICES[codec]) > carrying.index(PARAMETERS[codec])


def test_no_start_code_within_a_unit() -> None:
    noise = random.Random(3)
    for _ in range(300):
        data = bytes(noise.choice((0, 0, 0, 1, 2, 3, 4)) for _ in range(noise.randrange(40)))
        unit = sei_unit("h264", data)
        assert not any(bytes((0, 0, k)) in unit for k in range(3)), unit


def test_foreign_and_broken_units_are_left_alone() -> None:
    noise = random.Random(5)
    for codec in ("h264", "hevc", "vvc"):
        for length in (0, 4):
            framing = Framing(codec, length)
            carrying = insert(access_unit(framing), framing, MESSAGE.to_bytes())
            assert messages(access_unit(framing), framing) == []
            for _ in range(200):  # whatever comes out, nothing fails
                damaged = bytearray(carrying[: noise.randrange(len(carrying))])
                for _ in range(3):
                    if damaged:
                        damaged[noise.randrange(len(damaged))] = noise.randrange(256)
                for data in messages(bytes(damaged), framing):
                    with suppress(BitstreamError):
                        FilterMessage.from_bytes(data)
