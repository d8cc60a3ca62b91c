"""NIR out and in: the same spikes in SpikingJelly, and what NIR cannot say refused by name."""

from __future__ import annotations

from pathlib import Path

import nir as library
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import neuron as theirs
from spikingjelly.activation_based.nir_exchange import export_to_nir, import_from_nir
from torch import nn

import transpike
from transpike import export
from transpike.coding import QCFS, Rate, Scheme
from transpike.conversion import SpikingNetwork
from transpike.errors import ModelError
from transpike.neurons import IFNode, LIFNode, ParametricLIFNode, TSANode, reset_net


def rate(start: float = 0.0) -> tuple[SpikingNetwork, torch.Tensor]:
    return converted(Rate(steps=24, start=start))


def converted(scheme: Scheme) -> tuple[SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU()]
    ann = nn.Sequential(*layers, nn.Flatten(), nn.Linear(54, 3)).eval()
    images = torch.rand(32, 2, 8, 8)
    return transpike.convert(ann, images, scheme=scheme), images[:5]


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 4, 3), LIFNode(tau=3.0, decay_input=False), nn.AvgPool2d(2), nn.Flatten()]
    net = nn.Sequential(*first, nn.Linear(36, 8), ParametricLIFNode(init_tau=2.5), nn.Linear(8, 3), IFNode())
    for layer in (net[0], net[4], net[6]):
        layer.weight.data.abs_()
    return net.eval()


@pytest.mark.parametrize(
    ("scheme", "start"), [(Rate(steps=24, start=0.0), 0.0), (Rate(steps=24, start=0.5), 0.5), (QCFS(steps=24), 0.5)]
)
def test_the_reset_and_the_start_stand_in_the_metadata(scheme: Scheme, start: float, tmp_path: Path) -> None:
    snn, _ = converted(scheme)
    graph = library.read(str(export.nir(snn, tmp_path / "net.nir")))
    nodes = [node for node in graph.nodes.values() if isinstance(node, library.IF)]
    assert [(n.metadata["reset"], float(n.metadata["start"])) for n in nodes] == [("subtraction", start)] * 2
    assert [n.r.shape for n in nodes] == [(4, 8, 8), (6, 3, 3)] and float(nodes[0].r.max()) == 1e4


def test_a_rate_network_in_spikingjelly_sends_the_same_spikes(tmp_path: Path) -> None:
    """With its nodes told to subtract the threshold, as the metadata say."""
    snn, images = rate()
    path = export.nir(snn, tmp_path / "net.nir")
    net, seen = import_from_nir(path), []
    for node in net.modules():
        if isinstance(neurons := getattr(node, "module", None), theirs.IFNode):
            neurons.v_reset = None
            node.register_forward_hook(lambda node, x, out: seen.append(out[0]))
    total, state = torch.zeros(5, 3), None
    with torch.no_grad():
        for _ in range(24):
            found, state = net(images, state) if state is not None else net(images)
            total += found
    trace = snn.trace(images)
    for number, name in enumerate(snn.neurons):
        spikes = torch.stack(seen[number::2])
        assert torch.equal(spikes, trace[name].spikes) and spikes.any()
    assert torch.allclose(total / 24, snn(images), rtol=1e-4, atol=1e-5)


def test_a_trained_network_comes_back_as_it_was(tmp_path: Path) -> None:
    net = chain()
    again = export.import_nir(export.nir(net, tmp_path / "net.nir", shape=(1, 8, 8)))
    assert [type(layer).__name__ for layer in again][1] == "LIFNode" and again[1].decay_input is False
    images = torch.rand(12, 20, 1, 8, 8)
    with torch.no_grad():
        expected, found = (torch.stack([each(x) for x in images]) for each in (net, again))
    assert torch.equal(expected, found) and 0 < expected.sum() < expected.numel()


def test_a_trained_network_in_spikingjelly_gives_the_same_spikes(tmp_path: Path) -> None:
    net = chain()
    other = import_from_nir(export.nir(net, tmp_path / "net.nir", shape=(1, 8, 8)))
    images, state, same = torch.rand(12, 4, 1, 8, 8), None, []
    with torch.no_grad():
        for x in images:
            found, state = other(x, state) if state is not None else other(x)
            same.append(torch.equal(found, net(x)))
    assert all(same)


