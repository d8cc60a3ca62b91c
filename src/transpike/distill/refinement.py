"""Refinement of maps by their wavelet sub-bands: two streams, two stages, attention over level, band and place.

Source: Wang, Wang, "SFKD: Spatial-Frequency Joint-Aware Heterogeneous Knowledge Distillation via Multi-Level Wavelet
Spectral Interaction", 2026. The names and purposes of the parts are public (DS2S, of ResConvBlocks and TransBlocks with
a 4-D positional encoding). Their contents are our reading. The paper names surplus parameters as the module's weakness.
Here all work is done in a few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.checks import whole
from transpike.errors import ConfigError, DataError
from transpike.spectral.wavelet import wavedec2, waverec2

__all__ = [
    "DualStreamRefinement",
    "ResConvBlock",
    "TransBlock",
    "WaveletRefinement",
    "band_places",
    "check_refinement",
    "position_encoding",
]

MODE = "periodization"
"""The mode of the wavelet transform. It halves even sides exactly, with as many coefficients as pixels."""


def position_encoding(places: Tensor, width: int) -> Tensor:
    """Return sines and cosines of coordinates, one coordinate beside the next, so that different places differ.

    code(p)[c, k] = (sin(w_k p_c), cos(w_k p_c)),  w_k from 1/100 to 1 in equal ratios

    Vaswani et al., "Attention Is All You Need", 2017, section 3.5, for several coordinates. The lowest frequency
    distinguishes coordinates up to 628.

    Args:
        places: [*, D] with any D coordinates.
        width: the length of a code, a multiple of 2 D.

    Shapes: [*, D] -> [*, width], in float32 unless `places` is float64.

    Raises:
        ConfigError: The width is not a multiple of 2 D.

    Example:
        >>> position_encoding(torch.tensor([[0, 0], [1, 0]]), 4).round(decimals=2)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.0100, 1.0000, 0.0000, 1.0000]])
    """
    coordinates = places.shape[-1]
    if width < 1 or width % (2 * coordinates):
        raise ConfigError(f"width={width}: expected a multiple of {2 * coordinates}, for {coordinates} coordinates.")
    places = places if places.dtype == torch.float64 else places.float()
    count = width // (2 * coordinates)
    angle = places.unsqueeze(-1) * torch.logspace(-2, 0, count, dtype=places.dtype, device=places.device)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-3)


def band_places(coeffs: Sequence[Any]) -> Tensor:
    """Return level, band, row and column of every coefficient of `wavedec2`: [tokens, 4].

    Bands are 0 for the approximation and 1, 2, 3 for cH, cV, cD. Rows and columns are the centre of a coefficient in
    pixels of the maps, (index + 1/2) * 2^level. So one place has one code at all levels. The order is that of `coeffs`,
    band after band and row after row.

    Args:
        coeffs: ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``, each band [*, H, W].

    Example:
        >>> band_places(wavedec2(torch.zeros(2, 2), "haar"))
        tensor([[1., 0., 1., 1.],
                [1., 1., 1., 1.],
                [1., 2., 1., 1.],
                [1., 3., 1., 1.]])
    """
    depth = len(coeffs) - 1
    groups = [(depth, 0, 1, coeffs[0]), *((depth - i, 1, 4, high[0]) for i, high in enumerate(coeffs[1:]))]
    places = []
    for level, first, last, band in groups:
        span = [torch.arange(*ends, device=band.device).float() for ends in ((level, level + 1), (first, last))]
        grid = [(torch.arange(side, device=band.device) + 0.5) * 2**level for side in band.shape[-2:]]
        places.append(torch.cartesian_prod(*span, *grid))
    return torch.cat(places)


class ResConvBlock(nn.Module):
    """Local refinement: x + conv1x1(GELU(conv3x3(norm(x)))), maps [N, width, H, W] to the same.

    Example:
        >>> ResConvBlock(8)(torch.rand(2, 8, 1, 1)).shape
        torch.Size([2, 8, 1, 1])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.mix(F.gelu(self.spatial(self.norm(x))))
        return mixed


