"""Lossless codecs of `vidcodec evaluate` give back every sample, and say when they cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from lossless_support import tiny_lossless_weights

from vidcodec.errors import CodecUnavailableError, UnsupportedInputError
from vidcodec.evaluation.bdrate import BYTES
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.codec import Codec, Encoded, Source
from vidcodec.evaluation.evaluate import Request, evaluate
from vidcodec.evaluation.picture_rivals import JpegXl, Png, Webp
from vidcodec.evaluation.report import write_report
from vidcodec.evaluation.rivals import parse_codec, parse_codecs
from vidcodec.evaluation.video_rivals import X265, Ffv1
from vidcodec.evaluation.worker import same
from vidcodec.video import ColourTags, Frame, VideoFormat, open_writer

MakeFrames = Callable[..., list[Frame]]
NO_JXL = pytest.mark.skipif(shutil.which("cjxl") is None or shutil.which("djxl") is None, reason="no cjxl and djxl")
RIVALS = [
    "png",
    "webp:lossless",
    pytest.param("jxl:effort=3", marks=NO_JXL),
    "ffv1",
    "x265:lossless,preset=ultrafast",
]
ODD, CIF_AND_MORE = (99, 77), (362, 290)


def still(size: tuple[int, int] = ODD) -> list[Frame]:
    """R'G'B' that differs from plane to plane, with every value of a byte in it."""
    width, height = size
    rgb = np.add.outer(np.arange(height), 2 * np.arange(width)) * np.array([1, 2, 3])[:, None, None]
    g, b, r = (rgb + np.random.default_rng(0).integers(0, 5, rgb.shape)).astype(np.uint8)
    return [Frame(g, np.stack([b, r]), 0)]


def ten_bits(frames: list[Frame]) -> list[Frame]:
    """The frames with two more bits of noise, the ends of the range among them."""
    noise = np.random.default_rng(1)
    deep = [
        Frame(*(4 * p.astype(np.uint16) + noise.integers(0, 4, p.shape, np.uint16) for p in (f.y, f.uv)), f.pts)
        for f in frames
    ]
    deep[0].y[0, :2] = 0, 1023
    return deep


def source_of(frames: list[Frame], path: Path, *, depth: int = 8) -> Source:
    """The frames as codecs get them."""
    height, width = frames[0].y.shape
    rgb = frames[0].uv.shape[1:] == frames[0].y.shape and (height, width) != (1, 1)
    colour = ColourTags(matrix=0, full_range=True) if rgb else ColourTags()
    format = VideoFormat(width, height, depth, colour, time_base=Fraction(1, 2), frame_rate=Fraction(2), rgb=rgb)
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    return Source.open(path, len(frames), exact=True)


def check(spec: str | Codec, source: Source, folder: Path) -> Encoded:
    """Round trip without evaluate's own comparison."""
    codec = parse_codec(spec).codec if isinstance(spec, str) else spec
    assert isinstance(codec, Codec)
    assert codec.lossless
    assert codec.rate_points(5) == [0]
    codec.check_format(source.format)
    folder.mkdir(exist_ok=True)
    encoded = codec.encode(source, 0, folder)
    assert sorted(encoded.files) == sorted(folder.iterdir())  # nothing left beside what counts
    decoded = list(codec.decode(encoded.files, source.format))
    assert len(decoded) == source.count
    for a, b in zip(source.frames(), decoded, strict=True):
        assert same(a, b)
    return encoded


@pytest.mark.parametrize("spec", RIVALS)
@pytest.mark.parametrize("size", [ODD, CIF_AND_MORE])
def test_rgb_pictures_come_back(spec: str, size: tuple[int, int], tmp_path: Path) -> None:
    source = source_of(still(size), tmp_path / "source.mkv")
    assert source.format.rgb
    assert check(spec, source, tmp_path / "coded").rate_bytes > 500


