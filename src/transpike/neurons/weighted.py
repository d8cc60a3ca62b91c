"""The neuron of codes whose weights fall by no single ratio: soft reset, with a threshold that follows the weight.

Differential coding and phase coding are such codes; where weights fall by one ratio, `transpike.neurons.tsa.track` is
the same neuron in the recursive form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from transpike.neurons.kernels import weighted_reference
from transpike.neurons.kernels.track_reference import Final
from transpike.neurons.kernels.weighted_reference import Rule
from transpike.neurons.tsa import RELU, Piecewise, Tracked, _allocate, _flat, _prepare, _state

__all__ = ["WeightedCode", "fire"]


@dataclass(frozen=True, kw_only=True)
class WeightedCode:
    """How a value is written as a spike train of arbitrary weights.

    Args:
        weights: the worth of a unit spike at each of the T steps, in units of theta, above 0.
        wait: steps a neuron listens before its first spike.
        levels: magnitudes a spike may have, increasing integers.
        rising: from which multiple of the step's worth each of them is fired.
        signed: whether negative spikes take back what was sent.
    """

    weights: tuple[float, ...]
    wait: int = 0
    levels: tuple[int, ...] = (1,)
    rising: tuple[float, ...] = (1.0,)
    signed: bool = False


@torch.no_grad()
def fire(
    z: Tensor,
    *,
    code: WeightedCode,
    function: Piecewise = RELU,
    accumulated: bool = False,
    inplace: bool = False,
    final: bool = False,
    state: Tensor | None = None,
) -> Tracked:
    r"""Fire digits of what is still missed of ``function`` of the weighted input, each step in units of its worth.

    At step t = 0 ... T + Ts - 1, with weights w, a wait of Ts steps, everything in units of theta:

    .. math::
        H &\leftarrow H + w_t z_t \quad (z_t = 0 \text{ for } t \ge T), \qquad o = (f(H) - G) / w_{t - Ts} \\
        s &= \text{the largest level k with } |o| \ge \text{rising}_k, \text{with the sign of } o,
        \qquad G \leftarrow G + w_{t - Ts} s

    No negative spike takes G below the least value of f. Without negative spikes, or so bounded, and for ReLU, it is
    the soft-reset neuron of membrane V = H - G.

    Args:
        z: input currents ``[T, N, *]`` in units of theta; if ``accumulated``, what is to be said by each step instead,
            ``[T, N, *]`` or ``[T + Ts, N, *]``, NaN where nothing is known yet.
        code: weights, wait and digits.
        function: what to say of H, in units of theta.
        accumulated: see ``z``.
        inplace: let the spikes overwrite ``z``.
        final: whether to return the final residual and target too, in units of theta.
        state: ``[2, N, *]``: H and G before the first of these steps, of which ``code`` then has the weights alone;
            those behind the last are written over it.

    Raises:
        ValueError: if ``z`` has not the number of steps that ``code`` says, or is not a floating-point tensor.

    Example:
        >>> code = WeightedCode(weights=(0.5, 0.25, 0.5, 0.25))
        >>> fire(torch.full((4, 1), 0.6), code=code, final=True).spikes.flatten()
        tensor([0., 1., 1., 0.])
    """
    rows = len(z) if accumulated else len(code.weights)
    _, source = _prepare(z, rows=rows)
    reuse = inplace or source.data_ptr() != z.data_ptr()
    spikes = source[: len(code.weights)] if reuse else _allocate(len(code.weights), source[0], source.dtype)
    ends = [_allocate(1, source[0], _state(z)) if final else source[:1, :0] for _ in range(2)]
    if z.numel():
        places = Final(*(_flat(end)[0] for end in ends))
        before = _allocate(2, source[0], _state(z)).copy_(torch.zeros(()) if state is None else state)
        rule = _rule(code, function)
        backend(source).fire(_flat(source), _flat(spikes), places, rule, _flat(before), accumulated=accumulated)
        if state is not None:
            state.copy_(before)
    spikes = spikes.to(z.dtype)
    return Tracked(spikes, *(end[0] for end in ends)) if final else Tracked(spikes)


def backend(z: Tensor) -> ModuleType:
    """What computes it: Numba for float32 on the CPU, else torch."""
    if z.device.type != "cpu" or z.dtype != torch.float32:
        return weighted_reference
    from transpike.neurons.kernels import weighted_cpu  # on first use, since Numba is slow to import

    return weighted_cpu


@lru_cache(maxsize=4096)
def _rule(code: WeightedCode, function: Piecewise) -> Rule:
    least = function.low if function.slope > 0 else min(max(0.0, function.low), function.high)
    return Rule(
        weights=code.weights,
        shares=tuple(1 / weight for weight in code.weights),
        wait=code.wait,
        levels=code.levels,
        rising=code.rising,
        mirror=-1.0 if code.signed else 0.0,
        slope=function.slope,
        low=function.low,
        high=function.high,
        floor=least,
    )
