"""The base model without adaptation against other codecs: R-D points, BD-rate per clip, Kodak, stills.

    python scripts/measure_rd.py CLIP... --anchors rivals_2fps.json --kodak DIR --kodak-anchors DIR --stills DIR

The weights as they ship, nothing adapted; three ways to decide the symbols: plain rounding, a trellis (what the preset
'fast' does), and, slow, a trellis with latents refined by greedy search. Clips: as many frames as the anchors have of
them. Pictures: R'G'B' PSNR against the picture itself, so the conversion to 4:2:0 counts against the codec; averages
over the pictures, as CompressAI's figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec, words
from vidcodec.evaluation.results import Results
from vidcodec.evaluation.tables import markdown, mean_of, point_rows, show

RIVALS = ("x265-intra", "x264-intra", "svtav1-intra", "vvenc-intra", "x265-inter", "svtav1-inter")
KODAK_PICTURES = 24
WAYS = {
    "plain": {"quantizer": "uniform", "refine": "none"},
    "trellis": {"quantizer": "trellis", "refine": "none"},
    "trellis+lof": {"quantizer": "trellis", "refine": "lof"},
}
Bds = dict[str, dict[str, dict[str, dict[str, float | None]]]]  # by way, clip and rival


def clips_part(m: Measurement, ours: list[str]) -> tuple[dict[str, Any], str]:
    """BD-rates of every way against every rival, by clip, and tables."""
    a = m.args
    anchors = json.loads(a.anchors.read_text()) if a.anchors else {}
    known = {name for entry in anchors.values() for name in entry["codecs"]}
    rivals = [r for r in RIVALS if r in known]
    groups: dict[int | None, list[Path]] = {}
    for clip in a.clips:
        groups.setdefault(anchors.get(clip.stem, {}).get("frames", a.frames), []).append(clip)
    parts = [
        m.evaluate(clips, [*ours, *(f"points:{a.anchors}#{r}" for r in rivals)], f"clips of {frames}", frames=frames)
        for frames, clips in groups.items()
    ]
    bds: Bds = {way: {} for way in a.ways}
    curves: dict[str, dict[str, list[list[float | None]]]] = {way: {} for way in a.ways}
    for results in parts:
        for clip in results.clips:
            for way in a.ways:
                points = results.curve(clip.name, way)
                curves[way][clip.name] = [[p.bpp, p.quality["psnr_yuv"]] for p in points]
                bds[way][clip.name] = {r: {"bd_rate": None, "bd_psnr": None} for r in rivals}
        for r in rivals:
            for c in bdrate.compare(results.points, f"points:{r}"):
                if c.codec in bds and c.clip:
                    bds[c.codec][c.clip][r] = {"bd_rate": c.bd_rate, "bd_psnr": c.bd_psnr}
    means = {w: {r: mean_of(f[r]["bd_rate"] for f in bds[w].values()) for r in rivals} for w in a.ways}
    texts = []
    for way in a.ways:
        rows = [[c, *(show(f[r]["bd_rate"], 1, sign=True) for r in rivals)] for c, f in bds[way].items()]
        rows.append(["mean of those there", *(show(means[way][r], 1, sign=True) for r in rivals)])
        texts.append(f"Symbols decided: {way}.\n\n{markdown(['clip', *rivals], rows)}")
    about = "BD-rate in per cent on the same frames (PSNR-YUV, Akima; below zero: fewer bits than the codec named)."
    every = markdown(*point_rows(p for r in parts for p in r.points if p.codec in a.ways), left=2)
    return {"clips": bds, "mean_bd_rate": means, "curves": curves}, "\n\n".join([about, *texts, every])


def mean_points(results: Results, way: str) -> list[dict[str, float]]:
    """Means over the pictures, by quality."""
    out = []
    for rate in sorted({p.rate_point for p in results.points if p.codec == way}):
        points = [p for p in results.points if (p.codec, p.rate_point) == (way, rate)]
        if len(points) == len(results.clips):
            quality = {
                k: float(np.mean([p.quality[k] or 0 for p in points])) for k in ("psnr_rgb", "psnr_yuv", "psnr_y")
            }
            out.append({"quality": rate, "bpp": float(np.mean([p.bpp for p in points])), **quality})
    return out


def pictures_part(m: Measurement, ours: list[str], folder: Path, what: str) -> tuple[dict[str, Any], str]:
    """Mean points, BD figures against CompressAI's published ones and plain rounding, and tables."""
    results = m.evaluate([folder], ours, what.lower(), exact=True)
    means = {way: mean_points(results, way) for way in m.args.ways}
    curves = {way: [(p["bpp"], p["psnr_rgb"]) for p in points] for way, points in means.items()}
    others = {f"ours, {m.args.ways[0]}": curves[m.args.ways[0]]}
    # The published points are means over all of Kodak: a part of it does not compare.
    if what == "Kodak" and m.args.kodak_anchors and len(results.clips) == KODAK_PICTURES:
        for path in sorted(m.args.kodak_anchors.glob("*.json")):
            data = json.loads(path.read_text())
            others[data["name"]] = list(zip(data["results"]["bpp"], data["results"]["psnr-rgb"], strict=True))
    bds = {way: {name: bdrate.bd(pairs, curves[way]) for name, pairs in others.items()} for way in curves}
    rows = [[way, *(show(p[k], 4 if k == "bpp" else 2) for k in p)] for way, points in means.items() for p in points]
    rates = [
        [w, n, show(b.rate, 1, sign=True), show(b.psnr, 2, sign=True)] for w, f in bds.items() for n, b in f.items()
    ]
    text = [
        f"{what}, {len(results.clips)} pictures, each coded by itself with all its bytes; means over them.",
        markdown(["way", "quality", "bpp", "PSNR RGB", "YUV", "Y"], rows),
        "BD figures (R'G'B' PSNR, Akima); below zero per cent: fewer bits than the codec named.",
        markdown(["way", "codec", "BD-rate %", "BD-PSNR dB"], rates, 2),
    ]
    found = {way: {name: {"bd_rate": b.rate, "bd_psnr": b.psnr} for name, b in f.items()} for way, f in bds.items()}
    return {what.lower(): means, f"{what.lower()}_bd": found}, "\n\n".join(text)


