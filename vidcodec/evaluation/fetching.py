"""Downloads of test sequences over HTTP: resumed where they stopped, checked, complete or not there.

FILE.part            what has come so far
FILE.part.json       the address it comes from, its size, and the server's name for that version of it (RFC 9110:
                     ETag or Last-Modified): a later run goes on only if the server still has the same
FILE, FILE.sha256    after everything was checked
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from vidcodec.errors import FetchError, InputError, OutputError, UnreachableError
from vidcodec.evaluation.datasets import Entry
from vidcodec.files import file_digest, write_whole

Progress = Callable[[int, "int | None"], None]

PART, FACTS, RECORD = ".part", ".part.json", ".sha256"  # behind a file's name

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another attempt may change
_LONGEST_PAUSE = 60.0
_PIECE = 1 << 18
_ROOM_TO_LEAVE = 16 << 20


@dataclass(frozen=True)
class FetchOptions:
    """How to download.

    mirror: an address below which the files lie, instead of the manifest's. force: download what is there already.
    timeout: seconds without a byte after which a connection counts as lost. attempts: how many in a row may bring
    nothing new. largest: bytes beyond which no file is taken. pause: waits so many seconds between attempts.
    """

    mirror: str | None = None
    force: bool = False
    timeout: float = 30.0
    attempts: int = 5
    largest: int = 16 << 30
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Fetched:
    """A sequence that is in the cache. downloaded: False when it was there before."""

    entry: Entry
    path: Path
    bytes: int
    sha256: str
    downloaded: bool


def fetch(
    entry: Entry, cache: Path, options: FetchOptions | None = None, progress: Progress = lambda done, total: None
) -> Fetched:
    """Have one sequence in the cache, downloading it unless it is there.

    progress(bytes so far, bytes in all or None) is called as they come.

    Raises FetchError for what the server has or says, UnreachableError when it does not answer, OutputError when
    the file cannot be written. What has come so far is kept for the next call; an existing file stays until a new
    one is complete and checked.
    """
    options = options or FetchOptions()
    path = entry.path(cache)
    known = entry.sha256 or _recorded(path)
    if path.is_file() and not options.force:
        return _taken(entry, path, known)
    address = options.mirror.rstrip("/") + "/" + entry.file if options.mirror else entry.address
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(path) as part:
            _Download(address, path, part, options, progress).run()
            os.fsync(part.fileno())
        partial = _beside(path, PART)
        accept = "" if entry.sha256 else f", or remove {_beside(path, RECORD)} to take the new one"
        advice = f"it was changed there or on the way; try again, or another --mirror{accept}"
        try:
            _check_content(entry, partial, address, advice="try again later, or another --mirror")
            digest = _checked_digest(partial, known, f"{address} has", advice)
        except FetchError:
            _discard(path)
            raise
        size = partial.stat().st_size
        os.replace(partial, path)
        _beside(path, FACTS).unlink(missing_ok=True)
        _record(path, digest)
    return Fetched(entry, path, size, digest, downloaded=True)


def _taken(entry: Entry, path: Path, known: str | None) -> Fetched:
    """A file that was there before, if it is what it should be."""
    again = f"vidcodec fetch {entry.id} --force"
    try:
        _check_content(entry, path, str(path), advice=f"remove it, or run {again}")
        wrong = f"{path} is damaged or another version: it has"
        digest = _checked_digest(path, known, wrong, f"{again} downloads it again")
    except OSError as error:
        raise FetchError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if known is None:
        with _writing(path):
            _record(path, digest)
    return Fetched(entry, path, path.stat().st_size, digest, downloaded=False)


# ------------------------------------------------------------------------------ checks


def _checked_digest(path: Path, known: str | None, wrong: str, advice: str) -> str:
    """SHA-256 of a file; raises FetchError for another one than is known."""
    digest = file_digest(path)
    if known not in (None, digest):
        raise FetchError(f"{wrong} SHA-256 {digest}, expected {known}: {advice}")
    return digest


def _check_content(entry: Entry, path: Path, source: str, *, advice: str) -> None:
    """Raise FetchError unless a file holds pictures of the right size: a server may send a page instead."""
    from vidcodec.video import Sampling, VideoReader  # PyAV: not needed to list

    try:
        with VideoReader(path, Sampling(fps=None)) as reader:
            found = reader.format.width, reader.format.height
    except InputError as error:
        raise FetchError(f"{source} is no video or picture: {advice}") from error
    if found != (entry.width or found[0], entry.height or found[1]):
        raise FetchError(
            f"{source} holds pictures of {found[0]}x{found[1]}, not {entry.width}x{entry.height}: {advice}"
        )


# ----------------------------------------------------------------------- files on disk


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _discard(path: Path) -> None:
    """Forget what has come so far."""
    for suffix in (PART, FACTS):
        _beside(path, suffix).unlink(missing_ok=True)


def _recorded(path: Path) -> str | None:
    """The checksum of the first download, if there was one."""
    with suppress(OSError):
        found = re.match("([0-9a-f]{64})(?!\\S)", _beside(path, RECORD).read_text("ascii", "replace").lstrip())
        return found[1] if found else None
    return None


def _record(path: Path, digest: str) -> None:
    write_whole(_beside(path, RECORD), f"{digest}  {path.name}\n")


@contextmanager
def _part_of(path: Path) -> Iterator[BinaryIO]:
    """The file of what has come so far, for this process alone."""
    with open(_beside(path, PART), "ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"{path} is being downloaded by another process: wait for it") from None
        try:
            yield part
            part.flush()
        finally:
            with suppress(OSError):
                part.flush()
            if not os.fstat(part.fileno()).st_size:
                _discard(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the disk as OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path.parent} is full: free some space, or choose another disk with --cache") from error
        reason = error.strerror or error
        raise OutputError(f"{error.filename or path} cannot be written ({reason}): choose another --cache") from error


# ---------------------------------------------------------------------------- download


class _Again(Exception):
    """An attempt failed in a way that another may not. wait: seconds the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few, only to http and https, and never from https to http."""

    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != "https" and (new, old) != ("http", "http"):
            raise FetchError(f"{req.full_url} redirects to {newurl[:200]!r}, which is not safe: try another --mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    """Brings all bytes of an address into a file that may hold its beginning."""

    def __init__(self, address: str, path: Path, part: BinaryIO, options: FetchOptions, progress: Progress) -> None:
        self.address, self.path, self.part, self.options, self.progress = address, path, part, options, progress
        self.opener = urllib.request.build_opener(_Redirects)
        self.by_hand = f"download {address} yourself and put it at {path}"

    def run(self) -> None:
        """Try until all is there. Raises FetchError or UnreachableError when that does not come to pass."""
        furthest, failures = self.size, 0
        while True:
            try:
                self._attempt()
                return
            except _Again as problem:
                self.part.flush()
                # A server that cannot resume and always stops at the same place brings nothing new.
                failures = 0 if self.size > furthest else failures + 1
                furthest = max(furthest, self.size)
                if failures >= self.options.attempts:
                    raise UnreachableError(f"{problem}: try again later to go on, or {self.by_hand}") from problem
                self.options.pause(min(max(problem.wait, 2.0**failures), _LONGEST_PAUSE))

    @property
    def size(self) -> int:
        """Bytes that have come so far."""
        return os.fstat(self.part.fileno()).st_size

    def _attempt(self) -> None:
        """One request; returns when the file is complete."""
        (version, length), offset = self._begun(), self.size
        if offset and offset == length:
            return  # it was stopped just before it got its name
        headers = {"User-Agent": "vidcodec", "Accept-Encoding": "identity"}
        if offset and version:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version}
        with self._request(headers) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise FetchError(f"{self.address} comes compressed, unasked: try another --mirror, or {self.by_hand}")
            if answer.status == 206:
                self._check_range(answer, offset, version)
            elif answer.status == 200:
                offset = 0
                self._start(answer)
            else:
                raise FetchError(f"{self.address} answers {answer.status} {answer.reason}: try again later")
            self._receive(answer, offset)

    def _request(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The server's answer, where it has one worth reading."""
        try:
            scheme, host = urlsplit(self.address).scheme, urlsplit(self.address).hostname or ""
            if scheme not in ("http", "https"):
                raise ValueError("http and https alone are asked")
            request = urllib.request.Request(self.address, headers=headers)
            return self.opener.open(request, timeout=self.options.timeout)  # type: ignore[return-value]
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error)
        except (ValueError, http.client.InvalidURL) as error:
            raise FetchError(f"{self.address!r} is no address that can be asked ({error}): check --mirror") from error
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, socket.gaierror):
                raise UnreachableError(f"no network, or no server called {host}: {self.by_hand}") from error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise FetchError(
                    f"the certificate of {host} does not hold ({reason.verify_message}): check this machine's clock "
                    f"and certificates, or {self.by_hand}"
                ) from error
            if isinstance(reason, OSError) and reason.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
                raise UnreachableError(f"no network: {self.by_hand}") from error
            raise _Again(f"no answer from {host} ({_brief(reason)})") from error
        raise AssertionError("not reached: _refused raises")

    def _refused(self, error: urllib.error.HTTPError) -> None:
        """Raise what an answer that is no file means."""
        said = f"{self.address} answers {error.code} {_brief(error.reason)}"
        if error.code == 416 and self.size:
            self._restart()
            raise _Again(said)
        if error.code in _PASSING:
            wait = error.headers.get("Retry-After", "")
            raise _Again(said, float(wait) if re.fullmatch(r"\d{1,4}", wait) else 0.0)
        if error.code in (401, 403, 407, 451):
            raise FetchError(f"{said}: it may not be had from here; try another --mirror, or {self.by_hand}")
        if 300 <= error.code < 400:
            raise FetchError(f"{self.address} redirects without end or nowhere: try another --mirror")
        raise FetchError(f"{said}: it is not there any more; try another --mirror")

    def _receive(self, answer: http.client.HTTPResponse, offset: int) -> None:
        """Append the body, which begins at `offset` of the file."""
        length = _length_in(answer)
        total = None if length is None else offset + length
        self._check_room(total, offset)
        done = offset
        self.progress(done, total)
        while piece := self._read(answer):
            done += len(piece)
            if done > self.options.largest:
                self._restart()
                raise FetchError(self._too_large("more"))
            self.part.write(piece)
            self.progress(done, total)
        self.part.flush()
        if total is not None and done < total:
            raise _Again(f"{self.address} broke off at {done:,} of {total:,} bytes")
        if not done:
            raise _Again(f"{self.address} is empty")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read1(_PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise _Again(f"{self.address} broke off ({_brief(error)})") from error

    def _check_room(self, total: int | None, offset: int) -> None:
        if total is None:
            return
        if total > self.options.largest:
            raise FetchError(self._too_large(f"{total:,} bytes"))
        free = shutil.disk_usage(self.path.parent).free
        if total - offset > free - _ROOM_TO_LEAVE:
            raise OutputError(
                f"{self.path.name} needs {(total - offset) / 1e6:,.0f} MB and {self.path.parent} has {free / 1e6:,.0f} "
                "left: free some space, or choose another disk with --cache"
            )

    def _too_large(self, size: str) -> str:
        return f"{self.address} gives {size}, beyond the {self.options.largest:,} bytes that are taken: check --mirror"

    # What is known of the version that is being downloaded

    def _begun(self) -> tuple[str, int | None]:
        """The server's name for the version that has begun to come ('': it gave none, start again), and its size."""
        try:
            facts = json.loads(_beside(self.path, FACTS).read_text(encoding="utf-8"))
            return (str(facts["version"]), facts["bytes"]) if facts["address"] == self.address else ("", None)
        except (OSError, ValueError, KeyError, TypeError):
            return "", None

    def _start(self, answer: http.client.HTTPResponse) -> None:
        """Begin again from the first byte."""
        self._restart()
        if version := _version_in(answer):
            facts = {"address": self.address, "version": version, "bytes": _length_in(answer)}
            write_whole(_beside(self.path, FACTS), json.dumps(facts) + "\n")

    def _restart(self) -> None:
        self.part.truncate(0)
        _beside(self.path, FACTS).unlink(missing_ok=True)

    def _check_range(self, answer: http.client.HTTPResponse, offset: int, version: str) -> None:
        """Raise _Again, from the first byte, unless the part that was asked for is coming."""
        begin = re.match(r"bytes (\d{1,15})-", answer.headers.get("Content-Range", ""))
        changed = _version_in(answer) not in ("", version)
        if begin is None or int(begin[1]) != offset or changed:
            self._restart()
            raise _Again(f"{self.address} gives another part or version than was asked for")


def _version_in(answer: http.client.HTTPResponse) -> str:
    """A strong ETag, else Last-Modified: what If-Range may name (RFC 9110, section 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _length_in(answer: http.client.HTTPResponse) -> int | None:
    """Content-Length, where there is a sane one."""
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,15}", length) else None


def _brief(reason: object) -> str:
    """What went wrong, in few words."""
    if isinstance(reason, TimeoutError):
        return "it went silent"
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return " ".join(str(text).split())[:120]
