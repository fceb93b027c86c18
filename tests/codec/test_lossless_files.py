"""The lossless mode on whole files: every sample comes back, or an error says why not."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from lossless_support import tiny_lossless, tiny_lossless_weights

from vidcodec.bitstream import BitstreamReader, FrameUnit, bitstream_bytes
from vidcodec.codec.decode import VideoDecoder, decode_video
from vidcodec.codec.encode import encode_video
from vidcodec.codec.files import units_size
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.unit_spool import UnitSpool
from vidcodec.errors import (
    CorruptBitstreamError,
    ModelMismatchError,
    ModelNotFoundError,
    UnsupportedInputError,
    UnsupportedVersionError,
    VidcodecError,
)
from vidcodec.families.family import CodedFrame
from vidcodec.families.lossless.checkpoint import save_lossless
from vidcodec.families.lossless.crops import LosslessCrops
from vidcodec.families.lossless.family import LosslessFamily
from vidcodec.families.lossless.pictures import HASH_BYTES, LosslessPictureCodec, _pack, _unpack, to_planes
from vidcodec.updates.finetune import Finetuner
from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader

EVERY_FRAME = Sampling(fps=None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lossless_weights(tmp_path_factory.mktemp("lossless"))


@pytest.fixture(scope="module")
def options(weights: Path) -> EncodeOptions:
    return EncodeOptions(sampling=EVERY_FRAME, weights=weights, adapt="none", device="cpu", lossless=True, steps=4)


def read(path: Path, sampling: Sampling = EVERY_FRAME) -> tuple[VideoFormat, list[Frame]]:
    with VideoReader(path, sampling, exact=True) as reader:
        return reader.format, list(reader.frames())


def assert_same(frames: list[Frame], originals: list[Frame]) -> None:
    assert len(frames) == len(originals)
    for a, b in zip(frames, originals, strict=True):
        assert np.array_equal(a.y, b.y)
        assert np.array_equal(a.uv, b.uv)
        assert a.pts == b.pts


def round_trip(source: Path, output: Path, options: EncodeOptions) -> VideoDecoder:
    """Encode and compare every frame; the decoder is closed."""
    encode_video(source, output, options)
    video, originals = read(source, options.sampling)
    with VideoDecoder(output, weights=options.weights, device="cpu") as decoder:
        assert_same([frame for _, frame, _ in decoder.frames()], originals)
        assert decoder.format == replace(video, frame_rate=decoder.format.frame_rate)
    return decoder


def noise_frame(video: VideoFormat, seed: int = 0) -> Frame:
    rng, top = np.random.default_rng(seed), 1 << video.bit_depth
    y = rng.integers(0, top, (video.height, video.width))
    uv = rng.integers(0, top, (2, video.chroma_height, video.chroma_width))
    return Frame(y.astype(video.dtype), uv.astype(video.dtype), 7)


@pytest.mark.parametrize(("size", "bits"), [((48, 32), 8), ((47, 31), 8), ((33, 50), 10), ((1, 1), 8)])
def test_videos_come_back_sample_by_sample(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, size: tuple[int, int], bits: int
) -> None:
    clip = make_clip(frames=3, size=size, bits=bits)
    decoder = round_trip(clip, tmp_path / "clip.vdc", options)
    assert not decoder.format.rgb
    decode_video(tmp_path / "clip.vdc", tmp_path / "shown.mkv", weights=options.weights)
    assert_same(read(tmp_path / "shown.mkv")[1], read(clip)[1])


def test_frames_are_sampled(make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions) -> None:
    sampled = replace(options, sampling=Sampling(fps=1))
    decoder = round_trip(make_clip(frames=4), tmp_path / "clip.vdc", sampled)
    assert len(decoder) == 2


@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "grey"])
def test_pictures_come_back_sample_by_sample(tmp_path: Path, options: EncodeOptions, channels: int) -> None:
    shape = (29, 41, 3)[: 2 + (channels == 3)]
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    decoder = round_trip(tmp_path / "in.png", tmp_path / "picture.vdc", options)
    assert decoder.format.rgb == (channels == 3)
    decode_video(tmp_path / "picture.vdc", tmp_path / "out", weights=options.weights)
    (shown,) = (tmp_path / "out").iterdir()
    assert np.array_equal(cv2.imread(str(shown), cv2.IMREAD_COLOR), cv2.imread(str(tmp_path / "in.png")))


def test_rgb_video_stays_rgb(tmp_path: Path, options: EncodeOptions) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 34, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    round_trip(tmp_path / "in.png", tmp_path / "picture.vdc", options)
    decode_video(tmp_path / "picture.vdc", tmp_path / "shown.mkv", weights=options.weights)
    video, (frame,) = read(tmp_path / "shown.mkv")
    assert video.rgb
    assert np.array_equal(np.stack([frame.uv[0], frame.y, frame.uv[1]], -1), picture)
    round_trip(tmp_path / "shown.mkv", tmp_path / "again.vdc", options)


def test_rgb_of_ten_bits_stays_rgb(tmp_path: Path, options: EncodeOptions) -> None:
    samples = np.random.default_rng(0).integers(0, 1024, (3, 22, 30)).astype(np.uint16)
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = 30, 22, "gbrp10le"
        picture = av.VideoFrame(30, 22, "gbrp10le")
        for plane, values in zip(picture.planes, samples, strict=True):
            np.frombuffer(plane, np.uint16).reshape(22, -1)[:, :30] = values
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    decoder = round_trip(tmp_path / "in.mkv", tmp_path / "picture.vdc", options)
    assert (decoder.format.rgb, decoder.format.bit_depth) == (True, 10)
    decode_video(tmp_path / "picture.vdc", tmp_path / "shown.mkv", weights=options.weights)
    (frame,) = read(tmp_path / "shown.mkv")[1]
    assert np.array_equal(np.concatenate([frame.y[None], frame.uv]), samples)


@pytest.mark.parametrize("target", ["shown.y4m", "shown.mp4"])
def test_rgb_goes_where_it_can_be_kept(tmp_path: Path, options: EncodeOptions, target: str) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((8, 8, 3), np.uint8))
    encode_video(tmp_path / "in.png", tmp_path / "picture.vdc", options)
    with pytest.raises(VidcodecError, match="directory for PNG"):
        decode_video(tmp_path / "picture.vdc", tmp_path / target, weights=options.weights)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p", "yuv420p12le"])
def test_what_would_lose_samples_is_refused(tmp_path: Path, options: EncodeOptions, pixels: str) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.width, stream.height, stream.pix_fmt = 16, 16, pixels
        container.mux(stream.encode(av.VideoFrame(16, 16, pixels)))
        container.mux(stream.encode(None))
    with pytest.raises(UnsupportedInputError, match="without loss"):
        encode_video(tmp_path / "in.mkv", tmp_path / "clip.vdc", options)
    assert not (tmp_path / "clip.vdc").exists()


def test_pictures_of_sixteen_bits_are_refused(tmp_path: Path, options: EncodeOptions) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(UnsupportedInputError, match="16 bits"):
        encode_video(tmp_path / "in.png", tmp_path / "picture.vdc", options)


@pytest.mark.parametrize(
    "video", [VideoFormat(40, 30), VideoFormat(41, 29, 10), VideoFormat(24, 24, rgb=True)], ids=["8", "10", "rgb"]
)
def test_noise_costs_a_byte_more_than_its_samples_at_most(video: VideoFormat) -> None:
    codec, frame = LosslessPictureCodec(tiny_lossless(), video), noise_frame(video)
    coded = codec.encode(frame)
    samples = frame.y.size + frame.uv.size
    assert len(coded.payload) <= HASH_BYTES + 2 + samples * video.bit_depth // 8
    assert_same([codec.reconstruct(coded.payload, frame.pts).show()], [frame])


def test_adaptation_pays_or_is_left_out(make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions) -> None:
    clip = make_clip(frames=4, size=(96, 64))
    plain = encode_video(clip, tmp_path / "plain.vdc", options)
    adapted = encode_video(clip, tmp_path / "adapted.vdc", replace(options, adapt="full", steps=25))
    assert adapted.size < plain.size
    assert adapted.update_size > 0
    assert adapted.chosen == "adapted"
    saved = adapted.costs["plain"] - adapted.costs["adapted"]
    assert saved * 4 * 96 * 64 / 8 == pytest.approx(plain.size - adapted.size, abs=1e-6)
    with VideoDecoder(adapted.output, weights=options.weights, device="cpu") as decoder:
        assert_same([frame for _, frame, _ in decoder.frames()], read(clip)[1])


def test_a_stopped_encode_goes_on_from_its_finetuning(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, asked = make_clip(frames=3, size=(64, 48)), replace(options, adapt="full", steps=12)
    whole = encode_video(clip, tmp_path / "whole.vdc", asked)
    assert whole.chosen == "adapted"

    def stop(stage: str, share: float, _: dict) -> None:
        if stage == "code adapted" and share > 0.5:
            raise KeyboardInterrupt

    kept = replace(asked, work=tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        encode_video(clip, tmp_path / "o.vdc", kept, stop)
    monkeypatch.setattr(Finetuner, "run", lambda *_: pytest.fail("finetuned again"))
    assert encode_video(clip, tmp_path / "o.vdc", kept).output.read_bytes() == whole.output.read_bytes()


@pytest.mark.parametrize("what", ["biases", "last-layer", "low-rank:1", "random:50"])
def test_any_selection_of_parameters_may_be_adapted(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, what: str
) -> None:
    clip = make_clip(frames=2, size=(64, 64))
    chosen = replace(options, adapt="decoder", update_parameters=what, steps=6)
    encode_video(clip, tmp_path / "adapted.vdc", chosen)
    with VideoDecoder(tmp_path / "adapted.vdc", weights=options.weights, device="cpu") as decoder:
        assert_same([frame for _, frame, _ in decoder.frames()], read(clip)[1])


def test_the_smaller_file_is_kept_to_the_byte() -> None:
    """An update of 3 bytes saves 10 in each frame's payload: less than its own unit and index entry take."""
    assert units_size(b"abc", [90]) > units_size(b"", [100])
    assert units_size(b"abc", [75]) < units_size(b"", [100])


