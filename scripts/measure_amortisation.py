"""How many frames must share a model update before it pays: one clip, growing numbers of its first frames.

    python scripts/measure_amortisation.py CLIP --frame-counts 1,2,5,10,20,50,all --quality 50

At every number of frames the clip is coded with no adaptation and with the full one, at the same quality setting and
with the same adaptation steps. The gain is that of the cost J = R + lambda 255^2 D + M of the written files; the
same gain in bits at the plain file's distortion is dJ / J only where R dominates, so rate and PSNR stand beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _measuring import Point, Results, add_coding_options, code_point, parser, show, table

HEAD = (
    "clip",
    "frames",
    "kept",
    "bpp none",
    "bpp full",
    "of it update",
    "update bytes",
    "PSNR-YUV none",
    "full",
    "J none",
    "J full",
    "gain in J %",
    "bits %",
    "PSNR dB",
)


def frame_counts(text: str) -> list[int | None]:
    """'1,2,all' as numbers; None for all."""
    return [None if part == "all" else int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--frame-counts", type=frame_counts, default=frame_counts("1,2,5,10,20,all"), metavar="N,N")
    p.add_argument("--quality", type=float, default=50.0, help="default: %(default)g")
    return p.parse_args()


def gain(plain: Point, full: Point) -> Point:
    """Full adaptation against none, on the same frames."""
    update = 8 * full["bytes_update"] / (full["width"] * full["height"] * full["frames"])
    return {
        "clip": plain["clip"],
        "frames": plain["frames"],
        "kept": "plain" if full["chosen"] == "plain" else "adapted",
        "bpp_none": plain["bpp"],
        "bpp_full": full["bpp"],
        "bpp_update": update,
        "bytes_update": full["bytes_update"],
        "psnr_none": plain["psnr_yuv"],
        "psnr_full": full["psnr_yuv"],
        "J_none": plain["J"],
        "J_full": full["J"],
        "gain_J_percent": 100 * (1 - full["J"] / plain["J"]),
        "bits_percent": 100 * (full["bpp"] / plain["bpp"] - 1),
        "psnr_gain": full["psnr_yuv"] - plain["psnr_yuv"],
    }


def row(g: Point) -> list[str | None]:
    """One gain for the table."""
    return [
        g["clip"],
        str(g["frames"]),
        g["kept"],
        *(show(g[k], 4) for k in ("bpp_none", "bpp_full", "bpp_update")),
        show(g["bytes_update"], 0),
        show(g["psnr_none"]),
        show(g["psnr_full"]),
        show(g["J_none"], 4),
        show(g["J_full"], 4),
        show(g["gain_J_percent"], 2, sign=True),
        show(g["bits_percent"], 1, sign=True),
        show(g["psnr_gain"], 2, sign=True),
    ]


def draw(gains: list[Point], quality: float, path: Path) -> None:
    """Gain in J, change of bits and of PSNR, over the number of frames."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    columns = (
        ("gain_J_percent", "R-D-M cost saved, %"),
        ("bits_percent", "bits (update included), %"),
        ("psnr_gain", "PSNR-YUV, dB"),
    )
    for axis, (key, label) in zip(axes, columns, strict=True):
        for clip in dict.fromkeys(g["clip"] for g in gains):
            mine = sorted((g["frames"], g[key]) for g in gains if g["clip"] == clip)
            axis.plot(*zip(*mine, strict=True), "o-", label=Path(clip).stem, markersize=4)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(xscale="log", xlabel="frames that share the update", title=label)
        counts = sorted({g["frames"] for g in gains})
        axis.set_xticks(counts, [str(n) for n in counts], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(color="0.9")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"full adaptation against none at quality {quality:g}")
    figure.savefig(path, dpi=120)


def main() -> None:
    args = arguments()
    results = Results("amortisation", __doc__.partition("\n\n")[0], args)
    gains = []
    for clip in args.clips:
        for frames in args.frame_counts:
            plain = code_point(results, args, clip, args.quality, "none", frames)
            full = code_point(results, args, clip, args.quality, "full", frames)
            if plain and full:
                gains.append(gain(plain, full))
    figure = "amortisation.png"
    if gains:
        draw(gains, args.quality, args.results / figure)
    remarks = (
        "Both files at the same quality setting. `gain in J`: the part of bpp + lambda 255^2 D that adaptation saves, "
        "every byte of the update counted; bits and PSNR are its two halves, differences of the written files."
    )
    body = [table(HEAD, map(row, gains)), f"![gain over the number of frames]({figure})", remarks]
    results.finish({"quality": args.quality, "gains": gains}, "\n\n".join(body))


if __name__ == "__main__":
    main()
