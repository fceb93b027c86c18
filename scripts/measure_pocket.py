"""The family `pocket` against other codecs: one small network per video, fitted together with all of its symbols.

    python scripts/measure_pocket.py CLIP... --anchors rivals_2fps.json --rounds 500,1500 --qualities 35,50,65,80

Whole files, the network's update included. --rounds: visits of the fit to every frame; 1500 is what the preset `slow`
makes. --shared: besides, how the cost of a frame falls with the number of frames that pay for the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec
from vidcodec.evaluation.tables import cost_of, markdown, mean_of, point_rows, show

RIVALS = ("x265-intra", "vvenc-intra", "svtav1-intra")


def whole_numbers(text: str) -> list[int]:
    """'1,2,5' as integers."""
    return [int(part) for part in text.split(",")]


def shared_part(m: Measurement, rounds: int) -> tuple[dict[str, Any], str]:
    """True cost of files of the first frames, by how many they are."""
    found: dict[str, Any] = {}
    rows = []
    for clip in m.args.clips:
        for count in m.args.shared:
            codecs = [spec("vidcodec", [m.args.shared_quality], name="pocket", model="pocket", steps=rounds)]
            [p] = m.evaluate([clip], codecs, f"{clip.stem}, {count} frames", frames=count).points
            share = 100 * p.details["update_bytes"] / p.bytes
            cost = cost_of(p)
            found.setdefault(clip.stem, {})[count] = {"cost": cost, "bpp": p.bpp, "update_share": share}
            quality = show(p.quality["psnr_yuv"], 2)
            rows.append([clip.stem, str(count), show(cost, 4), show(p.bpp, 4), quality, show(share, 1)])
    head = ["clip", "frames", "true R-D-M cost, bpp", "bpp", "PSNR-YUV", "the network's share of the file, %"]
    return found, f"Frames that share one network, {rounds} visits to each:\n\n{markdown(head, rows)}"


def main() -> None:
    p = parser(__doc__, "pocket", frames=None)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="named as in the anchors")
    p.add_argument("--qualities", type=numbers, default=[35, 50, 65, 80], metavar="Q,Q")
    p.add_argument("--rounds", type=whole_numbers, default=[500], metavar="N,N")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs on the clips")
    p.add_argument("--shared", type=whole_numbers, default=[], metavar="N,N", help="numbers of frames")
    p.add_argument("--shared-quality", type=float, default=50.0, metavar="Q")
    args = p.parse_args()
    m = Measurement(args, __doc__)
    ways = {f"pocket {n}": n for n in args.rounds}
    ours = [spec("vidcodec", args.qualities, name=w, model="pocket", steps=n) for w, n in ways.items()]
    rivals = [f"points:{args.anchors}#{r}" for r in RIVALS] if args.anchors else []
    results = m.evaluate(args.clips, [*ours, *rivals])
    bds: dict[str, dict[str, dict[str, float | None]]] = {}
    for rival in RIVALS[: len(rivals)]:
        for c in bdrate.compare(results.points, f"points:{rival}"):
            if c.codec in ways and c.clip:
                bds.setdefault(c.codec, {}).setdefault(c.clip, {})[rival] = c.bd_rate
    tables = []
    for way, clips in bds.items():
        rows = [[clip, *(show(f[r], 1, sign=True) for r in RIVALS)] for clip, f in clips.items()]
        rows.append(["mean", *(show(mean_of(f[r] for f in clips.values()), 1, sign=True) for r in RIVALS)])
        tables.append(f"{way} visits, BD-rate in per cent:\n\n{markdown(['clip', *RIVALS], rows)}")
    shared, shared_table = shared_part(m, args.rounds[0]) if args.shared else ({}, "")
    m.publish(
        "BD-rate: PSNR-YUV, Akima; below zero: fewer bits than the codec named." if tables else "",
        *tables,
        shared_table,
        markdown(*point_rows(p for p in results.points if p.codec in ways), left=2),
        summary={"bd_rate": bds, "shared": shared},
    )


if __name__ == "__main__":
    main()
