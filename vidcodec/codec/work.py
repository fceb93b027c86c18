"""Finished steps of an encode, kept in a folder: what was stopped goes on from them.

    DIR/KEY/NAME-DIGEST.step     SHA-256 of the rest, then an .npz: arrays, and JSON beside them

KEY stands for the frames, the options that alter the result, the weights and the version of the package; DIGEST for
what else a step came from: level, settings, the adapted network. Steps are written complete or not at all; what fails
its checksum is done again. Nothing is executed when they are read.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidcodec.bitstream import FrameUnit
from vidcodec.codec.candidates import MeasuredFrame
from vidcodec.codec.footage import Footage
from vidcodec.codec.options import EncodeOptions
from vidcodec.errors import OutputError
from vidcodec.families.family import Family
from vidcodec.files import write_whole
from vidcodec.version import __version__

DIGEST_BYTES = 32

Step = tuple[dict[str, Any], dict[str, np.ndarray]]
CameFrom = Sequence[object]  # the step's name, then what it depends on beside the key; all of it prints what it is


class Work:
    """The steps of one encode; without a folder none are kept. notes: takes what the user should know.

    Raises OutputError where the folder cannot be made or written.
    """

    def __init__(self, folder: Path | None, key: str, notes: list[str]) -> None:
        self.folder, self.notes, self.found = folder and folder / key, notes, 0
        self.stretch = 0  # of the video, from 1 on, where it is coded in several
        if folder is None or self.folder is None:
            return
        others = [p for p in folder.glob("*/*.step") if p.parent != self.folder]
        if others and not self.folder.exists():
            notes.append(f"{folder} keeps steps of another encode (other frames, options, weights): left as they are")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failure(folder, error) from error

    def save(self, came_from: CameFrom, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished step; about: what JSON can hold."""
        if self.folder is None:
            return
        content = io.BytesIO()
        np.savez(content, **{"about:": np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays})  # type: ignore[arg-type]
        data = content.getvalue()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(came_from), hashlib.sha256(data).digest() + data)
        except OSError as error:
            raise _failure(self.folder, error) from error

    def load(self, came_from: CameFrom) -> Step | None:
        """A step as it was saved; None if it is not there, or damaged, which is noted."""
        if self.folder is None or not (path := self._path(came_from)).is_file():
            return None
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
                raise ValueError("its checksum does not match")
            with np.load(io.BytesIO(data[DIGEST_BYTES:]), allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
            about = json.loads(arrays.pop("about:").tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            self.refuse(came_from, error)
            return None
        self.found += 1
        return about, arrays

    def refuse(self, came_from: CameFrom, why: object) -> None:
        """Note that a kept step is of no use."""
        self.notes.append(f"a kept step is done again: {self._path(came_from)}: {why}")

    def finish(self) -> None:
        """The file is written: forget its steps, and tell what use they were."""
        if self.folder is not None:
            if self.found:
                self.notes.append(f"went on from {self.found} finished steps in {self.folder.parent}")
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, came_from: CameFrom) -> Path:
        assert self.folder is not None
        return self.folder / f"{came_from[0]}-{_digest((self.stretch, *came_from))}.step"


def step_digest(came_from: CameFrom) -> str:
    """Names what a step came from."""
    return _digest(came_from)


def work_key(o: EncodeOptions, base: Family, footage: Footage) -> str:
    """Names an encode: everything that its result depends on."""
    options = replace(o, work=None, weights=None)
    named = (base.name, base.device, network_digest(base.network))
    return _digest((__version__, options, *named, footage.format, footage.digest))


def network_digest(network: nn.Module) -> str:
    """Of all parameters, the encoder's as well."""
    h = hashlib.sha256()
    for name, value in network.state_dict().items():
        h.update(name.encode())
        h.update(value.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()


# --------------------------------------------------------------- what steps are made of


def encoder_side(tuned: nn.Module, base: Family, payload: bytes) -> dict[str, np.ndarray]:
    """What of a finetuned network its update does not tell."""
    told = base.updated(payload).network.state_dict()
    return {n: v.cpu().numpy() for n, v in tuned.state_dict().items() if not torch.equal(v, told[n])}


def rebuilt(base: Family, payload: bytes, encoder: Mapping[str, np.ndarray]) -> Family:
    """The base with an update and an encoder of its own. Raises VidcodecError for an update of other weights."""
    network = copy.deepcopy(base.updated(payload).network)
    network.load_state_dict({n: torch.from_numpy(v) for n, v in encoder.items()}, strict=False)
    return base.with_network(network.eval().requires_grad_(False))


def pack_frames(frames: Iterable[MeasuredFrame]) -> dict[str, np.ndarray]:
    """Coded frames as arrays."""
    frames = list(frames)
    units = [np.frombuffer(c.unit.to_bytes(), np.uint8) for c in frames]
    return {
        "units": np.concatenate(units),
        "sizes": np.array([u.size for u in units]),
        "errors": np.array([c.errors for c in frames]),
        "bits": np.array([c.bits for c in frames], np.float64),
    }


def unpack_frames(arrays: Mapping[str, np.ndarray]) -> list[MeasuredFrame]:
    """The opposite of `pack_frames`."""
    parts = np.split(arrays["units"], np.cumsum(arrays["sizes"])[:-1])
    rows = zip(parts, arrays["errors"], arrays["bits"].tolist(), strict=True)
    return [MeasuredFrame(FrameUnit.from_bytes(u.tobytes()), e, (y, z)) for u, e, (y, z) in rows]


def _digest(parts: Sequence[object]) -> str:
    """16 hexadecimal digits of what the parts print as."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def _failure(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"finished steps cannot be kept in {folder} ({error.strerror or error})")
