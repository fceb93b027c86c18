"""Finding the rate level that meets a target.

Targets grow with the level: PSNR is to be reached, sizes are not to be exceeded. A search
runs on a sample of the frames; the whole video then tells how far the sample was off, and
the search repeats with a corrected goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import RateControlError

ROUNDS = 6
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """kind: 'psnr' (dB) or 'size' (bytes)."""

    kind: str
    value: float

    @classmethod
    def of(cls, options: EncodeOptions, pixels: int) -> Target | None:
        """What the options ask for, if they ask for a target."""
        if options.target_psnr is not None:
            return cls("psnr", options.target_psnr)
        if options.target_size is not None:
            return cls("size", float(options.target_size))
        if options.target_bpp is not None:
            return cls("size", options.target_bpp * pixels / 8)
        return None

    def met(self, value: float) -> bool:
        return value >= self.value if self.kind == "psnr" else value <= self.value

    def close(self, value: float) -> bool:
        """Met, and hardly better than asked for."""
        return self.met(value) and (value - self.value < 0.05 if self.kind == "psnr" else value > 0.98 * self.value)

    def corrected(self, goal: float, value: float, attempt: int) -> float:
        """The next goal for the sample, when `goal` there gave `value` on the whole video."""
        if self.kind == "psnr":
            return goal + (self.value - value) + 0.005 * attempt
        return goal * self.value / value * (1 - 0.003 * attempt)

    def unit(self, value: float) -> str:
        return f"{value:.2f} dB" if self.kind == "psnr" else f"{value:.0f} bytes"


@dataclass(frozen=True)
class Attempt(Generic[T]):
    level: int
    value: float
    result: T


def search_level(measure: Callable[[int], float], top: int, target: Target, goal: float) -> int:
    """The first level that reaches a PSNR goal, or the last within a size goal; by bisection."""
    low, high = -1, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        below = measure(middle) < goal if target.kind == "psnr" else measure(middle) <= goal
        low, high = (middle, high) if below else (low, middle)
    return min(high, top) if target.kind == "psnr" else max(low, 0)


def meet_target(
    sample: Callable[[int], float],
    whole: Callable[[int], tuple[float, T]],
    top: int,
    target: Target,
) -> T:
    """Code the whole video so that it meets the target, as closely as a few rounds allow.

    sample(level) measures a sample of the frames; whole(level) codes everything and gives
    (value, result). Raises RateControlError when no level meets the target.
    """
    best: Attempt[T] | None = None
    goal, seen = target.value, {}
    for attempt in range(1, ROUNDS + 1):
        level = search_level(sample, top, target, goal)
        if level in seen:
            if best is not None or not 0 < level < top:
                break
            level += 1 if target.kind == "psnr" else -1
        value, result = whole(level)
        seen[level] = value
        if target.met(value) and (best is None or abs(value - target.value) < abs(best.value - target.value)):
            best = Attempt(level, value, result)
        if target.close(value):
            break
        goal = target.corrected(goal, value, attempt)
    if best is None:
        nearest = min(seen.values(), key=lambda v: abs(v - target.value))
        raise RateControlError(f"{target.unit(target.value)} cannot be met; the nearest is {target.unit(nearest)}")
    return best.result
