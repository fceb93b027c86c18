"""Selections of parameters: the same on both sides, confined, cheaper, and refused when they cannot be known."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_finetuning import LEVEL, Pictures, assert_decoder_gets
from test_update_bytes import assert_same, random_update

from vidcodec.checkpoint import sent_parameters
from vidcodec.errors import (
    CorruptBitstreamError,
    ModelError,
    ModelMismatchError,
    ModelNotFoundError,
    UnsupportedInputError,
    VidcodecError,
)
from vidcodec.families.msp.checkpoint import load_model
from vidcodec.families.msp.network import Msp
from vidcodec.families.msp.objective import MspObjective
from vidcodec.updates import importance as scores
from vidcodec.updates.coder import (
    LOW_RANK,
    SELECTED,
    SPIKE_SLAB,
    decode_update,
    describe_kind,
    encode_update,
    selection_of,
    tensor_bits,
)
from vidcodec.updates.finetune import FinetuneConfig, Finetuned, Finetuner
from vidcodec.updates.importance import Importance, factor_shapes, find_importance, fingerprint, save_importance
from vidcodec.updates.prior import AdaptivePrior
from vidcodec.updates.selection import Selection, Strategy, everything, select, usual_strategy
from vidcodec.updates.strategy import STRATEGIES
from vidcodec.updates.update import Factors, TensorUpdate, Update, is_matrix

ASKED = (
    "all",
    "biases",
    "biases+multipliers",
    "last-layer",
    "low-rank:2",
    "random:500",
    "learned:500",
    "learned-gaussian:300",
)


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Msp]) -> Msp:
    return make_tiny(7)


def random_importance(model: Msp, seed: int = 0) -> Importance:
    rng = np.random.default_rng(seed)
    factors = {
        objective: {
            n: tuple(rng.integers(-2000, 2000, shape).astype(np.int16) for shape in factor_shapes(n, tuple(p.shape)))
            for n, p in sent_parameters(model)
        }
        for objective in scores.OBJECTIVES
    }
    return Importance(fingerprint(model), 10**6, factors)  # type: ignore[arg-type]


@pytest.fixture
def folder(model: Msp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of importance scores of the tiny model; none are shipped."""
    monkeypatch.setattr(scores, "WEIGHTS", tmp_path / "none")
    save_importance(random_importance(model), tmp_path / f"tiny{scores.SUFFIX}")
    return tmp_path


def chosen(text: str, model: Msp, folder: Path, seed: int = 3) -> Selection:
    return select(Strategy.parse(text, seed), model, folder=folder)


def confined(update: Update, selection: Selection) -> Update:
    """An update's part within a selection; as factors of low rank where it asks for them."""
    out = {}
    for name, t in update.tensors.items():
        if selection.rank and is_matrix(name, t.n.shape):
            left = np.clip(t.n.reshape(t.n.shape[0], -1)[:, :1], -99, 99).repeat(selection.rank, 1)
            right = np.clip(t.n.reshape(t.n.shape[0], -1)[:1], -99, 99).repeat(selection.rank, 0)
            out[name] = Factors(TensorUpdate(left, t.exponent), TensorUpdate(right, 2)).product(t.n.shape)
        elif name in selection.masks and (n := t.n * selection.masks[name]).any():
            out[name] = TensorUpdate(n, t.exponent)
    return Update(out)


# ------------------------------------------------------------------------- what is selected


def test_strategies_take_what_their_names_say(model: Msp, folder: Path) -> None:
    names = {text: set(chosen(text, model, folder).masks) for text in ASKED}
    everywhere = {n for n, _ in sent_parameters(model)}
    assert names["all"] == names["low-rank:2"] == everywhere
    assert names["last-layer"] == {f"synthesis.{m}.{p}" for m in ("head", "linear") for p in ("weight", "bias")}
    assert "hyper_mean.bias.table" in names["biases"]
    assert "inverse_gain.table" in names["biases+multipliers"] - names["biases"]
    assert not any(n.endswith("weight") for n in names["biases+multipliers"])
    for text, count in (("random:500", 500), ("learned:500", 500), ("learned-gaussian:300", 300)):
        assert chosen(text, model, folder).count == count
    shapes = {n: tuple(p.shape) for n, p in sent_parameters(model)}
    assert all(m.shape == shapes[n] for n, m in chosen("random:500", model, folder).masks.items())


