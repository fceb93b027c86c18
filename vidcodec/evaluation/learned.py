"""Learned codecs: ours with any of its options, and CompressAI's hyperprior models through our entropy coder."""

from __future__ import annotations

import hashlib
import types
import typing
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vidcodec
from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.presets import ADAPT, PRESETS, QUANTIZERS, REFINE, UPDATE_PRIORS
from vidcodec.errors import InputError, ModelNotFoundError
from vidcodec.evaluation.codec import Codec, Encoded, Source
from vidcodec.video import Frame, Sampling, VideoFormat

# What the bytes of a .vdc file depend on; the rest of the package is not part of a point's key.
CODE = ("adapt", "bitstream", "codec", "entropy", "models", "quantize", "video")
# The rate point is a quality, and all codecs get the same frames.
NOT_OPTIONS = ("sampling", "quality", "target_psnr", "target_bpp", "target_size", "work")
CHOICES: dict[str, tuple[str, ...]] = {
    "preset": tuple(PRESETS),
    "adapt": ADAPT,
    "update_prior": UPDATE_PRIORS,
    "refine": REFINE,
    "quantizer": QUANTIZERS,
}


class VdcCodec(Codec):
    """Codes with `encode_video`; rates are whole .vdc files."""

    @abstractmethod
    def encode_options(self, rate_point: float) -> EncodeOptions:
        """What `encode_video` is asked for at a rate point."""

    def prepare(self) -> None:
        import vidcodec.codec.decode
        import vidcodec.codec.encode  # noqa: F401

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        from vidcodec.codec.encode import encode_video

        path = folder / "coded.vdc"
        r = encode_video(source.path, path, self.encode_options(rate_point))
        with BitstreamReader(path, strict=True) as reader:
            payloads = [len(f.z) + len(f.y) for f in reader.frames()]
        details = {
            "chosen": r.chosen,
            "update_bytes": r.update_size,
            "y_bytes": round(r.y_size),
            "z_bytes": round(r.z_size),
            "rest_bytes": r.size - r.update_size - sum(payloads),
            "curve": r.curve,
            "costs": r.costs,
            "stage_seconds": r.seconds,
        }
        return Encoded([path], r.size, [8 * size for size in payloads], details, list(r.notes))

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        from vidcodec.codec.decode import VideoDecoder

        options = self.encode_options(self.lowest)
        for path in files:
            with VideoDecoder(path, weights=self.weights_of(path), device=options.device) as decoder:
                for _, frame, _ in decoder.frames():
                    yield frame

    @abstractmethod
    def weights_of(self, file: Path) -> Path | None:
        """The checkpoint a file was made with; None: the one that ships, or CompressAI's own."""


@dataclass(frozen=True)
class Vidcodec(VdcCodec):
    """This codec. changes: the fields of EncodeOptions that differ from their defaults, with their values."""

    changes: tuple[tuple[str, Any], ...] = ()

    family, rate_name = "vidcodec", "quality"
    lowest, highest, usual, decimals = 0, 100, (20, 80), 2

    @classmethod
    def of(cls, texts: dict[str, str]) -> Vidcodec:
        """From options as typed. Raises InputError for an unknown option or a value it cannot have."""
        kinds = {k: v for k, v in typing.get_type_hints(EncodeOptions).items() if k not in NOT_OPTIONS}
        values = {}
        for word, text in texts.items():
            name = word.replace("-", "_")
            if name not in kinds:
                known = ", ".join(sorted(kinds))
                raise InputError(f"vidcodec has no option {word!r} here: there are {known}; qualities go to rates=")
            values[name] = read_value(f"vidcodec:{word}", text, kinds[name], CHOICES.get(name, ()))
        default = EncodeOptions()
        codec = cls(
            tuple(
                (f.name, values[f.name])
                for f in fields(EncodeOptions)
                if f.name in values and values[f.name] != getattr(default, f.name)
            )
        )
        codec.encode_options(50)
        return codec

    @property
    def label(self) -> str:
        words = ",".join(f"{name}={value}" for name, value in self.changes)
        return f"{self.family}:{words}" if words else self.family

    def options(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in self.changes}

    def encode_options(self, rate_point: float) -> EncodeOptions:
        return EncodeOptions(sampling=Sampling(fps=None), quality=rate_point, **dict(self.changes))

    def weights_of(self, file: Path) -> Path | None:
        return self.encode_options(self.lowest).weights

    def settings(self) -> dict[str, Any]:
        return {
            **{k: v for k, v in self.options().items() if k not in ("weights", "device")},
            "weights": digest_of(self._checkpoint()),
            "vidcodec": vidcodec.__version__,
            "code": code_digest(),
            "torch": version("torch"),
        }

    def check(self) -> None:
        if not (path := self._checkpoint()).is_file():
            raise ModelNotFoundError(f"{self.label}: there are no weights {path}: check weights= and model=")

    def _checkpoint(self) -> Path:
        options = self.encode_options(self.lowest)
        return options.weights or Path(vidcodec.__file__).parent / "weights" / f"{options.model}.safetensors"

    def inspect(self, files: list[Path]) -> dict[str, Any]:
        """Bits of every tensor of the model update, by name."""
        from vidcodec.adapt.coder import decode_update, selection_of, tensor_bits
        from vidcodec.codec.models import load_for_stream, pick_device

        with BitstreamReader(files[0], strict=True) as reader:
            updates, h = [unit.payload for unit in reader.updates], reader.header
        if not updates:
            return {"tensor_bits": {}}
        base = load_for_stream(h.model, h.model_digest, self.weights_of(files[0]), pick_device("cpu"))
        totals: dict[str, float] = {}
        for payload in updates:
            update = decode_update(payload, base.network, base.folder)
            chosen = selection_of(payload, base.network, base.folder)
            for name, bits in tensor_bits(update, base.network, chosen).items():
                totals[name] = totals.get(name, 0.0) + float(bits)
        return {"tensor_bits": totals}


