"""Vectors of blocks: found, moved along, and coded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.msp import motion
from vidcodec.families.msp.prediction import INTER, INTRA, SKIP
from vidcodec.latents.flags import Numbers, reading, writing
from vidcodec.latents.symbols import SymbolReader, SymbolWriter

WORTH = 4000.0  # bits a pixel that a mean squared error of 1 is worth


def planes(right: int = 0, down: int = 0) -> torch.Tensor:
    """A window (96, 128) on a larger smooth picture, grey chroma: planes (1, 6, 48, 64)."""
    coarse = np.random.default_rng(1).uniform(-0.4, 0.4, (24, 32)).astype(np.float32)
    large = cv2.resize(coarse, (192, 160), interpolation=cv2.INTER_CUBIC)
    window = torch.from_numpy(large[down : down + 96, right : right + 128].copy())[None, None]
    return torch.cat([torch.nn.functional.pixel_unshuffle(window, 2), torch.zeros(1, 2, 48, 64)], 1)


def inner(x: torch.Tensor) -> torch.Tensor:
    return x[..., 8:-8, 8:-8]


@pytest.mark.parametrize(("right", "down"), [(4, 0), (0, -2), (6, 4)])
def test_a_picture_moved_along_its_vectors_is_the_next_one(right: int, down: int) -> None:
    now, then = planes(16 + right, 16 + down), planes(16, 16)
    vectors = motion.search(now, then, WORTH)
    assert np.median(vectors[0]) == motion.UNIT * right
    assert np.median(vectors[1]) == motion.UNIT * down
    moved = motion.move(then, vectors, (slice(0, 6), slice(0, 8)))
    assert moved.shape == now.shape
    assert (inner(moved) - inner(now)).abs().mean() < 0.1 * (inner(then) - inner(now)).abs().mean()


def test_a_part_is_moved_as_the_whole() -> None:
    vectors = np.random.default_rng(2).integers(-20, 20, (2, 6, 8))
    whole = motion.move(planes(), vectors, (slice(0, 6), slice(0, 8)))
    part = motion.move(planes(), vectors, (slice(1, 4), slice(2, 7)))
    assert torch.equal(part, whole[..., 8:32, 16:56])


def test_what_stands_still_has_no_vectors() -> None:
    assert not motion.search(planes(), planes(), WORTH).any()
    assert not motion.search(torch.zeros(1, 6, 8, 8), torch.zeros(1, 6, 8, 8), WORTH).any()  # too small to look


def test_the_part_to_move_lies_around_what_moved() -> None:
    vectors = np.zeros((2, 12, 12), np.int64)
    vectors[0, 5, 1] = 3
    assert motion.part_of(vectors) == (slice(3, 8), slice(0, 4))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (9, 11)])
def test_vectors_come_back(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    modes = rng.choice([SKIP, INTER, INTRA], shape).astype(np.uint8)
    before = rng.random(shape) < 0.5
    vectors = rng.integers(-1023, 1024, (2, *shape)) * (rng.random(shape) < 0.6) * (modes != INTRA)
    writer = SymbolWriter()
    assert np.array_equal(motion.code_vectors(writing(writer), vectors, modes, before), vectors)
    reader = SymbolReader(writer.coder.finish())
    assert np.array_equal(motion.code_vectors(reading(reader), np.zeros_like(vectors), modes, before), vectors)
    assert reader.log == writer.log


def test_vectors_that_are_alike_cost_little() -> None:
    vectors = np.full((2, 18, 22), 7)
    modes = np.full((18, 22), SKIP, np.uint8)
    writer = SymbolWriter()
    motion.code_vectors(writing(writer), vectors, modes, np.ones((18, 22), bool))
    assert 8 * len(writer.coder.finish()) < 1.25 * 18 * 22


def test_numbers_come_back() -> None:
    values = np.concatenate([np.arange(-40, 41), [2047, -2047]])
    writer = SymbolWriter()
    Numbers(11).code(writing(writer), values)
    reader = SymbolReader(writer.coder.finish())
    assert np.array_equal(Numbers(11).code(reading(reader), np.zeros_like(values)), values)


def test_damaged_vectors_end_in_an_error_or_in_vectors() -> None:
    modes = np.full((18, 22), INTER, np.uint8)
    empty = np.zeros((2, 18, 22), np.int64)
    rng = np.random.default_rng(7)
    writer = SymbolWriter()
    motion.code_vectors(writing(writer), rng.integers(-99, 100, empty.shape), modes, np.zeros(modes.shape, bool))
    payload, found = writer.coder.finish(), 0
    for _ in range(40):
        damaged = bytearray(payload)
        damaged[rng.integers(8, len(payload))] ^= 1 << rng.integers(8)
        try:
            reader = SymbolReader(bytes(damaged))
            vectors = motion.code_vectors(reading(reader), empty, modes, np.zeros(modes.shape, bool))
        except CorruptBitstreamError:
            continue
        found += 1
        assert np.abs(vectors).max() < 1 << motion.BITS
        motion.move(torch.zeros(1, 6, 144, 176), vectors, (slice(0, 18), slice(0, 22)))
    assert found
