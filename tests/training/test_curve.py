"""The curve of a run: read from its log, carried on by a power law, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidcodec.errors import TrainingError
from vidcodec.training.curve import fit_trend, plot_curve, read_curve


def write_log(folder: Path, minutes: np.ndarray, score: np.ndarray) -> None:
    rows = [
        {"minutes": float(t), "samples": int(80 * t), "score": float(s), "points": [[0.1, 30.0, 0.2], [0.4, 36.0, 0.8]]}
        for t, s in zip(minutes, score, strict=True)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_power_law_is_found_again(tmp_path: Path) -> None:
    t = np.linspace(5, 200, 40)
    write_log(tmp_path, t, -1.5 + 2.0 * t**-0.4)
    trend = fit_trend(read_curve(tmp_path))
    assert trend is not None
    assert trend.floor == pytest.approx(-1.5, abs=0.02)
    assert trend.at(400) == pytest.approx(-1.5 + 2.0 * 400**-0.4, abs=0.005)
    assert trend.saving(200, 400) == pytest.approx(1 - 2 ** (2.0 * 400**-0.4 - 2.0 * 200**-0.4), abs=0.005)


def test_a_short_run_has_no_trend(tmp_path: Path) -> None:
    write_log(tmp_path, np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5, 0.4]))
    assert fit_trend(read_curve(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "x", "{}\n", '{"minutes": 1, "samples": 2, "score": 3, "points": 4}\n'])
def test_what_is_no_log_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrainingError):
        read_curve(tmp_path)
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(TrainingError) as error:
        read_curve(tmp_path)
    assert "\n" not in str(error.value)


def test_plots_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_log(tmp_path, np.linspace(1, 50, 12), np.linspace(0, -1, 12))
    plot_curve(read_curve(tmp_path), tmp_path / "new" / "curve.png", title="run")
    assert (tmp_path / "new" / "curve.png").read_bytes()[:4] == b"\x89PNG"
