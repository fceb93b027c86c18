"""HEAD and units into a .vdc file, and what they take there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vidcodec.bitstream import BitstreamWriter, FrameUnit, Header, UpdateUnit
from vidcodec.bitstream.index import Index, IndexEntry
from vidcodec.bitstream.units import FRAM, UNIT_OVERHEAD, UPDT
from vidcodec.entropy.exact import ARITHMETIC_VERSION
from vidcodec.families.family import Family
from vidcodec.video import VideoFormat

PIECE = 1 << 20  # bytes of audio and subtitles in a unit, at most


def header_of(family: Family, video: VideoFormat, extra: bytes) -> Header:
    """HEAD of a stream of a family's pictures."""
    c = video.colour
    return Header(
        model=family.name,
        model_digest=family.digest,
        tables_digest=family.tables_digest,
        arithmetic=ARITHMETIC_VERSION,
        width=video.width,
        height=video.height,
        bit_depth=video.bit_depth,
        matrix=c.matrix,
        primaries=c.primaries,
        transfer=c.transfer,
        full_range=c.full_range,
        chroma_location=c.chroma_location,
        sample_aspect=video.sample_aspect,
        rotation=video.rotation,
        time_base=video.time_base,
        frame_rate=video.frame_rate,
        extra=extra,
    )


def write_file(
    output: Path,
    family: Family,
    video: VideoFormat,
    units: Iterable[UpdateUnit | FrameUnit],
    extra: bytes = b"",
    sound: Path | None = None,
) -> int:
    """HEAD, UPDT and FRAM in their order, the file `sound` in pieces, INDX, DONE, complete or not at all.

    Returns the size in bytes.
    """
    with BitstreamWriter(output, header_of(family, video, extra)) as writer:
        for unit in units:
            if isinstance(unit, UpdateUnit):
                writer.write_update(unit)
            else:
                writer.write_frame(unit)
        if sound:
            with sound.open("rb") as file:
                while piece := file.read(PIECE):
                    writer.write_side(piece)
    return output.stat().st_size if output.is_file() else 0


def units_size(update: bytes, frames: Sequence[int]) -> int:
    """Bytes of UPDT where there is an update, of FRAM..., and of their entries in INDX; frames: sizes of payloads."""
    entries = [IndexEntry(UPDT, len(UpdateUnit(1, 0, 0, update).to_bytes()), 1)] if update else []
    entries += [IndexEntry(FRAM, size, i, key=True) for i, size in enumerate(frames)]
    return sum(UNIT_OVERHEAD + entry.length for entry in entries) + len(Index(b"", tuple(entries)).to_bytes())
