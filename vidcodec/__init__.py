"""vidcodec: a learned video codec that adapts itself to each video.

    from vidcodec import EncodeOptions, decode_video, encode_video

    result = encode_video("talk.mp4", "talk.vdc", EncodeOptions(quality=40))
    decode_video("talk.vdc", "talk.mkv")

Names are loaded when first used, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidcodec.version import __version__

if TYPE_CHECKING:
    from vidcodec.bitstream import BitstreamReader, BitstreamWriter, Header
    from vidcodec.codec.decode import DecodeResult, VideoDecoder, decode_video
    from vidcodec.codec.encode import EncodeResult, encode_video
    from vidcodec.codec.options import EncodeOptions
    from vidcodec.errors import VidcodecError
    from vidcodec.latents.symbols import SymbolLog
    from vidcodec.video import Frame, Sampling, VideoFormat, VideoReader

_HOMES = {
    "BitstreamReader": "vidcodec.bitstream",
    "BitstreamWriter": "vidcodec.bitstream",
    "DecodeResult": "vidcodec.codec.decode",
    "EncodeOptions": "vidcodec.codec.options",
    "EncodeResult": "vidcodec.codec.encode",
    "Frame": "vidcodec.video",
    "Header": "vidcodec.bitstream",
    "Sampling": "vidcodec.video",
    "SymbolLog": "vidcodec.latents.symbols",
    "VideoDecoder": "vidcodec.codec.decode",
    "VideoFormat": "vidcodec.video",
    "VideoReader": "vidcodec.video",
    "VidcodecError": "vidcodec.errors",
    "decode_video": "vidcodec.codec.decode",
    "encode_video": "vidcodec.codec.encode",
}

__all__ = [
    "BitstreamReader",
    "BitstreamWriter",
    "DecodeResult",
    "EncodeOptions",
    "EncodeResult",
    "Frame",
    "Header",
    "Sampling",
    "SymbolLog",
    "VidcodecError",
    "VideoDecoder",
    "VideoFormat",
    "VideoReader",
    "__version__",
    "decode_video",
    "encode_video",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vidcodec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
