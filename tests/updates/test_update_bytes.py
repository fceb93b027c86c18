"""Model updates as bytes: round trips of every density, and payloads no encoder wrote."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcodec.checkpoint import is_sent, sent_parameters
from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.msp.network import Msp
from vidcodec.updates.coder import ADAPTIVE, MEANS, MIDPOINTS, SPIKE_SLAB, decode_update, encode_update, tensor_bits
from vidcodec.updates.selection import Strategy, select
from vidcodec.updates.update import MAX_STEP_EXPONENT, MAX_STEPS, Factors, TensorUpdate, Update

KINDS = (ADAPTIVE, SPIKE_SLAB)


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Msp]) -> Msp:
    return make_tiny(7)


def random_update(model: Msp, kind: int, density: float, spread: float, seed: int) -> Update:
    """About half of the tensors, `density` of their weights, magnitudes geometric of mean `spread`."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, p in sent_parameters(model):
        shape = tuple(p.shape)
        n = rng.geometric(1 / spread, shape) * rng.choice([-1, 1], shape) * (rng.random(shape) < density)
        exponent = 8 if kind == SPIKE_SLAB else int(rng.integers(0, MAX_STEP_EXPONENT + 1))
        if n.any() and rng.random() < 0.5:
            tensors[name] = TensorUpdate(n.astype(np.int32), exponent)
    return Update(tensors)


def assert_same(a: Update, b: Update) -> None:
    assert set(a.tensors) == set(b.tensors)
    for name, t in a.tensors.items():
        assert np.array_equal(t.n, b.tensors[name].n), name
        assert t.exponent == b.tensors[name].exponent, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", [0.002, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("spread", [1.0, 5.0, 300.0])
def test_updates_come_back(model: Msp, kind: int, density: float, spread: float) -> None:
    update = random_update(model, kind, density, spread, seed=3)
    assert_same(decode_update(encode_update(update, model, kind), model), update)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.floats(0, 1), st.floats(1, 2000))
@settings(max_examples=25, deadline=None)
def test_any_update_comes_back(model: Msp, seed: int, kind: int, density: float, spread: float) -> None:
    update = random_update(model, kind, density, spread, seed)
    assert_same(decode_update(encode_update(update, model, kind), model), update)


def test_no_update_takes_no_bytes(model: Msp) -> None:
    assert encode_update(Update(), model) == b""
    assert not decode_update(b"", model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [1, -1, MAX_STEPS, -MAX_STEPS])
def test_one_weight_of_any_size(model: Msp, kind: int, value: int) -> None:
    for name, p in sent_parameters(model):
        n = np.zeros(tuple(p.shape), np.int32)
        n.reshape(-1)[-1] = value
        update = Update({name: TensorUpdate(n, 8)})
        assert_same(decode_update(encode_update(update, model, kind), model), update)


def test_one_weight_is_cheap(model: Msp) -> None:
    n = np.zeros((12, 12, 1, 1), np.int32)
    n[3, 4] = 1
    assert len(encode_update(Update({"synthesis.stem.weight": TensorUpdate(n, 8)}), model)) < 45


def test_adaptive_beats_the_fixed_prior_on_clustered_updates(model: Msp) -> None:
    rng = np.random.default_rng(1)
    n = np.zeros((48, 12, 1, 1), np.int32)
    n[::8] = rng.integers(-6, 7, n[::8].shape)
    update = Update({"synthesis.up8.weight": TensorUpdate(n, 8)})
    assert len(encode_update(update, model, ADAPTIVE)) < 0.9 * len(encode_update(update, model, SPIKE_SLAB))


def test_bits_per_tensor_add_up_to_the_payload(model: Msp) -> None:
    update = random_update(model, ADAPTIVE, 0.3, 4.0, seed=11)
    ideal = sum(tensor_bits(update, model).values()) / 8
    size = len(encode_update(update, model, ADAPTIVE))
    assert 0.9 * size - 40 < ideal < size + 8


def test_foreign_tensors_and_steps_are_refused(model: Msp) -> None:
    n = np.ones((12, 384, 1, 1), np.int32)
    with pytest.raises(ValueError, match="analysis"):
        encode_update(Update({"analysis.linear.weight": TensorUpdate(n, 8)}), model)
    n = np.ones(12, np.int32)
    with pytest.raises(ValueError, match="2\\^-8"):
        encode_update(Update({"synthesis.stem.bias": TensorUpdate(n, 9)}), model, SPIKE_SLAB)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_updates_that_are_not_finite_are_refused(model: Msp, kind: int, value: float) -> None:
    n = np.ones(12)
    n[3] = value
    with pytest.raises(ValueError, match=r"synthesis.stem.bias is not finite"):
        encode_update(Update({"synthesis.stem.bias": TensorUpdate(n, 8)}), model, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-(2**31), MAX_STEPS + 1, -MAX_STEPS - 1])  # the first: NaN after a cast
