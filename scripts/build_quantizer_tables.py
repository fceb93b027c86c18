"""Build the distributions of quantised symbols that vidcodec ships (vidcodec/latents/tables.npz).

Run once per version of the tables; the file is committed and never rebuilt by the codec. Each table starts from the
cells between the midpoints of its quantiser's points. Then normal values of mixed deviations are quantised with the
rates so far, and the symbols that come out are counted, a few times over. Heavier tails: the deviation itself is
drawn log-normally around what the index says (the second moment kept).

    python scripts/build_quantizer_tables.py vidcodec/latents/tables.npz
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from vidcodec.entropy.scales import LEVELS, index_to_scale
from vidcodec.latents.kernels import decide_scalar, decide_trellis, walk_states
from vidcodec.latents.quantizer import MACHINES
from vidcodec.latents.tables import Tables, shipped

TOTAL = 1 << 16
TAIL = 2.0**-17
REACH = 1023
SAMPLES = 3_000_000
ROUNDS = 5
PRIOR = 1000.0  # the midpoint cells count as so many samples of each table
SPREADS = (0.25, 0.5)  # standard deviation of the logarithm of the deviation
# By table set: squared quantiser steps per bit, spread.
SETTINGS = {
    "scalar": ((0.0, 0.0), (0.06, SPREADS[0]), (0.115, SPREADS[0]), (0.115, SPREADS[1])),
    "trellis4": tuple((t, s) for t in (0.1, 0.22) for s in SPREADS),
    "trellis8": tuple((t, s) for t in (0.1, 0.22) for s in SPREADS),
}
SCALES = np.array([index_to_scale(float(i)) for i in range(LEVELS)])


def upper_ends(kind: str) -> np.ndarray:
    """Upper ends of the cells of magnitudes 0 .. REACH, (quantisers, REACH + 1)."""
    k = np.arange(REACH + 1.0)
    return k[None] + 0.5 if kind == "scalar" else np.stack([2 * k + 1, np.maximum(2 * k, 0.5)])


def midpoint_cells(kind: str, spread: float) -> np.ndarray:
    """Probabilities of magnitudes between midpoints: (quantisers, 64, REACH + 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    erf = np.vectorize(math.erf, otypes=[float])
    ends = upper_ends(kind)[:, None]  # (quantisers, 1, REACH + 1)
    below = np.zeros((ends.shape[0], LEVELS, REACH + 1))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        sigma = SCALES * math.exp(spread * node - spread**2)
        below += weight * erf(ends / (sigma[:, None] * math.sqrt(2)))
    return np.diff(below, axis=-1, prepend=0.0)


def to_half(p: np.ndarray) -> np.ndarray:
    """Probabilities of magnitudes to frequencies of magnitudes 0 .. reach and of the escape; see `Tables.halves`."""
    p = p / p.sum()
    tail = 1.0 - np.cumsum(p)
    reach = min(max(int((tail > TAIL).sum()), 1), REACH)
    side = 1 + np.floor(p[1 : reach + 1] / 2 * (TOTAL - 2 * reach - 2)).astype(np.int64)
    escape = 1 + int(max(tail[reach], 0.0) * (TOTAL - 2 * reach - 2))
    return np.concatenate([[TOTAL - 2 * side.sum() - escape], side, [escape]]).astype(np.uint16)


def rates_of(p: np.ndarray) -> np.ndarray:
    """Rates of probabilities (quantisers, 64, REACH + 1) as their integer tables charge them."""
    quantisers = p.shape[0]
    halves = [to_half(row) for row in p.reshape(-1, p.shape[-1])]
    bits = np.full((len(halves), REACH + 2), 32.0, np.float32)
    for row, half in zip(bits, halves, strict=True):
        row[: len(half) - 1] = 16 - np.log2(half[:-1].astype(np.float64))
        row[len(half) - 1 :] = 32 - math.log2(half[-1])
    return bits.reshape(quantisers, LEVELS, -1)


def fit(kind: str, trade_off: float, spread: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Halves of the 64 tables of each quantiser."""
    wide = rng.random(SAMPLES) < 0.4
    row = np.where(wide, rng.integers(0, LEVELS, SAMPLES), np.rint(rng.normal(22, 13, SAMPLES)).clip(0, LEVELS - 1))
    row = row.astype(np.uint8)
    x = rng.normal(size=SAMPLES) * SCALES[row] * np.exp(spread * rng.normal(size=SAMPLES) - spread**2)
    weight, runs = np.ones(SAMPLES), np.array([0, SAMPLES])
    cells = midpoint_cells(kind, spread)
    p, symbols, state = cells, np.zeros(SAMPLES, np.int32), np.zeros(SAMPLES, np.uint8)
    use = np.zeros(SAMPLES, np.int64)
    for _ in range(ROUNDS):
        if kind == "scalar":
            decide_scalar(x, weight, row, trade_off, rates_of(p), symbols)
        else:
            machine = MACHINES[kind]
            decide_trellis(x, weight, row, runs, trade_off, *machine, rates_of(p), symbols)
            walk_states(symbols, runs, machine.next_state, machine.start, state)
            use = machine.use[state].astype(np.int64)
        entry = (use * LEVELS + row) * (REACH + 1) + np.minimum(np.abs(symbols), REACH)
        p = np.bincount(entry, minlength=cells.size).reshape(cells.shape) + PRIOR * cells
    return [to_half(h) for h in p.reshape(-1, REACH + 1)]


def main(path: str) -> None:
    halves = []
    for number, (kind, table_set) in enumerate(shipped()):
        halves += fit(kind, *SETTINGS[kind][table_set], np.random.default_rng(number))
        print(f"{kind} {table_set}", file=sys.stderr)
    sizes = np.array([len(h) for h in halves], np.uint16)
    np.savez_compressed(Path(path), sizes=sizes, counts=np.concatenate(halves))
    for c in Tables(tuple(halves), b"").counts:
        assert int(c.astype(np.int64).sum()) == TOTAL
        assert c.min() > 0
    print(f"{len(halves)} tables, {int(sizes.sum())} entries, {Path(path).stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
