"""What quantisers, adaptation and latent refinement give: clips and pictures coded with one step more each time.

    python scripts/measure_refinement.py CLIP... --frames 4 --steps 60 --qualities 20,40,60,80

The ablation: plain rounding, rdoq, trellis, trellis with lof, adapted (full, learned selection) with the trellis and
then with lof; each against the one before and against plain rounding. Beside it trellis with sga, for as many steps as
--sga-steps says: the table has the seconds of both, so that they can be compared at equal time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec, words
from vidcodec.evaluation.results import Results
from vidcodec.evaluation.tables import cost_of, markdown, mean_of, per_cent, point_rows, show, step_rows

# Name: quantiser, refinement, adaptation, the way it is compared with beside 'uniform'.
WAYS = {
    "uniform": ("uniform", "none", "none", ""),
    "rdoq": ("rdoq", "none", "none", "uniform"),
    "trellis": ("trellis", "none", "none", "rdoq"),
    "trellis+lof": ("trellis", "lof", "none", "trellis"),
    "trellis+sga": ("trellis", "sga", "none", "trellis"),
    "trellis+adapted": ("trellis", "none", "full", "trellis"),
    "trellis+adapted+lof": ("trellis", "lof", "full", "trellis+adapted"),
}
LATENTS_PER_PIXEL = 1.5  # 384 channels of y for every block of 16x16
Costs = dict[tuple[str, float], dict[str, float]]  # by clip and quality: of every way


def costs_of(results: Results) -> Costs:
    """True R-D costs of the files as written."""
    out: Costs = {}
    for p in results.points:
        if (cost := cost_of(p)) is not None:
            out.setdefault((p.clip, p.rate_point), {})[p.codec] = cost
    return out


def latents_table(results: Results, costs: Costs) -> str:
    """What RDOQ and the trellis gain on real latents, by their rate, and which of them the encoder took."""
    rows = []
    for p in results.points:
        at = costs.get((p.clip, p.rate_point), {})
        if p.codec == "trellis" and {"uniform", "rdoq"} <= at.keys():
            plain = next(q for q in results.curve(p.clip, "uniform") if q.rate_point == p.rate_point)
            rate = 8 * plain.details["y_bytes"] / results.clip(p.clip).pixels / LATENTS_PER_PIXEL
            kind = p.details["chosen"].rpartition(", ")[2]
            gains = [per_cent(at[way], at["uniform"], 2) for way in ("rdoq", "trellis")]
            rows.append((rate, [show(rate, 3), p.clip, f"{p.rate_point:g}", *gains, kind]))
    head = ["bits per latent", "clip", "quality", "J of rdoq", "J of trellis", "trellis or rdoq: taken"]
    about = "By bits per latent of y (plainly rounded), true R-D cost J against plain rounding:\n\n"
    return about + markdown(head, [row for _, row in sorted(rows)])


def main() -> None:
    p = parser(__doc__, "refinement", frames=4)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--qualities", type=numbers, default=[20, 40, 60, 80], metavar="Q,Q")
    p.add_argument("--pixels", type=int, metavar="N", help="fewer frames of large videos: N luma samples, or one")
    p.add_argument("--ways", type=words, default=list(WAYS), metavar="WAY,WAY", help=f"of: {', '.join(WAYS)} (all)")
    p.add_argument("--steps", type=int, help="of adaptation, instead of the preset's")
    p.add_argument("--lof-steps", type=int, default=16, help="default: %(default)s")
    p.add_argument("--sga-steps", type=int, default=2, help="tens of steps (default: %(default)s)")
    args = p.parse_args()
    codecs = []
    for way in args.ways:
        quantizer, refine, adapt, _ = WAYS[way]
        how: dict[str, Any] = {"quantizer": quantizer, "refine": refine, "adapt": adapt, "weights": args.weights}
        how["refine_steps"] = {"none": None, "lof": args.lof_steps, "sga": args.sga_steps}[refine]
        how["steps"] = args.steps if adapt != "none" else None
        codecs.append(spec("vidcodec", args.qualities, name=way, **how))
    m = Measurement(args, __doc__)
    results = m.evaluate(args.clips, codecs, pixels=args.pixels)
    head = ["BD-rate, %", *(f"{clip.name}, {clip.frames} frames" for clip in results.clips), "mean"]
    pairs = [(WAYS[way][-1], way) for way in args.ways if WAYS[way][-1] in args.ways]
    tables = [
        markdown(head, [step_rows(results, pair)[1][0] for pair in pairs]),
        markdown(head, [step_rows(results, ("uniform", way))[1][0] for _, way in pairs])
        if "uniform" in args.ways
        else "",
    ]
    means = {
        way: [mean_of(p.encode_seconds for p in results.curve(clip.name, way)) for clip in results.clips]
        for way in args.ways
    }
    seconds = [[way, *(show(value, 1) for value in values)] for way, values in means.items()]
    costs = costs_of(results)
    ratios = [
        cost / at["uniform"] for at in costs.values() if "uniform" in at for way, cost in at.items() if way != "uniform"
    ]
    least = 100 * (1 - max(ratios, default=1.0))
    m.publish(
        *filter(None, tables),
        "Seconds of an encode, the mean over qualities; they hold the codings of the ways before it:\n\n"
        + markdown(["", *(clip.name for clip in results.clips)], seconds),
        latents_table(results, costs),
        f"Of {len(ratios)} files, {sum(r > 1 for r in ratios)} cost more than the plain one; the least gain in J is "
        f"{least:.2f} %.",
        markdown(*point_rows(results.points), left=2),
    )


if __name__ == "__main__":
    main()
