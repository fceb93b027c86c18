"""Lossless coding: bits per pixel of ours, plain and adapted, against PNG, WebP, JPEG XL, FFV1 and x265.

    python scripts/measure_lossless.py CLIP... [--kodak FOLDER]

Kodak's pictures are R'G'B' of 8 bits; clips are 4:2:0 at their own depth. Rates are bytes of whole files (FFV1 and
x265: packets and parameter sets), ours with the model update; every file is decoded again and identical, sample by
sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidcodec.errors import CodecUnavailableError
from vidcodec.evaluation.measurement import Measurement, parser, say, spec
from vidcodec.evaluation.results import Results
from vidcodec.evaluation.rivals import parse_codec
from vidcodec.evaluation.tables import Rows, markdown, mean_of, per_cent, show

RIVALS = ("png", "x265:lossless", "ffv1", "jxl:effort=7", "jxl:effort=9", "webp:lossless")
SELECTIONS = {"ours + biases": "biases", "ours + all parameters": "all", "ours + learned selection": "learned"}
ANCHOR = "jxl:effort=7"


def runnable(codecs: Sequence[str]) -> list[str]:
    """Those that are installed; the others are told."""
    there = []
    for codec in codecs:
        try:
            parse_codec(codec).codec.check()
            there.append(codec)
        except CodecUnavailableError as error:
            say(str(error))
    return there


def rates(results: Results, whole: str = "") -> Rows:
    """Bits per pixel by clip; whole: what all of them together are called, for one row."""
    names, rows = [codec.label for codec in results.codecs], []
    groups = {whole: results.clips} if whole else {clip.name: [clip] for clip in results.clips}
    for name, clips in groups.items():
        pixels = {clip.name: clip.pixels for clip in clips}
        found = {n: [p for p in results.points if p.codec == n and p.clip in pixels] for n in names}
        bits = {n: 8 * sum(p.bytes for p in f) / sum(pixels.values()) for n, f in found.items() if len(f) == len(clips)}
        against = bits.get(parse_codec(ANCHOR).label)
        rows.append([name, *(f"{show(bits.get(n), 3)} ({per_cent(bits.get(n), against)})" for n in names)])
    return ["", *names], rows


def times(results: Results) -> list[list[str]]:
    """Mean seconds of coding and decoding, and the bytes of updates."""
    rows = []
    for codec in results.codecs:
        points = [p for p in results.points if p.codec == codec.label]
        update = mean_of(p.details.get("update_bytes") for p in points)
        seconds = [show(mean_of(getattr(p, f"{step}_seconds") for p in points), 1) for step in ("encode", "decode")]
        rows.append([codec.label, *seconds, show(update, 0)])
    return rows


def main() -> None:
    p = parser(__doc__, "lossless")
    p.add_argument("clips", nargs="*", metavar="CLIP", help="videos")
    p.add_argument("--kodak", type=Path, metavar="FOLDER", help="its PNGs")
    p.add_argument("--max-time", type=float, default=2, metavar="MIN", help="of every adaptation (default: 2)")
    args = p.parse_args()
    ours = {"lossless": 1, "weights": args.weights}
    plain = spec("vidcodec", name="ours", adapt="none", **ours)
    adapted = [
        spec("vidcodec", name=name, update_parameters=selection, max_minutes=args.max_time, **ours)
        for name, selection in SELECTIONS.items()
    ]
    m, parts, rivals = Measurement(args, __doc__), [], runnable(RIVALS)
    for name, clips, codecs in (
        ("Kodak", args.kodak and [args.kodak], [plain]),
        ("clips", args.clips, [plain, *adapted]),
    ):
        if clips:
            results = m.evaluate(clips, [*codecs, *rivals], name, exact=True)
            table = [markdown(*rates(results, f"Kodak, {len(results.clips)} pictures"))] if name == "Kodak" else []
            table += [markdown(*rates(results)), markdown(["", "encode s", "decode s", "update"], times(results))]
            parts.append("\n\n".join([f"## {name}", *table]))
    about = f"Bits per pixel, in brackets bytes against {ANCHOR}; times are means of one thread each, models loaded."
    m.publish(about, *parts)


if __name__ == "__main__":
    main()
