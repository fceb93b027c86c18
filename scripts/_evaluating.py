"""What scripts on top of `vidcodec evaluate` share: a resumable run, and results files fit to be committed.

Points, coded files and sampled frames go to a work folder and stay there: a run that was stopped goes on where it
was. results/NAME.json holds the results (the format of `vidcodec evaluate`, or several of them by name),
results/NAME.md tables and remarks, with the command, commit and machine of the run. No paths of the machine get in.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from _measuring import REPOSITORY, show

from vidcodec.cli.evaluate import Tell
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.datasets import default_cache
from vidcodec.evaluation.evaluate import Request, evaluate
from vidcodec.evaluation.results import Comparison, Point, Results
from vidcodec.evaluation.rivals import parse_codecs
from vidcodec.files import write_whole


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the options that all of these scripts have; its help is the script's docstring."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--fps", type=Fraction, default=Fraction(2), help="frames per second (default: 2)")
    p.add_argument("--frames", type=int, default=20, metavar="N", help="the first N of them (default: %(default)s)")
    p.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time (default: one per core)")
    p.add_argument("--weights", type=Path, metavar="FILE", help="of our model, instead of the shipped ones")
    p.add_argument("--results", type=Path, metavar="DIR", default=REPOSITORY / "results", help="default: results/")
    p.add_argument("--name", default=name, help="of the results files (default: %(default)s)")
    work = default_cache().parent / "measurements"
    p.add_argument("--work", type=Path, metavar="DIR", default=work, help="keeps the points (default: %(default)s)")
    return p


def ours(args: argparse.Namespace, name: str, rates: Sequence[float], **options: object) -> str:
    """The spec of our codec under a name of its own, at these qualities."""
    weights = {"weights": args.weights} if args.weights else {}
    words = [f"{k}={v}" for k, v in {**options, **weights, "name": name}.items()]
    return f"vidcodec:{','.join(words)},rates={'/'.join(f'{r:g}' for r in rates)}"


def run(args: argparse.Namespace, clips: Iterable[Path | str], codecs: str, **changes: Any) -> Results:
    """`vidcodec evaluate` with a script's options; points of earlier runs in the same work folder are not redone."""
    command = shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *map(without_folders, sys.argv[1:])])
    request = Request(
        clips=[str(clip) for clip in clips],
        codecs=parse_codecs(codecs),
        folder=args.work,
        choice=FrameChoice(args.fps, args.frames),
        jobs=args.jobs,
        command=command,
    )
    tell = Tell(json=False)
    return evaluate(replace(request, **changes), tell, tell.preparing)


def without_folders(text: str) -> str:
    """A text without the folders of the paths in it; '20/40/60' is no path."""
    return re.sub(r"(?:(?<=[=:,\s])|^)/?(?:[^/,=:\s]+/)+(?=[^/,=:\s]*[A-Za-z])", "", text)


def publish(args: argparse.Namespace, about: str, parts: dict[str, Results], markdown: str) -> None:
    """Write results/NAME.json and .md; exit with 1 where points failed."""
    args.results.mkdir(parents=True, exist_ok=True)
    texts = {name: _for_others(results).to_json() for name, results in parts.items()}
    whole = {name: json.loads(text) for name, text in texts.items()}
    text = next(iter(texts.values())) if len(texts) == 1 else json.dumps(whole, indent=1) + "\n"
    write_whole(args.results / f"{args.name}.json", text)
    failures = [f for results in parts.values() for f in results.failures]
    notes = [f"- {f.clip}, {f.codec} at {f.rate_point:g}: {without_folders(f.error)}" for f in failures]
    failed = ["These points failed:\n\n" + "\n".join(notes)] if notes else []
    body = "\n\n".join([" ".join(about.split()), markdown.strip(), *failed, measured_by(next(iter(parts.values())))])
    write_whole(args.results / f"{args.name}.md", body + "\n")
    print(body)
    if failures:
        raise SystemExit(1)


def _for_others(results: Results) -> Results:
    codecs = [replace(codec, spec=without_folders(codec.spec)) for codec in results.codecs]
    return replace(results, codecs=codecs)


def measured_by(results: Results) -> str:
    """One line on the run, and on the points' own commits where they differ."""
    p = results.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in p.libraries.items())
    commits = sorted({point.measured["commit"] for point in results.points if point.measured} - {p.commit})
    older = f"; points also from {', '.join(commits)}" if commits else ""
    return (
        f"Measured by: `{p.command}`, vidcodec {p.vidcodec}, commit {p.commit or 'unknown'}{older}, {p.date}; {p.cpu}, "
        f"{p.cores} cores; Python {p.python}, {libraries}."
    )


def comparison_rows(comparisons: Iterable[Comparison]) -> tuple[list[str], list[list[str | None]]]:
    """Head and rows: clips by codecs, 'BD-rate % / BD-PSNR dB'."""
    found = {(c.clip, c.codec): c for c in comparisons}
    clips, codecs = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))

    def cell(c: Comparison) -> str | None:
        if c.bd_rate is None and c.bd_psnr is None:
            return None
        rate, gain = (show(v, d, sign=True) or "N/A" for v, d in ((c.bd_rate, 1), (c.bd_psnr, 2)))
        return f"{rate} % / {gain} dB" + (f" ({c.clips[0]})" if c.clip is None else "")

    rows = [[clip or "mean (clips)", *(cell(found[clip, codec]) for codec in codecs)] for clip in clips]
    return ["clip", *map(str, codecs)], rows


def point_rows(points: Iterable[Point]) -> tuple[list[str], list[list[str | None]]]:
    """Head and rows: one point each."""
    head = [
        "clip",
        "codec",
        "rate point",
        "bytes",
        "of it update",
        "bpp",
        "YUV",
        "Y",
        "RGB",
        "MS-SSIM",
        "encode s",
        "decode s",
        "peak MB",
    ]

    def row(p: Point) -> list[str | None]:
        quality = [show(p.quality.get(f"psnr_{k}")) for k in ("yuv", "y", "rgb")]
        memory = max(p.encode_memory or 0, p.decode_memory or 0)
        return [
            p.clip,
            p.codec,
            f"{p.rate_point:g}",
            show(p.bytes, 0),
            show(p.details.get("update_bytes", 0), 0),
            show(p.bpp, 4),
            *quality,
            show(p.quality.get("ms_ssim_y"), 4),
            show(p.encode_seconds, 1),
            show(p.decode_seconds, 1),
            show(memory / 1e6, 0) if memory else None,
        ]

    return head, [row(p) for p in points]
