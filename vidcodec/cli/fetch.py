"""vidcodec fetch: download test sequences into the cache."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vidcodec.cli import console
from vidcodec.cli.arguments import NDJSON, Fail, add_general_options
from vidcodec.cli.progress import Progress
from vidcodec.errors import FetchError, UnreachableError

if TYPE_CHECKING:
    from typing import Any

    from vidcodec.evaluation.datasets import Entry
    from vidcodec.evaluation.fetching import Fetched

EPILOG = """\
examples:
  vidcodec fetch --list                                every set
  vidcodec fetch --list xiph-cif                       the sequences of a set, and which are here
  vidcodec fetch kodak xiph-cif/akiyo xiph-cif/foreman
  vidcodec fetch xiph-1080p --cache /big/disk          the same --cache then goes to evaluate

A download that was stopped goes on where it was. Every file is checked against the checksum in the manifest, or the
one of its first download. Without a network, put the files into the cache by hand: --list SET --json shows addresses
and places.
"""
SET_FACTS = ("name", "title", "page", "terms")
SEQUENCE_FACTS = ("width", "height", "rate", "frames", "sha256", "address", "terms")


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec fetch`."""
    parser = subparsers.add_parser(
        "fetch",
        help="download test sequences",
        epilog=EPILOG,
        description="Download test sequences into a cache, whole sets or one by one. What is there already is only "
        "checked.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a set like kodak or xiph-cif, or one sequence like xiph-cif/akiyo"
    )
    parser.add_argument("--list", action="store_true", help="only show the sets, or the sequences of NAME")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where the files go (default: $VIDCODEC_CACHE, or vidcodec/datasets in the user's cache folder)",
    )
    parser.add_argument("--mirror", type=http_address, metavar="URL", help="take the files from below this address")
    parser.add_argument("--force", action="store_true", help="download again what is there already")
    add_general_options(parser, json=NDJSON)
    parser.set_defaults(run=run, parser=parser, interrupted="what has come so far is kept: run it again to go on")


def http_address(text: str) -> str:
    """'https://host/path' or 'http://host/path'."""
    if not re.fullmatch(r"https?://[^\s/]+[^\s?#]*", text):
        raise Fail(f"{text!r} is no address: give one like https://example.org/y4m")
    return text


def run(args: argparse.Namespace) -> int:
    """Fetch or list; 3 when a sequence could not be had."""
    from vidcodec.evaluation.datasets import default_cache, find

    cache = args.cache or default_cache()
    if not args.names:
        if not args.list:
            args.parser.error("name what to fetch: a set like kodak, or vidcodec fetch --list")
        return _list_sets(cache, json=args.json)
    entries = list(dict.fromkeys(entry for name in args.names for entry in find(name)))
    return _list_entries(entries, cache, json=args.json) if args.list else _fetch(entries, cache, args)


def _fetch(entries: list[Entry], cache: Path, args: argparse.Namespace) -> int:
    """Fetch all; a sequence that cannot be had is told and left out, a server that is silent ends it."""
    from vidcodec.evaluation.fetching import FetchOptions, fetch

    options = FetchOptions(mirror=args.mirror, force=args.force)
    done: list[Fetched] = []
    failed: dict[str, str] = {}
    with Progress(json=args.json) as progress:
        for entry in entries:

            def show(size: int, total: int | None, stage: str = entry.id) -> None:
                progress(stage, size / total if total else 0.0, {"bytes": size})

            try:
                done.append(fetch(entry, cache, options, show))
            except FetchError as error:
                if len(entries) == 1 or isinstance(error, UnreachableError):
                    raise
                progress.close()
                console.warning(str(error))
                failed[entry.id] = str(error)
    _tell(done, failed, cache, json=args.json)
    if failed:
        console.error(f"{len(failed)} of {len(entries)} sequences could not be fetched: {', '.join(failed)}")
    return FetchError.exit_code if failed else 0


def _tell(done: list[Fetched], failed: dict[str, str], cache: Path, *, json: bool) -> None:
    if json:
        files = [
            {"name": f.entry.id, "path": str(f.path), "bytes": f.bytes, "sha256": f.sha256, "downloaded": f.downloaded}
            for f in done
        ]
        console.event("result", cache=str(cache), files=files, failed=failed)
    elif done:
        rows = [
            (f.entry.id, f"{f.bytes / 1e6:,.1f} MB", "downloaded" if f.downloaded else "was here", str(f.path))
            for f in done
        ]
        print(console.table(rows, right=(1,)))


def _list_sets(cache: Path, *, json: bool) -> int:
    from vidcodec.evaluation.datasets import known_datasets

    sets = known_datasets().values()
    here = {s.name: sum(entry.path(cache).is_file() for entry in s.entries) for s in sets}
    if json:
        facts = [
            {**{k: getattr(s, k) for k in SET_FACTS}, "sequences": len(s.entries), "here": here[s.name]} for s in sets
        ]
        console.event("result", cache=str(cache), sets=facts)
    else:
        print(console.table([(s.name, f"{here[s.name]} of {len(s.entries)} here", s.title, s.page) for s in sets]))
        print(f"cache: {cache}")
    return 0


def _list_entries(entries: list[Entry], cache: Path, *, json: bool) -> int:
    if json:
        facts = []
        for e in entries:
            place = {"path": str(e.path(cache)), "here": e.path(cache).is_file()}
            facts.append({"name": e.id, **{k: getattr(e, k) for k in SEQUENCE_FACTS}, **place})
        console.event("result", cache=str(cache), sequences=facts)
        return 0
    terms = list(dict.fromkeys(e.terms for e in entries))
    rows = [("sequence", "size", "frames/s", "frames", "here", "terms")]
    for e in entries:
        size = f"{e.width}x{e.height}" if e.width and e.height else ""
        rate = f"{float(e.rate):.5g}" if e.rate else ""
        here = "yes" if e.path(cache).is_file() else ""
        rows.append((e.id, size, rate, str(e.frames or ""), here, f"[{terms.index(e.terms) + 1}]"))
    print(console.table(rows, right=(2, 3)))
    for number, text in enumerate(terms, 1):
        print(f"[{number}] {text}")
    return 0
