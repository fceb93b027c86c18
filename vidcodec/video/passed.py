"""Streams of audio and subtitles, passed from one container into another as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import OutputContainer

_PASSED = ("audio", "subtitle")


class Passed:
    """Audio and subtitles of a file, packet by packet into another one, in step with its video; its title too.

    begin, end: seconds of the source that are passed. origin: those that become 0.
    """

    def __init__(
        self,
        source: Path,
        target: OutputContainer,
        notes: list[str],
        begin: Fraction = Fraction(0),
        end: Fraction | None = None,
        origin: Fraction = Fraction(0),
    ) -> None:
        self._begin, self._end, self._origin = begin, end, origin
        self._container = av.open(f"file:{source}", metadata_errors="replace")
        self._target = target
        target.metadata.update(self._container.metadata)
        self._streams: dict[int, av.stream.Stream] = {}
        for stream in self._container.streams:
            if stream.type not in _PASSED:
                continue
            if holds(target.format.name, stream):
                self._streams[stream.index] = copied_stream(stream, target)
            else:
                codec = stream.codec_context.name if stream.codec_context else "an unknown codec"
                notes.append(f"{stream.type} in {codec} left out: {target.format.name} cannot hold it")
        chosen = [self._container.streams[i] for i in self._streams]
        self._packets = self._demuxed(chosen) if chosen else iter(())
        self._next = next(self._packets, None)

    @property
    def any(self) -> bool:
        """Whether there is something to pass."""
        return bool(self._streams)

    def _demuxed(self, streams: list[av.stream.Stream]) -> Iterator[av.Packet]:
        for packet in self._container.demux(streams):
            if packet.size:
                if packet.dts is None:
                    packet.dts = packet.pts
                if self._begin or self._end is not None:
                    at = (packet.dts or 0) * packet.time_base
                    if at < self._begin or (self._end is not None and at >= self._end):
                        continue
                if self._origin:
                    shift = round(self._origin / packet.time_base)
                    packet.pts, packet.dts = (None if t is None else t - shift for t in (packet.pts, packet.dts))
                yield packet

    def until(self, seconds: Fraction | None) -> None:
        """Pass on what belongs before a time; None: the rest."""
        while (packet := self._next) is not None:
            if seconds is not None and (packet.dts or 0) * packet.time_base > seconds:
                return
            packet.stream = self._streams[packet.stream_index]
            self._target.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._container.close()


def holds(format: str, stream: av.stream.Stream) -> bool:
    """Whether a container can carry a stream: tried on an empty one, since few muxers can be asked."""
    try:
        with av.open(io.BytesIO(), "w", format=format) as trial:
            copied_stream(stream, trial)
            trial.start_encoding()
        return True
    except (ValueError, av.error.FFmpegError):
        return False


def copied_stream(stream: av.stream.Stream, target: OutputContainer) -> av.stream.Stream:
    """A stream for the packets of another one, with its language, title and disposition."""
    copy = target.add_stream_from_template(stream, opaque=True)  # not every codec that is read can be written
    for key in ("language", "title"):
        if key in stream.metadata:
            copy.metadata[key] = stream.metadata[key]
    copy.disposition = stream.disposition
    return copy


def write_sound(source: Path, target: Path, begin: Fraction, end: Fraction | None, notes: list[str]) -> bool:
    """Audio and subtitles of a file from `begin` to `end` seconds into a Matroska file of their own; whether any are.

    Time stamps are those of the source, to the millisecond.
    """
    options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
    with av.open(f"file:{target}", "w", format="matroska", options=options) as container:
        passed = Passed(source, container, notes, begin, end)
        try:
            if passed.any:
                passed.until(None)
            return passed.any
        finally:
            passed.close()
