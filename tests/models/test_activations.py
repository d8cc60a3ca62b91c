"""Activations by name in our networks, and the weights they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model, describe_network, load_weights, save_weights
from transpike.models.activations import QCFS


@pytest.mark.parametrize(("name", "places"), [("resnet20", 19), ("vgg5", 5), ("mlp", 1)])
def test_a_network_has_one_of_its_own_in_every_place(name: str, places: int) -> None:
    net = create_model(name, activation="qcfs", levels=4, bound=2.0)
    layers = [module for module in net.modules() if isinstance(module, QCFS)]
    assert len(layers) == places == len({id(layer.bound) for layer in layers})
    assert all(layer.levels == 4 and layer.bound.item() == 2 for layer in layers)
    assert not any(isinstance(module, nn.ReLU) for module in net.modules())
    assert describe_network(net) is not None


def test_weights_of_the_network_with_relus_are_taken_and_bounds_are_kept(tmp_path: Path) -> None:
    relu = create_model("resnet20", width=4)
    save_weights(relu, tmp_path / "relu.safetensors")
    net = create_model("resnet20", width=4, activation="qcfs", bound=2.0, weights=tmp_path / "relu.safetensors")
    state = net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in relu.state_dict().items())
    net.act.bound.data.fill_(3.0)
    save_weights(net, tmp_path / "qcfs.safetensors")
    again = create_model("resnet20", width=4, activation="qcfs", weights=tmp_path / "qcfs.safetensors")
    assert again.act.bound.item() == 3 and again.layers[0].act1.bound.item() == 2
    with pytest.raises(ModelError, match="bound is unknown"):
        load_weights(relu, tmp_path / "qcfs.safetensors")


def test_a_file_that_lacks_one_bound_is_damaged(tmp_path: Path) -> None:
    net = create_model("mlp", hidden=[5, 4], activation="qcfs")
    state = net.state_dict()
    del state[next(name for name in state if name.endswith("bound"))]
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ModelError, match="bound is missing"):
        load_weights(net, tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "qcf"}, "activation='qcf': expected 'relu' or 'qcfs'. Did you mean 'qcfs'"),
        ({"activation": "qcfs", "levels": 0}, "levels=0: expected a whole number"),
        ({"activation": "qcfs", "bound": -1.0}, "bound=-1.0: expected a number above 0"),
        ({"activation": "qcfs", "level": 4}, "takes no 'level'. Did you mean levels"),
        ({"levels": 4}, "takes no 'levels'"),
        ({"activation": "relu", "levels": 4}, "takes no 'levels'"),
    ],
)
def test_what_cannot_be_is_one_message(options: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        create_model("resnet20", **options)  # type: ignore[arg-type]
