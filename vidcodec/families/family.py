"""What the pipeline must know of a network: its family.

A family loads a network, codes pictures with it, says which of its parameters travel and what finetuning is to lower,
and may search for quantiser settings and for better latents. All else, from sampling to files, adaptation, work
folders and reports, is the same for all of them. `vidcodec.families` registers them, one line each; a package that
names its own under the entry points `vidcodec.families` adds to them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from vidcodec.bitstream import Header
from vidcodec.errors import CorruptBitstreamError, UnsupportedVersionError
from vidcodec.families.crops import FrameCrops
from vidcodec.families.planes import frame_to_planes, padded_size, planes_to_frame
from vidcodec.latents.decisions import PLAIN, ROUNDING, Decisions, Settings
from vidcodec.latents.quantizer import Quantizer
from vidcodec.latents.symbols import SymbolLog
from vidcodec.latents.tables import tables
from vidcodec.rate import RateLevel, TradeOff
from vidcodec.updates.coder import decode_update
from vidcodec.updates.objective import Crops, Objective
from vidcodec.video import ColourTags, Frame, VideoFormat

# ----------------------------------------------------------------------------- pictures


class CodedFrame(NamedTuple):
    """One frame as its coder left it: bytes, what travelled, and how to make the frame that a decoder shows."""

    payload: bytes
    log: SymbolLog
    show: Callable[[], Frame]
    left: Any = None  # what frames that refer to this one need of it
    predicted: bool = False


class PictureCoder(Protocol):
    """Codes frames of one format; an equal object elsewhere decodes them."""

    @property
    def extra(self) -> bytes:
        """What the header carries for the coder."""
        ...

    def encode(self, frame: Frame) -> CodedFrame: ...

    def reconstruct(self, payload: bytes, pts: int, reference: Any = None) -> CodedFrame:
        """What `encode` coded, or with the same reference `encode_after`, with what it leaves to others.

        The caller checks the log's crc. Raises CorruptBitstreamError for a payload that ends too early.
        """
        ...


class CodedPicture(NamedTuple):
    """One coded picture: its bytes, the checksum of its symbols, and how to make the planes that a decoder finds.

    They cost as much as half of coding the picture, and not every picture is compared with its source.
    """

    payload: bytes
    log: SymbolLog
    show: Callable[[], Tensor]
    left: Any = None  # what pictures that refer to this one need of it
    predicted: bool = False


class PlaneCoder(ABC):
    """Codes padded planes (1, 6, H/2, W/2); `FrameCoder` makes a `PictureCoder` of it."""

    extra: bytes = b""

    @property
    def chain_extra(self) -> bytes:
        """What the header carries where pictures refer to others."""
        return self.extra

    @abstractmethod
    def encode(self, planes: Tensor) -> CodedPicture: ...

    @abstractmethod
    def reconstruct(self, payload: bytes, height: int, width: int, reference: Any = None) -> CodedPicture:
        """What `encode` coded of a padded picture of this size, or with the same reference `encode_after`."""

    def encode_after(self, planes: Tensor, reference: Any) -> list[CodedPicture]:
        """Ways of coding a picture with what another one left (None: by itself): predicted, by itself, or both."""
        raise NotImplementedError(f"{type(self).__name__} predicts no pictures")


@dataclass(frozen=True)
class FrameCoder:
    """Frames through a coder of planes: padded to the network's multiple, cropped and rounded again."""

    planes: PlaneCoder
    video: VideoFormat
    multiple: int

    @property
    def extra(self) -> bytes:
        return self.planes.extra

    @property
    def chain_extra(self) -> bytes:
        """As `PlaneCoder.chain_extra`."""
        return self.planes.chain_extra

    def encode(self, frame: Frame) -> CodedFrame:
        return self.coded(frame.pts, self.planes.encode(self._planes(frame)))

    def encode_after(self, frame: Frame, reference: Any) -> list[CodedFrame]:
        """As `PlaneCoder.encode_after`."""
        return [self.coded(frame.pts, way) for way in self.planes.encode_after(self._planes(frame), reference)]

    def reconstruct(self, payload: bytes, pts: int, reference: Any = None) -> CodedFrame:
        size = padded_size(self.video.height, self.video.width, self.multiple)
        return self.coded(pts, self.planes.reconstruct(payload, *size, reference))

    def coded(self, pts: int, picture: CodedPicture) -> CodedFrame:
        """The frame of a coded picture."""

        def show() -> Frame:
            return planes_to_frame(picture.show(), self.video, pts)

        return CodedFrame(picture.payload, picture.log, show, picture.left, picture.predicted)

    def _planes(self, frame: Frame) -> Tensor:
        return frame_to_planes(frame, self.video.bit_depth, self.multiple)


