"""What retraining on really quantised latents gives: base weights before and after it, for each quantiser.

    python scripts/measure_retraining.py CLIP... --before FILE

After Borzechowski et al. 2024 (arXiv 2506.08662); `training/base-decoder.json` is the run. FILE: the weights it began
with; --weights: those it gave (default: the shipped ones). Nothing is adapted or refined.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidcodec.evaluation import bdrate
from vidcodec.evaluation.measurement import Measurement, numbers, parser, spec
from vidcodec.evaluation.tables import comparison_rows, markdown, point_rows

QUANTIZERS = ("uniform", "rdoq", "trellis")


def main() -> None:
    p = parser(__doc__, "retraining", frames=6)
    p.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    p.add_argument("--before", type=Path, required=True, metavar="FILE", help="weights before retraining")
    p.add_argument("--qualities", type=numbers, default=[10, 30, 50, 70, 90], metavar="Q,Q")
    args = p.parse_args()
    plain = {"adapt": "none", "refine": "none"}
    codecs = [
        spec("vidcodec", args.qualities, name=f"{quantizer} {when}", quantizer=quantizer, weights=weights, **plain)
        for quantizer in QUANTIZERS
        for when, weights in (("before", args.before), ("after", args.weights))
    ]
    m = Measurement(args, __doc__)
    results = m.evaluate(args.clips, codecs)
    against = [
        replace(c, codec=quantizer)
        for quantizer in QUANTIZERS
        for c in bdrate.compare(results.points, f"{quantizer} before")
        if c.codec == f"{quantizer} after"
    ]
    m.publish(
        "BD-rate (BD-PSNR) of the retrained weights against those before, at equal quantiser (PSNR-YUV, Akima):",
        markdown(*comparison_rows(against)),
        markdown(*point_rows(results.points), left=2),
        summary={"mean_bd_rate": {c.codec: c.bd_rate for c in against if c.clip is None}},
    )


if __name__ == "__main__":
    main()
