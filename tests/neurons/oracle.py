"""The nodes by their papers' equations, in float64 and one step at a time, for the tests to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from transpike.neurons import DCTLIFNode, IFNode, LIFNode, ParametricLIFNode, SpikingNode, TSANode


class Spike(torch.autograd.Function):
    """A step whose gradient comes from autograd through the primitive, not from any formula for its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, primitive: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.primitive = primitive
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.primitive(x).sum(), x)
        return grads[0] * slope, None


def _reset(node: SpikingNode, h: Tensor, s: Tensor) -> Tensor:
    s = s.detach() if node.detach_reset else s
    return h - node.v_threshold * s if node.v_reset is None else (1 - s) * h + s * node.v_reset


def _leaky(node: LIFNode | ParametricLIFNode, x: Tensor, v: Tensor, tau: Tensor | float) -> Tensor:
    rest = node.v_reset or 0.0
    return v + (x - (v - rest)) / tau if node.decay_input else v - (v - rest) / tau + x


def run(node: SpikingNode, x: Tensor, v: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Spikes and last membrane of `node` for a float64 x [T, N] from the membrane v [N]."""

    def spike(distance: Tensor) -> Tensor:
        return Spike.apply(distance, node.surrogate_function.primitive)

    train = []
    for current in x:
        match node:
            case IFNode():
                h = v + current
                s = spike(h - node.v_threshold)
                v = _reset(node, h, s)
            case LIFNode() | ParametricLIFNode():
                h = _leaky(node, current, v, node.tau if isinstance(node, LIFNode) else 1 / w.sigmoid())
                s = spike(h - node.v_threshold)
                v = _reset(node, h, s)
            case TSANode():
                h = node.beta * v + current
                s = spike(h - node.v_threshold / 2) - spike(-h - node.v_threshold / 2)
                v = _reset(node, h, s)
            case DCTLIFNode():
                u = v + current
                s = spike(u - node.v_threshold)
                o = s.detach() if node.detach_reset else s
                leak = node.leak if node.leak_when == "always" else node.leak + (1 - node.leak) * o
                v = leak * u - node.v_threshold * o
        train.append(s)
    return torch.stack(train), v
