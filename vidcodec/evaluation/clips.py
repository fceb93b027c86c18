"""From words on the command line to clips: the sampled frames every codec gets, written once, without loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from vidcodec.errors import InputError
from vidcodec.evaluation.codec import Source, shown
from vidcodec.evaluation.datasets import Sequence, load
from vidcodec.evaluation.results import ClipInfo
from vidcodec.files import write_whole
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader, open_writer

SOURCES = "sources"


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a clip: `fps` frames a second (None: every one), the first `limit` of them (None: all)."""

    fps: Fraction | None = Fraction(2)
    limit: int | None = None

    def to_dict(self) -> dict[str, str | int | None]:
        """As results have it."""
        return {"fps": "source" if self.fps is None else str(self.fps), "frames": self.limit}


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
    """The clip's sampled frames at 8 bits in `folder`/sources, written now or before.

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


def source_of(clip: ClipInfo, folder: Path) -> Source:
    """The clip's frames, for codecs."""
    return Source.open(folder / clip.source, clip.frames)


def _write(sequence: Sequence, choice: FrameChoice, path: Path) -> ClipInfo:
    digest, notes = hashlib.sha256(), []
    with VideoReader(sequence.path, Sampling(fps=choice.fps)) as reader:
        format = replace(reader.format, bit_depth=8)
        if reader.format.bit_depth != 8:
            notes.append(f"{reader.format.bit_depth} bits rounded to 8 for all codecs")
        digest.update(f"{format.width}x{format.height} {format.colour}".encode())
        with open_writer(path, format) as writer:
            for frame in _eight_bits(islice(reader.frames(), choice.limit), format):
                for plane in (frame.y, frame.uv):
                    digest.update(np.ascontiguousarray(plane).data)
                writer.write(frame)
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
        notes=notes,
    )


def _eight_bits(frames: Iterable[Frame], format: VideoFormat) -> Iterator[Frame]:
    return (shown(frame, format) for frame in frames)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the name") from error
