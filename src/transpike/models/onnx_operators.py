"""The operators of ONNX, computed by PyTorch's: https://onnx.ai/onnx/operators. One maker for each name.

A maker takes an operator's attributes and `Sizes`, and returns a function of its inputs. Sizes are numbers and lists of
numbers, and so are the results computed from them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.errors import ModelError
from transpike.models.onnx_windows import WINDOWS, Attributes, Sizes, array, ints

__all__ = ["OPERATORS", "Sizes"]

Maker: TypeAlias = Callable[[Attributes, Sizes], Callable[..., object]]


def tensor(value: Any, like: Tensor) -> Tensor:
    """Return a constant with the device and dtype of a tensor."""
    return (
        value.to(like.device) if isinstance(value, Tensor) else torch.tensor(array(value).tolist(), device=like.device)
    )


def _pairs(function: Callable[[Any, Any], Any], on_tensors: Callable[..., Any] | None = None) -> Maker:
    """Return the maker of an operator on two tensors, or on two sizes."""

    def run(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            like = a if isinstance(a, Tensor) else b
            return (on_tensors or function)(tensor(a, like), tensor(b, like))
        return array(function(array(a), array(b)))

    return lambda attributes, sizes: run


def _divided(a: Any, b: Any) -> Any:
    return a / b if "f" in (a.dtype.kind, b.dtype.kind) else a // b


def _over(a: Tensor, b: Tensor) -> Tensor:
    whole = not a.is_floating_point() and not b.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _one(function: Callable[..., Any], **names: Any) -> Maker:
    """Return a maker of an operator on a tensor, with attributes as keywords: ONNX's name=(PyTorch's name, default)."""

    def maker(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
        named = {own: attributes.get(name, default) for name, (own, default) in names.items()}
        on_sizes = getattr(np, {"neg": "negative"}.get(function.__name__, function.__name__), None)
        return lambda x: function(x, **named) if isinstance(x, Tensor) or not on_sizes else on_sizes(x.astype(float))

    return maker


def _folded(function: Callable[[Any, Any], Any]) -> Maker:
    """Return the maker of an operator on any number of tensors, applied from the first on."""

    def run(*values: Any) -> Any:
        result = values[0]
        for value in values[1:]:
            result = function(result, tensor(value, result))
        return result

    return lambda attributes, sizes: run


def _gemm(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.mT if attributes.get("transA") else a, b if attributes.get("transB") else b.mT
        if alpha == beta == 1 and (c is None or c.ndim == 1):
            return F.linear(a, b, c)
        product: Tensor = F.linear(a, b) * alpha
        return product if c is None else product + c * beta

    return run


def _batch_norm(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    if attributes.get("training_mode"):
        raise ModelError("a BatchNormalization is in training mode; export the network in evaluation mode")
    eps = attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias, mean, variance: F.batch_norm(x, mean, variance, scale, bias, eps=eps)


def _instance_norm(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    eps = attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=eps)


def _group_norm(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    groups, eps = attributes["num_groups"], attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, groups, scale, bias, eps)


def _layer_norm(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    axis, eps = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias=None: F.layer_norm(x, x.shape[axis:], scale, bias, eps)


def _prelu(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    def run(x: Tensor, slope: Tensor) -> Tensor:
        if slope.numel() == 1 or (slope.ndim > 1 and slope.numel() == slope.shape[1 - x.ndim] == x.shape[1]):
            return F.prelu(x, slope.flatten())
        return x.clamp_min(0) + slope * x.clamp_max(0)

    return run


def _clip(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    def run(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
        low, high = (attributes.get(name) if value is None else value for name, value in (("min", low), ("max", high)))
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run


def _softmax(function: Callable[..., Tensor]) -> Maker:
    def maker(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
        axis = attributes.get("axis", -1 if sizes.version >= 13 else 1)
        if sizes.version >= 13:
            return lambda x: function(x, axis)
        return lambda x: (
            function(x.flatten(axis), -1).view(x.shape) if axis % x.ndim < x.ndim - 1 else function(x, axis)
        )

    return maker


def _reduced(function: Callable[..., Tensor]) -> Maker:
    """Return the maker of a reduction over axes, which are an attribute or an input."""

    def maker(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
        keep = bool(attributes.get("keepdims", 1))

        def run(x: Any, axes: Any = None) -> Any:
            axes = attributes.get("axes") if axes is None else axes
            if not isinstance(x, Tensor):
                raise ModelError("a reduction of sizes is not read; export it as constants")
            if axes is None or not ints(axes):
                axes = [] if attributes.get("noop_with_empty_axes") else list(range(x.ndim))
            return function(x, ints(axes), keep) if ints(axes) else x

        return run

    return maker


def _argmax(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    return lambda x: x.argmax(attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))


def _cast(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    real, whole = attributes.get("to") in (1, 10, 11, 16), attributes.get("to") in (6, 7, 12, 13)

    def run(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x.astype(float) if real else array([int(n) if isinstance(n, float) else n for n in x.flatten()]
                                                      ).reshape(x.shape)  # fmt: skip
        if real:
            return x if x.is_floating_point() else x.float()
        return x.long() if whole else x.bool() if attributes.get("to") == 9 else x

    return run


def _where(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(chosen: Any, a: Any, b: Any) -> Any:
        like = next((value for value in (chosen, a, b) if isinstance(value, Tensor)), None)
        if like is None:
            return np.where(array(chosen).astype(bool), a, b)
        return torch.where(tensor(chosen, like), tensor(a, like), tensor(b, like))

    return run


def _range(attributes: Attributes, sizes: Sizes) -> Callable[..., object]:
    def run(*bounds: Any) -> object:
        start, end, step = (ints(bound)[0] for bound in bounds)
        if (end - start) // step > 64:
            return torch.arange(start, end, step)
        return np.array(list(range(start, end, step)), dtype=object)

    return run


def _einsum(attributes: Attributes, sizes: Sizes) -> Callable[..., Tensor]:
    return lambda *values: torch.einsum(attributes["equation"], *values)


OPERATORS: dict[str, Maker] = {
    **WINDOWS,
    "Gemm": _gemm,
    "MatMul": lambda attributes, sizes: torch.matmul,
    "Einsum": _einsum,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "Relu": _one(F.relu),
    "LeakyRelu": _one(F.leaky_relu, alpha=("negative_slope", 0.01)),
    "PRelu": _prelu,
    "Elu": _one(F.elu, alpha=("alpha", 1.0)),
    "Selu": _one(F.selu),
    "Gelu": _one(F.gelu, approximate=("approximate", "none")),
    "Mish": _one(F.mish),
    "Softplus": _one(F.softplus),
    "Softsign": _one(F.softsign),
    "HardSigmoid": lambda attributes, sizes: (
        lambda x: torch.clamp(x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)
    ),
    "HardSwish": _one(F.hardswish),
    "Clip": _clip,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    **{name.title(): _one(getattr(torch, name)) for name in ("sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg")},
    **{name.title(): _one(getattr(torch, name)) for name in ("erf", "reciprocal", "floor", "ceil", "round", "sign")},
    **{name.title(): _one(getattr(torch, name)) for name in ("sin", "cos", "atan")},
    "Add": _pairs(operator.add),
    "Sub": _pairs(operator.sub),
    "Mul": _pairs(operator.mul),
    "Div": _pairs(_divided, _over),
    "Pow": _pairs(operator.pow),
    "Mod": _pairs(operator.mod),
    "Equal": _pairs(operator.eq),
    "Greater": _pairs(operator.gt),
    "GreaterOrEqual": _pairs(operator.ge),
    "Less": _pairs(operator.lt),
    "LessOrEqual": _pairs(operator.le),
    "And": _pairs(torch.logical_and),
    "Or": _pairs(torch.logical_or),
    "Xor": _pairs(torch.logical_xor),
    "Not": _one(torch.logical_not),
    "Where": _where,
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Sum": _folded(torch.add),
    "Mean": lambda attributes, sizes: lambda *values: sum(values) / len(values),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keep)),
    "ArgMax": _argmax,
    "Range": _range,
    "Cast": _cast,
    "Identity": lambda attributes, sizes: lambda x: x,
    "Dropout": lambda attributes, sizes: lambda x, *_: x if sizes.results == 1 else (x, None),
}
