"""Gives a spiking network initial weights and thresholds from a trained ANN that has the same layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from transpike.coding import Rate
from transpike.conversion import convert
from transpike.errors import ModelError
from transpike.models import create_model, is_run, network_arguments
from transpike.models.spiking import SpikingBasicBlock, SpikingResNet, SpikingVGG, set_thresholds
from transpike.models.zoo import TWINS
from transpike.neurons import reset_net
from transpike.train.hybrid import copy_weights
from transpike.train.options import Arguments
from transpike.train.stages import Shape

__all__ = ["create_twin", "start_from"]

Images: TypeAlias = Tensor | Iterable[Any]
"""[N, C, H, W], or batches of them, alone or with labels."""


def create_twin(student: str, start: str | Path, shape: Shape, kwargs: Arguments) -> nn.Module:
    """Return the trained ANN that has the same layers as a spiking network.

    Args:
        student: the spiking network's name, one of `TWINS`.
        start: the folder of the ANN's run, or a file of its weights.
        shape: the numbers of classes and channels, and the size of images.
        kwargs: the spiking network's other arguments. Those of its neurons are ignored.

    Raises:
        ModelError: There is no ANN with the same layers, or its weights cannot be read.
    """
    if is_run(start):
        return create_model(start).eval()
    name = student.removeprefix("spiking_")
    own = {key: value for key, value in kwargs.items() if key in network_arguments(name)}
    return create_model(name, **shape, weights=start, **own).eval()


@torch.no_grad()
def start_from(student: nn.Module, ann: nn.Module, images: Images, *, steps: int) -> None:
    """Give a spiking network the weights of the ANN with the same layers, and the thresholds of this ANN's conversion.

    The ANN is converted with `Rate(steps=steps, percentile="fit")`. Each layer then has the amplitude theta with the
    least squared error of the values decoded from T = ``steps`` steps, and one spike of the layer represents theta. So
    weights are multiplied by the theta of the layer before them and divided by the theta of the layer behind them.
    Thresholds stay. There is one exception: a residual block that adds its input without a weight. Its unit is the
    theta of this input, and the threshold of its last neuron becomes theta / unit. If a neuron multiplies its input by
    a gain, such as 1 / tau, its theta is multiplied by this gain, too.

    Then biases are corrected, layer by layer, with the student's own spikes: each channel's mean rate times theta
    becomes about the mean activation of the ANN. On average, this compensates for the loss by few steps, a leak or a
    hard reset.

    With integrate-and-fire neurons and many steps, the spiking network computes nearly the same as the ANN. With leaky
    neurons and few steps it does not, but it is a good first point for training.

    Args:
        student: a network of `TWINS`, made by `create_model`. It is changed in place and left in evaluation mode.
        ann: the trained ANN with the same layers, whose weights have the same names.
        images: images for amplitudes and biases, [N, C, H, W], or batches of them, alone or with labels.
        steps: T of the student.

    Raises:
        ModelError: ``ann`` does not have the layers of ``student``, or no ANN here does.
        ConversionError: As for `transpike.convert`.

    Source: the thresholds of Rathi, Srinivasan, Panda, Roy, "Enabling Deep Spiking Neural Networks with Hybrid
    Conversion and Spike Timing Dependent Backpropagation", ICLR 2020. Our interpretation moves
    them into the weights, and fits amplitudes by least squares. The biases are those of Li et al. 2021, see `Rate`.

    Example:
        >>> ann, snn = create_model("resnet20", width=4).eval(), create_model("spiking_resnet20", width=4)
        >>> start_from(snn, ann, torch.rand(8, 3, 16, 16), steps=2)
        >>> snn.act.v_threshold, snn.layers[0].act2.v_threshold == 1
        (1.0, False)
    """
    layered = isinstance(student, SpikingVGG) or (
        isinstance(student, SpikingResNet) and all(type(block) is SpikingBasicBlock for block in student.layers)
    )
    if not layered:
        raise ModelError(
            f"{type(student).__name__}: no ANN here has the same layers, so no conversion can start this network. Use "
            f"one of {', '.join(TWINS)}. Or set weights: they can start any network whose layers have the same names."
        )
    copy_weights(ann, student)
    batches = [images] if isinstance(images, Tensor) else [one if isinstance(one, Tensor) else one[0] for one in images]
    converted = convert(ann, batches, scheme=Rate(steps=steps, percentile="fit"))
    scaled = _Scaled(converted.units)
    if isinstance(student, SpikingVGG):
        parts = (("features", student.features), ("classifier", student.classifier))
        scaled.chain(
            [(f"{name}.{key}", layer) for name, part in parts for key, layer in part.named_children()],
            last=float(steps) if student.sums else 1.0,
        )
    else:
        assert isinstance(student, SpikingResNet)
        scaled.resnet(student)
    _correct(student.eval(), ann, batches, scaled.places, steps)


class _Scaled:
    """Rescales the layers of a spiking network that has the ANN's weights.

    Args:
        theta: the amplitude of the neurons behind each layer of weights, by the name of the layer of weights.

    Attributes:
        places: for each layer of neurons, by name, the layer whose bias shifts its input, and its theta.
    """

    def __init__(self, theta: Mapping[str, float]) -> None:
        self.theta = theta
        self.places: dict[str, tuple[nn.Module, float]] = {}

    def resnet(self, student: SpikingResNet) -> None:
        unit = self.chain([("conv", student.conv), ("bn", student.bn), ("act", student.act)])
        thresholds: dict[nn.Module, float] = {}
        for index, block in enumerate(student.layers):
            assert isinstance(block, SpikingBasicBlock)
            name = f"layers.{index}"
            first = (("conv1", block.conv1), ("bn1", block.bn1), ("act1", block.act1))
            inner = self.chain([(f"{name}.{key}", layer) for key, layer in first], unit)
            own, full = self.theta[f"{name}.conv2"], _full(block.act2)
            if len(block.shortcut):
                _rescale([block.shortcut[0], block.shortcut[1]], unit, own / full)
                _rescale([block.conv2, block.bn2], inner, own / full)
            else:
                _rescale([block.conv2, block.bn2], inner, unit)
                thresholds[block.act2] = own / unit * _threshold(block.act2) / full
            self.places[f"{name}.act2"] = (block.bn2, own)
            unit = own
        fc = student.fc.named_children() if isinstance(student.fc, nn.Sequential) else [("", student.fc)]
        self.chain([(f"fc.{key}".rstrip("."), layer) for key, layer in fc], unit)
        nodes = [module for module in student.modules() if hasattr(module, "v_threshold")]
        set_thresholds(student, [thresholds.get(node, _threshold(node)) for node in nodes])

    def chain(self, layers: Iterable[tuple[str, nn.Module]], unit: float = 1.0, *, last: float = 1.0) -> float:
        """Rescale layers one after the other, and return the unit of the last neuron.

        Inputs are in ``unit``. Outputs of weights without neurons behind them are in ``last``.
        """
        weighted: list[nn.Module] = []
        name = ""
        for key, layer in layers:
            if hasattr(layer, "v_threshold"):
                own = self.theta[name]
                _rescale(weighted, unit, own / _full(layer))
                self.places[key] = (weighted[-1], own)
                weighted, unit = [], own
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                weighted, name = [layer], key
            elif isinstance(layer, nn.BatchNorm2d):
                weighted.append(layer)
        _rescale(weighted, unit, last)
        return unit


def _correct(
    student: nn.Module,
    ann: nn.Module,
    batches: Sequence[Tensor],
    places: Mapping[str, tuple[nn.Module, float]],
    steps: int,
) -> None:
    """Shift biases, layer by layer, such that each channel's mean rate represents about the ANN's mean activation."""
    for name, (layer, theta) in places.items():
        bias: Any = layer.bias
        if bias is not None:  # without biases a network has no norms either; only its thresholds are set
            full = _full(student.get_submodule(name))
            bias.add_(full / (2 * steps))  # so that the rate is rounded to the nearest, not down
            wanted = _mean(ann, name, batches) / theta
            rates = _mean(student, name, [batch.expand(steps, *batch.shape) for batch in batches])
            bias.add_((wanted.clamp(max=1) - rates) * full)


class _Seen(Exception):
    """Ends a run behind the layer that is measured."""


def _mean(network: nn.Module, name: str, batches: Sequence[Tensor]) -> Tensor:
    """Return the mean output of a module for each channel, [C]. The axis of channels follows that of samples."""
    means: list[Tensor] = []

    def see(_: nn.Module, inputs: object, output: Tensor) -> None:
        axis = batches[0].ndim - 3
        means.append(output.mean([k for k in range(output.ndim) if k != axis]))
        raise _Seen

    handle = network.get_submodule(name).register_forward_hook(see)
    try:
        for batch in batches:
            reset_net(network)
            with suppress(_Seen):
                network(batch)
    finally:
        handle.remove()
        reset_net(network)
    return torch.stack(means).mean(0)


def _rescale(layers: Sequence[nn.Module], inputs: float, outputs: float) -> None:
    """Rescale a layer, and the norm behind it, for inputs and outputs in other units."""
    first: Any
    for first in layers[:1]:
        first.weight.mul_(inputs)
        last: Any = layers[-1]
        last.weight.div_(outputs)
        if last.bias is not None:
            last.bias.div_(outputs)


def _threshold(node: Any) -> float:
    return float(node.v_threshold)


def _full(node: Any) -> float:
    """Return the smallest constant input for which a neuron at rest fires in the first step."""
    gain = getattr(getattr(node, "dynamics", None), "gain", 1.0)
    return _threshold(node) / float(gain)
