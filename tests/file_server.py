"""A small HTTP server on the loopback interface that can be as bad as real ones."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked. Everything may be changed while it runs.

    cut_after: close after so many bytes of a body, for the next `cuts` answers. silent_after: then say nothing more.
    statuses: answers to give first, instead of files. redirects: path to address.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    lengths: bool = True
    cut_after: int | None = None
    cuts: int = 10**9
    silent_after: int | None = None
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    wrong_range: bool = False
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    @property
    def asked_ranges(self) -> list[str | None]:
        """The Range header of every request."""
        return [headers.get("range") for _, headers in self.requests]


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        headers = {name.lower(): value for name, value in self.headers.items()}
        site.requests.append((self.path, headers))
        if site.statuses:
            status, extra = site.statuses.pop(0)
            return self._head(status, {"Content-Length": "0", **extra})
        if self.path in site.redirects:
            return self._head(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
        if self.path not in site.files:
            return self._head(404, {"Content-Length": "0"})
        self._send(site.files[self.path], headers)
        return None

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        site, status, extra = self.site, 200, {}
        same = headers.get("if-range") in (site.etag, site.modified)
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if site.ranges and asked and same:
            first = int(asked[1])
            if first >= len(body):
                return self._head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            status = 206
            extra["Content-Range"] = f"bytes {first + site.wrong_range}-{len(body) - 1}/{len(body)}"
            body = body[first:]
        if site.etag:
            extra["ETag"] = site.etag
        if site.modified:
            extra["Last-Modified"] = site.modified
        if site.lengths:
            extra["Content-Length"] = str(len(body))
        self._head(status, {**extra, **site.headers})
        if site.cut_after is not None and site.cuts > 0:
            site.cuts -= 1
            self.wfile.write(body[: site.cut_after])
        elif site.silent_after is not None:
            self.wfile.write(body[: site.silent_after])
            self.wfile.flush()
            time.sleep(1)
        else:
            self.wfile.write(body)
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The site on a free port."""
    handler = type("Handler", (_Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        site.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def y4m(width: int = 32, height: int = 16, frames: int = 40, seed: int = 0) -> bytes:
    """A video of grey frames; another seed, other bytes."""
    head = f"YUV4MPEG2 W{width} H{height} F30:1 Ip C420jpeg\n".encode()
    size = width * height * 3 // 2
    return head + b"".join(b"FRAME\n" + bytes([(seed + index) % 256]) * size for index in range(frames))
