"""The kernels of the neurons: a torch reference, Numba on the CPU, Triton on CUDA.

The fused kernels are operators of ``torch.library``: ``transpike::neuron`` and ``transpike::neuron_backward``, and for
inference on CUDA ``transpike::neuron_normed``, which includes the normalisation before the neuron. So autograd,
``torch.compile`` and mixed precision see them. Autocast needs no rule: spikes have the dtype of the input, and half
precision represents them exactly. The state is float32 for any input.

Only the input is stored for the backward pass: 4 bytes for each element and step in float32, 2 in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from transpike.errors import DataError
from transpike.neurons.kernels import reference
from transpike.neurons.kernels.reference import Dynamics
from transpike.neurons.surrogate import Surrogate

__all__ = ["Dynamics", "multi_step", "normed"]


_DEVICES = ("cpu", "cuda") if find_spec("triton") else ("cpu",)


def _backend(x: Tensor) -> ModuleType:
    # On first use, because Numba and Triton are slow to import.
    return import_module(f"transpike.neurons.kernels.{'gpu' if x.is_cuda else 'cpu'}")


def multi_step(
    x: Tensor,
    v: Tensor | None,
    dynamics: Dynamics,
    surrogate: Callable[[Tensor], Tensor],
    *,
    charge: Tensor | None = None,
    norm: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a neuron over all steps of x in one fused pass, or by the reference if there is no kernel.

    There are kernels for float32, float16 and bfloat16 on the CPU and on CUDA, and for the surrogates of this package.
    Any other callable, float64, other devices and forward-mode derivatives (`torch.func.jvp`, `jacfwd`) use the
    reference, `transpike.neurons.kernels.reference.multi_step`.

    Args:
        x: input current [T, N, *], in any dense memory format: channels-last stays channels-last.
        v: membrane before the first step [N, *]; None for ``dynamics.start``.
        dynamics: the neuron. `Dynamics` contains its equation.
        surrogate: maps the distance to the threshold to a spike.
        charge: (decay, gain, bias) as a tensor [3], if they are learned.
        norm: scale and shift [C] of the channels, the third axis of x: the neuron takes ``x * scale + shift``. On CUDA
            and without gradients the kernel computes that by itself, in float32.

    Returns:
        Spikes [T, N, *] in x's dtype, exactly -1, 0 or 1, and the membrane [N, *] after the last step. NaN in gives
        NaN out.

    Raises:
        DataError: x has no steps or is not floating-point, or v does not have the shape of one step.

    Example:
        >>> from transpike.neurons import Dynamics, Sigmoid, multi_step
        >>> lif = Dynamics(threshold=1.0, decay=0.5, gain=0.5, drop=1.0)
        >>> s, v = multi_step(torch.full((4, 1), 1.6), None, lif, Sigmoid())
        >>> s.flatten(), v
        (tensor([0., 1., 0., 1.]), tensor([0.2500]))
    """
    if x.dim() == 0 or len(x) == 0 or not x.is_floating_point():
        raise DataError(f"expected floating-point input [T, N, *] of one step or more, got {x.dtype} {list(x.shape)}")
    if v is not None and v.shape != x.shape[1:]:
        raise DataError(f"the membrane has shape {list(v.shape)}, a step of the input {list(x.shape[1:])}")
    # The kernels drop tangents. x does not show whether there are any: inside jvp(grad(f)) it shows none.
    forward_mode = forward_ad._current_level >= 0
    fused = x.dtype != torch.float64 and x.device.type in _DEVICES and not forward_mode
    inside = fused and x.is_cuda and not torch.is_grad_enabled()
    if norm is not None and not inside:
        x = normed(x, norm)
    if isinstance(surrogate, Surrogate) and fused:
        state = (None if given is None else given.float() for given in (v, charge))
        if norm is not None and inside:
            spikes, last = _normed(x, *(values.float() for values in norm), *state, [float(n) for n in dynamics])
            return spikes, last
        shape = [surrogate.shape, surrogate.slope, surrogate.height]
        spikes, last = _neuron(x, *state, [float(number) for number in dynamics], shape)
        return spikes, last
    return reference.multi_step(x, v, charge, dynamics, surrogate)[:2]


