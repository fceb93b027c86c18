"""rANS over the bank: round trips, escapes, and payloads that no encoder wrote."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcodec.entropy.bank import BYTE, GEOMETRIC, NORMAL, TABLES, bank
from vidcodec.entropy.rans import ESCAPE_LIMIT, RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError

SIGNED = [i for i in range(TABLES) if i != BYTE]


def code(symbols: np.ndarray, index: np.ndarray) -> bytes:
    coder = RansEncoder()
    coder.put(symbols, index)
    return coder.finish()


def test_every_table_at_and_beyond_its_reach() -> None:
    reach = bank().reach[SIGNED]
    extremes = (0, 1, -1, reach, -reach, reach + 1, -reach - 1, reach + 2, 32767, -32767)
    symbols = np.concatenate([np.broadcast_to(v, reach.shape) for v in extremes]).astype(np.int32)
    index = np.tile(SIGNED, len(extremes))
    back = RansDecoder(code(symbols, index), len(symbols)).get(index)
    assert back.dtype == np.int32
    assert np.array_equal(back, symbols)


def test_shape_of_the_index_is_the_shape_of_the_symbols() -> None:
    index = np.full((2, 3, 4), NORMAL + 30)
    symbols = np.arange(24).reshape(2, 3, 4) - 12
    assert np.array_equal(RansDecoder(code(symbols, index), 24).get(index), symbols)


def test_bytes_between_symbols() -> None:
    coder = RansEncoder()
    coder.put_bytes(bytes(range(256)))
    coder.put(np.array([-7000, 3]), np.array([GEOMETRIC, GEOMETRIC + 40]))
    coder.put_bytes(b"end")
    decoder = RansDecoder(coder.finish(), 300)
    assert decoder.get_bytes(256) == bytes(range(256))
    assert decoder.get(np.array([GEOMETRIC, GEOMETRIC + 40])).tolist() == [-7000, 3]
    assert decoder.get_bytes(3) == b"end"


def test_nothing_takes_no_bytes() -> None:
    assert code(np.zeros(0, np.int32), np.zeros(0, np.int32)) == b""
    decoder = RansDecoder(b"", 0)
    assert decoder.get(np.zeros((0, 5), np.int64)).shape == (0, 5)
    assert decoder.get_bytes(0) == b""


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_symbols(count: int) -> None:
    for symbol, table in ((0, NORMAL), (1, NORMAL), (0, GEOMETRIC + 63), (-32767, NORMAL), (255, BYTE)):
        symbols, index = np.full(count, symbol), np.full(count, table)
        for _ in range(20):  # CompressAI's flush corrupted the heap with one symbol or two
            assert RansDecoder(code(symbols, index), count).get(index).tolist() == [symbol] * count


@pytest.mark.parametrize("value", [ESCAPE_LIMIT, -ESCAPE_LIMIT, 10**6])
def test_symbols_beyond_the_escape_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="beyond"):
        RansEncoder().put(np.array([value]), np.array([NORMAL]))


def test_length_is_the_ideal_code_length() -> None:
    rng = np.random.default_rng(5)
    index = rng.integers(NORMAL, NORMAL + 64, 20000)
    symbols = np.rint(rng.normal(0, 0.11 * (128 / 0.11) ** (index / 63))).astype(np.int32)
    ideal = bank().symbol_bits(symbols, index) / 8
    assert ideal - 8 < len(code(symbols, index)) < 1.002 * ideal + 8


@given(st.lists(st.tuples(st.integers(-32767, 32767) | st.integers(-9, 9), st.sampled_from(SIGNED)), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_symbols_come_back(pairs: list[tuple[int, int]]) -> None:
    symbols = np.array([p[0] for p in pairs], np.int32)
    index = np.array([p[1] for p in pairs], np.int32)
    assert np.array_equal(RansDecoder(code(symbols, index), len(pairs)).get(index), symbols)


@given(st.binary(max_size=200), st.integers(0, TABLES - 1), st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_any_payload_gives_bounded_symbols_or_a_typed_error(payload: bytes, table: int, count: int) -> None:
    index = np.full(count, table)
    try:
        symbols = RansDecoder(payload, count).get(index)
    except CorruptBitstreamError:
        return
    assert symbols.shape == (count,)
    if table == BYTE:
        assert ((symbols >= 0) & (symbols < 256)).all()
    else:
        assert (np.abs(symbols.astype(np.int64)) <= ESCAPE_LIMIT).all()


def test_cut_payloads_never_crash() -> None:
    rng = np.random.default_rng(2)
    index = rng.integers(NORMAL, NORMAL + 64, 2000)
    payload = code(rng.integers(-3000, 3000, 2000), index)
    for cut in range(0, len(payload), 97):
        with contextlib.suppress(CorruptBitstreamError):
            symbols = RansDecoder(payload[:cut], 2000).get(index)
            assert np.abs(symbols.astype(np.int64)).max() <= ESCAPE_LIMIT


def test_what_is_missing_is_told_before_the_next_part_is_read() -> None:
    rng = np.random.default_rng(2)
    index = rng.integers(GEOMETRIC + 30, GEOMETRIC + 60, 2000)
    payload = code(rng.integers(-9, 9, 2000), index)
    for cut in range(0, len(payload) // 2, 97):
        decoder = RansDecoder(payload[:cut], 2000)
        with pytest.raises(CorruptBitstreamError, match="cut off"):
            _ = [decoder.get(part) for part in index.reshape(10, -1)]


@pytest.mark.parametrize("state", [0, (1 << 31) - 1, 1 << 63, (1 << 64) - 1])
def test_states_no_encoder_leaves_are_refused(state: int) -> None:
    # Below its range the library would take a word for every symbol, however likely.
    with pytest.raises(CorruptBitstreamError):
        RansDecoder(state.to_bytes(8, "little") + bytes(100), 10**6).get(np.full(10**6, GEOMETRIC))


def test_many_symbols_that_cost_hardly_anything() -> None:
    index = np.full(500_000, GEOMETRIC)
    symbols = np.zeros(500_000, np.int32)
    symbols[::50_000] = 9
    payload = code(symbols, index)
    assert np.array_equal(RansDecoder(payload, 500_000).get(index), symbols)


def test_a_short_payload_takes_little_memory_whatever_is_expected_of_it() -> None:
    tracemalloc.start()
    decoder = RansDecoder(b"\x12\x34\x56\x78" * 3, capacity=1 << 22)
    with pytest.raises(CorruptBitstreamError):
        decoder.get(np.full(1 << 16, NORMAL + 40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_reading_beyond_the_capacity_is_refused() -> None:
    start = time.monotonic()
    decoder = RansDecoder(b"\x12\x34\x56\x78" * 4, capacity=10)
    for _ in range(3):  # each symbol may be an escape and two bytes
        decoder.get(np.full(10, NORMAL + 20))
    with pytest.raises(CorruptBitstreamError, match="more symbols"):
        decoder.get(np.full(100, NORMAL + 63))
    with pytest.raises(CorruptBitstreamError):
        RansDecoder(b"", capacity=1).get_bytes(10**7)
    assert time.monotonic() - start < 2
