"""vidcodec play: a .vdc file on a page in the browser."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from vidcodec.cli import console
from vidcodec.cli.arguments import (
    add_general_options,
    add_model_options,
    add_overwrite,
    check_input,
    check_output,
    use_threads,
    whole,
)
from vidcodec.cli.progress import Progress
from vidcodec.errors import OutputError

EPILOG = """\
examples:
  vidcodec play talk.vdc                               opens a page; Ctrl-C ends it
  vidcodec play talk.vdc --against talk.mp4            with the source under a slider
  vidcodec play talk.vdc --no-browser --port 8000      prints the address only
  vidcodec play talk.vdc --export talk.html            one file with all pictures in it, to give away

The page is served to this machine alone, and asks no other for anything. A frame is decoded when it is shown.
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec play`."""
    parser = subparsers.add_parser(
        "play",
        help="look at a .vdc file in a browser",
        epilog=EPILOG,
        description="Show the frames of a .vdc file on a page: what each one takes, of what kind it is, and how it "
        "compares with the source.",
    )
    parser.add_argument("input", type=Path, metavar="IN.vdc", help="the file to look at")
    parser.add_argument("--against", type=Path, metavar="SOURCE", help="the video it was made from, to compare with")
    parser.add_argument("--export", type=Path, metavar="OUT.html", help="write the page instead, with all pictures")
    parser.add_argument("--port", type=whole(1, 65535), metavar="N", help="where to serve (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    add_overwrite(parser, "OUT.html")
    add_model_options(parser)
    add_general_options(parser)
    parser.set_defaults(run=run, parser=parser, interrupted="nothing was written")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or write the page."""
    check_input(args.input)
    if args.against:
        check_input(args.against)
    if args.export:
        check_output(args.export, overwrite=args.overwrite, source=args.input, suffix=".html")
    use_threads(args.threads)
    from vidcodec.codec.decode import VideoDecoder
    from vidcodec.files import write_whole
    from vidcodec.player.film import Film
    from vidcodec.player.server import export

    with (
        VideoDecoder(args.input, weights=args.weights, device=args.device) as decoder,
        tempfile.TemporaryDirectory(prefix="vidcodec-") as folder,
        Film(args.input, decoder, Path(folder), args.against) as film,
    ):
        if not args.export:
            return _serve(film, args.port or 0, browser=not args.no_browser)
        with Progress() as progress:
            html = export(film, lambda done, total: progress("export", done / total, {"frames": done}))
        write_whole(args.export, html)
        for problem in decoder.problems:
            console.warning(problem)
        print(f"{args.export}: {len(decoder)} frames, {len(html.encode()):,} bytes")
    return 0


def _serve(film: Any, port: int, *, browser: bool) -> int:
    import webbrowser

    from vidcodec.player.server import serve

    try:
        server = serve(film, port)
    except OSError as error:
        raise OutputError(f"port {port} cannot be used ({error.strerror}): choose another one with --port") from error
    with server:
        address = "http://{}:{}/".format(*server.server_address[:2])
        print(address, flush=True)
        console.note("Ctrl-C ends it")
        if browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.note("closed")
    return 0