class TransBlock(nn.Module):
    """Global refinement: attention over tokens, then a perceptron for each; both residual, both with a norm before.

    Args:
        width: of a token.
        heads: the number of attention heads, a divisor of the width.

    Shapes: [N, L, width] -> the same.

    Example:
        >>> TransBlock(8)(torch.rand(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, width: int, *, heads: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width={width} is no multiple of heads={heads}.")
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.tell = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.each = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        projected = self.ask(self.first(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.tell(attended.transpose(1, 2).flatten(-2))
        refined: Tensor = tokens + self.each(self.second(tokens))
        return refined


class DualStreamRefinement(nn.Module):
    """DS2S: computes wavelet coefficients from wavelet coefficients, in two streams and two stages.

    Stage one is local: each band passes a `ResConvBlock`, one stream for the approximation and another for all details.
    Stage two is global: one `TransBlock` over the tokens of all bands and levels, after the `position_encoding` of
    (level, band, row, column) is added. The output tokens are normalized. Without this, training at a usual learning
    rate diverges.

    Args:
        width: channels of every band, a multiple of 8.
        levels: the levels of the decomposition. With 0 there is one band, the maps themselves, and one stream.
        heads: the number of attention heads.
        norm: whether to end with a layer norm, after which every coefficient has the same energy.

    Shapes: ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``, each band [N, width, H, W] -> the same.

    Raises:
        ConfigError: The width is not a multiple of 8, or of the heads.
        DataError: On call: the number of levels differs.

    Example:
        >>> coeffs = wavedec2(torch.rand(2, 8, 4, 4), "haar", level=1)
        >>> low, (horizontal, _, _) = DualStreamRefinement(8, levels=1)(coeffs)
        >>> low.shape, horizontal.shape
        (torch.Size([2, 8, 2, 2]), torch.Size([2, 8, 2, 2]))
    """

    def __init__(self, width: int = 32, *, levels: int = 2, heads: int = 1, norm: bool = True) -> None:
        super().__init__()
        _check_width(width)
        self.width, self.levels = width, levels
        # No second stream if there are no details: DDP raises an error for parameters that no loss depends on.
        self.streams = nn.ModuleList(ResConvBlock(width) for _ in range(min(levels, 1) + 1))
        self.interact = TransBlock(width, heads=heads)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, coeffs: Sequence[Any]) -> list[Any]:
        if len(coeffs) != self.levels + 1:
            raise DataError(f"expected coefficients of {self.levels} levels, found {len(coeffs) - 1}.")
        with torch.autocast(coeffs[0].device.type, enabled=False):
            groups = [coeffs[0].unsqueeze(1), *(torch.stack(tuple(high), 1) for high in coeffs[1:])]
            local = [
                self.streams[min(place, 1)](group.flatten(0, 1)).unflatten(0, group.shape[:2])
                for place, group in enumerate(groups)
            ]
            tokens = torch.cat([x.movedim(2, -1).flatten(1, 3) for x in local], 1)
            codes = position_encoding(band_places(coeffs), self.width).to(tokens.dtype)
            parts = self.norm(self.interact(tokens + codes)).split([x[0, :, 0].numel() for x in local], 1)
            low, *details = (
                part.unflatten(1, (x.shape[1], *x.shape[-2:])).movedim(-1, 2)
                for part, x in zip(parts, local, strict=True)
            )
        return [low.squeeze(1), *(high.unbind(1) for high in details)]


class WaveletRefinement(nn.Module):
    """Adds a learned correction to maps. It is computed in wavelet sub-bands and begins as zero.

    F + W_out IDWT(refine(DWT(W_in F))),  W_in and W_out 1x1 convolutions from and to the maps' channels

    A 1x1 convolution and a transform over places commute. So this equals DS2S of the maps' own sub-bands, reduced to
    few channels and back. But it transforms `width` channels instead of all.

    Args:
        channels: channels of the maps.
        size: (H, W) of the maps, multiples of 2^levels.
        levels: the levels of the wavelet transform. With 0 the maps themselves are refined, without wavelets.
        wavelet: a discrete wavelet of PyWavelets, by name.
        width: the number of channels for the computation.
        refine: computes coefficients from coefficients [N, width, *]. The default is a `DualStreamRefinement`.
        shortcut: whether to add the correction to the maps. Without it the result is W_out IDWT(refine(DWT(W_in F)))
            alone, with a refinement that does not end with a norm. Then it is a projection of the maps.

    Shapes: [N, C, H, W] -> the same, in the parameters' precision.

    Raises:
        ConfigError: The wavelet is unknown, or the size allows fewer levels. The message has the largest possible
            number.
        DataError: On call: the maps have another size.

    Example:
        >>> maps, refine = torch.rand(2, 3, 8, 8), WaveletRefinement(3, size=(8, 8))
        >>> torch.equal(refine(maps), maps)
        True
        >>> WaveletRefinement(3, size=(2, 2))
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: maps of 2 x 2 are too small for levels=2 of 'haar': the largest possible is 1; ...
    """

    def __init__(
        self,
        channels: int,
        *,
        size: tuple[int, int],
        levels: int = 2,
        wavelet: str = "haar",
        width: int = 32,
        refine: nn.Module | None = None,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.levels, self.wavelet = (size[0], size[1]), levels, wavelet
        self._check_size()
        self.enter, self.leave = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        self.refine = DualStreamRefinement(width, levels=levels, norm=shortcut) if refine is None else refine
        self.shortcut = shortcut
        if shortcut:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        if maps.ndim != 4 or maps.shape[-2:] != self.size:
            raise DataError(f"expected maps [N, C, {self.size[0]}, {self.size[1]}], found {list(maps.shape)}.")
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.to(self.enter.weight.dtype)
            coeffs = wavedec2(self.enter(maps), self.wavelet, MODE, self.levels)
            refined: Tensor = self.leave(waverec2(self.refine(coeffs), self.wavelet, MODE))
        return maps + refined if self.shortcut else refined

    def extra_repr(self) -> str:
        return f"size={self.size}, levels={self.levels}, wavelet={self.wavelet!r}"

    def _check_size(self) -> None:
        height, width = self.size
        whole("levels", self.levels, least=0)
        deepest = len(wavedec2(torch.zeros(height, width, device="cpu"), self.wavelet, MODE)) - 1
        if self.levels > deepest:
            raise ConfigError(
                f"maps of {height} x {width} are too small for levels={self.levels} of {self.wavelet!r}: the largest "
                f"possible is {deepest}; give levels={deepest} in the settings, or tap larger maps."
            )
        if height % 2**self.levels or width % 2**self.levels:
            raise ConfigError(f"maps of {height} x {width}: both must be multiples of 2^levels = {2**self.levels}.")


def check_refinement(*, levels: int, wavelet: str, width: int) -> None:
    """Raise an error for settings with which no `WaveletRefinement` of any maps exists.

    Raises:
        ConfigError: A setting is wrong. The message names it.

    Example:
        >>> check_refinement(levels=2, wavelet="haar", width=12)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: width=12: expected a multiple of 8, for four coordinates.
    """
    whole("levels", levels, least=0)
    _check_width(width)
    wavedec2(torch.zeros(1, 1, device="cpu"), wavelet, MODE, 0)  # raises an error for an unknown name


def _check_width(width: int) -> None:
    whole("width", width)
    if width % 8:
        raise ConfigError(f"width={width}: expected a multiple of 8, for four coordinates.")
