"""SpikingJelly: our networks against its own, its networks with our neurons, ours with its neurons."""

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import qkformer, sew_resnet, spikformer
from torch import nn

from transpike.models import create_model
from transpike.neurons import IFNode, LIFNode, Sigmoid, SpikingNode, TSANode, reset_net

LAYERS = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Linear)


def layers(*modules):
    return [layer for module in modules for layer in module.modules() if isinstance(layer, LAYERS)]


def copy_weights(sources, targets):
    """Layer by layer; a bias that the other network lacks becomes zero."""
    for source, target in zip(sources, targets, strict=True):
        target.weight.data = source.weight.data.reshape(target.weight.shape).clone()
        for layer, other in ((source, target), (target, source)):
            if layer.bias is not None and other.bias is None:
                nn.init.zeros_(layer.bias)
        if source.bias is not None and target.bias is not None:
            target.bias.data = source.bias.data.clone()


@pytest.mark.parametrize("depth", [18, 50])
def test_sew_resnets_are_spikingjellys(depth):
    torch.manual_seed(0)
    build = getattr(sew_resnet, f"sew_resnet{depth}")
    theirs = build(
        num_classes=5, cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), detach_reset=True
    ).double()
    functional.set_step_mode(theirs, "m")
    ours = create_model(f"sew_resnet{depth}", num_classes=5).double()
    copy_weights(layers(theirs), layers(ours))
    x = torch.randn(2, 2, 3, 33, 33, dtype=torch.double)
    expected = theirs(x)
    torch.testing.assert_close(ours(x), expected)
    assert expected.std((0, 1)).min() > 0


def test_qkformers_are_spikingjellys():
    torch.manual_seed(0)
    depths = (1, 2, 1)
    theirs = qkformer.QKFormer(num_classes=5, embed_dims=32, num_heads=(2, 2, 2), depths=depths).double()
    ours = create_model("qkformer_10_384", num_classes=5, width=32, heads=2, depths=depths).double()
    stages = (
        theirs.patch_embed1,
        theirs.stage1,
        theirs.patch_embed2,
        theirs.stage2,
        theirs.patch_embed3,
        theirs.stage3,
    )
    copy_weights(layers(*stages, theirs.head), layers(ours))
    # Theirs projects attention without a bias, ours embeds without: all are zero now.
    x = 2 * torch.randn(3, 2, 3, 32, 32, dtype=torch.double)
    expected = theirs(x)
    torch.testing.assert_close(ours(x).mean(0), expected)
    assert expected.std(0).min() > 0


@pytest.mark.parametrize(
    ("builder", "node", "theirs"),
    [
        (qkformer.qkformer_10_384, LIFNode, neuron.LIFNode),
        (spikformer.spikformer_cifar10, LIFNode, neuron.LIFNode),
        (spikformer.spikformer_cifar10, IFNode, neuron.IFNode),
        (spikformer.spikformer_cifar10, TSANode, None),
    ],
)
def test_spikingjellys_transformers_take_our_neurons(builder, node, theirs):
    x = torch.rand(2, 1, 3, 32, 32, dtype=torch.double)
    results = []
    for made in (node, theirs):
        if made is None:
            continue
        torch.manual_seed(0)
        net = builder(num_classes=5, spiking_neuron=made).double()
        nodes = [module for module in net.modules() if isinstance(module, SpikingNode)]
        assert bool(nodes) == (made is node) and all(module.step_mode == "m" for module in nodes)
        for _ in range(2):
            reset_net(net)
            out = net(x)
        out.square().sum().backward()
        results.append((out, next(net.parameters()).grad))
    out, grad = results[0]
    assert out.shape[-2:] == (1, 5) and grad.abs().sum() > 0
    if theirs is not None:
        torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", ["sew_resnet19", "spikingformer_4_384", "qkformer_4_384"])
def test_our_networks_take_spikingjellys_neurons(name):
    shape = {"sew_resnet19": {"width": 4}}.get(name, {"width": 16, "heads": 2})
    x = 2 * torch.randn(3, 2, 3, 16, 16, dtype=torch.double)
    results = []
    for node, function in ((LIFNode, Sigmoid()), (neuron.LIFNode, surrogate.Sigmoid())):
        torch.manual_seed(0)
        net = create_model(name, **shape, spiking_neuron=node, v_threshold=0.3, surrogate_function=function).double()
        for _ in range(2):
            reset_net(net)
            out = net(x)
        out.square().sum().backward()
        results.append((out, next(net.parameters()).grad))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][1].abs().sum() > 0
