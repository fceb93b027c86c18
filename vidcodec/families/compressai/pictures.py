"""One picture through a CompressAI network and our entropy coder, both ways.

The sibling of `vidcodec.families.msp.pictures.MspPictureCodec`: the same symbols, tables, checksum
and rules. The network works on R'G'B' in [0, 1]; planes are converted on the way in and out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcodec.errors import UnsupportedInputError
from vidcodec.families.compressai.network import Coded, ExactHyperScales, choose_z_tables, parse_z_tables
from vidcodec.families.family import CodedPicture, PlaneCoder
from vidcodec.latents.quantizer import SYMBOL_LIMIT
from vidcodec.latents.symbols import SymbolReader, SymbolWriter
from vidcodec.video.colour import LUMA_WEIGHTS

# ------------------------------------------------------------------------------- colour
#
# Chroma is brought to luma's size by linear interpolation and back by the low-pass half of the
# 5/3 wavelet (Le Gall and Tabatabai 1988), its exact inverse: 4:2:0 -> R'G'B' -> 4:2:0 loses
# nothing but float rounding, and white noise in R'G'B' is halved on the way back. Samples are
# taken to lie on the even luma samples, wherever the stream says: what a shift of half a sample
# does on the way there is undone on the way back.


def planes_to_rgb(planes: Tensor, matrix: int, full_range: bool) -> Tensor:
    """Planes (B, 6, H/2, W/2) in [-0.5, 0.5] to R'G'B' (B, 3, H, W), about [0, 1], not clamped. Differentiable.

    matrix: H.273 code. Raises UnsupportedInputError for one that is not a linear Y'CbCr matrix.
    The range's end points are those of 8 bits at any depth, off by at most 1/4 code at 10 bits,
    and inverted exactly by `rgb_to_planes`.
    """
    kr, kb = _luma_weights(matrix)
    luma_scale, luma_zero, chroma_scale, chroma_zero = _range(full_range)
    y = (F.pixel_shuffle(planes[:, :4], 2) + (0.5 - luma_zero)) / luma_scale  # (B, 1, H, W)
    chroma = _lengthen(_lengthen(planes[:, 4:]).mT).mT  # (B, 2, H, W)
    cb, cr = ((chroma + (0.5 - chroma_zero)) / chroma_scale).split(1, 1)
    r = y + 2 * (1 - kr) * cr
    b = y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return torch.cat([r, g, b], 1)


def rgb_to_planes(rgb: Tensor, matrix: int, full_range: bool) -> Tensor:
    """The inverse of `planes_to_rgb`: (B, 3, H, W), H and W even, to (B, 6, H/2, W/2)."""
    kr, kb = _luma_weights(matrix)
    luma_scale, luma_zero, chroma_scale, chroma_zero = _range(full_range)
    r, g, b = rgb.split(1, 1)
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = torch.cat([(b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))], 1)
    luma = F.pixel_unshuffle(y * luma_scale, 2) + (luma_zero - 0.5)
    return torch.cat([luma, _halve(_halve(chroma.mT).mT) * chroma_scale + (chroma_zero - 0.5)], 1)


def _lengthen(x: Tensor) -> Tensor:
    """(..., n) to (..., 2n): even samples as they are, odd ones the mean of their neighbours."""
    odd = (x + torch.cat([x[..., 1:], x[..., -1:]], -1)) / 2
    return torch.stack([x, odd], -1).flatten(-2)


def _halve(x: Tensor) -> Tensor:
    """(..., 2n) to (..., n), the taps (-1, 2, 6, 2, -1) / 8 on even samples, in lifting form."""
    even, odd = x[..., ::2], x[..., 1::2]
    detail = odd - (even + torch.cat([even[..., 1:], even[..., -1:]], -1)) / 2
    return even + (torch.cat([detail[..., :1], detail[..., :-1]], -1) + detail) / 4


def _luma_weights(matrix: int) -> tuple[float, float]:
    if matrix not in LUMA_WEIGHTS:
        raise UnsupportedInputError(
            f"colour matrix {matrix} (H.273) has no conversion to RGB, which CompressAI models need: "
            "convert the video to BT.709 first, or use the default model"
        )
    return LUMA_WEIGHTS[matrix]


def _range(full_range: bool) -> tuple[float, float, float, float]:
    """Luma scale and zero, chroma scale and zero, in shares of the top code."""
    if full_range:
        return 1.0, 0.0, 1.0, 128 / 255
    return 219 / 255, 16 / 255, 224 / 255, 128 / 255


# -------------------------------------------------------------------------------- coding


class CompressAIPictureCodec(PlaneCoder):
    """A CompressAI hyperprior network on padded planes.

    model: from `load_compressai`; its scale path is read once, so build a new codec after
        changing weights.
    matrix, full_range: the planes' colour, an H.273 matrix code with nothing left unspecified.
    scale_extra: None to encode; to decode, the `extra` bytes of the encoder's object.

    Raises UnsupportedInputError for a matrix without R'G'B', CorruptBitstreamError for
    `scale_extra` no encoder wrote.
    """

    multiple = 64

    def __init__(self, model: Coded, matrix: int, full_range: bool, scale_extra: bytes | None = None) -> None:
        _luma_weights(matrix)
        self.model = model
        self.matrix, self.full_range = matrix, full_range
        self.device = model.g_s[0].weight.device
        self.scales = ExactHyperScales(model)
        self.medians = model.medians  # (N, 1, 1)
        # What a decoder's object needs besides the weights: the table of each z channel, N bytes a file.
        self.extra = choose_z_tables(model) if scale_extra is None else bytes(scale_extra)
        tables = torch.from_numpy(parse_z_tables(self.extra, model.N))
        self.z_index = tables.to(self.device)[None, :, None, None]  # (1, N, 1, 1)

    @torch.no_grad()
    def encode(self, planes: Tensor) -> CodedPicture:
        """planes: (1, 6, H/2, W/2), H and W multiples of 64. Raises ValueError for another shape."""
        if planes.dim() != 4 or planes.shape[:2] != (1, 6):
            raise ValueError(f"planes must be (1, 6, H/2, W/2), not {tuple(planes.shape)}")
        self._check_size(2 * planes.shape[2], 2 * planes.shape[3])
        y = self.model.g_a(planes_to_rgb(planes.to(self.device), self.matrix, self.full_range))
        return self.encode_latents(y, self.model.hyper_analyse(y))

    @torch.no_grad()
    def encode_latents(self, y: Tensor, z: Tensor) -> CodedPicture:
        """Quantise and code latents y (1, M, H/16, W/16) and hyper-latents z (1, N, H/64, W/64)."""
        writer = SymbolWriter()
        z_hat = torch.round(z - self.medians).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        z_index = self.z_index.expand_as(z)
        writer.put(z_hat, z_index, z_index > 0, of_z=True)
        index, mean = self.scales.index(z_hat), self.means(z_hat)
        coded = index > 0
        q = torch.round(y - mean).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT) * coded
        writer.put(q, index, coded, of_z=False)
        return CodedPicture(writer.coder.finish(), writer.log, lambda: self.synthesise(q + mean))

    @torch.no_grad()
    def reconstruct(self, payload: bytes, height: int, width: int, reference: None = None) -> CodedPicture:
        """Planes (1, 6, height/2, width/2) and the log of symbols; the caller checks its crc.

        Raises ValueError for a size that is no multiple of 64, CorruptBitstreamError for a
        payload that ends before its symbols.
        """
        self._check_size(height, width)
        z_shape = (1, self.model.N, height // 64, width // 64)
        reader = SymbolReader(payload)
        z_index = self.z_index.expand(z_shape)
        z_hat = reader.get(z_index, z_index > 0, of_z=True)
        index = self.scales.index(z_hat)
        q = reader.get(index, index > 0, of_z=False)
        y_hat = q + self.means(z_hat)
        return CodedPicture(payload, reader.log, lambda: self.synthesise(y_hat))

    def means(self, z_hat: Tensor) -> Tensor:
        """z symbols to the means of y: (1, M, H/16, W/16), or a plain zero. Ordinary floating point."""
        if not self.model.has_means:
            return z_hat.new_zeros(())
        return self.model.h_s(z_hat + self.medians).chunk(2, 1)[1]

    @torch.no_grad()
    def synthesise(self, y_hat: Tensor) -> Tensor:
        """Decoded latents (1, M, H/16, W/16) to planes around [-0.5, 0.5] (1, 6, H/2, W/2), not clamped."""
        return rgb_to_planes(self.model.g_s(y_hat), self.matrix, self.full_range)

    def _check_size(self, height: int, width: int) -> None:
        if height <= 0 or width <= 0 or height % self.multiple or width % self.multiple:
            raise ValueError(f"pictures must be padded to multiples of {self.multiple}, not {width}x{height}")
