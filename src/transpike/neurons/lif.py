"""The nodes: integrate-and-fire, leaky, parametric, ternary amplifying, and the DCT-SNN paper's.

The constructors take SpikingJelly's keywords, so that its networks accept these nodes by ``spiking_neuron=``.
In each equation ``s = [h >= v_threshold]``. After a spike ``v = v_reset``, or ``v = h - v_threshold`` if `v_reset`
is None. Without a spike ``v = h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from transpike.checks import choice
from transpike.neurons.base import SpikingNode
from transpike.neurons.kernels import Dynamics
from transpike.neurons.surrogate import Rectangular, Sigmoid, Triangular

__all__ = ["DCTLIFNode", "IFNode", "LIFNode", "ParametricLIFNode", "TSANode"]

SurrogateFunction = Callable[[Tensor], Tensor]
SIGMOID = Sigmoid()


class IFNode(SpikingNode):
    """Integrate and fire: ``h[t] = v[t-1] + x[t]``. For the arguments see `SpikingNode`.

    Example:
        >>> IFNode(v_reset=None, step_mode="m")(torch.tensor([[0.6], [0.6], [0.9]])).flatten()
        tensor([0., 1., 1.])
    """

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: SurrogateFunction = SIGMOID,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq, backend)

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(self.v_threshold, detach_reset=self.detach_reset, **self._resets())


class LIFNode(SpikingNode):
    """Leaky integrate and fire::

        h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau      decay_input=True
        h[t] = v[t-1] - (v[t-1] - v_reset) / tau + x[t]        decay_input=False

    (A v_reset of None counts as 0.) BSD's Eq. 2, ``U[n] = beta U[n-1] + (1 - beta) I[n]``, is the first form with ``tau
    = 1 / (1 - beta)``. The ``u = u/2 + x`` of its ResNet-19 code is the second form with tau 2.

    Args:
        tau: membrane time constant in steps, above 1.
        decay_input: whether the input decays too, so that the membrane tends to a constant input.

    For the other arguments see `SpikingNode`.

    Example:
        >>> LIFNode(step_mode="m")(torch.tensor([[1.5], [1.5], [1.5]])).flatten()
        tensor([0., 1., 0.])
    """

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: SurrogateFunction = SIGMOID,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq, backend)
        self._require("tau", tau, above=1)
        self.tau = tau
        self.decay_input = decay_input

    @property
    def dynamics(self) -> Dynamics:
        leak = 1 / self.tau
        return Dynamics(
            self.v_threshold,
            decay=1 - leak,
            gain=leak if self.decay_input else 1.0,
            bias=leak * (self.v_reset or 0.0),
            detach_reset=self.detach_reset,
            **self._resets(),
        )

    def extra_repr(self) -> str:
        return f"tau={self.tau}, decay_input={self.decay_input}, {super().extra_repr()}"


class ParametricLIFNode(SpikingNode):
    """`LIFNode` with one learned time constant per layer, ``1 / tau = sigmoid(w)`` (Fang et al., ICCV 2021).

    Args:
        init_tau: the initial time constant, above 1.
        decay_input: as in `LIFNode`.

    For the other arguments see `SpikingNode`.

    Example:
        >>> node = ParametricLIFNode(init_tau=4.0, step_mode="m")
        >>> node(torch.tensor([[1.0], [3.0]])).sum().backward()
        >>> bool(node.w.grad > 0)
        True
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: SurrogateFunction = SIGMOID,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq, backend)
        self._require("init_tau", init_tau, above=1)
        self.decay_input = decay_input
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1)))

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(self.v_threshold, detach_reset=self.detach_reset, **self._resets())

    def charge(self) -> Tensor:
        leak = self.w.to(torch.promote_types(self.w.dtype, torch.float32)).sigmoid()
        gain = leak if self.decay_input else torch.ones_like(leak)
        return torch.stack((1 - leak, gain, leak * (self.v_reset or 0.0)))

    def extra_repr(self) -> str:
        return f"tau={1 / self.w.detach().sigmoid():.4g}, decay_input={self.decay_input}, {super().extra_repr()}"


