"""The fully connected network, artificial and spiking, and thresholds of a layer's own."""

import pytest
import torch
from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model, model_names
from transpike.models.mlp import MLP
from transpike.models.spiking import set_thresholds
from transpike.neurons import DCTLIFNode, LIFNode, Triangular


def thresholds(net):
    return [module.v_threshold for module in net.modules() if hasattr(module, "v_threshold")]


def test_the_default_is_the_papers():
    net = create_model("mlp", in_channels=1)
    assert [tuple(weight.shape) for weight in net.parameters()] == [(100, 784), (10, 100)]
    assert not [name for name, _ in net.named_parameters() if "bias" in name]
    assert {"mlp", "spiking_mlp"} <= set(model_names())
    assert create_model("spiking_mlp", in_channels=1).state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(("hidden", "shapes"), [(7, [(7, 48), (3, 7)]), ([5, 4], [(5, 48), (4, 5), (3, 4)])])
def test_widths_and_images_by_parameter(hidden, shapes):
    for name in ("mlp", "spiking_mlp"):
        net = create_model(name, num_classes=3, in_channels=3, image_size=4, hidden=hidden)
        assert [tuple(weight.shape) for weight in net.parameters()] == shapes


def test_it_is_matrices_and_relus():
    net = create_model("mlp", num_classes=3, in_channels=2, image_size=3, hidden=[6, 5]).eval()
    x = torch.randn(4, 2, 3, 3)
    first, second, third = (weight.detach() for weight in net.parameters())
    expected = (x.flatten(1) @ first.T).relu() @ second.T
    assert torch.allclose(net(x), expected.relu() @ third.T, atol=1e-6)


def test_its_twin_accumulates_the_spikes_of_a_leaky_layer():
    net = create_model("spiking_mlp", num_classes=3, in_channels=1, image_size=3, hidden=6, v_threshold=0.3).eval()
    x = torch.randn(5, 4, 1, 3, 3)
    first, last = (weight.detach() for weight in net.parameters())
    membrane, total, expected = torch.zeros(4, 6), torch.zeros(4, 3), []
    for step in x:
        membrane = 0.9901 * membrane + step.flatten(1) @ first.T
        spikes = (membrane >= 0.3).float()
        membrane = membrane - 0.3 * spikes / 0.9901  # Eq. 2 leaks before it subtracts
        total = total + spikes @ last.T
        expected.append(spikes @ last.T)
    out = net(x)
    assert torch.allclose(out, 5 * torch.stack(expected), atol=1e-5)  # times T: their mean is the sum
    assert torch.allclose(out.mean(0), total, atol=1e-5) and out.abs().sum() > 0


@pytest.mark.parametrize("hidden", [0, [4, 0]])
def test_a_layer_of_no_neurons_is_refused(hidden):
    with pytest.raises(ModelError, match=r"hidden=.*: (a layer has at least 1 neuron|expected a whole number from 1)"):
        create_model("mlp", hidden=hidden)


def test_other_options_are_refused():
    with pytest.raises(ModelError, match=r"mlp takes no 'pool'. It takes hidden=100, dropout=0.2, activation=ReLU\."):
        create_model("mlp", pool="max")


def test_every_layer_has_a_threshold_of_its_own():
    net = create_model("spiking_mlp", hidden=[4, 3], v_threshold=[0.5, 2])
    assert thresholds(net) == [0.5, 2.0]
    widths = [module.surrogate_function for module in net.modules() if isinstance(module, DCTLIFNode)]
    assert widths == [Triangular(gamma=0.3, width=0.5), Triangular(gamma=0.3, width=2.0)]
    vgg = create_model("spiking_vgg5", layers=(4, 0, 4, 4, 0), hidden=8, image_size=8, v_threshold=[1, 2, 3, 4, 5])
    assert [vgg.features[1].v_threshold, vgg.classifier[4].v_threshold] == [1.0, 5.0]


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0], [1.0, 0.0], [1.0, float("nan")]])
def test_thresholds_that_do_not_fit_are_refused(values):
    with pytest.raises(ModelError, match="has 2 layers of neurons"):
        create_model("spiking_mlp", hidden=[4, 3], v_threshold=values)


def test_a_surrogate_of_its_own_width_keeps_it():
    net = nn.Sequential(LIFNode(surrogate_function=Triangular(width=0.7)))
    set_thresholds(net, [3.0])
    assert (net[0].v_threshold, net[0].surrogate_function.width) == (3.0, 0.7)


def test_activation_is_a_parameter():
    net = create_model("mlp", activation=nn.Tanh)
    assert isinstance(net, MLP) and isinstance(net.layers[1], nn.Tanh)