@pytest.mark.parametrize("text", ASKED)
def test_both_sides_find_the_same_masks(text: str, model: Msp, folder: Path) -> None:
    first = chosen(text, model, folder)
    update = confined(random_update(model, 1, 0.3, 4.0, seed=1), first)
    again = selection_of(encode_update(update, model, selection=first), model, folder)
    assert again.strategy == first.strategy
    assert list(again.masks) == list(first.masks)
    assert all(np.array_equal(again.masks[n], m) for n, m in first.masks.items())


def test_random_masks_follow_their_seed(model: Msp, folder: Path) -> None:
    first, again, other = (chosen("random:800", model, folder, seed) for seed in (1, 1, 2))

    def flat(s: Selection) -> np.ndarray:
        masks = (s.masks.get(n, np.zeros(tuple(p.shape), bool)) for n, p in sent_parameters(model))
        return np.concatenate([m.ravel() for m in masks])

    assert np.array_equal(flat(first), flat(again))
    assert (flat(first) & flat(other)).sum() < 200
    # For ever: files name the seed only.
    assert np.flatnonzero(flat(chosen("random:3", model, folder, 1))).tolist() == [487, 8540, 17844]


def test_learned_masks_are_nested_and_greatest_first(model: Msp, folder: Path) -> None:
    few, many = chosen("learned:200", model, folder), chosen("learned:900", model, folder)
    assert all((many.masks[n] | ~m).all() for n, m in few.masks.items())
    values = random_importance(model).scores("laplace", model)
    least = min(int(values[n][m].min()) for n, m in many.masks.items())
    left = max(int(v[~many.masks.get(n, np.zeros(v.shape, bool))].max(initial=-(1 << 20))) for n, v in values.items())
    assert least >= left


def test_longer_videos_find_more_worth_their_bits(model: Msp, folder: Path) -> None:
    counts = [select(Strategy.parse("learned"), model, pixels=p, folder=folder).count for p in (10**5, 10**6, 10**7)]
    assert counts[0] < counts[1] < counts[2]
    values = np.concatenate([v.ravel() for v in random_importance(model).scores("laplace", model).values()])
    assert counts[1] == int((values >= 0).sum())


@pytest.mark.parametrize(
    "text",
    ["most", "random", "random:0", "learned:0", "biases:4", "low-rank:0", "low-rank:99", "learned:-1", "", "all:"],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedInputError):
        Strategy.parse(text)


@pytest.mark.parametrize("rank", [0, 17, 99])
def test_ranks_out_of_bounds_are_told_what_there_is(rank: int) -> None:
    with pytest.raises(UnsupportedInputError, match="a rank from 1 to 16"):
        Strategy.parse(f"low-rank:{rank}")


@pytest.mark.parametrize(("strategy", "said"), [("last-layer", "no last layer"), ("multipliers", "no multipliers")])
def test_a_network_without_what_is_named_says_so(strategy: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        select(Strategy(strategy), torch.nn.Linear(2, 2))


# ---------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("text", ASKED)
@pytest.mark.parametrize("density", [0.02, 0.5])
def test_updates_come_back(text: str, density: float, model: Msp, folder: Path) -> None:
    selection = chosen(text, model, folder)
    update = confined(random_update(model, 1, density, 5.0, seed=3), selection)
    assert update
    payload = encode_update(update, model, selection=selection)
    assert_same(decode_update(payload, model, folder), update)
    assert (payload[0] in (SELECTED, LOW_RANK)) == (text != "all")
    assert text.split(":")[0] in describe_kind(payload) or text == "all"
    ideal = sum(tensor_bits(update, model, selection).values()) / 8
    assert 0.9 * len(payload) - 20 - 4 * len(update.tensors) < ideal < len(payload) + 8


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.floats(0, 1), st.floats(1, 2000))
@settings(max_examples=25, deadline=None)
def test_any_update_of_a_random_selection_comes_back(
    model: Msp, seed: int, count: int, density: float, spread: float
) -> None:
    selection = select(Strategy("random", count, seed), model)
    update = confined(random_update(model, 1, density, spread, seed), selection)
    assert_same(decode_update(encode_update(update, model, selection=selection), model), update)


