"""The current that a product of two trains sends."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, ratio
from transpike.conversion.kinds import apply
from transpike.conversion.op import Op
from transpike.neurons import tsa
from transpike.neurons.pieces import Accumulated, Change

__all__ = ["ProductSteps", "multiplied"]


def multiplied(op: Op, a: Tensor, b: Tensor, *, scheme: Scheme, inplace: tuple[bool, bool] = (False, False)) -> Tensor:
    r"""Return the current [T*N, \\*] of a product of the trains ``a`` and ``b`` [T*N, \\*] of a scheme with weights w.

    :math:`E_t = \sum_{i \le t} w_i s_i` is the running estimate of each operand. The product sends at step t the change
    of the product of both estimates, as a current of that step:

    .. math::
        z_t = (E^a_t E^b_t - E^a_{t-1} E^b_{t-1}) / w_t

    So its decoded value is the product of the decoded operands. Hardware computes it from the spikes of the step, as
    :math:`E^a_{t-1} s^b_t + s^a_t E^b_{t-1} + w_t s^a_t s^b_t`.

    The estimates may be written over the operands for which ``inplace`` is true.
    """
    weights, gains = scheme.weights, op.gains or (1.0, 1.0)
    first, second = (
        _estimates(scheme, s, gain, inplace=over) for s, gain, over in zip((a, b), gains, inplace, strict=True)
    )
    z: Tensor = apply(replace(op, gains=()), {}, first, second).unflatten(0, (len(weights), -1))
    return tsa.change(z, weights=weights).flatten(0, 1).to(a.dtype)


def _estimates(scheme: Scheme, s: Tensor, gain: float, *, inplace: bool) -> Tensor:
    s = s.unflatten(0, (len(scheme.weights), -1))
    if (beta := ratio(scheme)) is not None:
        return tsa.estimate(s, beta=beta, unit=scheme.weights[-1] * gain, inplace=inplace).flatten(0, 1)
    worth = torch.tensor(scheme.weights, dtype=torch.promote_types(s.dtype, torch.float32), device=s.device) * gain
    value: Tensor = (s * worth.view(-1, *(1,) * (s.ndim - 1))).cumsum(0).flatten(0, 1)
    return value


class ProductSteps:
    """Computes `multiplied` in pieces of steps, exactly, for a scheme whose weights fall by one ratio."""

    def __init__(self, op: Op, scheme: Scheme) -> None:
        beta = ratio(scheme)
        assert beta is not None
        self.op, self.weights, self.step = op, scheme.weights, 0
        powers = [beta**power for power in reversed(range(len(scheme.weights)))]
        units = [scheme.weights[-1] * gain for gain in op.gains or (1.0, 1.0)]
        self.sums = [Accumulated(beta, tuple(unit * power for power in powers)) for unit in units]
        self.before: Tensor | None = None

    def __call__(self, a: Tensor, b: Tensor, *, inplace: tuple[bool, bool] = (False, False)) -> Tensor:
        """Return the currents [k, N, \\*] of the next steps, for trains [k, N, \\*]. Estimates as in `multiplied`."""
        trains = zip(self.sums, (a, b), inplace, strict=True)
        first, second = (total(s, inplace=over).flatten(0, 1) for total, s, over in trains)
        z: Tensor = apply(replace(self.op, gains=()), {}, first, second).unflatten(0, (len(a), -1))
        weights = self.weights[self.step : self.step + len(a)]
        before, self.before, self.step = self.before, z[-1].clone(), self.step + len(a)
        head = None if before is None else (z[0] - before) * (1 / weights[0] if weights[0] else 0.0)
        z = tsa.change(z, weights=weights)
        if head is not None:
            z[0] = head
        return z.to(a.dtype)

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        for total in self.sums:
            total.rebatch(change)
        if self.before is not None:
            self.before = change(self.before, 0)
