"""What a fit changed in the network, as an update: whole steps of a power of two for each tensor.

The steps are chosen by what they cost: bits of the update against the loss that coarser weights bring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidcodec.families.pocket.network import Pocket, flatten, unflatten
from vidcodec.updates.coder import tensor_bits
from vidcodec.updates.update import MAX_STEPS, TensorUpdate, Update

Array = np.ndarray

FINEST, COARSEST = 9, 2  # steps 2^-9 .. 2^-2 are tried; the integer arithmetic holds 2^-12


def in_steps(difference: Array, exponent: int) -> TensorUpdate:
    """The nearest whole numbers of steps of 2^-exponent."""
    n = np.rint(difference.astype(np.float64) * 2.0**exponent)
    return TensorUpdate(np.clip(n, -MAX_STEPS, MAX_STEPS).astype(np.int32), exponent)


def all_in_steps(network: Pocket, theta: Array, exponent: int) -> Update:
    """What leads from a network to (about) theta, in the same steps for every tensor."""
    difference = unflatten(network.config, theta - network.theta)
    tensors = {name: in_steps(d, exponent) for name, d in difference.items()}
    return Update({name: t for name, t in tensors.items() if t.n.any()})


def moved(network: Pocket, update: Update) -> Array:
    """All parameters in a row after an update, as whoever decodes has them."""
    theta = network.theta
    for name, values in unflatten(network.config, theta).items():
        if name in update.tensors:
            t = update.tensors[name]
            values += t.n.astype(np.float32) * np.float32(2.0**-t.exponent)
    return theta


def choose_steps(network: Pocket, theta: Array, loss: Callable[[Array], float], price: float) -> Update:
    """The update that leads from a network to (about) theta, coarser where that pays.

    loss: of parameters in a row, in any unit; price: of one bit of the update, in the same. Tensors are decided one
    after the other, those that cost most first, each with what is decided already in place; a search along the
    exponents ends where the sum rises.
    """
    after, tensors = theta.copy(), {}
    views, difference = unflatten(network.config, after), unflatten(network.config, theta - network.theta)
    base = unflatten(network.config, network.theta)
    for name in sorted(views, key=lambda n: -views[n].size):
        best, kept = np.inf, views[name].copy()
        for exponent in range(FINEST, COARSEST - 1, -1):
            t = in_steps(difference[name], exponent)
            bits = tensor_bits(Update({name: t}), network)[name] if t.n.any() else 0.0
            views[name][:] = base[name] + t.n.astype(np.float32) * np.float32(2.0**-exponent)
            if (total := loss(flatten(network.config, views)) + price * bits) >= best:
                break
            best, kept, tensors[name] = total, views[name].copy(), t
        views[name][:] = kept
    return Update({name: t for name, t in tensors.items() if t.n.any()})
