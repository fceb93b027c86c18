"""Long sources: peak memory and disk by length, kills at random moments, decoding and seeking.

    python scripts/measure_long.py CLIP --minutes 10,60,120 --kills 20

Sources are the clip's frames, looped and coded by x264 at 25 frames a second in a small size: what grows with length
shows there as well, and hours take minutes. Each is encoded as a user would (--fps, --preset, --work), decoded to .y4m,
and its last frame alone. Memory is the peak of the process; disk is the most that its temporary files, unlinked ones
too, and its work folder took together. Then the shortest source is encoded again, killed with SIGKILL at so many random
moments, and started anew with the same command each time: the bytes must be those of one go.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

from vidcodec.evaluation.measurement import Figure, Measurement, numbers, parser, say
from vidcodec.evaluation.tables import markdown
from vidcodec.files import file_digest

POLL_SECONDS = 0.05
CODE = ("bitstream", "codec", "entropy", "families", "latents", "updates", "video", "cli")
RATE = 25


def looped(clip: Path, minutes: float, size: str, target: Path) -> Path:
    """The clip's frames again and again, scaled and coded by x264."""
    width, height = map(int, size.split("x"))
    with av.open(str(clip)) as container:
        frames = [f.reformat(width, height, "yuv420p") for f in container.decode(video=0)]
    with av.open(str(target), "w") as container:
        options = {"preset": "ultrafast", "crf": "20", "x264-params": "log-level=none"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in zip(range(round(60 * RATE * minutes)), cycle([*frames, *frames[-2:0:-1]]), strict=False):
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, RATE), 0  # type: ignore[assignment]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target


class Watched:
    """A command line, its peak memory and the most disk space that it took in a folder and in unlinked files."""

    def __init__(self, words: list[Any], folder: Path) -> None:
        self.folder, self.memory, self.disk, self.began = folder, 0, 0, time.monotonic()
        command = [sys.executable, "-m", "vidcodec", *map(str, words)]
        environment = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Whether it ended before so many seconds; else it is killed. Raises RuntimeError where it failed."""
        while self.process.poll() is None:
            if time.monotonic() - self.began > seconds:
                self.process.kill()
                self.process.communicate()
                return False
            self._look()
            time.sleep(POLL_SECONDS)
        _, said = self.process.communicate()
        self.seconds = time.monotonic() - self.began
        if self.process.returncode:
            raise RuntimeError(said.decode(errors="replace").strip().splitlines()[-1])
        return True

    def _look(self) -> None:
        own = Path(f"/proc/{self.process.pid}")
        try:
            peak = next(line for line in (own / "status").read_text().splitlines() if line.startswith("VmHWM"))
            self.memory = max(self.memory, 1024 * int(peak.split()[1]))
            files = [os.stat(fd).st_blocks for fd in (own / "fd").iterdir() if "(deleted)" in os.readlink(fd)]
        except (OSError, StopIteration):
            return  # it has just ended
        kept = 0
        for path in self.folder.rglob("*"):
            try:
                kept += path.stat().st_blocks
            except OSError:
                continue
        self.disk = max(self.disk, 512 * (kept + sum(files)))


def encode_words(source: Path, output: Path, folder: Path, args: Any) -> list[Any]:
    """The command that is measured."""
    words = ["encode", source, "-o", output, "--fps", args.fps, "--preset", args.preset, "--work", folder / "work"]
    return [*words, *(["--weights", args.weights] if args.weights else [])]


def one_length(args: Any, minutes: float) -> Figure:
    """Encode, decode, and decode the last frame alone."""
    with TemporaryDirectory(prefix="long-") as name:
        folder = Path(name)
        source = looped(args.clip, minutes, args.size, folder / "source.mkv")
        (scratch := folder / "scratch").mkdir()
        output = folder / "coded.vdc"
        coding = Watched(encode_words(source, output, scratch, args), scratch)
        coding.wait()
        frames = round(60 * minutes * float(args.fps))
        weights = ["--weights", args.weights] if args.weights else []
        decoding = Watched(["decode", output, "-o", folder / "shown.y4m", *weights], scratch)
        decoding.wait()
        last = f"{frames - 1}:"
        seeking = Watched(["decode", output, "-o", folder / "last", "--frames", last, *weights], scratch)
        seeking.wait()
        return {
            "source_bytes": source.stat().st_size,
            "file_bytes": output.stat().st_size,
            "memory": coding.memory,
            "disk": coding.disk,
            "seconds": coding.seconds,
            "decode_memory": decoding.memory,
            "decode_disk": decoding.disk,
            "decode_seconds": decoding.seconds,
            "seek_seconds": seeking.seconds,
        }


def kills(args: Any, minutes: float) -> Figure:
    """The same command again and again, killed at random moments of its course; begun afresh whenever it is through."""
    rng = random.Random(args.seed)
    with TemporaryDirectory(prefix="long-") as name:
        folder = Path(name)
        source = looped(args.clip, minutes, args.size, folder / "source.mkv")
        whole, broken = folder / "whole.vdc", folder / "broken.vdc"
        scratch = [folder / "one", folder / "two"]
        for path in scratch:
            path.mkdir()
        in_one_go = Watched(encode_words(source, whole, scratch[0], args), scratch[0])
        in_one_go.wait()
        killed, files = 0, 0
        while killed < args.kills or not files:
            moment = rng.uniform(0.1, 1.0) * in_one_go.seconds if killed < args.kills else float("inf")
            if not Watched(encode_words(source, broken, scratch[1], args), scratch[1]).wait(moment):
                killed += 1
                continue
            files += 1
            if file_digest(whole) != file_digest(broken):
                raise RuntimeError(f"after {killed} kills the file is another one")
            if killed < args.kills:
                broken.unlink()
        return {"killed": killed, "files": files, "seconds": in_one_go.seconds}


def main() -> None:
    p = parser(__doc__, "long", frames=None)
    p.add_argument("clip", type=Path, metavar="CLIP")
    p.add_argument("--minutes", type=numbers, default=[10, 60, 120])
    p.add_argument("--size", default="176x144", metavar="WxH")
    p.add_argument("--preset", default="fast")
    p.add_argument("--kills", type=int, default=20, metavar="N")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    m = Measurement(args, __doc__)
    usual = {"clip": args.clip.name, "size": args.size, "fps": str(args.fps), "preset": args.preset}
    rows = []
    for minutes in args.minutes:
        found = m.figure({**usual, "minutes": minutes}, partial(one_length, args, minutes), CODE)
        if found:
            mega = [f"{found[k] / 1e6:.1f}" for k in ("source_bytes", "file_bytes", "memory", "disk", "decode_memory")]
            times = [f"{found[k]:.1f}" for k in ("seconds", "decode_seconds", "seek_seconds")]
            rows.append([f"{minutes:g}", *mega, *times])
    shortest = min(args.minutes)
    key = {**usual, "minutes": shortest, "kills": args.kills, "seed": args.seed}
    found = m.figure(key, partial(kills, args, shortest), CODE) if args.kills else None
    say("")
    head = [
        "minutes",
        "source MB",
        "file MB",
        "memory MB",
        "disk MB",
        "decode memory MB",
        "encode s",
        "decode s",
        "seek s",
    ]
    told = found and (
        f"{found['killed']} kills at random moments of encodes of {shortest:g} minutes, {found['seconds']:.0f} s in "
        f"one go: the same bytes in all {found['files']} files that were finished in spite of them."
    )
    m.publish(markdown(head, rows, 1), told or "")


if __name__ == "__main__":
    main()
