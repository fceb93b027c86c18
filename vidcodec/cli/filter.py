"""vidcodec filter: a conventional codec's file with a neural filter's update beside its pictures."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcodec.cli import console
from vidcodec.cli.arguments import (
    NDJSON,
    add_general_options,
    add_overwrite,
    add_sampling,
    add_seed,
    add_threads,
    check_input,
    check_output,
    number,
    sampling_of,
    update_parameters,
    use_threads,
    whole,
)
from vidcodec.cli.parser import UsageError
from vidcodec.cli.progress import Progress
from vidcodec.errors import InputError, OutputError

if TYPE_CHECKING:
    from vidcodec.postfilter.encode import FilterEncodeResult

EPILOG = """\
examples:
  vidcodec filter encode talk.mov -o talk.mp4 --codec x265 --crf 32
  vidcodec filter encode talk.mov -o talk.mkv --codec svtav1 --crf 40 --profile small
  vidcodec filter encode cam.mkv -o cam-2fps.mkv --codec svtav1 --fps 2     two frames a second of a fixed camera
  vidcodec filter encode coded.mp4 --copy --source master.mkv -o out.mp4     the pictures stay bit for bit
  vidcodec filter decode talk.mp4 -o enhanced.mkv                           filtered, lossless
"""


def strategy(text: str) -> str:
    """What `FilterFinetuneConfig` takes, or 'none'; 'full' is another word for all."""
    return text if text == "none" else update_parameters({"full": "all"}.get(text, text))


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec filter encode` and `vidcodec filter decode`."""
    parser = subparsers.add_parser(
        "filter",
        help="post-filter H.264, HEVC or AV1 inside an ordinary file",
        epilog=EPILOG,
        description="Code a video with a conventional codec and put the update of a neural post-filter beside its "
        "pictures. Every player shows the file as it is; `filter decode` shows it filtered.",
    )
    parser.set_defaults(parser=parser)
    what = parser.add_subparsers(title="what", metavar="WHAT", dest="what")
    _add_encode(what)
    _add_decode(what)


def _add_encode(what: Any) -> None:
    parser = what.add_parser(
        "encode",
        help="code a video and adapt the filter to it",
        epilog=EPILOG,
        description="Code IN, adapt the filter to its pictures, and write a file that plays anywhere. Without a "
        "filter, with the base filter and with the adapted one: what serves best, its bytes counted, is what "
        "the file asks for.",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="the video to code; with --copy, a coded file")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="OUT.mp4, OUT.mkv or OUT.ts; beside AV1 and VP9 the update travels in .mkv only",
    )
    add_overwrite(parser)

    add_sampling(parser, "source")
    coding = parser.add_argument_group("coding")
    coding.add_argument(
        "--codec",
        choices=("x264", "x265", "svtav1", "vvenc"),
        default="x265",
        help="vvenc needs an ffmpeg with libvvenc: pip install 'vidcodec[vvc]' (default: %(default)s)",
    )
    rate = coding.add_mutually_exclusive_group()
    rate.add_argument("--crf", type=number(0, 63), metavar="N", help="the codec's constant quality (default: 28)")
    rate.add_argument("--qp", type=whole(0, 63), metavar="N", help="a constant quantiser instead (vvenc: 32)")
    coding.add_argument("--codec-preset", metavar="NAME", help="the codec's own preset (default: medium; svtav1: 8)")
    coding.add_argument(
        "--copy", action="store_true", help="IN is coded already: its pictures stay as they are, bit for bit"
    )
    coding.add_argument(
        "--source", type=Path, metavar="FILE", help="with --copy: what IN was coded from, to learn from"
    )

    work = parser.add_argument_group("adaptation")
    work.add_argument(
        "--strategy",
        "--update-parameters",
        type=strategy,
        default="multipliers",
        metavar="WHAT",
        help="what may change: multipliers (one number per channel), biases, biases+multipliers, last-layer, "
        "low-rank[:RANK], random:N, learned[:N], all (or full: every weight), none (the base filter) "
        "(default: %(default)s)",
    )
    work.add_argument(
        "--objective",
        choices=("rate", "sparsity"),
        default="rate",
        help="rate: the update's bits are priced while it is learned; sparsity: the literature's "
        "sparsity term, then pruning, for comparison (default: %(default)s)",
    )
    work.add_argument("--steps", type=whole(1, 1_000_000), metavar="N", help="of finetuning (default: 150)")
    work.add_argument(
        "--max-time",
        type=number(0, above=True),
        default=math.inf,
        metavar="MIN",
        help="finetune for at most so many minutes",
    )
    work.add_argument(
        "--segment",
        type=number(0),
        default=0.0,
        metavar="SECONDS",
        help="an update of its own at a key frame every so many seconds (default: one for the whole video)",
    )
    add_seed(work)
    _add_filter_options(parser)
    add_general_options(parser, json=NDJSON)
    parser.set_defaults(run=run_encode, parser=parser, interrupted="nothing was written")


