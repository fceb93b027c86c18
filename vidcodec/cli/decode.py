"""vidcodec decode: a .vdc file to a video file or a folder of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidcodec.cli import console
from vidcodec.cli.arguments import (
    NDJSON,
    add_general_options,
    add_model_options,
    add_overwrite,
    check_directory,
    check_input,
    check_output,
    frame_range,
    use_threads,
)
from vidcodec.cli.progress import Progress
from vidcodec.errors import BitstreamError, OutputError

EPILOG = """\
examples:
  vidcodec decode talk.vdc -o talk.mkv                 every sample and time stamp, as FFV1
  vidcodec decode talk.vdc -o talk.mp4                 H.264 that plays anywhere, slightly lossy
  vidcodec decode talk.vdc -o stills --frames 10:20    PNG pictures of frames 10 to 19

A damaged file gives every frame that is intact; the exit code is 4 when one that was asked for is missing.
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec decode`."""
    parser = subparsers.add_parser(
        "decode",
        help="turn a .vdc file into a video or pictures",
        epilog=EPILOG,
        description="Decode a .vdc file. Frames keep their own time stamps where the output can say them.",
    )
    parser.add_argument("input", type=Path, metavar="IN.vdc", help="the file to decode")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="OUT.y4m (raw), OUT.mkv (lossless FFV1), OUT.mp4 (lossy H.264), or a directory for PNG files",
    )
    add_overwrite(parser, "OUT, or the PNG frames in it")
    parser.add_argument(
        "--frames",
        type=frame_range,
        default=(0, None),
        metavar="A:B",
        help="only frames A up to, not including B; A:, :B and A work too; they count from 0 (default: all)",
    )
    parser.add_argument(
        "--audio",
        choices=("copy", "none"),
        default="copy",
        help="put what audio and subtitles IN.vdc carries into .mkv, or leave them out (default: %(default)s)",
    )
    add_model_options(parser)
    add_general_options(parser, json=NDJSON)
    parser.set_defaults(run=run, parser=parser, interrupted="nothing was written")


def run(args: argparse.Namespace) -> int:
    """Decode; 4 when a frame of the range is missing."""
    check_input(args.input)
    _check_target(args.output, args.input, args.overwrite)
    use_threads(args.threads)
    from vidcodec.codec.decode import decode_video

    start, stop = args.frames
    with Progress(json=args.json) as progress:
        result = decode_video(
            args.input,
            args.output,
            start=start,
            stop=stop,
            overwrite=args.overwrite,
            weights=args.weights,
            device=args.device,
            audio=args.audio == "copy",
            progress=lambda done, total: progress("decode", done / total, {"frames": done}),
        )
    done, expected, notes, problems = result.frames, result.expected, result.notes, result.problems
    for note in notes:
        console.note(note)
    for problem in problems:
        console.warning(problem)
    if args.json:
        console.event(
            "result",
            output=str(args.output),
            frames=done,
            expected=expected,
            complete=done == expected,
            problems=problems,
            notes=notes,
        )
    else:
        print(f"{args.output}: {done} of {expected} frames")
    if done == expected:
        return 0
    console.warning(f"{done} of {expected} frames decoded")
    return BitstreamError.exit_code


def _check_target(output: Path, source: Path, overwrite: bool) -> None:
    """Raise OutputError, before anything is decoded, for a target that cannot be written."""
    if output.is_dir() or not (output.suffix or output.exists()):
        check_directory(output if output.is_dir() else output.parent)
        if not overwrite and output.is_dir() and any(output.iterdir()):
            raise OutputError(f"{output} is not empty: give --overwrite to put PNG files there, or another directory")
        return
    check_output(output, overwrite=overwrite, source=source)
    if output.suffix.lower() not in (".y4m", ".mkv", ".mp4"):
        kind = output.suffix or "this"
        raise OutputError(f"{output}: cannot write {kind}: use .y4m, .mkv, .mp4, or a directory for PNG")
