"""Write the README's tables, and the plot beside them, from committed results.

    python scripts/readme_tables.py [--check]

A table stands between `<!-- table NAME -->` and `<!-- end -->`. --check writes nothing and exits with 1 where the
README says something else than the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from vidcodec.evaluation.plots import lines
from vidcodec.evaluation.tables import markdown

REPOSITORY = Path(__file__).resolve().parent.parent
README, RESULTS = REPOSITORY / "README.md", REPOSITORY / "results"
RIVALS = {"x265-intra": "x265 `veryslow`", "x264-intra": "x264 `veryslow`", "svtav1-intra": "SVT-AV1 preset 3"}


def clip_name(file: str) -> str:
    """'openh264_flower_720p.mkv' is 'flower 720p' to a reader."""
    stem = re.sub(r"_(intra|qp|pristine|\d+k|\d+f)\w*$", "", Path(file).stem.replace("openh264_", ""))
    return stem.replace("_", " ")


def percent(value: float | None) -> str:
    return "N/A" if value is None else f"{value:+.0f} %"


def rd_table() -> str:
    """BD-rates of the unadapted base model, clip by clip, and their mean; the way to decide symbols in brackets."""
    ways = json.loads((RESULTS / "rd.json").read_text())["summary"]["clips"]
    columns = [("x265-intra", way) for way in ways]
    columns += [(rival, "trellis") for rival in RIVALS if rival != "x265-intra"]
    clips = list(next(iter(ways.values())))
    rates = {clip: [ways[way][clip].get(rival, {}).get("bd_rate") for rival, way in columns] for clip in clips}
    there = [[r for r in column if r is not None] for column in zip(*rates.values(), strict=True)]
    rows = [[clip_name(clip), *map(percent, values)] for clip, values in rates.items()]
    rows.append(["mean", *(percent(sum(c) / len(c)) if c else "N/A" for c in there)])
    return markdown(["clip", *(f"{RIVALS[rival]} ({way})" for rival, way in columns)], rows)


TABLES: dict[str, Callable[[], str]] = {"rd": rd_table}


def filled(text: str) -> str:
    """The text with every table as the results have it; KeyError for a table nobody knows."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw(output: Path) -> None:
    """R-D curves of the base model on the clips (PSNR-YUV over bits per pixel); nothing where the results have none."""
    curves = json.loads((RESULTS / "rd.json").read_text())["summary"].get("curves", {}).get("trellis", {})
    shown = {clip_name(clip): curve for clip, curve in curves.items()}
    if shown:
        lines(shown, output, "bits per pixel", "PSNR-YUV (dB) of the base model, not adapted, trellis", log="x")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing; 1 where README and results differ")
    args = p.parse_args()
    text = README.read_text()
    if args.check:
        return int(filled(text) != text)
    README.write_text(filled(text))
    draw(RESULTS / "rd")
    return 0


if __name__ == "__main__":
    sys.exit(main())