@dataclass(frozen=True)
class CompressAI(VdcCodec):
    """A hyperprior model of CompressAI's zoo, coded picture by picture into a .vdc file.

    weights: a checkpoint instead of the pretrained one; '{q}' in it stands for the quality. Without it CompressAI's
    pretrained weights are loaded from its cache or the network; a model is never run with random weights.
    """

    architecture: str = "mbt2018-mean"
    weights: Path | None = None

    family, rate_name = "compressai", "quality"
    lowest, highest, usual, alone = 1, 8, (1, 8), "architecture"

    def rate_points(self, count: int) -> list[float]:
        return sorted(set(super().rate_points(count)))

    def encode_options(self, rate_point: float) -> EncodeOptions:
        quality = int(rate_point)
        return EncodeOptions(
            sampling=Sampling(fps=None),
            adapt="none",
            model=f"compressai:{self.architecture}:{quality}",
            weights=self._weights(quality),
            device="cpu",
        )

    def weights_of(self, file: Path) -> Path | None:
        with BitstreamReader(file) as reader:
            return self._weights(int(reader.header.model.rpartition(":")[2]))

    def settings(self) -> dict[str, Any]:
        files = {q: self._weights(q) for q in range(int(self.lowest), int(self.highest) + 1)}
        digests = {q: digest_of(file) for q, file in files.items() if file is not None and file.is_file()}
        return {
            "architecture": self.architecture,
            "weights": digests or "pretrained",
            "compressai": version("compressai"),
            "code": code_digest(),
            "torch": version("torch"),
        }

    def check(self) -> None:
        from vidcodec.models.compressai_models import parse_name

        parse_name(self.encode_options(self.lowest).model)

    def _weights(self, quality: int) -> Path | None:
        return None if self.weights is None else Path(str(self.weights).replace("{q}", str(quality)))


def read_value(what: str, text: str, kind: Any, choices: tuple[str, ...] = ()) -> Any:
    """A value as typed on the command line. Raises InputError for one that does not fit."""
    if choices and text not in choices:
        raise InputError(f"{what} cannot be {text!r}: {', '.join(choices)}")
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{what} cannot be {text!r}") from None


def digest_of(path: Path) -> str:
    """16 hex digits of the sha256 of a file. Raises OSError."""
    return _digest(path, path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@cache
def code_digest() -> str:
    """16 hex digits naming the source files that a .vdc file depends on."""
    root = Path(vidcodec.__file__).parent
    h = hashlib.sha256()
    for path in sorted(p for part in CODE for p in (root / part).rglob("*") if p.suffix in (".py", ".npz")):
        h.update(str(path.relative_to(root)).encode())
        h.update(path.read_bytes())
    return h.hexdigest()[:16]
