"""The frames of a .vdc file as pictures that a page shows, each decoded once, beside those of its source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

import cv2
import numpy as np

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.decode import VideoDecoder
from vidcodec.errors import CorruptBitstreamError, InputError
from vidcodec.files import Closing
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader, yuv_to_rgb


class Film(Closing):
    """Pictures as PNG files in `folder`, made when they are asked for; safe to be used by several threads.

    path: of the file that `decoder` reads. source: the video that it was made from.

    Raises the errors of `VideoReader`, and InputError for a source with pictures of another size.
    """

    def __init__(self, path: Path, decoder: VideoDecoder, folder: Path, source: Path | None = None) -> None:
        self.path, self.decoder, self.folder, self.source = path, decoder, folder, source
        self._lock = RLock()
        self._bits: dict[int, dict[str, float]] = {}
        self._originals: Iterator[None] = iter(())
        self._reader = VideoReader(source, Sampling(fps=None)) if source else None
        if self._reader:
            own, other = decoder.format, self._reader.format
            if (own.width, own.height) != (other.width, other.height):
                self.close()
                raise InputError(
                    f"{source} has pictures of {other.width}x{other.height}, the file has {own.width}x{own.height}: it "
                    "was not made from this source"
                )
            self._originals = self._read(self._reader)

    def facts(self) -> dict[str, Any]:
        """What is known without decoding: of the file, and of each frame when it is shown, its bytes and its kind."""
        reader, f = self.decoder.reader, self.decoder.format
        frames = [_facts(reader, index) for index in range(len(self.decoder))]
        start = min((frame["seconds"] for frame in frames if frame["seconds"] is not None), default=0.0)
        for frame in frames:
            frame["seconds"] = None if frame["seconds"] is None else frame["seconds"] - start
        width, height = _shown_size(f)
        return {
            "name": self.path.name,
            "model": self.decoder.header.model,
            "width": width,
            "height": height,
            "source": self.source and self.source.name,
            "frames": frames,
            "bytes": self.path.stat().st_size,
            "problems": self.decoder.problems,
        }

    def picture(self, index: int) -> Path:
        """A decoded frame. Raises CorruptBitstreamError for one that cannot be decoded, IndexError for none."""
        path = self.folder / f"{index}.png"
        with self._lock:
            if not path.exists():
                frame, log = self.decoder.frame(index)
                self._bits[index] = {"side": round(log.z_bits), "latents": round(log.y_bits)}
                _write(path, frame, self.decoder.format)
        return path

    def bits(self, index: int) -> dict[str, float]:
        """Where the bits of a frame that was decoded went."""
        return self._bits[index]

    def original(self, index: int) -> Path | None:
        """The frame of the source at the same time, if it has one."""
        path = self.folder / f"source-{index}.png"
        with self._lock:
            while not path.exists() and next(self._originals, self) is not self:
                continue
        return path if path.exists() else None

    def close(self) -> None:
        """Let go of the source."""
        if self._reader:
            self._reader.close()

    def _read(self, reader: VideoReader) -> Iterator[None]:
        """Keep one frame of the source after the other that the file has, too."""
        clock = self.decoder.format.time_base
        times = {self.decoder.reader.frame(i).pts * clock: i for i in range(len(self.decoder)) if self._is_there(i)}
        for frame in reader.frames():
            index = times.get(frame.pts * reader.format.time_base)
            if index is not None:
                _write(self.folder / f"source-{index}.png", frame, reader.format)
                yield

    def _is_there(self, index: int) -> bool:
        return _facts(self.decoder.reader, index)["seconds"] is not None


def _facts(reader: BitstreamReader, index: int) -> dict[str, Any]:
    try:
        unit = reader.frame(index)
    except CorruptBitstreamError as error:
        return {"seconds": None, "bytes": 0, "kind": "damaged", "problem": str(error)}
    kind = "key" if unit.is_key else "predicted"
    return {"seconds": float(unit.pts * reader.header.time_base), "bytes": len(unit.payload), "kind": kind}


def _shown_size(f: VideoFormat) -> tuple[int, int]:
    """Width and height as they are shown: square samples, turned."""
    width, height = round(f.width * f.sample_aspect), f.height
    return (height, width) if f.rotation % 180 else (width, height)


def _write(path: Path, frame: Frame, f: VideoFormat) -> None:
    """As PNG, turned as it is shown, complete or not at all."""
    rgb = np.rot90(yuv_to_rgb(frame, f), -f.rotation // 90)
    part = path.with_suffix(".part.png")
    cv2.imwrite(str(part), np.ascontiguousarray(rgb[..., ::-1]))
    part.replace(path)