@pytest.mark.parametrize("text", ["random:1000", "learned:1000"])
def test_what_is_not_selected_costs_nothing(text: str, model: Msp, folder: Path) -> None:
    selection = chosen(text, model, folder)
    update = confined(random_update(model, 1, 0.6, 2.0, seed=5), selection)
    assert len(encode_update(update, model, selection=selection)) < 0.8 * len(encode_update(update, model))


def test_what_is_not_selected_cannot_be_written(model: Msp, folder: Path) -> None:
    update = random_update(model, 1, 0.6, 2.0, seed=5)
    for text, complaint in (("biases", "selected"), ("random:9000", "more than is selected")):
        selection = chosen(text, model, folder)
        inside = Update({n: t for n, t in update.tensors.items() if n in selection.masks or text == "biases"})
        with pytest.raises(ValueError, match=complaint):
            encode_update(inside, model, selection=selection)
    ranked = confined(update, chosen("low-rank:2", model, folder))
    with pytest.raises(ValueError, match="rank 2, where 1"):
        encode_update(ranked, model, selection=chosen("low-rank:1", model, folder))
    biases = chosen("biases", model, folder)
    with pytest.raises(ValueError, match="spike"):
        encode_update(confined(update, biases), model, SPIKE_SLAB, biases)


def test_low_rank_updates_are_the_product_of_their_factors(model: Msp, folder: Path) -> None:
    selection = chosen("low-rank:2", model, folder)
    update = confined(random_update(model, 1, 0.5, 3.0, seed=4), selection)
    decoded = decode_update(encode_update(update, model, selection=selection), model)
    for name, t in decoded.tensors.items():
        if is_matrix(name, t.n.shape):
            assert t.factors is not None
            left, right = (f.n * 2.0**-f.exponent for f in (t.factors.left, t.factors.right))
            assert np.array_equal((left @ right).reshape(t.n.shape), t.n * 2.0**-t.exponent)


@pytest.mark.parametrize("text", ["biases", "random:2000", "learned:2000", "low-rank:3"])
def test_damaged_payloads_give_typed_errors_or_bounded_updates(text: str, model: Msp, folder: Path) -> None:
    selection = chosen(text, model, folder)
    payload = encode_update(confined(random_update(model, 1, 0.3, 9.0, seed=2), selection), model, selection=selection)
    rng = np.random.default_rng(0)
    shapes = {n: tuple(p.shape) for n, p in sent_parameters(model)}
    for k in range(60):
        damaged = bytearray(payload[: rng.integers(1, len(payload))] if k % 3 == 0 else payload)
        damaged[0 if k % 10 == 1 else rng.integers(min(len(damaged), 12 if k % 2 else 1 << 20))] ^= 1 << rng.integers(8)
        assert isinstance(describe_kind(bytes(damaged)), str)
        try:
            update = decode_update(bytes(damaged), model, folder)
        except VidcodecError:
            continue
        for name, t in update.tensors.items():
            assert t.n.shape == shapes[name]
            assert np.abs(t.n.astype(np.int64)).max() <= 1 << 24