def test_coded_frames_wait_on_disk() -> None:
    units = [FrameUnit(i, 10 * i, bytes([i] * (100 + i)), i, 0, 0, 0) for i in range(5)]
    with UnitSpool() as spool:
        for unit in units:
            spool.append(unit)
        assert list(spool) == units
        assert spool[-2:] == units[-2:]
        assert spool.sizes == [len(unit.to_bytes()) for unit in units]
        with pytest.raises(IndexError):
            spool[5]


def test_memory_does_not_grow_with_the_number_of_frames(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units are let go of as soon as they are coded."""
    alive: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
    encode, most = LosslessPictureCodec.encode, 0

    def counted(self: LosslessPictureCodec, frame: Frame) -> CodedFrame:
        nonlocal most
        coded = encode(self, frame)
        alive[frame.pts] = coded.log
        most = max(most, len(alive))
        return coded

    monkeypatch.setattr(LosslessPictureCodec, "encode", counted)
    encode_video(make_clip(frames=5), tmp_path / "clip.vdc", options)
    assert most <= 2


@pytest.mark.parametrize(("bits", "times"), [(8, 4), (10, 8)])
@pytest.mark.parametrize("size", [(640, 480), (7, 5), (1, 1)])
def test_packing_takes_a_few_times_the_frame(bits: int, times: int, size: tuple[int, int]) -> None:
    video = VideoFormat(*size, bits)
    frame = noise_frame(video)
    tracemalloc.start()
    data = _pack(frame, bits)
    shown = _unpack(data, video, frame.pts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_same([shown], [frame])
    samples = np.concatenate([frame.y.ravel(), frame.uv.ravel()])
    assert data == np.packbits(samples[:, None] >> np.arange(bits - 1, -1, -1) & 1).tobytes()
    assert peak < times * video.frame_bytes + 10_000


def test_crops_are_kept_small_and_checks_are_made_once() -> None:
    video = VideoFormat(40, 30, 10, rgb=True)
    crops = LosslessCrops([noise_frame(video)], video, 3, torch.device("cpu"))
    assert [plane.dtype for plane in crops.planes(0)] == [np.int16, np.int16]
    exact = to_planes(noise_frame(video), video)
    assert all(np.array_equal(a, b) for a, b in zip(crops.planes(0), exact, strict=True))
    assert crops.checks() is crops.checks()


def test_crops_keep_the_places_of_the_scales() -> None:
    video = VideoFormat(150, 90)
    frames = [noise_frame(video, seed) for seed in range(2)]
    crops = LosslessCrops(frames, video, 3, torch.device("cpu"), size=64)
    batch = crops.crops(np.random.default_rng(0), 12)
    assert batch.y.shape == (12, 64, 64)
    assert batch.uv.shape == (12, 2, 32, 32)
    places = {
        (top, left)
        for f in frames
        for top in range(27)
        for left in range(87)
        for y in batch.y.numpy()
        if np.array_equal(f.y[top : top + 64, left : left + 64], y)
    }
    assert len(places) > 3
    assert all(top % 8 == left % 8 == 0 for top, left in places)


def test_damaged_frames_are_told_and_the_others_decode(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions
) -> None:
    clip, output = make_clip(frames=3), tmp_path / "clip.vdc"
    encode_video(clip, output, options)
    with BitstreamReader(output) as reader:
        payload = reader.frame(1).payload
    data = bytearray(output.read_bytes())
    data[data.index(payload) + len(payload) // 2] ^= 0xFF
    output.write_bytes(data)
    originals = read(clip)[1]
    with VideoDecoder(output, weights=options.weights, device="cpu") as decoder:
        shown = {index: frame for index, frame, _ in decoder.frames()}
        assert_same([shown[0], shown[2]], [originals[0], originals[2]])
        assert list(shown) == [0, 2]
        assert decoder.problems


def test_a_file_cut_short_gives_what_it_holds(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions
) -> None:
    clip, output = make_clip(frames=3), tmp_path / "clip.vdc"
    encode_video(clip, output, options)
    with BitstreamReader(output) as reader:
        payload = reader.frame(2).payload
    data = output.read_bytes()
    output.write_bytes(data[: data.index(payload) + 5])
    with VideoDecoder(output, weights=options.weights, device="cpu") as decoder:
        assert_same([frame for _, frame, _ in decoder.frames()], read(clip)[1][:2])


@pytest.mark.parametrize("damage", ["payload", "hash", "way"])
def test_samples_that_are_not_what_went_in_are_refused(damage: str) -> None:
    video = VideoFormat(32, 24)
    codec = LosslessPictureCodec(tiny_lossless(), video)
    flat = Frame(np.full((24, 32), 90, np.uint8), np.full((2, 12, 16), 128, np.uint8), 0)
    payload = codec.encode(flat).payload
    changed = {
        "payload": payload[:-1] + bytes([payload[-1] ^ 1]),
        "hash": b"12345678" + payload[HASH_BYTES:],
        "way": payload[:HASH_BYTES] + b"\x09" + payload[HASH_BYTES + 1 :],
    }[damage]
    with pytest.raises(CorruptBitstreamError):
        codec.reconstruct(changed, 0)


def test_a_wrong_checksum_is_told(make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions) -> None:
    encode_video(make_clip(frames=1), tmp_path / "clip.vdc", options)
    with BitstreamReader(tmp_path / "clip.vdc") as reader:
        frame = reader.frame(0)
        other = replace(frame, checksum=frame.checksum ^ 1)
        (tmp_path / "other.vdc").write_bytes(bitstream_bytes(reader.header, [], [other]))
    with (
        VideoDecoder(tmp_path / "other.vdc", weights=options.weights, device="cpu") as decoder,
        pytest.raises(CorruptBitstreamError, match="checksum"),
    ):
        decoder.frame(0)


def test_other_weights_are_refused(make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions) -> None:
    encode_video(make_clip(), tmp_path / "clip.vdc", options)
    save_lossless(tiny_lossless(1), tmp_path / "other.safetensors")
    with pytest.raises(ModelMismatchError):
        VideoDecoder(tmp_path / "clip.vdc", weights=tmp_path / "other.safetensors")
    with pytest.raises(ModelNotFoundError):
        VideoDecoder(tmp_path / "clip.vdc", weights=tmp_path / "none.safetensors")


def test_weights_of_the_lossy_codec_are_refused(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, tiny_weights: Path
) -> None:
    with pytest.raises(ModelMismatchError, match="lossless"):
        encode_video(make_clip(), tmp_path / "clip.vdc", replace(options, weights=tiny_weights))


def test_planes_of_an_unknown_kind_are_told(
    make_clip: Callable[..., Path], tmp_path: Path, options: EncodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidcodec.families.lossless.pictures.YUV", b"\x07")
    encode_video(make_clip(), tmp_path / "clip.vdc", options)
    with pytest.raises(UnsupportedVersionError, match="kind"):
        VideoDecoder(tmp_path / "clip.vdc", weights=options.weights)


@pytest.mark.parametrize("name", ["PHASES", "KNOWN", "LUMA_REACH", "CHROMA_REACH", "SPREAD", "GUIDE", "MARGIN"])
def test_files_name_the_order_of_the_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = LosslessFamily("lossless", tiny_lossless(), bytes(16), torch.device("cpu"))
    before = family.tables_digest
    monkeypatch.setattr(f"vidcodec.families.lossless.network.{name}", 5)
    assert family.tables_digest != before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("quality", 50.0),
        ("target_psnr", 40.0),
        ("target_bpp", 1.0),
        ("target_size", 1000),
        ("refine", "none"),
        ("quantizer", "rdoq"),
        ("model", "compressai:mbt2018:1"),
        ("adapt", "encoder"),
    ],
)
def test_options_that_have_no_meaning_are_refused(option: str, value: object) -> None:
    with pytest.raises(UnsupportedInputError, match=f"'{option}'"):
        EncodeOptions(lossless=True, **{option: value})  # type: ignore[arg-type]


def test_the_lossless_model_needs_the_lossless_mode() -> None:
    with pytest.raises(UnsupportedInputError, match="'lossless'"):
        EncodeOptions(model="lossless")


def test_what_is_missing_is_told_before_the_video_is_read(tmp_path: Path, options: EncodeOptions) -> None:
    video = tmp_path / "no_such.mkv"
    with pytest.raises(ModelNotFoundError):
        encode_video(video, tmp_path / "a.vdc", replace(options, weights=tmp_path / "none.safetensors"))
    learned = replace(options, adapt="full", update_parameters="learned")
    with pytest.raises(VidcodecError, match="importance"):
        encode_video(video, tmp_path / "a.vdc", learned)
