"""Quantised symbols: round trips, lengths, one stream with the bank's symbols, payloads no encoder wrote."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_support import PLAIN, QUANTIZERS, TRADE_OFF, TRELLISES, latents

from vidcodec.entropy.bank import BYTE, bank
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError
from vidcodec.latents.coder import SymbolDecoder, SymbolEncoder
from vidcodec.latents.quantizer import Quantizer, quantise, symbol_bits
from vidcodec.latents.tables import FLAG_CHANCES, QUANTISERS, SETS, rates, tables


def code(quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None) -> bytes:
    encoder = SymbolEncoder()
    encoder.put_quantised(quantizer, symbols, index, runs)
    return encoder.finish()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("runs", [None, np.arange(0, 20001, 100)])
def test_quantised_latents_come_back_at_the_length_that_was_charged(
    quantizer: Quantizer, runs: np.ndarray | None
) -> None:
    residual, index = latents(20000)
    symbols = quantise(quantizer, residual, index, TRADE_OFF, runs=runs).symbols
    payload = code(quantizer, symbols, index, runs)
    assert np.array_equal(SymbolDecoder(payload).get_quantised(quantizer, index, runs), symbols)
    ideal = symbol_bits(quantizer, symbols, index, runs).sum() / 8
    assert ideal - 8 < len(payload) < 1.002 * ideal + 8


@pytest.mark.parametrize("kind", QUANTISERS)
def test_decisions_are_made_with_the_rates_that_are_charged(kind: str) -> None:
    for table_set in range(SETS):
        quantizer = Quantizer(kind, table_set, 0)
        bits = rates(kind, table_set)
        magnitude = np.arange(0, bits.shape[2] + 5, dtype=np.int32)
        for q in range(bits.shape[0]):
            state = 0 if q == 0 else int(np.flatnonzero(quantizer.machine.use)[0])  # type: ignore[union-attr]
            for row in range(0, 64, 9):
                table = quantizer.table(np.full(magnitude.size, row), np.full(magnitude.size, state))
                charged = tables().symbol_bits(magnitude, table)
                assert np.array_equal(charged, tables().symbol_bits(-magnitude, table))
                assert np.allclose(bits[q, row, np.minimum(magnitude, bits.shape[2] - 1)], charged)


def test_tables_are_what_was_shipped_and_whole() -> None:
    t = tables()
    assert t.digest.hex() == "e4a2b91075d4ca93"
    assert len(t.counts) == len(bank().counts) + 64 * (3 + 2 * 2 * SETS) + len(FLAG_CHANCES)
    for counts in t.counts:
        assert counts.min() > 0
        assert int(counts.astype(np.int64).sum()) == 1 << 16


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_few_symbols(quantizer: Quantizer, count: int) -> None:
    for k in (0, 1, -2, 32767, -32767):
        symbols, index = np.full(count, k, np.int32), np.full(count, 1 + count)
        payload = code(quantizer, symbols, index)
        assert (payload == b"") == (count == 0)
        assert SymbolDecoder(payload).get_quantised(quantizer, index).tolist() == symbols.tolist()
    everything_zero = np.zeros(count, np.int32)
    assert code(quantizer, everything_zero, everything_zero) == b""
    assert SymbolDecoder(b"").get_quantised(quantizer, everything_zero).tolist() == everything_zero.tolist()


@given(
    st.lists(st.tuples(st.integers(-32767, 32767) | st.integers(-4, 4), st.integers(0, 63)), max_size=60),
    st.sampled_from(QUANTIZERS),
    st.integers(1, 20),
)
@settings(max_examples=150, deadline=None)
def test_any_symbols_come_back(pairs: list[tuple[int, int]], quantizer: Quantizer, length: int) -> None:
    index = np.array([i for _, i in pairs], np.uint8)
    symbols = np.array([k if i else 0 for k, i in pairs], np.int32)
    runs = np.append(np.arange(0, len(pairs), length), len(pairs))
    payload = code(quantizer, symbols, index, runs)
    assert np.array_equal(SymbolDecoder(payload).get_quantised(quantizer, index, runs), symbols)


def test_the_stream_is_that_of_the_banks_coder() -> None:
    rng = np.random.default_rng(3)
    index = rng.choice(np.flatnonzero(np.arange(len(bank().counts)) != BYTE), 3000)
    symbols = rng.integers(-3000, 3000, 3000) // rng.integers(1, 3000, 3000)
    ours, theirs = SymbolEncoder(), RansEncoder()
    for coder in (ours, theirs):
        coder.put(symbols[:2000], index[:2000])  # type: ignore[attr-defined]
        coder.put_bytes(b"between")  # type: ignore[attr-defined]
        coder.put(symbols[2000:], index[2000:])  # type: ignore[attr-defined]
    payload = ours.finish()
    assert payload == theirs.finish()
    for decoder in (SymbolDecoder(payload), RansDecoder(payload)):
        assert np.array_equal(decoder.get(index[:2000].reshape(4, 500)), symbols[:2000].reshape(4, 500))
        assert decoder.get_bytes(7) == b"between"
        assert np.array_equal(decoder.get(index[2000:]), symbols[2000:])


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (Quantizer("scalar", 2, -1), "15957f9d61e2ffce"),
        (Quantizer("trellis4", 3, 2), "dd2f983469136953"),
        (Quantizer("trellis8", 1, 4), "4b15d1064411fea3"),
    ],
)
def test_streams_stay_what_they_are(quantizer: Quantizer, expected: str) -> None:
    n = np.arange(3000)
    index = n * n % 61
    symbols = np.where(index > 0, (n * 7919 % 11 - 5) * (n % 5 == 0) + 900 * (n % 501 == 0), 0)
    encoder = SymbolEncoder()
    encoder.put_quantised(quantizer, symbols, index, np.array([0, 700, 3000]))
    assert hashlib.sha256(encoder.finish()).hexdigest()[:16] == expected


def test_kinds_follow_each_other_in_one_stream() -> None:
    parts = [(q, *latents(500, n)) for n, q in enumerate(QUANTIZERS)]
    coded = [(q, quantise(q, x, i, TRADE_OFF).symbols, i) for q, x, i in parts]
    encoder = SymbolEncoder()
    for q, symbols, index in coded:
        encoder.put_quantised(q, symbols, index)
    decoder = SymbolDecoder(encoder.finish())
    for q, symbols, index in coded:
        assert np.array_equal(decoder.get_quantised(q, index), symbols)


@pytest.mark.parametrize("quantizer", [PLAIN, *TRELLISES])
@pytest.mark.parametrize("value", [32768, -32768, 10**6])
def test_symbols_beyond_the_escape_are_refused(quantizer: Quantizer, value: int) -> None:
    with pytest.raises(ValueError, match="beyond"):
        code(quantizer, np.array([0, value]), np.array([5, 5]))


@given(st.binary(max_size=200), st.sampled_from(QUANTIZERS), st.integers(1, 63), st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_any_payload_gives_bounded_symbols_or_a_typed_error(
    payload: bytes, quantizer: Quantizer, index: int, count: int
) -> None:
    try:
        symbols = SymbolDecoder(payload).get_quantised(quantizer, np.full(count, index))
    except CorruptBitstreamError:
        return
    assert symbols.shape == (count,)
    assert np.abs(symbols).max(initial=0) <= 1 << 15


@pytest.mark.parametrize("quantizer", [PLAIN, *TRELLISES])
def test_cut_payloads_are_noticed(quantizer: Quantizer) -> None:
    residual, index = latents(2000)
    payload = code(quantizer, quantise(quantizer, residual, index, TRADE_OFF).symbols, index)
    for cut in range(0, len(payload) - 3, 5):
        with pytest.raises(CorruptBitstreamError):
            SymbolDecoder(payload[:cut]).get_quantised(quantizer, index)


@pytest.mark.parametrize("quantizer", [PLAIN, *TRELLISES])
def test_damaged_payloads_never_crash(quantizer: Quantizer) -> None:
    residual, index = latents(2000)
    symbols = quantise(quantizer, residual, index, TRADE_OFF).symbols
    payload = bytearray(code(quantizer, symbols, index))
    rng = np.random.default_rng(4)
    for _ in range(200):
        damaged = bytearray(payload)
        damaged[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        try:
            found = SymbolDecoder(bytes(damaged)).get_quantised(quantizer, index)
        except CorruptBitstreamError:
            continue
        assert found.shape == symbols.shape
        assert np.abs(found).max() <= 1 << 15
        assert not found[index == 0].any()


def test_more_than_there_is_is_refused_at_once() -> None:
    payload = code(PLAIN, np.ones(100, np.int32), np.full(100, 20))
    with pytest.raises(CorruptBitstreamError, match="left"):
        SymbolDecoder(payload).get_bytes(10**12)
    with pytest.raises(CorruptBitstreamError, match="ends before"):
        SymbolDecoder(payload).get(np.full(10**5, 63))
    for few in (b"\0", b"\0" * 4, b"\0" * 8, b"\xff" * 8, b"\1" * 11):
        with pytest.raises(CorruptBitstreamError):
            SymbolDecoder(few)


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    modules = "vidcodec.latents.quantizer, vidcodec.latents.tables, vidcodec.latents.coder, vidcodec.entropy.rans"
    program = f"import sys, {modules}; print(sorted({{'numba', 'torch', 'compressai'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("chance", [0.001, 0.1, 0.5, 0.97])
def test_flags_cost_about_their_entropy(chance: float) -> None:
    flags = (np.random.default_rng(0).random(20_000) < chance).astype(np.int32)
    table = tables().flag_table(np.full(flags.size, max(1, flags.sum())), np.full(flags.size, flags.size))
    encoder = SymbolEncoder()
    encoder.put(flags, table)
    payload = encoder.finish()
    p = flags.mean()
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * flags.size / 8
    assert len(payload) <= 1.02 * entropy + 16
    assert np.array_equal(SymbolDecoder(payload).get(table), flags)
