"""argparse with one-line errors and a guess at what was meant."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

DESCRIPTION = "A learned video codec that adapts itself to each video."
EPILOG = """\
examples:
  vidcodec encode talk.mp4 -o talk.vdc                 2 frames a second, adapted to this video
  vidcodec encode talk.mp4 -o talk.vdc --target-size 3MB --preset slow
  vidcodec decode talk.vdc -o talk.mkv                 lossless copy of what the codec shows
  vidcodec play talk.vdc --against talk.mp4            look at it in a browser
  vidcodec info talk.vdc                               what the file holds
  vidcodec verify talk.vdc --against talk.mp4          every checksum, and the quality

exit codes: 0 done, 2 wrong arguments, 3 input, 4 damaged or foreign .vdc, 5 model, 6 output,
            7 target out of reach, 8 training, 130 interrupted, 143 terminated, 1 anything else
"""


class UsageError(Exception):
    """The command line is not as it should be."""

    exit_code = 2


class Parser(argparse.ArgumentParser):
    """Raises UsageError, with a suggestion for what was misspelt."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if "description" in options:
            options["description"] = textwrap.fill(options["description"], 100)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            what = "there is no" if isinstance(action, argparse._SubParsersAction) else "it cannot be"
            raise argparse.ArgumentError(action, f"{what} {value!r}{guess(str(value), choices)}: {', '.join(choices)}")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Raise UsageError for arguments nobody took."""
        first = next((word for word in unknown if word.startswith("-")), unknown[0])
        name = first.split("=", 1)[0]
        self.error(f"unknown argument {name}{guess(name, self._option_string_actions)}")


def guess(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)', or nothing."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


class ShowVersion(argparse.Action):
    """--version, looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"vidcodec {version('vidcodec')}")
        except PackageNotFoundError:
            print("vidcodec (not installed: its version is unknown)")
        parser.exit(0)


def build_parser() -> Parser:
    """The whole command line."""
    from vidcodec.cli import batch, decode, encode, evaluate, fetch, filter, info, play, train, verify

    parser = Parser(prog="vidcodec", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of unexpected errors")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for module in (encode, decode, play, info, verify, filter, train, fetch, evaluate, batch):
        module.add_parser(commands)
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """Arguments, with `run` to call.

    Raises UsageError; SystemExit after --help, --version, or without a command.
    """
    if words[:1] == ["train"] and words[1:] and words[1].startswith("-") and words[1] not in ("-h", "--help"):
        words = ["train", "codec", *words[1:]]  # what is trained unless said otherwise
    # What batch runs comes after '--', for the parser of the command that it is.
    split = words.index("--") if words[:1] == ["batch"] and "--" in words else len(words)
    words, after = words[:split], words[split + 1 :]
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if unknown:
        getattr(args, "parser", parser).refuse(unknown)
    if not hasattr(args, "run"):
        getattr(args, "parser", parser).print_help(sys.stderr)
        raise SystemExit(UsageError.exit_code)
    args.words = after
    return args
