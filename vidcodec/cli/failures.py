"""Exceptions and signals to one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vidcodec.cli import console
from vidcodec.cli.parser import UsageError
from vidcodec.errors import OutputError, TrainingError, VidcodecError

INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + 13


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: leaves by the same way as Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise `Terminated`, so that partial files are removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    previous = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Ignored signals stay ignored: that is what nohup asks for. Elsewhere than in the main thread there are none.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):
                previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def report_failure(error: BaseException, *, json: bool, debug: bool, interrupted: str = "") -> int:
    """Tell of an exception in one line (and an NDJSON event); returns the exit code.

    interrupted: what to say of the output after Ctrl-C.
    """
    if isinstance(error, SystemExit):  # argparse, after --help and --version
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has left: nothing more can be said there, nor at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    message, kind, code = _explain(error, interrupted)
    expected = isinstance(error, VidcodecError | KeyboardInterrupt | UsageError)
    if debug and not expected:
        traceback.print_exception(error)
    if json:
        with suppress(OSError):
            console.event("error", type=kind, message=message, exit_code=code)
    console.error(message)
    return code


def _explain(error: BaseException, interrupted: str) -> tuple[str, str, int]:
    """Message, name of the kind of error, exit code."""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    if isinstance(error, UsageError):
        return text, kind, UsageError.exit_code
    if isinstance(error, VidcodecError):
        return text if isinstance(error, TrainingError) else console.with_options(text), kind, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        code = error.exit_code if isinstance(error, Terminated) else INTERRUPTED
        what = "terminated" if isinstance(error, Terminated) else "interrupted"
        return (f"{what}; {interrupted}" if interrupted else what), "Interrupted", code
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text:
        advice = "free some, or use --device cpu" if "CUDA" in text else "free some, or use smaller pictures"
        return f"out of memory: {advice}", "MemoryError", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = ": free some space or choose another disk" if full else ""
        return f"{where}{error.strerror or text}{advice}", kind, OutputError.exit_code
    short = text if len(text) <= 200 else text[:200] + " ..."
    return f"{kind}: {short} (this is a bug, please report it; run again with --debug for its traceback)", kind, 1
