"""Operators of ONNX on windows of samples, and moves of values: convolution, pooling, padding, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.errors import ModelError

__all__ = ["WINDOWS", "Array", "Sizes", "array", "ints"]

Attributes = Mapping[str, Any]
Array = np.ndarray[Any, Any]
"""Sizes and places: whole numbers. Some may be known only for each number of samples."""


@dataclass(frozen=True)
class Sizes:
    """The facts that a step needs about its file.

    Attributes:
        version: the version of the set of operators.
        samples: the number of samples for which the file was written. None if it is open.
        results: the number of values that the step returns.
    """

    version: int
    samples: int | None
    results: int


# -- windows -----------------------------------------------------------------------------------------------------------


def _pads(attributes: Attributes, x: Tensor, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding before and after each axis of an image."""
    axes, how = len(kernel), attributes.get("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID"):
        flat_pads = attributes.get("pads", [0] * 2 * axes) if how == "NOTSET" else [0] * 2 * axes
        return list(zip(flat_pads[:axes], flat_pads[axes:], strict=True))
    strides, dilations = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
    pads = []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (width - 1) + 1 - size)
        low, high = total // 2, total - total // 2
        pads.append((low, high) if how == "SAME_UPPER" else (high, low))
    return pads


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    return F.pad(x, [n for pair in reversed(pads) for n in pair], value=value)


def _split(pads: Sequence[tuple[int, int]]) -> tuple[list[int], bool]:
    """Return the padding that both sides have, and whether one side has more."""
    return [low for low, _ in pads], any(low != high for low, high in pads)


