"""Build the bank of integer distributions that vidcodec ships (vidcodec/entropy/bank.npz).

Run once per bank version; the file is committed, named by its digest in every stream,
and never rebuilt by the codec, so that no machine's libm can change a table.

    python scripts/build_cdf_bank.py vidcodec/entropy/bank.npz
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vidcodec.entropy.scales import LEVELS, index_to_scale

TOTAL = 1 << 16
TAIL = 2.0**-17
MAX_REACH = 1023


def normal_cells(sigma: float, reach: int) -> list[float]:
    def cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / sigma / math.sqrt(2))

    return [cdf(abs(k) * -1 + 0.5) - cdf(abs(k) * -1 - 0.5) for k in range(-reach, reach + 1)]


def laplace_cells(mean_magnitude: float, tilt: float, reach: int) -> list[float]:
    """Two-sided geometric with E|q| = mean_magnitude; tilt > 0 gives the tail more weight.

    tilt mixes a second geometric of four times the mean magnitude (share `tilt`).
    """

    def geometric(m: float) -> list[float]:
        # p(k) = a r^|k|, with sum 1 and mean magnitude m: 2r / (1 - r^2) = m
        r = (math.sqrt(1 + m * m) - 1) / m
        a = (1 - r) / (1 + r)
        return [a * r ** abs(k) for k in range(-reach, reach + 1)]

    if tilt == 0:
        return geometric(mean_magnitude)
    base = mean_magnitude / (1 + 3 * tilt)
    one, two = geometric(base), geometric(4 * base)
    return [(1 - tilt) * p + tilt * q for p, q in zip(one, two, strict=True)]


def spike_slab_cells(reach: int, *, t: float = 2.0**-8, sigma: float = 0.05, alpha: float = 1000.0) -> list[float]:
    """van Rozendaal et al. 2021: (N(0, sigma^2) + alpha N(0, (t/6)^2)) / (1 + alpha) over bins of t."""
    slab, spike = normal_cells(sigma / t, reach), normal_cells(1 / 6, reach)
    return [(a + alpha * b) / (1 + alpha) for a, b in zip(slab, spike, strict=True)]


def quantise(cells: list[float]) -> list[int]:
    """Cells plus one escape symbol as positive integers with sum 2^16."""
    weights = [*cells, max(1.0 - math.fsum(cells), 0.0)]
    scale = (TOTAL - len(weights)) / math.fsum(weights)
    counts = [1 + int(w * scale) for w in weights]
    middle = len(cells) // 2
    counts[middle] += TOTAL - sum(counts)
    return counts


def table(cell_function: Callable[[int], list[float]]) -> list[int]:
    """Counts of the distribution whose cells -reach .. reach `cell_function(reach)` gives."""
    reach = 1
    while reach < MAX_REACH and 1.0 - math.fsum(cell_function(reach)) > TAIL:
        reach = min(MAX_REACH, max(reach + 1, reach * 5 // 4))
    return quantise(cell_function(reach))


def main(path: str) -> None:
    tables = [table(partial(normal_cells, index_to_scale(float(k)))) for k in range(LEVELS)]
    for tilt in (0.0, 0.12):
        for k in range(LEVELS):  # E|q| from 2^-12 to 2^6.9, 0.3 octaves apart
            tables.append(table(partial(laplace_cells, 2.0 ** (-12 + 0.3 * k), tilt)))
    tables.append([TOTAL // 256] * 256)  # a plain byte
    tables.append(table(spike_slab_cells))
    sizes = np.array([len(t) for t in tables], np.uint16)
    log_magnitude = np.array([round(256 * math.log2(1 + q)) for q in range(1024)], np.uint16)
    counts = np.concatenate(tables).astype(np.uint16)
    np.savez_compressed(Path(path), sizes=sizes, counts=counts, log_magnitude=log_magnitude)
    print(f"{len(tables)} tables, {int(sizes.sum())} entries, {Path(path).stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