def _add_decode(what: Any) -> None:
    parser = what.add_parser(
        "decode",
        help="the filtered video",
        epilog=EPILOG,
        description="Decode IN and filter it as its update says; without an update, with the base filter. Time "
        "stamps stay, audio and subtitles are passed through (not into .y4m).",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="a video in H.264, HEVC, AV1 or VP9")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="OUT.mkv (lossless FFV1), OUT.mp4 (lossy H.264 to hand on) or OUT.y4m",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--qp",
        type=number(0, 51),
        metavar="N",
        help="for a file without an update: the quantiser to tell the base filter, as H.264 counts (default: 32)",
    )
    _add_filter_options(parser)
    add_general_options(parser, json=NDJSON)
    parser.set_defaults(run=run_decode, parser=parser, interrupted="nothing was written")


def _add_filter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        choices=("small", "base"),
        default="base",
        help="the base filter: 3.9 or 19.4 thousand multiplications per pixel; decoding takes the one the "
        "update names (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the base filter from this file (.safetensors) instead"
    )
    add_threads(parser)


def run_encode(args: argparse.Namespace) -> int:
    """Code and adapt; prints a summary."""
    if args.copy and args.source is None:
        raise UsageError("--copy needs --source FILE: what the video was coded from, to learn from")
    if args.source is not None and not args.copy:
        raise UsageError("--source goes with --copy; without it the input itself is the source")
    if args.copy and (args.crf is not None or args.qp is not None or args.codec_preset):
        raise UsageError("--copy leaves the pictures as they are: no --crf, --qp or --codec-preset with it")
    limit = 63 if args.codec in ("svtav1", "vvenc") else 51
    if max(args.crf or 0, args.qp or 0) > limit:
        raise UsageError(f"--crf and --qp of {args.codec} end at {limit}")
    for path in filter(None, (args.input, args.source)):
        check_input(path)
    check_output(args.output, overwrite=args.overwrite, source=args.input)
    if args.source is not None and args.output.exists() and args.output.samefile(args.source):
        raise OutputError(f"{args.output} is the source itself: give the output another name")
    with Progress(json=args.json) as progress:
        progress("load", 0.0)
        use_threads(args.threads)
        from vidcodec.postfilter.encode import FilterEncodeOptions, filter_encode
        from vidcodec.postfilter.finetune import FilterFinetuneConfig
        from vidcodec.postfilter.sparse import SparseConfig

        tuning = (
            None
            if args.strategy == "none"
            else FilterFinetuneConfig(
                strategy=args.strategy,
                folder=args.weights and args.weights.parent,
                sparse=SparseConfig() if args.objective == "sparsity" else None,
                max_seconds=60 * args.max_time,
                seed=args.seed,
                **({"steps": args.steps} if args.steps else {}),
            )
        )
        options = FilterEncodeOptions(
            preset=args.codec_preset,
            copy_of=args.source,
            sampling=sampling_of(args),
            finetune=tuning,
            **{k: getattr(args, k) for k in ("codec", "crf", "qp", "profile", "weights", "segment")},
        )
        result = filter_encode(args.input, args.output, options, progress)
    console.outcome(result, summary, json=args.json)
    return 0


def summary(r: FilterEncodeResult) -> str:
    """What a person wants to know of an encode."""
    names = {"off": "without filter", "base": "base filter", "adapted": "adapted filter", "kept": "as written"}
    rows = [["PSNR (dB)", "Y", "U", "V"]]
    rows += [[names[k], *(f"{v:.3f}" for v in values)] for k, values in r.psnr.items()]
    kept = [f"{s['kept']} ({s['message_bytes']} bytes)" for s in r.segments]
    shown = ", ".join(kept[:4]) + (f" and {len(kept) - 4} more" if len(kept) > 4 else "")
    return "\n".join(
        (
            f"{r.output}: {r.frames} frames of {r.width}x{r.height} in {r.codec}, {r.file_bytes:,} bytes, "
            f"pictures {r.video_bytes:,}, filter {r.message_bytes:,}",
            console.table(rows, right=(1, 2, 3)),
            f"kept: {shown}",
            "seconds: " + ", ".join(f"{stage} {time:.1f}" for stage, time in r.seconds.items()),
        )
    )


def run_decode(args: argparse.Namespace) -> int:
    """Filter; a damaged update is a warning, not a failure."""
    check_input(args.input)
    check_output(args.output, overwrite=args.overwrite, source=args.input)
    if args.output.suffix.lower() not in (".mkv", ".mp4", ".y4m"):
        raise OutputError(f"{args.output}: cannot write {args.output.suffix or 'this'}: use .mkv, .mp4 or .y4m")
    with Progress(json=args.json) as progress:
        progress("load", 0.0)
        use_threads(args.threads)
        from vidcodec.postfilter.decode import FilterDecodeOptions, filter_decode

        result = filter_decode(
            args.input, args.output, FilterDecodeOptions(args.profile, args.weights, args.qp), progress
        )
    console.outcome(
        result,
        lambda r: f"{args.output}: {r.frames} frames, {r.filtered} of them filtered",
        json=args.json,
        warnings=result.warnings,
    )
    if not result.frames:
        raise InputError(f"{args.input}: no picture could be decoded")
    return 0
