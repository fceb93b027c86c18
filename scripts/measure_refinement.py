"""What quantisers and latent refinement give: clips and pictures coded with one step more each time.

    python scripts/measure_refinement.py CLIP... --frames 4 --qualities 20,40,60,80

Every point is a real file: encoded, its checksums verified, decoded to a lossless video, read back and compared with
the sampled source. The ablation: plain rounding, rdoq, trellis, trellis with lof; each against the one before and
against plain rounding. Beside it trellis with sga, for as many steps as --sga-steps says: the table has the minutes
of both, so that they can be compared at equal time.
"""

from __future__ import annotations

import argparse

import numpy as np
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

# Name: quantiser, refinement, the way it is compared with beside 'uniform'.
WAYS = {
    "uniform": ("uniform", "none", None),
    "rdoq": ("rdoq", "none", "uniform"),
    "trellis": ("trellis", "none", "rdoq"),
    "trellis, lof": ("trellis", "lof", "trellis"),
    "trellis, sga": ("trellis", "sga", "trellis"),
}
HEAD = ("clip", "quality", "way", "kept", "bytes", "bpp", "YUV", "J", "refine s", "encode s", "decode s")


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--qualities", type=numbers, default=[20.0, 40.0, 60.0, 80.0], metavar="Q,Q")
    p.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    p.add_argument("--adapt", default="none", help="what is adapted beforehand (default: %(default)s)")
    p.add_argument("--lof-steps", type=int, default=16, help="default: %(default)s")
    p.add_argument("--sga-steps", type=int, default=4, help="tens of steps (default: %(default)s)")
    p.add_argument("--name", default="refinement", help="of the results files (default: %(default)s)")
    return p.parse_args()


def row(way: str, p: Point) -> list[str | None]:
    """One point for the table."""
    seconds = [show(p["stages"].get("refine"), 1), show(p["encode_seconds"], 1), show(p["decode_seconds"], 1)]
    figures = [show(p["bytes"], 0), show(p["bpp"], 4), show(p["psnr_yuv"]), show(p["J"], 4)]
    return [p["clip"], f"{p['quality']:g}", way, p["chosen"], *figures, *seconds]


def main() -> None:
    args = arguments()
    results = Results(args.name, __doc__.partition("\n\n")[0], args)
    rows, summary = [], {}
    for clip in args.clips:
        by_way: dict[str, list[Point]] = {way: [] for way in WAYS}
        for quality in args.qualities:
            for way, (quantizer, refine, _) in WAYS.items():
                options = EncodeOptions(
                    sampling=sampling(args.fps, args.frames), quality=quality, adapt=args.adapt, preset=args.preset,
                    steps=args.steps, refine=refine, quantizer=quantizer, max_minutes=args.max_time,
                    refine_steps={"none": None, "lof": args.lof_steps, "sga": args.sga_steps}[refine],
                    weights=args.weights, device="cpu",
                )  # fmt: skip
                key = coding_key(clip, options, args.frames)
                if p := results.point(key, lambda clip=clip, options=options: code_clip(clip, options)):
                    by_way[way].append(p)
                    rows.append(row(way, p))
        figures = {f"{way} vs uniform": bd(by_way["uniform"], by_way[way]) for way in WAYS if way != "uniform"}
        figures |= {f"{way} vs {w[2]}": bd(by_way[w[2]], by_way[way]) for way, w in WAYS.items() if w[2]}
        minutes = {way: mean_of(p["encode_seconds"] / 60 for p in points) for way, points in by_way.items()}
        summary[clip.name] = {"bd": figures, "encode_minutes": minutes}
    columns = list(next(iter(summary.values()))["bd"])
    bds = [[clip, *(bd_cell(s["bd"][c]) for c in columns)] for clip, s in summary.items()]
    bds.append(["mean of BD-rates", *(_mean_rate(summary, c) for c in columns)])
    times = [[clip, *(show(s["encode_minutes"][way], 3) for way in WAYS)] for clip, s in summary.items()]
    methods = methods_of(f for s in summary.values() for f in s["bd"].values())
    remarks = (
        "PSNR in dB, errors averaged over frames before the logarithm, YUV is 6:1:1. J = bpp + lambda 255^2 D of the "
        f"file as written. BD-rate / BD-PSNR on PSNR-YUV, interpolation: {methods}. Minutes: whole encodes, the mean "
        "over qualities; refining, they hold the codings of the ways before it."
    )
    minutes_head = ["minutes of an encode", *WAYS]
    tables = [table(HEAD, rows, 4), table(["clip", *columns], bds), table(minutes_head, times), remarks]
    results.finish(summary, "\n\n".join(tables))


def _mean_rate(summary: dict[str, Point], column: str) -> str | None:
    rates = [s["bd"][column]["bd_rate"] for s in summary.values() if s["bd"][column]["bd_rate"] is not None]
    return f"{show(float(np.mean(rates)), 1, sign=True)} %" if rates else None


if __name__ == "__main__":
    main()
