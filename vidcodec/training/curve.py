"""The curve of a training run: its log read, drawn, and carried on a little."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcodec.errors import TrainingError, first_line


@dataclass(frozen=True)
class Curve:
    """What `train` logged: one entry per validation.

    points: (validations, levels, 3): bits per pixel, PSNR-YUV in dB, R-D cost.
    """

    minutes: np.ndarray  # (validations,)
    samples: np.ndarray
    score: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Trend:
    """score = floor + height * minutes^-power, fitted by least squares."""

    floor: float
    height: float
    power: float

    def at(self, minutes: float) -> float:
        return self.floor + self.height * minutes**-self.power

    def saving(self, now: float, later: float) -> float:
        """Share of the R-D cost that the time from `now` to `later` (minutes) would take off."""
        return 1.0 - 2.0 ** (self.at(later) - self.at(now))


def read_curve(folder: Path) -> Curve:
    """The log of a run's folder; raises TrainingError where there is none."""
    path = Path(folder) / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        curve = Curve(*(np.array([r[k] for r in rows], np.float64) for k in ("minutes", "samples", "score", "points")))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise TrainingError(f"{path} is not the log of a training run: {first_line(e)}") from e
    if not rows or curve.points.ndim != 3:
        raise TrainingError(f"{path} holds no validation yet, or of several kinds; wait for the next one")
    return curve


def fit_trend(curve: Curve, *, skip: float = 0.1) -> Trend | None:
    """The power law of a run after its first tenth; None with fewer than four validations.

    A cosine schedule falls faster at its end than a power law: read it as a tendency.
    """
    late = curve.minutes >= skip * curve.minutes[-1]
    t, score = curve.minutes[late], curve.score[late]
    if len(t) < 4:
        return None
    best: tuple[float, Trend] | None = None
    for power in np.linspace(0.05, 1.5, 59):
        basis = np.stack([np.ones_like(t), t**-power], 1)
        (floor, height), *_ = np.linalg.lstsq(basis, score, rcond=None)
        error = float(np.square(basis @ (floor, height) - score).sum())
        if best is None or error < best[0]:
            best = error, Trend(float(floor), float(height), float(power))
    return best[1] if best else None


def plot_curve(curve: Curve, output: Path, *, title: str = "") -> None:
    """Score over time, and quality against rate from the first validation to the last (PNG, SVG, PDF)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise TrainingError("plots need matplotlib: pip install 'vidcodec[evaluate]'") from e
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curve.minutes, curve.score, "o-", ms=3, label="validation")
    if trend := fit_trend(curve):
        t = np.linspace(max(curve.minutes[0], 1e-3), curve.minutes[-1] * 1.25, 200)
        left.plot(t, [trend.at(v) for v in t], "--", lw=1, label="power law")
        left.legend()
    left.set(xlabel="minutes", ylabel="mean log2 R-D cost (lower is better)", title=title)
    for share, entry in zip(np.linspace(0.2, 1, len(curve.points)), curve.points, strict=True):
        right.plot(entry[:, 0], entry[:, 1], "o-", ms=2, lw=1, color=str(0.9 * (1 - share)))
    right.set(xlabel="bits per pixel", ylabel="PSNR-YUV (dB)", xscale="log", title="held-out crops, dark: latest")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
