"""Who measured: command, version, commit, machine; digests of the files and the code that figures depend on."""

from __future__ import annotations

import ast
import datetime
import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vidcodec.evaluation.results import Provenance
from vidcodec.executor.local import cores
from vidcodec.files import file_digest
from vidcodec.version import PACKAGE, __version__

LIBRARIES = ("av", "torch", "numpy", "compressai", "opencv-python-headless", "scikit-image", "bjontegaard", "pillow")


def provenance(command: str) -> Provenance:
    """Of this process, now."""
    return Provenance(
        command=command,
        vidcodec=__version__,
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
    package = PACKAGE
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


def _libraries() -> dict[str, str]:
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


# -------------------------------------------------------------------------------- digests


def digest_of(path: Path) -> str:
    """16 hex digits of the sha256 of a file, read once while it stays as it is. Raises OSError."""
    state = path.stat()
    return _digest(path, state.st_mtime_ns, state.st_size)


@cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    return file_digest(path)[:16]


@cache
def code_digest(parts: tuple[str, ...]) -> str:
    """16 hex digits naming what the code of some parts of the package does, with the tables in them.

    parts: folders and files below `vidcodec`, or other files by their whole path. Comments, docstrings and layout do
    not count.
    """
    h = hashlib.sha256()
    for part in parts:
        root = PACKAGE / part
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.suffix in (".py", ".npz"):
                h.update(path.name.encode())
                h.update(_meaning(path.read_text()).encode() if path.suffix == ".py" else path.read_bytes())
    return h.hexdigest()[:16]


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