def test_short_payloads_are_told_before_memory_is_taken(model: Msp) -> None:
    head = bytes([LOW_RANK]) + Strategy("low-rank", 16).to_bytes()
    everything(model)
    decode_update(b"", model)
    tracemalloc.start()
    with pytest.raises(CorruptBitstreamError):
        decode_update(head + bytes(9), model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "head",
    [
        (SELECTED, 0),
        (SELECTED, 4, 1),
        (LOW_RANK, 1),
        (LOW_RANK, 4, 17),
        (LOW_RANK, 4, 0),
        (SELECTED, 99),
        (SELECTED, 5, 0, 0),
    ],
)
def test_selections_no_encoder_writes_are_refused(head: tuple[int, ...], model: Msp) -> None:
    with pytest.raises(CorruptBitstreamError):
        decode_update(bytes(head) + bytes(100), model)
    with pytest.raises(CorruptBitstreamError):
        decode_update(bytes(head[:1]), model)


# ----------------------------------------------------------------------------- the scores


def test_scores_are_refused_for_other_weights(folder: Path, model: Msp, make_tiny: Callable[..., Msp]) -> None:
    path = folder / f"tiny{scores.SUFFIX}"
    assert find_importance(model, folder).pixels == 10**6
    other = make_tiny(8)
    with pytest.raises(ModelMismatchError, match=r"other weights.*train importance"):
        find_importance(other, folder)
    with pytest.raises(ModelMismatchError, match=re.escape(path.name)):
        chosen("learned:10", other, folder)


def test_missing_scores_are_named(model: Msp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "WEIGHTS", tmp_path)
    with pytest.raises(ModelNotFoundError, match="train importance"):
        chosen("learned", model, tmp_path)
    with pytest.raises(ModelNotFoundError):
        find_importance(model, tmp_path / "none")


def test_updates_refuse_scores_they_were_not_made_with(folder: Path, model: Msp) -> None:
    selection = chosen("learned:400", model, folder)
    payload = encode_update(confined(random_update(model, 1, 0.4, 3.0, seed=1), selection), model, selection=selection)
    save_importance(random_importance(model, seed=1), folder / f"tiny{scores.SUFFIX}")
    with pytest.raises(ModelMismatchError, match="other importance scores"):
        decode_update(payload, model, folder)


def test_decoders_are_not_sent_to_learn_scores_anew(
    folder: Path, model: Msp, make_tiny: Callable[..., Msp], tmp_path: Path
) -> None:
    """Learned anew, they have another digest: only those of the encoder will do."""
    selection = chosen("learned:400", model, folder)
    payload = encode_update(confined(random_update(model, 1, 0.4, 3.0, seed=1), selection), model, selection=selection)
    (folder / f"tiny{scores.SUFFIX}").unlink()
    with pytest.raises(ModelNotFoundError, match="version of vidcodec that made it") as missing:
        decode_update(payload, model, folder)
    save_importance(random_importance(make_tiny(8)), folder / f"tiny{scores.SUFFIX}")
    with pytest.raises(ModelMismatchError, match="version of vidcodec that made it") as others:
        decode_update(payload, model, folder)
    assert "train importance" not in f"{missing.value} {others.value}"


def test_scores_are_written_whole_or_not_at_all(folder: Path, model: Msp, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"tiny{scores.SUFFIX}"
    before = path.read_bytes()

    def full(_tensors: object, partial: Path, _metadata: object) -> None:
        Path(partial).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(scores, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_importance(random_importance(model), path)
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "text", "foreign"])
def test_damaged_score_files_give_typed_errors(damage: str, folder: Path, model: Msp) -> None:
    path = folder / f"tiny{scores.SUFFIX}"
    foreign = b"\x08\0\0\0\0\0\0\0{}      "
    path.write_bytes({"cut": path.read_bytes()[:300], "text": b"hello", "foreign": foreign}[damage])
    with pytest.raises(ModelMismatchError):
        find_importance(model, folder)


def test_scores_of_other_shapes_are_refused(folder: Path, model: Msp) -> None:
    broken = random_importance(model)
    broken.factors["laplace"]["synthesis.stem.bias"] = (np.zeros((2, 1), np.int16), np.zeros((1, 5), np.int16))
    path = folder / f"tiny{scores.SUFFIX}"
    save_importance(broken, path)
    with pytest.raises(ModelMismatchError, match=r"synthesis\.stem\.bias"):
        find_importance(model, folder)


