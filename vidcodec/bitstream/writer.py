"""Writing a .vdc file, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from vidcodec.bitstream.fields import varint
from vidcodec.bitstream.frames import FrameUnit, UpdateUnit
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.index import Done, IndexEntry, pack_index, symbols_checksum
from vidcodec.bitstream.units import DONE, FRAM, HEAD, INDX, MAGIC, SIDE, UPDT, pack_unit
from vidcodec.errors import OutputError
from vidcodec.files import partial_of, publish


class BitstreamWriter:
    """Writes header, updates and frames as they come; on a clean exit the index and the end marker.

    To a path: a temporary file beside it takes the bytes and replaces the target only when all is written and synced,
    so an existing file stays as it was until then, and an exception leaves nothing behind. A path that is no regular
    file (a device, a pipe) and a file object are written directly, every unit at once and nothing twice, so they need
    not be seekable; a file object is not closed. Memory: a few bytes per frame.

    Frames come as 0, 1, 2 ..., the first one a key frame, predicted ones with a reference in their own chain and its
    update; updates as 1, 2 ..., each before the frames that use it. ValueError where that does not hold; nothing has
    been written then. OutputError where the file cannot be written.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, header: Header) -> None:
        self._target = _resolved(target) if isinstance(target, str | os.PathLike) else None
        self._file = None if isinstance(target, str | os.PathLike) else target
        self._temporary: Path | None = None
        self._head = header.to_bytes()
        self._entries = bytearray()  # of the index
        self._units = 0
        self._symbols = 0  # crc32 of the symbol checksums so far
        self._frames = 0
        self._pieces = 0  # of what goes beside the pictures
        self._key: FrameUnit | None = None  # of the chain that is being written, without its payload
        self._first_frames = [0]  # of every update by its number; 0: the base weights
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    @property
    def frame_count(self) -> int:
        """Frames written so far."""
        return self._frames

    def __enter__(self) -> BitstreamWriter:
        with _output_errors(self._target):
            if self._target is not None:
                self._file = self._open(self._target)
        try:
            self._write(MAGIC + pack_unit(HEAD, self._head))
        except BaseException:
            self._discard()
            raise
        return self

    def write_update(self, update: UpdateUnit) -> None:
        """Adds the next model update; frames from `update.first_frame` on may use it."""
        due = len(self._first_frames)
        if update.number != due:
            raise ValueError(f"update {update.number} where update {due} is due")
        if update.first_frame < self._frames:
            raise ValueError(f"update {due} from frame {update.first_frame} on, where frame {self._frames} is due")
        payload = update.to_bytes()
        self._add(UPDT, payload, IndexEntry(UPDT, len(payload), due, first_frame=update.first_frame))
        self._first_frames.append(update.first_frame)

    def write_frame(self, frame: FrameUnit) -> None:
        """Adds the next frame."""
        due = self._frames
        if frame.index != due:
            raise ValueError(f"frame {frame.index} where frame {due} is due")
        if frame.is_key:
            self._check_update(frame)
        elif self._key is None or due - frame.reference < self._key.index:
            raise ValueError(f"frame {due} refers to frame {due - frame.reference}, outside of its chain")
        elif frame.update != self._key.update:
            raise ValueError(f"frame {due} uses update {frame.update}, its chain update {self._key.update}")
        payload = frame.to_bytes(self._key.settings if self._key else None)
        self._add(FRAM, payload, IndexEntry(FRAM, len(payload), due, key=frame.is_key))
        self._symbols = symbols_checksum([frame.checksum], self._symbols)
        self._frames += 1
        if frame.is_key:
            self._key = replace(frame, payload=b"")

    def write_side(self, piece: bytes) -> None:
        """Adds the next piece of what goes beside the pictures."""
        payload = varint(self._pieces) + piece
        self._add(SIDE, payload, IndexEntry(b"", len(payload)), critical=False)
        self._pieces += 1

    def _check_update(self, frame: FrameUnit) -> None:
        """Whether a key frame's update is at hand."""
        if frame.update >= len(self._first_frames):
            raise ValueError(f"frame {frame.index} uses update {frame.update}, which has not been written")
        if (first := self._first_frames[frame.update]) > frame.index:
            raise ValueError(f"frame {frame.index} uses update {frame.update}, which is for frames from {first} on")

    def _add(self, kind: bytes, payload: bytes, entry: IndexEntry, *, critical: bool = True) -> None:
        self._write(pack_unit(kind, payload, critical=critical))
        self._entries += entry.to_bytes()
        self._units += 1

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    def _finish(self) -> None:
        index = pack_unit(INDX, pack_index(self._head, self._units, bytes(self._entries)), critical=False)
        done = Done(self._frames, self._symbols, len(index))
        self._write(index + pack_unit(DONE, done.to_bytes()))
        with _output_errors(self._target):
            self._close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise ValueError("the writer is not open: use it in a with statement")
        with _output_errors(self._target):
            view = memoryview(data)
            while len(view):  # an unbuffered file may take only a part
                taken: int | None = self._file.write(view)
                view = view[len(view) if taken is None else taken :]
        self._size += len(data)

    def _open(self, target: Path) -> BinaryIO:
        if target.exists() and not target.is_file():
            return target.open("wb", buffering=0)  # who reads it sees every unit when it is written
        self._temporary = partial_of(target)
        return self._temporary.open("xb")

    def _close(self) -> None:
        if self._file is None or self._target is None:
            return
        self._file.close()
        if self._temporary is not None:
            publish(self._temporary, self._target)
            self._temporary = None

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None and self._target is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            if self._temporary is not None:
                self._temporary.unlink()


def bitstream_bytes(header: Header, updates: Iterable[UpdateUnit], frames: Iterable[FrameUnit]) -> bytes:
    """The whole file in memory, updates in order, each right before the first frame it applies to or earlier."""
    buffer = io.BytesIO()
    pending = sorted(updates, key=lambda update: update.number)
    with BitstreamWriter(buffer, header) as writer:
        for frame in frames:
            while any(update.first_frame <= frame.index for update in pending):
                writer.write_update(pending.pop(0))
            writer.write_frame(frame)
        for update in pending:
            writer.write_update(update)
    return buffer.getvalue()


def _resolved(target: str | os.PathLike[str]) -> Path:
    """The file that a link leads to; the name as it is of what is no regular file (a pipe's may lead nowhere)."""
    path = Path(target)
    return path if path.exists() and not path.is_file() else Path(os.path.realpath(path))


@contextlib.contextmanager
def _output_errors(target: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target or 'the output'}: {error.strerror or error}") from error
