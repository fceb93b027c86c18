"""The .vdc file: units, header, reader and writer. Knows bytes and checksums, nothing of models."""

from vidcodec.bitstream.frames import FrameUnit, Settings, UpdateUnit
from vidcodec.bitstream.header import FORMAT_VERSION, Header
from vidcodec.bitstream.reader import BitstreamReader
from vidcodec.bitstream.units import CRITICAL, MAGIC, pack_unit
from vidcodec.bitstream.writer import BitstreamWriter, bitstream_bytes

__all__ = [
    "CRITICAL",
    "FORMAT_VERSION",
    "MAGIC",
    "BitstreamReader",
    "BitstreamWriter",
    "FrameUnit",
    "Header",
    "Settings",
    "UpdateUnit",
    "bitstream_bytes",
    "pack_unit",
]
