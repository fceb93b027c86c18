"""Whether the rivals that `vidcodec evaluate` runs give the rates and qualities that were measured independently.

    python scripts/check_rivals.py CLIP... --anchors rivals_2fps.json

x264, x265 and SVT-AV1, intra and inter where the anchors have them, at the anchors' quantisers. The exit code is 1
when a rate differs by more than one per cent.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _evaluating import parser, publish, run
from _measuring import show, table

CODECS = ("x264:intra", "x265:intra", "x265:inter", "svtav1:intra", "svtav1:inter")
QPS = [17.0, 22.0, 27.0, 32.0, 37.0, 42.0]
LIMIT = 1.0  # per cent of the rate
METRICS = ("psnr_y", "psnr_u", "psnr_v", "psnr_yuv", "psnr_rgb")


def arguments() -> argparse.Namespace:
    p = parser(__doc__, "rivals_check")
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="named as in the anchors")
    p.add_argument("--anchors", type=Path, required=True, metavar="JSON", help="independently measured points")
    return p.parse_args()


def main() -> None:
    args = arguments()
    anchors: dict[str, Any] = json.loads(args.anchors.read_text())
    results = run(args, args.clips, ",".join(CODECS), qps=QPS)
    rows, worst = [], {"rate": 0.0, **dict.fromkeys(METRICS, 0.0)}
    for clip in results.clips:
        known = anchors[clip.name]
        if known["frames"] != clip.frames:
            raise SystemExit(f"{clip.name}: the anchors have {known['frames']} frames, here are {clip.frames}")
        for codec in CODECS:
            ours = sorted(results.curve(clip.name, codec), key=lambda p: p.rate_point)
            theirs = sorted(known["codecs"].get(codec.replace(":", "-"), []), key=lambda row: row["q"])
            for p, row in zip(ours, theirs, strict=True):
                rate = 100 * (p.bytes / row["bytes"] - 1)
                off = {m: (p.quality[m] or 0) - row[m] for m in METRICS}
                worst = {k: max(worst[k], abs({"rate": rate, **off}[k])) for k in worst}
                cells = [show(row["bytes"], 0), show(p.bytes, 0), show(rate, 3, sign=True), show(p.file_bytes, 0)]
                cells += [show(row["psnr_yuv"]), show(p.quality["psnr_yuv"]), show(off["psnr_yuv"], 4, sign=True)]
                rows.append([clip.name, codec, str(row["q"]), f"{p.rate_point:g}", *cells])
    head = (
        "clip",
        "codec",
        "anchor's q",
        "rate point",
        "anchor's bytes",
        "bytes",
        "%",
        "bytes of the file",
        "anchor's YUV",
        "YUV",
        "difference dB",
    )
    largest = ", ".join(f"{m.removeprefix('psnr_').upper()} {worst[m]:.4f} dB" for m in METRICS)
    remarks = (
        f"Largest differences over {len(rows)} points: rate {worst['rate']:.3f} %; PSNR {largest}. Bytes are bare "
        "packets, as the anchors count them; the file is the Matroska they lie in. R'G'B' depends on how chroma is "
        "interpolated: here linearly, the anchors' way is not known."
    )
    publish(args, __doc__.partition("\n\n")[0], {"rivals": results}, "\n\n".join([table(head, rows, 2), remarks]))
    if worst["rate"] > LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
