"""rANS over the bank: round trips, escapes, and payloads that no encoder wrote."""

from __future__ import annotations

import hashlib
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcodec.entropy import rans_kernels, tables
from vidcodec.entropy.bank import BYTE, GEOMETRIC, NORMAL, TABLES, bank
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.entropy.tables import ESCAPE_LIMIT
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
    back = RansDecoder(code(symbols, index)).get(index)
    assert back.dtype == np.int32
    assert np.array_equal(back, symbols)


def test_shape_of_the_index_is_the_shape_of_the_symbols() -> None:
    index = np.full((2, 3, 4), NORMAL + 30)
    symbols = np.arange(24).reshape(2, 3, 4) - 12
    assert np.array_equal(RansDecoder(code(symbols, index)).get(index), symbols)


def test_bytes_between_symbols() -> None:
    coder = RansEncoder()
    coder.put_bytes(bytes(range(256)))
    coder.put(np.array([-7000, 3]), np.array([GEOMETRIC, GEOMETRIC + 40]))
    coder.put_bytes(b"end")
    decoder = RansDecoder(coder.finish())
    assert decoder.get_bytes(256) == bytes(range(256))
    assert decoder.get(np.array([GEOMETRIC, GEOMETRIC + 40])).tolist() == [-7000, 3]
    assert decoder.get_bytes(3) == b"end"


def test_nothing_takes_no_bytes() -> None:
    assert code(np.zeros(0, np.int32), np.zeros(0, np.int32)) == b""
    decoder = RansDecoder(b"")
    assert decoder.get(np.zeros((0, 5), np.int64)).shape == (0, 5)
    assert decoder.get_bytes(0) == b""


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_symbols(count: int) -> None:
    for symbol, table in ((0, NORMAL), (1, NORMAL), (0, GEOMETRIC + 63), (-32767, NORMAL), (255, BYTE)):
        symbols, index = np.full(count, symbol), np.full(count, table)
        assert RansDecoder(code(symbols, index)).get(index).tolist() == [symbol] * count


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
    assert np.array_equal(RansDecoder(code(symbols, index)).get(index), symbols)


