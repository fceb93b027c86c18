"""The family `pocket` against other codecs: one small network per video, fitted together with all of its symbols.

    python scripts/measure_pocket.py CLIP... --fps 0.5 --frames 4 --rounds 300 --qualities 60
    python scripts/measure_pocket.py CLIP... --rivals points:rivals_2fps.json#x265-intra --rounds 1500

Whole files, the network's update included. --rounds: visits of the fit to every frame; 1500 is what the preset `slow`
makes. --shared: besides, how the cost of a frame falls with the number of frames that pay for the network. At equal
quality: the size of every file beside that of a rival with the same PSNR-YUV, between whose points the logarithm of the
size is interpolated; BD-rates where there are four points or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec
from vidcodec.evaluation.results import Results
from vidcodec.evaluation.tables import cost_of, markdown, mean_of, point_rows, show

RIVALS = "x265:intra,rates=22/27/32/37/42"


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


def at_equal_quality(results: Results, ways: list[str]) -> list[list[str]]:
    """Of every file: clip, way, rate, quality, and by how many per cent it is larger than each rival's."""
    rivals = [codec.label for codec in results.codecs if codec.label not in ways]
    rows = []
    for clip in results.clips:
        for way in ways:
            for p in results.curve(clip.name, way):
                quality, row = p.quality["psnr_yuv"], [clip.name, way]
                if quality is None:
                    continue
                for rival in rivals:
                    points = [(q.quality["psnr_yuv"], q.bytes) for q in results.curve(clip.name, rival)]
                    known, sizes = np.array(sorted(points)).T
                    inside = known[0] <= quality <= known[-1]
                    size = float(np.exp(np.interp(quality, known, np.log(sizes))))
                    row.append(show(100 * (p.bytes / size - 1), 1, sign=True) if inside else "N/A")
                update = show(p.details["update_bytes"] / clip.frames, 0)
                seconds = None if p.encode_seconds is None else p.encode_seconds / clip.frames
                rows.append([*row, show(p.bpp, 4), show(quality, 2), update, show(seconds, 1)])
    return [["clip", "way", *rivals, "bpp", "PSNR-YUV", "bytes of the network a frame", "seconds a frame"], *rows]


def main() -> None:
    p = parser(__doc__, "pocket", frames=None)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--qualities", type=numbers, default=[35, 50, 65, 80], metavar="Q,Q")
    p.add_argument("--rounds", type=whole_numbers, default=[500], metavar="N,N")
    p.add_argument(
        "--rivals", default=RIVALS, metavar="SPEC,SPEC", help="as `vidcodec evaluate` takes them: %(default)s"
    )
    p.add_argument("--shared", type=whole_numbers, default=[], metavar="N,N", help="numbers of frames")
    p.add_argument("--shared-quality", type=float, default=50.0, metavar="Q")
    args = p.parse_args()
    m = Measurement(args, __doc__)
    ways = {f"{n} visits": n for n in args.rounds}
    ours = [spec("vidcodec", args.qualities, name=w, model="pocket", steps=n) for w, n in ways.items()]
    results = m.evaluate(args.clips, [*ours, args.rivals])
    rivals = [codec.label for codec in results.codecs if codec.label not in ways]
    bds: dict[str, dict[str, dict[str, float | None]]] = {}
    for rival in rivals:
        for c in bdrate.compare(results.points, rival):
            if c.codec in ways and c.clip and c.bd_rate is not None:
                bds.setdefault(c.codec, {}).setdefault(c.clip, {})[rival] = c.bd_rate
    tables = []
    for way, clips in bds.items():
        rows = [[clip, *(show(f.get(r), 1, sign=True) for r in rivals)] for clip, f in clips.items()]
        rows.append(["mean", *(show(mean_of(f.get(r) for f in clips.values()), 1, sign=True) for r in rivals)])
        tables.append(f"{way}, BD-rate in per cent (PSNR-YUV, Akima):\n\n{markdown(['clip', *rivals], rows)}")
    shared, shared_table = shared_part(m, args.rounds[0]) if args.shared else ({}, "")
    head, *equal = at_equal_quality(results, list(ways))
    m.publish(
        f"Per cent more bytes than a rival at equal PSNR-YUV, everything included:\n\n{markdown(head, equal, left=2)}",
        *tables,
        shared_table,
        markdown(*point_rows(results.points), left=2),
        summary={
            "bd_rate": bds,
            "shared": shared,
            "at_equal_quality": [dict(zip(head, r, strict=True)) for r in equal],
        },
    )


if __name__ == "__main__":
    main()
