"""What runs in a process of its own: `python -m vidcodec.executor.worker FOLDER`.

FOLDER/call.json names the function and its arguments; what came of it goes to FOLDER/outcome.json, how far it is to
FOLDER/progress.json. The process ends when its standard input closes: none outlives what started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from vidcodec.errors import VidcodecError
from vidcodec.files import plain, write_whole

CALL, OUTCOME, PROGRESS = "call.json", "outcome.json", "progress.json"
PROGRESS_SECONDS = 0.5


def main(folder: Path) -> None:
    """Do what a folder says; errors of our own are told in the outcome."""
    told = json.loads((folder / CALL).read_text())
    module, _, name = told["function"].partition(":")
    try:
        value = getattr(import_module(module), name)(Progress(folder / PROGRESS), **told["arguments"])
        outcome = {"value": plain(value)}
    except VidcodecError as error:
        outcome = {"error": str(error), "kind": type(error).__name__}
    write_whole(folder / OUTCOME, json.dumps(outcome, allow_nan=False))


class Progress:
    """Tells in a file how far a call is, twice a second at most."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def __call__(self, stage: str, share: float) -> None:
        if (now := time.monotonic()) - self._last >= PROGRESS_SECONDS:
            self._last = now
            partial = self._path.with_suffix(".part")
            partial.write_text(json.dumps([stage, share]))
            os.replace(partial, self._path)


def end_with_parent() -> None:
    """Wait for the end of standard input, then end this process at once, and what it runs."""
    while os.read(0, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    main(Path(sys.argv[1]))
