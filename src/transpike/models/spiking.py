"""How layers and neurons process time, and the spiking twins of the residual networks and the VGGs.

A twin is the same network as the artificial one with neurons in place of ReLU. Its weights have the same names, so each
of the two can load the other's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transpike import neurons
from transpike.checks import choice, shown
from transpike.errors import DataError, ModelError
from transpike.models.resnet import BasicBlock, ResNet
from transpike.models.resnet import Plan as ResNetPlan
from transpike.models.vgg import VGG

__all__ = [
    "OverTime",
    "SpikingBasicBlock",
    "SpikingResNet",
    "SpikingVGG",
    "neuron_factory",
    "over_time",
    "sequence",
    "set_thresholds",
]

Neuron = Callable[..., nn.Module]
FUSED = ("cuda",)
"""Devices on which a normalisation costs a pass over memory that the neurons behind it can spare."""

NAMED = {
    "spiking_neuron": ("DCTLIFNode", "IFNode", "LIFNode", "ParametricLIFNode", "TSANode"),
    "surrogate_function": ("ATan", "Rectangular", "Sigmoid", "Triangular"),
}


def over_time(x: Tensor, *layers: nn.Module) -> Tensor:
    """Run a sequence through layers: neurons see its steps in order, other layers see all steps as one batch.

    A layer with a `step_mode`, such as a neuron, receives [T, N, *]. Any other layer receives [T*N, *], without a copy.
    Dropout draws one mask for all steps, because the spikes of one neuron are one signal.

    Args:
        x: [T, N, *].
        layers: the layers, applied one after the other.

    Example:
        >>> from transpike.neurons import IFNode
        >>> double = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(double.weight, 2.0)
        >>> over_time(torch.full((4, 1, 1), 0.3), double, IFNode(step_mode="m")).flatten()
        tensor([0., 1., 0., 1.], grad_fn=<ViewBackward0>)
    """
    norm: tuple[Tensor, Tensor] | None = None
    for layer, following in zip(layers, (*layers[1:], None), strict=False):
        if norm is not None:
            x, norm = layer(x, norm), None
        elif (norm := _taken_on(layer, following, x)) is not None:
            continue
        elif hasattr(layer, "step_mode"):
            x = layer(x)
        elif isinstance(layer, nn.Dropout):
            x = x * layer(torch.ones_like(x[0])) if layer.training else x
        else:
            x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return x


def _taken_on(layer: nn.Module, node: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of a normalisation whose pass over memory the kernel of its neurons spares, in inference on CUDA.

    None where it runs by itself: in training, on the CPU, and where a hook is to see what it gives.
    """
    if not isinstance(layer, nn.BatchNorm2d) or not isinstance(node, neurons.SpikingNode) or node.step_mode != "m":
        return None
    mean, variance = layer.running_mean, layer.running_var
    hooked = any((layer._forward_hooks, layer._forward_pre_hooks, node._forward_hooks, node._forward_pre_hooks))
    idle = layer.training or torch.is_grad_enabled() or x.device.type not in FUSED
    if idle or hooked or mean is None or variance is None or node.store_v_seq or node.backend == "torch":
        return None
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    return scale, -mean * scale if layer.bias is None else layer.bias - mean * scale


class OverTime(nn.Sequential):
    """`over_time` as a module: a chain of layers and neurons, [T, N, *] -> [T, N, *]."""

    step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        return over_time(x, *self)


def sequence(x: Tensor, network: nn.Module) -> Tensor:
    """Return x if it is images over time, [T, N, C, H, W].

    Raises:
        DataError: It is not.
    """
    if x.ndim != 5 or len(x) == 0:
        raise DataError(
            f"{type(network).__name__} takes images over time, [T, N, C, H, W] with T of at least 1, and got a tensor "
            f"of shape {list(x.shape)}. To show images [N, C, H, W] for T steps: x.expand(T, *x.shape)."
        )
    return x


def neuron_factory(spiking_neuron: str | Neuron, **kwargs: Any) -> Neuron:
    """Return a function that creates the neurons of a network, each for sequences (``step_mode="m"``).

    Args:
        spiking_neuron: a class of neurons, ours or SpikingJelly's, or the name of one of ours.
        **kwargs: its keyword arguments. `surrogate_function` may be the name of one of ours.

    Raises:
        ModelError: The name is unknown, or the class does not create neurons.

    Example:
        >>> neuron_factory("LIFNode", tau=4.0, surrogate_function="ATan")(v_threshold=0.5)
        LIFNode(tau=4.0, ..., v_threshold=0.5, ..., step_mode='m', surrogate_function=ATan(alpha=2.0))
    """
    node = _named("spiking_neuron", spiking_neuron) if isinstance(spiking_neuron, str) else spiking_neuron
    if not callable(node):
        raise ModelError(f"spiking_neuron={shown(node)}: expected a class of neurons, or a name of ours.")
    if isinstance(kwargs.get("surrogate_function"), str):
        kwargs["surrogate_function"] = _named("surrogate_function", kwargs["surrogate_function"])()
    return partial(node, **kwargs, step_mode="m")


