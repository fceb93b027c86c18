"""Sets of test sequences: what their manifests say, where their files lie, and any local file or folder.

    <cache>/<set>/<file>            a sequence that `vidcodec fetch` brought, or that was put there by hand
    <cache>/<set>/<file>.sha256     the checksum of the first download, in the format of sha256sum

The cache is $VIDCODEC_CACHE, else vidcodec/datasets below $XDG_CACHE_HOME, else below ~/.cache.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError

VIDEO_SUFFIXES = frozenset(
    (
        *(".264", ".265", ".avi", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".obu", ".ts", ".webm", ".y4m"),
    )
)
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One sequence as its manifest has it; None stands for what is not known.

    dataset, name: as in 'xiph-cif/akiyo'. file: its name in the cache. address: http or https.
    rate: frames per second. sha256: hex digits. terms: what is known of its licence.
    """

    dataset: str
    name: str
    file: str
    address: str
    terms: str
    width: int | None = None
    height: int | None = None
    rate: Fraction | None = None
    frames: int | None = None
    sha256: str | None = None

    @property
    def id(self) -> str:
        """'set/sequence'."""
        return f"{self.dataset}/{self.name}"

    def path(self, cache: Path) -> Path:
        """Where its file lies, or will lie."""
        return cache / self.dataset / self.file


@dataclass(frozen=True)
class Dataset:
    """A set of sequences. page: the address of a page about it."""

    name: str
    title: str
    page: str
    terms: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Sequence:
    """A video or picture to measure on.

    name: unique among those loaded together, fit for a file name. dataset: the set it came from, None for local files.
    """

    name: str
    path: Path
    dataset: str | None = None


def default_cache() -> Path:
    """The folder of downloaded sequences."""
    if chosen := os.environ.get("VIDCODEC_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return root / "vidcodec" / "datasets"


# ------------------------------------------------------------------------- manifests


@functools.cache
def known_datasets() -> dict[str, Dataset]:
    """Every set that ships with vidcodec, by name."""
    manifests = sorted(
        (item for item in files("vidcodec.evaluation").joinpath("manifests").iterdir() if item.name.endswith(".toml")),
        key=lambda item: item.name,
    )
    sets = [read_manifest(item.read_text(encoding="utf-8"), item.name) for item in manifests]
    return {dataset.name: dataset for dataset in sets}


def read_manifest(text: str, where: str) -> Dataset:
    """A manifest from its TOML; `where` names it in errors.

    Raises InputError for what is no manifest, and for file names or addresses that could lead anywhere else.
    """
    try:
        found = tomllib.loads(text)
        title, page, terms, base = (_text(found, key) for key in ("title", "page", "terms", "base"))
        name = _safe(_text(found, "name"))
        if not re.match(r"https?://[^/]", base) or not base.endswith("/"):
            raise ValueError(f"base {base!r} is no http address that ends in /")
        entries = tuple(
            _entry(name, sequence, base, {"terms": terms, **found.get("defaults", {}), **fields})
            for sequence, fields in found["sequences"].items()
        )
    except (tomllib.TOMLDecodeError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"{where} is no manifest of sequences: {error}") from error
    return Dataset(name, title, page, terms, entries)


def _entry(dataset: str, name: str, base: str, fields: dict[str, Any]) -> Entry:
    file, sha256 = _safe(_text(fields, "file")), fields.get("sha256")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name}: {sha256!r} is no SHA-256")
    rate = Fraction(fields["rate"]) if "rate" in fields else None
    numbers = {key: fields.get(key) for key in ("width", "height", "frames")}
    if any(value is not None and (type(value) is not int or value < 1) for value in numbers.values()):
        raise ValueError(f"{name}: width, height and frames are whole numbers from 1 on")
    if rate is not None and rate <= 0:
        raise ValueError(f"{name}: rate {rate} is not above zero")
    return Entry(dataset, _safe(name), file, base + file, _text(fields, "terms"), rate=rate, sha256=sha256, **numbers)


def _text(fields: dict[str, Any], key: str) -> str:
    if not isinstance(value := fields[key], str):
        raise TypeError(f"{key} is no text")
    return value


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name")
    return name


def find(name: str) -> list[Entry]:
    """The entries of a set ('kodak') or the one of a sequence ('xiph-cif/akiyo').

    Raises InputError for an unknown name, with a guess at what was meant.
    """
    sets = known_datasets()
    set_name, _, sequence = name.partition("/")
    if set_name not in sets:
        homes = [e.id for dataset in sets.values() for e in dataset.entries if name == e.name]
        hint = f": did you mean {homes[0]}?" if homes else _guess(set_name, sets)
        raise InputError(f"there is no set of sequences called {set_name!r}{hint} (vidcodec fetch --list shows them)")
    entries = list(sets[set_name].entries)
    if not sequence:
        return entries
    chosen = [entry for entry in entries if entry.name == sequence]
    if not chosen:
        hint = _guess(sequence, [entry.name for entry in entries])
        raise InputError(f"{set_name} has no sequence {sequence!r}{hint} (vidcodec fetch --list {set_name} shows them)")
    return chosen


def _guess(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f": did you mean {close[0]}?" if close else ""


# --------------------------------------------------------------------------- loading


def load(name: str | os.PathLike[str], cache: Path | None = None) -> list[Sequence]:
    """The sequences that `name` stands for, in order; every file exists.

    name: a local file; a local folder, of which every video and picture is one sequence; a set ('kodak'); or one
    sequence of a set ('xiph-cif/akiyo'). What exists as a path is taken as a path. cache: see `default_cache`.

    Raises InputError when there is no such thing, or the files were not fetched yet: nothing is downloaded here.
    """
    path, cache = Path(name), cache or default_cache()
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return [Sequence(path.stem, path)]
    text = os.fspath(name)
    if text.partition("/")[0] not in known_datasets():
        if path.suffix or os.sep in text:
            raise InputError(f"{path} does not exist: check the name, or give a set that vidcodec fetch --list shows")
        find(text)  # says which set may have been meant
    entries = find(text)
    missing = [entry for entry in entries if not entry.path(cache).is_file()]
    if missing:
        what = f"{len(missing)} of {len(entries)} sequences of {text} are" if len(entries) > 1 else f"{text} is"
        raise InputError(f"{what} not in {cache}: run vidcodec fetch {text}")
    return [Sequence(entry.name, entry.path(cache), entry.dataset) for entry in entries]


def _folder(folder: Path) -> list[Sequence]:
    """Every video and picture right in a folder, in the order a person would have."""
    suffixes = VIDEO_SUFFIXES | PICTURE_SUFFIXES
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    paths = sorted((p for p in found if p.is_file()), key=_by_number)
    if not paths:
        raise InputError(f"{folder} holds no video or picture: give a folder with files like .y4m, .mkv, .mp4 or .png")
    stems = [path.stem for path in paths]
    # a.mkv and a.mp4 would share a name
    return [Sequence(p.stem if stems.count(p.stem) == 1 else p.name, p) for p in paths]


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """Sorts clip2 before clip10."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