def normed(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    """Return x [T, N, C, *] times a scale plus a shift, each [C].

    Example:
        >>> normed(torch.ones(1, 1, 2), (torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.0])))
        tensor([[[2.5000, 3.0000]]])
    """
    scale, shift = (values.to(x.dtype).view(-1, *(1,) * (x.dim() - 3)) for values in norm)
    return x * scale + shift


def _dense(x: Tensor) -> Tensor:
    """Return x itself if each step is one block of memory, in any order inside; otherwise a contiguous copy."""
    if x.is_contiguous():
        return x
    like = torch.empty_like(x, device="meta")
    whole = like.stride() == x.stride() and x.stride(0) == x[0].numel()
    return x if whole else x.contiguous()


def _flat(a: Tensor, like: Tensor) -> Tensor:
    """Return the memory of a, [T, N, *] or [N, *], as [T, M] or [M] in the order of `like`, a dense [T, N, *]."""
    stride = like.stride()[like.dim() - a.dim() :]
    if a.stride() != stride:
        a = torch.empty_strided(a.shape, stride, dtype=a.dtype, device=a.device).copy_(a)
    neurons = like[0].numel()
    return a.as_strided((len(a), neurons), (neurons, 1)) if a.dim() == like.dim() else a.as_strided((neurons,), (1,))


def _shaped(a: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of `_flat`: [T, M] or [M] in the shape and memory order of `like`."""
    first = 2 - a.dim()
    return a.as_strided(like.shape[first:], like.stride()[first:])


# `define` instead of `custom_op`, whose first call imports the compiler and takes a second and a half.
_STATE = "Tensor x, Tensor? v, Tensor? charge, float[] dynamics, float[] surrogate"
torch.library.define("transpike::neuron", f"({_STATE}) -> (Tensor, Tensor)", tags=torch.Tag.pt2_compliant_tag)
torch.library.define(
    "transpike::neuron_backward",
    f"(Tensor? grad_spikes, Tensor? grad_v, {_STATE}) -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "transpike::neuron_normed",
    "(Tensor x, Tensor scale, Tensor shift, Tensor? v, Tensor? charge, float[] dynamics) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
_neuron = torch.ops.transpike.neuron.default
_normed = torch.ops.transpike.neuron_normed.default
_neuron_backward = torch.ops.transpike.neuron_backward.default


@torch.library.impl("transpike::neuron", _DEVICES)
def _(
    x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float], surrogate: Sequence[float]
) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    start = None if v is None else _flat(v, x)
    spikes, last = _backend(x).forward(_flat(x, x), start, charge, dynamics)
    return _shaped(spikes, x), _shaped(last, x)


@torch.library.impl("transpike::neuron_backward", _DEVICES)
def _(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    x = _dense(x)
    grads = tuple(None if grad is None else _flat(grad, x) for grad in (grad_spikes, grad_v))
    start = None if v is None else _flat(v, x)
    gx, gv, gc = _backend(x).backward(grads, _flat(x, x), start, charge, dynamics, surrogate)
    return _shaped(gx, x), gv if v is None else _shaped(gv, x), gc


@torch.library.impl("transpike::neuron_normed", "cuda")
def _(
    x: Tensor, scale: Tensor, shift: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float]
) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    start = None if v is None else _flat(v, x)
    spikes, last = _backend(x).forward(_flat(x, x), start, charge, dynamics, (scale, shift, max(1, x.stride(2))))
    return _shaped(spikes, x), _shaped(last, x)


@torch.library.register_fake("transpike::neuron_normed")  # type: ignore[untyped-decorator]
def _(
    x: Tensor, scale: Tensor, shift: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float]
) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    return torch.empty_like(x), _membrane_like(x)


@torch.library.register_fake("transpike::neuron")  # type: ignore[untyped-decorator]
def _(
    x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float], surrogate: Sequence[float]
) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    return torch.empty_like(x), _membrane_like(x)


@torch.library.register_fake("transpike::neuron_backward")  # type: ignore[untyped-decorator]
def _(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    x = _dense(x)
    gv = x.new_empty(0, dtype=torch.float32) if v is None else _membrane_like(x)
    return torch.empty_like(x), gv, x.new_empty(3, dtype=torch.float32)


def _membrane_like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape[1:], x.stride()[1:], dtype=torch.float32, device=x.device)


class _Context(Protocol):
    """The context that PyTorch passes from the forward to the backward pass."""

    dynamics: Sequence[float]
    surrogate: Sequence[float]
    saved_tensors: tuple[Tensor, Tensor | None, Tensor | None]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


_Inputs = tuple[Tensor, Tensor | None, Tensor | None, Sequence[float], Sequence[float]]


def _setup_context(ctx: _Context, inputs: _Inputs, output: tuple[Tensor, Tensor]) -> None:
    x, v, charge, ctx.dynamics, ctx.surrogate = inputs
    ctx.save_for_backward(x, v, charge)
    ctx.set_materialize_grads(False)


def _backward(ctx: _Context, grad_spikes: Tensor | None, grad_v: Tensor | None) -> tuple[Tensor | None, ...]:
    x, v, charge = ctx.saved_tensors
    gx, gv, gc = _neuron_backward(grad_spikes, grad_v, x, v, charge, ctx.dynamics, ctx.surrogate)
    return gx, None if v is None else gv, None if charge is None else gc, None, None


def _second(ctx: _Context, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise NotImplementedError('the fused neurons have no second derivative: give the nodes backend="torch"')


torch.library.register_autograd("transpike::neuron", _backward, setup_context=_setup_context)
torch.library.register_autograd("transpike::neuron_backward", _second)
