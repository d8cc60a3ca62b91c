"""What makes a neuron's residual, its target less what its train says: clipping, coupling, or the last digit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["Binding", "binding", "split"]

Binding = Literal["clipping", "coupling", "resolution"]


def split(target: Tensor, residual: Tensor, *, largest: float) -> tuple[Tensor, Tensor]:
    """Which residuals are clipping and which coupling; all others are resolution.

    A value is clipped where its target is more than a train can say. It is coupled where its train could say the
    target, and yet misses it by more than a unit (Theorem 1 of CSS asks for less): a digit was sent too early.

    Args:
        target: of the neurons, in units of the last step.
        residual: target less decoded value, likewise.
        largest: the largest target that a train says with an error of half a unit.

    Example:
        >>> import torch
        >>> split(torch.tensor([9.0, 3.0, 3.0]), torch.tensor([2.0, 2.0, 0.4]), largest=7.5)
        (tensor([ True, False, False]), tensor([False,  True, False]))
    """
    missed = residual.abs()
    clipped = (target.abs() > largest) & (missed > 0.5)
    return clipped, (missed > 1) & ~clipped


def binding(*, resolution: float, clipping: float, coupling: float) -> Binding:
    """The largest of three parts of an error, hence which setting helps.

    ``clipping``: a larger amplitude, or more levels. ``coupling``: more silent steps, or more levels. ``resolution``:
    more steps.

    Example:
        >>> binding(resolution=0.2, clipping=0.1, coupling=0.7)
        'coupling'
    """
    if max(clipping, coupling) <= resolution:
        return "resolution"
    return "clipping" if clipping >= coupling else "coupling"
