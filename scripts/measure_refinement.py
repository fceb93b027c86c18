"""What quantisers, adaptation and latent refinement give: clips and pictures coded with one step more each time.

    python scripts/measure_refinement.py CLIP... --frames 4 --steps 60 --qualities 20,40,60,80

Every point is a real file: encoded, its checksums verified, decoded to a lossless video, read back and compared with
the sampled source. The ablation: plain rounding, rdoq, trellis, trellis with lof, adapted (full, learned selection)
with the trellis and then with lof; each against the one before and against plain rounding. Beside it trellis with sga,
for as many steps as --sga-steps says: the table has the seconds of both, so that they can be compared at equal time.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from _measuring import (
    Point,
    Results,
    add_coding_options,
    bd,
    bd_cell,
    code_clip,
    coding_key,
    mean_of,
    methods_of,
    numbers,
    parser,
    sampling,
    show,
    table,
)

from vidcodec.codec.options import EncodeOptions
from vidcodec.video import VideoReader

# Name: quantiser, refinement, adaptation, the way it is compared with beside 'uniform'.
WAYS = {
    "uniform": ("uniform", "none", "none", None),
    "rdoq": ("rdoq", "none", "none", "uniform"),
    "trellis": ("trellis", "none", "none", "rdoq"),
    "trellis, lof": ("trellis", "lof", "none", "trellis"),
    "trellis, sga": ("trellis", "sga", "none", "trellis"),
    "trellis, adapted": ("trellis", "none", "full", "trellis"),
    "trellis, adapted, lof": ("trellis", "lof", "full", "trellis, adapted"),
}
LATENTS_PER_PIXEL = 1.5  # 384 channels of y for every block of 16x16
HEAD = ("clip", "quality", "way", "kept", "bytes", "bpp", "YUV", "J", "refine s", "encode s", "decode s")


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--qualities", type=numbers, default=[20.0, 40.0, 60.0, 80.0], metavar="Q,Q")
    p.add_argument("--frames", type=int, default=4, metavar="N", help="the first N of them (default: %(default)s)")
    p.add_argument(
        "--pixels",
        type=float,
        default=math.inf,
        metavar="N",
        help="fewer frames of large videos: N luma samples, or one",
    )
    p.add_argument(
        "--ways",
        type=lambda text: [w.strip() for w in text.split(";")],
        default=list(WAYS),
        metavar="WAY;WAY",
        help=f"of: {'; '.join(WAYS)} (default: all)",
    )
    p.add_argument("--lof-steps", type=int, default=16, help="default: %(default)s")
    p.add_argument("--sga-steps", type=int, default=2, help="tens of steps (default: %(default)s)")
    p.add_argument("--name", default="refinement", help="of the results files (default: %(default)s)")
    return p.parse_args()


def row(way: str, p: Point) -> list[str | None]:
    """One point for the table."""
    seconds = [show(p["stages"].get("refine"), 1), show(p["encode_seconds"], 1), show(p["decode_seconds"], 1)]
    figures = [show(p["bytes"], 0), show(p["bpp"], 4), show(p["psnr_yuv"]), show(p["J"], 4)]
    return [p["clip"], f"{p['quality']:g}", way, p["chosen"], *figures, *seconds]


def frames_of(args: argparse.Namespace, clip: Path) -> int:
    """How many frames of a clip are coded."""
    with VideoReader(clip, sampling(args.fps, None)) as reader:
        pixels = reader.format.width * reader.format.height
    return max(1, int(min(args.frames, args.pixels / pixels)))


def main() -> None:
    args = arguments()
    results = Results(args.name, __doc__.partition("\n\n")[0], args)
    rows, summary, found = [], {}, []
    for clip in args.clips:
        frames = frames_of(args, clip)
        by_way: dict[str, list[Point]] = {way: [] for way in WAYS}
        for quality in args.qualities:
            at: dict[str, Point] = {}
            for way in args.ways:
                quantizer, refine, adapt, _ = WAYS[way]
                options = EncodeOptions(
                    sampling=sampling(args.fps, frames),
                    quality=quality,
                    adapt=adapt,
                    preset=args.preset,
                    steps=args.steps,
                    refine=refine,
                    quantizer=quantizer,
                    max_minutes=args.max_time,
                    refine_steps={"none": None, "lof": args.lof_steps, "sga": args.sga_steps}[refine],
                    weights=args.weights,
                    device="cpu",
                )
                key = coding_key(clip, options, frames)
                if p := results.point(key, lambda clip=clip, options=options: code_clip(clip, options)):
                    at[way] = p
                    by_way[way].append(p)
                    rows.append(row(way, p))
            found.append(at)
        summary[clip.name] = {
            "frames": frames,
            "against plain": {way: bd(by_way["uniform"], by_way[way]) for way in WAYS if way != "uniform"},
            "each step": {way: bd(by_way[w[-1]], by_way[way]) for way, w in WAYS.items() if w[-1]},
            "seconds": {way: mean_of(p["encode_seconds"] for p in points) for way, points in by_way.items()},
        }
    tables = [
        "BD-rate / BD-PSNR of each step over the one it builds on:\n\n" + bd_table(summary, "each step"),
        "The same against plain rounding:\n\n" + bd_table(summary, "against plain"),
        "Seconds of an encode, the mean over qualities; they hold the codings of the ways before it:\n\n"
        + table(["", *summary], [[way, *(show(s["seconds"][way], 1) for s in summary.values())] for way in WAYS]),
        latents_table(found),
        worst(found),
        table(HEAD, rows, 4),
        "PSNR in dB, errors averaged over frames before the logarithm, YUV is 6:1:1. J = bpp + lambda 255^2 D of the "
        "file as written. BD figures on PSNR-YUV, interpolation: "
        f"{methods_of(f for s in summary.values() for f in s['against plain'].values())}.",
    ]
    results.finish(summary, "\n\n".join(tables))


def bd_table(summary: dict[str, Point], against: str) -> str:
    """Ways in rows, clips in columns; the mean is of BD-rates."""
    lines = []
    for way in next(iter(summary.values()))[against]:
        figures = [s[against][way] for s in summary.values()]
        mean = show(mean_of(f["bd_rate"] for f in figures), 1, sign=True)
        lines.append([way, *map(bd_cell, figures), mean and f"{mean} %"])
    return table(["", *(f"{clip}, {s['frames']} frames" for clip, s in summary.items()), "mean"], lines)


def latents_table(found: list[dict[str, Point]]) -> str:
    """What RDOQ and the trellis gain on real latents, by their rate, and which of them the encoder took."""
    lines = []
    for at in found:
        if {"uniform", "rdoq", "trellis"} <= at.keys():
            plain, rdoq, trellis = (at[way] for way in ("uniform", "rdoq", "trellis"))
            pixels = plain["width"] * plain["height"] * plain["frames"]
            rate = 8 * plain["bytes_y"] / pixels / LATENTS_PER_PIXEL
            gains = [show(100 * (p["J"] / plain["J"] - 1), 2, sign=True) for p in (rdoq, trellis)]
            taken = (
                "trellis" if "trellis" in trellis["chosen"] else "rdoq" if "scalar" in trellis["chosen"] else "plain"
            )
            lines.append((rate, [show(rate, 3), plain["clip"], f"{plain['quality']:g}", *gains, taken]))
    head = ["bits per latent", "clip", "quality", "J of rdoq, %", "J of trellis, %", "trellis or rdoq: taken"]
    return "By bits per latent of y (plainly rounded), J against plain rounding:\n\n" + table(
        head, [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    )


def worst(found: list[dict[str, Point]]) -> str:
    """The largest J of any way against plain rounding: none may be above."""
    ratios = [
        p["J"] / at["uniform"]["J"] for at in found if "uniform" in at for way, p in at.items() if way != "uniform"
    ]
    over = sum(r > 1.0 for r in ratios)
    least = 100 * (1 - max(ratios, default=1.0))
    return f"Of {len(ratios)} files, {over} cost more than the plain one; the least gain in J is {least:.2f} %."


if __name__ == "__main__":
    main()
