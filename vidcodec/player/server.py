"""A page that plays a film: served to this machine alone, or in one file with all of its pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2

from vidcodec.errors import CorruptBitstreamError
from vidcodec.player.film import Film

HOST = "127.0.0.1"
_PAGE = Path(__file__).parent


def page(facts: dict[str, Any], pictures: list[dict[str, Any]] | None = None) -> str:
    """HTML. pictures: of every frame, as data addresses; None: they are asked for."""
    told = {**facts, "pictures": pictures}
    html = (_PAGE / "page.html").read_text(encoding="utf-8")
    data = json.dumps(told, allow_nan=False).replace("<", "\\u003c")
    for mark, text in (("/*style*/", _text("page.css")), ("/*script*/", _text("page.js")), ("/*film*/null", data)):
        html = html.replace(mark, text, 1)
    return html


def _text(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def export(film: Film, progress: Callable[[int, int], None]) -> str:
    """The page with every picture in it, as lossless WebP. Damaged frames are left out, and say so."""
    pictures: list[dict[str, Any]] = []
    facts = film.facts()
    for index in range(len(facts["frames"])):
        try:
            shown = film.picture(index)
        except CorruptBitstreamError as error:
            pictures.append({"problem": str(error)})
        else:
            original = film.original(index)
            told = {"ours": _webp(shown), "source": original and _webp(original), "bits": film.bits(index)}
            pictures.append(told)
        progress(index + 1, len(facts["frames"]))
    return page(facts, pictures)


def _webp(path: Path) -> str:
    _, data = cv2.imencode(".webp", cv2.imread(str(path)), [cv2.IMWRITE_WEBP_QUALITY, 101])
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"


def serve(film: Film, port: int = 0) -> ThreadingHTTPServer:
    """A server of this machine for this machine; port 0: any that is free. Raises OSError where it cannot be had."""
    server = ThreadingHTTPServer((HOST, port), partial(_Handler, film))
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    """/ the page, /N.png a decoded frame, /N.json where its bits went, /source/N.png the source's."""

    def __init__(self, film: Film, *args: Any) -> None:
        self.film = film
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):  # another name for this machine
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"ask for 127.0.0.1")
        try:
            kind, body = self._answer(self.path.partition("?")[0])
        except (KeyError, ValueError, IndexError):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such thing here")
        except CorruptBitstreamError as error:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", str(error).encode())
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _answer(self, path: str) -> tuple[str, bytes]:
        if path == "/":
            return "text/html; charset=utf-8", page(self.film.facts()).encode()
        name, _, ending = path.removeprefix("/source").removeprefix("/").partition(".")
        if not name.isascii() or not name.isdigit():
            raise KeyError(path)
        index = int(name)
        if path.startswith("/source/") and ending == "png":
            found = self.film.original(index)
            if found is None:
                raise KeyError(path)
            return "image/png", found.read_bytes()
        shown = self.film.picture(index)
        if ending == "json":
            return "application/json", json.dumps(self.film.bits(index)).encode()
        if ending == "png":
            return "image/png", shown.read_bytes()
        raise KeyError(path)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's business."""
