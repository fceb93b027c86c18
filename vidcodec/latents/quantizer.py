"""Residuals to symbols and symbols to values, under one description that fits a byte of the header.

A pass of the codec gives flat arrays in coding order: residuals y - mean in units of the model's step, and their
table indices (0 .. 63, of the bank's normal family). A sample of index 0 is zero by rule: it is not coded, costs
nothing, and a trellis does not see it. `quantise` decides the symbols, `reconstruct` is what a decoder does with
them. Values are integers in 1/256 of the model's step, so that encoder and decoder agree whatever their arithmetic.

Sources: two quantisers and a machine of 4 states as in VVC (Schwarz et al., "Hybrid video coding with trellis-coded
quantization", DCC 2019), of 8 states as in MPEG NNC (ISO/IEC 15938-17). Rates are those of the tables that code.

In the codec's parallel passes a symbol also changes what later passes know. No decision here looks ahead to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vidcodec.entropy.bank import FAMILY_SIZE, bank
from vidcodec.entropy.scales import LOG_STEP
from vidcodec.errors import UnsupportedVersionError
from vidcodec.latents.tables import QUANTISERS, SETS, rates, tables

UNIT = 256  # values are in 1/256 of the model's step
MIN_SHIFT = -4
# Quantiser step by `shift`, in 1/256 of the model's step: one step of the scale table each.
STEPS = (401, 358, 320, 286, 256, 229, 205, 183, 164, 146, 131, 117, 104, 93, 83, 75)
MAX_SHIFT = MIN_SHIFT + len(STEPS) - 1
SYMBOL_LIMIT = 32767
MAX_INDEX = FAMILY_SIZE - 1
# Squared steps per bit at which a step of 1 is right for plain rounding at high rate: -dD/dR of D = c 4^-R, D = 1/12.
HIGH_RATE_TRADE_OFF = float(np.log(2) / 6)


class Machine(NamedTuple):
    """A trellis: the state after each (state, parity), the quantiser of a state, the state of a run's first symbol."""

    next_state: np.ndarray  # uint8 (states, 2)
    use: np.ndarray  # uint8 (states,)
    start: int


# The standards start in state 0, where zeros keep a trellis under Q0, whose points next to zero are two steps away.
# Under Q1 they are one step away: started there, short runs lose little more than half as much.
MACHINES = {
    "trellis4": Machine(np.array([[0, 2], [2, 0], [1, 3], [3, 1]], np.uint8), np.array([0, 0, 1, 1], np.uint8), 3),
    "trellis8": Machine(
        np.array([[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]], np.uint8),
        np.array([0, 1, 0, 1, 0, 1, 0, 1], np.uint8),
        5,
    ),
}


