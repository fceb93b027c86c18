"""Programs with VVenC, the encoder of H.266: PyAV's own FFmpeg has none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module


def ffmpeg_with_vvenc() -> str | None:
    """An `ffmpeg` that has libvvenc: the one on the PATH, or that of the package imageio-ffmpeg."""
    return next(filter(_has_vvenc, _ffmpegs()), None)


def _ffmpegs() -> Iterator[str]:
    if found := shutil.which("ffmpeg"):
        yield found
    with suppress(ImportError, RuntimeError):  # not installed; installed without its program
        yield import_module("imageio_ffmpeg").get_ffmpeg_exe()


def _has_vvenc(ffmpeg: str) -> bool:
    done = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return " libvvenc " in done.stdout
