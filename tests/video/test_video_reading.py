"""What comes out of files of all kinds, and what is said about those that cannot be read."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from vidcodec.errors import InputError, NoVideoError, UnsupportedInputError
from vidcodec.video import Sampling, VideoFormat, VideoReader
from vidcodec.video.pictures import PixelLayout, to_frame

EVERY = Sampling(fps=None)


def read(path, sampling=EVERY):
    with VideoReader(path, sampling, threads=1) as reader:
        return list(reader.frames()), reader


def write_raw(path, planes, size, pixels):
    """One FFV1 frame of the given planes."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        picture = av.VideoFrame(*size, pixels)
        for plane, samples in zip(picture.planes, planes, strict=True):
            rows = np.frombuffer(plane, samples.dtype).reshape(-1, plane.line_size // samples.itemsize)
            rows[: samples.shape[0], : samples.shape[1]] = samples
        picture.pts = 0
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def noise(shape, bits):
    return np.random.default_rng(1).integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize(("pixels", "bits"), [("yuv420p", 8), ("yuv420p10le", 10)])
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 48), (4096, 16)])
def test_planes_come_bit_for_bit(tmp_path, pixels, bits, size):
    half = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    planes = [noise(size[::-1], bits), noise(half, bits), noise(half, bits)[::-1]]
    write_raw(tmp_path / "a.mkv", planes, size, pixels)
    (frame,), reader = read(tmp_path / "a.mkv")
    assert np.array_equal(frame.y, planes[0])
    assert np.array_equal(frame.uv, planes[1:])
    assert reader.format.bit_depth == bits
    assert reader.notes == []


def exact_frame(pixels, size, values):
    """A picture whose planes hold the bytes `values((lines, bytes a line), plane)`, and what is kept of it."""
    picture = av.VideoFrame(*size, pixels)
    for index, plane in enumerate(picture.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size or 4)  # a palette has no lines
        rows[:] = values(rows.shape, index)
    layout = PixelLayout.of(picture.format).exact()
    return picture, to_frame(picture, layout, VideoFormat(*size, layout.depth, rgb=layout.kind == "gbr"), 0)


