"""Fit the family `pocket` to frames of a clip and print what its bytes cost and what they decode to.

    python scripts/measure_pocket.py CLIP --frames 0,60 --rounds 500 --trade-off 5e-4 [--pooled] [--no-base]

Every line is measured on real bytes, decoded again, planes rounded to 8 bits. Bits per pixel count luma samples.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import av
import numpy as np

from vidcodec.families.pocket.codec import FrameDecoder, base_weights, finish, on_grid
from vidcodec.families.pocket.fit import POOLED, Fit, FitOptions
from vidcodec.families.pocket.network import PocketConfig, flatten, initial
from vidcodec.families.pocket.update import decode_update


def load(path: Path, indices: list[int]) -> list[np.ndarray]:
    """Planes (6, h, w) of frames with even sizes, 8-bit 4:2:0, in [-0.5, 0.5]."""
    out = []
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i in indices:
                a = frame.reformat(format="yuv420p").to_ndarray()
                h, w = frame.height // 2, frame.width // 2
                y, u, v = a[: 2 * h], a[2 * h :].reshape(2, h, w)[0], a[2 * h :].reshape(2, h, w)[1]
                phases = [y[j::2, k::2] for j in (0, 1) for k in (0, 1)]
                out.append(np.stack([*phases, u, v]).astype(np.float32) / 255 - np.float32(0.5))
            if i >= max(indices):
                break
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", default="0")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--trade-off", type=float, default=5e-4)
    parser.add_argument("--pooled", action="store_true", help="all samples alike, as Cool-Chic's figures are")
    parser.add_argument("--no-base", action="store_true")
    parser.add_argument("--points", type=int, default=2, help="how often to look on the way")
    args = parser.parse_args()
    targets = load(args.clip, [int(i) for i in args.frames.split(",")])
    config = PocketConfig()
    base = on_grid(flatten(config, initial(config, args.trade_off))) if args.no_base else base_weights(args.trade_off)
    options = FitOptions(args.trade_off, POOLED if args.pooled else None, args.rounds)
    fit = Fit(targets, options, config, base)
    start, cpu = time.monotonic(), time.process_time()

    def look(fit: Fit) -> None:
        if fit.visits % max(1, fit.total // args.points) and fit.visits != fit.total:
            return
        spent, used = time.monotonic() - start, time.process_time() - cpu
        coded = finish(fit)
        theta = decode_update(config, base, coded.network)
        decoder = FrameDecoder(config, theta, *targets[0].shape[1:])
        errors = np.zeros(3)
        for i, payload in enumerate(coded.frames):
            grids = decoder.symbols(payload)
            assert all(np.array_equal(a, b) for a, b in zip(grids, fit.grids(i), strict=True))
            error = np.square(np.rint((decoder.planes(grids) - targets[i]) * 255)).mean((1, 2))
            errors += np.array([error[:4].mean(), error[4], error[5]]) / len(targets)
        psnr = 10 * np.log10(255**2 / errors)
        pixels = fit.samples * len(targets)
        symbols = 8 * sum(len(f) for f in coded.frames)
        print(
            f"{args.clip.stem} {args.frames} visits {fit.visits} wall {spent:.0f} s cpu {used:.1f} s | "
            f"symbols {symbols / pixels:.4f} network {len(coded.network)} B = {8 * len(coded.network) / pixels:.4f} "
            f"total {coded.bits / pixels:.4f} bpp | pooled {10 * np.log10(255**2 / (errors @ POOLED)):.3f} "
            f"yuv {psnr @ (0.75, 0.125, 0.125):.3f} Y {psnr[0]:.2f} U {psnr[1]:.2f} V {psnr[2]:.2f} dB",
            flush=True,
        )

    fit.run(report=look)


if __name__ == "__main__":
    main()
