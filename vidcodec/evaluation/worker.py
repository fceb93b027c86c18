"""One step of one point, as an executor calls it: `work`.

In a process of its own, so that its peak memory is this step's, and an encoder that crashes takes nothing else along.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcodec.errors import CodecUnavailableError
from vidcodec.evaluation.codec import Codec, Source, exactly
from vidcodec.evaluation.rivals import parse_codec
from vidcodec.files import plain
from vidcodec.video import Frame


@dataclass(frozen=True)
class Job:
    """What a worker is told. step: 'encode' or 'measure'. source, count: the lossless frames. folder: where coded files
    are, or go.
    """

    step: str
    spec: str
    rate_point: float
    source: str
    count: int
    folder: str
    files: list[str]
    threads: int


def work(_report: object, **job: Any) -> dict[str, Any]:
    """The outcome of the step that `Job` describes. Raises VidcodecError."""
    return run(Job(**job))


def run(job: Job) -> dict[str, Any]:
    """The outcome of a step. Raises VidcodecError."""
    codec = parse_codec(job.spec).codec
    assert isinstance(codec, Codec)
    source = Source.open(Path(job.source), job.count, exact=codec.lossless)
    codec.check_format(source.format)
    codec.prepare()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(job.threads)
    return encode(job, codec, source) if job.step == "encode" else measure(job, codec, source)


def encode(job: Job, codec: Codec, source: Source) -> dict[str, Any]:
    """Code the frames; sizes, times and what the codec tells."""
    start = time.perf_counter()
    encoded = codec.encode(source, job.rate_point, Path(job.folder))
    seconds = time.perf_counter() - start
    memory = peak_memory()
    return {
        "files": [file.name for file in encoded.files],
        "rate_bytes": encoded.rate_bytes,
        "file_bytes": sum(file.stat().st_size for file in encoded.files),
        "frame_bits": encoded.frame_bits,
        "details": plain({**encoded.details, **codec.inspect(encoded.files)}),
        "notes": encoded.notes,
        "seconds": seconds,
        "memory": memory,
    }


def measure(job: Job, codec: Codec, source: Source) -> dict[str, Any]:
    """Decode the files into a spool, and compare that with the source.

    Raises CodecUnavailableError where a lossless codec gives other samples back.
    """
    from vidcodec.video import FrameSpool

    files = [Path(job.folder, file) for file in job.files]
    with closing(FrameSpool(source.format, tempfile.gettempdir())) as frames:
        start = time.perf_counter()
        for frame in exactly(source.count, codec.decode(files, source.format), job.spec):
            frames.append(frame)
        seconds = time.perf_counter() - start
        memory = peak_memory()
        told = {"seconds": seconds, "memory": memory}
        if codec.lossless:
            if not all(same(a, b) for a, b in zip(source.frames(), frames, strict=True)):
                raise CodecUnavailableError(f"{job.spec} gave other samples back: it is not lossless as installed here")
            return {"quality": {}, "frame_psnr": {}, "notes": [], "details": {"identical": True}, **told}
        from vidcodec.evaluation.metrics import measure as compare  # its libraries are not the decoder's memory

        whole = Source.open(source.path, source.count, exact=True)
        rgb = whole.frames() if whole.format.rgb else ()
        found = compare(source.frames(), frames, source.format, rgb)
    return {"quality": found.quality, "frame_psnr": found.frame_psnr, "notes": found.notes, "details": {}, **told}


def same(a: Frame, b: Frame) -> bool:
    """Whether all samples are equal, and of one depth."""
    return all(p.dtype == q.dtype and np.array_equal(p, q) for p, q in ((a.y, b.y), (a.uv, b.uv)))


def peak_memory() -> int:
    """The most bytes this process, or one it ran, ever had in memory."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux carries getrusage's maximum over from the process that started this one; its status file does not.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
