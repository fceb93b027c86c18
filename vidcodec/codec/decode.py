"""A .vdc file to frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vidcodec.adapt.decisions import Decisions
from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.files import tables_digest, video_format
from vidcodec.codec.lossless import LosslessPictureCodec
from vidcodec.codec.models import BaseModel, check_arithmetic, load_for_stream, pick_device
from vidcodec.codec.pictures import PictureCodec, SymbolLog, check_symbols
from vidcodec.codec.planes import padded_size, planes_to_frame
from vidcodec.entropy.exact import ARITHMETIC_VERSION
from vidcodec.errors import BitstreamError, CorruptBitstreamError
from vidcodec.models.lossless import Lossless
from vidcodec.quantize.quantizer import Quantizer
from vidcodec.video import Frame, open_writer


class VideoDecoder:
    """Random access to the frames of a .vdc file.

    Raises the errors of `BitstreamReader` and of loading the model. `problems` gathers a
    line for everything that is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, weights: Path | None = None, device: str = "auto") -> None:
        self.reader = BitstreamReader(path)
        try:
            h = self.header = self.reader.header
            check_arithmetic(h.arithmetic, h.bank_digest, ARITHMETIC_VERSION, tables_digest(h.model))
            self.format = video_format(h)
            self.decisions = Decisions(Quantizer.from_code(h.quantizer))
            self.base: BaseModel = load_for_stream(h.model, h.model_digest, weights, pick_device(device))
        except BaseException:
            self.reader.close()
            raise
        self.problems: list[str] = list(self.reader.problems)
        self._codecs: dict[int, PictureCodec | LosslessPictureCodec] = {}

    def __enter__(self) -> VideoDecoder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.reader.close()

    @property
    def lossless(self) -> bool:
        """Whether the frames are exactly what went in."""
        return isinstance(self.base.network, Lossless)

    def __len__(self) -> int:
        """Frames the file was written with, intact or not."""
        return self.header.frame_count

    def codec_for(self, index: int) -> PictureCodec | LosslessPictureCodec:
        """The picture codec of frame `index`: base model plus the update that applies there."""
        update = self.reader.update_for(index)
        key = update.first_frame if update else -1
        if key not in self._codecs:
            model = self.base.updated(update.payload) if update else self.base
            h = self.header
            if isinstance(model.network, Lossless):
                self._codecs = {key: LosslessPictureCodec(model.network, self.format)}
            else:
                self._codecs = {key: model.picture_codec(h.level, self.format, h.extra, self.decisions)}
        return self._codecs[key]

    def frame(self, index: int) -> tuple[Frame, SymbolLog]:
        """Decode one frame; raises IndexError or CorruptBitstreamError."""
        unit = self.reader.frame(index)
        codec = self.codec_for(index)
        if isinstance(codec, LosslessPictureCodec):
            return codec.decode(unit), SymbolLog(unit.checksum, y_bits=8.0 * len(unit.y))
        size = padded_size(self.format.height, self.format.width, codec.multiple)
        planes, log = codec.decode(unit.z + unit.y, *size)
        check_symbols(log, unit.checksum, f"frame {index}")
        return planes_to_frame(planes, self.format, unit.pts), log

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
    progress: Callable[[int, int], None] | None = None,
) -> DecodeResult:
    """Decode frames [start, stop) to a .y4m, .mkv (FFV1), .mp4 file or a folder of PNG.

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
        done = 0
        with open_writer(output, decoder.format, overwrite=overwrite) as writer:
            index, frame, _ = first
            while True:
                writer.write(frame)
                done += 1
                if progress:
                    progress(index - start + 1, stop - start)
                if (item := next(frames, None)) is None:
                    break
                index, frame, _ = item
        return DecodeResult(done, stop - start, decoder.problems, list(writer.notes))
