"""DCT-SNN's hybrid route: start from an artificial network's weights and thresholds, then train over time.

The stages are plain functions. `check_constrained` checks the artificial network, which `fit` trains on an encoder's
`layout`. `transfer` and `balance_thresholds` turn it into a spiking network. Then `fit` trains it with ``encode=``.

Source: Garg, Chowdhury, Roy, "DCT-SNN: Using DCT to Distribute Spatial Information over Time for Low-Latency Spiking
Neural Networks", ICCV 2021, supplement, Sections 1.3 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transpike.checks import number
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.models import create_model
from transpike.models.spiking import set_thresholds
from transpike.models.zoo import SPIKING
from transpike.neurons import reset_net
from transpike.quantiles import Quantiles

__all__ = ["balance_thresholds", "check_constrained", "check_twin", "copy_weights", "transfer"]

Encode = Callable[[Tensor], Tensor]

NETWORKS = ("mlp", "vgg5", "vgg9", "vgg11", "vgg13")
"""The artificial networks that have a spiking twin here."""

LARGE = 1024
"""The side of an image that survives all networks' poolings, used while the images' own size is not known."""

_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


def check_constrained(model: nn.Module) -> None:
    """Check that thresholds can replace a network's scales: no bias, no normalisation, average pooling.

    With ReLU such a network is positively homogeneous, so a layer's scale is the scale of its threshold.

    Args:
        model: an artificial network, or its spiking twin.

    Raises:
        ModelError: A layer is not allowed. The message names the first.

    Example:
        >>> check_constrained(nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU()))
        >>> check_constrained(nn.Sequential(nn.Linear(4, 4)))
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: layer 0 (Linear) has a bias, ... `transpike convert` (CSS) takes it as it is.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            found = f"layer {name} ({kind}) normalises"
        elif isinstance(module, _MAX_POOLS):
            found = f"layer {name} ({kind}) takes maxima"
        elif getattr(module, "bias", None) is not None:
            found = f"layer {name} ({kind}) has a bias"
        else:
            continue
        raise ModelError(
            f"{found}, and the hybrid route takes networks without biases or normalisation and with average pooling: "
            f"{', '.join(NETWORKS)}. `transpike convert` (CSS) takes it as it is."
        )


def transfer(ann: nn.Module, snn: nn.Module) -> None:
    """Copy an artificial network's weights to its spiking twin.

    Args:
        ann: the trained network.
        snn: its twin, whose weights have the same names. It is changed in place.

    Raises:
        ModelError: As for `check_constrained`; or a name or a shape differs.

    Example:
        >>> ann, snn = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)
        >>> transfer(ann, snn)
        >>> bool((snn.weight == ann.weight).all())
        True
    """
    check_constrained(ann)
    copy_weights(ann, snn)


def copy_weights(ann: nn.Module, snn: nn.Module) -> None:
    """Copy the weights of a network to another whose weights have the same names.

    Raises:
        ModelError: A name or a shape differs.
    """
    source, target = ann.state_dict(), snn.state_dict()
    wrong = sorted(
        name
        for name in source.keys() | target.keys()
        if name not in source or name not in target or source[name].shape != target[name].shape
    )
    if wrong:
        raise ModelError(
            f"{type(snn).__name__} is not a spiking twin of this {type(ann).__name__}: {', '.join(wrong[:5])} differ."
        )
    snn.load_state_dict(source)


def check_twin(
    name: str,
    shape: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    *,
    twin: Mapping[str, Any],
    given: Mapping[str, object],
) -> None:
    """Check that an artificial network and its spiking twin can be created. Both are made without weights.

    One neuron of the twin fires as a test.

    Args:
        name: the name of the artificial network.
        shape: num_classes, in_channels and image_size, or `LARGE` if the size is not known.
        kwargs: the artificial network's other arguments.
        twin: the twin's other arguments.
        given: the options from which these come, for the message.

    Raises:
        ConfigError: A network's constructor fails. The message names the options.
        ModelError: As for `check_constrained` and `transfer`; or there is no such twin.
    """
    other = f"spiking_{name}"
    with _explained_by(given), torch.device("meta" if other in SPIKING else "cpu"):
        ann = create_model(name, **shape, **kwargs)
    check_constrained(ann)
    if other not in SPIKING:
        raise ModelError(f"{name} has no spiking twin here: take {', '.join(NETWORKS)}.")
    with _explained_by(given):
        with torch.device("meta"):
            snn = create_model(other, **shape, **twin)
        transfer(ann, snn)
        _fire(snn)