@pytest.mark.parametrize("spec", RIVALS)
@pytest.mark.parametrize("size", [ODD, (96, 80)])
def test_frames_come_back_in_order(spec: str, size: tuple[int, int], make_frames: MakeFrames, tmp_path: Path) -> None:
    frames = make_frames(3, size)
    encoded = check(spec, source_of(frames, tmp_path / "source.mkv"), tmp_path / "coded")
    assert encoded.rate_bytes < sum(f.y.size + f.uv.size for f in frames)
    assert len(encoded.frame_bits or []) == 3


@pytest.mark.parametrize("spec", [r for r in RIVALS if r != "webp:lossless"])
def test_ten_bits_come_back(spec: str, make_frames: MakeFrames, tmp_path: Path) -> None:
    source = source_of(ten_bits(make_frames(2, ODD)), tmp_path / "source.mkv", depth=10)
    assert source.format.bit_depth == 10
    check(spec, source, tmp_path / "coded")


@pytest.mark.parametrize("spec", RIVALS[:4])
def test_a_single_pixel_comes_back(spec: str, make_frames: MakeFrames, tmp_path: Path) -> None:
    check(spec, source_of(make_frames(1, (1, 1)), tmp_path / "source.mkv"), tmp_path / "coded")


@NO_JXL
def test_jpeg_xl_stores_ten_bits_and_not_sixteen(make_frames: MakeFrames, tmp_path: Path) -> None:
    frames = make_frames(1, (96, 80))
    sizes = [
        check(JpegXl(3), source_of(these, tmp_path / f"{depth}.mkv", depth=depth), tmp_path / f"{depth}").rate_bytes
        for depth, these in ((8, frames), (10, ten_bits(frames)))
    ]
    samples = 96 * 80 * 3 // 2
    assert 8 * (sizes[1] - sizes[0]) < 2.3 * samples  # two bits of noise a sample, and little else


def test_webp_refuses_ten_bits(make_frames: MakeFrames, tmp_path: Path) -> None:
    source = source_of(ten_bits(make_frames(1)), tmp_path / "source.mkv", depth=10)
    with pytest.raises(UnsupportedInputError, match=r"8 bits a sample .* not 10"):
        Webp("lossless").encode(source, 0, tmp_path)


def test_x265_refuses_what_is_too_small(make_frames: MakeFrames, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInputError, match="x265:lossless cannot code 6x6"):
        X265("lossless").encode(source_of(make_frames(1, (6, 6)), tmp_path / "source.mkv"), 0, tmp_path)


@pytest.mark.parametrize("missing", ["cjxl", "djxl"])
def test_a_missing_program_is_told_with_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"cjxl", "djxl"} - {missing}:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CodecUnavailableError, match=f"no {missing} on the PATH: install libjxl-tools"):
        JpegXl().check()
    with pytest.raises(CodecUnavailableError, match="install libjxl-tools"):
        JpegXl().settings()


def test_a_program_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cjxl", "djxl"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no memory' >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UnsupportedInputError, match="cjxl failed with exit code 3: no memory"):
        JpegXl().encode(source_of(still(), tmp_path / "source.mkv"), 0, tmp_path)


