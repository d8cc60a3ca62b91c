"""Why an operation has no spiking form, and what to use instead."""

from __future__ import annotations

__all__ = ["SUPPORTED", "why"]

SUPPORTED = (
    "Supported: convolutions (also transposed, grouped), linear, BatchNorm, ReLU, LeakyReLU, PReLU, ReLU6, Hardtanh, "
    "max and average pooling, +, -, constants, cat, stack, slices, reshape, permute, padding, interpolation, dropout. "
    "After the last weighted layer also softmax, sigmoid and other functions of the decoded output"
)

_NORM = "divides by a statistic of each sample; use BatchNorm, whose statistics are constants"
_ATTENTION = "a product of two activations (attention) has no spiking form here; use a network of convolutions"
_SORT = "sorting has no spiking form; apply it to the network's output"
_CURVED = (
    "gelu",
    "silu",
    "mish",
    "elu",
    "selu",
    "celu",
    "softplus",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardsigmoid",
    "exp",
)
_REASONS = {
    "mul": "a product of two activations (squeeze-excitation, gating) has no spiking form; use a variant without it",
    "div": "division by an activation has no spiking form; use a variant without it",
    "matmul": _ATTENTION,
    "bmm": _ATTENTION,
    "scaled_dot_product_attention": _ATTENTION,
    "softmax": "softmax has no spiking form before the last layer; apply it to the network's output",
    "layer_norm": f"LayerNorm {_NORM}",
    "group_norm": f"GroupNorm {_NORM}",
    "instance_norm": f"InstanceNorm {_NORM}",
    "sort": _SORT,
    "topk": _SORT,
    "argmax": "an index of the maximum has no spiking form before the last layer; apply it to the network's output",
    "dropout": "this dropout stays on in evaluation mode; pass training=self.training to it",
    "expand": "copies of an activation along an axis have no spiking form; let it broadcast in a sum instead",
    **{
        name: f"{name} is not piecewise linear; train with ReLU, LeakyReLU, PReLU or ReLU6 in its place"
        for name in _CURVED
    },
}


def why(base: str) -> str:
    """The reason and the remedy for the operator ``base``.

    >>> why("fft_rfft2")
    'fft_rfft2 has no spiking form; replace it by supported operations'
    """
    return _REASONS.get(base, f"{base} has no spiking form; replace it by supported operations")
