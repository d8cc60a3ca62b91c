"""Avoids the channels-last layout for convolutions whose gradient oneDNN computes wrongly in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["safe_layouts"]

_Conv = nn.Conv2d | nn.ConvTranspose2d

# The channels that oneDNN computes together, in registers of AVX2 and of AVX-512.
_AVX2, _AVX512 = 8, 16
# Up to so many pixels AVX-512's kernel computes an image at once, without the fault: 27 x 27 measured, 28 x 28 not.
_AT_ONCE = 256


@contextmanager
def safe_layouts(network: nn.Module) -> Iterator[None]:
    """Give NCHW images to narrow strided 1x1 convolutions that train on the CPU, inside the context.

    In channels-last, oneDNN (3.12, of torch 2.14) gathers the pixels that the stride leaves in a workspace. If there
    are fewer channels than fit into a register, it writes beyond the workspace. Then the weights' gradient is wrong, or
    the process dies of signal 11 (uxlfoundation/oneDNN, issue 6035). This needs a 1x1 kernel, a stride that divides the
    image's sides, one group, and fewer than 8 channels. With AVX-512, which has longer registers, it needs fewer than
    16 channels, and an output of 28 x 28 or more. All other convolutions keep their layout.

    Args:
        network: the network that is trained. It is restored afterwards, except for the strides that torch notes for 1x1
            weights: their memory is the same in either layout.

    Example:
        >>> net = nn.Conv2d(4, 8, 1, stride=2)
        >>> images = torch.ones(2, 4, 64, 64).to(memory_format=torch.channels_last)
        >>> with safe_layouts(net):
        ...     net(images).is_contiguous()
        True
        >>> net(images).is_contiguous()
        False
    """
    handles = []
    for module in network.modules():
        if isinstance(module, _Conv) and _narrow(module):
            weight = module.weight
            # torch recognises the layout of a 1x1 weight only by its strides, and follows them.
            weight.data = torch.empty_like(weight, memory_format=torch.contiguous_format).copy_(weight)
            handles.append(module.register_forward_pre_hook(_give_nchw))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _narrow(conv: _Conv) -> bool:
    strided = max(conv.stride) > 1 and set(conv.kernel_size) == {1} and conv.groups == 1
    return strided and 1 < _gathered(conv) < _AVX512


def _gathered(conv: _Conv) -> int:
    """Return the channels of the larger image, whose pixels are gathered."""
    return conv.out_channels if isinstance(conv, nn.ConvTranspose2d) else conv.in_channels


def _give_nchw(conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    assert isinstance(conv, _Conv)
    images: Tensor = inputs[0]
    if images.device.type != "cpu" or not (torch.is_grad_enabled() and conv.weight.requires_grad):
        return None
    strides = (1, 1) if isinstance(conv, nn.ConvTranspose2d) else conv.stride
    pixels = math.prod(math.ceil(side / stride) for side, stride in zip(images.shape[-2:], strides, strict=True))
    if _gathered(conv) >= _AVX2 and pixels <= _AT_ONCE:
        return None
    return images.contiguous(), *inputs[1:]