def test_other_samples_than_coded_are_seen(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Careless(Png):
        def write_samples(self, samples: np.ndarray, depth: int, path: Path) -> None:
            super().write_samples(samples & 254, depth, path)

    source = source_of(still(), tmp_path / "source.mkv")
    (frame,) = Careless().decode(Careless().encode(source, 0, tmp_path).files, source.format)
    assert not same(next(source.frames()), frame)
    assert not same(frame, Frame(frame.y.astype(np.uint16), frame.uv, 0))


def test_ffv1_keeps_the_smaller_of_its_context_models(tmp_path: Path, make_frames: MakeFrames) -> None:
    source = source_of(make_frames(2, CIF_AND_MORE), tmp_path / "source.mkv")
    codec, sizes = Ffv1(), []
    for context in (0, 1):
        options = codec.parameters(source.format, context)
        path = tmp_path / f"{context}.mkv"
        sizes.append(codec.mux(source, path, options, intra=True, pixels="yuv420p", at="").rate_bytes)
    assert check(codec, source, tmp_path / "both").rate_bytes == min(sizes)


# ------------------------------------------------------------------- through `vidcodec evaluate`


def run(clips: list[Path], codecs: str, folder: Path, **changes: object):  # type: ignore[no-untyped-def]
    request = Request([str(c) for c in clips], parse_codecs(codecs), folder, FrameChoice(None, exact=True), jobs=2)
    return evaluate(replace(request, **changes))  # type: ignore[arg-type]


@pytest.mark.usefixtures("workers_here")
def test_ours_and_rivals_are_compared_by_bytes(make_frames: MakeFrames, tmp_path: Path) -> None:
    weights = tiny_lossless_weights(tmp_path)
    source_of(still((40, 24)), tmp_path / "still.mkv")
    source_of(ten_bits(make_frames(2, (40, 24))), tmp_path / "deep.mkv", depth=10)
    clips = [tmp_path / "still.mkv", tmp_path / "deep.mkv"]
    results = run(clips, f"vidcodec:lossless=1,adapt=none,weights={weights},ffv1", tmp_path / "out", anchor="ffv1")
    assert results.failures == []
    assert [(c.rgb, c.bit_depth) for c in results.clips] == [(True, 8), (False, 10)]
    assert len(results.points) == 4
    assert all(p.details["identical"] and p.quality == {} and p.bpp > 0 for p in results.points)
    ours, ffv1 = (p for p in results.points if p.clip == "still")
    single, _, mean = results.comparisons
    assert (single.metric, mean.clip, mean.clips) == (BYTES, None, [2, 0])
    assert single.bd_rate == pytest.approx(100 * (ours.bytes / ffv1.bytes - 1))
    page = write_report(results, tmp_path / "out", tmp_path / "page").read_text()
    assert "Bytes against ffv1" in page
    assert "No point was measured" not in page


@pytest.mark.usefixtures("workers_here")
def test_adapted_lossless_files_are_measured_with_their_update(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    weights = tiny_lossless_weights(tmp_path)
    spec = f"vidcodec:lossless=1,steps=4,update_parameters=biases,weights={weights}"
    (point,) = run([make_clip(size=(40, 24))], spec, tmp_path / "out").points
    assert point.details["identical"]
    assert point.bytes == point.file_bytes
    assert {"plain"} <= point.details["costs"].keys()


@pytest.mark.usefixtures("workers_here")
def test_lossy_codecs_see_rgb_as_420_and_are_measured_against_it(tmp_path: Path) -> None:
    source_of(still((64, 48)), tmp_path / "still.mkv")
    results = run([tmp_path / "still.mkv"], "jpeg,rates=95", tmp_path / "out")
    (point,) = results.points
    assert (point.quality["psnr_y"] or 0) > (point.quality["psnr_rgb"] or 0) > 15


@pytest.mark.usefixtures("workers_here")
def test_lossy_codecs_refuse_ten_bits(make_frames: MakeFrames, tmp_path: Path) -> None:
    source_of(ten_bits(make_frames(1)), tmp_path / "deep.mkv", depth=10)
    (failure,) = run([tmp_path / "deep.mkv"], "jpeg,rates=50", tmp_path / "out").failures
    assert "leave --exact out" in failure.error


def test_what_is_not_lossless_is_a_failed_point(
    make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in (
        ("cjxl", 'printf "P5\\n1 1\\n255\\n0" > "$2"'),
        ("djxl", 'printf "P5\\n1 1\\n255\\n0" > "$2"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (failure,) = run([make_clip(size=(2, 2))], "jxl", tmp_path / "out").failures
    assert "ValueError" in failure.error or "gave other samples back" in failure.error
