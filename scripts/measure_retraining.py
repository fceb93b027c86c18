"""What retraining on really quantised latents gives: base weights before and after it, for each quantiser.

    python scripts/measure_retraining.py CLIP... --before FILE

After Borzechowski et al. 2024 (arXiv 2506.08662); `training/base-decoder.json` is the run. FILE: the weights it began
with; --weights: those it gave (default: the shipped ones). Nothing is adapted or refined. Every point is a real file,
decoded and compared with the source; BD-rates are of the retrained weights against those before, at equal quantiser.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from _measuring import (
    Point,
    Results,
    add_coding_options,
    bd,
    bd_cell,
    code_clip,
    coding_key,
    mean_of,
    methods_of,
    numbers,
    parser,
    sampling,
    show,
    table,
)

from vidcodec.codec.options import EncodeOptions

QUANTIZERS = ("uniform", "rdoq", "trellis")


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    add_coding_options(p)
    p.add_argument("--before", type=Path, required=True, metavar="FILE", help="weights before retraining")
    p.add_argument("--qualities", type=numbers, default=[10.0, 30.0, 50.0, 70.0, 90.0], metavar="Q,Q")
    p.add_argument("--frames", type=int, default=6, metavar="N", help="only the first N frames (default: %(default)s)")
    return p.parse_args()


def main() -> None:
    args = arguments()
    results = Results("retraining", __doc__.partition("\n\n")[0], args)
    rows, figures = [], {q: {} for q in QUANTIZERS}  # type: ignore[var-annotated]
    for clip in args.clips:
        for quantizer in QUANTIZERS:
            curves: dict[str, list[Point]] = {}
            for name, weights in (("before", args.before), ("after", args.weights)):
                for quality in args.qualities:
                    options = EncodeOptions(
                        sampling=sampling(args.fps, args.frames),
                        quality=quality,
                        adapt="none",
                        quantizer=quantizer,
                        refine="none",
                        weights=weights,
                        device="cpu",
                    )
                    key = coding_key(clip, options, args.frames)
                    if p := results.point(key, partial(code_clip, clip, options)):
                        curves.setdefault(name, []).append(p)
                        point = [f"{quality:g}", show(p["bpp"], 4), show(p["psnr_yuv"])]
                        rows.append([clip.name, quantizer, name, *point])
            figures[quantizer][clip.name] = bd(curves.get("before", []), curves.get("after", []))
    cells = [[clip.name, *(bd_cell(figures[q][clip.name]) for q in QUANTIZERS)] for clip in args.clips]
    means = {q: mean_of(f["bd_rate"] for f in figures[q].values()) for q in QUANTIZERS}
    cells.append(["mean of BD-rates", *(f"{show(means[q], 1, sign=True)} %" for q in QUANTIZERS)])
    methods = methods_of(f for by_clip in figures.values() for f in by_clip.values())
    text = f"BD-rate / BD-PSNR of the retrained weights against those before (PSNR-YUV, {methods})."
    head = ["clip", "quantiser", "weights", "quality", "bpp", "YUV"]
    results.finish(
        {"bd": figures, "mean_bd_rate": means},
        "\n\n".join([text, table(["clip", *QUANTIZERS], cells), table(head, rows, 3)]),
    )


if __name__ == "__main__":
    main()
