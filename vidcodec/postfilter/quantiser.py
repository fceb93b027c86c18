"""Quantisers of all codecs on one scale: QP as H.264 and HEVC count it, 0 .. 51."""

from __future__ import annotations

import math

import av
import numpy as np

# Frame types as FFmpeg numbers them: I, P, B. Whatever else there is counts as P.
FRAME_TYPES = (1, 2, 3)
_LAMBDA_PER_QP = 118  # FF_QP2LAMBDA
# SVT-AV1's 0 .. 63 and VP9's: the quantiser step (AV1 specification, 7.12.2, AC, 8 bit) in eighths of a code
# value, and the H.264 step 0.625 * 2^(QP / 6) that equals it.
_AV1_LEVELS = (0, 10, 20, 30, 40, 50, 57, 63)
_AV1_STEPS = (4.0, 44.0, 84.0, 128.0, 208.0, 400.0, 860.0, 1828.0)


def frame_type(pict_type: int) -> int:
    """0, 1, 2 for I, P, B."""
    return FRAME_TYPES.index(pict_type) if pict_type in FRAME_TYPES else 1


def qp_of_av1(level: float) -> float:
    """The H.264 QP whose quantiser step equals that of an AV1 or VP9 level (0 .. 63)."""
    step = math.exp(np.interp(level, _AV1_LEVELS, np.log(_AV1_STEPS))) / 8
    return min(max(6 * math.log2(step / 0.625), 0.0), 51.0)


def level_of_qp(qp: float) -> int:
    """The AV1 level (1 .. 63) nearest to an H.264 QP."""
    return min(range(1, 64), key=lambda level: abs(qp_of_av1(level) - qp))


def packet_qp(packet: av.Packet) -> float | None:
    """The mean QP that x264 and x265 note beside a packet of theirs; None where there is none."""
    for data in packet.iter_sidedata():
        if data.data_type == "quality_stats":
            return int.from_bytes(bytes(data)[:4], "little") / _LAMBDA_PER_QP
    return None
