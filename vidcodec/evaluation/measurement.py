"""A measurement fit to be committed: requests to `evaluate`, figures of what is inside, and two files of both.

    results/NAME.json   {"format": "vidcodec-measurement", "version": 1, "about", "provenance",
                         "parts": {name: what `vidcodec evaluate` writes}, "figures": [...], "failures": [...],
                         "summary": what follows from them}
    results/NAME.md     tables and remarks

Points, coded files, sampled frames and figures go to a work folder and stay there, each under the digest of all that it
depends on, the code that made it included: a run that was stopped goes on where it was. No paths of the machine get
into the files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidcodec.evaluation import provenance, tables
from vidcodec.evaluation.clips import FrameChoice
from vidcodec.evaluation.datasets import default_cache
from vidcodec.evaluation.evaluate import Request, evaluate
from vidcodec.evaluation.results import Failure, Point, Results
from vidcodec.evaluation.rivals import parse_codecs
from vidcodec.evaluation.runner import State
from vidcodec.executor.local import cores
from vidcodec.files import write_whole
from vidcodec.version import PACKAGE

FORMAT, VERSION = "vidcodec-measurement", 1
Figure = dict[str, Any]


def parser(doc: str | None, name: str, *, frames: int | None = 20, fps: str = "2") -> argparse.ArgumentParser:
    """A parser with the options that all measurements have; its help is a script's docstring."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--fps", type=frame_rate, default=frame_rate(fps), help=f"frames per second, or source ({fps})")
    p.add_argument("--frames", type=int, default=frames, metavar="N", help="the first N of them (default: %(default)s)")
    p.add_argument("--jobs", type=int, default=cores(), help="at a time (default: one per core)")
    p.add_argument("--weights", type=Path, metavar="FILE", help="of our model, instead of the shipped ones")
    p.add_argument("--name", default=name, help="of the results files (default: %(default)s)")
    p.add_argument("--results", type=Path, metavar="DIR", default=PACKAGE.parent / "results", help="default: results/")
    work = default_cache().parent / "measurements"
    p.add_argument("--work", type=Path, metavar="DIR", default=work, help="keeps what is measured (%(default)s)")
    return p


def frame_rate(text: str) -> Fraction | None:
    """Frames per second, or 'source' for every frame."""
    return None if text == "source" else Fraction(text)