@given(st.binary(max_size=200), st.integers(0, TABLES - 1), st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_any_payload_gives_bounded_symbols_or_a_typed_error(payload: bytes, table: int, count: int) -> None:
    index = np.full(count, table)
    try:
        symbols = RansDecoder(payload).get(index)
    except CorruptBitstreamError:
        return
    assert symbols.shape == (count,)
    if table == BYTE:
        assert ((symbols >= 0) & (symbols < 256)).all()
    else:
        assert (np.abs(symbols.astype(np.int64)) <= ESCAPE_LIMIT).all()


def test_cut_payloads_are_noticed() -> None:
    rng = np.random.default_rng(2)
    index = rng.integers(NORMAL, NORMAL + 64, 2000)
    payload = code(rng.integers(-3000, 3000, 2000), index)
    for cut in range(0, len(payload) - 3, 97):
        with pytest.raises(CorruptBitstreamError):
            RansDecoder(payload[:cut]).get(index)


def test_what_is_missing_is_told_before_the_next_part_is_read() -> None:
    rng = np.random.default_rng(2)
    index = rng.integers(GEOMETRIC + 30, GEOMETRIC + 60, 2000)
    payload = code(rng.integers(-9, 9, 2000), index)
    for cut in range(8, len(payload) // 2, 96):
        decoder = RansDecoder(payload[:cut])
        parts = iter(index.reshape(10, -1))
        with pytest.raises(CorruptBitstreamError, match="cut off"):
            _ = [decoder.get(part) for part in parts]
        assert next(parts, None) is not None


@pytest.mark.parametrize("state", [0, (1 << 31) - 1, 1 << 63, (1 << 64) - 1])
def test_states_no_encoder_leaves_are_refused(state: int) -> None:
    with pytest.raises(CorruptBitstreamError, match="state no encoder leaves"):
        RansDecoder(state.to_bytes(8, "little") + bytes(100))


def test_many_symbols_that_cost_hardly_anything() -> None:
    index = np.full(500_000, GEOMETRIC)
    symbols = np.zeros(500_000, np.int32)
    symbols[::50_000] = 9
    payload = code(symbols, index)
    assert np.array_equal(RansDecoder(payload).get(index), symbols)


def test_a_short_payload_takes_little_memory_whatever_is_expected_of_it() -> None:
    tracemalloc.start()
    decoder = RansDecoder(b"\x12\x34\x56\x78" * 3)
    with pytest.raises(CorruptBitstreamError):
        decoder.get(np.full(1 << 16, NORMAL + 40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_more_than_there_is_is_refused_at_once() -> None:
    start = time.monotonic()
    decoder = RansDecoder(b"\x12\x34\x56\x78" * 4)
    with pytest.raises(CorruptBitstreamError, match="left"):
        decoder.get_bytes(10**12)
    with pytest.raises(CorruptBitstreamError, match="cut off"):
        decoder.get(np.full(10**6, NORMAL + 63))
    for few in (b"\0", b"\0" * 4, b"\1" * 11):
        with pytest.raises(CorruptBitstreamError):
            RansDecoder(few)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("table", [-1, TABLES, 10**6])
def test_tables_there_are_not_are_refused(table: int) -> None:
    """The compiled loops would read beyond their arrays."""
    numbers = np.array([NORMAL, table])
    with pytest.raises(ValueError, match="numbered"):
        RansEncoder().put(np.zeros(2, np.int32), numbers)
    decoder = RansDecoder(code(np.zeros(5, np.int32), np.full(5, NORMAL)))
    with pytest.raises(ValueError, match="numbered"):
        decoder.get(numbers)
    with pytest.raises(ValueError, match="numbered"):
        decoder.get_dependent(numbers[:1], table, np.array([0, 1]), NEXT, USE, 0)


@pytest.mark.parametrize("value", [-1, 256, 32767])
def test_bytes_beyond_a_byte_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="byte"):
        RansEncoder().put(np.array([value]), np.array([BYTE]))


NEXT, USE = np.array([[0, 1], [1, 0]], np.uint8), np.array([0, 1], np.uint8)


@given(st.lists(st.integers(-32767, 32767) | st.integers(-9, 9), max_size=60), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_tables_may_depend_on_the_symbols_before(values: list[int], length: int) -> None:
    """After every odd symbol of a run the other of two tables, which are 40 apart; escapes among them."""
    symbols, table = np.array(values, np.int32), np.full(len(values), NORMAL + 8)
    runs = np.append(np.arange(0, len(values), length), len(values))
    odd = [int(symbols[t - t % length : t].astype(np.int64).sum() & 1) for t in range(len(values))]
    encoder = RansEncoder()
    encoder.put(symbols, table + 40 * np.array(odd, np.int64), dependent=True)
    encoder.put_bytes(b"end")
    decoder = RansDecoder(encoder.finish())
    assert decoder.get_dependent(table, 40, runs, NEXT, USE, 0).tolist() == values
    assert decoder.get_bytes(3) == b"end"


def test_streams_stay_what_they_are() -> None:
    """Made by CompressAI's coder (`compressai.ans`), which wrote the files before this one did."""
    n = np.arange(3000)
    index = np.array(SIGNED)[n * n % len(SIGNED)]
    symbols = (n * 7919 % 11 - 5) * (n % 5 == 0) + 900 * (n % 501 == 0) - 32767 * (n % 997 == 7)
    coder = RansEncoder()
    coder.put(symbols[:2000], index[:2000])
    coder.put_bytes(b"between")
    coder.put(symbols[2000:], index[2000:])
    assert hashlib.sha256(coder.finish()).hexdigest()[:16] == "79a62b8023fb8af4"
    for count, expected in (("3", "ffff7c800000000091afb076"), ("5", "ffff6d020100000041732f7d")):
        assert code(symbols[: int(count)], index[: int(count)]).hex() == expected


def test_constants_of_the_compiled_loops_are_those_of_the_tables() -> None:
    for name in ("PRECISION", "BUCKET_BITS", "ESCAPE_LIMIT"):
        assert getattr(rans_kernels, name) == getattr(tables, name)