def test_steps_out_of_bounds_are_refused(model: Msp, kind: int, value: int) -> None:
    n = np.ones(12, np.int32)
    n[3] = value
    with pytest.raises(ValueError, match=r"synthesis.stem.bias must be whole numbers of steps"):
        encode_update(Update({"synthesis.stem.bias": TensorUpdate(n, 8)}), model, kind)


def test_factors_that_are_not_finite_are_refused(model: Msp) -> None:
    name = "synthesis.stem.weight"
    shape = dict(sent_parameters(model))[name].shape
    left, right = np.ones((shape[0], 1), np.int32), np.ones((1, int(np.prod(shape[1:]))), np.int32)
    good = Factors(TensorUpdate(left, 8), TensorUpdate(right, 2)).product(tuple(shape))
    bad = dataclasses.replace(good, factors=Factors(TensorUpdate(left * np.nan, 8), TensorUpdate(right, 2)))
    selection = select(Strategy("low-rank", 1), model)
    assert encode_update(Update({name: good}), model, selection=selection)
    with pytest.raises(ValueError, match="not finite"):
        encode_update(Update({name: bad}), model, selection=selection)


def try_decode(payload: bytes, model: Msp) -> None:
    """Either a typed error or an update within all bounds."""
    try:
        update = decode_update(payload, model)
    except CorruptBitstreamError:
        return
    shapes = {n: tuple(p.shape) for n, p in sent_parameters(model)}
    for name, t in update.tensors.items():
        assert t.n.shape == shapes[name]
        assert np.abs(t.n.astype(np.int64)).max() <= MAX_STEPS + 1
        assert 0 <= t.exponent <= MAX_STEP_EXPONENT


@given(st.sampled_from(KINDS), st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_random_payloads_give_errors_or_bounded_updates(model: Msp, kind: int, payload: bytes) -> None:
    try_decode(bytes([kind]) + payload, model)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_and_flipped_payloads_give_errors_or_bounded_updates(model: Msp, kind: int) -> None:
    payload = encode_update(random_update(model, kind, 0.2, 20.0, seed=4), model, kind)
    rng = np.random.default_rng(0)
    start = time.monotonic()
    for _ in range(20):
        try_decode(payload[: rng.integers(1, len(payload))], model)
        flipped = bytearray(payload)
        flipped[rng.integers(1, len(payload))] ^= 1 << rng.integers(8)
        try_decode(bytes(flipped), model)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("kind", [2, 77, 255])
def test_unknown_kinds_are_refused(model: Msp, kind: int) -> None:
    with pytest.raises(CorruptBitstreamError, match=f"kind {kind}"):
        decode_update(bytes([kind]) + bytes(50), model)


def test_tables_of_means_are_in_order() -> None:
    assert (np.diff(MEANS) > 0).all()
    assert ((MEANS[:-1] < MIDPOINTS) & (MEANS[1:] >= MIDPOINTS)).all()
    assert np.abs(np.log2(MEANS[20:] / 65536) - (-12 + 0.3 * np.arange(20, 64))).max() < 0.002


def test_applying_is_exact(make_tiny: Callable[..., Msp]) -> None:
    base, adapted = make_tiny(7), make_tiny(7)
    update = random_update(base, SPIKE_SLAB, 0.4, 10.0, seed=2)
    assert update
    update.apply(adapted)
    before = dict(base.named_parameters())
    for name, p in adapted.named_parameters():
        expected = before[name].double()
        if name in update.tensors:
            t = update.tensors[name]
            expected = expected + torch.from_numpy(t.n).double() * 2.0**-t.exponent
        assert torch.equal(p.double(), expected), name


def test_applying_rounds_only_once_where_a_sum_takes_more_than_24_bits(make_tiny: Callable[..., Msp]) -> None:
    base, adapted = make_tiny(7), make_tiny(7)
    update = random_update(base, ADAPTIVE, 0.4, 3000.0, seed=2)
    update.apply(adapted)
    before = dict(base.named_parameters())
    for name, t in update.tensors.items():
        exact = before[name].double() + torch.from_numpy(t.n).double() * 2.0**-t.exponent
        assert torch.equal(dict(adapted.named_parameters())[name], exact.float()), name


def test_only_what_the_decoder_uses_travels(model: Msp) -> None:
    names = [n for n, _ in sent_parameters(model)]
    assert names == sorted(n for n, _ in model.named_parameters() if is_sent(model, n))
    assert not any(n.startswith(("analysis", "hyper_analysis", "gain")) for n in names)
    update = random_update(model, ADAPTIVE, 0.5, 2.0, seed=1)
    assert update.nonzero == sum(int((t.n != 0).sum()) for t in update.tensors.values())
