"""Motion from one decoded picture to the next: a vector for every block, and pictures moved along them.

Vectors (2, h, w), int64, x before y, in quarters of a luma sample, are of blocks of 16x16: a block shows what the
earlier picture shows so far away. Blocks overlap: every sample is a bilinear mean of what the vectors of the four
nearest blocks make of it (overlapped block motion compensation; Orchard and Sullivan 1994).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.families.msp.prediction import INTRA, SKIP, around
from vidcodec.latents.flags import FlagCoder, Flags, Numbers

UNIT = 4  # vectors to a luma sample
BITS = 10  # of a vector's components
BLOCK = 16
MARGIN = 2  # blocks around those that moved in which a moved picture is made
_LIMIT = (1 << BITS) - 1
_NEAR = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2))  # around a block, in a field with a border
SWEEPS = 2  # over the blocks, black and white
_SMALLEST = 32  # side of a picture in which motion is looked for


def search(planes: Tensor, earlier: Tensor, worth: float) -> np.ndarray:
    """Vectors from the planes (1, 6, H/2, W/2) of a picture to those of an earlier one.

    A dense flow (Kroeger et al., "Fast optical flow using dense inverse search", 2016), its median in each block, and
    then whatever of that, the vectors of neighbours and none at all costs the fewest bits. worth: bits a pixel that a
    mean squared error is worth.
    """
    now, then = (_luma(p) for p in (planes, earlier))
    h, w = now.shape[0] // BLOCK, now.shape[1] // BLOCK
    if min(now.shape) < _SMALLEST:
        return np.zeros((2, h, w), np.int64)
    eight_bits = [np.rint(255 * x).astype(np.uint8) for x in (now, then)]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the flow depends on how the rows are shared out
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*eight_bits, None)  # type: ignore[call-overload]
    cv2.setNumThreads(threads)
    blocks = flow.reshape(h, BLOCK, w, BLOCK, 2).transpose(4, 0, 2, 1, 3).reshape(2, h, w, -1)
    vectors = np.rint(UNIT * np.median(blocks, -1)).clip(-_LIMIT, _LIMIT).astype(np.int64)
    chess = np.indices((h, w)).sum(0) % 2
    for sweep in range(2 * SWEEPS):
        near = np.stack([_shifted(vectors, *step) for step in ((0, -1), (0, 1), (-1, 0), (1, 0))], 1)
        guess = _median(near)
        ways = [vectors, np.zeros_like(vectors), guess, *near.swapaxes(0, 1)]
        costs = [_cost(way, guess, now, then, worth) for way in ways]
        best = np.take_along_axis(np.stack(ways), np.argmin(costs, 0)[None, None], 0)[0]
        vectors = np.where(chess == sweep % 2, best, vectors)
    return vectors


def _luma(planes: Tensor) -> np.ndarray:
    """In [0, 1], (H, W)."""
    return (F.pixel_shuffle(planes[:, :4].float().cpu(), 2)[0, 0] + 0.5).clamp(0, 1).numpy()


def _shifted(field: np.ndarray, down: int, right: int) -> np.ndarray:
    """(2, h, w) with the values of neighbours; 0 beyond the sides."""
    _, h, w = field.shape
    return np.pad(field, ((0, 0), (1, 1), (1, 1)))[:, 1 + down : 1 + down + h, 1 + right : 1 + right + w]


def _cost(vectors: np.ndarray, guess: np.ndarray, now: np.ndarray, then: np.ndarray, worth: float) -> np.ndarray:
    """About the bits of blocks (h, w): of their vectors, and of what these leave to code.

    The latter as of a Gaussian source at the distortion D where a bit more is worth as much, 1 / (2 ln 2 worth).
    """
    dx, dy = np.repeat(np.repeat(vectors / UNIT, BLOCK, 1), BLOCK, 2)
    at_x = np.clip(np.arange(now.shape[1]) + dx, 0, now.shape[1] - 1).astype(np.float32)
    at_y = np.clip(np.arange(now.shape[0])[:, None] + dy, 0, now.shape[0] - 1).astype(np.float32)
    error = np.square(now - cv2.remap(then, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))
    h, w = vectors.shape[1:]
    mean = error.reshape(h, BLOCK, w, BLOCK).mean((1, 3))
    vector = np.where(vectors.any(0), 3 + 2 * np.log2(1 + np.abs(vectors - guess)).sum(0), 0)
    return vector + BLOCK * BLOCK / 2 * np.log2(1 + mean * 2 * np.log(2) * worth)


def part_of(vectors: np.ndarray) -> tuple[slice, slice]:
    """The blocks (rows, columns) in which `move` has to make a picture, `MARGIN` around those that moved."""
    moved = vectors.any(0)
    rows, columns = (np.flatnonzero(moved.any(axis)) for axis in (1, 0))
    return tuple(  # type: ignore[return-value]
        slice(max(0, int(k[0]) - MARGIN), min(n, int(k[-1]) + 1 + MARGIN))
        for k, n in zip((rows, columns), moved.shape, strict=True)
    )


def move(earlier: Tensor, vectors: np.ndarray, part: tuple[slice, slice]) -> Tensor:
    """Planes (1, 6, H/2, W/2) of an earlier picture, moved: a part of the next one, `part` in blocks."""
    source = earlier.float().cpu()
    luma = _moved(F.pixel_shuffle(source[:, :4], 2)[0].numpy(), vectors / UNIT, BLOCK, part)
    chroma = _moved(source[0, 4:].numpy(), vectors / (2 * UNIT), BLOCK // 2, part)
    planes = torch.cat([F.pixel_unshuffle(torch.from_numpy(luma)[None], 2), torch.from_numpy(chroma)[None]], 1)
    return planes.to(earlier.device)


def _moved(x: np.ndarray, vectors: np.ndarray, block: int, part: tuple[slice, slice]) -> np.ndarray:
    """x (C, H, W) along vectors in samples of it; bicubic in between."""
    (h, w), (rows, columns) = vectors.shape[1:], part
    y, near_y, far_y = _samples(rows, block, h)
    x_, near_x, far_x = _samples(columns, block, w)
    image = np.ascontiguousarray(x.transpose(1, 2, 0))
    out = np.zeros((y.size, x_.size, x.shape[0]), np.float32)
    for i, wy in (near_y, far_y):
        for j, wx in (near_x, far_x):
            dx, dy = vectors[:, i[:, None], j[None]]
            at_x = np.clip(x_ + dx, 0, x.shape[2] - 1).astype(np.float32)
            at_y = np.clip(y[:, None] + dy, 0, x.shape[1] - 1).astype(np.float32)
            moved = cv2.remap(image, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            out += (wy[:, None] * wx)[..., None] * moved.reshape(out.shape)
    return np.ascontiguousarray(out.transpose(2, 0, 1))


_Near = tuple[np.ndarray, np.ndarray]  # blocks and their weights


def _samples(blocks: slice, size: int, count: int) -> tuple[np.ndarray, _Near, _Near]:
    """Positions along one side, float64, and the two blocks nearest to each with their weights."""
    position = np.arange(blocks.start * size, blocks.stop * size)
    place = (position + 0.5) / size - 0.5
    first = np.floor(place).astype(np.int64)
    far = (place - first).astype(np.float32)
    inside = (np.clip(first + k, 0, count - 1) for k in (0, 1))
    return position.astype(np.float64), (next(inside), 1 - far), (next(inside), far)


# -------------------------------------------------------------------------------- coding


def code_vectors(code: FlagCoder, vectors: np.ndarray, modes: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Vectors through a coder, row by row: of blocks that have a reference, whether they moved, and how.

    modes: (h, w) of the blocks; before: (h, w) bool, which of the reference's moved. A vector is told by its difference
    to the median of those around it: of even columns first, which know the row above, then of odd ones.
    """
    _, h, w = vectors.shape
    found = np.zeros((2, h + 1, w + 2), np.int64)  # with a border
    moved, numbers = Flags(18), Numbers(BITS + 1)
    for r in range(h):
        columns = np.flatnonzero(modes[r] != INTRA)
        above = found[:, r].any(0)
        context = 6 * around(above[1:-1]) + 2 * around(before[r]) + (modes[r] != SKIP)
        flags = moved.code(code, vectors[:, r, columns].any(0), context[columns])
        columns = columns[flags != 0]
        for odd in (0, 1):
            c = columns[columns % 2 == odd]
            if c.size:
                near = found[:, [r, r, r, r + 1, r + 1]][
                    :, np.arange(5)[:, None], c + np.array([[0], [1], [2], [0], [2]])
                ]
                guess = _median(near)
                difference = numbers.code(code, (vectors[:, r, c] - guess).reshape(-1)).reshape(2, -1)
                found[:, r + 1, c + 1] = np.clip(guess + difference, -_LIMIT, _LIMIT)
    return found[:, 1:, 1:-1]


def _median(near: np.ndarray) -> np.ndarray:
    """The (lower) median of vectors (2, k, n) that are not zero, by component: (2, n); zero where none is."""
    there = near.any(0)  # (k, n)
    ordered = np.sort(np.where(there, near, np.iinfo(np.int64).max), 1)
    middle = np.maximum(there.sum(0) - 1, 0) // 2
    return np.where(there.any(0), np.take_along_axis(ordered, middle[None, None].repeat(2, 0), 1)[:, 0], 0)
