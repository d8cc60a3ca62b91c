"""Lowers operators with weights: linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.fx import Node

from transpike.conversion.lowering import UNSUPPORTED, Input, Lowering, Value
from transpike.conversion.operators.patches import computed_convolution
from transpike.conversion.operators.shapes import pad

__all__ = ["OPERATORS"]


def linear(to: Lowering, node: Node, input: Input, weight: Input, bias: Input | None = None) -> Value:
    if not isinstance(input, str) or not isinstance(weight, Tensor) or isinstance(bias, str):
        return UNSUPPORTED
    if to.forms[input].dim(-1) is None:
        return to.mixed(node, [input])
    return to.emit(node, "linear", [input], tensors=_present(weight=weight, bias=bias))


def conv(
    to: Lowering,
    node: Node,
    input: Input,
    weight: Input,
    bias: Input | None,
    *,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    output_padding: int | Sequence[int] | None = None,
) -> Value:
    """Emit a convolution, which is transposed if it has an ``output_padding``."""
    if isinstance(input, str) and isinstance(weight, str) and not isinstance(bias, (str, float)) and padding != "same":
        window = {"stride": stride, "padding": 0 if isinstance(padding, str) else padding, "dilation": dilation}
        return computed_convolution(to, node, input, weight, bias, groups=groups, **window)
    if not isinstance(input, str) or not isinstance(weight, Tensor) or isinstance(bias, str):
        return UNSUPPORTED
    n = weight.ndim - 2
    if to.forms[input].axis or to.forms[input].outer > 1:
        return to.mixed(node, [input])
    if to.forms[input].ndim != n + 2:
        to.problem(node, "a convolution without a batch axis; pass it images [N, channels, *]")
        return input
    dilations = _tuple(dilation, n)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        padding = [p // 2 for p in total]
        if any(p % 2 for p in total):
            input = pad(to, node, input, [side for p in reversed(total) for side in (p // 2, p - p // 2)])
            padding = 0
    args = {
        "stride": _tuple(stride, n),
        "padding": _tuple(0 if isinstance(padding, str) else padding, n),
        "dilation": dilations,
        "transposed": output_padding is not None,
        "output_padding": _tuple(output_padding or 0, n),
        "groups": groups,
    }
    return to.emit(node, "convolution", [input], args=args, tensors=_present(weight=weight, bias=bias))


def convolution(
    to: Lowering,
    node: Node,
    input: Input,
    weight: Input,
    bias: Input | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    extra = output_padding if transposed else None
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    return conv(to, node, input, weight, bias, **how, groups=groups, output_padding=extra)


def _tuple(value: int | Sequence[int], n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def _present(**tensors: Input | None) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if isinstance(tensor, Tensor)}


OPERATORS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys([f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)], conv),
    "convolution": convolution,
    "linear": linear,
}
