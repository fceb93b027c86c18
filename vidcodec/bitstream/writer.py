"""Writing a .vdc file, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from vidcodec.bitstream.frames import FrameUnit, UpdateUnit
from vidcodec.bitstream.header import Header
from vidcodec.bitstream.index import Done, Index, IndexEntry, symbols_checksum
from vidcodec.bitstream.units import DONE, FRAM, HEAD, INDX, MAGIC, UPDT, pack_unit
from vidcodec.errors import OutputError
from vidcodec.files import partial_of, publish


class BitstreamWriter:
    """Writes header, updates and frames; on a clean exit the index and the end marker.

    To a path: a temporary file beside it takes the bytes and replaces the target only when all is written and synced,
    so an existing file stays as it was until then, and an exception leaves nothing behind. A path that is no regular
    file (a device, a pipe) and a file object are written directly; a file object is not closed.

    Frames come as 0, 1, 2 ...; an update before the first frame it applies to, in rising order. ValueError where that
    does not hold, or where the numbers of frames and updates are not those of the header. OutputError where the
    file cannot be written.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, header: Header) -> None:
        self._target = Path(os.path.realpath(target)) if isinstance(target, str | os.PathLike) else None
        self._file = None if isinstance(target, str | os.PathLike) else target
        self._temporary: Path | None = None
        self._header = header
        self._head = header.to_bytes()
        self._entries: list[IndexEntry] = []
        self._checksums: list[int] = []
        self._last_update = -1
        self._update_count = 0
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

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
        """Adds a model update that applies from `update.first_frame` on."""
        first, frames = update.first_frame, len(self._checksums)
        if first < frames or first <= self._last_update or first >= self._header.frame_count:
            raise ValueError(
                f"an update from frame {first} cannot follow {frames} frames and an update from frame "
                f"{self._last_update}, in a video of {self._header.frame_count} frames"
            )
        payload = update.to_bytes()
        self._write(pack_unit(UPDT, payload))
        self._entries.append(IndexEntry(UPDT, len(payload), first))
        self._last_update = first
        self._update_count += 1

    def write_frame(self, frame: FrameUnit) -> None:
        """Adds the next frame."""
        expected = len(self._checksums)
        if frame.index != expected or expected >= self._header.frame_count:
            raise ValueError(f"frame {frame.index} where frame {expected} of {self._header.frame_count} is due")
        payload = frame.to_bytes()
        self._write(pack_unit(FRAM, payload))
        self._entries.append(IndexEntry(FRAM, len(payload), frame.index))
        self._checksums.append(frame.checksum)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    def _finish(self) -> None:
        for what, written, promised in (
            ("frames", len(self._checksums), self._header.frame_count),
            ("updates", self._update_count, self._header.update_count),
        ):
            if written != promised:
                raise ValueError(f"{written} {what} were written, the header says {promised}")
        index = pack_unit(INDX, Index(self._head, tuple(self._entries)).to_bytes(), critical=False)
        done = Done(len(self._checksums), symbols_checksum(self._checksums), len(index))
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
            return target.open("wb")
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
    """The whole file in memory, each update placed right before the first frame it applies to."""
    buffer = io.BytesIO()
    pending = sorted(updates, key=lambda update: update.first_frame)
    with BitstreamWriter(buffer, header) as writer:
        for frame in frames:
            while pending and pending[0].first_frame <= frame.index:
                writer.write_update(pending.pop(0))
            writer.write_frame(frame)
        for update in pending:
            writer.write_update(update)
    return buffer.getvalue()


@contextlib.contextmanager
def _output_errors(target: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target or 'the output'}: {error.strerror or error}") from error