# ----------------------------------------------------------------------------- finetuning


def finetune(base: Msp, selection: Selection) -> tuple[Finetuner, Finetuned]:
    rates = {"encoder_lr": 1e-3, "vector_lr": 1.0, "matrix_lr": 0.3, "vector_share": 0.2}
    config = FinetuneConfig(steps=6, batch=1, seed=5, measure_every=0.5, **rates)
    tuner = Finetuner(base, MspObjective(base, LEVEL), Pictures(), AdaptivePrior(), config, selection)
    return tuner, tuner.run()


@pytest.mark.parametrize("text", [t for t in ASKED if t != "all"])
def test_only_what_is_selected_changes_and_arrives(text: str, folder: Path, make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny(7)
    selection = chosen(text, base, folder)
    tuner, tuned = finetune(base, selection)
    assert tuned.update.nonzero > 0, text
    assert min(row["cost"] for row in tuned.curve) < tuned.curve[0]["cost"]
    adapted = dict(tuned.model.named_parameters())
    for name, p in sent_parameters(base):
        outside = ~selection.masks.get(name, np.zeros(tuple(p.shape), bool))
        assert torch.equal(p[torch.from_numpy(outside)], adapted[name][torch.from_numpy(outside)]), name
    assert tuned.payload == tuner.prior.encode(tuned.update, base)
    decoded = make_tiny(7)
    decode_update(tuned.payload, decoded, folder).apply(decoded)
    assert all(torch.equal(p, adapted[n]) for n, p in sent_parameters(decoded))


def test_a_selection_without_biases_learns(make_tiny: Callable[..., Msp]) -> None:
    """There is then nothing to move in the phase that begins with vectors."""
    base = make_tiny(3)
    matrices = {n: np.ones(tuple(p.shape), bool) for n, p in sent_parameters(base) if n.endswith(".weight")}
    config = FinetuneConfig(
        scope="decoder", steps=6, batch=1, seed=5, matrix_lr=0.3, vector_share=0.5, measure_every=0.5
    )
    selection = Selection(masks=matrices)
    tuner = Finetuner(base, MspObjective(base, LEVEL), Pictures(), AdaptivePrior(), config, selection)
    tuned = tuner.run()
    assert tuned.update.nonzero
    assert all(name.endswith(".weight") for name in tuned.update.tensors)


def test_selecting_everything_is_selecting_nothing(make_tiny: Callable[..., Msp]) -> None:
    base = make_tiny(7)
    config = FinetuneConfig(steps=4, batch=1, seed=5, vector_lr=1.0, matrix_lr=0.3, measure_every=0.5)
    runs = [
        Finetuner(base, MspObjective(base, LEVEL), Pictures(), AdaptivePrior(), config, s).run()
        for s in (None, everything(base))
    ]
    assert runs[0].payload == runs[1].payload != b""
    tuner = Finetuner(base, MspObjective(base, LEVEL), Pictures(), AdaptivePrior(), config)
    assert_decoder_gets(tuner, tuner.run(), make_tiny(7))


@pytest.mark.parametrize("text", ["random:500", "low-rank:1"])
def test_same_seed_same_bytes(text: str, folder: Path, make_tiny: Callable[..., Msp]) -> None:
    payloads = [finetune(make_tiny(7), chosen(text, make_tiny(7), folder))[1].payload for _ in range(2)]
    assert payloads[0] == payloads[1] != b""


def test_stream_names_of_strategies_stay() -> None:
    assert STRATEGIES[:5] == ("all", "biases", "biases+multipliers", "last-layer", "low-rank")
    assert STRATEGIES[5:9] == ("random", "learned-gaussian", "learned-laplace", "multipliers")


def test_where_nobody_says_scores_of_these_weights_decide(make_tiny: Callable[..., Msp], tmp_path: Path) -> None:
    assert usual_strategy(load_model()[0]).learned == "laplace"
    assert usual_strategy(make_tiny(), tmp_path) == Strategy()
