"""Learned codecs: ours with any of its options, and CompressAI's models, whose names have a quality in them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from vidcodec.bitstream import BitstreamReader
from vidcodec.codec.options import EncodeOptions
from vidcodec.codec.presets import ADAPT, PRESETS, QUANTIZERS, REFINE, UPDATE_PRIORS
from vidcodec.errors import InputError, ModelNotFoundError
from vidcodec.evaluation.codec import Codec, Encoded, Source
from vidcodec.evaluation.provenance import digest_of
from vidcodec.version import PACKAGE, __version__
from vidcodec.video import Frame, Sampling, VideoFormat

# What the bytes of a .vdc file depend on; the rest of the package is not part of a point's key.
CODE = ("bitstream", "codec", "entropy", "families", "latents", "updates", "video", "checkpoint.py", "rate.py")
SCORES = "-importance.safetensors"  # beside weights, under their name
# The rate point is a quality, and all codecs get the same frames.
NOT_OPTIONS = ("sampling", "quality", "target_psnr", "target_bpp", "target_size", "work", "audio")
CHOICES: dict[str, tuple[str, ...]] = {
    "preset": tuple(PRESETS),
    "adapt": ADAPT,
    "update_prior": UPDATE_PRIORS,
    "refine": REFINE,
    "quantizer": QUANTIZERS,
}


@dataclass(frozen=True)
class Vidcodec(Codec):
    """Codes with `encode_video`; rates are whole .vdc files.

    changes: the fields of EncodeOptions that differ from their defaults, with their values.
    """

    changes: tuple[tuple[str, Any], ...] = ()

    family, rate_name = "vidcodec", "quality"
    lowest, highest, usual, decimals = 0, 100, (20, 80), 2
    code = CODE
    defaults: ClassVar[dict[str, Any]] = {}  # other ones than those of EncodeOptions
    not_options: ClassVar[tuple[str, ...]] = NOT_OPTIONS

    @classmethod
    def of(cls, texts: dict[str, str]) -> Self:
        """From options as typed. Raises InputError for an unknown option or a value it cannot have."""
        kinds = {k: v for k, v in typing.get_type_hints(EncodeOptions).items() if k not in cls.not_options}
        own = {k: texts[k] for k in (cls.alone,) if k in texts}
        values = {}
        for word, text in texts.items():
            name = word.replace("-", "_")
            if name in own:
                continue
            if name not in kinds:
                known = ", ".join(sorted(kinds))
                raise InputError(f"{cls.family} has no option {word!r} here: there are {known}; qualities go to rates=")
            values[name] = read_value(f"{cls.family}:{word}", text, kinds[name], CHOICES.get(name, ()))
        usual = {f.name: cls.defaults.get(f.name, getattr(EncodeOptions(), f.name)) for f in fields(EncodeOptions)}
        codec = cls(tuple((k, values[k]) for k, v in usual.items() if k in values and values[k] != v), **own)
        codec.encode_options(codec.highest)
        return codec

    @property
    def lossless(self) -> bool:
        return bool(dict(self.changes).get("lossless"))

    @property
    def label(self) -> str:
        words = [str(getattr(self, self.alone))] if self.alone else []
        words += [f"{name}={int(value) if value is True else value}" for name, value in self.changes]
        return f"{self.family}:{','.join(words)}" if words else self.family

    def options(self) -> dict[str, Any]:
        own = {self.alone: getattr(self, self.alone)} if self.alone else {}
        return {**own, **{name: str(value) if isinstance(value, Path) else value for name, value in self.changes}}

    def encode_options(self, rate_point: float) -> EncodeOptions:
        """What `encode_video` is asked for at a rate point."""
        quality = None if self.lossless or self._one_rate else rate_point
        return EncodeOptions(sampling=Sampling(fps=None), quality=quality, **dict(self.changes))

    def rate_points(self, count: int) -> list[float]:
        return [0.0] if self._one_rate else super().rate_points(count)

    @cached_property
    def _one_rate(self) -> bool:
        """Whether a network of somebody else's family has a single rate."""
        name = dict(self.changes).get("model", EncodeOptions().model)
        if self.lossless or name == EncodeOptions().model:
            return False
        from vidcodec.codec.device import pick_device
        from vidcodec.families import load_family

        return not load_family(name, dict(self.changes).get("weights"), pick_device("cpu")).top.steps

    def checkpoint(self, rate_point: float) -> Path | None:
        """The weights that a rate point is coded with; None: those that the network's family finds by itself."""
        options = self.encode_options(rate_point)
        shipped = PACKAGE / "weights" / f"{options.network}.safetensors"
        return options.weights or (shipped if shipped.is_file() else None)

    def settings(self) -> dict[str, Any]:
        return {
            **{k: v for k, v in self.options().items() if k not in ("weights", "device")},
            "weights": self.weights_digest(),
            "vidcodec": __version__,
            "torch": version("torch"),
        }

    def weights_digest(self) -> Any:
        """Names the checkpoint, and the importance scores beside it."""
        if (path := self.checkpoint(self.highest)) is None:
            from vidcodec.codec.device import pick_device
            from vidcodec.families import load_family

            return load_family(self.encode_options(self.highest).network, None, pick_device("cpu")).digest.hex()
        scores = path.with_name(path.stem + SCORES)
        return " ".join(digest_of(file) for file in (path, scores) if file.is_file())

    def check(self) -> None:
        path = self.checkpoint(self.highest)
        if path is not None and not path.is_file():
            raise ModelNotFoundError(f"{self.label}: there are no weights {path}: check weights= and model=")

    def prepare(self) -> None:
        import vidcodec.codec.decode
        import vidcodec.codec.encode  # noqa: F401

    def encode(self, source: Source, rate_point: float, folder: Path) -> Encoded:
        from vidcodec.codec.encode import encode_video

        path = folder / "coded.vdc"
        r = encode_video(source.path, path, self.encode_options(rate_point))
        with BitstreamReader(path, strict=True) as reader:
            payloads = [len(f.payload) for f in reader.frames()]
        details = {
            "chosen": r.chosen,
            "update_bytes": r.update_size,
            "y_bytes": round(r.y_size),
            "z_bytes": round(r.z_size),
            "rest_bytes": r.size - r.update_size - sum(payloads),
            "curve": r.curve,
            "costs": r.costs,
            "tensors": r.tensors,
            "stage_seconds": r.seconds,
        }
        return Encoded([path], r.size, [8 * size for size in payloads], details, list(r.notes))

    def decode(self, files: list[Path], format: VideoFormat) -> Iterator[Frame]:
        from vidcodec.codec.decode import VideoDecoder

        for path in files:
            options = self.encode_options(self.rate_of(path))
            with VideoDecoder(path, weights=options.weights, device=options.device) as decoder:
                for _, frame, _ in decoder.frames():
                    yield frame

    def rate_of(self, file: Path) -> float:
        """A rate point with the weights that a file was made with."""
        return self.highest

    def inspect(self, files: list[Path]) -> dict[str, Any]:
        """Bits of every tensor of the model update, by name."""
        from vidcodec.codec.decode import VideoDecoder
        from vidcodec.updates.coder import decode_update, selection_of, tensor_bits

        options = self.encode_options(self.rate_of(files[0]))
        with VideoDecoder(files[0], weights=options.weights, device="cpu") as decoder:
            reader, base = decoder.reader, decoder.base
            updates = [reader.update(number).payload for number in reader.update_numbers]
        totals: dict[str, float] = {}
        for payload in updates:
            update = decode_update(payload, base.network, base.folder)
            chosen = selection_of(payload, base.network, base.folder)
            for name, bits in tensor_bits(update, base.network, chosen).items():
                totals[name] = totals.get(name, 0.0) + float(bits)
        return {"tensor_bits": totals}


