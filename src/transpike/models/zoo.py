"""The networks by name: class, shape and, for spiking ones, neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from transpike.models.activations import activation_arguments, activation_factory
from transpike.models.mlp import MLP, MLPS, SpikingMLP
from transpike.models.qkformer import QKFORMERS, QKFormer
from transpike.models.resnet import RESNETS, ResNet
from transpike.models.resnet import Plan as ResNetPlan
from transpike.models.sew_resnet import SEW_RESNETS, SEWBasicBlock, SEWBottleneck
from transpike.models.shufflenet import shufflenet_v2
from transpike.models.spiking import Neuron, SpikingResNet, SpikingVGG, neuron_factory, set_thresholds
from transpike.models.spikingformer import SPIKINGFORMERS, Spikingformer
from transpike.models.vgg import VGG, VGGS
from transpike.neurons import ATan, DCTLIFNode, IFNode, LIFNode, Triangular

__all__ = ["NETWORKS", "SPIKING", "TWINS", "Entry", "build_network"]

# Deng et al. 2022: u = u / 2 + x, and the gradient flows through the reset.
TET_LIF = partial(LIFNode, decay_input=False, surrogate_function=Triangular())
# Fang et al. 2021.
SEW_IF = partial(IFNode, surrogate_function=ATan(), detach_reset=True)
# Spikingformer's and QKFormer's codes: tau 2, the input decays, a sigmoid of slope 4.
LIF = partial(LIFNode, detach_reset=True)


@dataclass(frozen=True)
class Entry:
    """A network's maker, called as ``network(plan, num_classes=, in_channels=, activation=)``; its plan and neuron.

    Without a plan it is called without one; without a neuron the network is an artificial one.
    """

    network: Callable[..., nn.Module]
    plan: Any
    neuron: Neuron | None = None


SPIKING: dict[str, Entry] = {
    **{
        f"spiking_{name}": Entry(SpikingResNet, RESNETS[name], TET_LIF) for name in ("resnet18", "resnet19", "resnet20")
    },
    # BSD does not say which neuron its SEW-ResNet-19 has: that of the network whose skeleton it is.
    "sew_resnet19": Entry(partial(SpikingResNet, block=SEWBasicBlock), SEW_RESNETS["sew_resnet19"], TET_LIF),
    "sew_resnet18": Entry(partial(SpikingResNet, block=SEWBasicBlock), SEW_RESNETS["sew_resnet18"], SEW_IF),
    "sew_resnet34": Entry(partial(SpikingResNet, block=SEWBasicBlock), SEW_RESNETS["sew_resnet34"], SEW_IF),
    "sew_resnet50": Entry(partial(SpikingResNet, block=SEWBottleneck), SEW_RESNETS["sew_resnet50"], SEW_IF),
    **{f"spiking_{name}": Entry(SpikingVGG, plan, DCTLIFNode) for name, plan in VGGS.items()},
    **{f"spiking_{name}": Entry(SpikingMLP, plan, DCTLIFNode) for name, plan in MLPS.items()},
    **{name: Entry(Spikingformer, plan, LIF) for name, plan in SPIKINGFORMERS.items()},
    "spikingformer_2_256": Entry(Spikingformer, SPIKINGFORMERS["spikingformer_2_256"], partial(LIF, tau=1.75)),
    **{name: Entry(QKFormer, plan, LIF) for name, plan in QKFORMERS.items()},
}

TWINS = tuple(name for name, entry in SPIKING.items() if entry.network in (SpikingResNet, SpikingVGG))
"""Spiking networks with the same layers as an ANN. The ANN's name is the same without ``spiking_``."""


NETWORKS: dict[str, Entry] = {
    **{name: Entry(ResNet, plan) for name, plan in RESNETS.items()},
    **{name: Entry(VGG, plan) for name, plan in VGGS.items()},
    **{name: Entry(MLP, plan) for name, plan in MLPS.items()},
    "shufflenet_v2": Entry(shufflenet_v2, None),
    **SPIKING,
}


def build_network(
    name: str, *, num_classes: int, in_channels: int, image_size: int | None, options: dict[str, Any]
) -> nn.Module:
    """Make one of `NETWORKS`; the weights of a spiking one are channels-last, as convolutions and neurons keep them.

    Args:
        name: which.
        num_classes: outputs.
        in_channels: channels of the image.
        image_size: side of the square image, for VGGs and MLPs.
        options: any field of the network's plan; `width`. Of an artificial network, `activation` with its own keyword
            arguments, see `activation_factory`; of a spiking one
            `spiking_neuron`, and keyword arguments of the neuron, which with `spiking_neuron` has its own defaults
            instead of the paper's. A list as `v_threshold` gives each layer of neurons its own, see `set_thresholds`.

    Raises:
        ModelError: The neuron is unknown, or the network cannot have this shape.
        TypeError: Neither the plan nor the neuron takes an option.

    Example:
        >>> net = build_network(
        ...     "sew_resnet19", num_classes=10, in_channels=1, image_size=None, options={"width": 8, "tau": 4.0}
        ... )
        >>> net.act
        LIFNode(tau=4.0, decay_input=False, ...)
    """
    entry, options = NETWORKS[name], dict(options)
    plan, images = entry.plan, {"num_classes": num_classes, "in_channels": in_channels}
    if isinstance(plan, ResNetPlan):
        plan = plan.widened(options.pop("width", plan.stem))
    if plan is not None:
        shape = {field.name: options.pop(field.name) for field in fields(plan) if field.name in options}
        if image_size is not None and hasattr(plan, "image_size"):
            shape["image_size"] = image_size
        plan = replace(plan, **shape)
    if entry.neuron is None:
        if "activation" in options:
            activation = options.pop("activation")
            own = {key: options.pop(key) for key in activation_arguments(activation) if key in options}
            options["activation"] = activation_factory(activation, **own)
        return entry.network(*([] if plan is None else [plan]), **images, **options)
    thresholds = options.pop("v_threshold") if isinstance(options.get("v_threshold"), list | tuple) else None
    activation = neuron_factory(options.pop("spiking_neuron", entry.neuron), **options)
    net = entry.network(plan, **images, activation=activation)
    if thresholds is not None:
        set_thresholds(net, thresholds)
    return net.to(memory_format=torch.channels_last)
