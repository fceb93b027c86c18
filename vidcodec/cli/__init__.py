"""The command line: one module per subcommand, each with `add_parser(subparsers)` and `run(args) -> int`.

    arguments   option types (rates, times, sizes, ranges), shared options, checks of paths
    parser      argparse with suggestions and one-line errors
    progress    bars, plain lines and NDJSON events
    console     what is printed: notes, warnings, errors, events, tables
    failures    exceptions and signals to one line and an exit code

Nothing heavy (torch, av, numpy) is imported before a command runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from vidcodec.cli.failures import interruptible, report_failure
from vidcodec.cli.parser import UsageError, parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `vidcodec` with these arguments (default: the process's); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    json = "--json" in words
    debug = "--debug" in words or os.environ.get("VIDCODEC_DEBUG") == "1"
    try:
        with interruptible(), warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
            try:
                args = parse(words)
                code = int(args.run(args))
                sys.stdout.flush()
                return code
            except BaseException as error:
                interrupted = "" if isinstance(error, UsageError) else getattr(locals().get("args"), "interrupted", "")
                return report_failure(error, json=json, debug=debug, interrupted=interrupted)
    except KeyboardInterrupt:  # a second one, while the first was being reported
        return 130
