"""What each choice in the fit of `pocket` brings: frames fitted alike but for one choice.

    python scripts/measure_pocket_fit.py CLIP... --rounds 200,600

Crops of 176x144 from the middle of two frames of each clip, fitted together; the true cost of their rounded symbols
(bits and weighted error, bits per pixel), the network's own bits left out, against the fit as it is. Every choice
changed back by itself, and all at once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidcodec.denormals import flushed_denormals
from vidcodec.evaluation.measurement import Measurement, numbers, parser
from vidcodec.evaluation.tables import markdown, show
from vidcodec.families.pocket.checkpoint import load_pocket
from vidcodec.families.pocket.family import PocketFamily
from vidcodec.families.pocket.fit import Fit, FitOptions
from vidcodec.rate import RateLevel

HEIGHT, WIDTH = 144, 176
NOW = "as it is"
CHOICES: dict[str, dict[str, Any]] = {
    NOW: {},
    "gradients remembered as by Adam: 0.9 and 0.999": {"memory": (0.9, 0.999)},
    "steps divided by a symbol's own gradients alone": {"own": 1.0},
    "coarser grids at the rate of the finest": {"coarser": 1.0},
    "plain Adam: all three": {"memory": (0.9, 0.999), "own": 1.0, "coarser": 1.0},
}


def crops(path: Path, numbers_of_frames: list[int]) -> list[np.ndarray]:
    """Planes (6, 72, 88) from the middle of frames."""
    out = []
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i in numbers_of_frames:
                h, w = frame.height // 4 * 2, frame.width // 4 * 2
                a = frame.reformat(width=2 * w, height=2 * h, format="yuv420p").to_ndarray()
                luma, chroma = a[: 2 * h], a[2 * h :].reshape(2, h, w)
                phases = [luma[y::2, x::2] for y in (0, 1) for x in (0, 1)]
                top, left = (h - HEIGHT // 2) // 2, (w - WIDTH // 2) // 2
                planes = np.stack([*phases, *chroma])[:, top : top + HEIGHT // 2, left : left + WIDTH // 2]
                out.append(planes.astype(np.float32) / 255 - np.float32(0.5))
            if i >= max(numbers_of_frames):
                break
    return out


def fitted(path: Path, frames: list[int], quality: float, rounds: int, choice: dict[str, Any]) -> dict[str, float]:
    """Cost, rate and processor's seconds of a fit."""
    network, digest = load_pocket()
    family = PocketFamily("pocket", network, digest, next(network.parameters()).device)
    level = RateLevel.of(family.top.real * quality / 100)
    t = family.trade_off(level)
    options = FitOptions(**{"trade_off": 1 / t.worth, "weights": t.weights, "rounds": rounds, "shared": 64, **choice})
    fit = Fit(crops(path, frames), options, network.config, family.theta(level))
    start = time.process_time()
    with flushed_denormals():
        fit.run()
    costs = [fit.cost(i) for i in range(len(frames))]
    bpp = sum(c.bits for c in costs) / len(costs) / fit.samples
    return {"cost": fit.loss(fit.theta), "bpp": bpp, "seconds": time.process_time() - start}


def main() -> None:
    p = parser(__doc__, "pocket_fit", frames=None)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--pair", type=numbers, default=[0, 120], metavar="N,N", help="frames of each clip: %(default)s")
    p.add_argument("--rounds", type=numbers, default=[200], metavar="N,N", help="visits to a frame: %(default)s")
    p.add_argument("--quality", type=float, default=60)
    args = p.parse_args()
    m = Measurement(args, __doc__)
    pair = [int(n) for n in args.pair]
    rows: list[list[str]] = []
    changes: dict[str, dict[str, float | None]] = {}
    for rounds in map(int, args.rounds):
        found: dict[str, list[dict[str, Any] | None]] = {
            name: [
                m.figure(
                    {"choice": name, "rounds": rounds, "quality": args.quality, "clip": clip.stem, "frames": pair},
                    lambda clip=clip, choice=choice, rounds=rounds: fitted(clip, pair, args.quality, rounds, choice),  # type: ignore[misc]
                    ["families/pocket", "weights/pocket.safetensors"],
                )
                for clip in args.clips
            ]
            for name, choice in CHOICES.items()
        }
        for name, figures in found.items():
            ratios = [100 * (f["cost"] / b["cost"] - 1) for f, b in zip(figures, found[NOW], strict=True) if f and b]
            mean = float(np.mean(ratios)) if ratios else None
            costs = [show(f["cost"] if f else None, 4) for f in figures]
            rows.append([str(rounds), name, *costs, show(mean, 1, sign=True)])
            changes.setdefault(str(rounds), {})[name] = mean
    head = ["visits", "choice", *(clip.stem for clip in args.clips), "mean, % more cost than as it is"]
    m.publish(markdown(head, rows, left=2), summary={"changes": changes})


if __name__ == "__main__":
    main()