def main() -> None:
    p = parser(__doc__, "rd", frames=None)
    p.add_argument("clips", type=Path, nargs="*", metavar="CLIP", help="named as in the anchors")
    p.add_argument("--qualities", type=numbers, default=[5, 20, 40, 60, 80, 95], metavar="Q,Q")
    p.add_argument("--ways", type=words, default=["plain", "trellis"], help=f"of {', '.join(WAYS)}: plain,trellis")
    p.add_argument("--anchors", type=Path, metavar="JSON", help="measured points of other codecs on the clips")
    p.add_argument("--kodak", type=Path, metavar="DIR", help="the Kodak pictures, PNG")
    p.add_argument("--stills", type=Path, metavar="DIR", help="more pictures")
    p.add_argument("--kodak-anchors", type=Path, metavar="DIR", help="CompressAI's published points, JSON files")
    args = p.parse_args()
    if unknown := set(args.ways) - set(WAYS):
        p.error(f"not a way: {', '.join(unknown)}; known: {', '.join(WAYS)}")
    m = Measurement(args, __doc__)
    usual = {"adapt": "none", "weights": args.weights}
    ours = [spec("vidcodec", args.qualities, name=way, **usual, **WAYS[way]) for way in args.ways]
    parts = [clips_part(m, ours)] if args.clips else []
    parts += [
        pictures_part(m, ours, folder, what)
        for folder, what in ((args.kodak, "Kodak"), (args.stills, "Stills"))
        if folder
    ]
    m.publish(*(text for _, text in parts), summary={k: v for found, _ in parts for k, v in found.items()})


if __name__ == "__main__":
    main()