def _conv(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        axes = weight.ndim - 2
        pads = _pads(attributes, x, weight.shape[2:])
        both, uneven = _split(pads)
        stride, dilation = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
        x, both = (_padded(x, pads), [0] * axes) if uneven else (x, both)
        convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        return convolve(x, weight, bias, stride, both, dilation, attributes.get("group", 1))

    return run


def _conv_transpose(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        axes = weight.ndim - 2
        if attributes.get("output_shape") or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise ModelError("a ConvTranspose with output_shape or auto_pad is not read; export it with pads")
        both, uneven = _split(_pads(attributes, x, weight.shape[2:]))
        if uneven:
            raise ModelError("a ConvTranspose with uneven pads is not read")
        stride, dilation = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
        more, groups = attributes.get("output_padding", [0] * axes), attributes.get("group", 1)
        convolve: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        return convolve(x, weight, bias, stride, both, more, groups, dilation)

    return run


def _pool(attributes: Attributes, sizes: Sizes, kind: str) -> Callable[..., object]:
    kernel = attributes["kernel_shape"]
    axes, ceil = len(kernel), bool(attributes.get("ceil_mode"))
    stride, dilation = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
    whole = bool(attributes.get("count_include_pad"))

    def largest(x: Tensor) -> object:
        pads = _pads(attributes, x, kernel)
        both, uneven = _split(pads)
        if uneven or any(2 * pad > width for pad, width in zip(both, kernel, strict=True)):
            x, both = _padded(x, pads, -math.inf), [0] * axes
        pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
        return pool(x, kernel, stride, both, dilation, ceil) if sizes.results == 1 else (None, None)

    def average(x: Tensor) -> Tensor:
        pads = _pads(attributes, x, kernel)
        both, uneven = _split(pads)
        pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        if not uneven:
            return pool(x, kernel, stride, both, ceil, whole)
        padded = pool(_padded(x, pads), kernel, stride, 0, ceil)
        return padded if whole else padded / pool(_padded(torch.ones_like(x[:1, :1]), pads), kernel, stride, 0, ceil)

    return largest if kind == "max" else average


def _global(kind: str) -> Callable[[Attributes, Sizes], Callable[[Tensor], Tensor]]:
    def run(x: Tensor) -> Tensor:
        axes = list(range(2, x.ndim))
        return x.mean(axes, keepdim=True) if kind == "mean" else x.amax(axes, keepdim=True)

    return lambda attributes, sizes: run


# -- sizes and moves ---------------------------------------------------------------------------------------------------


def ints(value: Any) -> list[Any]:
    """Return sizes or axes as a list."""
    if isinstance(value, Tensor):
        raise ModelError("sizes that depend on the values of a tensor cannot be traced")
    return array(value).flatten().tolist()


def array(value: Any) -> Array:
    """Return sizes as an array."""
    return value if isinstance(value, np.ndarray) else np.array(value, dtype=object)


def _shape(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    return lambda x: array(list(x.shape)[attributes.get("start", 0) : attributes.get("end")])


def _reshape(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, shape: Any = None) -> Any:
        target = ints(attributes["shape"] if shape is None else shape)
        if not attributes.get("allowzero"):
            target = [x.shape[k] if type(n) is int and n == 0 else n for k, n in enumerate(target)]
        if isinstance(x, Tensor) and target and type(target[0]) is int and target[0] == sizes.samples:
            target[0] = x.shape[0]  # the file was written for a fixed number of samples
        return x.reshape(target)

    return run


def _flatten(attributes: Attributes, sizes: Sizes) -> Callable[[Tensor], Tensor]:
    axis = attributes.get("axis", 1)
    if axis == 1:
        return lambda x: x.flatten(1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(attributes: Attributes, sizes: Sizes) -> Callable[[Any], object]:
    def run(x: Any) -> object:
        order = attributes.get("perm", list(range(x.ndim))[::-1])
        return x.permute(order) if isinstance(x, Tensor) else x.transpose(order)

    return run


def _squeeze(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, axes: Any = None) -> Any:
        axes = attributes.get("axes") if axes is None else axes
        return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))

    return run


def _unsqueeze(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, axes: Any = None) -> Any:
        axes = ints(attributes["axes"] if axes is None else axes)
        if not isinstance(x, Tensor):
            return np.expand_dims(array(x), tuple(axes))
        for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


def _concat(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(*values: Any) -> Any:
        like = next((value for value in values if isinstance(value, Tensor)), None)
        if like is None:
            return np.concatenate([array(value) for value in values], attributes["axis"])
        parts = [v if isinstance(v, Tensor) else torch.tensor(v.tolist(), device=like.device) for v in values]
        return torch.cat(parts, attributes["axis"])

    return run


def _split_at(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, parts: Any = None) -> Any:
        axis, parts = attributes.get("axis", 0), attributes.get("split") if parts is None else parts
        parts = -(-x.shape[axis] // sizes.results) if parts is None else ints(parts)
        if isinstance(x, Tensor):
            return x.split(parts, axis)
        return np.split(x, sizes.results if isinstance(parts, int) else np.cumsum(parts)[:-1].tolist(), axis)

    return run


def _slice(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
        starts, ends, axes = (
            attributes.get(name) if value is None else value
            for name, value in (("starts", starts), ("ends", ends), ("axes", axes))
        )
        starts, ends = ints(starts), ints(ends)
        axes = range(len(starts)) if axes is None else [axis % x.ndim for axis in ints(axes)]
        steps = [1] * len(starts) if steps is None else ints(steps)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            if not isinstance(x, Tensor):
                end = None if step < 0 and end < -x.shape[axis] else end
                x = x[(slice(None),) * axis + (slice(start, end, step),)]
            elif step > 0:
                x = torch.ops.aten.slice(x, axis, start, end, step)
            elif step == -1 and start in (-1, x.shape[axis] - 1) and end < -x.shape[axis]:
                x = x.flip(axis)
            else:
                raise ModelError("a Slice backwards is read only over a whole axis")
        return x

    return run


def _gather(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    axis = attributes.get("axis", 0)

    def run(x: Any, index: Any) -> Any:
        if not isinstance(x, Tensor):
            return array(x).take(array(index).astype(int), axis)
        if not isinstance(index, Tensor) and array(index).ndim == 0:
            return x.select(axis, int(array(index)))
        index = index if isinstance(index, Tensor) else torch.tensor(index.tolist(), device=x.device)
        index = torch.where(index < 0, index + x.shape[axis], index)
        selected = x.index_select(axis, index.flatten())
        return selected if index.ndim == 1 else selected.unflatten(axis, index.shape)

    return run


def _expand(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(x: Any, shape: Any) -> Any:
        target = ints(shape)
        own = [1] * (len(target) - x.ndim) + list(x.shape)
        front = len(own) - len(target)
        whole = [*own[:front], *(n if m == 1 else m for n, m in zip(target, own[front:], strict=True))]
        return x.expand(whole) if isinstance(x, Tensor) else np.broadcast_to(x, whole)

    return run


def _pad(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}

    def run(x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
        flat_pads = ints(attributes["pads"] if pads is None else pads)
        half = len(flat_pads) // 2
        own = [axis % x.ndim for axis in (range(half) if axes is None else ints(axes))]
        pads_by_axis = {axis: (flat_pads[k], flat_pads[k + half]) for k, axis in enumerate(own)}
        used = [axis for axis, pair in pads_by_axis.items() if any(pair)]
        if not used:
            return x
        value = attributes.get("value", 0.0) if value is None else value
        value = value if isinstance(value, (int, float)) else array(value).flatten().tolist()[0]
        how = mode[attributes.get("mode", "constant")]
        first = min(used) if how == "constant" else 2
        if not min(used):
            raise ModelError("a Pad along the axis of samples is not read")
        if min(used) < first:  # channels: pad one axis after the other, as if it were the last
            for axis in used:
                moved = x.movedim(axis, -1)
                padded = F.pad(moved.unsqueeze(1).flatten(1, -2), pads_by_axis[axis], how)
                x = padded.unflatten(1, (1, *moved.shape[1:-1])).squeeze(1).movedim(-1, axis)
            return x
        flat = [n for axis in range(x.ndim - 1, first - 1, -1) for n in pads_by_axis.get(axis, (0, 0))]
        return F.pad(x, flat, how, value) if how == "constant" else F.pad(x, flat, how)

    return run


def _resize(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    mode, how = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding, axes = attributes.get("nearest_mode", "round_prefer_floor"), attributes.get("axes")

    def run(x: Tensor, roi: Any = None, scales: Any = None, wanted: Any = None) -> Tensor:
        space, named = x.ndim - 2, range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
        given = dict(zip(named, ints(scales if scales else wanted), strict=True))
        alike = given.get(1, 1.0) == 1 and given.get(0, 1.0) == 1 if scales else given.get(1, x.shape[1]) == x.shape[1]
        if not alike:
            raise ModelError("a Resize along the axis of samples or channels is not read")
        last = [given.get(axis, 1.0 if scales else x.shape[axis]) for axis in range(2, x.ndim)]
        to: dict[str, Any] = {"scale_factor": last} if scales else {"size": last}
        if mode == "nearest":
            exact = all(float(n).is_integer() for n in last) if scales else (
                all(n % m == 0 for n, m in zip(last, x.shape[2:], strict=True)))  # fmt: skip
            if not exact and not (how == "asymmetric" and rounding == "floor"):
                raise ModelError(f"a Resize to the nearest value, {how} and {rounding}, is read only for whole factors")
            return F.interpolate(x, **to, mode="nearest")
        names = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}
        name = names.get(mode, ("", "", ""))[space - 1]
        if how not in ("half_pixel", "pytorch_half_pixel", "align_corners") or not name:
            raise ModelError(f"a Resize, {mode} and {how}, is not read")
        return F.interpolate(x, **to, mode=name, align_corners=how == "align_corners")

    return run


def _upsample(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    mode = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    resize = _resize({**mode, "mode": attributes.get("mode", "nearest")}, sizes)
    return lambda x, scales=None: resize(x, None, attributes.get("scales") if scales is None else scales)


def _depth_to_space(attributes: Attributes, sizes: Sizes) -> Callable[[Tensor], Tensor]:
    size = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // size**2, h * size, w * size)

    return run


def _space_to_depth(attributes: Attributes, sizes: Sizes) -> Callable[[Tensor], Tensor]:
    size = attributes["blocksize"]

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * size**2, h // size, w // size)

    return run


def _constant(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    value = attributes.get("value")
    number = 0.0 if value is None else value.flatten()[0].item()

    def run(shape: Any) -> object:
        target = ints(shape)
        few = all(type(n) is int for n in target) and math.prod(target) <= 64
        return np.full(target, number, dtype=object) if isinstance(number, int) and few else torch.full(target, number)

    return run


WINDOWS: dict[str, Callable[[Attributes, Sizes], Callable[..., object]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": lambda attributes, sizes: _pool(attributes, sizes, "max"),
    "AveragePool": lambda attributes, sizes: _pool(attributes, sizes, "mean"),
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "Shape": _shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split_at,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": lambda attributes, sizes: lambda x, repeats: x.repeat(ints(repeats)),
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _upsample,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ConstantOfShape": _constant,
}