def words(shape, bits, order):
    """Samples of two bytes, as bytes."""
    return noise((shape[0], shape[1] // 2), bits).astype(f"{order}u2").view(np.uint8)


PLANAR_RGB = [("gbrp", 8), ("gbrap", 8)] + [
    (f"{name}{bits}{end}", bits) for name, bits in (("gbrp", 9), ("gbrp", 10), ("gbrap", 10)) for end in ("le", "be")
]


@pytest.mark.parametrize(("pixels", "bits"), PLANAR_RGB)
@pytest.mark.parametrize("size", [(46, 22), (7, 3)])
def test_planes_of_rgb_are_kept_as_they_are(pixels, bits, size):
    order = ">" if pixels.endswith("be") else "<"

    def values(shape, plane):
        if plane == 3:
            opaque = np.full((shape[0], shape[1] // 2), 1023, f"{order}u2").view(np.uint8)
            return 255 if bits == 8 else opaque
        return np.roll(noise(shape, 8) if bits == 8 else words(shape, bits, order), 2 * plane)

    picture, frame = exact_frame(pixels, size, values)
    for kept, plane in zip((frame.y, *frame.uv), picture.planes, strict=False):
        rows = np.frombuffer(plane, np.uint8 if bits == 8 else f"{order}u2").reshape(plane.height, -1)
        assert np.array_equal(kept, rows[:, : size[0]] << (10 - bits if bits > 8 else 0))


@pytest.mark.parametrize("pixels", ["rgba", "bgra", "argb", "ya8", "yuva420p", "gbrap", "pal8", "yuva420p10le"])
def test_alpha_is_refused_where_all_is_to_be_kept_unless_it_is_opaque(pixels):
    exact_frame(pixels, (16, 8), lambda shape, plane: 255)
    with pytest.raises(UnsupportedInputError, match="alpha channel"):
        exact_frame(pixels, (16, 8), lambda shape, plane: 3)


def test_only_alpha_that_is_left_out_is_told(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((6, 8, 4), 255, np.uint8))
    with VideoReader(tmp_path / "a.png", EVERY, exact=True) as reader:
        assert (next(reader.frames()).y == 255).all()
        assert reader.notes == []


@pytest.mark.parametrize(("pixels", "bits"), [("yuv422p", 8), ("yuv444p", 8), ("yuv422p10le", 10), ("yuv444p10le", 10)])
def test_denser_chroma_is_averaged_and_luma_kept(tmp_path, pixels, bits):
    across = 1 if "444" in pixels else 2
    planes = [noise((6, 8), bits), noise((6, 8 // across), bits), np.full((6, 8 // across), 77, noise(1, bits).dtype)]
    write_raw(tmp_path / "a.mkv", planes, (8, 6), pixels)
    (frame,), reader = read(tmp_path / "a.mkv")
    assert np.array_equal(frame.y, planes[0])
    assert (frame.uv[1] == 77).all()
    wide = planes[1].astype(float)
    if across == 1:  # left-sited: 1/4 1/2 1/4 on the even columns
        padded = np.pad(wide, ((0, 0), (1, 1)), mode="edge")
        wide = (padded[:, 0:-2:2] + 2 * padded[:, 1:-1:2] + padded[:, 2::2]) / 4
    assert np.array_equal(frame.uv[0], np.floor((wide[::2] + wide[1::2]) / 2 + 0.5))
    assert reader.notes == [f"converted from {pixels} to yuv420p{'10' if bits == 10 else ''}"]


def test_more_than_ten_bits_are_rounded(tmp_path):
    luma = np.array([[0, 1, 2, 3, 4094, 4095]], np.uint16)
    write_raw(tmp_path / "a.mkv", [luma, noise((1, 3), 10), noise((1, 3), 10)], (6, 1), "yuv420p12le")
    (frame,), reader = read(tmp_path / "a.mkv")
    assert frame.y.tolist() == [[0, 0, 1, 1, 1023, 1023]]
    assert reader.notes == ["12 bits per sample rounded to 10"]


def test_gray_keeps_its_luma(tmp_path):
    gray = noise((31, 17), 8)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    (frame,), reader = read(tmp_path / "a.png")
    assert np.array_equal(frame.y, gray)
    assert (frame.uv == 128).all()
    assert reader.format.colour.full_range
    assert reader.notes == ["mono: chroma set to neutral"]


@pytest.mark.parametrize(("height", "matrix", "luma"), [(16, 6, 81), (720, 1, 63)])
def test_rgb_stills_take_the_matrix_of_their_size(tmp_path, height, matrix, luma):
    red = np.zeros((height, 8, 4), np.uint8)
    red[..., 2] = red[..., 3] = 255
    cv2.imwrite(str(tmp_path / "a.png"), red)
    (frame,), reader = read(tmp_path / "a.png")
    assert (frame.y == luma).all()
    assert reader.format.colour.matrix == matrix
    assert not reader.format.colour.full_range
    assert "transparency left out" in reader.notes
    assert reader.estimated_frames == 1


def test_jpeg_is_full_range(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((16, 16, 3), 255, np.uint8))
    (frame,), reader = read(tmp_path / "a.jpg")
    assert (frame.y == 255).all()
    assert reader.format.colour.full_range


def test_sixteen_bit_png_becomes_ten_bits(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4, 3), 65535, np.uint16))
    (frame,), reader = read(tmp_path / "a.png")
    assert reader.format.bit_depth == 10
    assert (frame.y == 940).all()
    assert (frame.uv == 512).all()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_told_and_not_applied(make_clip, rotation):
    frames, reader = read(make_clip("a.mp4", 2, codec="libx264", rotation=rotation))
    assert reader.format.rotation == rotation
    assert frames[0].y.shape == (16, 32)


def test_rotation_of_a_phone(make_clip):
    """The matrix that cameras held upright write: a quarter turn clockwise."""
    path = make_clip("a.mp4", 1, codec="libx264")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: times, id, duration, reserved, layer, group, volume
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert read(path)[1].format.rotation == 90


@pytest.mark.parametrize("name", ["frame%03d.png", "a:b.png", "http:x.png", "-i.png", "späße 1.png"])
def test_names_are_names(tmp_path, name):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"frame{index:03d}.png"), np.full((4, 4), index, np.uint8))
    (tmp_path / name).write_bytes(cv2.imencode(".png", np.full((4, 4), 99, np.uint8))[1].tobytes())
    frames, _ = read(tmp_path / name)
    assert [frame.y[0, 0] for frame in frames] == [99]


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "concat:a.mkv|b.mkv", "no such.mp4", "%03d.png"])
def test_what_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        VideoReader(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp4", "Dear diary,\n" * 50),
        ("text.txt", "Dear diary,\n" * 50),
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.mkv\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mkv\n#EXT-X-ENDLIST\n"),
        ("empty.mp4", ""),
    ],
)
def test_what_is_no_video(tmp_path, make_clip, capfd, name, content):
    make_clip("clip.mkv", 1)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        VideoReader(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_directory(tmp_path):
    with pytest.raises(InputError, match="directory"):
        VideoReader(tmp_path)


def test_sound_alone(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(NoVideoError, match="no video stream"):
        VideoReader(tmp_path / "a.wav")


def test_pictures_too_large(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((1, 16385), np.uint8))
    with pytest.raises(UnsupportedInputError, match="too large"):
        VideoReader(tmp_path / "a.png")


def test_a_size_change_midway(tmp_path):
    pictures = [cv2.imencode(".jpg", np.full(size, 50, np.uint8))[1].tobytes() for size in ((16, 16), (16, 32))]
    (tmp_path / "a.mjpeg").write_bytes(pictures[0] * 3 + pictures[1] * 3)
    with VideoReader(tmp_path / "a.mjpeg", EVERY) as reader, pytest.raises(UnsupportedInputError, match="'duration'"):
        list(reader.frames())


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_file_cut_short(make_clip, capfd, name):
    options = {} if name == "a.mkv" else {"qp": "0", "g": "1"}
    path = make_clip(name, 20, codec="ffv1" if name == "a.mkv" else "libx264", options=options, size=(64, 64))
    data = path.read_bytes()
    if name == "a.mp4":  # the index lies at the end: blank the last pictures instead
        middle, end = len(data) // 3, data.index(b"moov") - 4
        path.write_bytes(data[:middle] + bytes(end - middle) + data[end:])
    else:
        path.write_bytes(data[: len(data) * 2 // 3])
    frames, reader = read(path)
    assert 1 <= len(frames) < 20
    assert [int(frame.y[5, 5]) for frame in frames] == [16 + index for index in range(len(frames))]
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert any("damaged" in note or "cut short" in note for note in reader.notes)
    assert capfd.readouterr() == ("", "")


def test_an_mp4_without_its_index(make_clip):
    path = make_clip("a.mp4", 20, codec="libx264")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="complete"):
        VideoReader(path)


def test_y4m_says_where_its_chroma_lies(tmp_path):
    for tag, location in (("420jpeg", 2), ("420mpeg2", 1), ("420paldv", 3)):
        (tmp_path / "a.y4m").write_bytes(f"YUV4MPEG2 W2 H2 F5:1 Ip A4:3 C{tag}\nFRAME\nabcdef".encode())
        (frame,), reader = read(tmp_path / "a.y4m")
        assert frame.y.tobytes() + frame.uv.tobytes() == b"abcdef"
        assert reader.format.colour.chroma_location == location
        assert reader.format.sample_aspect == Fraction(4, 3)


def test_gif(make_clip):
    frames, reader = read(make_clip("a.gif", 5, codec="gif", pixels="gray", rate=10))
    assert len(frames) == 5
    assert "transparency left out" in reader.notes
