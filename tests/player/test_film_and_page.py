"""What the page is told and shown: real files, real requests."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidcodec import EncodeOptions, Sampling, VideoDecoder, encode_video
from vidcodec.cli import main
from vidcodec.errors import InputError
from vidcodec.player import server
from vidcodec.player.film import Film
from vidcodec.video import VideoReader, yuv_to_rgb

EVERY = Sampling(fps=None)


def clip_of(path: Path, count: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    """A lossless clip of 2 frames a second: a square that moves over a slope."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            picture = np.tile(np.linspace(40, 200, size[0]).astype(np.uint8)[None, :, None], (size[1], 1, 3))
            picture[8:24, 4 + 8 * i : 20 + 8 * i] = (220, 60, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def files(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source, and a file of it with predicted frames."""
    folder = tmp_path_factory.mktemp("film")
    clip = clip_of(folder / "clip.mkv")
    options = EncodeOptions(
        sampling=EVERY, weights=tiny_weights, device="cpu", preset="fast", quantizer="uniform", key_seconds=60
    )
    encode_video(clip, folder / "o.vdc", options)
    return clip, folder / "o.vdc"


@pytest.fixture
def film(files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> Iterator[Film]:
    with (
        VideoDecoder(files[1], weights=tiny_weights, device="cpu") as decoder,
        Film(files[1], decoder, tmp_path, files[0]) as film,
    ):
        yield film


@pytest.fixture
def address(film: Film) -> Iterator[str]:
    with server.serve(film) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield "http://{}:{}".format(*served.server_address[:2])
        served.shutdown()


def fetched(address: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_facts_add_up(film: Film, files: tuple[Path, Path]) -> None:
    facts = film.facts()
    assert (facts["width"], facts["height"], facts["source"]) == (64, 48, "clip.mkv")
    assert [f["seconds"] for f in facts["frames"]] == [0.0, 0.5, 1.0, 1.5]
    assert facts["frames"][0]["kind"] == "key"
    assert "predicted" in [f["kind"] for f in facts["frames"]]
    assert sum(f["bytes"] for f in facts["frames"]) < facts["bytes"] == files[1].stat().st_size


def test_pictures_are_those_of_the_decoder_and_of_the_source(film: Film, files: tuple[Path, Path]) -> None:
    with VideoReader(files[0], EVERY) as reader:
        originals = [yuv_to_rgb(frame, reader.format) for frame in reader.frames()]
    for index in (2, 0, 3):
        frame, log = film.decoder.frame(index)
        shown = cv2.imread(str(film.picture(index)))[..., ::-1]
        assert np.array_equal(shown, yuv_to_rgb(frame, film.decoder.format))
        assert film.bits(index) == {"side": round(log.z_bits), "latents": round(log.y_bits)}
        original = film.original(index)
        assert original is not None
        assert np.array_equal(cv2.imread(str(original))[..., ::-1], originals[index])


def test_nothing_is_decoded_twice(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    once = film.decoder.frame
    monkeypatch.setattr(film.decoder, "frame", lambda index: (asked.append(index), once(index))[1])
    for index in (1, 1, 0, 1):
        film.picture(index)
    assert asked == [1, 0]


def test_a_source_of_another_size_is_refused(files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    other = clip_of(tmp_path / "other.mkv", size=(80, 48))
    with (
        VideoDecoder(files[1], weights=tiny_weights, device="cpu") as decoder,
        pytest.raises(InputError, match="80x48"),
    ):
        Film(files[1], decoder, tmp_path, other)


def test_the_server_answers_with_page_pictures_and_bits(address: str, film: Film) -> None:
    kind, html = fetched(f"{address}/")
    assert kind.startswith("text/html")
    assert b"/*film*/" not in html
    assert b"http://" not in html.replace(b"http://www.w3.org", b"")
    kind, picture = fetched(f"{address}/1.png")
    assert kind == "image/png"
    assert picture == film.picture(1).read_bytes()
    assert json.loads(fetched(f"{address}/1.json")[1]) == film.bits(1)
    assert fetched(f"{address}/source/1.png")[1] == (film.folder / "source-1.png").read_bytes()


@pytest.mark.parametrize("path", ["/9.png", "/-1.png", "/../film.py", "/1.txt", "/source/9.png", "/%2e%2e/x", "/1"])
def test_the_server_has_nothing_else(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(address + path)


def test_the_server_is_for_this_machine_alone(address: str) -> None:
    request = urllib.request.Request(f"{address}/", headers={"Host": "elsewhere.example:80"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=30)


def test_a_damaged_frame_is_named_and_the_others_are_shown(
    files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    data = bytearray(files[1].read_bytes())
    with VideoDecoder(files[1], weights=tiny_weights, device="cpu") as decoder:
        payload = next(p for i in (3, 2, 1) if len(p := decoder.reader.frame(i).payload) > 8)
    data[data.index(payload) + 5] ^= 4
    (tmp_path / "d.vdc").write_bytes(data)
    with (
        VideoDecoder(tmp_path / "d.vdc", weights=tiny_weights, device="cpu") as decoder,
        Film(tmp_path / "d.vdc", decoder, tmp_path) as film,
    ):
        assert [f["kind"] for f in film.facts()["frames"]].count("damaged") == 1
        html = server.export(film, lambda done, total: None)
    assert html.count('"problem":') >= 2
    assert html.count("data:image/webp") >= 1


def test_export_writes_one_file_with_all_pictures(
    files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    words = ["play", str(files[1]), "--against", str(files[0]), "--export", str(out), "--weights", str(tiny_weights)]
    assert main([*words, "--device", "cpu"]) == 0
    assert out.read_text().count("data:image/webp") == 8
    assert "4 frames" in capsys.readouterr().out
    assert main([*words, "--device", "cpu"]) == 6  # it is there