class TSANode(SpikingNode):
    """Ternary self-amplifying neuron, trainable: the neuron of CSS without silent steps or rectification::

        h[t] = beta v[t-1] + x[t]
        s[t] = 1 if h >= v_threshold / 2, -1 if h <= -v_threshold / 2, else 0
        v[t] = h - v_threshold s

    So the train, read as ``sum_t beta^(T-1-t) v_threshold s[t]``, differs from the input, read in the same way, only by
    the last membrane. The neuron is linear except for the saturation of the spikes. The neuron of conversion, which
    tracks ReLU, is in `transpike.neurons.tsa`.

    Args:
        beta: amplification in each step, at least 1. Up to 3, the residual of a value within range stays within half a
            spike.
        v_threshold: amplitude of a spike in units of the input.
        surrogate_function: applied at both thresholds, ``f(h - v_threshold/2)`` and ``f(-h - v_threshold/2)``. The
            default is the rectangle of width v_threshold, which makes the pair the straight-through estimator.

    For the other arguments see `SpikingNode`. The reset damps the gradient of the past where the surrogate is wide.
    With ``detach_reset=True`` it grows as beta^t, like the weights of the code.

    Example:
        >>> TSANode(step_mode="m")(torch.tensor([[0.7], [0.0], [0.0]])).flatten()
        tensor([ 1., -1.,  1.])
    """

    def __init__(
        self,
        beta: float = 2.0,
        v_threshold: float = 1.0,
        surrogate_function: SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            v_threshold,
            None,
            surrogate_function or Rectangular(width=v_threshold),
            detach_reset,
            step_mode,
            store_v_seq,
            backend,
        )
        self._require("beta", beta, least=1)
        self.beta = beta

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(
            self.v_threshold / 2, decay=self.beta, ternary=True, detach_reset=self.detach_reset, **self._resets()
        )

    def extra_repr(self) -> str:
        return f"beta={self.beta}, {super().extra_repr()}"


class DCTLIFNode(SpikingNode):
    """The leaky neuron of DCT-SNN with soft reset (supplement, Eq. 2 and 3, and Algorithm 1)::

        u[t] = leak u[t-1] - v_threshold o[t-1] + x[t],   o[t] = [u[t] >= v_threshold]

    With ``leak_when="silent"``, as in Algorithm 1, a neuron that has just fired does not leak. The membrane `v` is the
    one to which the next step adds, after leak and reset. A layer fires on the membrane of the same step.

    Args:
        leak: factor per step, in (0, 1]; 0.9901 in the paper.
        v_threshold: the threshold.
        leak_when: "always" (Eq. 2) or "silent" (Algorithm 1).
        surrogate_function: by default the paper's Eq. 11, ``Triangular(gamma=0.3, width=v_threshold)``.

    For the other arguments see `SpikingNode`.

    Example:
        >>> DCTLIFNode(step_mode="m")(torch.tensor([[0.6], [0.6], [0.8]])).flatten()
        tensor([0., 1., 0.])
    """

    def __init__(
        self,
        leak: float = 0.9901,
        v_threshold: float = 1.0,
        leak_when: str = "always",
        surrogate_function: SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            v_threshold,
            None,
            surrogate_function or Triangular(gamma=0.3, width=v_threshold),
            detach_reset,
            step_mode,
            store_v_seq,
            backend,
        )
        self._require("leak", leak, above=0, most=1)
        choice("DCTLIFNode: leak_when", leak_when, ("always", "silent"))
        self.leak = leak
        self.leak_when = leak_when

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(
            self.v_threshold,
            keep=self.leak,
            carry=self.leak if self.leak_when == "always" else 1.0,
            detach_reset=self.detach_reset,
            **self._resets(),
        )

    def extra_repr(self) -> str:
        return f"leak={self.leak}, leak_when={self.leak_when!r}, {super().extra_repr()}"