@contextmanager
def _explained_by(given: Mapping[str, object]) -> Iterator[None]:
    """Explain any exception of a network's constructor by the options that it received."""
    options = ", ".join(f"{name}={value}" for name, value in given.items() if value)
    try:
        yield
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if not options:
            raise
        reason = str(error) if isinstance(error, TranspikeError) else f"no network can be made with these ({error})."
        raise ConfigError(f"{options}: {reason}") from error


def _fire(network: nn.Module) -> None:
    """Run one step of a neuron forward and backward. This fails for a wrong setting that the constructor accepted."""
    node = next((module for module in network.modules() if hasattr(module, "v_threshold")), None)
    if node is None:
        raise ModelError(f"{type(network).__name__} has no layer of neurons.")
    for parameter in node.to_empty(device="cpu").parameters():
        nn.init.zeros_(parameter)
    node(torch.zeros(1, 1, requires_grad=True)).sum().backward()


@torch.no_grad()
def balance_thresholds(
    snn: nn.Module,
    batches: Iterable[Any],
    *,
    encode: Encode,
    percentile: float = 99.9,
    progress: Callable[[], object] | None = None,
) -> dict[str, float]:
    """Set the threshold of every layer of neurons to a percentile of its input, one layer after the other.

    A layer's input is measured while all layers before it fire with their new thresholds. So every layer needs a pass
    over the batches, up to this layer. The percentile is over the signed values of all steps, neurons and samples,
    counted in bounded memory to 0.1 %. [I] We read the paper's "pre-activation" as the weighted sum of spikes in a
    step, not as the membrane.

    Args:
        snn: a spiking network that takes [T, N, *] and whose neurons have a `v_threshold`. It is changed in place.
        batches: batches of images [N, *], or of (images, labels). There is one pass for each layer.
        encode: turns images into [T, N, *].
        percentile: in (0, 100]; 99.9 in the paper.
        progress: called after each batch.

    Returns:
        The thresholds by the names of the layers, in the order in which they run.

    Raises:
        ConfigError: The percentile is outside its range.
        ModelError: The network has no neurons, or a threshold would be zero.
        DataError: There are no batches.

    Source: supplement, Section 1.3.

    Example:
        >>> from transpike.models.spiking import OverTime
        >>> from transpike.neurons import IFNode
        >>> net = OverTime(IFNode(step_mode="m", v_reset=None), IFNode(step_mode="m", v_reset=None))
        >>> balance_thresholds(net, [torch.full((4, 1), 3.0)], encode=lambda images: images[None])
        {'0': 3.0, '1': 1.0}
    """
    number("percentile", percentile, above=0, most=100)
    thresholds: dict[str, float] = {}
    training, device = snn.training, next(snn.parameters(), torch.empty(0)).device
    snn.eval()
    try:
        while seen := _next_layer(snn, batches, encode, done=thresholds, device=device, progress=progress):
            value = seen.quantile(percentile)
            if value == 0:
                raise ModelError(
                    f"the threshold of {seen.name} is zero: {percentile} % of its inputs are not above 0. Train the "
                    "artificial network longer, or take a percentile nearer to 100."
                )
            set_thresholds(snn.get_submodule(seen.name), [value])
            thresholds[seen.name] = value
    finally:
        reset_net(snn)
        snn.train(training)
    if not thresholds:
        raise ModelError(f"{type(snn).__name__} has no neurons that run: modules with a v_threshold.")
    return thresholds


class _Reached(Exception):
    """Raised at the layer that is measured, because later layers need not run."""


def _next_layer(
    snn: nn.Module,
    batches: Iterable[Any],
    encode: Encode,
    *,
    done: Mapping[str, float],
    device: torch.device,
    progress: Callable[[], object] | None,
) -> Quantiles | None:
    """Return the positive inputs of the first layer of neurons that is not `done`, by its name, or None."""
    seen: dict[str, Quantiles] = {}

    def measure(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Clipping at 0 commutes with percentiles and leaves the magnitudes.
        seen.setdefault(name, Quantiles(name)).update(inputs[0].clamp(min=0))
        raise _Reached

    waiting = [(name, node) for name, node in snn.named_modules() if hasattr(node, "v_threshold") and name not in done]
    handles = [node.register_forward_pre_hook(partial(measure, name)) for name, node in waiting]
    empty = True
    try:
        for batch in batches if waiting else ():
            empty = False
            reset_net(snn)
            with suppress(_Reached):
                snn(encode((batch if isinstance(batch, Tensor) else batch[0]).to(device)))
            if progress is not None:
                progress()
    finally:
        for handle in handles:
            handle.remove()
    if waiting and empty:
        raise DataError("there are no images to balance the thresholds with.")
    return next(iter(seen.values()), None)
