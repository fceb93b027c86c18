"""vidcodec train: train the base model, and export what was trained.

Imports nothing of video or CompressAI, and safetensors only to export: training runs on a bare GPU machine.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from vidcodec.cli.arguments import add_general_options, check_output
from vidcodec.cli.parser import UsageError
from vidcodec.errors import TrainingError

EPILOG = """\
examples:
  vidcodec train codec --config run.json               train; the folder 'out' of run.json holds the state
  vidcodec train codec --resume runs/a                 go on after a stop
  vidcodec train codec --resume runs/a --export msp.safetensors
  vidcodec train export runs/a -o msp.safetensors      the averaged weights of a run, finished or not
"""


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec train`."""
    parser = subparsers.add_parser(
        "train", help="train the base model", epilog=EPILOG,
        description="Train the network that every encode starts from, or export a run's weights.",
    )  # fmt: skip
    parser.set_defaults(parser=parser)
    what = parser.add_subparsers(title="what", metavar="WHAT", dest="what")

    codec = what.add_parser(
        "codec", help="train the codec (what is trained if nothing is said)", epilog=EPILOG,
        description="Train, or go on with a run. Progress goes to stderr and to log.jsonl in the run's folder.",
    )  # fmt: skip
    codec.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON with the fields of vidcodec.training.codec.TrainConfig"
    )
    codec.add_argument(
        "--resume", type=Path, metavar="DIR",
        help="go on with the run in DIR, with its own configuration unless --config is given",
    )  # fmt: skip
    codec.add_argument(
        "--export", type=Path, metavar="FILE.safetensors", help="at the end write the averaged weights to it"
    )
    _add_overwrite(codec)
    codec.set_defaults(
        run=run, parser=codec, interrupted="the run keeps its last saved state: go on with --resume and its folder"
    )

    export = what.add_parser(
        "export", help="write the averaged weights of a run", epilog=EPILOG,
        description="Write the averaged weights of a training run as a checkpoint for --weights.",
    )  # fmt: skip
    export.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    export.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.safetensors", help="the file to write"
    )
    _add_overwrite(export)
    export.set_defaults(run=run_export, parser=export, interrupted="nothing was written")


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", "-y", action="store_true", help="replace an existing .safetensors file")
    add_general_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train or go on."""
    if args.config is None and args.resume is None:
        raise UsageError("give --config FILE to start a run, or --resume DIR to go on with one")
    if args.export:
        check_output(args.export, overwrite=args.overwrite, suffix=".safetensors")
    if args.resume and not (args.resume / "state.pt").is_file():
        raise TrainingError(f"{args.resume} holds no run to resume (no state.pt): start one with --config FILE")
    from vidcodec.training.codec import TrainConfig, train

    config = TrainConfig.from_file(args.config or args.resume / "config.json")
    if args.resume:
        config = dataclasses.replace(config, out=str(args.resume))
    state = train(config, resume=args.resume is not None)
    print(f"trained: {state}")
    if args.export:
        export_run(state.parent, args.export)
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Export without training."""
    check_output(args.output, overwrite=args.overwrite, suffix=".safetensors")
    export_run(args.folder, args.output)
    return 0


def export_run(folder: Path, output: Path) -> None:
    """Write the averaged weights of a run; raises TrainingError when it cannot be read."""
    path = folder / "state.pt"
    if not path.is_file():
        raise TrainingError(f"{folder} holds no training run (no state.pt): give the folder 'out' of its configuration")
    import torch

    from vidcodec.models.checkpoint import save_model
    from vidcodec.models.msp import Msp, MspConfig
    from vidcodec.training.codec import load_state

    state = load_state(path, torch.device("cpu"))
    try:
        model = Msp(MspConfig.from_dict(state["config"]))
        model.load_state_dict(state["average"])
        step = int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path} cannot be read as the state of a training run: {reason}") from error
    digest = save_model(model, output, note=f"step {step}")
    print(f"{output}: step {step}, decoder weights {digest.hex()}")