def test_what_spikingjelly_exports_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    for v_reset in (0.0, -0.5):
        node = theirs.LIFNode(tau=4.0, v_reset=v_reset)
        net = nn.Sequential(nn.Linear(5, 7), node, nn.Linear(7, 2), theirs.IFNode()).eval()
        net[0].weight.data.abs_()
        net[2].weight.data.abs_()
        export_to_nir(net, torch.rand(1, 5), save_path=tmp_path / "theirs.nir")
        ours = export.import_nir(tmp_path / "theirs.nir")
        assert isinstance(ours[1], LIFNode) and (ours[1].tau, ours[1].v_reset) == (4.0, v_reset)
        from spikingjelly.activation_based import functional

        functional.reset_net(net)
        with torch.no_grad():
            pairs = [(net(x), ours(x)) for x in torch.rand(9, 3, 5) * 4]
        assert all(torch.equal(a, b) for a, b in pairs) and any(a.any() for a, _ in pairs)
        reset_net(ours)


def test_soft_reset_is_read_from_the_metadata_or_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), IFNode(v_reset=None)).eval()
    path = export.nir(net, tmp_path / "net.nir", shape=(3,))
    assert export.import_nir(path)[1].v_reset is None
    assert export.import_nir(path, reset="hard")[1].v_reset == 0.0


def test_what_nir_cannot_say_is_refused_by_name(tmp_path: Path) -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    css = transpike.convert(ann, torch.rand(16, 4), scheme=transpike.CSS(steps=4))
    target = tmp_path / "net.nir"
    refused = [
        (css, (), r"NIR has no spike with a sign or a size.* transpike.export.onnx"),
        (nn.Sequential(nn.Linear(4, 2), TSANode()), (4,), "1: NIR has no neuron such as TSANode"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), (1, 8, 8), "1: NIR has no node for MaxPool2d"),
        (nn.Sequential(nn.Linear(4, 2)), (5,), r"0: does not take a sample of shape \[5\]"),
        (nn.Sequential(nn.Linear(4, 2)), (), "shape: give the shape of one image"),
        (nn.Linear(4, 2), (4,), "Linear: NIR takes a chain"),
    ]
    for network, shape, words in refused:
        with pytest.raises(ModelError, match=words):
            export.nir(network, target, shape=shape)
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)).eval()
    ended = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.ReLU()).eval()
    with pytest.raises(ModelError, match="3: it is computed from decoded outputs"):
        export.nir(transpike.convert(ended, torch.rand(16, 4), scheme=Rate(steps=8)), target)
    with pytest.raises(ModelError, match="NIR has no node for relu \\+ max_pool"):
        export.nir(transpike.convert(pooled, torch.rand(8, 1, 8, 8), scheme=Rate(steps=8)), target)
    assert not target.exists()


def test_a_strange_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        export.import_nir(tmp_path / "nowhere.nir")
    (tmp_path / "text.nir").write_text("no graph")
    with pytest.raises(ModelError, match=r"text\.nir: not a readable NIR graph"):
        export.import_nir(tmp_path / "text.nir")
    with pytest.raises(ModelError, match="already exists and is not a NIR graph"):
        export.nir(chain(), tmp_path / "text.nir", shape=(1, 8, 8))
    one = np.ones(2)
    nodes = {
        "input": library.Input(np.array([2])),
        "cuba": library.CubaLIF(one, one, one, one, one),
        "output": library.Output(np.array([2])),
    }
    library.write(tmp_path / "cuba.nir", library.NIRGraph(nodes, [("input", "cuba"), ("cuba", "output")]))
    with pytest.raises(ModelError, match="cuba: transpike has no layer for CubaLIF"):
        export.import_nir(tmp_path / "cuba.nir")
    nodes["cuba"] = library.LIF(one * 1e-5, one, one * 0, one)
    with pytest.raises(ModelError, match="the graph: cuba: tau=1e-05 s is not longer than a step"):
        export.import_nir(library.NIRGraph(nodes, [("input", "cuba"), ("cuba", "output")]))
    nodes["cuba"] = library.IF(one * 3, one)
    library.write(tmp_path / "scaled.nir", library.NIRGraph(nodes, [("input", "cuba"), ("cuba", "output")]))
    with pytest.raises(ModelError, match="cuba: r=3 scales the input"):
        export.import_nir(tmp_path / "scaled.nir")
