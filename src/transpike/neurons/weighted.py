"""The neuron of codes whose weights have no single ratio: soft reset, with a threshold that follows the weight.

Differential coding and phase coding are such codes. If weights fall by one ratio, `transpike.neurons.tsa.track` is the
same neuron in recursive form.
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
    """A code with arbitrary weights.

    Args:
        weights: the value of a unit spike at each of the T steps, in units of theta, above 0.
        wait: the number of silent steps before the first spike.
        levels: the magnitudes of spikes, increasing integers.
        rising: the multiple of the step's value from which each of them fires.
        signed: whether negative spikes take back earlier ones.
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
    r"""Fire the digits of ``function`` of the weighted input that the train still lacks, in units of each step's value.

    At step t = 0 ... T + Ts - 1, with weights w, a wait of Ts steps, everything in units of theta:

    .. math::
        H &\leftarrow H + w_t z_t \quad (z_t = 0 \text{ for } t \ge T), \qquad o = (f(H) - G) / w_{t - Ts} \\
        s &= \text{the largest level k with } |o| \ge \text{rising}_k, \text{with the sign of } o,
        \qquad G \leftarrow G + w_{t - Ts} s

    No negative spike takes G below the least value of f. Without negative spikes, or with this limit, and for ReLU, it
    is the soft-reset neuron with membrane V = H - G.

    Args:
        z: input currents ``[T, N, *]`` in units of theta. If ``accumulated``, the value to represent after each step,
            ``[T, N, *]`` or ``[T + Ts, N, *]``, with NaN where it is not known yet.
        code: weights, wait and digits.
        function: the function of H to represent, in units of theta.
        accumulated: see ``z``.
        inplace: whether spikes may overwrite ``z``.
        final: whether to return the final residual and target too, in units of theta.
        state: ``[2, N, *]``: H and G before the first of these steps. Then ``code`` has the weights of only these
            steps, and H and G after the last step are written over it.

    Raises:
        ValueError: ``z`` does not have the number of steps of ``code``, or is not a floating-point tensor.

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
    """Return the backend: Numba for float32 on the CPU, otherwise torch."""
    if z.device.type != "cpu" or z.dtype != torch.float32:
        return weighted_reference
    from transpike.neurons.kernels import weighted_cpu  # on first use, because Numba is slow to import

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
