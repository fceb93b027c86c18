"""Downloads: whole, resumed, checked, or refused with words that help; against a server on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from file_server import Site, serving, y4m

from vidcodec.errors import FetchError, OutputError, UnreachableError
from vidcodec.evaluation import fetching
from vidcodec.evaluation.datasets import Entry
from vidcodec.evaluation.fetching import Fetched, FetchOptions, fetch

BODY = y4m()
DIGEST = hashlib.sha256(BODY).hexdigest()
Fetch = Callable[..., Fetched]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/clip.y4m": BODY})) as site:
        yield site


@pytest.fixture
def entry(site: Site) -> Entry:
    return Entry("set", "clip", "clip.y4m", f"{site.address}/clip.y4m", "terms", 32, 16, frames=40)


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def get(entry: Entry, tmp_path: Path, pauses: list[float]) -> Fetch:
    """get(**changes of the options): fetch the entry, with little patience."""

    def call(entry: Entry = entry, **changes: object) -> Fetched:
        options = FetchOptions(timeout=0.3, attempts=3, pause=pauses.append)
        return fetch(entry, tmp_path, replace(options, **changes))  # type: ignore[arg-type]

    return call


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "set"))


# ------------------------------------------------------------------------- what works


def test_a_file_comes_whole_and_its_checksum_is_recorded(get: Fetch, tmp_path: Path, site: Site) -> None:
    got = get()
    assert (got.bytes, got.sha256, got.downloaded) == (len(BODY), DIGEST, True)
    assert got.path == tmp_path / "set" / "clip.y4m"
    assert got.path.read_bytes() == BODY
    assert names(tmp_path) == ["clip.y4m", "clip.y4m.sha256"]
    assert (tmp_path / "set" / "clip.y4m.sha256").read_text() == f"{DIGEST}  clip.y4m\n"
    assert len(site.requests) == 1


def test_what_is_there_is_checked_without_any_request(get: Fetch, site: Site) -> None:
    get()
    site.requests.clear()
    got = get()
    assert not got.downloaded
    assert got.sha256 == DIGEST
    assert site.requests == []


def test_a_file_put_there_by_hand_is_taken_and_recorded(get: Fetch, tmp_path: Path, site: Site) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "clip.y4m").write_bytes(BODY)
    assert not get().downloaded
    assert site.requests == []
    assert DIGEST in (tmp_path / "set" / "clip.y4m.sha256").read_text()


def test_a_cut_connection_is_resumed_where_it_broke(get: Fetch, site: Site, pauses: list[float]) -> None:
    site.cut_after, site.cuts = 9000, 2
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges == [None, "bytes=9000-", "bytes=18000-"]
    assert [headers.get("if-range") for _, headers in site.requests] == [None, '"1"', '"1"']
    assert len(pauses) == 2


def test_a_later_run_goes_on_with_what_an_earlier_one_left(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.cut_after = 5000
    with pytest.raises(UnreachableError, match=r"broke off at 5,000 of .* try again later to go on"):
        get(attempts=0)
    assert names(tmp_path) == ["clip.y4m.part", "clip.y4m.part.json"]
    site.cut_after = None
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges[-1] == "bytes=5000-"
    assert names(tmp_path) == ["clip.y4m", "clip.y4m.sha256"]


def test_an_interrupted_download_keeps_what_came(
    get: Fetch, site: Site, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "_PIECE", 4096)
    with pytest.raises(KeyboardInterrupt):
        fetch(entry, tmp_path, progress=stop)
    part = tmp_path / "set" / "clip.y4m.part"
    came = part.stat().st_size
    assert 0 < came < len(BODY)
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges == [None, f"bytes={came}-"]


def test_a_download_stopped_before_it_got_its_name_asks_for_nothing(
    get: Fetch, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "file_digest", stop)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert get().path.read_bytes() == BODY
    assert len(site.requests) == 1


def test_last_modified_serves_where_there_is_no_etag(get: Fetch, site: Site) -> None:
    site.etag, site.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    site.cut_after, site.cuts = 7000, 1
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges == [None, "bytes=7000-"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_version_it_starts_again(get: Fetch, site: Site, etag: str | None) -> None:
    site.etag, site.cut_after, site.cuts = etag, 7000, 1
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges == [None, None]


def test_a_server_that_ignores_ranges_sends_all_again(get: Fetch, site: Site) -> None:
    site.ranges, site.cut_after, site.cuts = False, 7000, 1
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges == [None, "bytes=7000-"]


def test_a_file_that_changed_in_between_comes_anew(get: Fetch, site: Site) -> None:
    site.cut_after = 7000
    with pytest.raises(UnreachableError):
        get(attempts=0)
    site.files["/clip.y4m"] = other = y4m(seed=9)
    site.etag, site.cut_after = '"2"', None
    assert get().path.read_bytes() == other


def test_a_part_of_another_version_or_place_is_thrown_away(get: Fetch, site: Site) -> None:
    site.cut_after = 7000
    with pytest.raises(UnreachableError):
        get(attempts=0)
    site.cut_after, site.wrong_range = None, True
    with pytest.raises(UnreachableError, match="another part or version than was asked for"):
        get(attempts=0)
    site.wrong_range = False
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges[-1] is None


def test_what_came_from_another_address_is_not_continued(get: Fetch, site: Site, entry: Entry) -> None:
    site.cut_after = 7000
    with pytest.raises(UnreachableError):
        get(attempts=0)
    site.files["/mirror/clip.y4m"], site.cut_after = BODY, None
    get(mirror=f"{site.address}/mirror/")
    assert site.requests[-1][0] == "/mirror/clip.y4m"
    assert site.asked_ranges[-1] is None


def test_a_damaged_note_of_the_version_means_starting_again(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.cut_after = 7000
    with pytest.raises(UnreachableError):
        get(attempts=0)
    (tmp_path / "set" / "clip.y4m.part.json").write_bytes(b'{"address": 7')
    site.cut_after = None
    assert get().path.read_bytes() == BODY
    assert site.asked_ranges[-1] is None


def test_an_answer_without_a_length_is_taken_to_its_end(get: Fetch, site: Site, entry: Entry, tmp_path: Path) -> None:
    site.lengths = False
    seen: list[tuple[int, int | None]] = []
    fetch(entry, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, None)
    assert seen[-1] == (len(BODY), None)


def test_progress_counts_what_was_there_before(get: Fetch, site: Site, entry: Entry, tmp_path: Path) -> None:
    site.cut_after = 7000
    with pytest.raises(UnreachableError):
        get(attempts=0)
    site.cut_after = None
    seen: list[tuple[int, int | None]] = []
    fetch(entry, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (7000, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_redirects_are_followed(get: Fetch, site: Site) -> None:
    site.redirects = {"/clip.y4m": "/moved/clip.y4m"}
    site.files = {"/moved/clip.y4m": BODY}
    assert get().path.name == "clip.y4m"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_a_pause(get: Fetch, site: Site, pauses: list[float], status: int) -> None:
    site.statuses = [(status, {}), (status, {"Retry-After": "17"})]
    assert get().downloaded
    assert pauses == [2.0, 17.0]


def test_pauses_grow_and_have_a_bound(get: Fetch, site: Site, pauses: list[float]) -> None:
    site.statuses = [(503, {"Retry-After": "9999"}) if n == 8 else (503, {}) for n in range(12)]
    with pytest.raises(UnreachableError, match="503"):
        get(attempts=10)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


# ---------------------------------------------------------------------------- failures


def test_a_silent_server_is_given_up(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.ranges, site.silent_after = False, 6000
    with pytest.raises(UnreachableError, match=r"it went silent.*download .*clip.y4m yourself and put it at"):
        get(attempts=1)
    assert (tmp_path / "set" / "clip.y4m.part").stat().st_size == 6000


def test_one_that_always_stops_at_the_same_byte_is_given_up(get: Fetch, site: Site) -> None:
    site.ranges, site.cut_after = False, 6000
    with pytest.raises(UnreachableError, match="broke off at 6,000"):
        get()
    assert len(site.requests) == 4


def test_progress_however_slow_is_not_given_up(get: Fetch, site: Site) -> None:
    site.cut_after = 2500
    assert get(attempts=1).path.read_bytes() == BODY
    assert len(site.requests) > 10


def test_a_file_that_is_gone_says_so_at_once(get: Fetch, site: Site, tmp_path: Path) -> None:
    site.files.clear()
    with pytest.raises(FetchError, match=r"answers 404 Not Found.*--mirror") as caught:
        get()
    assert not isinstance(caught.value, UnreachableError)
    assert len(site.requests) == 1
    assert names(tmp_path) == []


def test_a_forbidden_file_says_what_to_do(get: Fetch, site: Site) -> None:
    site.statuses = [(403, {})]
    with pytest.raises(FetchError, match=r"may not be had from here.*yourself"):
        get()


@pytest.mark.parametrize("target", ["/clip.y4m", "//", "file:///etc/passwd", "ftp://127.0.0.1/clip.y4m", "data:,x"])
def test_redirects_that_lead_nowhere_good_are_refused(get: Fetch, site: Site, target: str, tmp_path: Path) -> None:
    site.redirects = {"/clip.y4m": target}
    with pytest.raises(FetchError, match="redirect"):
        get(attempts=0)
    assert names(tmp_path) == []


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(get: Fetch, entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"has SHA-256 {DIGEST}, expected {'0' * 64}"):
        get(replace(entry, sha256="0" * 64))
    assert names(tmp_path) == []


def test_a_later_download_must_agree_with_the_first(get: Fetch, site: Site, tmp_path: Path) -> None:
    path = get().path
    site.files["/clip.y4m"] = y4m(seed=1)
    with pytest.raises(FetchError, match=r"expected .* remove .*clip.y4m.sha256 to take the new one"):
        get(force=True)
    assert path.read_bytes() == BODY, "the old file stays"
    (tmp_path / "set" / "clip.y4m.sha256").unlink()
    assert get(force=True).path.read_bytes() == y4m(seed=1)


def test_a_damaged_file_in_the_cache_is_told_and_can_be_replaced(get: Fetch) -> None:
    path = get().path
    path.write_bytes(BODY[:-1] + b"\xff")
    with pytest.raises(FetchError, match=r"damaged or another version.*--force"):
        get()
    assert get(force=True).path.read_bytes() == BODY


def test_a_file_in_the_cache_that_cannot_be_read_is_told(get: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    get()
    monkeypatch.setattr(fetching, "file_digest", forbidden)
    with pytest.raises(FetchError, match=r"cannot be read \(Permission denied\): check its permissions"):
        get()


@pytest.mark.parametrize("body", [b"<html>log in first</html>", b"", y4m(64, 16), b"YUV4MPEG2 H16\n" * 9])
def test_a_page_or_another_video_is_not_taken_for_the_file(get: Fetch, site: Site, tmp_path: Path, body: bytes) -> None:
    site.files["/clip.y4m"] = body
    with pytest.raises(FetchError):
        get(attempts=1)
    assert not (tmp_path / "set" / "clip.y4m").exists()
    assert not (tmp_path / "set" / "clip.y4m.sha256").exists()
    site.files["/clip.y4m"], site.etag = BODY, '"3"'
    assert get().sha256 == DIGEST


def test_pictures_are_checked_too(site: Site, tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.zeros((512, 768, 3), np.uint8))[1].tobytes()
    site.files = {"/a.png": picture, "/b.png": b"GIF89a"}
    one = Entry("set", "a", "a.png", f"{site.address}/a.png", "", 768, 512)
    assert fetch(one, tmp_path).downloaded
    for wrong in (replace(one, name="b", file="b.png", address=f"{site.address}/b.png"), replace(one, height=9)):
        with pytest.raises(FetchError, match=r"is no video or picture|pictures of 768x512, not 768x9"):
            fetch(wrong, tmp_path)


def test_too_large_a_body_is_refused_whether_it_says_so_or_not(get: Fetch, site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="beyond the 8,000 bytes that are taken"):
        get(largest=8000)
    site.lengths = False
    with pytest.raises(FetchError, match="beyond the 8,000 bytes that are taken"):
        get(largest=8000)
    assert names(tmp_path) == []


def test_a_compressed_body_is_refused(get: Fetch, site: Site) -> None:
    site.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(FetchError, match="comes compressed"):
        get()


def test_no_network_says_where_to_put_the_file(
    get: Fetch, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_names(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    with pytest.raises(UnreachableError, match="no network") as caught:
        get(replace(entry, address="http://media.example/clip.y4m"))
    assert "download http://media.example/clip.y4m yourself" in str(caught.value)
    assert str(tmp_path / "set" / "clip.y4m") in str(caught.value)


def test_a_refused_connection_is_tried_again_and_told(get: Fetch, entry: Entry, pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"no answer from 127\.0\.0\.1 \(Connection refused\)"):
        get(replace(entry, address=f"http://127.0.0.1:{port}/clip.y4m"))
    assert len(pauses) == 2


def test_a_full_disk_is_told_before_and_during(
    get: Fetch, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20 << 20))
        site.files["/clip.y4m"] = y4m(frames=6000)
        with pytest.raises(OutputError, match=r"needs \d MB and .* has 21 left: free some space"):
            get()

    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    entry = Entry("set", "clip", "clip.y4m", f"{site.address}/clip.y4m", "", 32, 16)
    with pytest.raises(OutputError, match="is full: free some space"):
        fetch(entry, tmp_path, progress=full)


def test_a_place_that_cannot_be_written_is_told(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written.*--cache"):
        fetch(entry, tmp_path / "file")


def test_two_downloads_of_one_file_do_not_mix(get: Fetch, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "set").mkdir()
    with open(tmp_path / "set" / "clip.y4m.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="by another process"):
            get()
    assert get().downloaded


@pytest.mark.parametrize("address", ["http://[::1", "http://a b/", "http://\x00/"])
def test_a_senseless_address_is_told(get: Fetch, entry: Entry, address: str) -> None:
    with pytest.raises(FetchError, match="is no address that can be asked"):
        get(replace(entry, address=address))
