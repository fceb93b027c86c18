"""Points of codecs that were measured elsewhere, from a JSON file.

Two forms are read: results.json of `vidcodec evaluate`, and

    {CLIP: {"width": 352, "height": 288, "frames": 20, "fps": 2,
            "codecs": {NAME: [{"q": 22, "bytes": 23798, "psnr_y": 43.2, "psnr_yuv": 44.6, ...}, ...]}}}

with CLIP the name of the clip's file without its suffix. Points count only for a clip with the same number of frames
of the same size and rate.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidcodec.errors import InputError
from vidcodec.evaluation.results import FORMAT, ClipInfo, CodecInfo, Point, Results


@dataclass(frozen=True)
class MeasuredPoints:
    """One codec's points in a file."""

    path: Path
    name: str

    family, rate_name = "points", "q"

    @property
    def label(self) -> str:
        """How results name it."""
        return f"points:{self.name}"

    @property
    def spec(self) -> str:
        """What was typed."""
        return f"points:{self.path}#{self.name}"

    def info(self) -> CodecInfo:
        """For the list of codecs."""
        return CodecInfo(self.label, self.spec, self.family, self.rate_name, {"file": self.path.name})

    def check(self) -> None:
        """Raise InputError when the file cannot be used, or knows no such codec."""
        found = self._read()
        names = (
            {c["label"] for c in found["codecs"]}
            if _is_results(found)
            else {name for entry in found.values() for name in entry["codecs"]}
        )
        if self.name not in names:
            raise InputError(f"{self.path} has no points of {self.name!r}: it has {', '.join(sorted(names))}")

    def points(self, clip: ClipInfo) -> list[Point]:
        """The points of a clip; none where it was measured on other frames, or not at all. Raises InputError."""
        found = self._read()
        return self._of_results(found, clip) if _is_results(found) else self._of_table(found, clip)

    def _of_results(self, found: dict[str, Any], clip: ClipInfo) -> list[Point]:
        results = Results.from_json(json.dumps(found))
        same = {c.name for c in results.clips if c.digest == clip.digest}
        return [
            replace(p, clip=clip.name, codec=self.label, files=[])
            for p in results.points
            if p.codec == self.name and p.clip in same
        ]

    def _of_table(self, found: dict[str, Any], clip: ClipInfo) -> list[Point]:
        entry = found.get(clip.name)
        same = {k: getattr(clip, k) for k in ("width", "height", "frames", "fps") if getattr(clip, k) is not None}
        if entry is None or any(entry.get(k, v) != v for k, v in same.items()):
            return []
        return [self._point(row, clip) for row in entry["codecs"].get(self.name, [])]

    def _point(self, row: dict[str, Any], clip: ClipInfo) -> Point:
        key = hashlib.sha256(json.dumps([clip.digest, self.name, row], sort_keys=True).encode()).hexdigest()[:32]
        try:
            size, quality = int(row["bytes"]), {k: float(v) for k, v in row.items() if k.startswith("psnr_")}
            rate_point = float(row.get("q", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path}: a point of {self.name} without a usable {error}") from error
        return Point(
            key=key,
            clip=clip.name,
            codec=self.label,
            rate_point=rate_point,
            bytes=size,
            file_bytes=size,
            bpp=8 * size / clip.pixels,
            quality=dict(quality),
            notes=[f"measured elsewhere: {self.path.name}"],
        )

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} is no file of points ({error}): give points:FILE.json#NAME") from error
        usable = isinstance(found, dict) and (
            _is_results(found) or all(isinstance(e, dict) and isinstance(e.get("codecs"), dict) for e in found.values())
        )
        if not usable:
            raise InputError(f"{self.path} is no file of points: see vidcodec/evaluation/measured.py for its form")
        return found


def _is_results(found: dict[str, Any]) -> bool:
    return found.get("format") == FORMAT
