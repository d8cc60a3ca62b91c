"""What can be wrong with the options of ``transpike hybrid``, told before images are read or a folder is made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from transpike.coding import create_encoder
from transpike.errors import ConfigError, ModelError, TranspikeError
from transpike.experiments.hybrid_stages import given_folder, pretraining_options, tuning_options

__all__ = ["check_asked"]

NETWORKS = ("mlp", "vgg5", "vgg9", "vgg11", "vgg13")
LARGE = 1024
"""Side of an image that no network's poolings reduce to nothing: the images' own is not known yet."""


def check_asked(asked: dict[str, Any]) -> None:
    """Make sure of the options of a run that begins.

    Raises:
        ConfigError: an option is of the wrong type, out of range, or not the encoder's, the networks' or the neuron's.
        ModelError: there is no such network, it has no spiking twin, or a layer has no place in one.
    """
    pretraining_options(asked), tuning_options(asked)
    if asked["balanced"] is not None and asked["last"] != "tune":
        raise ConfigError(f"--balanced begins with the last stage: leave out --last {asked['last']}.")
    if not 0 < asked["percentile"] <= 100 or min(asked["test_steps"] or [1]) < 1 or asked["calibration"] < 1:
        raise ConfigError(
            f"percentile={asked['percentile']} lies in (0, 100]; each of test_steps={asked['test_steps']}, and "
            f"calibration={asked['calibration']}, is at least 1."
        )
    with warnings.catch_warnings(action="ignore"):  # the run's own encoder warns
        create_encoder(asked["encoder"], steps=asked["steps"], settings=asked["settings"], mean=(0.0,), std=(1.0,))
    if asked["balanced"] is None:
        _check_networks(asked)


def _check_networks(asked: dict[str, Any]) -> None:
    """Build the artificial network and its twin without weights, and let a neuron fire."""
    from transpike.models import create_model
    from transpike.models.zoo import SPIKING
    from transpike.train.hybrid import check_constrained, transfer

    name, shape, kwargs, own = _described(asked)
    twin = f"spiking_{name}"
    with _told_by_options(asked), torch.device("meta" if twin in SPIKING else "cpu"):
        ann = create_model(name, **shape, **kwargs)
    check_constrained(ann)
    if twin not in SPIKING:
        raise ModelError(f"{name} has no spiking twin here: take {', '.join(NETWORKS)}.")
    with _told_by_options(asked):
        with torch.device("meta"):
            snn = create_model(twin, **shape, **own)
        transfer(ann, snn, steps=asked["steps"])
        _fire(snn)


def _described(asked: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The artificial network's name, shape and arguments, and the arguments of its twin."""
    from transpike.models import check_name, read_description

    both, neuron = asked["network"], asked["neuron"]
    folder = given_folder(asked["ann"], "ann")
    if folder is None:
        check_name(asked["ann"])
        shape = {"num_classes": 10, "in_channels": 3, "image_size": LARGE}
        return asked["ann"], shape, both | asked["pretraining"]["network"], both | neuron
    about = read_description(folder)
    if about.get("steps") is not None:
        raise ModelError(f"{folder}: {about['name']} is a spiking network; --ann takes an artificial one.")
    shape = {name: about[name] for name in ("num_classes", "in_channels", "image_size") if name in about}
    kwargs = about.get("kwargs", {})
    return about["name"], shape, kwargs, kwargs | both | neuron


@contextmanager
def _told_by_options(asked: dict[str, Any]) -> Iterator[None]:
    """Whatever a network's maker raises is told as of the options that it was given."""
    given = {
        "network": asked["network"],
        "pretraining.network": asked["pretraining"]["network"],
        "neuron": asked["neuron"],
    }
    told = ", ".join(f"{name}={value}" for name, value in given.items() if value)
    try:
        yield
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if not told:
            raise
        reason = str(error) if isinstance(error, TranspikeError) else f"no network can be made with these ({error})."
        raise ConfigError(f"{told}: {reason}") from error


def _fire(network: nn.Module) -> None:
    """A step of a neuron and back, where a setting of the wrong type fails that its maker took."""
    node = next((module for module in network.modules() if hasattr(module, "v_threshold")), None)
    if node is None:
        raise ModelError(f"{type(network).__name__} has no layer of neurons.")
    for parameter in node.to_empty(device="cpu").parameters():
        nn.init.zeros_(parameter)
    node(torch.zeros(1, 1, requires_grad=True)).sum().backward()
