"""What the post-filter gains: BD-rate of base and adapted filter against the plain codec, update sizes, speed.

    python scripts/measure_filter.py CLIP... --codecs x264,x265 --qps 27,32,37,42

Every clip is coded at every QP (constant quantiser, preset medium); plain, base and adapted have the same pictures.
Rate: bytes of the video stream, for base and adapted with the message (SEI) in it.
"""

from __future__ import annotations

from pathlib import Path

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec, words
from vidcodec.evaluation.results import Results
from vidcodec.evaluation.tables import markdown, mean_of, show

METRICS = ("psnr_y", "psnr_yuv")


def rows_of(results: Results, codec: str, kinds: list[str]) -> list[list[str]]:
    """BD-rates of every kind against no filter, clip by clip and the mean; updates and speed of the last kind."""
    found = {
        (c.clip, c.codec, c.metric): c.bd_rate
        for metric in METRICS
        for c in bdrate.compare(results.points, f"{codec} none", metric)
    }
    rows = []
    for clip in [*(clip.name for clip in results.clips), None]:
        points = [p for p in results.points if p.codec == f"{codec} {kinds[-1]}" and p.clip == clip]
        speed = mean_of(results.clip(p.clip).frames / p.decode_seconds for p in points if p.decode_seconds)
        cells = [show(found.get((clip, f"{codec} {kind}", m)), 2, sign=True) for kind in kinds for m in METRICS]
        updates = "/".join(str(p.details["update_bytes"]) for p in points)
        rows.append([clip or "mean", codec, *cells, updates, show(speed, 1) if points else ""])
    return rows


def main() -> None:
    p = parser(__doc__, "filter", frames=None, fps="source")
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--codecs", type=words, default=["x264", "x265"])
    p.add_argument("--qps", type=numbers, default=[27, 32, 37, 42])
    p.add_argument("--profile", default="base")
    p.add_argument("--strategies", type=words, default=["multipliers"], help="or several: multipliers,biases,all")
    p.add_argument("--objective", default="rate", help="or sparsity")
    p.add_argument("--steps", type=int, help="of finetuning")
    args = p.parse_args()
    m, rows, kinds = Measurement(args, __doc__), [], ["base", *args.strategies]
    for codec in args.codecs:
        usual = {"codec": codec, "profile": args.profile, "weights": args.weights}
        asked = [spec("filter", name=f"{codec} {s}", strategy=s, **usual) for s in ("none", "base")]
        tuned = {"objective": args.objective, "steps": args.steps}
        asked += [spec("filter", name=f"{codec} {s}", strategy=s, **usual, **tuned) for s in args.strategies]
        rows += rows_of(m.evaluate(args.clips, asked, codec, qps=args.qps), codec, kinds)
    head = ["clip", "codec", *(f"{kind} {m.removeprefix('psnr_').upper()}" for kind in kinds for m in METRICS)]
    m.publish(
        f"BD-rate against the plain codec in per cent (Akima; QP {', '.join(f'{q:g}' for q in args.qps)}; profile "
        f"{args.profile}); less is better. YUV is 6:1:1. Updates: bytes by QP of the last strategy; the rest of the "
        "message takes some 40 bytes and is counted too. Pictures/s: decoding the video and filtering, one thread, "
        "loading included.",
        markdown([*head, "updates", "pictures/s"], rows, 2),
    )


if __name__ == "__main__":
    main()
