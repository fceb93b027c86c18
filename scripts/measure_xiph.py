"""Our codec, plain and adapted, against the codecs people use, on four CIF sequences of Xiph's.

    python scripts/measure_xiph.py [CLIP...]

Without clips they come from the cache of `vidcodec fetch xiph-cif`. With the default of 60 finetuning steps it is meant
for less than an hour on two cores; a run that was stopped goes on where it was.
"""

from __future__ import annotations

from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec, words
from vidcodec.evaluation.plots import rd_curves
from vidcodec.evaluation.tables import comparison_rows, comparison_title, markdown, point_rows, step_rows

CLIPS = [f"xiph-cif/{name}" for name in ("akiyo", "foreman", "coastguard", "container")]
RIVALS = "x264:intra,x264:inter,x265:intra,x265:inter,svtav1:intra,svtav1:inter,webp,jpeg"


def main() -> None:
    p = parser(__doc__, "xiph")
    p.add_argument("clips", nargs="*", metavar="CLIP", help="files, or names of a fetched set")
    p.add_argument("--qualities", type=numbers, default=[30, 50, 70, 85, 100], metavar="Q,Q", help="of our codec")
    p.add_argument("--qps", type=numbers, default=[22, 27, 32, 37, 42], metavar="QP,QP", help="of the others")
    p.add_argument("--steps", type=int, default=60, help="of finetuning (default: %(default)s)")
    p.add_argument("--ways", type=words, default=["plain", "trellis", "adapted", "refined"], help="of our codec")
    p.add_argument("--update-parameters", default="learned", help="which ones to update (default: %(default)s)")
    p.add_argument("--rivals", default=RIVALS, metavar="LIST", help="as vidcodec evaluate takes them")
    args = p.parse_args()
    adapted = {"steps": args.steps, "quantizer": "trellis", "update_parameters": args.update_parameters}
    ways = {
        "plain": {"adapt": "none", "quantizer": "uniform", "refine": "none"},
        "trellis": {"adapt": "none", "quantizer": "trellis", "refine": "none"},
        "adapted": {**adapted, "refine": "none"},
        "refined": {**adapted, "refine": "lof"},
    }
    ours = [f"vidcodec {way}" for way in args.ways]
    codecs = [
        spec("vidcodec", args.qualities, name=name, weights=args.weights, **ways[way])
        for name, way in zip(ours, args.ways, strict=True)
    ]
    m = Measurement(args, __doc__)
    results = m.evaluate(args.clips or CLIPS, [*codecs, args.rivals], qps=args.qps)
    for clip in results.clips:
        rd_curves(results, clip.name, m.asset(clip.name))
    m.publish(
        f"{comparison_title(results)}:\n\n{markdown(*comparison_rows(results.comparisons))}",
        markdown(*step_rows(results, ours)) if len(ours) > 1 else "",
        "N/A: the curves share less than half of the shorter one's range, or have fewer than four rising points. Bits: "
        "whole files for ours, WebP and JPEG, bare packets for the others. PSNR in dB, errors averaged over frames "
        "before the logarithm, on decoded files. Plain: shipped weights, symbols rounded. Trellis: decided by a "
        f"trellis or RDOQ, whichever cost less. Adapted: and {args.steps} finetuning steps of "
        f"{args.update_parameters} parameters. Refined: and latents improved by greedy search, 8 steps a frame. Times "
        "are of one thread each.",
        "\n".join(f"![{clip.name}]({args.name}-{clip.name}.png)" for clip in results.clips),
        markdown(*point_rows(results.points), left=2),
    )


if __name__ == "__main__":
    main()
