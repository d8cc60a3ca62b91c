"""Activations by name, and QCFS: a clip that rounds to levels, with a trained bound."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transpike.checks import choice, number, whole
from transpike.errors import ModelError

__all__ = ["ACTIVATIONS", "QCFS", "Activation", "activation_arguments", "activation_factory"]

Activation = Callable[[], nn.Module]


class QCFS(nn.Module):
    r"""Quantisation clip-floor-shift: :math:`\lambda\, \mathrm{clip}(\lfloor x L / \lambda + 1/2 \rfloor / L, 0, 1)`.

    Its gradient ignores the rounding. With respect to x it is 1 inside the clip. With respect to :math:`\lambda` it is
    1 above the clip; inside, it is what the rounding added, divided by :math:`\lambda`. Values exactly between two
    levels go to the even one.

    Args:
        levels: L.
        bound: the first value of lambda, which is trained with the weights.

    Shapes: any shape to the same.

    Raises:
        ModelError: A value is outside its range.

    Source: Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks",
    ICLR 2022, in which lambda begins with 8.

    Example:
        >>> QCFS(levels=4, bound=2.0)(torch.tensor([-1.0, 0.2, 0.3, 1.6, 9.0]))
        tensor([0.0000, 0.0000, 0.5000, 1.5000, 2.0000], grad_fn=<MulBackward0>)
    """

    def __init__(self, levels: int = 8, bound: float = 8.0) -> None:
        super().__init__()
        self.levels = whole("levels", levels, most=2**16, error=ModelError)
        number("bound", bound, above=0, error=ModelError)
        self.bound = nn.Parameter(torch.tensor(float(bound)))

    def forward(self, x: Tensor) -> Tensor:
        level = (x * (self.levels / self.bound)).clamp(0, self.levels)
        rounded = level + (level.round() - level).detach() if self.training else level.round()
        return rounded * (self.bound / self.levels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "qcfs": QCFS}
"""The activations of our artificial networks, by name."""


def activation_factory(activation: str | Activation, **arguments: Any) -> Activation:
    """Return a function that creates one activation, from its name and arguments. A function is returned unchanged.

    Raises:
        ModelError: The name is unknown, or a value is outside its range.

    Example:
        >>> activation_factory("qcfs", levels=4)()
        QCFS(levels=4)
    """
    if not isinstance(activation, str):
        return activation
    factory = partial(ACTIVATIONS[choice("activation", activation, ACTIVATIONS, error=ModelError)], **arguments)
    factory()  # so that an error comes once, and early
    return factory


def activation_arguments(activation: object) -> dict[str, object]:
    """Return the arguments of an activation by its name, with their defaults. Arguments without a default are left out.

    Example:
        >>> activation_arguments("qcfs")
        {'levels': 8, 'bound': 8.0}
    """
    if activation != "qcfs":
        return {}
    return {each.name: each.default for each in inspect.signature(QCFS).parameters.values()}
