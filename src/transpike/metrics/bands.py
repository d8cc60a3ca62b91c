"""The scales and directions in which maps vary: the energy of their wavelet sub-bands."""

from __future__ import annotations

import torch
from torch import Tensor

from transpike.errors import DataError
from transpike.spectral.wavelet import wavedec2

__all__ = ["BandEnergy", "band_names", "sub_bands"]

MODE = "periodization"
"""The mode of the wavelet transform. It gives as many coefficients as pixels if sides are multiples of 2^levels."""


def sub_bands(maps: Tensor, *, wavelet: str = "haar", levels: int = 2) -> list[Tensor]:
    """Return the sub-bands of maps in the order of `band_names`: [*, H / 2^level, W / 2^level] each.

    Args:
        maps: [*, H, W].
        wavelet: a discrete wavelet of PyWavelets, by name.
        levels: the levels of the transform.

    Raises:
        DataError: A side is not a multiple of 2^levels.

    Example:
        >>> [tuple(band.shape) for band in sub_bands(torch.zeros(8, 4), levels=1)]
        [(4, 2), (4, 2), (4, 2), (4, 2)]
    """
    if any(side % 2**levels for side in maps.shape[-2:]):
        raise DataError(f"maps of {maps.shape[-2]} x {maps.shape[-1]}: expected multiples of 2^{levels} a side.")
    low, *details = wavedec2(maps, wavelet, MODE, levels)
    return [low, *(band for level in details for band in level)]


def band_names(levels: int) -> list[tuple[str, int]]:
    """Return band and level of each sub-band, coarse to fine.

    "A" is the low-pass rest. "H", "V" and "D" are the details: high-pass along H, along W, and along both.

    Example:
        >>> band_names(2)
        [('A', 2), ('H', 2), ('V', 2), ('D', 2), ('H', 1), ('V', 1), ('D', 1)]
    """
    return [("A", levels), *((band, level) for level in range(levels, 0, -1) for band in "HVD")]


class BandEnergy:
    """The mean energy of maps in each wavelet sub-band, over any number of batches.

    The energy of a band is the sum of its squared coefficients divided by the pixels of the map, without the map's own
    mean. By Parseval's theorem the energies of an orthogonal wavelet's bands sum to the maps' variance.

    Args:
        wavelet: as in `sub_bands`.
        levels: as in `sub_bands`.

    Example:
        >>> stripes = torch.tensor([[1.0], [-1.0]]).repeat(2, 4)  # along H
        >>> energy = BandEnergy(levels=1)
        >>> energy.update(stripes[None] + 7)
        >>> dict(zip(band_names(1), energy.energy.round(decimals=4).tolist()))
        {('A', 1): 0.0, ('H', 1): 1.0, ('V', 1): 0.0, ('D', 1): 0.0}
        >>> energy.white.tolist()
        [0.2, 0.26666..., 0.26666..., 0.26666...]
    """

    def __init__(self, *, wavelet: str = "haar", levels: int = 2) -> None:
        self.wavelet, self.levels = wavelet, levels
        self._total: Tensor | None = None
        self._maps = 0
        self._coefficients: list[int] = []

    def update(self, maps: Tensor) -> None:
        """Add maps [*, H, W]. All leading axes are averaged.

        Raises:
            DataError: A side is not a multiple of 2^levels, or its size differs from earlier maps.
        """
        maps = maps.detach().flatten(0, -3)
        bands = sub_bands(maps - maps.mean((-2, -1), keepdim=True), wavelet=self.wavelet, levels=self.levels)
        coefficients = [band[0].numel() for band in bands]
        if self._coefficients not in ([], coefficients):
            raise DataError(f"maps of {list(maps.shape[-2:])} after maps of another size: expected one size.")
        energy = torch.stack([band.double().square().sum() for band in bands]).cpu() / maps[0].numel()
        if coefficients[0] == 1:
            energy[0] = 0.0  # only the mean, which rounding has left
        self._total = energy if self._total is None else self._total + energy
        self._maps += len(maps)
        self._coefficients = coefficients

    @property
    def energy(self) -> Tensor:
        """The energy of each band, [1 + 3 levels]."""
        if self._total is None:
            raise DataError("no maps were given, so they have no energy: call update first.")
        return self._total / self._maps

    @property
    def white(self) -> Tensor:
        """The share of each band in the energy of white noise."""
        counts = torch.tensor(self._coefficients, dtype=torch.float64)
        counts[0] -= 1  # the mean
        return counts / counts.sum()