@dataclass(frozen=True)
class Quantizer:
    """What a decoder has to know of a file's quantiser.

    kind: 'scalar' (plain or RDOQ, the encoder's choice), 'trellis4' or 'trellis8'.
    table_set: which distributions code the symbols, 0 .. 3. 'scalar': 0 the bank's, for plain rounding; 1 after
        mild, 2 after full rate-distortion decisions; 3 as 2, for heavier tails. Trellis: 0 mild, 1 mild with heavier
        tails, 2 full, 3 full with heavier tails.
    shift: the step is 2^(-0.16 shift) of the model's, -4 .. 11; table indices move by as many.

    Raises ValueError for values out of range.
    """

    kind: str = "scalar"
    table_set: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        if self.kind not in QUANTISERS:
            raise ValueError(f"kind must be one of {', '.join(QUANTISERS)}, not {self.kind!r}")
        if not 0 <= self.table_set < SETS:
            raise ValueError(f"table_set must be 0 .. {SETS - 1}, not {self.table_set}")
        if not MIN_SHIFT <= self.shift <= MAX_SHIFT:
            raise ValueError(f"shift must be {MIN_SHIFT} .. {MAX_SHIFT}, not {self.shift}")

    @property
    def code(self) -> int:
        """One byte: kind, 2 bits; table set, 2 bits; shift modulo 16, 4 bits. Plain rounding is 0."""
        return list(QUANTISERS).index(self.kind) << 6 | self.table_set << 4 | self.shift % 16

    @classmethod
    def from_code(cls, code: int) -> Quantizer:
        """Raises UnsupportedVersionError for a code this version does not give."""
        kind, table_set, shift = code >> 6, code >> 4 & 3, code & 15
        if not 0 <= kind < len(QUANTISERS):
            raise UnsupportedVersionError(
                f"the file uses quantiser {code}, which this vidcodec does not know: update vidcodec"
            )
        return cls(list(QUANTISERS)[kind], table_set, shift if shift <= MAX_SHIFT else shift - 16)

    @property
    def step(self) -> int:
        """In 1/256 of the model's step."""
        return STEPS[self.shift - MIN_SHIFT]

    @property
    def machine(self) -> Machine | None:
        """None: symbols do not depend on each other."""
        return MACHINES.get(self.kind)

    @property
    def spacing(self) -> float:
        """Between the values of neighbouring symbols, in the model's steps; a trellis leaves out every second point."""
        return self.step / UNIT * (1 if self.machine is None else 2)

    @property
    def finer(self) -> float:
        """What a deviation's table index grows by when it is counted in `spacing` instead of the model's steps."""
        return -math.log(self.spacing) / LOG_STEP

    def scale_index(self, index: np.ndarray) -> np.ndarray:
        """Rows of the tables that the codec's indices choose, uint8: the same deviation in units of this step."""
        return np.clip(index.astype(np.int16) + self.shift, 0, MAX_INDEX).astype(np.uint8)

    def table(self, index: np.ndarray, states: np.ndarray | None = None) -> np.ndarray:
        """Numbers of the tables that code samples of these indices and states, int32."""
        table = self.scale_index(index).astype(np.int32) + tables().base(self.kind, self.table_set)
        if self.machine is not None and states is not None:
            table += FAMILY_SIZE * self.machine.use[states].astype(np.int32)
        return table


class Quantised(NamedTuple):
    """Symbols to code and the values they stand for, int32, shaped like the residuals."""

    symbols: np.ndarray
    values: np.ndarray  # in 1/256 of the model's step


def quantise(
    quantizer: Quantizer,
    residual: np.ndarray,
    index: np.ndarray,
    trade_off: float | None = None,
    *,
    weight: np.ndarray | None = None,
    runs: np.ndarray | None = None,
) -> Quantised:
    """Symbols of real residuals that make  sum weight (residual - value)^2 + trade_off bits  small.

    residual: any shape, in the model's steps; index: of that shape, 0 .. 63. trade_off: squared steps per bit, 0 for
    the nearest values; None for plain rounding, which only a scalar quantiser can do. weight: of each squared error,
    1 by default. runs: offsets (0, ..., size) of the flat arrays at which a trellis starts anew; by default never.

    'scalar' is RDOQ, floor, ceiling or zero by symbol: never a higher sum than plain rounding. A trellis minimises
    the sum over each run (Viterbi). Residuals beyond what symbols reach are clamped.

    Raises ValueError for residuals that are not finite, shapes or runs that do not fit, indices above 63, a negative
    trade-off, a trellis without one.
    """
    _check_index(index, residual.shape)
    if not np.isfinite(residual).all():
        raise ValueError("residuals must be finite")
    if weight is not None and weight.shape != residual.shape:
        raise ValueError(f"weights must be shaped like the samples, {residual.shape}, not {weight.shape}")
    if trade_off is None and quantizer.machine is not None:
        raise ValueError("a trellis needs a trade-off")
    if trade_off is not None and not 0 <= trade_off < np.inf:
        raise ValueError(f"the trade-off must be finite and at least 0, not {trade_off}")
    coded, inner = coded_runs(index, runs)
    unit = UNIT / quantizer.step
    reach = SYMBOL_LIMIT if quantizer.machine is None else 2 * (SYMBOL_LIMIT - 1)
    x = np.clip(residual.reshape(-1)[coded].astype(np.float64) * unit, -reach, reach)
    chosen = np.zeros(x.size, np.int32)
    if trade_off is None:
        chosen[:] = np.rint(x)
    else:
        from vidcodec.latents.kernels import decide_scalar, decide_trellis

        w = np.ones(x.size) if weight is None else weight.reshape(-1)[coded].astype(np.float64)
        row = quantizer.scale_index(index.reshape(-1)[coded])
        bits = rates(quantizer.kind, quantizer.table_set)
        if quantizer.machine is None:
            decide_scalar(x, w, row, trade_off * unit**2, bits, chosen)
        else:
            decide_trellis(x, w, row, inner, trade_off * unit**2, *quantizer.machine, bits, chosen)
    symbols = np.zeros(index.size, np.int32)
    symbols[coded] = chosen
    symbols = symbols.reshape(index.shape)
    return Quantised(symbols, reconstruct(quantizer, symbols, index, runs))


