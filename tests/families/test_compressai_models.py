"""CompressAI's hyperprior networks: loading, exact scales, coding, colour. No weights are fetched."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compressai.models import MeanScaleHyperprior, ScaleHyperprior
from safetensors.torch import save_file
from torch import Tensor, nn

from vidcodec.entropy.bank import bank
from vidcodec.entropy.exact import WIDE_BITS, WIDE_LIMIT, WideConv, leaky, to_wide
from vidcodec.entropy.scales import LOG_STEP, MAX_INDEX, MIN_SCALE, index_to_scale
from vidcodec.errors import (
    CorruptBitstreamError,
    ModelMismatchError,
    ModelNotFoundError,
    UnsupportedInputError,
)
from vidcodec.families.compressai.network import (
    ARCHITECTURES,
    SCALE_BITS,
    ExactHyperScales,
    choose_z_tables,
    load_compressai,
    parse_name,
    parse_z_tables,
    scale_thresholds,
    weights_digest,
)
from vidcodec.families.compressai.pictures import CompressAIPictureCodec, planes_to_rgb, rgb_to_planes

N, M = 24, 32
BOTH = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Planes (1, 6, H/2, W/2): smooth shapes and some noise."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, height // 32 + 1, width // 32 + 1, generator=g)
    rgb = 0.5 + 0.2 * F.interpolate(coarse, (height, width), mode="bicubic")
    rgb = (rgb + 0.03 * torch.randn(1, 3, height, width, generator=g)).clamp(0, 1)
    return rgb_to_planes(rgb, 1, False)


@torch.no_grad()
def random_compressai(name: str, seed: int, n: int = N, m: int = M) -> ScaleHyperprior:
    """A network with random weights whose activations, y, z and scales have magnitudes like those of trained ones."""
    torch.manual_seed(seed)
    model = ARCHITECTURES[parse_name(name)[0]](n, m).eval().requires_grad_(False)
    means = isinstance(model, MeanScaleHyperprior)
    rgb = planes_to_rgb(picture(256, 384, seed), 1, False)
    spread = torch.exp(1.2 * torch.randn(m) + 0.5).clamp(0.2, 40)  # of y, by channel

    y = model.g_a(rgb)
    model.g_a[-1].weight.mul_((spread / y.std((0, 2, 3)))[:, None, None, None])
    model.g_a[-1].bias.copy_(-(model.g_a(rgb) - model.g_a[-1].bias[:, None, None]).mean((0, 2, 3)))
    y = model.g_a(rgb)
    hyper_input = y if means else y.abs()
    model.h_a[-1].weight.mul_(4 / model.h_a(hyper_input).std())
    medians = 0.3 * torch.randn(n)
    model.entropy_bottleneck.quantiles[:, 0, 1] = medians
    x = torch.round(model.h_a(hyper_input) - medians[:, None, None]) + medians[:, None, None]
    z_hat = x
    for layer in model.h_s:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.weight.mul_(3 / layer(x).std())
        x = layer(x.clone())
    last = [layer for layer in model.h_s if isinstance(layer, nn.Conv2d)][-1]
    share = torch.cat([spread, spread])[: last.out_channels]
    last.weight.mul_(0.03 * share[:, None, None, None])
    last.bias.mul_(0)
    mean = model.h_s(z_hat)[:, m:] if means else torch.zeros(())
    last.bias[:m] = (y - mean).std((0, 2, 3)).clamp_min(0.2)
    rgb = model.g_s(torch.round(y))
    model.g_s[-1].weight.mul_(0.1 / rgb.std((0, 2, 3))[None, :, None, None])
    model.g_s[-1].bias.copy_(0.5 - (model.g_s(torch.round(y)) - model.g_s[-1].bias[:, None, None]).mean((0, 2, 3)))
    model.update()
    return model


def name_of(architecture: str) -> str:
    return f"compressai:{architecture}:3"


# --------------------------------------------------------------------- names and weights


def test_a_supported_name_gives_architecture_and_quality() -> None:
    assert parse_name("compressai:mbt2018-mean:4") == ("mbt2018-mean", 4)
    assert parse_name("compressai:bmshj2018-hyperprior:8") == ("bmshj2018-hyperprior", 8)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("compressai:mbt2018:3", "autoregressive"),
        ("compressai:cheng2020-attn:3", "autoregressive"),
        ("compressai:bmshj2018-factorized:3", "no hyperprior"),
        ("compressai:mbt2018-mean-vbr:0", "variable rate"),
        ("compressai:ssf2020:1", "between frames"),
        ("compressai:nonsense:1", "no such model"),
        ("compressai:mbt2018-mean", "quality"),
        ("compressai:mbt2018-mean:0", "quality"),
        ("compressai:mbt2018-mean:9", "quality"),
        ("compressai:mbt2018-mean:four", "quality"),
        ("compressai:mbt2018-mean:4:5", "names no"),
        ("msp", "names no"),
    ],
)
def test_an_unsupported_name_says_why_and_what_is_supported(name: str, reason: str) -> None:
    with pytest.raises(ModelNotFoundError, match=reason) as e:
        parse_name(name)
    assert "compressai:mbt2018-mean:1..8" in str(e.value)
    assert "compressai:bmshj2018-hyperprior:1..8" in str(e.value)


def test_without_network_or_weights_the_error_names_the_fix_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    start = time.monotonic()
    with pytest.raises(ModelNotFoundError, match=r"no route to host.*mbt2018-mean-4.*'weights'"):
        load_compressai("compressai:mbt2018-mean:4")
    assert time.monotonic() - start < 2


def test_a_missing_weights_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no weights file"):
        load_compressai("compressai:mbt2018-mean:4", tmp_path / "none.pth")


@BOTH
@pytest.mark.parametrize("kind", ["plain.pth.tar", "training.pth", "weights.safetensors"])
def test_local_weights_load(architecture: str, kind: str, tmp_path: Path) -> None:
    model = random_compressai(name_of(architecture), 1)
    state, path = model.state_dict(), tmp_path / kind
    if kind.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    elif kind.startswith("training"):
        state = {f"module.{k}": v for k, v in state.items()}
        torch.save({"epoch": 3, "state_dict": state, "loss": 0.5}, path)
    else:
        torch.save(state, path)
    loaded = load_compressai(name_of(architecture), path)
    assert not loaded.training
    assert (loaded.N, loaded.M) == (N, M)
    assert weights_digest(loaded) == weights_digest(model)


def test_weights_of_something_else_are_a_mismatch(tmp_path: Path) -> None:
    other = random_compressai("compressai:bmshj2018-hyperprior:3", 1)
    broken = dict(other.state_dict(), **{"g_s.0.weight": torch.full((M, N, 5, 5), math.nan)})
    files = {
        "other.pth": (other.state_dict(), "compressai:mbt2018-mean:3"),
        "list.pth": ([1, 2], "compressai:mbt2018-mean:3"),
        "few.pth": ({"g_a.0.weight": torch.zeros(4, 3, 5, 5)}, "compressai:mbt2018-mean:3"),
        "nan.pth": (broken, "compressai:bmshj2018-hyperprior:3"),
    }
    for file, (content, name) in files.items():
        torch.save(content, tmp_path / file)
        with pytest.raises(ModelMismatchError, match=file):
            load_compressai(name, tmp_path / file)
    for file in ("noise.pth", "noise.safetensors"):
        (tmp_path / file).write_bytes(bytes(range(256)))
        with pytest.raises(ModelMismatchError, match=file):
            load_compressai("compressai:mbt2018-mean:3", tmp_path / file)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelMismatchError):
        load_compressai("compressai:mbt2018-mean:3", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_the_digest_covers_the_decoder_and_no_derived_table() -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 1)
    before = weights_digest(model)
    assert len(before) == 16
    with torch.no_grad():
        model.entropy_bottleneck._quantized_cdf.zero_()
        model.gaussian_conditional.scale_table.mul_(2)
        model.g_a[0].bias.add_(1)
        assert weights_digest(model) == before
        model.h_s[0].bias[0] += 1e-3
    assert weights_digest(model) != before


# ------------------------------------------------------------------------ exact arithmetic


def test_wide_layers_are_their_float64_counterparts_exactly() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-int(WIDE_LIMIT), int(WIDE_LIMIT) + 1, (1, 7, 5, 6), generator=g).double()
    weight, bias = torch.randn(7, 9, 5, 5, generator=g), torch.randn(9, generator=g)
    deconv = WideConv.from_transposed(weight, bias)
    w = torch.floor(weight.double() * 2.0**deconv.bits + 0.5)
    assert 2**14 <= w.abs().max() < 2**15
    b = torch.floor(bias.double() * 2.0 ** (deconv.bits + WIDE_BITS) + 0.5)
    assert torch.equal(deconv(x), F.conv_transpose2d(x, w, b, 2, 2, 1))

    conv = WideConv.from_float(weight[..., :3, :3].transpose(0, 1), bias)
    w = torch.floor(weight[..., :3, :3].transpose(0, 1).double() * 2.0**conv.bits + 0.5)
    b = torch.floor(bias.double() * 2.0 ** (conv.bits + WIDE_BITS) + 0.5)
    assert torch.equal(conv(x), F.conv2d(x, w, b, padding=1))


def test_sums_that_could_leave_the_exact_range_are_refused() -> None:
    with pytest.raises(ValueError, match="fan-in"):
        WideConv.from_float(torch.ones(1, 2000, 3, 3), torch.zeros(1))


def test_leaky_and_shift_round_half_up() -> None:
    x = torch.tensor([-(2.0**23) + 1, -200.0, -50.0, 0.0, 7.0], dtype=torch.float64)
    expected = [math.floor(v * 655 / 65536 + 0.5) if v < 0 else v for v in x.tolist()]
    assert leaky(x, 0.01).tolist() == expected
    assert leaky(x, 0.0).clamp(max=0).abs().sum() == 0
    assert to_wide(torch.tensor([-3.0, -2.0, 2.0, 2.0**50], dtype=torch.float64), 2).tolist() == [-1, 0, 1, WIDE_LIMIT]


def test_thresholds_lie_between_the_scales_and_far_from_a_tie() -> None:
    thresholds = scale_thresholds()
    assert len(thresholds) == MAX_INDEX
    for k, t in enumerate(thresholds):
        exact = index_to_scale(k + 0.5) * 2**SCALE_BITS
        assert t == round(exact)
        assert abs(exact % 1 - 0.5) > 1e-3  # an ulp is below 1e-8 here


@BOTH
def test_integer_scales_follow_the_float_network(architecture: str) -> None:
    model = random_compressai(name_of(architecture), 2)
    exact = ExactHyperScales(model)
    y = model.g_a(planes_to_rgb(picture(192, 256), 1, False))
    z = model.h_a(y if isinstance(model, MeanScaleHyperprior) else y.abs())
    medians = model.entropy_bottleneck.quantiles[:, 0, 1, None, None]
    q = torch.round(z - medians)
    scales = model.h_s(q + medians)[:, :M].double()
    index = exact.index(q)
    assert index.shape == y.shape
    assert index.float().std() > 5  # the networks here are worth the comparison
    expected = (torch.log(scales.clamp_min(1e-9) / MIN_SCALE) / LOG_STEP).round().clamp(0, MAX_INDEX)
    off = (index - expected).abs()
    assert (off > 1).float().mean() < 0.01
    assert (off > 0).float().mean() < 0.02
    integer = exact.scales(q) / 2**SCALE_BITS
    assert (integer.relu() - scales.relu()).abs().max() < 1e-3 * scales.max()


@BOTH
def test_wild_symbols_stay_within_the_tables(architecture: str) -> None:
    exact = ExactHyperScales(random_compressai(name_of(architecture), 2))
    q = torch.full((1, N, 1, 2), 32767.0)
    q[:, ::2] = -32768
    index = exact.index(q)
    assert index.min() >= 0
    assert index.max() <= MAX_INDEX


# ----------------------------------------------------------------------------- tables of z


def test_z_tables_are_near_the_bottlenecks_own_cost() -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 3)
    tables = parse_z_tables(choose_z_tables(model), N)
    medians = model.entropy_bottleneck.quantiles[:, :, 1:2]
    symbols = torch.arange(-300, 301)
    pmf = model.entropy_bottleneck._likelihood(symbols + medians)[0][:, 0].double().numpy()
    for c in range(N):
        entropy = -(pmf[c] * np.log2(pmf[c].clip(1e-12))).sum()
        b = bank()
        m = int(b.reach[tables[c]])
        lengths = np.full(601, b.bits[tables[c]][-1] + 16)
        inside = min(m, 300)
        lengths[300 - inside : 301 + inside] = b.bits[tables[c]][m - inside : m + inside + 1]
        assert (pmf[c] * lengths).sum() < 1.03 * entropy + 0.02


@pytest.mark.parametrize("extra", [b"", bytes([7]) * (N - 1), bytes([7]) * (N + 1), bytes(N), bytes([192]) * N])
def test_damaged_z_tables_are_refused(extra: bytes) -> None:
    with pytest.raises(CorruptBitstreamError, match="tables of z"):
        CompressAIPictureCodec(random_compressai("compressai:mbt2018-mean:3", 3), 1, False, extra)


# -------------------------------------------------------------------------------- coding


@BOTH
@pytest.mark.parametrize("size", [(64, 64), (64, 192), (128, 64), (192, 256)])
def test_decoding_gives_the_encoders_own_picture(architecture: str, size: tuple[int, int]) -> None:
    model = random_compressai(name_of(architecture), 4)
    encoder = CompressAIPictureCodec(model, 6, False)
    coded = encoder.encode(picture(*size))
    decoder = CompressAIPictureCodec(model, 6, False, encoder.extra)
    _, log, show, *_ = decoder.reconstruct(coded.payload, *size)
    assert show().shape == (1, 6, size[0] // 2, size[1] // 2)
    assert torch.equal(show(), coded.show())
    assert (log.crc, log.y_bits, log.z_bits) == (coded.log.crc, coded.log.y_bits, coded.log.z_bits)
    assert abs(8 * len(coded.payload) - log.y_bits - log.z_bits) < 64 + 0.002 * log.y_bits


def test_a_full_size_network_codes_and_fits_the_exact_range() -> None:
    model = random_compressai("compressai:mbt2018-mean:8", 4, 192, 320)
    encoder = CompressAIPictureCodec(model, 1, True)
    assert len(encoder.extra) == 192
    coded = encoder.encode(picture(64, 64))
    _, log, show, *_ = CompressAIPictureCodec(model, 1, True, encoder.extra).reconstruct(coded.payload, 64, 64)
    assert torch.equal(show(), coded.show())
    assert log.crc == coded.log.crc


@BOTH
def test_symbols_do_not_depend_on_threads_or_convolution_library(architecture: str) -> None:
    model = random_compressai(name_of(architecture), 5)
    encoder = CompressAIPictureCodec(model, 1, False)
    coded = encoder.encode(picture(128, 192))
    for threads in (1, 2):
        for onednn in (True, False):
            torch.set_num_threads(threads)
            with torch.backends.mkldnn.flags(enabled=onednn):
                decoder = CompressAIPictureCodec(model, 1, False, encoder.extra)
                _, log, show, *_ = decoder.reconstruct(coded.payload, 128, 192)
                planes = show()
            assert log.crc == coded.log.crc
            assert (planes - coded.show()).abs().max() < 1e-3


def test_an_inexact_float_path_moves_pixels_but_no_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 5)
    encoder = CompressAIPictureCodec(model, 1, False)
    coded = encoder.encode(picture(128, 128))
    decoder = CompressAIPictureCodec(model, 1, False, encoder.extra)
    means = decoder.means
    monkeypatch.setattr(decoder, "means", lambda z: means(z) + 1e-2 * torch.randn(1, M, 8, 8))
    _, log, show, *_ = decoder.reconstruct(coded.payload, 128, 128)
    assert log.crc == coded.log.crc
    assert 0 < (show() - coded.show()).abs().max() < 0.2


@BOTH
def test_the_rate_is_that_of_compressais_own_coder(architecture: str) -> None:
    model = random_compressai(name_of(architecture), 6)
    planes = picture(256, 384, 6)
    encoder = CompressAIPictureCodec(model, 1, False)
    ours = len(encoder.encode(planes).payload)
    theirs = sum(len(s[0]) for s in model.compress(planes_to_rgb(planes, 1, False))["strings"])
    assert theirs > 1000
    assert 0.98 < ours / theirs < 1.02


def test_the_decoded_picture_is_compressais_own() -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 7)
    planes = picture(128, 128)
    coded = CompressAIPictureCodec(model, 1, False).encode(planes)
    streams = model.compress(planes_to_rgb(planes, 1, False))
    with torch.no_grad():
        theirs = model.decompress(streams["strings"], streams["shape"])["x_hat"]
    ours = planes_to_rgb(coded.show(), 1, False).clamp(0, 1)
    # Chroma went through 4:2:0, which leaves luma alone.
    weights = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    inside = ((theirs > 0) & (theirs < 1) & (ours > 0) & (ours < 1)).all(1)
    assert inside.float().mean() > 0.8
    assert ((ours - theirs) * weights).sum(1)[inside].abs().max() < 1e-4


def test_a_damaged_payload_is_noticed_by_the_checksum_and_never_crashes() -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 8)
    encoder = CompressAIPictureCodec(model, 1, False)
    coded = encoder.encode(picture(128, 128))
    half = len(coded.payload) // 2
    for payload in (b"", coded.payload[:half], bytes(len(coded.payload)), b"\xff" * len(coded.payload)):
        try:
            log = encoder.reconstruct(payload, 128, 128).log
        except CorruptBitstreamError:
            continue
        assert log.crc != coded.log.crc


def test_sizes_and_matrices_that_cannot_be_are_refused() -> None:
    model = random_compressai("compressai:mbt2018-mean:3", 8)
    codec = CompressAIPictureCodec(model, 1, False)
    with pytest.raises(ValueError, match="multiples of 64"):
        codec.encode(torch.zeros(1, 6, 32, 40))
    with pytest.raises(ValueError, match="multiples of 64"):
        codec.reconstruct(b"", 64, 80)
    with pytest.raises(ValueError, match=r"\(1, 6, H/2, W/2\)"):
        codec.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(UnsupportedInputError, match="matrix 8"):
        CompressAIPictureCodec(model, 8, False)


# -------------------------------------------------------------------------------- colour


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_planes_survive_the_way_through_rgb(matrix: int, full_range: bool) -> None:
    planes = torch.rand(2, 6, 16, 24, generator=torch.Generator().manual_seed(0)) - 0.5
    rgb = planes_to_rgb(planes, matrix, full_range)
    assert rgb.shape == (2, 3, 32, 48)
    assert (rgb_to_planes(rgb, matrix, full_range) - planes).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("code", "matrix", "full_range", "rgb"),
    [
        ((16, 128, 128), 1, False, (0.0, 0.0, 0.0)),
        ((235, 128, 128), 6, False, (1.0, 1.0, 1.0)),
        ((255, 128, 128), 1, True, (1.0, 1.0, 1.0)),
        ((81, 90, 240), 6, False, (1.0, 0.0, 0.0)),  # BT.601 red of a test card
        ((63, 102, 240), 1, False, (1.0, 0.0, 0.0)),  # BT.709 red
        ((76, 85, 255), 6, True, (1.0, 0.0, 0.0)),  # JFIF red
    ],
)
def test_known_colours(code: tuple, matrix: int, full_range: bool, rgb: tuple) -> None:
    y, u, v = (c / 255 - 0.5 for c in code)
    planes = torch.tensor([y] * 4 + [u, v])[None, :, None, None].expand(1, 6, 4, 4)
    result = planes_to_rgb(planes, matrix, full_range)
    assert (result - torch.tensor(rgb)[:, None, None]).abs().max() < 0.01


def test_luma_phases_are_row_then_column() -> None:
    planes = torch.zeros(1, 6, 2, 2)
    planes[0, 4:] = 128 / 255 - 0.5
    planes[0, 1] = 0.25
    luma = planes_to_rgb(planes, 1, True)[0, 1]
    assert (luma[::2, 1::2] > 0.7).all()
    assert (luma[1::2] < 0.6).all()


def test_the_way_through_rgb_has_gradients() -> None:
    planes = picture(64, 64)[:, :, :8, :8].double().requires_grad_()

    def through(x: Tensor) -> Tensor:
        return rgb_to_planes(planes_to_rgb(x, 9, False) ** 2, 9, False)

    assert torch.autograd.gradcheck(through, (planes[:, :, :3, :3].detach().requires_grad_(),))
