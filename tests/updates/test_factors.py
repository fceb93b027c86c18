"""Updates of low rank: what is coded comes back, what does not pay is shut, nothing gets dearer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_finetuning import LEVEL, Pictures, assert_decoder_gets
from test_update_bytes import assert_same

from vidcodec.checkpoint import sent_parameters
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.steps import paying_strategy
from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.objective import MspObjective
from vidcodec.updates import coder
from vidcodec.updates.coder import decode_update, encode_update, tensor_bits
from vidcodec.updates.factors import LEFT, RIGHT, FactorGrid, geometric_bits, is_factored
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.updates.prior import AdaptivePrior
from vidcodec.updates.selection import Selection, Strategy, select
from vidcodec.updates.strategy import MAX_RANK, paying_rank
from vidcodec.updates.update import Factors, TensorUpdate, Update, is_matrix


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Msp]) -> Msp:
    return make_tiny(7)


def of_rank(model: Msp, rank: int) -> Selection:
    return select(Strategy("low-rank", rank), model)


def random_factors(model: Msp, most: int, spread: float, seed: int, *, normal: bool = False) -> Update:
    """Half of the tensors; matrices of any rank up to `most`, some of them whole."""
    rng = np.random.default_rng(seed)

    def integers(*shape: int) -> np.ndarray:
        x = rng.normal(0, spread, shape) if normal else rng.laplace(0, spread, shape)
        return np.clip(np.rint(x), -1000, 1000).astype(np.int32)

    tensors = {}
    for name, p in sent_parameters(model):
        shape = tuple(p.shape)
        rank = int(rng.integers(0, most + 1))
        exponents = rng.integers(0, 21, 2)
        if rng.random() < 0.5:
            continue
        if is_matrix(name, shape) and rank:
            left = TensorUpdate(integers(shape[0], rank), int(exponents[0]))
            right = TensorUpdate(integers(rank, p[0].numel()), int(exponents[1]))
            tensors[name] = Factors(left, right).product(shape)
        elif (n := integers(*shape)).any():
            tensors[name] = TensorUpdate(n, int(exponents[0]))
    return Update(tensors)


def finetune(base: Msp, rank: int = 2, *, pixels: int = 10**8, **changes: object) -> tuple[Finetuner, Finetuned]:
    defaults = {"steps": 14, "batch": 2, "seed": 5, "factor_lr": 0.02, "whole_lr": 0.01, "encoder_lr": 1e-3}
    config = FinetuneConfig(**{"measure_every": 0.2, **defaults, **changes})  # type: ignore[arg-type]
    batches, objective = Pictures(pixels), MspObjective(base, LEVEL)
    tuner = Finetuner(base, objective, batches, AdaptivePrior(), config, of_rank(base, rank))
    return tuner, tuner.run()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.2, 200), st.booleans())
@settings(max_examples=20, deadline=None)
def test_any_ranks_come_back(model: Msp, seed: int, most: int, spread: float, normal: bool) -> None:
    update, selection = random_factors(model, most, spread, seed, normal=normal), of_rank(model, most)
    decoded = decode_update(encode_update(update, model, selection=selection), model)
    assert_same(decoded, update)
    for name, t in update.tensors.items():
        assert (t.factors.rank if t.factors else 0) == getattr(decoded.tensors[name].factors, "rank", 0)


def test_bits_of_tensors_add_up_to_the_payload(model: Msp) -> None:
    update, selection = random_factors(model, 3, 2.0, 1), of_rank(model, 3)
    size = len(encode_update(update, model, selection=selection))
    ideal = sum(tensor_bits(update, model, selection).values()) / 8
    assert 0.9 * size - 20 - 4 * len(update.tensors) < ideal < size + 8


def test_normal_factors_are_coded_near_their_entropy(
    make_tiny: Callable[..., Msp], monkeypatch: pytest.MonkeyPatch
) -> None:
    big, rng = make_tiny(7, latent=384), np.random.default_rng(0)
    name = "synthesis.linear.weight"
    left, right = (np.rint(rng.normal(0, 1.5, s)).astype(np.int32) for s in ((384, 2), (2, 384)))
    update = Update({name: Factors(TensorUpdate(left, 9), TensorUpdate(right, 5)).product((384, 384, 1, 1))})
    _, counts = np.unique(np.concatenate([left.ravel(), right.ravel()]), return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    size = len(encode_update(update, big, selection=of_rank(big, 2)))
    assert size < 1.03 * entropy + 40  # of them 13 of gates, 8 of the coder's state, the heads of two parts
    monkeypatch.setattr(coder, "FACTOR_FAMILIES", coder.FACTOR_FAMILIES[:2])
    assert size < len(encode_update(update, big, selection=of_rank(big, 2)))


def test_ranks_out_of_bounds_are_refused(model: Msp) -> None:
    update = random_factors(model, 4, 3.0, 2)
    payload = bytearray(encode_update(update, model, selection=of_rank(model, 4)))
    payload[2] = 1  # the rank that the stream allows
    with pytest.raises(CorruptBitstreamError):
        decode_update(bytes(payload), model)


def test_the_charge_is_the_entropy_of_a_geometric_distribution() -> None:
    for theta in (0.05, 0.4, 0.9):
        k = np.arange(-400, 401)
        p = (1 - theta) / (1 + theta) * theta ** np.abs(k)
        mean = torch.tensor(float((p * np.abs(k)).sum()), dtype=torch.float64)
        assert float(geometric_bits(mean)) == pytest.approx(-(p * np.log2(np.maximum(p, 1e-300))).sum(), rel=1e-4)


def test_depthwise_kernels_and_tables_are_sent_whole(model: Msp) -> None:
    factored = {n for n, p in sent_parameters(model) if is_factored(n, tuple(p.shape))}
    assert "synthesis.stem.weight" in factored
    assert not any(n.endswith((".depth.weight", "linear.weight", ".bias", ".table")) for n in factored if "pass_" in n)
    assert "synthesis.stage8.blocks.0.depth.weight" not in factored


def grid_of(model: Msp, rank: int = 2) -> FactorGrid:
    base = {n: p.detach().clone() for n, p in sent_parameters(model)}
    generator = torch.Generator().manual_seed(0)
    slopes = {n: torch.randn(p.shape, generator=generator) for n, p in base.items()}
    return FactorGrid(base, of_rank(model, rank), slopes)


def test_training_begins_at_the_base(model: Msp) -> None:
    grid = grid_of(model)
    assert all(torch.equal(p, grid.base[n]) for n, p in grid.parameters().items())
    assert not grid.update()


def test_once_settled_the_network_sees_what_is_sent(model: Msp, make_tiny: Callable[..., Msp]) -> None:
    grid = grid_of(model)
    with torch.no_grad():
        for x in grid.u.values():
            x.add_(0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    grid.settle(grid.usual_exponents())
    decoded = make_tiny(7)
    decode_update(encode_update(grid.update(), model, selection=of_rank(model, 2)), decoded).apply(decoded)
    received = dict(decoded.named_parameters())
    for name, p in grid.parameters().items():
        assert torch.equal(p, received[name]), name
    assert all(torch.equal(p, q) for p, q in zip(grid.sent().values(), grid.parameters().values(), strict=True))


def test_components_that_bring_nothing_are_shut(model: Msp) -> None:
    grid = grid_of(model)
    name = "synthesis.stem.weight"
    with torch.no_grad():
        for x in grid.u.values():
            x.add_(0.01)
    grid.gained[grid.components[name + LEFT].start + 1] = 1.0
    shut = grid.prune(10**9, grid.usual_exponents(), 1.0)
    assert shut == sum(c.stop - c.start for n, c in grid.components.items() if not n.endswith(RIGHT)) - 1
    update = grid.update()
    assert set(update.tensors) == {name}
    assert update.tensors[name].factors is not None
    assert update.tensors[name].factors.rank == 1


def test_gains_are_accounted_to_components(model: Msp) -> None:
    grid = grid_of(model)
    part = "synthesis.stem.weight" + LEFT
    for x in grid.u.values():
        x.grad = torch.full_like(x, 2.0)
    grid.account()
    with torch.no_grad():
        grid.u["factors"][(grid.component == grid.components[part].start + 1)[: len(grid.u["factors"])]] -= 0.5
    grid.account()
    rows = grid.shapes[part][0]
    assert grid.payoff(10)["synthesis.stem.weight"].tolist() == pytest.approx([0.0, 10.0 * rows])


@pytest.mark.parametrize("pixels", [10**3, 10**8])
@pytest.mark.parametrize("scope", ["decoder", "full"])
def test_the_result_never_costs_more_than_the_start(make_tiny: Callable[..., Msp], pixels: int, scope: str) -> None:
    tuner, tuned = finetune(make_tiny(), pixels=pixels, scope=scope)
    assert tuned.curve[0]["update_bits"] == 0
    assert min(row["cost"] for row in tuned.curve) <= tuned.curve[0]["cost"]
    assert_decoder_gets(tuner, tuned, make_tiny())


def test_bold_where_many_pixels_share_it(make_tiny: Callable[..., Msp]) -> None:
    sizes = [len(finetune(make_tiny(), pixels=pixels, steps=30)[1].payload) for pixels in (10**4, 10**9)]
    assert sizes[0] < sizes[1]


def test_larger_streams_get_greater_ranks() -> None:
    ranks = [paying_rank(size) for size in (0, 60_000, 1_700_000, 8_000_000, 50_000_000)]
    assert ranks == sorted(ranks)
    assert ranks[2] == 0  # minutes of small frames: entries of learned importance
    assert ranks[3] >= 1
    assert ranks[-1] <= MAX_RANK


def test_what_a_user_asks_for_stands() -> None:
    learned = Strategy("learned-laplace")
    assert paying_strategy(EncodeOptions(), learned, 10_000) == learned
    assert paying_strategy(EncodeOptions(), learned, 8_000_000).name == "low-rank"
    for options in (
        EncodeOptions(update_parameters="learned"),
        EncodeOptions(update_parameters="all"),
        EncodeOptions(update_prior="spike-slab"),
        EncodeOptions(adapt="encoder"),
    ):
        assert paying_strategy(options, learned, 8_000_000) == learned
