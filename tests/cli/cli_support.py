"""What the tests of the command line share: tiny clips, damage, and calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

TINY = {
    "widths": [8, 12],
    "blocks": [1, 1],
    "latent": 12,
    "hyper": 8,
    "mean_features": 8,
    "scale_features": 8,
    "pass_width": 8,
    "pass_known": 8,
    "scale_width": 8,
    "scale_known": 8,
    "levels": 4,
}


@dataclass
class Outcome:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict]:
        """Every line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict:
        assert self.events[-1]["event"] == "result", self
        return self.events[-1]


Vidcodec = Callable[..., Outcome]


def make_clip(path: Path, frames: int = 3, rate: int = 2, size: tuple[int, int] = (48, 32)) -> Path:
    """Moving gradients, losslessly coded."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = av.VideoFrame(*size, "yuv420p")
            for k, plane in enumerate(picture.planes):
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                slope = np.add.outer(np.arange(rows.shape[0]), np.arange(rows.shape[1]))
                rows[:] = (3 * slope + 5 * index + 40 * k) % 200 + 20
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def damage_frame(path: Path, number: int) -> None:
    """Flip bits inside a frame's unit."""
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(number + 1):
        at = data.index(b"FRAM", at + 1)
    data[at + 24] ^= 0xFF
    path.write_bytes(data)


def start(*words: object, cwd: Path | None = None, **options: object) -> subprocess.Popen[str]:
    """The command line as a process of its own, with text on both outputs and Ctrl-C not ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "vidcodec", *map(str, words)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )  # type: ignore[call-overload]
