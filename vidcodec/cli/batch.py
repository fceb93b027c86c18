"""vidcodec batch: one command for each of many files, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidcodec.cli import console
from vidcodec.cli.arguments import add_cluster, check_directory, size_in_bytes, whole
from vidcodec.cli.progress import Progress
from vidcodec.files import plain

EPILOG = """\
examples:
  vidcodec batch clips/ -o coded                                     every video in a folder, into .vdc files
  vidcodec batch 'cam*/*.mkv' -o coded -- --preset fast --quality 40
  vidcodec batch clips/ -o coded -- filter encode --codec svtav1 --fps 2
  vidcodec batch jobs.jsonl -o coded --jobs 4 | jq -c 'select(.status == "failed")'

a line of jobs.jsonl (command: encode, decode, filter encode, filter decode or evaluate; the rest are its options):
  {"input": "a.mp4", "preset": "slow", "target-size": "3MB"}
  {"input": "b.mp4", "output": "small/b.mkv", "command": "filter encode", "codec": "svtav1", "fps": 2}

Outputs that are there are skipped. A job that fails is tried once more and named. What was stopped goes on when the
same command runs again. On stdout a line of JSON for every job; the exit code is 0 when all are done, else 1.
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec batch`."""
    parser = subparsers.add_parser(
        "batch",
        help="run a command for each of many files",
        epilog=EPILOG,
        description="Encode, decode, filter or evaluate many files, several at a time. What follows -- is the command "
        "and its options (default: encode).",
    )
    parser.add_argument("inputs", nargs="+", metavar="IN", help="videos, folders of them, patterns, or JOBS.jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder of the outputs")
    parser.add_argument("--overwrite", "-y", action="store_true", help="do again what is there")
    parser.add_argument(
        "--jobs", type=whole(1, 1024), metavar="N", help="at a time (default: one per core, fewer if memory is short)"
    )
    parser.add_argument(
        "--threads", type=whole(1, 1024), metavar="N", help="of each job (default: the cores, shared among the jobs)"
    )
    parser.add_argument(
        "--memory",
        type=size_in_bytes,
        default=2_000_000_000,
        metavar="SIZE",
        help="that a job may need, for the default of --jobs (default: 2GB, enough for 1920x1080)",
    )
    add_cluster(parser)
    parser.set_defaults(
        run=run, parser=parser, interrupted="finished outputs and steps are kept: run it again to go on"
    )


def run(args: argparse.Namespace) -> int:
    """Run the jobs; 1 when one of them failed."""
    from vidcodec.cli.jobs import Finished, jobs_of, run_jobs
    from vidcodec.executor import open_executor
    from vidcodec.executor.local import shares

    jobs = jobs_of(args.inputs, args.words)
    check_directory(args.output.absolute().parent)
    slots, threads = shares(len(jobs), args.jobs, args.threads, args.memory)
    failed: list[Finished] = []
    ended = 0

    with Progress() as progress, open_executor(slots, threads, args.ray) as executor:

        def finished(job: Finished) -> None:
            nonlocal ended
            ended += 1
            print(json.dumps(plain(asdict(job)), allow_nan=False), flush=True)
            if job.error:
                failed.append(job)

        def tick(share: float, running: dict[str, str]) -> None:
            what = ", ".join(f"{name} {stage}".strip() for name, stage in running.items())
            progress("batch", share, {"text": f"{ended} of {len(jobs)}: {what}"})

        run_jobs(jobs, args.output, executor, finished, tick, overwrite=args.overwrite)
    for job in failed:
        console.warning(f"{', '.join(job.inputs)} failed: {job.error}")
    if failed:
        console.error(f"{len(failed)} of {len(jobs)} jobs failed; run it again to try them once more")
        return 1
    return 0
