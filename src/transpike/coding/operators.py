"""The PyTorch operators that a neuron's function may contain, by name. All are safe and deterministic.

No operator on these lists draws random numbers, keeps a state, reads files or mixes samples. The first axis of every
tensor counts samples (or steps times samples).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transpike.errors import ConversionError

__all__ = [
    "BOOLEAN",
    "DIMENSIONS",
    "ELEMENTWISE",
    "HOMOGENEOUS",
    "INPLACE",
    "MOVES",
    "OPERATORS",
    "PIECEWISE",
    "POOLS",
    "ROUNDED",
    "TRAILING",
    "aten",
    "operator",
    "work",
]


def _named(names: str, overload: str = "default") -> frozenset[str]:
    return frozenset(f"{name}.{overload}" for name in names.split())


POOLS = frozenset(
    [f"{kind}{n}d.default" for kind in ("max_pool", "adaptive_max_pool") for n in (1, 2, 3)] + ["amax.default"]
)
PIECEWISE = _named("relu leaky_relu clamp")
HOMOGENEOUS = POOLS | _named("relu leaky_relu _prelu_kernel")
"""Operators with f(c x) = c f(x) for every c > 0."""
BOOLEAN = (
    frozenset(f"{name}.{kind}" for name in ("gt", "ge", "lt", "le", "eq", "ne") for kind in ("Scalar", "Tensor"))
    | _named("logical_not logical_and logical_or bitwise_not")
    | _named("bitwise_and bitwise_or", "Tensor")
)
"""Operators that return true or false, which no train can represent."""
ROUNDED = _named("round")
"""Operators that round in quantised networks. Training treats them as the identity, and so do the gradients here."""
ELEMENTWISE = (
    PIECEWISE
    | BOOLEAN
    | _named("_prelu_kernel sigmoid tanh exp log sqrt rsqrt abs square gelu silu mish hardswish hardsigmoid relu6")
    | _named("elu celu selu softplus erf erfc sin cos atan sinh cosh asinh log1p expm1 exp2 reciprocal neg sign sgn")
    | ROUNDED
    | _named("threshold softshrink hardshrink log_sigmoid hardtanh addcmul addcdiv maximum minimum atan2")
    | frozenset(f"{name}.{kind}" for name in ("mul", "div", "add", "sub") for kind in ("Tensor", "Scalar"))
    | _named("pow", "Tensor_Scalar")
    | _named("pow", "Tensor_Tensor")
    | _named("pow", "Scalar")
    | _named("rsub", "Scalar")
    | _named("rsub clamp clamp_min clamp_max masked_fill", "Tensor")
    | _named("masked_fill", "Scalar")
    | _named("where", "self")
    | _named("where", "ScalarOther")
    | _named("where", "ScalarSelf")
    | _named("where", "Scalar")
    | _named("lerp", "Scalar")
    | _named("lerp", "Tensor")
    | _named("clamp_min clamp_max")
)
"""Operators that give one result for each value; several operands are broadcast."""
INPLACE = (
    PIECEWISE
    | _named("sigmoid tanh exp sqrt rsqrt abs square gelu silu mish hardswish hardsigmoid elu reciprocal neg")
    | frozenset(f"{name}.{kind}" for name in ("mul", "div", "add", "sub") for kind in ("Tensor", "Scalar"))
)
"""Elementwise operators that may write over their first argument."""
DIMENSIONS = (
    _named("softmax log_softmax", "int")
    | _named("_softmax _log_softmax amax amin argmax linalg_vector_norm logsumexp cumsum glu")
    | _named("mean", "dim")
    | _named("sum", "dim_IntList")
    | _named("var std", "correction")
    | _named("norm", "ScalarOpt_dim")
    | _named("prod", "dim_int")
)
"""Operators over the axes that the argument ``dim`` names."""
TRAILING = _named("layer_norm rms_norm")
"""Operators over the last axes, as many as the constants have."""
MOVES = (
    _named("reshape permute cat stack index_select constant_pad_nd pad expand_as")
    | _named("slice", "Tensor")
    | _named("select", "int")
)
"""Operators that only move or repeat values, or put zeros between them."""
OPERATORS = POOLS | ELEMENTWISE | DIMENSIONS | TRAILING | MOVES | _named("group_norm")

_NONE, _NORM = (0, 0), (4, 3)
_WORK = {
    **dict.fromkeys((name.partition(".")[0] for name in MOVES), _NONE),
    **dict.fromkeys(("add", "sub", "rsub", "neg", "sum", "mean", "maximum", "minimum", "abs", "threshold"), (1, 0)),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "where", "clamp", "clamp_min", "clamp_max"), (1, 0)),
    "round": (1, 0),
    **dict.fromkeys(("relu", "amax", "amin", "masked_fill", "hardtanh", "relu6", "cumsum"), (1, 0)),
    **dict.fromkeys(("mul", "square", "leaky_relu", "_prelu_kernel"), (0, 1)),
    **dict.fromkeys(("layer_norm", "group_norm", "rms_norm", "var", "std"), _NORM),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), (6, 6)),
    **dict.fromkeys(("hardswish", "hardsigmoid"), (3, 2)),
}


def work(name: str) -> tuple[int, int]:
    """Return about how many additions (or comparisons) and multiplications the operator needs for one value.

    An operator without an entry, such as an exponential, counts as a polynomial of degree five.

    Example:
        >>> work("mul.Tensor"), work("sigmoid.default")
        ((0, 1), (5, 5))
    """
    return _WORK.get(name.partition(".")[0], (5, 5))


def operator(name: str) -> Callable[..., Tensor]:
    """Return PyTorch's operator ``name`` (such as ``"relu.default"``) if a function may contain it.

    Raises:
        ConversionError: The name is not on the lists.
    """
    if name not in OPERATORS:
        raise ConversionError(f"a converted network cannot hold the operator {name!r}")
    return _straight(aten(name)) if name in ROUNDED else aten(name)


def _straight(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rounded(x: Tensor) -> Tensor:
        return x + (function(x) - x).detach() if x.requires_grad else function(x)

    return rounded


def aten(name: str) -> Callable[..., Tensor]:
    """Return PyTorch's operator of a name that the caller has found on a list of allowed operators."""
    base, overload = name.split(".")
    function: Callable[..., Tensor] = getattr(getattr(torch.ops.aten, base), overload)
    return function
