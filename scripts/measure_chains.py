"""Predicted frames: chains against frames by themselves, and against conventional inter coding.

    python scripts/measure_chains.py CLIP... --anchors rivals_2fps.json

Preset 'fast', the weights as they ship. Clips: as many frames as the anchors have of them, else --frames.
"""

from __future__ import annotations

import json
from pathlib import Path

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec
from vidcodec.evaluation.tables import markdown, mean_of, point_rows, show

RIVALS = ("x265-intra", "x265-inter", "svtav1-inter")
ALONE, CHAINS = "frames by themselves", "chains"


def main() -> None:
    p = parser(__doc__, "chains", frames=None)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="named as in the anchors")
    p.add_argument("--qualities", type=numbers, default=[20, 40, 60, 80], metavar="Q,Q")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs on the clips")
    p.add_argument("--key-interval", type=float, default=60, metavar="SECONDS")
    args = p.parse_args()
    m = Measurement(args, __doc__)
    anchors = json.loads(args.anchors.read_text()) if args.anchors else {}
    usual = {"preset": "fast", "weights": args.weights}
    ours = [
        spec("vidcodec", args.qualities, name=ALONE, **usual),
        spec("vidcodec", args.qualities, name=CHAINS, key_seconds=args.key_interval, **usual),
    ]
    rows, every = [], []
    for clip in args.clips:
        known = anchors.get(clip.stem, {"frames": args.frames, "codecs": {}})
        rivals = [r for r in RIVALS if r in known["codecs"]]
        codecs = [*ours, *(f"points:{args.anchors}#{r}" for r in rivals)]
        results = m.evaluate([clip], codecs, clip.stem, frames=known["frames"])
        gains = [
            next((c.bd_rate for c in bdrate.compare(results.points, against) if c.codec == CHAINS and c.clip), None)
            for against in (ALONE, *(f"points:{r}" for r in RIVALS))
        ]
        points = {way: [q for q in results.points if q.codec == way] for way in (ALONE, CHAINS)}
        seconds = [mean_of(q.encode_seconds for q in found) for found in points.values()]
        rows.append([clip.stem, *gains, seconds[1] / seconds[0] if seconds[0] and seconds[1] else None])
        every += points[ALONE] + points[CHAINS]
    rows.append(["mean of those there", *(mean_of(row[k] for row in rows) for k in range(1, 6))])
    head = ["clip", ALONE, *RIVALS, "encoding time, ratio"]
    table = [[row[0], *(show(v, 1, sign=True) for v in row[1:5]), show(row[5], 1)] for row in rows]
    m.publish(
        f"BD-rate of {CHAINS} in per cent (PSNR-YUV, Akima; below zero: fewer bits than the codec named).",
        markdown(head, table),
        markdown(*point_rows(q for q in every), left=2),
    )


if __name__ == "__main__":
    main()
