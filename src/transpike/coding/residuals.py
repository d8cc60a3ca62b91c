"""The causes of a neuron's residual (its target minus its decoded train): clipping, coupling, or the last digit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["Binding", "binding", "split"]

Binding = Literal["clipping", "coupling", "resolution"]


def split(target: Tensor, residual: Tensor, *, largest: float) -> tuple[Tensor, Tensor]:
    """Return which residuals are clipping and which are coupling; all others are resolution.

    A value is clipped if its target is larger than any train can represent. A value is coupled if a train could
    represent the target, but the neuron's train misses it by more than a unit: a digit was sent too early. (Theorem 1
    of CSS uses a smaller limit.)

    Args:
        target: the neurons' targets, in units of the last step.
        residual: target minus decoded value, likewise.
        largest: the largest target that a train represents with an error of at most half a unit.

    Example:
        >>> import torch
        >>> split(torch.tensor([9.0, 3.0, 3.0]), torch.tensor([2.0, 2.0, 0.4]), largest=7.5)
        (tensor([ True, False, False]), tensor([False,  True, False]))
    """
    missed = residual.abs()
    clipped = (target.abs() > largest) & (missed > 0.5)
    return clipped, (missed > 1) & ~clipped


def binding(*, resolution: float, clipping: float, coupling: float) -> Binding:
    """Return the largest of the three parts of an error. It shows which setting helps.

    ``clipping``: a larger amplitude or more levels. ``coupling``: more silent steps or more levels. ``resolution``:
    more steps.

    Example:
        >>> binding(resolution=0.2, clipping=0.1, coupling=0.7)
        'coupling'
    """
    if max(clipping, coupling) <= resolution:
        return "resolution"
    return "clipping" if clipping >= coupling else "coupling"
