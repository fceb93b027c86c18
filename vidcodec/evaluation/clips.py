"""From words on the command line to clips: the sampled frames every codec gets, written once, without loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.errors import InputError
from vidcodec.evaluation.codec import Source, shown
from vidcodec.evaluation.datasets import Sequence, load
from vidcodec.evaluation.results import ClipInfo
from vidcodec.files import file_digest, write_whole
from vidcodec.video import Sampling, VideoFormat, VideoReader, open_writer

SOURCES = "sources"


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a clip: `fps` frames a second (None: every one), the first `limit` of them (None: all).

    pixels: fewer of large ones, so that all together have no more luma samples (one frame at least). exact: their
    depth and R'G'B' are kept; else they become 8-bit 4:2:0.
    """

    fps: Fraction | None = Fraction(2)
    limit: int | None = None
    pixels: int | None = None
    exact: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As results have it."""
        more = {k: v for k in ("pixels", "exact") if (v := getattr(self, k))}
        return {"fps": "source" if self.fps is None else str(self.fps), "frames": self.limit, **more}

    def most(self, format: VideoFormat) -> int | None:
        """Frames of this format that are taken at most; None: all."""
        fit = None if self.pixels is None else max(1, self.pixels // (format.width * format.height))
        return min((n for n in (self.limit, fit) if n is not None), default=None)


def find_clips(words: Iterable[str], cache: Path | None = None) -> list[Sequence]:
    """Every file, every file in a folder and every sequence of a set, under names of their own.

    cache: of fetched sets, see `datasets.default_cache`.

    Raises InputError for what does not exist or was not fetched.
    """
    found: dict[str, Sequence] = {}
    for sequence in (s for word in words for s in load(word, cache)):
        if any(sequence.path == other.path for other in found.values()):
            continue
        name, number = sequence.name, 1
        while name in found:
            number += 1
            name = f"{sequence.name}-{number}"
        found[name] = replace(sequence, name=name)
    if not found:
        raise InputError("no clip given: name files, folders or sets of sequences")
    return list(found.values())


def prepare_clip(sequence: Sequence, choice: FrameChoice, folder: Path) -> ClipInfo:
    """The clip's sampled frames in `folder`/sources, written now or before.

    Raises InputError and its kin for a clip that cannot be read, OutputError when the frames cannot be written.
    """
    asked = json.dumps([_file_digest(sequence.path), choice.to_dict()])
    name = f"{sequence.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    sources = folder / SOURCES
    sources.mkdir(parents=True, exist_ok=True)
    path, note = sources / f"{name}.mkv", sources / f"{name}.json"
    if path.is_file() and note.is_file():
        return ClipInfo(**{**json.loads(note.read_text()), "name": sequence.name})
    info = _write(sequence, choice, path)
    write_whole(note, json.dumps(asdict(info), indent=1) + "\n")
    return info


def source_of(clip: ClipInfo, folder: Path, *, exact: bool = False) -> Source:
    """The clip's frames, for codecs."""
    return Source.open(folder / clip.source, clip.frames, exact=exact)


def _write(sequence: Sequence, choice: FrameChoice, path: Path) -> ClipInfo:
    digest, notes = hashlib.sha256(), []
    with VideoReader(sequence.path, Sampling(fps=choice.fps), exact=choice.exact) as reader:
        format = reader.format if choice.exact else replace(reader.format, bit_depth=8)
        if reader.format.bit_depth != format.bit_depth:
            notes.append(f"{reader.format.bit_depth} bits rounded to 8 for all codecs")
        kind = f" {format.bit_depth} bits{' RGB' * format.rgb}" if choice.exact else ""
        digest.update(f"{format.width}x{format.height} {format.colour}{kind}".encode())
        with open_writer(path, format) as writer:
            for frame in islice(reader.frames(), choice.most(format)):
                taken = shown(frame, format)
                for plane in (taken.y, taken.uv):
                    digest.update(np.ascontiguousarray(plane).data)
                writer.write(taken)
        notes = [*reader.notes, *notes]
    rate = format.frame_rate
    return ClipInfo(
        name=sequence.name,
        digest=digest.hexdigest()[:32],
        source=f"{SOURCES}/{path.name}",
        width=format.width,
        height=format.height,
        frames=writer.frames_written,
        fps=None if rate is None else float(rate),
        bit_depth=format.bit_depth,
        rgb=format.rgb,
        notes=notes,
    )


def _file_digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the name") from error
