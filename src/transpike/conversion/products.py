"""What a product of two trains sends on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transpike.conversion.kinds import apply
from transpike.conversion.op import Op

__all__ = ["multiplied"]


def multiplied(op: Op, a: Tensor, b: Tensor, *, weights: Sequence[float]) -> Tensor:
    r"""The current [T*N, \\*] of a product of the trains ``a`` and ``b`` [T*N, \\*], of a scheme's ``weights``.

    With :math:`E_t = \sum_{i \le t} w_i s_i` the running estimate of each operand, what travels on at step t is the
    change of the product of both, as a current of that step:

    .. math::
        z_t = (E^a_t E^b_t - E^a_{t-1} E^b_{t-1}) / w_t

    so that its decoded value is the product of the decoded operands. Hardware makes it from the step's spikes, as
    :math:`E^a_{t-1} s^b_t + s^a_t E^b_{t-1} + w_t s^a_t s^b_t`.
    """
    steps = len(weights)
    state = torch.promote_types(a.dtype, torch.float32)
    worth = torch.tensor(weights, dtype=state, device=a.device)

    def estimate(s: Tensor) -> Tensor:
        s = s.unflatten(0, (steps, -1))
        value: Tensor = (s * worth.view(-1, *(1,) * (s.ndim - 1))).cumsum(0).flatten(0, 1)
        return value

    product = apply(op, {}, estimate(a), estimate(b)).unflatten(0, (steps, -1))
    change = product.diff(dim=0, prepend=torch.zeros_like(product[:1]))
    shares: Tensor = torch.where(worth > 0, 1 / worth, 0)  # a step without worth changes nothing
    z: Tensor = (change * shares.view(-1, *(1,) * (change.ndim - 1))).flatten(0, 1)
    return z.to(a.dtype)
