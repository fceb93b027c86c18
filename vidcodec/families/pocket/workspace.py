"""The network of `pocket` on one frame at a time, forward and backward: what a fit runs thousands of times.

The loops are in `symbol_kernels` and `synthesis_kernels`; here is the memory they work in. Rows of a layer go through
them in blocks that stay in the cache: what a block needs of a hidden layer is computed anew on the way back, never
stored.
"""

from __future__ import annotations

import numpy as np

from vidcodec.families.pocket.network import COARSE, MARGIN, OWN, PocketConfig, flatten, grid_sizes, unflatten
from vidcodec.families.pocket.symbol_kernels import charge_symbols, collect_coarser, repeat_coarser
from vidcodec.families.pocket.synthesis_kernels import (
    back_stack,
    build_stack,
    measure_error,
    mix_and_smooth,
    mix_and_smooth_back,
)
from vidcodec.families.pocket.tiles import BLOCK, LANES

Array = np.ndarray

SLACK = 2 * BLOCK  # room behind every buffer: blocks are computed whole


class Workspace:
    """Buffers and layout for frames of planes (6, h, w): it serves any number of them, one at a time."""

    def __init__(self, config: PocketConfig, h: int, w: int) -> None:
        self.config, self.h, self.w = config, h, w
        sizes = grid_sizes(config, h, w)
        self.sizes = np.array(sizes, np.int64)
        areas = [(a + 2 * MARGIN) * (b + 2 * MARGIN) for a, b in sizes]
        self.begins = np.cumsum([0, *areas])[:-1].astype(np.int64)
        self.parts = [slice(begin, begin + area) for begin, area in zip(self.begins, areas, strict=True)]
        self.length = sum(areas)  # of all grids with their margins
        reach = MARGIN * (sizes[0][1] + 2 * MARGIN) + MARGIN
        self.span = self.length + SLACK + reach
        self.mask = np.zeros(self.length + SLACK, np.float32)
        for grid in self.grids(self.mask):
            grid[:] = 1
        self.offsets = np.zeros((config.grids, config.inputs), np.int64)
        for k, (_, b) in enumerate(sizes):
            row = b + 2 * MARGIN
            near = [y * row + x for y, x in OWN[: config.own]]
            far = [self.span + y * row + x for y, x in COARSE[: config.coarse]]
            self.offsets[k] = near + far
        self.known, self.known_gradient = np.zeros((2, 2 * self.span), np.float32)
        self.slope = np.zeros(self.length, np.float32)
        self.guard = 2 * w + 2 + 3
        self.channel = (2 * h + 2) * (2 * w + 2) + 2 * self.guard + SLACK
        self.stack, self.stack_gradient = np.zeros((2, 8 * self.channel), np.float32)
        self.y0, self.y1, self.y2, self.gy, self.work = np.zeros((5, 4 * self.channel), np.float32)
        parts = [(config.grids - k) * a * b if k else 0 for k, (a, b) in enumerate(sizes)]
        self.level_begins = np.cumsum([0, *parts])[:-1].astype(np.int64)
        self.levels, self.levels_gradient = np.zeros((2, sum(parts)), np.float32)

    def grids(self, flat: Array) -> list[Array]:
        """Views of every grid in a row of numbers."""
        out = []
        for (a, b), begin in zip(self.sizes, self.begins, strict=True):
            padded = flat[begin : begin + (a + 2 * MARGIN) * (b + 2 * MARGIN)].reshape(a + 2 * MARGIN, b + 2 * MARGIN)
            out.append(padded[MARGIN : MARGIN + a, MARGIN : MARGIN + b])
        return out

    @property
    def symbols(self) -> Array:
        """The symbols of the frame at hand, all grids with their margins."""
        return self.known[: self.length]

    @property
    def gradient(self) -> Array:
        """Gradients of `symbols` after `evaluate`."""
        return self.known_gradient[: self.length]

    def evaluate(
        self, theta: Array, target: Array, weights: Array, charge: float, *, backward: bool = True
    ) -> tuple[Array, Array, Array]:
        """Squared errors of Y, U, V and bits by grid of `symbols`; the gradients of both, summed, by theta.

        The loss is sum(weights * errors) + charge * sum(bits). Gradients by symbols are in `gradient`.
        """
        bits, by_theta = self.charge(theta, charge if backward else 0.0)
        self.synthesise(theta)
        errors = np.zeros(3)
        measure_error(self.y2, self.channel, self.guard, target, weights, errors, self.gy)
        if backward:
            by_theta += self._back_from_planes(theta)
        return errors, bits, by_theta

    def charge(self, theta: Array, charge: float) -> tuple[Array, Array]:
        """Bits of `symbols` by grid; with charge > 0 also gradients, by theta and (`gradient`) by symbols."""
        c = self.config
        p = unflatten(c, theta)
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        self.known[self.span :] = 0
        repeat_coarser(self.known, self.begins, self.sizes, MARGIN, self.known[self.span :])
        self.known_gradient[:] = 0
        bits = np.zeros(c.grids)
        w = [_padded(p["context_0_weight"].T, c.context), _padded(p["context_1_weight"].T, c.context)]
        w += [_padded(p["context_2_weight"].T, 4), _padded(p["context_skip"].T, 4)]
        g = [np.zeros((*x.shape, LANES), np.float32) for x in w]
        charge_symbols(
            self.known,
            self.mask,
            self.begins,
            self.sizes,
            MARGIN,
            self.offsets,
            w[0],
            p["context_0_bias"],
            w[1],
            p["context_1_bias"],
            w[2],
            p["context_2_bias"],
            w[3],
            charge,
            bits,
            self.known_gradient,
            g[0],
            grads["context_0_bias"],
            g[1],
            grads["context_1_bias"],
            g[2],
            grads["context_2_bias"],
            g[3],
        )
        if charge > 0:
            collect_coarser(self.known_gradient[self.span :], self.begins, self.sizes, MARGIN, self.known_gradient)
            g = [x.sum(-1) for x in g]
            for name, x in zip(("context_0_weight", "context_1_weight"), g[:2], strict=True):
                grads[name] = x.T
            grads["context_2_weight"], grads["context_skip"] = g[2][:, :2].T, g[3][:, :2].T
        return bits, flatten(c, grads)

    def synthesise(self, theta: Array) -> None:
        """`symbols` to the planes in `y2`."""
        p = unflatten(self.config, theta)
        build_stack(
            self.known,
            self.begins,
            self.sizes,
            MARGIN,
            np.exp2(p["gain"]),
            p["filter"],
            p["up"],
            self.levels,
            self.level_begins,
            self.stack,
            self.channel,
            self.guard,
        )
        m0, m1, s0, s1 = self._layers(p)
        mix_and_smooth(
            self.stack,
            self.channel,
            self.guard,
            2 * self.h,
            2 * self.w,
            m0,
            p["mix_0_bias"],
            m1,
            p["mix_1_bias"],
            s0,
            p["smooth_0_bias"],
            s1,
            p["smooth_1_bias"],
            self.y0,
            self.y1,
            self.y2,
        )

    def planes(self) -> Array:
        """Planes (6, h, w) of what `synthesise` left."""
        rows, columns = 2 * self.h, 2 * self.w
        whole = self.y2.reshape(4, -1)[:3, self.guard : self.guard + (rows + 2) * (columns + 2)]
        y = whole.reshape(3, rows + 2, columns + 2)[:, 1:-1, 1:-1]
        luma = y[0].reshape(self.h, 2, self.w, 2).transpose(1, 3, 0, 2).reshape(4, self.h, self.w)
        chroma = y[1:].reshape(2, self.h, 2, self.w, 2).mean((2, 4))
        return np.concatenate([luma, chroma]).astype(np.float32)

    def _layers(self, p: dict[str, Array]) -> list[Array]:
        mix = np.zeros((8, self.config.hidden), np.float32)
        mix[: self.config.grids] = p["mix_0_weight"].T
        near = [_padded(p[f"smooth_{k}_weight"].reshape(3, 27).T, 4, 28) for k in (0, 1)]
        return [mix, _padded(p["mix_1_weight"].T, 4), *near]

    def _back_from_planes(self, theta: Array) -> Array:
        c = self.config
        p = unflatten(c, theta)
        grads = {k: np.zeros_like(v) for k, v in p.items()}
        m0, m1, s0, s1 = self._layers(p)
        g = [np.zeros((*x.shape, LANES), np.float32) for x in (m0, m1, s0, s1)]
        mix_and_smooth_back(
            self.stack,
            self.channel,
            self.guard,
            2 * self.h,
            2 * self.w,
            m0,
            p["mix_0_bias"],
            m1,
            s0,
            s1,
            self.y0,
            self.y1,
            self.gy,
            self.work,
            self.stack_gradient,
            g[0],
            grads["mix_0_bias"],
            g[1],
            grads["mix_1_bias"],
            g[2],
            grads["smooth_0_bias"],
            g[3],
            grads["smooth_1_bias"],
        )
        g = [x.sum(-1) for x in g]
        grads["mix_0_weight"], grads["mix_1_weight"] = g[0][: c.grids].T, g[1][:, :3].T
        for k in (0, 1):
            grads[f"smooth_{k}_weight"] = g[2 + k][:27, :3].T
        back_stack(
            self.known,
            self.begins,
            self.sizes,
            MARGIN,
            np.exp2(p["gain"]),
            p["filter"],
            p["up"],
            self.levels,
            self.level_begins,
            self.stack_gradient,
            self.channel,
            self.guard,
            self.levels_gradient,
            self.known_gradient,
            grads["gain"],
            grads["filter"],
            grads["up"],
        )
        return flatten(c, grads)


def _padded(w: Array, columns: int, rows: int | None = None) -> Array:
    """w with zeros behind, contiguous float32."""
    out = np.zeros((rows or w.shape[0], columns), np.float32)
    out[: w.shape[0], : w.shape[1]] = w
    return out
