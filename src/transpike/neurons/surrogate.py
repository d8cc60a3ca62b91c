"""Surrogate gradients: a step in the forward pass, the derivative of a smooth `primitive` in the backward pass.

A surrogate is called with the membrane's distance ``x = h - v_threshold`` from the threshold. Each is a value (frozen,
comparable, free to copy). It has the three numbers from which the fused kernels compute it: ``derivative(x) = height *
shape(slope * x)``.

NaN is passed on and does not count as no spike, so that the loss of a diverged network shows it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from transpike.checks import number

__all__ = ["ATan", "Rectangular", "Sigmoid", "Surrogate", "Ternary", "Triangular"]


class _Step(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate) -> Tensor:
        return torch.where(x.isnan(), x, (x >= 0).to(x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        x, ctx.surrogate = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = tangents[0] * ctx.surrogate.derivative(x)
        return slope


class Surrogate(ABC):
    """A Heaviside step with the gradient of `primitive`."""

    shape: ClassVar[int]
    """The number of the shape in the kernels: 0 ATan, 1 sigmoid, 2 triangle, 3 rectangle."""

    @property
    @abstractmethod
    def slope(self) -> float:
        """The factor on x inside the shape."""

    @property
    @abstractmethod
    def height(self) -> float:
        """The factor on the shape."""

    @abstractmethod
    def primitive(self, x: Tensor) -> Tensor:
        """Return the smooth function whose derivative replaces the derivative of the step."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """Return the derivative of `primitive`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return 1 where ``x >= 0``, otherwise 0. The gradient is `derivative`."""
        spike: Tensor = _Step.apply(x, self)
        return spike


def _positive(owner: Surrogate, **values: float) -> None:
    for name, value in values.items():
        number(f"{type(owner).__name__}: {name}", value, above=0)


@dataclass(frozen=True)
class ATan(Surrogate):
    """``g(x) = arctan(pi/2 alpha x) / pi + 1/2``; ``g'(x) = alpha/2 / (1 + (pi/2 alpha x)^2)`` (Fang et al., 2021).

    Example:
        >>> ATan().derivative(torch.tensor([0.0]))
        tensor([1.])
    """

    alpha: float = 2.0
    shape: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _positive(self, alpha=self.alpha)

    @property
    def slope(self) -> float:
        return math.pi / 2 * self.alpha

    @property
    def height(self) -> float:
        return self.alpha / 2

    def primitive(self, x: Tensor) -> Tensor:
        return (self.slope * x).atan() / math.pi + 0.5

    def derivative(self, x: Tensor) -> Tensor:
        return self.height / (1 + (self.slope * x) ** 2)


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """``g(x) = sigmoid(alpha x)``; ``g'(x) = alpha g(x) (1 - g(x))``.

    Example:
        >>> Sigmoid(alpha=4.0).derivative(torch.tensor([0.0]))
        tensor([1.])
    """

    alpha: float = 4.0
    shape: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _positive(self, alpha=self.alpha)

    @property
    def slope(self) -> float:
        return self.alpha

    @property
    def height(self) -> float:
        return self.alpha

    def primitive(self, x: Tensor) -> Tensor:
        return (self.slope * x).sigmoid()

    def derivative(self, x: Tensor) -> Tensor:
        g = self.primitive(x)
        return self.height * g * (1 - g)


@dataclass(frozen=True)
class Triangular(Surrogate):
    """``g'(x) = gamma max(0, 1 - |x| / width)``, also called linear.

    DCT-SNN, supplement Eq. 11: gamma 0.3 and ``width = v_threshold``, as ``|u / v_th - 1| = |x| / v_th``.
    TET's ResNet-19: gamma 1, width 1. The primitive rises from 0 to ``gamma * width``.

    Example:
        >>> Triangular(gamma=0.3, width=2.0).derivative(torch.tensor([-3.0, 0.0, 1.0]))
        tensor([0.0000, 0.3000, 0.1500])
    """

    gamma: float = 1.0
    width: float = 1.0
    shape: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _positive(self, gamma=self.gamma, width=self.width)

    @property
    def slope(self) -> float:
        return 1 / self.width

    @property
    def height(self) -> float:
        return self.gamma

    def primitive(self, x: Tensor) -> Tensor:
        u = (self.slope * x).clamp(-1, 1)
        return self.gamma * self.width * (0.5 + u - 0.5 * u * u.abs())

    def derivative(self, x: Tensor) -> Tensor:
        return self.height * (1 - (self.slope * x).abs()).clamp_min(0)


@dataclass(frozen=True)
class Rectangular(Surrogate):
    """``g'(x) = 1 / width`` where ``|x| < width / 2``, else 0 (STBP, Wu et al., 2018).

    At the two thresholds of a ternary neuron of amplitude `width` it adds up to the straight-through estimator.

    Example:
        >>> Rectangular(width=0.5).derivative(torch.tensor([0.2, 0.3]))
        tensor([2., 0.])
    """

    width: float = 1.0
    shape: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _positive(self, width=self.width)

    @property
    def slope(self) -> float:
        return 1 / self.width

    @property
    def height(self) -> float:
        return 1 / self.width

    def primitive(self, x: Tensor) -> Tensor:
        return (self.slope * x + 0.5).clamp(0, 1)

    def derivative(self, x: Tensor) -> Tensor:
        return self.height * ((self.slope * x).abs() < 0.5).to(x.dtype)


@dataclass(frozen=True)
class Ternary:
    """``s(x) = f(x - threshold) - f(-x - threshold)`` for any binary surrogate f: 1, 0 or -1.

    Example:
        >>> Ternary(Rectangular(), threshold=0.5)(torch.tensor([-0.7, 0.2, 0.5]))
        tensor([-1.,  0.,  1.])
    """

    binary: Surrogate
    threshold: float = 0.5

    def __call__(self, x: Tensor) -> Tensor:
        return self.binary(x - self.threshold) - self.binary(-x - self.threshold)

    def primitive(self, x: Tensor) -> Tensor:
        """Return the smooth staircase."""
        return self.binary.primitive(x - self.threshold) - self.binary.primitive(-x - self.threshold)

    def derivative(self, x: Tensor) -> Tensor:
        """Return the derivative of `primitive`."""
        return self.binary.derivative(x - self.threshold) + self.binary.derivative(-x - self.threshold)
