"""Lossless rivals give back every sample, and say when they cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vidcodec.errors import CodecUnavailableError, InputError, UnsupportedInputError
from vidcodec.evaluation.lossless_rivals import (
    RGB,
    YUV420,
    Ffv1,
    JpegXl,
    LosslessRival,
    Pictures,
    Planes,
    Png,
    WebpLossless,
    X265Lossless,
)
from vidcodec.video import Frame

MakeFrames = Callable[..., list[Frame]]
NO_JXL = pytest.mark.skipif(shutil.which("cjxl") is None or shutil.which("djxl") is None, reason="no cjxl and djxl")
RIVALS = [
    Png(),
    WebpLossless(),
    pytest.param(JpegXl(3), marks=NO_JXL),
    Ffv1(),
    X265Lossless("ultrafast"),
]
ODD, CIF_AND_MORE = (99, 77), (362, 290)


def still(size: tuple[int, int] = ODD) -> Pictures:
    """Colours that differ from plane to plane, with every value of a byte in them."""
    width, height = size
    rgb = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None] * np.array([1, 2, 3])
    return Pictures.of_rgb((rgb + np.random.default_rng(0).integers(0, 5, rgb.shape)).astype(np.uint8))


def ten_bits(frames: list[Frame]) -> Pictures:
    """The frames with two more bits of noise, the ends of the range among them."""
    noise = np.random.default_rng(1)
    deep = [
        Frame(*(4 * p.astype(np.uint16) + noise.integers(0, 4, p.shape, np.uint16) for p in (f.y, f.uv)), f.pts)
        for f in frames
    ]
    deep[0].y[0, :2] = 0, 1023
    return Pictures.of_frames(deep, 10)


def assert_equal(decoded: list[Planes], pictures: Pictures) -> None:
    assert len(decoded) == len(pictures.planes)
    for a, b in zip(decoded, pictures.planes, strict=True):
        for p, q in zip(a, b, strict=True):
            assert p.dtype == q.dtype
            np.testing.assert_array_equal(p, q)


def check(rival: LosslessRival, pictures: Pictures, folder: Path) -> int:
    """Round trip without the rival's own comparison; bytes of all files."""
    files = rival.encode(pictures, folder)
    assert sorted(files) == sorted(folder.iterdir())  # nothing left beside what counts
    assert_equal(rival.decode(files, pictures), pictures)
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda r: r.label)
@pytest.mark.parametrize("size", [ODD, CIF_AND_MORE])
def test_rgb_pictures_come_back(rival: LosslessRival, size: tuple[int, int], tmp_path: Path) -> None:
    assert check(rival, still(size), tmp_path) > 500


@pytest.mark.parametrize("rival", RIVALS, ids=lambda r: r.label)
@pytest.mark.parametrize("size", [ODD, (96, 80)])
def test_frames_come_back_in_order(
    rival: LosslessRival, size: tuple[int, int], make_frames: MakeFrames, tmp_path: Path
) -> None:
    pictures = Pictures.of_frames(make_frames(3, size), 8)
    raw = sum(plane.size for planes in pictures.planes for plane in planes)
    assert check(rival, pictures, tmp_path) < raw


@pytest.mark.parametrize("rival", [r for r in RIVALS if not isinstance(r, WebpLossless)], ids=lambda r: r.label)
def test_ten_bits_come_back(rival: LosslessRival, make_frames: MakeFrames, tmp_path: Path) -> None:
    check(rival, ten_bits(make_frames(2, ODD)), tmp_path)


@pytest.mark.parametrize("rival", RIVALS[:4], ids=lambda r: r.label)
def test_a_single_pixel_comes_back(rival: LosslessRival, make_frames: MakeFrames, tmp_path: Path) -> None:
    check(rival, Pictures.of_frames(make_frames(1, (1, 1)), 8), tmp_path)


@NO_JXL
def test_jpeg_xl_stores_ten_bits_and_not_sixteen(make_frames: MakeFrames, tmp_path: Path) -> None:
    frames, sizes = make_frames(1, (96, 80)), []
    for name, these in (("8", Pictures.of_frames(frames, 8)), ("10", ten_bits(frames))):
        folder = tmp_path / name
        folder.mkdir()
        sizes.append(check(JpegXl(3), these, folder))
    samples = 96 * 80 * 3 // 2
    assert 8 * (sizes[1] - sizes[0]) < 2.3 * samples  # two bits of noise a sample, and little else


def test_grey_rgb_stays_rgb(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(200, dtype=np.uint8).reshape(10, 20, 1), 3, 2)
    check(WebpLossless(), Pictures.of_rgb(grey), tmp_path)


def test_webp_refuses_ten_bits(make_frames: MakeFrames, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="8 bits a sample, not 10"):
        WebpLossless().encode(ten_bits(make_frames(1)), tmp_path)


def test_x265_refuses_what_is_too_small(make_frames: MakeFrames, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="x265 cannot code 6x6"):
        X265Lossless().encode(Pictures.of_frames(make_frames(1, (6, 6)), 8), tmp_path)


@pytest.mark.parametrize("missing", ["cjxl", "djxl"])
def test_a_missing_program_is_told_with_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"cjxl", "djxl"} - {missing}:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CodecUnavailableError, match=f"no {missing} on the PATH: install libjxl-tools"):
        JpegXl().code(still(), tmp_path)
    with pytest.raises(CodecUnavailableError, match="install libjxl-tools"):
        JpegXl().settings()


def test_a_program_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cjxl", "djxl"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no memory' >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UnsupportedInputError, match="cjxl failed with exit code 3: no memory"):
        JpegXl().code(still(), tmp_path)


def test_other_samples_than_coded_are_an_error(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Careless(Png):
        def write(self, samples: np.ndarray, depth: int, path: Path) -> None:
            super().write(samples & 254, depth, path)

    with pytest.raises(CodecUnavailableError, match="gave other samples back"):
        Careless().code(still(), tmp_path)
    Png().code(still(), tmp_path)


def test_no_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture to code"):
        Png().code(Pictures(YUV420, 8, []), tmp_path)


def test_a_digest_names_samples_kind_and_size() -> None:
    planes = still((8, 8)).planes
    turned = [(a.reshape(4, 16), b.reshape(4, 16), c.reshape(4, 16)) for a, b, c in planes]
    digests = {Pictures(RGB, 8, planes).digest, Pictures(YUV420, 8, planes).digest, Pictures(RGB, 8, turned).digest}
    assert len(digests) == 3
    assert Pictures(RGB, 8, planes).digest == still((8, 8)).digest


def test_ffv1_keeps_the_smaller_of_its_context_models(tmp_path: Path, make_frames: MakeFrames) -> None:
    pictures = Pictures.of_frames(make_frames(2, CIF_AND_MORE), 8)
    sizes = []
    for context in (0, 1):
        path = tmp_path / f"{context}.nut"
        Ffv1()._write(pictures, context, path)
        sizes.append(path.stat().st_size)
    folder = tmp_path / "both"
    folder.mkdir()
    assert check(Ffv1(), pictures, folder) == min(sizes)
