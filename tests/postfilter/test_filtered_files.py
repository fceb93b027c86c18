"""Filtered files: pictures, sound and times as they were, the message in them, and what decoding makes of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from filter_support import TUNING, packets, picture_bytes, times, write_clip

from vidcodec.errors import InputError, OutputError, UnsupportedInputError
from vidcodec.postfilter.checkpoint import save_filter
from vidcodec.postfilter.decode import FilterDecodeOptions, FilterDecodeResult, FilteredVideo, filter_decode
from vidcodec.postfilter.encode import (
    FilterEncodeOptions,
    FilterEncodeResult,
    encode_source,
    encoder_options,
    filter_encode,
    fitted,
)
from vidcodec.postfilter.media import CodedVideo
from vidcodec.postfilter.message import UUID
from vidcodec.postfilter.planes import depth_of, pack, samples_of, squared_errors, to_planes
from vidcodec.video import Sampling, VideoReader
from vidcodec.video.vvenc import ffmpeg_with_vvenc

KINDS = [("x264", ".mp4"), ("x265", ".mp4"), ("x264", ".mkv"), ("x265", ".mkv"), ("x264", ".ts"), ("svtav1", ".mkv")]
FFMPEG = shutil.which("ffmpeg")
WITH_VVENC = pytest.param(
    "vvenc", marks=pytest.mark.skipif(ffmpeg_with_vvenc() is None, reason="no ffmpeg with libvvenc")
)


@pytest.fixture
def copied(filter_weights: Path, source: Path, tmp_path: Path) -> Callable[..., tuple[Path, FilterEncodeResult]]:
    """copied(coded file): that file with a message, and what was measured."""

    def make(path: Path, **changes: object) -> tuple[Path, FilterEncodeResult]:
        output = tmp_path / f"filtered{path.suffix}"
        options = FilterEncodeOptions(copy_of=source, weights=filter_weights, finetune=TUNING)
        return output, filter_encode(path, output, replace(options, **changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def decode(filter_weights: Path, tmp_path: Path) -> Callable[..., tuple[Path, FilterDecodeResult]]:
    def run(path: Path, suffix: str = ".mkv") -> tuple[Path, FilterDecodeResult]:
        output = tmp_path / f"shown{suffix}"
        return output, filter_decode(path, output, FilterDecodeOptions(weights=filter_weights))

    return run


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_copy_leaves_pictures_sound_and_times(
    codec: str, suffix: str, coded: Callable[..., Path], copied: Callable, decode: Callable
) -> None:
    before = coded(codec, suffix)
    after, result = copied(before)
    assert picture_bytes(after) == picture_bytes(before)
    assert packets(after, "audio") == packets(before, "audio")
    assert [t for t, _ in packets(after, "video")] == [t for t, _ in packets(before, "video")]
    shown, decoded = decode(after)
    assert (decoded.frames, decoded.messages, decoded.failed) == (8, 1, 0)
    assert times(shown) == times(before)
    assert result.frames == 8
    if suffix != ".ts":  # other frames of sound to a packet there
        assert packets(shown, "audio") == packets(before, "audio")


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg")
def test_other_decoder_sees_the_same_pictures(coded: Callable[..., Path], copied: Callable) -> None:
    for codec in ("x264", "x265"):
        before = coded(codec, ".mp4")
        after, _ = copied(before)
        command = (FFMPEG, "-v", "error", "-i")
        hashes = [
            subprocess.run([*command, path, "-map", "0:v", "-f", "framemd5", "-"], capture_output=True, check=True)
            for path in (before, after)
        ]
        assert hashes[0].stdout == hashes[1].stdout
        assert hashes[0].stdout.count(b"\n") > 8


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg")
@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_message_survives_remuxing(
    codec: str, coded: Callable[..., Path], copied: Callable, decode: Callable, tmp_path: Path
) -> None:
    path, _ = copied(coded(codec, ".mp4"))
    plain, _ = decode(path)
    expected = picture_bytes(plain)
    for name in ("a.mkv", "b.mp4", "c.ts", "d.mp4"):
        subprocess.run([FFMPEG, "-v", "error", "-i", path, "-map", "0:v", "-c", "copy", tmp_path / name], check=True)
        path = tmp_path / name
        shown, decoded = decode(path)
        assert (decoded.messages, decoded.warnings) == (1, [])
        assert picture_bytes(shown) == expected


@pytest.mark.parametrize("codec", ["x265", "svtav1"])
def test_decoder_shows_what_the_encoder_measured(
    codec: str, coded: Callable[..., Path], copied: Callable, source: Path, filter_weights: Path
) -> None:
    path, result = copied(coded(codec, ".mkv"))
    errors = np.zeros(3)
    with VideoReader(source, Sampling(fps=None)) as reader:
        pictures = FilteredVideo(path, FilterDecodeOptions(weights=filter_weights)).pictures()
        for picture, frame in zip(pictures, reader.frames(), strict=True):
            original = fitted(frame, reader.format.bit_depth, depth_of(picture))
            errors += squared_errors(to_planes(picture), original, picture.height, picture.width)
    samples = result.frames * samples_of(result.height, result.width)
    assert np.allclose(10 * np.log10(255.0**2 * samples / errors), result.psnr["kept"], atol=1e-3)


def test_kept_is_never_worse_than_none(coded: Callable[..., Path], copied: Callable) -> None:
    _, result = copied(coded("x264", ".mp4"))
    costs = result.segments[0]["cost_bits"]
    assert costs[result.segments[0]["kept"]] == min(costs.values())
    assert min(np.subtract(result.psnr["kept"], result.psnr["off"])) >= 0


def test_harmful_filter_is_switched_off(
    coded: Callable[..., Path], copied: Callable, decode: Callable, tmp_path: Path, tiny_filter
) -> None:
    tiny_filter.requires_grad_(False)
    tiny_filter.tail.bias.fill_(30.0)
    bad = tmp_path / "bad.safetensors"
    save_filter(tiny_filter, bad)
    before = coded("x265", ".mp4")
    after, result = copied(before, weights=bad, finetune=None)
    assert result.segments[0]["kept"] == "off"
    shown = tmp_path / "shown.mkv"
    decoded = filter_decode(after, shown, FilterDecodeOptions(weights=bad))
    assert (decoded.filtered, decoded.messages) == (0, 1)
    assert picture_bytes(shown) == picture_bytes(before)


def test_same_bytes_every_time(coded: Callable[..., Path], copied: Callable) -> None:
    first = copied(coded("x265", ".mp4"))[0].read_bytes()
    assert copied(coded("x265", ".mp4"))[0].read_bytes() == first


@pytest.mark.parametrize("kind", ["damaged", "foreign", "other filter"])
def test_unusable_message_gives_the_plain_video(
    kind: str, coded: Callable[..., Path], copied: Callable, decode: Callable, tmp_path: Path, tiny_filter
) -> None:
    before = coded("x264", ".mp4")
    after, _ = copied(before)
    data = bytearray(after.read_bytes())
    at = data.index(UUID)
    if kind == "damaged":
        data[at + 20] ^= 0x55
    if kind == "foreign":
        data[at] ^= 0x55
    after.write_bytes(data)
    if kind == "other filter":
        tiny_filter.requires_grad_(False)
        tiny_filter.head.bias.add_(0.25)
        save_filter(tiny_filter, tmp_path / "other.safetensors")
        shown = tmp_path / "shown.mkv"
        decoded = filter_decode(after, shown, FilterDecodeOptions(weights=tmp_path / "other.safetensors"))
    else:
        shown, decoded = decode(after)
    assert decoded.frames == 8
    if kind == "foreign":  # nobody's business: as without a message
        assert (decoded.messages, decoded.failed) == (0, 0)
        assert "no filter update" in decoded.notes[0]
    else:
        assert (decoded.filtered, decoded.failed) == (0, 1)
        assert "unfiltered" in decoded.warnings[0]
        assert picture_bytes(shown) == picture_bytes(before)


def test_filtering_twice_replaces_the_message(coded: Callable[..., Path], copied: Callable, tmp_path: Path) -> None:
    for codec, suffix in (("x265", ".mp4"), ("svtav1", ".mkv")):
        first, result = copied(coded(codec, suffix))
        again = tmp_path / f"first{suffix}"
        shutil.move(first, again)
        second, repeated = copied(again)
        assert packets(second, "video") == packets(again, "video")
        assert CodedVideo(second).attached == CodedVideo(again).attached
        assert repeated.video_bytes == result.video_bytes


@pytest.mark.parametrize(
    ("size", "pixels", "frames", "codec"),
    [
        ((97, 63), "yuv420p", 2, "x264"),
        ((96, 64), "yuv420p10le", 3, "x265"),
        ((64, 64), "yuv420p10le", 2, "svtav1"),
        ((96, 64), "yuv420p", 1, "x265"),
    ],
)
def test_shapes_depths_and_single_pictures(
    size: tuple[int, int], pixels: str, frames: int, codec: str, filter_weights: Path, decode: Callable, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames, size, pixels)
    options = FilterEncodeOptions(codec=codec, crf=40, weights=filter_weights, finetune=TUNING)
    result = filter_encode(clip, tmp_path / "out.mkv", options)
    assert (result.frames, result.width % 2, result.height % 2) == (frames, 0, 0)
    shown, decoded = decode(tmp_path / "out.mkv")
    assert (decoded.frames, decoded.failed) == (frames, 0)
    assert times(shown) == times(clip)
    with av.open(f"file:{shown}") as container:
        assert container.streams.video[0].pix_fmt == ("yuv420p10le" if "10" in pixels else "yuv420p")


def test_odd_sizes_and_vp9(filter_weights: Path, decode: Callable, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "odd.mkv", 3, (53, 37))
    coded = write_clip(tmp_path / "odd.webm", 3, (53, 37), codec="libvpx-vp9")
    shown, decoded = decode(coded)
    assert (decoded.filtered, decoded.messages) == (3, 0)
    with av.open(f"file:{shown}") as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (53, 37)
    options = FilterEncodeOptions(copy_of=source, weights=filter_weights, finetune=TUNING)
    result = filter_encode(coded, tmp_path / "filtered.mkv", options)
    assert (result.codec, result.frames) == ("vp9", 3)
    assert picture_bytes(tmp_path / "filtered.mkv") == picture_bytes(coded)
    assert decode(tmp_path / "filtered.mkv")[1].messages == 1


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (6, 3), (5, 3), (1, 1)])
def test_errors_count_the_samples_there_are(size: tuple[int, int]) -> None:
    width, height = size
    noise = np.random.default_rng(3)
    (ya, uva), (yb, uvb) = (
        (noise.integers(0, 1024, (height, width)), noise.integers(0, 1024, (2, (height + 1) // 2, (width + 1) // 2)))
        for _ in range(2)
    )
    expected = [np.square(ya - yb).sum(), *np.square(uva - uvb).sum((1, 2))]
    a, b = (pack(y.astype(np.uint16), uv.astype(np.uint16)) for y, uv in ((ya, uva), (yb, uvb)))
    assert squared_errors(a, b, height, width).tolist() == expected
    assert samples_of(height, width).tolist() == [ya.size, uva[0].size, uva[1].size]


@pytest.mark.parametrize("codec", ["libvpx-vp9", "x264"])
def test_psnr_of_odd_sizes_is_that_of_the_source_samples(codec: str, filter_weights: Path, tmp_path: Path) -> None:
    """x264 takes even sizes only: its pictures are grown, and what they are grown by has no source."""
    source, coded = write_clip(tmp_path / "odd.mkv", 2, (53, 37)), tmp_path / "coded.mkv"
    if codec == "x264":
        encode_source(source, coded, FilterEncodeOptions(codec="x264", qp=40), [], lambda *_: None)
    else:
        write_clip(coded, 2, (53, 37), codec=codec)
    options = FilterEncodeOptions(copy_of=source, weights=filter_weights, finetune=None)
    result = filter_encode(coded, tmp_path / "out.mkv", options)
    errors: list[list[np.ndarray]] = [[], [], []]
    with av.open(f"file:{source}") as a, av.open(f"file:{coded}") as b:
        for one, other in zip(a.decode(video=0), b.decode(video=0), strict=True):
            for found, p, q in zip(errors, one.planes, other.planes, strict=True):
                x, y = (np.frombuffer(z, np.uint8).reshape(-1, z.line_size).astype(float) for z in (p, q))
                found.append(np.square(x[: p.height, : p.width] - y[: p.height, : p.width]))
    expected = [10 * np.log10(255.0**2 / np.mean(found)) for found in errors]
    assert np.allclose(result.psnr["off"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"codec": "x266"}, "codec"),
        ({"profile": "huge"}, "profile"),
        ({"crf": 60.0}, "crf"),
        ({"codec": "svtav1", "qp": 64}, "qp"),
        ({"crf": 30.0, "qp": 30}, "qp"),
        ({"segment": -1.0}, "segment"),
    ],
)
def test_senseless_options_are_refused_by_their_names(changes: dict, field: str) -> None:
    with pytest.raises(UnsupportedInputError, match=f"'{field}'") as refused:
        FilterEncodeOptions(**changes)
    assert "--" not in str(refused.value)


def test_without_a_quality_there_is_a_usual_one() -> None:
    assert encoder_options(FilterEncodeOptions())["crf"] == "28"


def test_updates_over_time(filter_weights: Path, decode: Callable, tmp_path: Path) -> None:
    clip, coded = write_clip(tmp_path / "long.mkv", 12), tmp_path / "coded.mp4"
    with av.open(f"file:{coded}", "w") as container, av.open(f"file:{clip}") as reader:
        stream = container.add_stream("libx264", rate=25, options={"qp": "38", "g": "4", "keyint_min": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in reader.decode(video=0):
            picture.pict_type = 0
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"segments{suffix}"
        options = FilterEncodeOptions(copy_of=clip, weights=filter_weights, segment=0.1, finetune=TUNING)
        result = filter_encode(coded, output, options)
        assert [s["frames"] for s in result.segments] == [4, 4, 4]
        _, decoded = decode(output)
        assert (decoded.messages, decoded.failed, decoded.frames) == (3, 0, 12)


def test_no_update_means_base_filter_and_a_note(coded: Callable[..., Path], decode: Callable) -> None:
    _, decoded = decode(coded("x264", ".mp4"), ".y4m")
    assert (decoded.messages, decoded.filtered) == (0, 8)
    assert "base filter" in decoded.notes[0]


def test_cut_file_gives_what_is_there(coded: Callable[..., Path], copied: Callable, decode: Callable) -> None:
    path, _ = copied(coded("x265", ".mkv"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    _, decoded = decode(path)
    assert 0 < decoded.frames <= 8


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_av1_needs_matroska(suffix: str, source: Path, filter_weights: Path, tmp_path: Path) -> None:
    options = FilterEncodeOptions(codec="svtav1", crf=40, weights=filter_weights)
    with pytest.raises(OutputError, match="mkv"):
        filter_encode(source, tmp_path / f"out{suffix}", options)
    assert not list(tmp_path.glob("*out*"))


def test_other_source_is_refused(coded: Callable[..., Path], copied: Callable, tmp_path: Path) -> None:
    path = coded("x264", ".mp4")
    for name, frames, size in (("shorter", 5, (96, 64)), ("longer", 9, (96, 64)), ("smaller", 8, (64, 64))):
        other = write_clip(tmp_path / f"{name}.mkv", frames, size)
        with pytest.raises(InputError, match=r"pictures|source"):
            copied(path, copy_of=other)
    assert not list(tmp_path.glob("*filtered*"))


def test_nothing_is_left_after_an_interruption(
    source: Path, filter_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidcodec.postfilter.encode.embed", stop)
    with pytest.raises(KeyboardInterrupt):
        filter_encode(source, tmp_path / "out.mp4", FilterEncodeOptions(crf=40, weights=filter_weights, finetune=None))
    assert not list(tmp_path.iterdir())


def test_info_of_a_coded_file(coded: Callable[..., Path]) -> None:
    survey = CodedVideo(coded("x264", ".mkv")).packets()
    assert len(survey.times) == 8
    assert survey.keys == survey.times[:1]
    assert survey.times == sorted(survey.times)


@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1", WITH_VVENC])
def test_sampled_pictures_and_their_sound(codec: str, filter_weights: Path, decode: Callable, tmp_path: Path) -> None:
    """Of 1.2 s at 25 pictures a second with sound: five a second of 0.6 s from 0.4 s on, and the sound of that."""
    clip = write_clip(tmp_path / "clip.mkv", 30, audio=True)
    sampling = Sampling(fps=5, start=0.4, duration=0.6)
    options = FilterEncodeOptions(codec=codec, qp=40, weights=filter_weights, finetune=TUNING, sampling=sampling)
    result = filter_encode(clip, tmp_path / "out.mkv", options)
    assert result.frames == 3
    shown, decoded = decode(tmp_path / "out.mkv")
    assert (decoded.messages, times(shown)) == (1, [0.0, 0.2, 0.4])
    sound = [(t - 0.4, data) for t, data in packets(clip, "audio") if 0.4 <= t < 1.0]
    passed = packets(tmp_path / "out.mkv", "audio")
    assert [data for _, data in passed] == [data for _, data in sound]
    assert np.allclose([t for t, _ in passed], [t for t, _ in sound], atol=0.002)
    assert min(result.psnr["off"]) > 20  # the right pictures, in their order
