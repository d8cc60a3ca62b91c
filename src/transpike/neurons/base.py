"""The common base of all spiking nodes: state, step modes, reset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from transpike.checks import choice, number
from transpike.errors import ConfigError, DataError
from transpike.neurons.kernels import Dynamics, multi_step, normed, reference

__all__ = ["SpikingNode", "reset_net"]


class SpikingNode(nn.Module, ABC):
    """A layer of neurons: input current to spikes, with a membrane `v` that persists from call to call.

    With ``step_mode="s"`` a call takes one step [N, *], and with ``"m"`` a sequence [T, N, *]. A sequence in pieces
    gives the result of the whole sequence, including gradients, until `reset_net` (or `reset`) resets the membrane.

    Spikes have the dtype of the input. The membrane is float32 (float64 for float64 input). NaN in gives NaN out, so
    that the loss of a diverged network shows it. Surrogates of this package run as one fused pass over all steps. Any
    other callable, and ``store_v_seq=True``, run on the PyTorch reference, which is several times slower.

    Args:
        v_threshold: the membrane potential at which a neuron fires.
        v_reset: the membrane potential after a spike (hard reset). None subtracts the threshold instead (soft reset).
        surrogate_function: maps ``h - v_threshold`` to a spike. Its gradient is the surrogate's.
        detach_reset: whether to cut the gradient through the reset.
        step_mode: "s" for single steps, "m" for sequences.
        store_v_seq: whether to store the membrane after every step in `v_seq` [T, N, *].
        backend: "auto", or "torch" to run the reference with any surrogate.

    Raises:
        ConfigError: A value is outside its range.
        DataError: On call: x has no time axis or no steps, is not floating-point, or does not have the shape of the
            membrane from an earlier batch.
    """

    v: float | Tensor
    v_seq: Tensor | None

    def __init__(
        self,
        v_threshold: float,
        v_reset: float | None,
        surrogate_function: Callable[[Tensor], Tensor],
        detach_reset: bool,
        step_mode: str,
        store_v_seq: bool,
        backend: str,
    ) -> None:
        super().__init__()
        self._require("v_threshold", v_threshold, above=0)
        if v_reset is not None:
            self._require("v_reset", v_reset, below=v_threshold)
        if not callable(surrogate_function) or isinstance(surrogate_function, type):
            raise ConfigError(
                f"{type(self).__name__}: surrogate_function must be a function of a tensor, ATan() for instance, got "
                f"{surrogate_function!r}"
            )
        choice(f"{type(self).__name__}: backend", backend, ("auto", "torch"))
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.surrogate_function = surrogate_function
        self.detach_reset = detach_reset
        self.step_mode = step_mode
        self.store_v_seq = store_v_seq
        self.backend = backend
        self.reset()

    def _require(
        self,
        name: str,
        value: float | Tensor,
        *,
        above: float | None = None,
        least: float | None = None,
        below: float | None = None,
        most: float | None = None,
    ) -> None:
        """Check that a number is within its bounds, those of `checks.number`. It may be a tensor with one number."""
        single = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        number(f"{type(self).__name__}: {name}", single, above=above, least=least, below=below, most=most)

    @property
    def step_mode(self) -> str:
        """ "s": a call takes one step [N, *]. "m": a call takes a sequence [T, N, *]."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        self._step_mode = choice(f"{type(self).__name__}: step_mode", value, ("s", "m"))

    @property
    @abstractmethod
    def dynamics(self) -> Dynamics:
        """The neuron as numbers. `Dynamics` contains the equation."""

    def charge(self) -> Tensor | None:
        """Return (decay, gain, bias) [3] if they are learned, otherwise None."""
        return None

    def _resets(self) -> dict[str, float]:
        """Return the part of `dynamics` that depends on soft or hard reset, with the initial membrane."""
        if self.v_reset is None:
            return {"drop": self.v_threshold}
        return {"carry": 0.0, "rest": self.v_reset, "start": self.v_reset}

    def reset(self) -> None:
        """Reset the membrane and delete `v_seq`."""
        self.v = 0.0 if self.v_reset is None else self.v_reset
        self.v_seq = None

    def detach(self) -> None:
        """Keep the membrane but cut its history, for truncated backpropagation through time."""
        if isinstance(self.v, Tensor):
            self.v = self.v.detach()

    def forward(self, x: Tensor, norm: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return spikes in the shape and dtype of x.

        With ``norm``, of x times a scale and plus a shift, each [C]; see `transpike.neurons.multi_step`.
        """
        sequence = x.unsqueeze(0) if self.step_mode == "s" else x
        v = self._membrane(sequence)
        dynamics, charge = self.dynamics, self.charge()
        if v is None:
            dynamics = dynamics._replace(start=float(self.v))
        if self.store_v_seq or self.backend == "torch":
            sequence = sequence if norm is None else normed(sequence, norm)
            trace = reference.multi_step(
                sequence, v, charge, dynamics, self.surrogate_function, store_v_seq=self.store_v_seq
            )
            spikes, self.v = trace.spikes, trace.v
            self._remember(trace.v_seq)
        else:
            spikes, self.v = multi_step(sequence, v, dynamics, self.surrogate_function, charge=charge, norm=norm)
        return spikes.squeeze(0) if self.step_mode == "s" else spikes

    def _membrane(self, x: Tensor) -> Tensor | None:
        name = type(self).__name__
        if x.dim() < 2:
            raise DataError(
                f'{name}: step_mode "{self.step_mode}" takes {"[N, *]" if self.step_mode == "s" else "[T, N, *]"}, '
                f"got a tensor of shape {list(x.shape[self.step_mode == 's' :])}"
            )
        if len(x) == 0:
            raise DataError(f"{name}: a sequence of no steps (T = 0), shape {list(x.shape)}")
        if not x.is_floating_point():
            raise DataError(f"{name}: the input must be floating point, got {x.dtype}: call .float() on it")
        if not isinstance(self.v, Tensor):
            return None
        if self.v.shape != x.shape[1:]:
            raise DataError(
                f"{name}: the membrane has shape {list(self.v.shape)} from an earlier call, a step of the input has "
                f"{list(x.shape[1:])}: call transpike.neurons.reset_net(network) between batches"
            )
        return self.v.to(x.device)

    def _remember(self, v_seq: Tensor | None) -> None:
        if v_seq is not None and self.step_mode == "s" and self.v_seq is not None:
            v_seq = torch.cat((self.v_seq, v_seq))
        self.v_seq = v_seq

    def __getstate__(self) -> dict[str, object]:
        """Reset the membrane of a copy or a pickle: a membrane inside a graph can be neither copied nor saved."""
        rest = 0.0 if self.v_reset is None else self.v_reset
        return {**self.__dict__, "v": rest, "v_seq": None}

    def extra_repr(self) -> str:
        return (
            f"v_threshold={self.v_threshold}, v_reset={self.v_reset}, detach_reset={self.detach_reset}, "
            f"step_mode={self.step_mode!r}, surrogate_function={self.surrogate_function}"
        )


def reset_net(net: nn.Module) -> None:
    """Reset every neuron of a network; call it between batches.

    It also resets SpikingJelly's modules: every module with a `reset` and a `step_mode`.

    Example:
        >>> from transpike.neurons import IFNode
        >>> node = IFNode()
        >>> _ = node(torch.tensor([0.4]))
        >>> reset_net(node)
        >>> node.v
        0.0
    """
    for module in net.modules():
        reset = getattr(module, "reset", None)
        if hasattr(module, "step_mode") and callable(reset):
            reset()
