"""What adapting the codec to a video gives: every clip coded at several qualities, in several ways.

    python scripts/measure_adaptation.py CLIP... --qualities 30,60 --modes none,encoder,full --anchors rivals_2fps.json

Every point is a real file: encoded, its checksums verified, decoded to a lossless video, read back and compared with
the sampled source. Bytes are the file's, everything included. BD figures compare the last mode with the other ones,
and every mode with the anchors' rivals where those coded the same frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _measuring import (
    Point,
    Results,
    add_coding_options,
    bd,
    bd_cell,
    code_point,
    methods_of,
    names,
    numbers,
    parser,
    rival_points,
    show,
    table,
)

RIVALS = ("x265-intra", "x264-intra")
HEAD = (
    "clip",
    "quality",
    "mode",
    "frames",
    "kept",
    "bytes",
    "update",
    "z",
    "y",
    "rest",
    "bpp",
    "Y",
    "U",
    "V",
    "YUV",
    "RGB",
    "J",
    "encode s",
    "decode s",
)


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--qualities", type=numbers, default=[30.0, 60.0], metavar="Q,Q", help="default: 30,60")
    p.add_argument("--modes", type=names, default=["none", "encoder", "full"], metavar="M,M", help="of --adapt")
    p.add_argument("--frames", type=int, metavar="N", help="only the first N frames (the anchors: 20 of CIF, else 10)")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs")
    p.add_argument("--name", default="adaptation", help="of the results files (default: %(default)s)")
    return p.parse_args()


def row(p: Point) -> list[str | None]:
    """One point for the table."""
    sizes = [show(p[k], 0) for k in ("bytes", "bytes_update", "bytes_z", "bytes_y", "bytes_rest")]
    quality = [show(p[f"psnr_{k}"]) for k in ("y", "u", "v", "yuv", "rgb")]
    seconds = [show(p["encode_seconds"], 1), show(p["decode_seconds"], 1)]
    kept = "plain" if p["chosen"] == "plain" else "adapted"
    head = [p["clip"], f"{p['quality']:g}", p["adapt"], str(p["frames"]), kept]
    return [*head, *sizes, show(p["bpp"], 4), *quality, show(p["J"], 4), *seconds]


def comparisons(clip: Path, by_mode: dict[str, list[Point]], anchors: Point) -> dict[str, Point]:
    """BD figures of one clip, named 'test vs anchor'."""
    modes = list(by_mode)
    out = {f"{modes[-1]} vs {mode}": bd(by_mode[mode], by_mode[modes[-1]]) for mode in modes[:-1]}
    for rival in RIVALS if anchors else ():
        for mode, points in by_mode.items():
            frames = points[0]["frames"] if points else 0
            out[f"{mode} vs {rival}"] = bd(rival_points(anchors, clip, rival, frames), points)
    return out


def main() -> None:
    args = arguments()
    anchors = json.loads(args.anchors.read_text()) if args.anchors else {}
    results = Results(args.name, __doc__.partition("\n\n")[0], args)
    rows, summary = [], {}
    for clip in args.clips:
        by_mode: dict[str, list[Point]] = {mode: [] for mode in args.modes}
        for quality in args.qualities:
            for mode in args.modes:
                if p := code_point(results, args, clip, quality, mode, args.frames):
                    by_mode[mode].append(p)
                    rows.append(row(p))
        summary[clip.name] = comparisons(clip, by_mode, anchors)
    columns = list(next(iter(summary.values())))
    bds = [[clip, *(bd_cell(figures[c]) for c in columns)] for clip, figures in summary.items()]
    methods = methods_of(f for figures in summary.values() for f in figures.values())
    remarks = (
        "PSNR in dB, errors averaged over frames before the logarithm, YUV is 6:1:1. J = bpp + lambda 255^2 D of the "
        "file as written; z and y are ideal code lengths of streams that share one payload, `rest` is the container. "
        f"BD-rate / BD-PSNR on PSNR-YUV, interpolation: {methods}; N/A: the curves overlap by less than "
        "half, or the rival was not measured on the same frames. The rivals' bytes are bare packets, ours whole files."
    )
    results.finish({"bd": summary}, "\n\n".join([table(HEAD, rows, 3), table(["clip", *columns], bds), remarks]))


if __name__ == "__main__":
    main()
