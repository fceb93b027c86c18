"""Fit one network of the family `pocket` to many small pictures: the base weights that updates are differences to.

    python scripts/train_pocket_base.py PICTURE_OR_VIDEO... -o vidcodec/weights/pocket.safetensors

The shipped ones: 24 photographs with free licences (by name every ninth of budgie, drewnoakes, elementary, pdimg,
popos, tt4 and tt5 among the training pictures), brought to about CIF, 176x144 of each, 150 visits to each, lambda 5e-4;
31 seconds of one core, before grids had filters: those are neutral. With 72 pictures the loss went up again: the shared
network's rate is too high there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np

from vidcodec.families.pocket.checkpoint import save_pocket
from vidcodec.families.pocket.fit import Fit, FitOptions
from vidcodec.families.pocket.network import Pocket, PocketConfig

HEIGHT, WIDTH = 144, 176


def crop(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Planes (6, 72, 88) of a place in the first frame, brought to CIF before."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    scale = max(352 / frame.width, 288 / frame.height)
    h, w = (int(n * scale) // 2 * 2 for n in (frame.height, frame.width))
    a = frame.reformat(width=w, height=h, format="yuv420p", interpolation="AREA").to_ndarray()
    i, j = (int(rng.integers(0, n // 2 + 1)) for n in (h - HEIGHT, w - WIDTH))
    luma = a[2 * i : 2 * i + HEIGHT, 2 * j : 2 * j + WIDTH]
    chroma = a[h:].reshape(2, h // 2, w // 2)[:, i : i + HEIGHT // 2, j : j + WIDTH // 2]
    planes = np.stack([*(luma[y::2, x::2] for y in (0, 1) for x in (0, 1)), *chroma])
    return planes.astype(np.float32) / 255 - np.float32(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--trade-off", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    pooled = (4 / 6, 1 / 6, 1 / 6)  # all samples of the three planes alike
    options = FitOptions(args.trade_off, pooled, args.rounds, hard=0.03, seed=args.seed)
    config = PocketConfig()
    fit = Fit([crop(path, rng) for path in args.sources], options, config, Pocket(config).theta)

    def look() -> None:
        if fit.visits % max(1, fit.total // 8) == 0:
            print(f"{fit.visits} of {fit.total}: {fit.loss(fit.theta):.4f} bits per luma sample", flush=True)

    fit.run(step=look)
    save_pocket(Pocket(config, fit.theta), args.output, note=f"{len(args.sources)} pictures, {args.rounds} visits each")


if __name__ == "__main__":
    main()
