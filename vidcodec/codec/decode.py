"""A .vdc file to frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.device import pick_device
from vidcodec.entropy.exact import ARITHMETIC_VERSION
from vidcodec.errors import BitstreamError, CorruptBitstreamError, UnsupportedVersionError
from vidcodec.families import load_for_stream
from vidcodec.families.family import Family, PictureCoder, check_symbols
from vidcodec.files import Closing
from vidcodec.latents.decisions import Decisions
from vidcodec.latents.quantizer import Quantizer
from vidcodec.latents.symbols import SymbolLog
from vidcodec.rate import RateLevel
from vidcodec.video import Frame, VideoFormat, open_writer

CODERS = 4  # that are kept: of different updates, levels and quantisers
KEPT = 2  # decoded frames whose latents are kept for those that refer to them


class VideoDecoder(Closing):
    """Random access to the frames of a .vdc file.

    Raises the errors of `BitstreamReader` and of loading the model. `problems` gathers a
    line for everything that is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, weights: Path | None = None, device: str = "auto") -> None:
        self.reader = BitstreamReader(path)
        try:
            h = self.header = self.reader.header
            self.base: Family = load_for_stream(h.model, h.model_digest, weights, pick_device(device))
            if (h.arithmetic, h.tables_digest) != (ARITHMETIC_VERSION, self.base.tables_digest):
                raise UnsupportedVersionError(
                    f"the file needs arithmetic version {h.arithmetic} and tables {h.tables_digest.hex()}; this "
                    f"vidcodec has {ARITHMETIC_VERSION} and {self.base.tables_digest.hex()}; use the version that "
                    "made the file"
                )
            self.format: VideoFormat = self.base.format_of(h)
        except BaseException:
            self.reader.close()
            raise
        self.problems: list[str] = list(self.reader.problems)
        self._updated = lru_cache(maxsize=2)(self._family_of_update)
        self._left: dict[int, Any] = {}  # of the frames decoded last, by index
        self._coder = lru_cache(maxsize=CODERS)(self._coder_of)

    def close(self) -> None:
        """Let go of the file."""
        self.reader.close()

    @property
    def lossless(self) -> bool:
        """Whether the frames are exactly what went in."""
        return self.base.lossless

    def __len__(self) -> int:
        """Frames the file was written with, intact or not, as far as it tells."""
        return self.reader.frame_count

    def sound(self, folder: Path) -> Path | None:
        """Audio and subtitles of the source, as a Matroska file in a folder; None where the file carries none."""
        path = None
        for piece in self.reader.side():
            path = folder / "sound.mka"
            with path.open("ab") as file:
                file.write(piece)
        return path

    def _family_of_update(self, number: int) -> Family:
        """The base with updates on top, from the base's own to this one; 0: the base as it is."""
        family = self.base
        for payload in self.reader.update_chain(number):
            family = family.updated(payload)
        return family

    def _coder_of(self, update: int, level: int, quantizer: int) -> PictureCoder:
        decisions = Decisions(Quantizer.from_code(quantizer))
        family = self._updated(update)
        return family.picture_coder(RateLevel(level), self.format, extra=self.header.extra, decisions=decisions)

    def frame(self, index: int) -> tuple[Frame, SymbolLog]:
        """Decode one frame and tell what its symbols took; raises IndexError or CorruptBitstreamError.

        A predicted frame needs those it refers to, back to its chain's key frame, but for the last ones decoded.
        """
        path = self.reader.reference_path(index)
        known = next((k for k in reversed(range(len(path) - 1)) if path[k] in self._left), -1)
        left = self._left[path[known]] if known >= 0 else None
        for i in path[known + 1 :]:
            unit = self.reader.frame(i)
            coder = self._coder(unit.update, unit.level, unit.quantizer)
            with _naming(i):
                coded = coder.reconstruct(unit.payload, unit.pts, left)
            check_symbols(coded.log, unit.checksum, f"frame {i}")
            self._left.pop(i, None)
            left = self._left[i] = coded.left
            while len(self._left) > KEPT:
                del self._left[next(iter(self._left))]
        return coded.show(), coded.log

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Frame, SymbolLog]]:
        """Every intact frame of a range; damaged ones add a line to `problems` and are left out."""
        for index in range(start, len(self) if stop is None else min(stop, len(self))):
            try:
                frame, log = self.frame(index)
            except CorruptBitstreamError as e:
                if str(e) not in self.problems:
                    self.problems.append(str(e))
                continue
            yield index, frame, log


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """Damage is of this frame."""
    try:
        yield
    except CorruptBitstreamError as error:
        raise CorruptBitstreamError(f"frame {index}: {error}") from error


@dataclass
class DecodeResult:
    """What was decoded: counts, and a line for everything damaged."""

    frames: int
    expected: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # from the writer


def decode_video(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    start: int = 0,
    stop: int | None = None,
    overwrite: bool = False,
    weights: Path | None = None,
    device: str = "auto",
    audio: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> DecodeResult:
    """Decode frames [start, stop) to a .y4m, .mkv (FFV1), .mp4 file or a folder of PNG.

    audio: put what audio and subtitles the file carries into a .mkv with all frames.

    Raises BitstreamError when not one frame of the range can be decoded; nothing is
    written then.
    """
    with VideoDecoder(source, weights=weights, device=device) as decoder:
        asked = f"{start}:{'' if stop is None else stop}"
        stop = len(decoder) if stop is None else min(stop, len(decoder))
        if start >= stop and len(decoder):
            raise BitstreamError(f"no frames {asked} in {Path(source).name}: it has frames 0:{len(decoder)}")
        frames = decoder.frames(start, stop)
        first = next(frames, None)
        if first is None:
            reason = "; ".join(decoder.problems[:3]) or "it holds no frames"
            raise CorruptBitstreamError(f"no frame of {Path(source).name} can be decoded: {reason}")
        with (
            TemporaryDirectory(prefix="vidcodec-") as folder,
            open_writer(output, decoder.format, overwrite=overwrite) as writer,
        ):
            if audio and (sound := decoder.sound(Path(folder))):
                if stop - start == len(decoder):
                    writer.add_sound(sound)
                else:
                    writer.notes.append("audio and subtitles are left out of a part of the frames")
            for index, frame, _ in chain([first], frames):
                writer.write(frame)
                if progress:
                    progress(index - start + 1, stop - start)
        return DecodeResult(writer.frames_written, stop - start, decoder.problems, list(writer.notes))
