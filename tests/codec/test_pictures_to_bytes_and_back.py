"""One picture through network and entropy coder: every size, every level, wrong bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.family import check_symbols
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.pictures import MspPictureCodec
from vidcodec.families.msp.quantising import error_weights
from vidcodec.families.planes import frame_to_planes, padded_size, planes_to_frame
from vidcodec.latents.decisions import PLAIN, Decisions
from vidcodec.latents.quantizer import Quantizer
from vidcodec.rate import RateLevel, weighted_mse
from vidcodec.video import Frame, VideoFormat


def noise_frame(width: int, height: int, bits: int, pts: int = 0) -> Frame:
    rng = np.random.default_rng(width * height)
    f = VideoFormat(width, height, bits)
    chroma = (2, f.chroma_height, f.chroma_width)
    y, uv = rng.integers(0, 1 << bits, (height, width)), rng.integers(0, 1 << bits, chroma)
    return Frame(y.astype(f.dtype), uv.astype(f.dtype), pts)


QUANTIZERS = [Quantizer(), Quantizer("scalar", 3, -2), Quantizer("trellis4", 0, 3), Quantizer("trellis8", 2, 5)]
SIZES = [(1, 1), (2, 2), (17, 31), (16, 16), (48, 33), (70, 18), (129, 65)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [8, 10])
def test_planes_hold_frames_without_loss(size: tuple[int, int], bits: int) -> None:
    frame = noise_frame(*size, bits, pts=77)
    planes = frame_to_planes(frame, bits, 16)
    h, w = padded_size(size[1], size[0], 16)
    assert planes.shape == (1, 6, h // 2, w // 2)
    assert planes.abs().max() <= 0.5
    back = planes_to_frame(planes, VideoFormat(*size, bits), 77)
    assert back.pts == 77
    assert np.array_equal(back.y, frame.y)
    assert np.array_equal(back.uv, frame.uv)
    assert back.y.dtype == frame.y.dtype


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0, 301, 512])
def test_decoder_gets_the_encoders_picture(tiny: Msp, size: tuple[int, int], level: int) -> None:
    planes = frame_to_planes(noise_frame(*size, 8), 8, 16)
    coded = MspPictureCodec(tiny, RateLevel(level)).encode(planes)
    height, width = 2 * planes.shape[2], 2 * planes.shape[3]
    _, log, show, *_ = MspPictureCodec(tiny, RateLevel(level)).reconstruct(coded.payload, height, width)
    assert log.crc == coded.log.crc
    assert torch.equal(show(), coded.show())
    assert (log.y_bits, log.z_bits) == (coded.log.y_bits, coded.log.z_bits)
    ideal = (log.y_bits + log.z_bits) / 8
    assert ideal - 1 <= len(coded.payload) <= 1.01 * ideal + 12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: str(q.code))
def test_every_quantizer_gives_the_decoder_the_encoders_picture(
    tiny: Msp, quantizer: Quantizer, size: tuple[int, int]
) -> None:
    planes = frame_to_planes(noise_frame(*size, 8), 8, 16)
    coded = MspPictureCodec(tiny, RateLevel(512), Decisions(quantizer, 0.2)).encode(planes)
    decoder = MspPictureCodec(tiny, RateLevel(512), Decisions(Quantizer.from_code(quantizer.code)))
    _, log, show, *_ = decoder.reconstruct(coded.payload, 2 * planes.shape[2], 2 * planes.shape[3])
    assert log == coded.log
    assert torch.equal(show(), coded.show())
    ideal = (log.y_bits + log.z_bits) / 8
    assert ideal - 1 <= len(coded.payload) <= 1.01 * ideal + 12


def test_weights_are_what_an_error_costs(tiny: Msp) -> None:
    """Noise in one channel of y costs as many bits of distortion as its weight says."""
    planes = frame_to_planes(noise_frame(96, 96, 8), 8, 16)
    level = torch.tensor([1.0])
    weights = error_weights(tiny, [planes], level)
    assert weights.shape == (tiny.config.latent,)
    with torch.no_grad():
        y = tiny.analyse(planes, level)
        shown = tiny.synthesise(y, level)
        for channel in range(0, tiny.config.latent, 3):
            noise = torch.zeros_like(y)
            noise[:, channel] = 0.01 * torch.randn(y.shape[-2:], generator=torch.Generator().manual_seed(channel))
            error = float(weighted_mse(tiny.synthesise(y + noise, level), shown)) * 96 * 96
            cost = float(tiny.rate_lambda(level)) * 255**2 * error / float(noise.square().sum())
            assert weights[channel] == pytest.approx(cost, rel=0.5)


@pytest.mark.parametrize("changes", [{"scales": 0}, {"scales": 1}, {"scales": 3}], ids=str)
def test_every_shape_of_network_codes(make_tiny: Callable[..., Msp], changes: dict[str, object]) -> None:
    model = make_tiny(3, **changes)
    planes = frame_to_planes(noise_frame(60, 50, 8), 8, 16)
    coded = MspPictureCodec(model, RateLevel(256)).encode(planes)
    _, log, show, *_ = MspPictureCodec(model, RateLevel(256)).reconstruct(coded.payload, 64, 64)
    assert log.crc == coded.log.crc
    assert torch.equal(show(), coded.show())


def test_few_coded_symbols_make_a_stream(make_tiny: Callable[..., Msp]) -> None:
    model = make_tiny()
    for passes in model.pass_scale:
        passes.head.weight.zero_()  # type: ignore[union-attr, operator]
        passes.head.bias.fill_(-3.5)  # type: ignore[union-attr, operator]
    model.z_index.table.fill_(-1.0)
    for coded_z in range(4):
        if coded_z:
            model.z_index.table[:, coded_z - 1] = 2.0
        planes = frame_to_planes(noise_frame(16, 16, 8), 8, 16)
        coded = MspPictureCodec(model, RateLevel(256)).encode(planes)
        _, log, show, *_ = MspPictureCodec(model, RateLevel(256)).reconstruct(coded.payload, 16, 16)
        assert log.crc == coded.log.crc
        assert torch.equal(show(), coded.show())
        assert bool(coded.payload) == bool(coded_z)


def test_the_decoded_picture_is_the_networks_own(tiny: Msp) -> None:
    """Coding adds nothing to what training sees but symbols that the scale path calls sure zeros."""
    planes = frame_to_planes(noise_frame(64, 64, 8), 8, 16)
    level = torch.tensor([2.0])
    with torch.no_grad():
        out = tiny(planes, level, rate="rounded")
    coded = MspPictureCodec(tiny, RateLevel(512)).encode(planes)
    assert (coded.show() - out.planes).abs().mean() < 0.02


@pytest.mark.parametrize("decisions", [PLAIN, Decisions(Quantizer("trellis8", 0, 3), 0.3)], ids=["plain", "trellis"])
def test_wrong_bytes_are_noticed(tiny: Msp, decisions: Decisions) -> None:
    codec = MspPictureCodec(tiny, RateLevel(512), decisions)
    coded = codec.encode(frame_to_planes(noise_frame(48, 48, 8), 8, 16))
    rng, seen = np.random.default_rng(0), 0
    for k in range(10):
        wrong = bytearray(coded.payload)
        wrong[int(rng.integers(0, len(wrong)))] ^= 1 << int(rng.integers(0, 8))
        payload = bytes(wrong) if k % 2 else coded.payload[: int(rng.integers(0, len(wrong) - 4))]
        try:
            _, log, show, *_ = codec.reconstruct(payload, 48, 48)
        except CorruptBitstreamError:  # a payload that ends too early
            continue
        seen += 1
        assert torch.isfinite(show()).all()
        with pytest.raises(CorruptBitstreamError, match="frame 5"):
            check_symbols(log, coded.log.crc, "frame 5")
    assert seen
    check_symbols(coded.log, coded.log.crc, "frame 5")