def numbers(text: str) -> list[float]:
    """'30,60' as numbers."""
    return [float(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """'none,full' as words."""
    return [part.strip() for part in text.split(",")]


def spec(family: str, rates: Sequence[float] = (), **options: object) -> str:
    """A codec as `vidcodec evaluate` takes it; options of None are left out."""
    told = [f"{k}={v}" for k, v in options.items() if v is not None]
    told += [f"rates={'/'.join(f'{r:g}' for r in rates)}"] * bool(rates)
    return ":".join([family, ",".join(told)]) if told else family


class Measurement:
    """What a script measures. args: of `parser`. about: for the reader of the files; may span several lines.

    command: the words after the script's name. evaluate, figure: see below; publish: at the end.
    """

    def __init__(self, args: argparse.Namespace, about: str | None, command: Sequence[str] | None = None) -> None:
        self.args = args
        self.about = " ".join((about or "").partition("\n\n")[0].split())
        typed = sys.argv[1:] if command is None else command
        self.script = Path(getattr(sys.modules["__main__"], "__file__", None) or "script")
        self.command = shlex.join(["python", f"scripts/{self.script.name}", *map(without_folders, typed)])
        self.parts: dict[str, Results] = {}
        self.figures: list[Figure] = []
        self.failures: list[str] = []

    def evaluate(self, clips: Iterable[Path | str], codecs: Iterable[str], part: str = "", **changes: Any) -> Results:
        """`vidcodec evaluate` with a script's options; what was measured before is not measured again.

        part: its name in the file. changes: of the `Request`; `exact`, `frames` and `pixels` of its choice of frames.
        """
        a = self.args
        choice = FrameChoice(a.fps, changes.pop("frames", a.frames), changes.pop("pixels", None))
        request = Request(
            clips=[str(clip) for clip in clips],
            codecs=parse_codecs(",".join(codecs)),
            folder=a.work,
            choice=replace(choice, exact=changes.pop("exact", False)),
            jobs=a.jobs,
            command=self.command,
        )
        results = evaluate(replace(request, **changes), tell, lambda name, *_: say(f"frames of {name}"))
        self.parts[part or self.args.name] = results
        self.failures += [
            f"{f.clip}, {f.codec} at {f.rate_point:g}: {without_folders(f.error)}" for f in results.failures
        ]
        return results

    def figure(self, key: Figure, measure: Callable[[], Figure], code: Sequence[str] = ()) -> Figure | None:
        """What `measure` gives, now or in a run before; None where it failed: one must not cost a night's other ones.

        key: names it. code: parts of the package that it depends on; the script counts by itself.
        """
        parts = tuple(part for part in (*code, str(self.script)) if (PACKAGE / part).exists())
        depends = json.dumps([VERSION, key, provenance.code_digest(parts)], sort_keys=True)
        path = self.args.work / "figures" / f"{hashlib.sha256(depends.encode()).hexdigest()[:32]}.json"
        label = ", ".join(f"{k} {v}" for k, v in key.items() if v is not None and not k.endswith("digest"))
        if not path.is_file():
            say(label)
            try:
                found = {**key, **measure(), "measured": {"date": provenance.now(), "commit": provenance.commit()}}
            except Exception as error:
                traceback.print_exc()
                self.failures.append(f"{label}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(found, indent=1) + "\n")
        self.figures.append(json.loads(path.read_text()))
        return self.figures[-1]

    def asset(self, suffix: str) -> Path:
        """Where a figure beside the tables goes: NAME-SUFFIX in the folder of results."""
        self.args.results.mkdir(parents=True, exist_ok=True)
        return Path(self.args.results, f"{self.args.name}-{suffix}")

    def publish(self, *parts: str, summary: Figure | None = None) -> None:
        """Write both files; exit with 1 where something failed. parts: of the Markdown, without a heading."""
        whole = {
            "format": FORMAT,
            "version": VERSION,
            "about": self.about,
            "provenance": asdict(provenance.provenance(self.command)),
            "parts": {name: json.loads(for_others(results).to_json()) for name, results in self.parts.items()},
            "figures": self.figures,
            "failures": self.failures,
            "summary": summary or {},
        }
        path = self.asset("").with_name(self.args.name)
        failed = ["These failed:\n\n" + "\n".join(f"- {f}" for f in self.failures)] if self.failures else []
        points = [p for results in self.parts.values() for p in results.points]
        by = tables.told_by(provenance.provenance(self.command), points)
        body = "\n\n".join([self.about, *(p.strip() for p in parts if p), *failed, by])
        write_whole(path.with_name(f"{path.name}.json"), json.dumps(whole, indent=1) + "\n")
        write_whole(path.with_name(f"{path.name}.md"), body + "\n")
        print(body)
        if self.failures:
            raise SystemExit(1)


def for_others(results: Results) -> Results:
    """Without folders of this machine."""
    return replace(results, codecs=[replace(codec, spec=without_folders(codec.spec)) for codec in results.codecs])


def without_folders(text: str) -> str:
    """A text without the folders of the paths in it; '20/40/60' is no path."""
    return re.sub(r"(?:(?<=[=:,\s])|^)/?(?:[^/,=:\s]+/)+(?=[^/,=:\s]*[A-Za-z])", "", text)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def tell(done: Point | Failure | None, state: State) -> None:
    """A line for every point."""
    if isinstance(done, Point):
        say(f"[{state.done}/{state.total}] {done.clip}, {done.codec} at {done.rate_point:g}: {done.bpp:.4f} bpp")
    elif done is not None:
        say(f"[{state.done}/{state.total}] FAILED {done.clip}, {done.codec} at {done.rate_point:g}: {done.error}")
