"""Integer mixtures: intervals that cover everything, tables that are what they say, bytes and back."""

from __future__ import annotations

import numpy as np
import pytest

from vidcodec.entropy import logistics
from vidcodec.entropy.logistics import LOGIT_BITS, SCALES, VALUE_BITS, logistic_tables
from vidcodec.entropy.mixtures import TOTAL, MixtureDecoder, MixtureEncoder, Mixtures
from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.lossless.exact import TABLES

COMPONENTS = 3


def samples(levels: int, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Values, parameters, linear parts, centres and units of `count` samples of one plane, some of them extreme."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, (1, count)).astype(np.int32)
    out = np.rint(rng.normal(0, rng.choice([1, 4, 60], count), (3 * COMPONENTS, count)) * 2**20)
    linear = np.rint(rng.normal(0, 3, (1, count)) * 2**20)
    centre = rng.integers(0, 4 * levels, (1, count))
    return values, out, linear, centre, rng.integers(0, 113, (1, count))


@pytest.mark.parametrize("levels", [256, 511, 1024, 2047])
def test_every_value_has_an_interval_and_they_touch(levels: int) -> None:
    _, out, linear, centre, unit = samples(levels, 40)
    for t in range(40):
        column = (slice(None), slice(t, t + 1))
        repeated = [np.ascontiguousarray(np.repeat(a[column], levels, 1)) for a in (out, linear, centre, unit)]
        encoder = MixtureEncoder()
        encoder.code(np.arange(levels, dtype=np.int32)[None], Mixtures(*repeated, levels, TABLES))
        starts, sizes = encoder.intervals.astype(np.int64).T
        assert sizes.min() >= (1 << 13) // levels
        assert starts[0] == 0
        assert np.array_equal(starts[1:], (starts + sizes)[:-1])
        assert starts[-1] + sizes[-1] == TOTAL


@pytest.mark.parametrize("levels", [256, 2047])
def test_samples_survive_whatever_the_mixtures(levels: int) -> None:
    arguments = samples(levels, 3000)
    encoder = MixtureEncoder()
    encoder.put_plain(arguments[0][:, :50], levels)
    encoder.code(arguments[0], Mixtures(*arguments[1:], levels, TABLES))
    payload = encoder.finish()
    decoder = MixtureDecoder(payload)
    assert np.array_equal(decoder.get_plain(50, levels), arguments[0][0, :50])
    assert np.array_equal(
        decoder.code(np.zeros_like(arguments[0]), Mixtures(*arguments[1:], levels, TABLES)), arguments[0]
    )
    assert 8 * len(payload) == pytest.approx(encoder.bits, abs=96)


def test_a_narrow_mixture_on_the_value_costs_next_to_nothing() -> None:
    values = np.full((1, 10_000), 77, np.int32)
    out = np.zeros((3, 10_000))
    out[2] = -10 * 2**20
    encoder = MixtureEncoder()
    centre, unit = 4 * values.astype(np.int64), np.full((1, 10_000), 16)
    encoder.code(values, Mixtures(out, np.zeros((1, 10_000)), centre, unit, 256, TABLES))
    assert encoder.bits / 10_000 < 0.001


def test_no_value_costs_more_than_the_floor() -> None:
    values = np.full((1, 100), 255, np.int32)
    out = np.zeros((3, 100))
    out[2] = -10 * 2**20
    encoder = MixtureEncoder()
    nowhere = np.zeros((1, 100), np.int64)
    encoder.code(values, Mixtures(out, np.zeros((1, 100)), nowhere, nowhere, 256, TABLES))
    assert encoder.bits / 100 <= 11 + 8


def test_tables_are_the_functions_they_stand_for() -> None:
    t = logistic_tables()
    x = np.arange(len(t.values)) / 1024
    assert np.abs(t.values / 2**VALUE_BITS - 1 / (1 + np.exp(-x))).max() < 2.0**-VALUE_BITS
    assert np.abs(t.weights / 2**20 - np.exp(-np.arange(len(t.weights)) / 2**LOGIT_BITS)).max() < 2.0**-19
    assert np.abs(t.inverses / 2.0 ** (29 - np.arange(SCALES) / 8) - 1).max() < 2.0**-13
    assert (np.diff(t.values) >= 0).all()


CONSTANTS = [
    name for name in dir(logistics) if name.isupper() and name[0] != "_" and isinstance(getattr(logistics, name), int)
]


@pytest.mark.parametrize("name", sorted({*CONSTANTS} - {"SCALES", "SURPRISE_LIMIT", "WORD", "SLOT", "TOTAL"}))
def test_the_digest_names_every_constant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those that follow from others."""
    tables = logistic_tables()
    before = tables.digest
    monkeypatch.setattr(logistics, name, getattr(logistics, name) + 1)
    assert tables.digest != before


def test_tables_are_named_by_their_digest() -> None:
    """A change of it makes files of the lossless mode unreadable: the arithmetic's version has to change too."""
    assert logistic_tables().digest.hex() == "3d9166bd65789db9"


@pytest.mark.parametrize("payload", [b"", b"1234", b"123456789", bytes(8), b"\xff" * 8])
def test_payloads_that_no_encoder_writes_are_refused(payload: bytes) -> None:
    with pytest.raises(CorruptBitstreamError):
        MixtureDecoder(payload)


def test_a_payload_that_ends_too_early_is_refused() -> None:
    arguments = samples(256, 2000)
    encoder = MixtureEncoder()
    encoder.code(arguments[0], Mixtures(*arguments[1:], 256, TABLES))
    payload = encoder.finish()
    with pytest.raises(CorruptBitstreamError, match="ends before"):
        MixtureDecoder(payload[: len(payload) // 8 * 4]).code(
            np.zeros_like(arguments[0]), Mixtures(*arguments[1:], 256, TABLES)
        )
