"""Who measured: command, version, commit, machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import vidcodec
from vidcodec.evaluation.results import Provenance

LIBRARIES = ("av", "torch", "numpy", "compressai", "opencv-python-headless", "scikit-image", "bjontegaard", "pillow")


def provenance(command: str) -> Provenance:
    """Of this process, now."""
    return Provenance(
        command=command,
        vidcodec=vidcodec.__version__,
        commit=commit(),
        date=now(),
        cpu=cpu_model(),
        cores=cores(),
        python=platform.python_version(),
        libraries=_libraries(),
    )


def now() -> str:
    """ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def commit() -> str:
    """The commit of the tree that the package lies in, '+changes' behind it where the package differs; '' elsewhere."""
    package = Path(vidcodec.__file__).parent
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    # A package installed below somebody's repository is no part of it.
    if not head or not _git(package, "ls-files", "--", "__init__.py"):
        return ""
    return head + ("+changes" if _git(package, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def cpu_model() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _libraries() -> dict[str, str]:
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
