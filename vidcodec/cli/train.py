"""vidcodec train: train the base model, and export what was trained.

Imports nothing of video or CompressAI, and safetensors only to export: training runs on a bare GPU machine.
"""

from __future__ import annotations

import argparse
import dataclasses
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vidcodec.cli.arguments import (
    add_general_options,
    add_overwrite,
    add_seed,
    add_threads,
    check_input_folder,
    check_output,
    use_threads,
    whole,
)
from vidcodec.cli.parser import UsageError
from vidcodec.cli.progress import Progress
from vidcodec.errors import OutputError, TrainingError

if TYPE_CHECKING:
    from vidcodec.training.run import RunConfig

EPILOG = """\
examples:
  vidcodec train codec --config run.json               train; the folder 'out' of run.json holds the state
  vidcodec train codec --resume runs/a                 go on after a stop
  vidcodec train codec --resume runs/a --export msp.safetensors
  vidcodec train filter --config filter.json           train the post-filter
  vidcodec train lossless --config lossless.json       train the lossless mode
  vidcodec train importance pictures/                  after a training: which of its parameters to update
  vidcodec train export runs/a -o msp.safetensors      the averaged weights of a run, finished or not
  vidcodec train plot runs/a -o curve.png              its curve, and what more time would bring
  torchrun --nproc-per-node 4 -m vidcodec train codec --config run.json
"""
KEPT = "the run keeps its last saved state: go on with --resume and its folder"


class Trainer(NamedTuple):
    """What `vidcodec train NAME` runs.

    config, train: names in the module, of the configuration's class and of the training. exported: what the digest of
    a run's weights names. mark: an entry that only the configurations of its networks have.
    """

    help: str
    description: str
    module: str
    config: str
    train: str
    exported: str
    mark: str


TRAINERS = {
    "codec": Trainer(
        "train the codec (what is trained if nothing is said)",
        "Train, or go on with a run. Progress goes to stderr and to log.jsonl in the run's folder.",
        "vidcodec.training.codec",
        *("TrainConfig", "train", "decoder weights", "pass_width"),
    ),
    "filter": Trainer(
        "train the post-filter of conventional codecs",
        "Make training pairs with x264, x265 and SVT-AV1 where there are none yet, then train, or go on with a run.",
        "vidcodec.training.filter",
        *("FilterTrainConfig", "train_filter", "filter", "width"),
    ),
    "lossless": Trainer(
        "train the lossless mode",
        "Train the network behind `vidcodec encode --lossless`, or go on with a run.",
        "vidcodec.training.lossless",
        *("LosslessTrainConfig", "train_lossless", "lossless mode", "mixtures"),
    ),
}


def add_parser(subparsers: Any) -> None:
    """The options of `vidcodec train`."""
    parser = subparsers.add_parser(
        "train",
        help="train the base model",
        epilog=EPILOG,
        description="Train the network that every encode starts from, or export a run's weights.",
    )
    parser.set_defaults(parser=parser)
    what = parser.add_subparsers(title="what", metavar="WHAT", dest="what")

    for name, trainer in TRAINERS.items():
        _add_trainer(what, name, trainer)

    importance = what.add_parser(
        "importance",
        help="learn which parameters are worth updating",
        epilog=EPILOG,
        description="Overfit a network to many pictures and learn scores of its parameters, for --update-parameters "
        "learned. They hold for the weights they were learned with: learn them again after a training.",
    )
    importance.add_argument(
        "data", type=Path, metavar="DIR", help="the folder of pictures; for a filter its training pairs will do"
    )
    importance.add_argument(
        "--model",
        default="msp",
        metavar="NAME",
        help="a model as `encode` takes it, filter-small or filter-base (default: %(default)s)",
    )
    importance.add_argument(
        "--weights", type=Path, metavar="FILE", help="the model's weights from this file instead of the shipped ones"
    )
    importance.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="name it NAME-importance.safetensors and leave it in the "
        "folder of the weights, where encoder and decoder look (default: that)",
    )
    importance.add_argument(
        "--contents", type=whole(1, 1_000_000), default=96, metavar="N", help="pictures to learn from (default: 96)"
    )
    add_seed(importance)
    add_threads(importance)
    _add_overwrite(importance)
    importance.set_defaults(run=run_importance, parser=importance, interrupted="nothing was written")

    export = what.add_parser(
        "export",
        help="write the averaged weights of a run",
        epilog=EPILOG,
        description="Write the averaged weights of a training run as a checkpoint for --weights.",
    )
    export.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    export.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.safetensors", help="the file to write"
    )
    _add_overwrite(export)
    export.set_defaults(run=run_export, parser=export, interrupted="nothing was written")

    plot = what.add_parser(
        "plot",
        help="draw the curve of a run",
        epilog=EPILOG,
        description="Draw a run's validations, and extrapolate them by a power law to another day at the same pace.",
    )
    plot.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    plot.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.png", help=".png, .svg or .pdf")
    _add_overwrite(plot)
    plot.set_defaults(run=run_plot, parser=plot, interrupted="nothing was written")


