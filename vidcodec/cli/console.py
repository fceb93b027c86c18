"""What the commands print: results on stdout, everything else on stderr, one line each."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vidcodec.files import plain

# Parameters of the library that are options here; others are called as they are.
NAMES = (
    *("adapt", "codec", "device", "duration", "fps", "lossless", "model", "preset", "qp", "quality", "quantizer"),
    *("refine", "start", "strategy", "target_bpp", "target_psnr", "target_size", "update_parameters", "update_prior"),
    "weights",
)
OPTIONS = {"max_minutes": "--max-time", **{name: f"--{name.replace('_', '-')}" for name in NAMES}}


def with_options(text: str) -> str:
    """A message of the library, which names its parameters, as one of the command line."""
    return re.sub(r"'([a-z_]+)'", lambda m: OPTIONS.get(m[1], m[0]), text)


def note(message: str) -> None:
    """Something worth knowing, on stderr."""
    print(f"note: {with_options(message)}", file=sys.stderr, flush=True)


def warning(message: str) -> None:
    """Something that is lost or wrong, on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def error(message: str) -> None:
    """Why the command failed, on stderr."""
    print(f"vidcodec: error: {message}", file=sys.stderr, flush=True)


def event(name: str, **fields: Any) -> None:
    """One line of NDJSON on stdout, in one write: an interruption must not leave half of it."""
    sys.stdout.write(json.dumps({"event": name, **plain(fields)}, allow_nan=False) + "\n")
    sys.stdout.flush()


def outcome(result: Any, text: Callable[[Any], str], *, json: bool, warnings: Sequence[str] = ()) -> None:
    """The end of a command: notes and warnings of a result, then the result as NDJSON or as text."""
    for message in result.notes:
        note(message)
    for message in warnings:
        warning(message)
    if json:
        event("result", **result.to_dict())
    else:
        print(text(result))


def table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows in columns, two spaces apart and in from the margin; the columns in `right` are flush right."""
    rows = [tuple(row) for row in rows]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    lines = []
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def share(part: float, whole: float) -> str:
    """A part in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else ""