@dataclass(frozen=True)
class CompressAI(Vidcodec):
    """A hyperprior model of CompressAI's zoo in a .vdc file: not adapted unless that is asked for.

    '{q}' in weights= stands for the quality. Without weights= CompressAI's pretrained ones are loaded from its cache
    or the network; a model is never run with random weights.
    """

    architecture: str = "mbt2018-mean"

    family = "compressai"
    lowest, highest, usual, decimals, alone = 1, 8, (1, 8), 0, "architecture"
    defaults = {"adapt": "none"}
    not_options = (*NOT_OPTIONS, "model", "lossless")
    _one_rate = False

    def rate_points(self, count: int) -> list[float]:
        return sorted(set(super().rate_points(count)))

    def encode_options(self, rate_point: float) -> EncodeOptions:
        quality = int(rate_point)
        changes = {**self.defaults, **dict(self.changes)}
        if weights := changes.get("weights"):
            changes["weights"] = Path(str(weights).replace("{q}", str(quality)))
        model = f"compressai:{self.architecture}:{quality}"
        return EncodeOptions(sampling=Sampling(fps=None), model=model, **changes)

    def rate_of(self, file: Path) -> float:
        with BitstreamReader(file) as reader:
            return float(reader.header.model.rpartition(":")[2])

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "compressai": version("compressai")}

    def weights_digest(self) -> Any:
        files = {q: self.checkpoint(q) for q in range(int(self.lowest), int(self.highest) + 1)}
        return {q: digest_of(file) for q, file in files.items() if file and file.is_file()} or "pretrained"

    def check(self) -> None:
        from vidcodec.families.compressai.network import parse_name

        parse_name(self.encode_options(self.lowest).model)


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