def _add_trainer(what: Any, name: str, trainer: Trainer) -> None:
    """`vidcodec train NAME`."""
    parser = what.add_parser(name, epilog=EPILOG, help=trainer.help, description=trainer.description)
    config = f"{trainer.module}.{trainer.config}"
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"JSON with the fields of {config}")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the run in DIR, with its own configuration unless --config is given",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FILE.safetensors", help="at the end write the averaged weights to it"
    )
    _add_overwrite(parser)
    parser.set_defaults(run=run, trainer=trainer, parser=parser, interrupted=KEPT)


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    add_overwrite(parser, "an existing file")
    add_general_options(parser)


def _check_run(args: argparse.Namespace) -> None:
    """Raise for a run that can neither start nor go on, or whose weights could not be exported."""
    if args.config is None and args.resume is None:
        raise UsageError("give --config FILE to start a run, or --resume DIR to go on with one")
    if args.export:
        check_output(args.export, overwrite=args.overwrite, suffix=".safetensors")
    if args.resume and not (args.resume / "state.pt").is_file():
        raise TrainingError(f"{args.resume} holds no run to resume (no state.pt): start one with --config FILE")


def run(args: argparse.Namespace) -> int:
    """Train or go on, then export if asked to."""
    _check_run(args)
    module = import_module(args.trainer.module)
    kind: type[RunConfig] = getattr(module, args.trainer.config)
    config = kind.from_file(args.config or args.resume / "config.json")
    if args.resume:
        config = dataclasses.replace(config, out=str(args.resume))
    elif Path(config.out, "state.pt").exists():
        raise TrainingError(
            f"{config.out} already holds a run: go on with --resume {config.out}, or give another 'out'"
        )
    state: Path = getattr(module, args.trainer.train)(config, resume=args.resume is not None)
    print(f"trained: {state}")
    if args.export:
        export_run(state.parent, args.export)
    return 0


def run_importance(args: argparse.Namespace) -> int:
    """Learn scores and write them."""
    check_input_folder(args.data)
    from vidcodec.checkpoint import WEIGHTS
    from vidcodec.updates.importance import SUFFIX, save_importance

    output = args.output
    if output is None:
        output = args.weights.with_name(args.weights.stem + SUFFIX) if args.weights else WEIGHTS / (args.model + SUFFIX)
    check_output(output, overwrite=args.overwrite, suffix=".safetensors")
    use_threads(args.threads)
    from vidcodec.training.importance import ImportanceConfig, importance_of

    with Progress(json=False) as progress:
        config = ImportanceConfig(contents=args.contents, seed=args.seed)
        found = importance_of(
            args.model, args.data, config, args.weights, lambda share, figures: progress("learn", share, figures)
        )
    save_importance(found, output, note=f"vidcodec train importance, {args.contents} contents, seed {args.seed}")
    print(f"{output}: {len(found.factors)} rankings of {args.model}, learned from {args.contents} contents")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Export without training."""
    check_output(args.output, overwrite=args.overwrite, suffix=".safetensors")
    export_run(args.folder, args.output)
    return 0


def run_plot(args: argparse.Namespace) -> int:
    """Draw the curve of a run."""
    check_output(args.output, overwrite=args.overwrite)
    if args.output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{args.output}: a plot is a .png, .svg or .pdf file")
    from vidcodec.training.curve import fit_trend, plot_curve, read_curve

    curve = read_curve(args.folder)
    plot_curve(curve, args.output, title=args.folder.name)
    now = float(curve.minutes[-1])
    print(f"{args.output}: {now:.0f} minutes, {curve.samples[-1]:.0f} crops, score {curve.score[-1]:+.4f}")
    if trend := fit_trend(curve):
        saving = trend.saving(now, now + 24 * 60)
        print(f"power law: another 24 hours at this pace would take {saving:.1%} off the R-D cost")
    return 0


def export_run(folder: Path, output: Path) -> None:
    """Write the averaged weights of a run; raises TrainingError when it cannot be read."""
    from vidcodec.training.run import export_weights, load_run

    state = load_run(folder)
    trainer = next((t for t in TRAINERS.values() if t.mark in state["config"]), TRAINERS["codec"])
    digest = export_weights(state, import_module(trainer.module).checkpoint(), output)
    print(f"{output}: step {state['step']}, {trainer.exported} {digest.hex()}")
