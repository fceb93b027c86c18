"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for the few small matrices of a network.

Source: Vyas et al. 2024 (arXiv 2409.11321). Vectors take plain Adam. Matrices here have at most a few dozen rows and
columns, so an orthogonal iteration every few steps costs next to nothing beside a pass over a frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


class Soap:
    """Steps for parameters by name. State is plain arrays: `state()` and `load()` for whoever keeps it."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], betas: tuple[float, float] = (0.95, 0.95), every: int = 10):
        """every: steps between updates of the bases."""
        self.betas, self.every, self.count = betas, every, 0
        self.slots: dict[str, dict[str, Array]] = {}
        for name, shape in shapes.items():
            m, n = _matrix(shape)
            self.slots[name] = {"first": np.zeros((m, n)), "second": np.zeros((m, n))}
            if m > 1:
                self.slots[name] |= {"left": np.zeros((m, m)), "rows": np.eye(m)}
            if m > 1 and n > 1:
                self.slots[name] |= {"right": np.zeros((n, n)), "columns": np.eye(n)}

    def step(self, parameters: dict[str, Array], gradients: dict[str, Array], rate: float) -> None:
        """Changes `parameters` in place."""
        a, b = self.betas
        self.count += 1
        for name, slot in self.slots.items():
            p = parameters[name]
            g = gradients[name].reshape(slot["first"].shape).astype(np.float64)
            if "left" in slot:
                fresh = self.count == 1
                slot["left"] += (1 - b) * (g @ g.T - slot["left"])
                if "right" in slot:
                    slot["right"] += (1 - b) * (g.T @ g - slot["right"])
                if fresh:
                    for side, basis in (("left", "rows"), ("right", "columns")):
                        if side in slot:
                            slot[basis] = np.linalg.eigh(slot[side])[1][:, ::-1].copy()
            turned = self._turn(slot, g)
            slot["first"] += (1 - a) * (g - slot["first"])
            slot["second"] += (1 - b) * (turned * turned - slot["second"])
            first = self._turn(slot, slot["first"]) / (1 - a**self.count)
            second = slot["second"] / (1 - b**self.count)
            move = self._turn_back(slot, first / (np.sqrt(second) + 1e-12))
            p -= (rate * move).reshape(p.shape).astype(p.dtype)
            if self.count % self.every == 0 and "left" in slot:
                self._follow(slot)

    @staticmethod
    def _turn(slot: dict[str, Array], g: Array) -> Array:
        if "rows" in slot:
            g = slot["rows"].T @ g
        return g @ slot["columns"] if "columns" in slot else g

    @staticmethod
    def _turn_back(slot: dict[str, Array], g: Array) -> Array:
        if "rows" in slot:
            g = slot["rows"] @ g
        return g @ slot["columns"].T if "columns" in slot else g

    @staticmethod
    def _follow(slot: dict[str, Array]) -> None:
        """One orthogonal iteration of both bases, sorted by what they explain."""
        for side, basis, axis in (("left", "rows", 0), ("right", "columns", 1)):
            if side not in slot:
                continue
            q, x = slot[basis], slot[side]
            order = np.argsort(-np.einsum("ij,ij->j", q, x @ q))
            slot["second"] = np.take(slot["second"], order, axis)
            q, r = np.linalg.qr(x @ q[:, order] + 1e-30 * np.eye(len(x)))
            slot[basis] = q * np.where(np.diag(r) < 0, -1.0, 1.0)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "slots": self.slots}

    def load(self, state: dict[str, Any]) -> None:
        self.count, self.slots = state["count"], state["slots"]


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """A parameter as a matrix: outputs by everything else; vectors are one row."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], int(np.prod(shape[1:])))
