"""The operators that a neuron's function may contain, in NumPy, by name; and the function itself.

Each elementwise operator rounds as PyTorch's does: one IEEE operation after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from transpike.errors import ModelError
from transpike.export.bundle import Array, Node

__all__ = ["OPERATORS", "evaluate", "unsupported"]


def _hardsigmoid(x: Array) -> Array:
    return np.clip(x + _of(3, x), 0, 6) / _of(6, x)


def _hardswish(x: Array) -> Array:
    return x * np.clip(x + _of(3, x), 0, 6) / _of(6, x)


def _of(value: float, x: Array) -> Any:
    return x.dtype.type(value)


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        inner = x * _of(0.044715, x) * x * x + x
        return _of(0.5, x) * x * (1 + np.tanh(_of((2 / np.pi) ** 0.5, x) * inner))
    return x * _of(0.5, x) * (1 + special.erf(x * _of(2**-0.5, x)))


def _leaky_relu(x: Array, slope: float = 0.01) -> Array:
    return np.where(x > 0, x, x * _of(slope, x))


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    return x if low is None and high is None else np.clip(x, low, high)


def _reduced(function: Callable[..., Any]) -> Callable[..., Array]:
    """Return a reduction over axes in double precision, rounded once."""

    def reduce(x: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
        axes = None if dim is None else tuple(dim) if isinstance(dim, Sequence) else (dim,)
        return np.asarray(function(x.astype(np.float64), axis=axes or None, keepdims=keepdim)).astype(x.dtype)

    return reduce


def _softmax(x: Array, dim: int, *_: Any) -> Array:
    return np.asarray(special.softmax(x, axis=dim))


def _layer_norm(
    x: Array, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Array:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    wide = x.astype(np.float64)
    wide = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + eps)
    wide = wide if weight is None else wide * weight
    return (wide if bias is None else wide + bias).astype(x.dtype)


def _max_pool2d(x: Array, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, *_: Any) -> Array:
    (kh, kw), (ph, pw), (dh, dw) = (_pair(value) for value in (kernel, padding, dilation))
    sh, sw = _pair(stride) if stride else (kh, kw)
    if _ and _[0]:
        raise ModelError("max_pool2d: the NumPy runner does not have ceil_mode, only sizes rounded down")
    x = np.pad(
        x,
        ((0, 0),) * (x.ndim - 2) + ((ph, ph), (pw, pw)),
        constant_values=-np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min,
    )
    high, wide = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(x.shape[-2:], (kh, kw), (dh, dw), (sh, sw), strict=True)
    )
    windows = [
        x[..., i * dh : i * dh + sh * (high - 1) + 1 : sh, j * dw : j * dw + sw * (wide - 1) + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return np.maximum.reduce(windows)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    index: list[slice] = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def _add(x: Any, y: Any, alpha: float = 1) -> Any:
    return x + (y if alpha == 1 else y * alpha)


def _cast(x: Array) -> Callable[[Any], Any]:
    return lambda value: x.dtype.type(value) if isinstance(value, (int, float)) else value


def _binary(function: Callable[..., Any]) -> Callable[..., Array]:
    """Return a binary operator in which numbers take the dtype of the other operand, as in PyTorch."""

    def apply(*values: Any, **named: Any) -> Array:
        like = next(value for value in values if isinstance(value, np.ndarray))
        return np.asarray(function(*map(_cast(like), values), **named))

    return apply


_ONE: dict[str, Callable[..., Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": _leaky_relu,
    "_prelu_kernel": lambda x, slope: np.where(x > 0, x, x * slope),
    "clamp": _clamp,
    "hardtanh": lambda x, low=-1, high=1: np.clip(x, low, high),
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "sigmoid": special.expit,
    "silu": lambda x: x * special.expit(x),
    "gelu": _gelu,
    "erf": special.erf,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "square": np.square,
    "neg": np.negative,
    "reciprocal": np.reciprocal,
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "amax": lambda x, dim=(), keepdim=False: x.max(tuple(dim) or None, keepdims=keepdim),
    "amin": lambda x, dim=(), keepdim=False: x.min(tuple(dim) or None, keepdims=keepdim),
    "max_pool2d": _max_pool2d,
    "_softmax": _softmax,
    "layer_norm": _layer_norm,
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, dims: x.transpose(dims),
    "cat": lambda xs, dim=0: np.concatenate(xs, dim),
    "stack": lambda xs, dim=0: np.stack(xs, dim),
    "index_select": lambda x, dim, index: np.take(x, index, dim),
}
OPERATORS: dict[str, Callable[..., Any]] = {
    **{f"{name}.default": function for name, function in _ONE.items()},
    **{f"mul.{kind}": _binary(np.multiply) for kind in ("Tensor", "Scalar")},
    **{f"div.{kind}": _binary(np.divide) for kind in ("Tensor", "Scalar")},
    **{f"add.{kind}": _binary(_add) for kind in ("Tensor", "Scalar")},
    **{f"sub.{kind}": _binary(lambda x, y, alpha=1: _add(x, y, -alpha)) for kind in ("Tensor", "Scalar")},
    "pow.Tensor_Scalar": _binary(np.power),
    "mean.dim": _reduced(np.mean),
    "sum.dim_IntList": _reduced(np.sum),
    "softmax.int": _softmax,
    "slice.Tensor": _slice,
    "select.int": lambda x, dim, index: np.take(x, index, dim),
}


def unsupported(node: Node) -> list[str]:
    """Return the operators of a node's function that this module lacks."""
    return [str(call["operator"]) for call in node.calls if call["operator"] not in OPERATORS]


def evaluate(calls: Sequence[Mapping[str, Any]], operands: Sequence[Array], constants: Mapping[str, Array]) -> Array:
    """Return the value of a function for operands whose first axis counts samples."""
    results: list[Array] = []

    def value(argument: Any) -> Any:
        match argument:
            case {"operand": int(index)}:
                return operands[index]
            case {"constant": str(name)}:
                constant = constants[name]
                return constant.astype(operands[0].dtype) if constant.dtype.kind == "f" else constant
            case {"result": int(index)}:
                return results[index]
            case {"float": str(text)}:
                return float(text)
            case list():
                return [value(item) for item in argument]
        return argument

    for call in calls:
        named = {key: value(item) for key, item in call.get("kwargs", {}).items()}
        results.append(OPERATORS[call["operator"]](*map(value, call["args"]), **named))
    return results[-1] if results else operands[0]
