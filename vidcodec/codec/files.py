"""What every way of coding does with files: frames onto disk, HEAD and units into a .vdc file and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidcodec.bitstream import BitstreamWriter, FrameUnit, Header, UpdateUnit
from vidcodec.bitstream.index import Index, IndexEntry
from vidcodec.bitstream.units import FRAM, UNIT_OVERHEAD, UPDT
from vidcodec.codec.models import BaseModel
from vidcodec.entropy.bank import bank
from vidcodec.entropy.exact import ARITHMETIC_VERSION
from vidcodec.entropy.logistics import logistic_tables
from vidcodec.errors import NoVideoError, UnsupportedVersionError
from vidcodec.models.lossless import order_digest
from vidcodec.models.lossless_checkpoint import NAME as LOSSLESS
from vidcodec.video import ColourTags, FrameSpool, Sampling, VideoFormat, VideoReader

# (stage, share done, figures to show)
Report = Callable[[str, float, dict[str, Any]], None]

YUV, RGB = b"\x00", b"\x01"  # kinds of planes in a lossless file's `extra`


def spool(source: Path, sampling: Sampling, report: Report, *, exact: bool = False) -> tuple[FrameSpool, list[str]]:
    """The frames of a sampling, on disk, and the reader's notes; exact: as in `VideoReader`.

    Raises InputError and its kin, NoVideoError where there are no frames.
    """
    with VideoReader(source, sampling, exact=exact) as reader:
        frames = FrameSpool(reader.format)
        try:
            for frame in reader.frames():
                frames.append(frame)
                n = len(frames)
                report("read", min(1.0, n / (reader.estimated_frames or n)), {"frames": n})
        except BaseException:
            frames.close()
            raise
        notes = list(reader.notes)
    if not len(frames):
        frames.close()
        raise NoVideoError(f"{source} has no frame in the range asked for")
    return frames, notes


def tables_digest(model: str) -> bytes:
    """The tables that files of a model need: the bank; of the lossless mode its own and the passes' order besides."""
    if model != LOSSLESS:
        return bank().digest
    return hashlib.sha256(bank().digest + logistic_tables().digest + order_digest()).digest()[:8]


def video_format(h: Header) -> VideoFormat:
    """What the header says of the pictures; raises UnsupportedVersionError for planes of an unknown kind."""
    if h.model == LOSSLESS and h.extra not in (YUV, RGB):
        raise UnsupportedVersionError("the file holds planes of a kind that this vidcodec does not know: update it")
    colour = ColourTags(h.matrix, h.primaries, h.transfer, h.full_range, h.chroma_location)
    aspect = h.sample_aspect or type(h.sample_aspect)(1)
    rgb = h.model == LOSSLESS and h.extra == RGB
    return VideoFormat(h.width, h.height, h.bit_depth, colour, aspect, h.rotation, h.time_base, h.frame_rate, rgb)


def write_file(
    output: Path,
    base: BaseModel,
    video: VideoFormat,
    update: bytes,
    frames: Sequence[FrameUnit],
    *,
    level: int = 0,
    quantizer: int = 0,
    extra: bytes = b"",
) -> int:
    """HEAD, UPDT where there is an update, FRAM..., INDX, DONE, complete or not at all. Returns the size in bytes."""
    updates = [UpdateUnit(0, update)] if update else []
    c = video.colour
    header = Header(
        model=base.name,
        model_digest=base.digest,
        bank_digest=tables_digest(base.name),
        arithmetic=ARITHMETIC_VERSION,
        level=level,
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
        frame_count=len(frames),
        update_count=len(updates),
        extra=extra,
        quantizer=quantizer,
    )
    with BitstreamWriter(output, header) as writer:
        for unit in updates:
            writer.write_update(unit)
        for frame in frames:
            writer.write_frame(frame)
    return output.stat().st_size if output.is_file() else 0


def units_size(update: bytes, frames: Sequence[int]) -> int:
    """Bytes of UPDT where there is an update, of FRAM..., and of their entries in INDX; frames: sizes of payloads."""
    entries = [IndexEntry(UPDT, len(UpdateUnit(0, update).to_bytes()), 0)] if update else []
    entries += [IndexEntry(FRAM, size, i) for i, size in enumerate(frames)]
    return sum(UNIT_OVERHEAD + entry.length for entry in entries) + len(Index(b"", tuple(entries)).to_bytes())
