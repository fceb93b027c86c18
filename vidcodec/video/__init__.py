"""Video in and out: frames read from anything FFmpeg opens, sampled, spooled, converted and written."""

from vidcodec.video.colour import rgb_to_yuv, yuv_to_rgb
from vidcodec.video.frame import ColourTags, Frame, VideoFormat
from vidcodec.video.reader import VideoReader
from vidcodec.video.sampling import Sampling
from vidcodec.video.spool import FrameSpool
from vidcodec.video.writer import FrameWriter, open_writer

__all__ = [
    "ColourTags",
    "Frame",
    "FrameSpool",
    "FrameWriter",
    "Sampling",
    "VideoFormat",
    "VideoReader",
    "open_writer",
    "rgb_to_yuv",
    "yuv_to_rgb",
]
