"""Whether the rivals that `vidcodec evaluate` runs give the rates and qualities that were measured independently.

    python scripts/check_rivals.py CLIP... --anchors rivals_2fps.json

x264, x265 and SVT-AV1, intra and inter where the anchors have them, at the anchors' quantisers. The exit code is 1
when a rate differs by more than one per cent.
"""

from __future__ import annotations

import json
from pathlib import Path

from vidcodec.evaluation.measurement import Measurement, parser
from vidcodec.evaluation.tables import markdown, show

CODECS = ("x264:intra", "x265:intra", "x265:inter", "svtav1:intra", "svtav1:inter")
QPS = [17.0, 22.0, 27.0, 32.0, 37.0, 42.0]
LIMIT = 1.0  # per cent of the rate
METRICS = ("psnr_y", "psnr_u", "psnr_v", "psnr_yuv", "psnr_rgb")
HEAD = ("clip", "codec", "anchor's q", "rate point", "anchor's bytes", "bytes", "%", "bytes of the file")


def main() -> None:
    p = parser(__doc__, "rivals_check")
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="named as in the anchors")
    p.add_argument("--anchors", type=Path, required=True, metavar="JSON", help="independently measured points")
    args = p.parse_args()
    anchors = json.loads(args.anchors.read_text())
    m = Measurement(args, __doc__)
    results = m.evaluate(args.clips, CODECS, qps=QPS)
    rows, worst = [], dict.fromkeys(("rate", *METRICS), 0.0)
    for clip in results.clips:
        known = anchors[clip.name]
        if known["frames"] != clip.frames:
            raise SystemExit(f"{clip.name}: the anchors have {known['frames']} frames, here are {clip.frames}")
        for codec in CODECS:
            ours = sorted(results.curve(clip.name, codec), key=lambda p: p.rate_point)
            theirs = sorted(known["codecs"].get(codec.replace(":", "-"), []), key=lambda row: row["q"])
            for point, row in zip(ours, theirs, strict=True):
                rate = 100 * (point.bytes / row["bytes"] - 1)
                off = {name: (point.quality[name] or 0) - row[name] for name in METRICS}
                worst = {k: max(w, abs({"rate": rate, **off}[k])) for k, w in worst.items()}
                cells = [
                    show(row["bytes"], 0),
                    show(point.bytes, 0),
                    show(rate, 3, sign=True),
                    show(point.file_bytes, 0),
                ]
                cells += [show(row["psnr_yuv"]), show(point.quality["psnr_yuv"]), show(off["psnr_yuv"], 4, sign=True)]
                rows.append([clip.name, codec, f"{row['q']:g}", f"{point.rate_point:g}", *cells])
    largest = ", ".join(f"{name.removeprefix('psnr_').upper()} {worst[name]:.4f} dB" for name in METRICS)
    m.publish(
        markdown([*HEAD, "anchor's YUV", "YUV", "difference dB"], rows, 2),
        f"Largest differences over {len(rows)} points: rate {worst['rate']:.3f} %; PSNR {largest}. Bytes are bare "
        "packets, as the anchors count them; the file is the Matroska they lie in. R'G'B' depends on how chroma is "
        "interpolated: here linearly, the anchors' way is not known.",
        summary={"worst": worst},
    )
    raise SystemExit(int(worst["rate"] > LIMIT))


if __name__ == "__main__":
    main()