def set_thresholds(network: nn.Module, thresholds: Sequence[float]) -> None:
    """Set the threshold of each layer of neurons.

    A surrogate gradient whose width is the threshold follows it: those of `DCTLIFNode` and `TSANode`.

    Args:
        network: its neurons are the modules with a `v_threshold`, in the order of `network.modules()`.
        thresholds: one for each.

    Raises:
        ModelError: Their numbers differ, or a threshold is not above 0.

    Example:
        >>> from transpike.neurons import DCTLIFNode
        >>> net = OverTime(nn.Linear(2, 2), DCTLIFNode(step_mode="m"))
        >>> set_thresholds(net, [0.5])
        >>> net[1]
        DCTLIFNode(..., v_threshold=0.5, ..., surrogate_function=Triangular(gamma=0.3, width=0.5))
    """
    nodes: list[Any] = [module for module in network.modules() if hasattr(module, "v_threshold")]
    if len(nodes) != len(thresholds) or not all(0 < value < float("inf") for value in thresholds):
        raise ModelError(
            f"v_threshold={list(thresholds)}: {type(network).__name__} has {len(nodes)} layers of neurons, each of "
            "which needs a threshold above 0."
        )
    for node, value in zip(nodes, thresholds, strict=True):
        if getattr(node.surrogate_function, "width", None) == node.v_threshold:
            node.surrogate_function = replace(node.surrogate_function, width=float(value))
        node.v_threshold = float(value)


def _named(what: str, name: str) -> Any:
    return getattr(neurons, choice(what, name, NAMED[what], error=ModelError))


class SpikingBasicBlock(BasicBlock):
    """`BasicBlock` over time: its second neuron fires on the sum, so that only spikes leave the block."""

    step_mode = "m"

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Neuron) -> None:
        super().__init__(in_channels, channels, stride=stride, activation=activation)
        self.shortcut = OverTime(*self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = over_time(x, self.conv1, self.bn1, self.act1, self.conv2, self.bn2)
        spikes: Tensor = self.act2(out + self.shortcut(x))
        return spikes


class SpikingResNet(ResNet):
    """`ResNet` over time.

    Args:
        plan: channels, depth and strides.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one neuron; see `neuron_factory`.
        block: creates one residual block.

    Shapes: [T, N, in_channels, H, W] -> [T, N, num_classes], for any H and W.

    Raises:
        ModelError: The plan has norm and activation before each convolution.
        DataError: On call: the input has another rank, or T = 0.

    Source of ``spiking_resnet19`` and its neuron: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural
    Network via Gradient Re-weighting", ICLR 2022. It fires and resets without detaching the reset.

    Example:
        >>> net = SpikingResNet(
        ...     ResNetPlan(4, ((4, 1, 1), (8, 1, 2))), num_classes=10, in_channels=1,
        ...     activation=neuron_factory("LIFNode"),
        ... )
        >>> net(torch.zeros(2, 3, 1, 8, 8)).shape
        torch.Size([2, 3, 10])
    """

    def __init__(
        self,
        plan: ResNetPlan,
        *,
        num_classes: int,
        in_channels: int,
        activation: Neuron,
        block: Callable[..., nn.Module] = SpikingBasicBlock,
    ) -> None:
        if plan.preactivated:
            raise ModelError("preactivated=True: a spiking residual network has its neurons after the convolutions.")
        super().__init__(plan, num_classes=num_classes, in_channels=in_channels, activation=activation, block=block)
        self.layers = OverTime(*self.layers)
        if isinstance(self.fc, nn.Sequential):
            self.fc = OverTime(*self.fc)

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(sequence(x, self), self.conv, self.bn, self.act, self.reduce, self.layers, self.pool)
        return over_time(x.flatten(2), self.fc)


class SpikingVGG(VGG):
    """`VGG` over time, with the same arguments; `activation` creates one neuron.

    The last layer only accumulates. Without normalisation, as in DCT-SNN's networks, it returns its outputs times T.
    Their mean over time is the paper's final membrane, a sum over the steps. A layer fires on the membrane of the same
    step, so a spike crosses the network within one step.

    Shapes: [T, N, in_channels, S, S] -> [T, N, num_classes], with S the plan's image size.

    Raises:
        DataError: On call: the input has another rank, T = 0, or images of another size.

    Source: Garg, Chowdhury, Roy, "DCT-SNN: Using DCT to Distribute Spatial Information over Time for Low-Latency
    Spiking Neural Networks", ICCV 2021.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.features = OverTime(*self.features)
        self.classifier = OverTime(*self.classifier)
        self.sums = not any(isinstance(module, nn.BatchNorm2d) for module in self.features)

    def forward(self, x: Tensor) -> Tensor:
        out = self._read_out(self.features(sequence(x, self)).flatten(2))
        return out * len(out) if self.sums else out
