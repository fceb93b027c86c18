"""What the coarse-to-fine passes are worth: networks that differ in `scales` alone, after the same time of training.

    python scripts/measure_passes.py RUN RUN...

Each RUN is the folder of a `vidcodec train codec` run; train them side by side on one core, so that each gets the same
share of it, with the same data, seed and minutes. 0 scales is the plain hyperprior. Score: mean log2 of the R-D cost
over five rate levels on held-out crops; the saving is against the run with the fewest scales, at the last validation
time that all of them have.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from vidcodec.evaluation.measurement import Figure, Measurement, parser
from vidcodec.evaluation.provenance import digest_of
from vidcodec.evaluation.tables import markdown, show
from vidcodec.training.curve import read_curve


def run_figure(folder: Path) -> Figure:
    config, curve = json.loads((folder / "config.json").read_text()), read_curve(folder)
    found = {name: getattr(curve, name).tolist() for name in ("minutes", "samples", "score", "points")}
    return {
        "scales": config["model"].get("scales", 2),
        "profile": config["profile"],
        "changes": config["model"],
        **found,
    }


def main() -> None:
    p = parser(__doc__, "passes")
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    args = p.parse_args()
    m = Measurement(args, __doc__)
    keys = {folder: {"run": folder.name, "log_digest": digest_of(folder / "log.jsonl")} for folder in args.runs}
    found = [m.figure(key, partial(run_figure, folder), ["training/curve.py"]) for folder, key in keys.items()]
    there = sorted((f for f in found if f), key=lambda f: f["scales"])
    common = min(f["minutes"][-1] for f in there)
    rows = []
    summary: dict[str, Any] = {}
    for f in there:
        k = min(range(len(f["minutes"])), key=lambda i: abs(f["minutes"][i] - common))
        saving = 1 - 2 ** (f["score"][k] - summary.setdefault("reference", f["score"][k]))
        summary[f"scales {f['scales']}"] = {"score": f["score"][k], "saving": saving}
        figures = [show(f["minutes"][k], 1), show(f["samples"][k], 0), show(f["score"][k], 4), show(-100 * saving, 1)]
        levels = [f"{bpp:.3f}/{psnr:.2f}" for bpp, psnr, *_ in f["points"][k]]
        rows.append([str(f["scales"]), str(1 + 3 * f["scales"]), *figures, *levels])
    head = [
        "scales",
        "passes",
        "minutes",
        "crops",
        "score",
        "R-D cost %",
        *(f"level {s}: bpp/dB" for s in (1, 3, 5, 7, 9)),
    ]
    m.publish(markdown(head, rows, 0), "Levels in tenths of the rate range; one run of each.", summary=summary)


if __name__ == "__main__":
    main()
