"""Codecs by name: what `--codecs` takes; `vidcodec evaluate --help` lists them.

Options follow the name after a colon, separated by commas: x265:inter,preset=medium. Several codecs are separated by
commas, too: a word begins a new codec when it begins with a codec's name.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from vidcodec.errors import InputError
from vidcodec.evaluation.codec import Codec
from vidcodec.evaluation.filters import Filter
from vidcodec.evaluation.learned import CompressAI, Vidcodec, read_value
from vidcodec.evaluation.measured import MeasuredPoints
from vidcodec.evaluation.picture_rivals import Jpeg, JpegXl, Png, Webp
from vidcodec.evaluation.provenance import code_digest
from vidcodec.evaluation.results import CodecInfo
from vidcodec.evaluation.video_rivals import X264, X265, Ffv1, SvtAv1, Vp9, Vvenc

CODECS: dict[str, type[Codec]] = {
    c.family: c for c in (X264, X265, SvtAv1, Vp9, Vvenc, Jpeg, Webp, Png, JpegXl, Ffv1, Vidcodec, CompressAI, Filter)
}
FAMILIES = (*CODECS, MeasuredPoints.family)


@dataclass(frozen=True)
class Chosen:
    """A codec as it was asked for. label: its name in results. rates: its own rate points, or None."""

    codec: Codec | MeasuredPoints
    spec: str
    label: str
    rates: tuple[float, ...] | None = None

    def info(self) -> CodecInfo:
        """For the list of codecs in results."""
        if isinstance(self.codec, MeasuredPoints):
            return self.codec.info()
        settings = {**self.codec.settings(), "code": code_digest(self.codec.code)}
        return CodecInfo(self.label, self.spec, self.codec.family, self.codec.rate_name, settings)

    def rate_points(self, count: int, qps: Iterable[float] | None = None) -> list[float]:
        """Where to measure: its own rates, else those that stand for the quantisers `qps`, else `count` usual ones.

        Raises InputError for a rate point outside the codec's scale.
        """
        if isinstance(self.codec, MeasuredPoints):
            return []
        points = list(self.rates) if self.rates else []
        if not points and qps is not None and not self.codec.lossless:
            points = [rate for qp in qps if (rate := self.codec.from_qp(qp)) is not None]
        points = list(dict.fromkeys(points or self.codec.rate_points(count)))
        for point in points:
            self.codec.check_rate(point)
        return points


def parse_codecs(text: str) -> list[Chosen]:
    """Codecs separated by commas. Raises InputError for a word that is none, and for two of one name."""
    specs: list[str] = []
    for word in text.split(","):
        begins = re.match(r"[^:=]*", word.strip())
        if (
            specs
            and not (begins and begins[0] in FAMILIES)
            and re.fullmatch(r"\s*([\w-]+=.*|intra|inter|lossless)\s*", word)
        ):
            specs[-1] += ("," if ":" in specs[-1] else ":") + word.strip()
        elif word.strip():
            specs.append(word.strip())
    if not specs:
        raise InputError(f"no codec given: choose from {', '.join(FAMILIES)}")
    chosen = [parse_codec(spec) for spec in specs]
    labels = [c.label for c in chosen]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"{twice} is asked for twice: give one of them name=TEXT")
    return chosen


def parse_codec(spec: str) -> Chosen:
    """One codec with its options. Raises InputError, with what could have been meant."""
    family, _, rest = spec.partition(":")
    if family == MeasuredPoints.family:
        return _measured(spec, rest)
    if family not in CODECS:
        close = difflib.get_close_matches(family.lower(), FAMILIES, n=1, cutoff=0.5)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"there is no codec {family!r}{guess}: {', '.join(FAMILIES)}")
    words = [word.strip() for word in rest.split(",") if word.strip()]
    texts = dict(word.split("=", 1) for word in words if "=" in word)
    bare = [word for word in words if "=" not in word]
    name, rates = texts.pop("name", ""), texts.pop("rates", "")
    codec = _make(CODECS[family], texts, bare)
    chosen = Chosen(codec, spec, name or codec.label, _numbers(spec, rates))
    chosen.rate_points(1)
    return chosen


def _make(kind: type[Codec], texts: dict[str, str], bare: list[str]) -> Codec:
    """The codec from its options as typed: word=text, and words alone."""
    if bare:
        if kind is Vidcodec:
            raise InputError(f"vidcodec:{bare[0]}: write options as name=value, like vidcodec:adapt=none")
        if len(bare) > 1 or not kind.alone:
            raise InputError(f"{kind.family}:{bare[-1]}: {_usage(kind)}")
        texts = {kind.alone: bare[0], **texts}
    if issubclass(kind, Vidcodec):
        return kind.of(texts)
    known = {f.name for f in fields(kind)}
    kinds = typing.get_type_hints(kind)
    values = {}
    for name, text in texts.items():
        if name not in known:
            raise InputError(f"{kind.family} has no option {name!r}: {_usage(kind)}")
        values[name] = read_value(f"{kind.family}:{name}", text, kinds[name], kind.choices.get(name, ()))
    return kind(**values)


def _usage(kind: type[Codec]) -> str:
    names = [f"{f.name}=" for f in fields(kind) if f.name != kind.alone]
    alone = list(kind.choices.get(kind.alone, [kind.alone.upper()] * bool(kind.alone)))
    return f"it takes {', '.join([*alone, *names, 'rates=A/B/C', 'name=TEXT'])}"


def _measured(spec: str, rest: str) -> Chosen:
    file, _, name = rest.partition("#")
    if not file or not name:
        raise InputError(f"{spec!r}: give a file and a codec in it, like points:rivals.json#x265-intra")
    codec = MeasuredPoints(Path(file), name)
    return Chosen(codec, spec, codec.label)


def _numbers(spec: str, text: str) -> tuple[float, ...] | None:
    if not text:
        return None
    try:
        return tuple(float(part) for part in re.split(r"[/;+]", text))
    except ValueError:
        raise InputError(f"{spec}: rates are numbers separated by slashes, like rates=22/27/32/37") from None
