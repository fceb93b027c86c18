"""Files that are complete or not there: written beside their target, brought to the disk, renamed. Values as JSON."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self


class Closing(ABC):
    """Closed at the end of a `with` statement."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def partial_of(path: Path) -> Path:
    """A new name beside `path` to write it under: hidden, and short whatever the length of its own."""
    return path.with_name(f".vidcodec-{secrets.token_hex(8)}.part")


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """Bring a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(partial: Path, path: Path) -> None:
    """Bring a complete file to the disk and give it its name, in place of what had it. Raises OSError."""
    synchronise(partial)
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # makes the rename last; not all systems can sync a directory
        synchronise(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write a file under, which becomes `path` when the block ends well.

    After an error what was at `path` stays, and nothing is left beside it. Raises OSError.
    """
    partial = partial_of(path)
    try:
        yield partial
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a small file, complete or not there; text as UTF-8. Raises OSError."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def locked(path: Path, otherwise: Exception) -> Iterator[None]:
    """Keeps other processes out of the block by a lock on a file; raises `otherwise` where one is in."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise otherwise from error
        yield


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite become null, fractions and paths text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item"):  # a number of numpy's or torch's
        return plain(value.item())
    return str(value)
