"""Calls of an executor made in this process, for tests that are not about its processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vidcodec.executor import calls, local, worker


class Worker:
    """A worker's process as the executor sees it: its work is done when it has started."""

    stdin = None

    def __init__(self, command: list[str], **_: object) -> None:
        threads = torch.get_num_threads()
        worker.main(Path(command[-1]))
        torch.set_num_threads(threads)

    def poll(self) -> int:
        return 0

    wait = poll


def work_here(patch: pytest.MonkeyPatch) -> None:
    """Until the patch ends."""
    patch.setattr(local, "subprocess", SimpleNamespace(Popen=Worker, PIPE=subprocess.PIPE))
    patch.setattr(calls, "POLL_SECONDS", 0.0)
