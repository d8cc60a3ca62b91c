"""Measures each neuron's distribution of activations on the calibration images, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.calibration import Seen
from transpike.conversion.amplitudes import channel_axes
from transpike.conversion.graph import Graph
from transpike.conversion.op import Op
from transpike.errors import ConversionError, DataError
from transpike.moments import Moments
from transpike.neurons.tsa import IDENTITY, RELU
from transpike.quantiles import ChannelQuantiles, Quantiles

__all__ = ["IMAGES", "Statistics", "collect", "measure"]

IMAGES = 512
_CHUNK = 32


@dataclass(frozen=True)
class Statistics:
    """The statistics of |activation| for the input and every neuron (by name), over ``images`` calibration images.

    Attributes:
        seen: the distributions.
        axes: the axis of one sample that counts channels, for layers that have such an axis.
        images: the number of images.
    """

    seen: dict[str, Seen]
    axes: dict[str, int]
    images: int


def collect(calibration: Iterable[object], images: int = IMAGES) -> Tensor:
    """Return the first ``images`` images of an iterable of batches. A batch is a tensor [N, \\*] or begins with one.

    Batches on other devices are moved to the device of the first.

    Raises:
        ConversionError: There are no images, or they are integers, not finite, or of different shapes.

    Example:
        >>> collect([(torch.zeros(3, 2), torch.arange(3)), torch.ones(3, 2)], images=5).shape
        torch.Size([5, 2])
    """
    if not isinstance(calibration, Iterable):
        raise ConversionError(
            f"calibration: expected batches of images, not {_describe(calibration)}; pass a DataLoader, or a list of "
            "batches"
        )
    batches: list[Tensor] = []
    count = 0
    for batch in [calibration] if isinstance(calibration, (Tensor, Mapping)) else calibration:
        first = batch[0] if isinstance(batch, (list, tuple)) and batch else batch
        x = check_images(first, "calibration", "pass a DataLoader, or a list of batches: images, or pairs (images, y)")
        if batches and x.shape[1:] != batches[0].shape[1:]:
            raise ConversionError(
                f"calibration: images of shape {tuple(x.shape[1:])} after images of shape "
                f"{tuple(batches[0].shape[1:])}; resize them to one shape"
            )
        batches.append(x.detach()[: images - count].to(batches[0].device if batches else x.device))
        count += len(batches[-1])
        if count >= images:
            break
    if not count:
        raise ConversionError(
            "calibration: no images; pass batches of training images, preprocessed as for the network"
        )
    return torch.cat(batches)


def check_images(x: object, what: str, remedy: str = "pass a tensor") -> Tensor:
    """Return ``x`` if it is a tensor of finite floating-point images [N, \\*]; raise ConversionError otherwise."""
    if isinstance(x, Mapping):
        keys = ", ".join(map(repr, list(x)[:6]))
        raise ConversionError(
            f"{what}: expected a tensor of images [N, *], not {_describe(x)} with the keys {keys}; pass the images, as "
            "(batch['image'] for batch in loader)"
        )
    if not isinstance(x, Tensor) or x.ndim < 2:
        raise ConversionError(f"{what}: expected a tensor of images [N, *], not {_describe(x)}; {remedy}")
    if not x.is_floating_point():
        raise ConversionError(
            f"{what}: images are {x.dtype}; convert them to float and normalise them as in the network's training"
        )
    if x.is_meta or x.layout != torch.strided:
        kind = "on the meta device, without values" if x.is_meta else f"{x.layout}"
        raise ConversionError(f"{what}: images are {kind}; pass ordinary tensors")
    if not x.isfinite().all():
        raise ConversionError(f"{what}: images hold NaN or infinity; check the preprocessing")
    return x


def measure(
    graph: Graph, images: Tensor, *, chunk: int = _CHUNK, progress: Callable[[int], None] | None = None
) -> Statistics:
    """Run the analog network on ``images``, ``chunk`` at a time, and collect each distribution of |activation|.

    ``progress`` is called with the number of finished images.

    Raises:
        ConversionError: An activation is NaN or infinite. The message names the layer.
    """
    axes = channel_axes(graph)
    shapes = {op.name: op.shape for op in graph}
    statistics = {}
    for op in [graph.input, *graph.neurons]:
        channels = shapes[op.name][axes[op.name]] if op.name in axes else None
        straight = op.fires and op.function.tracked and op.function.tail in (RELU, IDENTITY)
        statistics[op.name] = Seen(
            Quantiles(),
            ChannelQuantiles(channels) if channels else None,
            Moments(channels or 1) if straight else None,
            signed=straight and op.function.tail == IDENTITY,
        )

    def heard(op: Op, operand: Tensor) -> None:
        if (moments := statistics[op.name].heard) is not None:
            axis = axes[op.name] + 1 if op.name in axes else None
            moments.update(op.function.head(operand, constants=op.tensors), axis=axis)

    def observe(op: Op, value: Tensor) -> None:
        values, channels = statistics[op.name].values, statistics[op.name].channels
        try:
            values.update(value)
        except DataError as error:
            raise ConversionError(
                f"{op.name}: its activations on the calibration images are NaN or infinite; check the weights and the "
                "preprocessing"
            ) from error
        if channels is not None:
            channels.update(value, axis=axes[op.name] + 1)

    with torch.no_grad():
        for start in range(0, len(images), chunk):
            graph.run(images[start : start + chunk], observe, heard)
            if progress:
                progress(min(start + chunk, len(images)))
    return Statistics(statistics, axes, len(images))


def _describe(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