class Refiner(Protocol):
    """Searches for better latents of pictures, and codes them."""

    def encode(
        self, frames: Sequence[Frame], numbers: Sequence[int], seconds: float, progress: Callable[[float], None]
    ) -> list[list[CodedFrame]]:
        """The ways of coding each frame that were found.

        numbers: of the frames in their video; seconds: for all of it, above 0.
        """
        ...


class Fitter(Protocol):
    """A descent on the symbols of frames, and on the network where it is free. It can stop and go on."""

    curve: list[dict[str, float]]  # true costs on the way: step, cost in bits per pixel, update_bits

    def run(self, seconds: float, pause: float, progress: Callable[[float, dict[str, float]], None]) -> bool:
        """Go on to the end, which is to come within so many seconds; True there.

        pause: seconds after which to come back sooner, to be kept and called again. progress: share done, figures.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that `load` needs to go on."""
        ...

    def load(self, state: Mapping[str, np.ndarray]) -> None: ...

    def update(self) -> bytes:
        """The model update that was found; empty where the network stayed."""
        ...

    def coded(self, family: Family) -> list[CodedFrame]:
        """All frames, coded; family: with `update` applied."""
        ...


# ------------------------------------------------------------------------------ a family


@dataclass(frozen=True, eq=False)
class Family(ABC):
    """A network with its base weights on a device, and all that the pipeline asks of it.

    name: as the header carries it. digest: 16 bytes naming the weights that decoding uses. folder: of weights that are
    not the shipped ones; importance scores may lie there.
    """

    name: str
    network: nn.Module
    digest: bytes
    device: torch.device
    folder: Path | None = None

    lossless: ClassVar[bool] = False
    predicts: ClassVar[bool] = False  # its coder has `encode_after`
    fitted: ClassVar[bool] = False  # symbols are found by a `fitter`, not by an analysis
    multiple: ClassVar[int] = 16  # of both sides of the pictures it takes, in luma samples
    quantizers: ClassVar[tuple[str, ...]] = ("uniform",)  # that `search_settings` knows, of `presets.QUANTIZERS`
    refinements: ClassVar[tuple[str, ...]] = ("none",)  # that `refiner` knows, of `presets.REFINE`
    pace: ClassVar[Mapping[str, Any]] = {}  # of `FinetuneConfig`, where the usual does not suit

    @classmethod
    @abstractmethod
    def load(cls, name: str, weights: Path | None, device: torch.device) -> Self:
        """The network that `name` stands for; raises ModelNotFoundError or ModelMismatchError."""

    def with_network(self, network: nn.Module) -> Self:
        """The same family with other weights of the same network."""
        return replace(self, network=network)

    def updated(self, payload: bytes) -> Self:
        """With a model update from a stream applied (to a copy)."""
        if not payload:
            return self
        network = copy.deepcopy(self.network)
        decode_update(payload, network, self.folder).apply(network)
        return self.with_network(network)

    # ------------------------------------------------------------------------- streams

    @property
    def tables_digest(self) -> bytes:
        """8 bytes naming every table that decoding uses."""
        return tables().with_bank_digest

    def format_of(self, header: Header) -> VideoFormat:
        """The pictures of a stream; raises UnsupportedVersionError for planes of an unknown kind."""
        h = header
        colour = ColourTags(h.matrix, h.primaries, h.transfer, h.full_range, h.chroma_location)
        aspect = h.sample_aspect or type(h.sample_aspect)(1)
        return VideoFormat(h.width, h.height, h.bit_depth, colour, aspect, h.rotation, h.time_base, h.frame_rate)

    @classmethod
    def has_rgb(cls, header: Header) -> bool:
        """Whether a stream's pictures are RGB."""
        return False

    # ---------------------------------------------------------------------------- rate

    @property
    def top(self) -> RateLevel:
        """The highest rate level; `RateLevel(0)` for networks of one rate."""
        return RateLevel(0)

    def trade_off(self, level: RateLevel) -> TradeOff:
        """What an error is worth at a rate level."""
        return TradeOff()

    # -------------------------------------------------------------------------- coding

    @abstractmethod
    def picture_coder(
        self, level: RateLevel, video: VideoFormat, *, extra: bytes = b"", decisions: Decisions = PLAIN
    ) -> PictureCoder:
        """A coder of frames; extra: as a header carries it, empty to encode; decisions: or a decoder's quantiser.

        Raises UnsupportedVersionError for a quantiser that the family is not coded with.
        """

    def only_rounds(self, quantizer: Quantizer) -> None:
        """Raise UnsupportedVersionError for anything but plain rounding."""
        if quantizer != ROUNDING:
            raise UnsupportedVersionError(
                f"the file codes '{self.name}' with quantiser {quantizer.code}, "
                "which this vidcodec does not know: update vidcodec"
            )

    # ------------------------------------------------------------------------ adapting

    def crops(self, frames: Sequence[Frame], video: VideoFormat, **how: Any) -> Crops:
        """Batches to finetune on; how: as `FrameCrops` takes it."""
        return FrameCrops(frames, video.bit_depth, self.multiple, self.device, **how)

    @abstractmethod
    def objective(self, level: RateLevel, video: VideoFormat, decisions: Decisions = PLAIN) -> Objective:
        """What finetuning lowers; decisions: of the file's quantiser."""

    def fitter(
        self,
        level: RateLevel,
        video: VideoFormat,
        frames: Sequence[Frame],
        rounds: int,
        shared: int,
        seed: int,
        before: tuple[Frame, bytes] | None = None,
    ) -> Fitter:
        """A search for the symbols of frames, and for a network that `shared` frames pay for; 0: with this one.

        rounds: visits to each frame. before: another frame and its payload, for a start.
        """
        raise NotImplementedError(f"{type(self).__name__} finds its symbols by an analysis")

    # ------------------------------------------------------------- settings and latents

    def search_settings(
        self, level: RateLevel, pictures: Sequence[Any], quantizer: str, step: Callable[[int], None]
    ) -> Settings:
        """The settings of least true cost on pictures (of `crops().checks()`), among those of a quantiser's name."""
        raise NotImplementedError(f"{type(self).__name__} knows no quantiser but rounding")

    def decisions(self, settings: Settings, level: RateLevel, pictures: Sequence[Any], method: str = "") -> Decisions:
        """What decides the symbols under settings; method: of refinement, if any."""
        return Decisions(settings.quantizer)

    def refiner(
        self,
        level: RateLevel,
        video: VideoFormat,
        refine: str,
        decisions: Mapping[str, Decisions],
        steps: int,
        seed: int,
    ) -> Refiner:
        """A search for better latents; decisions: by method, of `refining_methods`."""
        raise NotImplementedError(f"{type(self).__name__} knows no refinement")

    def refining_methods(self, refine: str) -> Sequence[str]:
        """What `decisions` is to be asked for before `refiner`."""
        return (refine,)


def check_symbols(log: SymbolLog, expected: int, what: str) -> None:
    """Raise CorruptBitstreamError unless what was decoded is what was coded."""
    if log.crc != expected:
        raise CorruptBitstreamError(
            f"{what}: the decoded symbols do not match their checksum; payload or model differ from the encoder's"
        )
