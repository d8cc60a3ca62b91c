"""SpikingJelly's own networks, built with our nodes and with theirs, give the same outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import qkformer, sew_resnet, spikformer

from transpike.neurons import ATan, LIFNode, SpikingNode, reset_net


def _sew_resnet(**keywords):
    return sew_resnet.sew_resnet18(num_classes=5, cnf="ADD", **keywords)


def _spikformer(**keywords):
    return spikformer.spikformer_cifar10(T=2, num_classes=5, **keywords)


def _qkformer(**keywords):
    return qkformer.qkformer_10_384(T=2, num_classes=5, **keywords)


@pytest.mark.parametrize(
    ("build", "size", "step_mode"),
    [(_sew_resnet, 32, "s"), (_sew_resnet, 32, "m"), (_spikformer, 32, "m"), (_qkformer, 64, "m")],
)
def test_same_outputs_and_gradients(build, size, step_mode):
    x = torch.randn(2, 2, 3, size, size)
    results = []
    for node, function in ((LIFNode, ATan()), (neuron.LIFNode, surrogate.ATan())):
        torch.manual_seed(0)
        # With tau 2 and the input undecayed both round alike, so that no spike can differ.
        network = build(spiking_neuron=node, surrogate_function=function, tau=2.0, decay_input=False)
        functional.set_step_mode(network, step_mode)
        assert any(isinstance(module, SpikingNode) for module in network.modules()) == (node is LIFNode)
        trains: list[torch.Tensor] = []
        for module in network.modules():
            if isinstance(module, node):
                module.register_forward_hook(lambda module, x, s, trains=trains: trains.append(s.detach()))
        for _ in range(2):  # the second time shows that the reset reached every node
            reset_net(network)
            out = network(x) if step_mode == "m" else torch.stack([network(step) for step in x])
        out.square().sum().backward()
        grads = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        results.append(
            (out.detach(), torch.stack([s.mean() for s in trains]), torch.cat([grad.flatten() for grad in grads]))
        )
    assert results[0][1].mean() > 0.1
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
