"""Lowers operators on windows of an image: convolution with a computed kernel, and the sum of overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value
from transpike.conversion.operators.arithmetic import affine
from transpike.conversion.operators.shapes import reshaped

__all__ = ["OPERATORS", "computed_convolution", "pair"]


def pair(value: int | Sequence[int]) -> tuple[int, ...]:
    """Return one number for both axes, or one for each."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def computed_convolution(
    to: Lowering,
    node: Node,
    x: str,
    kernel: str,
    bias: Tensor | None,
    *,
    groups: int | torch.SymInt,
    **window: int | Sequence[int],
) -> Value:
    """Emit a convolution over two axes whose kernel is an activation: the product of every window with the kernel.

    Models usually write it with samples as groups: images [1, N * C, H, W], kernels [N * out, C / groups, ...].
    """
    image, weights = to.forms[x], to.forms[kernel]
    counted = to.counted(node.meta["val"])
    merged = image.axis == 1 and image.ndim == 4 and image.outer == 1 and image.shape[0] == 1
    if not merged or weights.axis or weights.outer > 1 or weights.ndim != 4 or not counted or counted[0] != 1:
        return UNSUPPORTED
    count, (channels, *size) = to.size(groups, 1), image.shape[-3:] if image.copies > 1 else (1, *image.shape[-2:])
    outputs, (inner, *taps) = weights.copies, weights.shape[-3:]
    if any(not isinstance(value, (int, list, tuple)) for value in window.values()):
        return UNSUPPORTED
    how = {key: pair(value) for key, value in window.items()}
    codes = torch.arange(1, channels * size[0] * size[1] + 1, dtype=torch.float64).view(1, channels, *size)
    index = _rows(codes, pair(taps), how)[0].long()  # [channels * taps, windows]
    rows = Form((count, index.shape[0] // count, index.shape[1]))
    flat = reshaped(to, node, x, Form((channels, *size)))
    args = {"size": codes.numel(), "zeros": True}
    tensors = {"index": index.flatten().to(node.meta["val"].device)}
    windows = to.emit(node, "gather", [flat], value=rows, part="windows", args=args, tensors=tensors)
    kernels = reshaped(to, node, kernel, Form((count, outputs // count, inner * taps[0] * taps[1])))
    product = {"equation": "Zgkl,Zgok->Zgol", "bare": [1]}
    y = to.emit(
        node, "product", [windows, kernels], value=Form((count, outputs // count, index.shape[1])), args=product
    )
    held = (1, outputs) if outputs > 1 else (1,)
    result = reshaped(to, node, y, Form((*held, *node.meta["val"].shape[2:]), 1, 1, outputs))
    return result if bias is None else affine(to, node, result, shift=bias.view(-1, 1, 1))


def col2im(to: Lowering, node: Node, input: str, output_size: list[int], kernel_size: list[int], **how: Value) -> Value:
    """Emit the sum of overlapping windows: for each pixel, gather its values from the windows and add them."""
    form = to.forms[input]
    if form.axis or form.outer > 1 or form.ndim != 3:
        return to.mixed(node, [input])
    rows, windows = form.shape[-2:]
    taps = kernel_size[0] * kernel_size[1]
    copies = form.copies * rows // taps
    window = {key: pair(value) for key, value in how.items()}  # type: ignore[arg-type]
    pixels = torch.arange(1, output_size[0] * output_size[1] + 1, dtype=torch.float64).view(1, 1, *output_size)
    reached = _rows(pixels, pair(kernel_size), window).flatten().long()
    pixel, value = reached[reached > 0].sort()[0] - 1, reached.argsort(stable=True)[int((reached == 0).sum()) :]
    counts = pixel.bincount(minlength=pixels.numel())
    place = torch.arange(len(pixel)) - (counts.cumsum(0) - counts)[pixel]
    index = torch.zeros(pixels.numel(), int(counts.max()), dtype=torch.long)
    index[pixel, place] = value + 1
    start = torch.arange(copies).view(-1, 1, 1) * taps * windows
    index = torch.where(index > 0, index + start, 0)
    tensors = {"index": index.flatten().to(node.meta["val"].device)}
    args = {"size": copies * taps * windows, "zeros": True}
    parts = to.emit(node, "gather", [input], value=Form(tuple(index.shape)), part="parts", args=args, tensors=tensors)
    whole = to.emit(node, "sum", [parts], value=Form(tuple(index.shape[:2])), args={"dim": [3], "keepdim": False})
    result = to.form(node.meta["val"], [input])
    return to.mixed(node, [input]) if result is None else reshaped(to, node, whole, result)


def _rows(codes: Tensor, taps: tuple[int, ...], window: Mapping[str, tuple[int, ...]]) -> Tensor:
    how = {"dilation": (1, 1), "padding": (0, 0), "stride": (1, 1), **window}
    return F.unfold(codes, taps, how["dilation"], how["padding"], how["stride"])


OPERATORS: dict[str, Callable[..., Value]] = {"col2im": col2im}
