"""H.266 by VVenC, in a program of its own: planes through a pipe, packets out of a file of one stream.

VVenC takes 10 bits, so 8-bit samples are coded four times as large. The program is told an even rate and counts
pictures; their own time stamps are put back afterwards.
"""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np

from vidcodec.errors import OutputError
from vidcodec.video import Frame, VideoFormat
from vidcodec.video.vvenc import ffmpeg_with_vvenc

KEY_PICTURES = 1 << 20  # between two key frames where nothing else is asked for: one key frame


class VvencFile:
    """Pictures coded into a file, and its packets. preset: VVenC's word; qp: 0 to 63.

    Raises OutputError where no program has VVenC, or it fails.
    """

    def __init__(self, path: Path, video: VideoFormat, preset: str, qp: int, keys: int | None) -> None:
        """keys: pictures between key frames."""
        if (program := ffmpeg_with_vvenc()) is None:
            raise OutputError("there is no ffmpeg with libvvenc here: pip install 'vidcodec[vvc]', or another 'codec'")
        self.path, self.video, self._times = path, video, array("q")
        self._rate, c = video.frame_rate or Fraction(25), video.colour
        size = f"{video.width + video.width % 2}x{video.height + video.height % 2}"
        words = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", size]
        words += ["-r", str(self._rate), "-i", "-", "-c:v", "libvvenc", "-preset", preset, "-qp", str(qp), "-qpa", "0"]
        words += ["-vvenc-params", f"IntraPeriod={keys or KEY_PICTURES}", "-fps_mode", "passthrough"]
        tags = {"colorspace": c.matrix, "color_primaries": c.primaries, "color_trc": c.transfer}
        words += [word for name, value in tags.items() for word in (f"-{name}", str(value))]
        words += ["-color_range", "2" if c.full_range else "1", "-f", "mp4", str(path)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def write(self, frames: Iterable[Frame]) -> None:
        """Code all frames."""
        pipe: IO[bytes] | None = self._process.stdin
        assert pipe is not None
        shift = 10 - self.video.bit_depth
        try:
            for frame in frames:
                self._times.append(frame.pts)
                for plane in (frame.y, *frame.uv):
                    pipe.write((_even(plane, self.video).astype("<u2") << shift).tobytes())
            pipe.close()
        except BrokenPipeError:
            pass  # it says why
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        said = self._process.stderr.read() if self._process.stderr else b""
        if self._process.wait():
            raise OutputError(f"VVenC failed: {said.decode(errors='replace').strip().splitlines()[-1:]}")

    def packets(self) -> Iterator[av.Packet]:
        """Packets in order of decoding, with the time stamps of their pictures."""
        with av.open(f"file:{self.path}") as container:
            (stream,) = container.streams.video
            order = [round((p.pts or 0) * p.time_base * self._rate) for p in container.demux(stream) if p.size]
        places = [i - min(order) for i in order]
        delay = max(self._times[k] - self._times[i] for k, i in enumerate(places))
        with av.open(f"file:{self.path}") as container:
            found = (p for p in container.demux(video=0) if p.size)
            for k, (packet, place) in enumerate(zip(found, places, strict=True)):
                packet.time_base = self.video.time_base
                packet.pts, packet.dts, packet.duration = self._times[place], self._times[k] - delay, 0
                yield packet


def _even(plane: np.ndarray, video: VideoFormat) -> np.ndarray:
    """A luma plane with even sides, grown by its edge; chroma as it is."""
    height, width = plane.shape
    grown = (height % 2, width % 2) if plane.shape == (video.height, video.width) else (0, 0)
    return np.pad(plane, tuple((0, n) for n in grown), mode="edge")
