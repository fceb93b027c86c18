"""The lossless network: round trips, what it charges, and what it must not depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from lossless_support import smooth_planes, tiny_lossless

from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.lossless.exact import ExactLossless, View
from vidcodec.families.lossless.network import (
    CHROMA_REACH,
    KNOWN,
    LUMA_REACH,
    PHASES,
    Lossless,
    luma_inputs,
    neighbours,
    padded,
    to_cells,
    unit_table,
)
from vidcodec.families.lossless.planes import PlaneBatch, chroma_levels, guide_of, rgb_to_ycocg, ycocg_to_rgb


@pytest.fixture(scope="module")
def exact() -> ExactLossless:
    return ExactLossless(tiny_lossless())


SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (16, 16), (33, 50), (47, 31)]


@pytest.mark.parametrize("rgb", [False, True], ids=["yuv420", "rgb"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_planes_come_back_as_they_were(exact: ExactLossless, size: tuple[int, int], bits: int, rgb: bool) -> None:
    y, uv = smooth_planes(*size, bits, rgb=rgb)
    a, b = exact.decode(exact.encode(y, uv, bits, rgb=rgb).finish(), *size, bits, rgb=rgb)
    assert np.array_equal(a, y)
    assert np.array_equal(b, uv)


@pytest.mark.parametrize("kind", ["noise", "flat", "extremes"])
def test_pictures_no_network_expects_come_back_too(exact: ExactLossless, kind: str) -> None:
    rng = np.random.default_rng(0)
    top = np.array([255, 510])
    y, *uv = (
        rng.integers(0, t + 1, (40, 52))
        if kind == "noise"
        else np.full((40, 52), t)
        if kind == "flat"
        else t * rng.integers(0, 2, (40, 52))
        for t in (top[0], top[1], top[1])
    )
    coder = exact.encode(y.astype(np.int32), np.stack(uv).astype(np.int32), 8, rgb=True)
    a, b = exact.decode(coder.finish(), 40, 52, 8, rgb=True)
    assert np.array_equal(a, y)
    assert np.array_equal(b, np.stack(uv))
    assert coder.bits / y.size < 3 * 11 + 8 + 9 + 9, "worst case: the floor of every mixture"


@pytest.mark.parametrize(("bits", "rgb"), [(8, False), (10, False), (8, True)])
def test_bytes_are_what_the_network_charges(bits: int, rgb: bool) -> None:
    model = tiny_lossless()
    y, uv = smooth_planes(96, 133, bits, rgb=rgb)
    batch = PlaneBatch(torch.from_numpy(y).float()[None], torch.from_numpy(uv).float()[None], bits, rgb)
    charged = float(sum(bits.sum() for bits in model(batch)))
    payload = ExactLossless(model).encode(y, uv, bits, rgb=rgb).finish()
    step = 2**model.config.scales
    plain = y[::step, ::step].size * bits + 2 * uv[0, ::step, ::step].size * np.log2(chroma_levels(bits, rgb=rgb))
    assert 8 * len(payload) == pytest.approx(charged + plain, rel=0.01)


def test_every_sample_is_charged_once() -> None:
    model = tiny_lossless()
    y, uv = smooth_planes(37, 51, 8, rgb=False)
    batch = PlaneBatch(torch.from_numpy(y).float()[None], torch.from_numpy(uv).float()[None], 8, False)
    step = 2**model.config.scales
    for plane, bits in zip((y, *uv), model(batch), strict=True):
        assert bits.shape == (plane.size - plane[::step, ::step].size,)


def test_payloads_do_not_depend_on_the_number_of_threads(exact: ExactLossless, any_threads: None) -> None:
    y, uv = smooth_planes(120, 200, 8, rgb=False)
    payloads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        payloads.append(exact.encode(y, uv, 8, rgb=False).finish())
    assert payloads[0] == payloads[1]


def test_payloads_do_not_depend_on_the_library_of_products(exact: ExactLossless) -> None:
    y, uv = smooth_planes(64, 64, 8, rgb=True)
    payload = exact.encode(y, uv, 8, rgb=True).finish()
    with torch.backends.mkldnn.flags(enabled=False):
        assert exact.encode(y, uv, 8, rgb=True).finish() == payload


@pytest.mark.parametrize("phase", range(3))
def test_compiled_loops_see_what_training_sees(phase: int) -> None:
    y, _ = smooth_planes(45, 38, 10, rgb=False)
    cells = padded(to_cells(torch.from_numpy(y).double()[None]))
    inputs, seen = luma_inputs(cells, phase, 1024)
    offsets = neighbours(phase, LUMA_REACH[phase])
    view = View.of(y, KNOWN[phase], phase, offsets, (0, 1, 2, 3), (12, 12, 16)[phase])
    assert np.array_equal(view.unit.ravel(), seen.unit.numpy())
    assert np.array_equal(view.centre.ravel(), seen.centre.numpy())
    assert np.array_equal(view.inputs(0, len(view.unit)), inputs[: len(offsets)].numpy())
    assert np.array_equal(view.wide(8).ravel(), inputs[-1].numpy())


@pytest.mark.parametrize(("phase", "reach"), [(p, r[p]) for p in range(3) for r in (LUMA_REACH, CHROMA_REACH)])
def test_passes_see_known_samples_only_and_the_nearest_first(phase: int, reach: int) -> None:
    offsets = neighbours(phase, reach)
    (py, px), distances = PHASES[phase], [y * y + x * x for y, x in offsets]
    assert all(((py + y) % 2, (px + x) % 2) in KNOWN[phase] for y, x in offsets)
    assert distances == sorted(distances)
    assert len(set(distances[:4])) == 1, "the nearest four are all of one kind"
    assert sum(y for y, _ in offsets) == sum(x for _, x in offsets) == 0


def test_units_are_the_powers_they_stand_for() -> None:
    thresholds, units, reciprocals = (t.numpy() for t in unit_table(12))
    powers = 2.0 ** (np.arange(113) / 8)
    assert np.array_equal(thresholds, np.ceil(np.round(12 * powers, 9)))
    assert np.array_equal(units, np.floor(np.round(64 * powers, 6)))
    assert np.abs(reciprocals * powers / 2.0**22 - 1).max() < 2.0**-7
    assert (np.diff(thresholds) > 0).all()


def test_the_default_network_is_within_its_budget() -> None:
    macs = Lossless().macs()
    assert macs["4:2:0"] < macs["4:4:4"] < 10_000


def test_colours_are_transformed_reversibly() -> None:
    values = np.array([0, 1, 2, 127, 128, 254, 255])
    rgb = np.array(list(itertools.product(values, repeat=3)))[None]
    y, chroma = rgb_to_ycocg(rgb, 8)
    assert 0 <= y.min() <= y.max() <= 255
    assert 0 <= chroma.min() <= chroma.max() < chroma_levels(8, rgb=True)
    assert np.array_equal(ycocg_to_rgb(y, chroma, 8), rgb)


def test_chroma_of_420_sees_sums_of_luma() -> None:
    y = torch.tensor([[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]])
    assert torch.equal(guide_of(y, rgb=True), 4 * y)
    assert torch.equal(guide_of(y, rgb=False), torch.tensor([[[12.0, 18], [30, 36]]])), "edges are repeated"


def test_a_damaged_payload_gives_wrong_samples_or_a_typed_error(exact: ExactLossless) -> None:
    y, uv = smooth_planes(32, 32, 8, rgb=True)
    payload = exact.encode(y, uv, 8, rgb=True).finish()
    rng = np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(payload)
        damaged[int(rng.integers(8, len(payload)))] ^= int(rng.integers(1, 256))
        try:
            a, b = exact.decode(bytes(damaged), 32, 32, 8, rgb=True)
        except CorruptBitstreamError:
            continue
        assert not (np.array_equal(a, y) and np.array_equal(b, uv))
        assert 0 <= a.min() <= a.max() < 256
        assert 0 <= b.min() <= b.max() < 511