def states(quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None) -> np.ndarray:
    """The state each symbol is coded in, uint8, 0 where the index is 0; all 0 for a scalar quantiser.

    Raises ValueError for shapes, indices or runs that do not fit.
    """
    _check_index(index, symbols.shape)
    out = np.zeros(index.size, np.uint8)
    coded, inner = coded_runs(index, runs)
    if quantizer.machine is not None:
        from vidcodec.latents.kernels import walk_states

        next_state, _, start = quantizer.machine
        walked = np.zeros(coded.size, np.uint8)
        walk_states(symbols.reshape(-1)[coded].astype(np.int32), inner, next_state, start, walked)
        out[coded] = walked
    return out.reshape(index.shape)


def reconstruct(
    quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None
) -> np.ndarray:
    """Values of symbols in 1/256 of the model's step, int32: exact, the same in encoder and decoder.

    Raises as `states`.
    """
    points = symbols.astype(np.int32)
    if quantizer.machine is not None:
        odd = quantizer.machine.use[states(quantizer, symbols, index, runs)]
        points = 2 * points - np.sign(points) * odd
    return points * np.int32(quantizer.step)


def symbol_bits(
    quantizer: Quantizer, symbols: np.ndarray, index: np.ndarray, runs: np.ndarray | None = None
) -> np.ndarray:
    """Ideal code length of each symbol in bits, float64, 0 where the index is 0. Raises as `states`."""
    table = quantizer.table(index, states(quantizer, symbols, index, runs))
    return np.where(index > 0, tables().symbol_bits(symbols, table), 0.0)


def magnitudes(values: np.ndarray) -> np.ndarray:
    """What the scale path sees of values: about 256 log2(1 + |value|), int32.

    values in 1/256 of a step; between whole steps the bank's table is interpolated, in integers. Whole steps give
    the bank's entries, the last one from 1023 on.
    """
    table = bank().log_magnitude.astype(np.int32)
    v = np.minimum(np.abs(values), UNIT * (len(table) - 1))
    low, t = v // UNIT, v % UNIT
    high = np.minimum(low + 1, len(table) - 1)
    return (table[low] * (UNIT - t) + table[high] * t + UNIT // 2) // UNIT


def coded_runs(index: np.ndarray, runs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of the samples that are coded, and the runs' offsets among these, int64 both.

    Raises ValueError for runs that do not rise from 0 to the size.
    """
    coded = np.flatnonzero(index)
    if runs is None:
        return coded, np.array([0, coded.size])
    runs = np.asarray(runs, np.int64)
    if runs.ndim != 1 or runs.size < 1 or runs[0] != 0 or runs[-1] != index.size or (np.diff(runs) < 0).any():
        raise ValueError(f"runs must be offsets that rise from 0 to {index.size}")
    return coded, np.searchsorted(coded, runs)


def _check_index(index: np.ndarray, shape: tuple[int, ...]) -> None:
    if index.shape != shape:
        raise ValueError(f"indices must be shaped like the samples, {shape}, not {index.shape}")
    if index.size and not 0 <= int(index.min()) <= int(index.max()) <= MAX_INDEX:
        raise ValueError(f"indices must be 0 .. {MAX_INDEX}")
