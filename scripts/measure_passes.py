"""What the coarse-to-fine passes are worth: networks that differ in `scales` alone, after the same time of training.

    python scripts/measure_passes.py RUN RUN...

Each RUN is the folder of a `vidcodec train codec` run; train them side by side on one core, so that each gets the same
share of it, with the same data, seed and minutes. 0 scales is the plain hyperprior. Score: mean log2 of the R-D cost
over five rate levels on held-out crops; the saving is against the run with the fewest scales, at the last validation
time that all of them have.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from _measuring import Point, Results, digest_of, parser, show, table

from vidcodec.training.curve import read_curve


def arguments() -> argparse.Namespace:
    p = parser(__doc__)
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    return p.parse_args()


def run_point(folder: Path) -> Point:
    config, curve = json.loads((folder / "config.json").read_text()), read_curve(folder)
    return {
        "scales": config["model"].get("scales", 2),
        "profile": config["profile"],
        "changes": config["model"],
        "minutes": curve.minutes.tolist(),
        "samples": curve.samples.tolist(),
        "score": curve.score.tolist(),
        "points": curve.points.tolist(),
    }


def main() -> None:
    args = arguments()
    results = Results("passes", (__doc__ or "").partition("\n\n")[0], args)
    digest = {folder: digest_of(folder / "log.jsonl") for folder in args.runs}
    points = [results.point({"run_folder": f.name, "log_digest": digest[f]}, partial(run_point, f)) for f in args.runs]
    there = sorted((p for p in points if p), key=lambda p: p["scales"])
    common = min(p["minutes"][-1] for p in there)
    rows, summary = [], {}
    for p in there:
        k = min(range(len(p["minutes"])), key=lambda i: abs(p["minutes"][i] - common))
        saving = 1 - 2 ** (p["score"][k] - summary.setdefault("reference", p["score"][k]))
        summary[f"scales {p['scales']}"] = {"score": p["score"][k], "saving": saving}
        levels = ["/".join(f"{v:.{d}f}" for v, d in zip(point[:2], (3, 2), strict=True)) for point in p["points"][k]]
        rows.append(
            [
                str(p["scales"]),
                str(1 + 3 * p["scales"]),
                show(p["minutes"][k], 1),
                f"{p['samples'][k]:.0f}",
                show(p["score"][k], 4),
                show(-100 * saving, 1),
                *levels,
            ]
        )
    levels = [f"level {s}: bpp/dB" for s in (1, 3, 5, 7, 9)]
    head = ["scales", "passes", "minutes", "crops", "score", "R-D cost %", *levels]
    results.finish(summary, table(head, rows, 0) + "\n\nLevels in tenths of the rate range; one run of each.")


if __name__ == "__main__":
    main()
