"""The network as bytes: what it differs from base weights by, in whole steps, each tensor with a step of its own.

    per tensor    one byte: the step is 2^-byte; 255 says that nothing differs, and nothing follows
                  one byte: the table of `vidcodec.entropy.bank` that its numbers are coded with
                  numbers, in the tensor's order

The steps are chosen by what they cost: bits of the network against the loss that coarser weights bring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidcodec.entropy.bank import FAMILY_SIZE, GEOMETRIC, bank
from vidcodec.entropy.rans import RansDecoder, RansEncoder
from vidcodec.errors import CorruptBitstreamError
from vidcodec.families.pocket.network import PocketConfig, flatten, unflatten

Array = np.ndarray

SAME = 255
FINEST, COARSEST = 12, 2  # steps 2^-12, which the integer arithmetic still holds exactly, to 2^-2
REACH = 4096  # largest number of steps


def _best_table(numbers: Array) -> tuple[int, float]:
    """The geometric table that codes these in the fewest bits, and how many."""
    flat = numbers.ravel()
    costs = [bank().symbol_bits(flat, np.full(flat.size, GEOMETRIC + k)) for k in range(FAMILY_SIZE)]
    k = int(np.argmin(costs))
    return GEOMETRIC + k, costs[k]


def tensor_bits(difference: Array, exponent: int) -> float:
    """Bits of a tensor's difference in steps of 2^-exponent, its two bytes included."""
    numbers = np.rint(difference * 2.0**exponent).astype(np.int64)
    return 8.0 if not numbers.any() else 16.0 + _best_table(numbers)[1]


def quantised(difference: Array, exponent: int) -> Array:
    return (np.rint(difference * 2.0**exponent) * 2.0**-exponent).astype(np.float32)


def choose_steps(
    config: PocketConfig, base: Array, theta: Array, loss: Callable[[Array], float], price: float
) -> tuple[dict[str, int], Array]:
    """Exponents by tensor, and the parameters that follow.

    loss: of parameters, in any unit; price: of one bit of the network, in the same. Tensors are decided one after the
    other, those that cost most first, each with what is decided already in place; a search along the exponents ends
    where the sum rises.
    """
    before, after = unflatten(config, base), unflatten(config, theta.copy())
    names = sorted(after, key=lambda n: -after[n].size)
    exponents = dict.fromkeys(names, FINEST)
    difference = {name: after[name] - before[name] for name in names}
    for name in names:
        best = np.inf
        for exponent in range(9, COARSEST - 1, -1):
            if np.abs(difference[name]).max() * 2.0**exponent > REACH:
                continue
            kept = after[name].copy()
            after[name][:] = before[name] + quantised(difference[name], exponent)
            total = loss(flatten(config, after)) + price * tensor_bits(difference[name], exponent)
            if total >= best:
                after[name][:] = kept
                break
            best, exponents[name] = total, exponent
    return exponents, flatten(config, after)


def encode_update(config: PocketConfig, base: Array, exponents: dict[str, int], theta: Array) -> bytes:
    """theta must be base plus whole steps."""
    before, after = unflatten(config, base), unflatten(config, theta)
    coder = RansEncoder()
    for name in config.shapes():
        exponent = exponents[name]
        numbers = np.rint((after[name] - before[name]).astype(np.float64) * 2.0**exponent).astype(np.int64)
        if not numbers.any():
            coder.put_bytes(bytes([SAME]))
            continue
        if np.abs(numbers).max() > REACH:
            raise ValueError(f"the difference of {name} is beyond {REACH} steps")
        table, _ = _best_table(numbers)
        coder.put_bytes(bytes([exponent, table]))
        coder.put(numbers, np.full(numbers.shape, table))
    return coder.finish()


def decode_update(config: PocketConfig, base: Array, payload: bytes) -> Array:
    """Parameters in a row, float32. Raises CorruptBitstreamError for what no encoder writes."""
    out = unflatten(config, base.astype(np.float32).copy())
    coder = RansDecoder(payload)
    for name, values in out.items():
        exponent = coder.get_bytes(1)[0]
        if exponent == SAME:
            continue
        table = coder.get_bytes(1)[0]
        if not (COARSEST <= exponent <= FINEST and GEOMETRIC <= table < GEOMETRIC + FAMILY_SIZE):
            raise CorruptBitstreamError(f"the update of {name} has a step or a table that there is not: it is damaged")
        numbers = coder.get(np.full(values.shape, table))
        values[:] = values + (numbers * 2.0**-exponent).astype(np.float32)
    return flatten(config, out)
