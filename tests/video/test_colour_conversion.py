"""Y'CbCr and R'G'B'."""

from __future__ import annotations

import numpy as np
import pytest

from vidcodec.errors import UnsupportedInputError
from vidcodec.video import ColourTags, Frame, VideoFormat, rgb_to_yuv, yuv_to_rgb

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def flat(format, y, u, v):
    chroma = np.empty((2, format.chroma_height, format.chroma_width), format.dtype)
    chroma[0], chroma[1] = u, v
    return Frame(np.full((format.height, format.width), y, format.dtype), chroma, 0)


@pytest.mark.parametrize(
    ("matrix", "full", "rgb", "yuv"),
    [
        (6, False, RED, (81, 90, 240)),
        (6, False, GREEN, (145, 54, 34)),
        (6, False, BLUE, (41, 240, 110)),
        (1, False, RED, (63, 102, 240)),
        (1, False, GREEN, (173, 42, 26)),
        (1, False, BLUE, (32, 240, 118)),
        (9, False, RED, (74, 97, 240)),
        (6, False, WHITE, (235, 128, 128)),
        (6, False, BLACK, (16, 128, 128)),
        (1, True, WHITE, (255, 128, 128)),
        (6, True, RED, (76, 85, 255)),
    ],
)
def test_known_values(matrix, full, rgb, yuv):
    format = VideoFormat(6, 4, colour=ColourTags(matrix=matrix, full_range=full))
    frame = rgb_to_yuv(np.full((4, 6, 3), rgb, np.uint8), format, 5)
    assert (frame.y[0, 0], *frame.uv[:, 0, 0]) == yuv
    assert frame.pts == 5
    back = yuv_to_rgb(frame, format)
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - rgb).max() <= 3


def test_the_matrix_of_an_untagged_picture():
    tags = ColourTags()
    assert (tags.resolved_matrix(576), tags.resolved_matrix(720)) == (6, 1)
    assert ColourTags(matrix=9).resolved_matrix(576) == 9


def test_ten_bits_go_to_sixteen():
    format = VideoFormat(4, 4, 10, ColourTags(matrix=9))
    assert (yuv_to_rgb(flat(format, 940, 512, 512), format) == 65535).all()
    assert (yuv_to_rgb(flat(format, 64, 512, 512), format) == 0).all()
    frame = rgb_to_yuv(np.full((4, 4, 3), 65535, np.uint16), format, 0)
    assert (frame.y == 940).all()
    assert (frame.uv == 512).all()


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (2, 1)])
@pytest.mark.parametrize("location", range(7))
def test_flat_pictures_of_any_size_stay_flat(size, location):
    format = VideoFormat(*size, colour=ColourTags(matrix=6, chroma_location=location))
    rgb = yuv_to_rgb(flat(format, 120, 100, 150), format)
    assert rgb.shape == (size[1], size[0], 3)
    assert (rgb == rgb[0, 0]).all()
    frame = rgb_to_yuv(rgb, format, 0)
    assert np.abs(frame.y.astype(int) - 120).max() <= 1


def test_chroma_is_interpolated_from_where_it_lies():
    ramp = Frame(np.full((2, 6), 128, np.uint8), np.full((2, 1, 3), 128, np.uint8), 0)
    ramp.uv[1, 0] = (128, 138, 148)  # Cr: red - 128 = 1.402 (Cr - 128) in full range
    left = VideoFormat(6, 2, colour=ColourTags(matrix=6, full_range=True, chroma_location=1))
    centre = VideoFormat(6, 2, colour=ColourTags(matrix=6, full_range=True, chroma_location=2))
    for format, steps in ((left, [0, 5, 10, 15, 20, 20]), (centre, [0, 2.5, 7.5, 12.5, 17.5, 20])):
        red = yuv_to_rgb(ramp, format)[0, :, 0]
        assert np.abs(red - (128 + 1.402 * np.array(steps))).max() <= 0.51


def test_a_matrix_without_luma_weights():
    format = VideoFormat(4, 4, colour=ColourTags(matrix=8))
    with pytest.raises(UnsupportedInputError, match="matrix 8"):
        yuv_to_rgb(flat(format, 1, 1, 1), format)


def test_rgb_of_another_shape():
    with pytest.raises(ValueError):
        rgb_to_yuv(np.zeros((4, 5, 3), np.uint8), VideoFormat(4, 4), 0)
