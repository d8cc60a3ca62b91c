"""The input code of DCT-SNN: each time step shows one frequency of an image's blocks as ternary spikes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from transpike.checks import number, whole
from transpike.coding.color import rgb, ycbcr
from transpike.coding.encoder import Encoder
from transpike.coding.settings import INTERMITTENT, period
from transpike.errors import ConfigError, DataError, ModelError
from transpike.quantiles import Quantiles
from transpike.spectral.cosine import block_count, block_dct, block_idct, dctn, idctn, zigzag

__all__ = ["DCTEncoder"]

_FIT_BATCH = 64

OFFSETS = {"ycbcr": 0.0, "ycbcr-offset": 128 / 255}
"""What each value of ``color`` adds to both chroma channels."""


class DCTEncoder(Encoder):
    r"""Encodes images [N, C, H, W] as ternary spikes [T, N, C, H', W']; each step shows one frequency of every block.

    Every block x block square of the image has coefficients :math:`F_k` and basis images :math:`B_k` (orthonormal 2-D
    DCT, k in zigzag order; `transpike.spectral.cosine`). One neuron for each pixel of a block integrates, without leak,
    what its step shows. It fires ternary spikes with soft reset::

        u[t] = u[t-1] + F_k(t) B_k(t)
        s[t] = 1 if u[t] > high, -1 if u[t] < low, else 0
        u[t] = u[t] - high     after a 1,     u[t] - low     after a -1

    A period shows each frequency once, so the sum over a period is the block itself. ``H' = rows * block`` and
    ``W' = columns * block``: the blocks lie side by side, also if they overlap in the image (32 x 32 with block 4 and
    stride 2 gives 60 x 60). If the last blocks extend beyond the image, its last row and column are repeated.

    Source: Garg, Chowdhury, Roy, "DCT-SNN: Using DCT to Distribute Spatial Information over Time for Low-Latency
    Spiking Neural Networks", ICCV 2021, supplement, Eq. 12 and Section 6. Where the text is silent we interpret [I].
    The thresholds are percentiles over all pixels, channels and frequencies of a period, one for positive and one for
    negative spikes. The authors compute them from each batch. We compute them once from training images (`fit`), so the
    spikes of a sample do not depend on its batch. The interleaved order spreads T evenly if T is not a multiple of the
    period. An order that shows less than a period shows the beginning of the period, with the thresholds of the whole.

    Args:
        block: side of a block in pixels.
        stride: pixels from one block to the next. The default is `block`, without overlap. The paper uses 2 for CIFAR.
        steps: T.
        order: ``"cyclic"``: 0, 1, 2, ..., 0, 1, 2, ...; ``"interleaved"``: 0, 0, 0, 1, 1, 1, ...; ``"intermittent"``:
            cyclic over the paper's eight frequencies 0, 2, 5, 7, 9, 10, 12, 15 unless `frequencies` names others; or a
            list of zigzag ranks, one for each step, which is repeated until T.
        frequencies: how many of the lowest frequencies to show, or their zigzag ranks. The default is all.
        percentile: the percentile of the shown values that sets `high`. `low` is the (100 - percentile)-th.
        color: ``"ycbcr"`` first converts three channels to luma and chroma, as the paper does for CIFAR. None leaves
            the colours. ``"ycbcr-offset"`` adds 128/255 to both chroma channels, as the authors' code does with
            normalised images. Then grey has chroma too, and spikes of it.

    Attributes:
        schedule: the zigzag rank that each of the T steps shows.
        period: the ranks of one period.
        thresholds: buffer [2] = (low, high) in float32; NaN before `fit`.

    Shapes: [N, C, H, W], of any real range and size -> [T, N, C, H', W'] in {-1, 0, 1}, in the images' dtype. No
    gradient flows to the images.

    Raises:
        ConfigError: A value is outside its range.
        ModelError: On call: the thresholds are not set yet.
        DataError: On call: the images have another shape, are integers, or are not finite.

    Warns:
        UserWarning: if T is shorter than a period, so that some frequencies are never shown.

    Example:
        >>> images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> encoder = DCTEncoder(steps=32).fit(images)
        >>> spikes = encoder(images)
        >>> spikes.shape, spikes.unique()
        (torch.Size([32, 16, 1, 8, 8]), tensor([-1.,  0.,  1.]))
        >>> encoder.schedule[:3], DCTEncoder(steps=48, order="interleaved").schedule[:4]
        ((0, 1, 2), (0, 0, 0, 1))
        >>> [round(float((encoder.decode(spikes[:t]) - images).abs().mean()), 2) for t in (1, 4, 16, 32)]
        [0.5, 0.44, 0.1, 0.05]
    """

    thresholds: Tensor
    basis: Tensor

    def __init__(
        self,
        *,
        block: int = 4,
        stride: int | None = None,
        steps: int = 48,
        order: str | Sequence[int] = "cyclic",
        frequencies: int | Sequence[int] | None = None,
        percentile: float = 93.5,
        color: str | None = None,
    ) -> None:
        super().__init__(steps)
        if color is not None and color not in [*OFFSETS]:  # a list also takes values that have no hash
            raise ConfigError(f"color={color!r}: expected None, or {' or '.join(map(repr, OFFSETS))}.")
        self.block = whole("block", block)
        self.stride = self.block if stride is None else whole("stride", stride, most=self.block)
        self.period = period(order, frequencies, block=block)
        self.order = order if isinstance(order, str) else self.period
        self.percentile = number("percentile", percentile, above=50, most=100)
        self.color = color
        count = len(self.period)
        if steps < count:
            warnings.warn(
                f"steps={steps}: only the first {steps} of a period's {count} frequencies are shown, but all of them "
                f"set the thresholds. Set frequencies={steps} to use only those that are shown.",
                stacklevel=2,
            )
        spread = order == "interleaved"
        self.schedule = tuple(
            self.period[t * count // max(steps, count) if spread else t % count] for t in range(steps)
        )
        rows, columns = zip(*zigzag(block), strict=True)
        self._rows, self._columns = list(rows), list(columns)
        images = idctn(torch.eye(block * block, dtype=torch.float64).view(-1, block, block))
        ranks = [u * block + v for u, v in zip(rows, columns, strict=True)]
        self.register_buffer("basis", images[ranks].flatten(1).float(), persistent=False)
        self.register_buffer("thresholds", torch.full((2,), math.nan))

    @torch.no_grad()
    def fit(self, images: Tensor | Iterable[Tensor | Sequence[Tensor]]) -> DCTEncoder:
        """Set the thresholds from training images; a few thousand are enough.

        The order of the images and their division into batches do not matter. The percentiles are accurate to 0.1 %.

        Args:
            images: [N, C, H, W], or batches of such images. A loader whose batches are (images, labels) works too.

        Returns:
            The encoder itself.

        Raises:
            DataError: There are no images, a batch has another shape, or both thresholds are zero.

        Warns:
            UserWarning: if one threshold is zero; it then takes the other's magnitude.

        Example:
            >>> DCTEncoder(steps=16).fit(torch.linspace(-1, 1, 64).view(1, 1, 8, 8)).thresholds
            tensor([-0.0463,  0.0463])
        """
        above, below = Quantiles("shown values"), Quantiles("shown values")
        for batch in _batches(images):
            coefficients, _ = self._coefficients(batch.to(self.thresholds.device))
            for k in self.period:
                shown = self.basis[k][:, None] * coefficients[k]
                # Clipping at 0 commutes with percentiles and leaves the magnitudes.
                above.update(shown.clamp(min=0))
                below.update(shown.clamp(max=0))
        if not above.count:
            raise DataError("fit got no images: pass training images [N, C, H, W], or a loader that still has batches.")
        high, low = above.quantile(self.percentile), -below.quantile(self.percentile)
        if high == low == 0:
            raise DataError(
                f"both thresholds are zero, because more than {self.percentile} % of the shown coefficients are zero. "
                "Use a percentile nearer to 100, or check whether the images are blank."
            )
        if not (high and low):
            high, low = max(high, -low), min(low, -high)
            warnings.warn(
                f"the images have almost no {'positive' if above.maximum < below.maximum else 'negative'} values, "
                f"so their threshold would be zero. It gets the size of the other: the thresholds are {low:.4g} and "
                f"{high:.4g}.",
                stacklevel=2,
            )
        self.thresholds.copy_(torch.tensor([low, high]))
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        low, high = self._limits()
        coefficients, (batch, channels, rows, columns) = self._coefficients(images)
        if not coefficients.isfinite().all():
            raise DataError(f"some of the images, shape {list(images.shape)}, hold NaN or infinity: check the data.")
        side = self.block
        size = (self.steps, batch, channels, rows, side, columns, side)
        spikes = torch.empty(size, dtype=images.dtype, device=images.device)
        # [pixels of a block, blocks]: the long axis is last, so that basis and coefficients broadcast over whole rows.
        membrane = coefficients.new_zeros(side * side, coefficients.shape[1])
        for k, step in zip(self.schedule, spikes, strict=True):
            membrane.addcmul_(self.basis[k][:, None], coefficients[k])
            up, down = (membrane > high).float(), (membrane < low).float()
            membrane.sub_(up, alpha=high).sub_(down, alpha=low)
            step.copy_(up.sub_(down).view(side, side, batch, channels, rows, columns).permute(2, 3, 4, 0, 5, 1))
        return spikes.view(self.steps, batch, channels, rows * side, columns * side)

    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Rebuild the images that the first steps represent, frequency by frequency.

        Args:
            spikes: the first t steps of the encoder's result, [t, N, C, H', W'].
            size: (H, W) of the images, to remove the padding.

        Returns:
            [N, C, H, W] in float32, in RGB again after ``color="ycbcr"``. The error is what remains on the membranes,
            and the frequencies that were not shown yet.

        Raises:
            ModelError: The thresholds are not set yet.
            DataError: The encoder does not produce tensors of this shape.
        """
        low, high = self._limits()
        side = self.block
        if spikes.ndim != 5 or not 1 <= len(spikes) <= self.steps or spikes.shape[3] % side or spikes.shape[4] % side:
            raise DataError(
                f"decode takes up to {self.steps} steps of spikes, [t, N, C, H', W'] with H' and W' multiples of "
                f"{side}, not a tensor of shape {list(spikes.shape)}."
            )
        value = high * (spikes > 0).sum(0).float() + low * (spikes < 0).sum(0).float()
        blocks = value.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4)
        shown = value.new_zeros(side, side)
        for k in self.schedule[: len(spikes)]:
            shown[self._rows[k], self._columns[k]] += 1
        coefficients = torch.where(shown > 0, dctn(blocks) / shown.clamp(min=1), 0.0)
        images = block_idct(coefficients, stride=self.stride, size=size)
        return images if self.color is None else rgb(images - self._offset(images))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H', W') for images of size (H, W).

        Example:
            >>> DCTEncoder(block=4, stride=2).output_size((32, 32))
            (60, 60)
        """
        height, width = (block_count(n, block=self.block, stride=self.stride) * self.block for n in size)
        return height, width

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (H, W) of the images whose blocks fill (H', W') without padding.

        Example:
            >>> DCTEncoder(block=4, stride=2).input_size((60, 60))
            (32, 32)
        """
        height, width = ((n // self.block - 1) * self.stride + self.block for n in size)
        return height, width

    def layout(self, images: Tensor) -> Tensor:
        """Return the blocks side by side, in the encoder's colours. This is the sum over a whole period of steps.

        If the blocks do not overlap and fill the image, the result is the image.

        Example:
            >>> DCTEncoder(block=4, stride=2, steps=16).layout(torch.zeros(1, 3, 32, 32)).shape
            torch.Size([1, 3, 60, 60])
        """
        blocks = idctn(block_dct(self._colored(images), block=self.block, stride=self.stride))
        return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3).to(images.dtype)

    def _colored(self, images: Tensor) -> Tensor:
        """Return the images in the encoder's colours."""
        return images if self.color is None else ycbcr(images) + self._offset(images)

    def _offset(self, images: Tensor) -> Tensor:
        return images.new_tensor([0.0, 1.0, 1.0]).view(3, 1, 1) * OFFSETS[self.color or "ycbcr"]

    def digits(self, step: int) -> tuple[float, ...]:
        """Return the values of a spike of either sign, and 0 for no spike."""
        return -1.0, 0.0, 1.0

    def state(self) -> list[float]:
        """Return the thresholds (low, high); NaN before `fit`."""
        thresholds: list[float] = self.thresholds.tolist()
        return thresholds

    def restore(self, state: object) -> None:
        """Restore thresholds (low, high).

        Raises:
            ModelError: ``state`` is not two numbers.
        """
        if not isinstance(state, list | tuple) or len(state) != 2 or not all(isinstance(one, Real) for one in state):
            raise ModelError(f"thresholds={state!r}: a DCTEncoder has two numbers, the low one and the high one.")
        self.thresholds.copy_(torch.tensor(state))

    @classmethod
    def settings(cls, chosen: Mapping[str, object]) -> dict[str, object]:
        """Return all settings; for "intermittent" also how many frequencies it shows if none are chosen."""
        settings = super().settings(chosen)
        if settings["order"] == "intermittent" and settings["frequencies"] is None:
            settings["frequencies"] = len(INTERMITTENT)
        return settings

    @classmethod
    def words(cls, settings: Mapping[str, object]) -> dict[str, str]:
        frequencies, overlap = settings["frequencies"], settings["stride"] is not None
        words = {"order": str(settings["order"]), "frequencies": f"{frequencies or 'all'} frequencies"}
        return words if overlap else words | {"stride": "no overlap"}

    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return the operations that encode one image in T steps, starting from pixels.

        The colours need 9 multiply-accumulates for each pixel. The transform of a block (Eq. 12 of the supplement), by
        rows and columns, needs 2 block^3. Every step needs, for each value laid out, the multiply-accumulate ``u + F_k
        B_k`` and two comparisons. Every spike needs an addition, its reset.

        Args:
            image: (C, H, W).
            spikes: the number of spikes of one image over all steps.

        Returns:
            Counts by the field names of `transpike.metrics.energy.Operations`.

        Example:
            >>> work = DCTEncoder(steps=16).operations((1, 8, 8), spikes=100.0)
            >>> work["macs"] == 4 * 2 * 4**3 + 16 * 64, work["neuron_accumulates"]
            (True, 2148.0)
        """
        channels, height, width = image
        values = channels * math.prod(self.output_size((height, width)))
        mixed = 0 if self.color is None else 9 * height * width
        shown = values * self.steps
        return {"macs": mixed + 2 * values * self.block + shown, "neuron_accumulates": 2 * shown + spikes}

    def extra_repr(self) -> str:
        order = f"order={self.order!r}, frequencies={self.period}"
        return f"block={self.block}, stride={self.stride}, steps={self.steps}, {order}, color={self.color!r}"

    def _limits(self) -> tuple[float, float]:
        low, high = self.thresholds.tolist()
        if math.isnan(low) or math.isnan(high):
            raise ModelError(
                "this DCTEncoder has no thresholds yet: call fit(training images), or load its state_dict."
            )
        return low, high

    def _coefficients(self, images: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Return all coefficients [frequencies in zigzag order, blocks] in float32, and (N, C, rows, columns).

        The number of blocks is the product of these four.

        The transform is computed in float64. A spike may depend on the last bit. In float32 this bit depends on the
        size of the batch, and on a GPU also on the precision set for products.
        """
        if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
            raise DataError(
                f"DCTEncoder takes images [N, C, H, W] of floats, not {images.dtype} of shape {list(images.shape)}."
            )
        images = self._colored(images.double())
        blocks = block_dct(images, block=self.block, stride=self.stride)
        batch, channels, rows, columns = blocks.shape[:4]
        ordered = blocks[..., self._rows, self._columns].flatten(0, 3).mT.float().contiguous()
        return ordered, (batch, channels, rows, columns)


def _batches(images: Tensor | Iterable[Tensor | Sequence[Tensor]]) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        yield from images.split(_FIT_BATCH)
    else:
        for batch in images:
            yield batch if isinstance(batch, Tensor) else batch[0]
