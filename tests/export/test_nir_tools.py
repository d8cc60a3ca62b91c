"""NIR round trips with sinabs and norse: the same spikes in their simulators, and of what they write in ours.

Those with SpikingJelly stand in test_nir.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nir as library
import norse.torch as norse
import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike import export
from transpike.coding import Rate
from transpike.errors import ModelError
from transpike.neurons import IFNode, LIFNode, reset_net

STEPS, IMAGES = 24, 4

sinabs = pytest.importorskip("sinabs", reason="make installs it; pip cannot, beside NIR above 1.0.4")
PLAYED: dict[str, Any] = {"min_v_mem": None, "spike_fn": sinabs.activation.SingleSpike}
"""What NIR does not say of sinabs' neurons: no lower bound, and one spike a step at most."""


def convolved(first: nn.Module, second: nn.Module, *ends: nn.Module) -> nn.Sequential:
    """Two convolutions and a linear layer, neurons behind each, and ``ends``."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 4, 3, padding=1), first, nn.Conv2d(4, 6, 2, stride=2), second]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(96, 5), *ends).eval()


def dense(first: nn.Module, second: nn.Module) -> nn.Sequential:
    """Without convolutions, whose size these tools leave out, and flattening, whose axes norse counts otherwise."""
    torch.manual_seed(0)
    return positive(nn.Sequential(nn.Linear(12, 30), first, nn.Linear(30, 5), second).eval())


def positive(net: nn.Sequential) -> nn.Sequential:
    """With weights that excite, so that every layer spikes."""
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data.abs_()
    return net


@torch.no_grad()
def ours(net: nn.Module, x: Tensor) -> Tensor:
    reset_net(net)
    return torch.stack([net(step) for step in x])


@torch.no_grad()
def of_sinabs(net: nn.Module, x: Tensor) -> Tensor:
    """sinabs takes samples and steps in one axis, samples first."""
    for node in net.modules():
        if hasattr(node, "min_v_mem"):
            for name, value in PLAYED.items():
                setattr(node, name, value)
    found = net(x.transpose(0, 1).flatten(0, 1))
    found = found[0] if isinstance(found, tuple) else found
    return found.unflatten(0, (x.shape[1], -1)).transpose(0, 1)


@torch.no_grad()
def of_norse(net: nn.Module, x: Tensor) -> Tensor:
    state, found = None, []
    for step in x:
        out, state = net(step, state)
        found.append(out)
    return torch.stack(found)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) and 0 < int(a.count_nonzero()) < a.numel()


def test_a_rate_network_in_sinabs_sends_the_same_spikes(tmp_path: Path) -> None:
    ann, images = convolved(nn.ReLU(), nn.ReLU()), torch.rand(32, 2, 8, 8)
    snn = transpike.convert(ann, images, scheme=Rate(steps=STEPS, start=0.0))
    net = sinabs.from_nir(library.read(str(export.nir(snn, tmp_path / "net.nir"))), batch_size=IMAGES)
    seen: list[Tensor] = []
    for node in net.modules():
        if hasattr(node, "min_v_mem"):
            node.register_forward_hook(lambda node, x, out: seen.append(out.unflatten(0, (IMAGES, -1)).transpose(0, 1)))
    found = of_sinabs(net, images[:IMAGES].expand(STEPS, IMAGES, 2, 8, 8))
    trace = snn.trace(images[:IMAGES])
    assert [same(spikes, trace[name].spikes) for spikes, name in zip(seen, snn.neurons, strict=True)] == [True] * 2
    assert torch.allclose(found.mean(0), snn(images[:IMAGES]), rtol=1e-4, atol=1e-5)


def test_a_soft_reset_chain_in_sinabs_sends_the_same_spikes(tmp_path: Path) -> None:
    net = positive(convolved(*(IFNode(v_reset=None, v_threshold=2.0) for _ in range(3))))
    other = sinabs.from_nir(library.read(str(export.nir(net, tmp_path / "a.nir", shape=(2, 8, 8)))), batch_size=IMAGES)
    x = torch.rand(STEPS, IMAGES, 2, 8, 8)
    assert same(of_sinabs(other, x), ours(net, x))


def fires() -> nn.Module:
    return sinabs.layers.IAFSqueeze(spike_threshold=torch.tensor(2.0), batch_size=IMAGES, **PLAYED)


def test_what_sinabs_writes_sends_the_same_spikes_here(tmp_path: Path) -> None:
    net, x = dense(fires(), fires()), torch.rand(STEPS, IMAGES, 12)
    expected = of_sinabs(net, x)
    library.write(tmp_path / "theirs.nir", sinabs.to_nir(net, x[0]))
    again = export.import_nir(tmp_path / "theirs.nir", reset="subtraction")
    assert again[1].v_reset is None and same(ours(again, x), expected)


def test_a_graph_of_sinabs_with_sums_over_windows_sends_the_same_spikes_here() -> None:
    net = convolved(fires(), fires(), fires())
    net.insert(2, sinabs.layers.SumPool2d(2))
    net[6] = nn.Linear(24, 5)
    x = torch.rand(STEPS, IMAGES, 2, 8, 8)
    expected = of_sinabs(positive(net), x)
    assert same(ours(export.import_nir(sinabs.to_nir(net, x[0]), reset="subtraction"), x), expected)


def test_a_hard_reset_chain_in_norse_sends_the_same_spikes(tmp_path: Path) -> None:
    net, x = dense(LIFNode(tau=2.0), LIFNode(tau=3.0)), torch.rand(STEPS, IMAGES, 12) * 2
    graph = library.read(str(export.nir(net, tmp_path / "net.nir", shape=(12,))))
    assert same(of_norse(norse.from_nir(graph, dt=1e-4), x), ours(net, x))


def test_what_norse_writes_sends_the_same_spikes_here(tmp_path: Path) -> None:
    """Its steps are of a millisecond; it writes a time constant times ``dt``, which is to be 1 therefore."""

    def cell(tau: float, size: int) -> nn.Module:
        known = {"tau_mem_inv": 1000 / tau, "v_th": 0.5, "v_leak": 0.0}
        return norse.LIFBoxCell(norse.LIFBoxParameters(**{key: torch.full((size,), v) for key, v in known.items()}))

    layers, x = dense(cell(2.0, 30), cell(3.0, 5)), torch.rand(STEPS, IMAGES, 12) * 2
    net = norse.SequentialState(*layers)
    expected = of_norse(net, x)
    library.write(tmp_path / "theirs.nir", norse.to_nir(net, x[0, 0], dt=1.0))
    again = export.import_nir(tmp_path / "theirs.nir", dt=1e-3)
    assert (again[1].tau, again[1].v_reset) == (2.0, 0.0) and same(ours(again, x), expected)


def test_a_file_of_another_step_says_so(tmp_path: Path) -> None:
    path = export.nir(dense(LIFNode(), IFNode()), tmp_path / "net.nir", shape=(12,))
    with pytest.raises(
        ModelError, match=r"1: tau=0.0002 s is not longer than a step, dt=0.001 s; give the dt of the file"
    ):
        export.import_nir(path, dt=1e-3)


def test_the_package_imports_neither_tool(root: Path) -> None:
    """norse's licence is the LGPL: it is for tests."""
    sources = [path.read_text() for path in (root / "src").rglob("*.py")]
    assert sources and not any(re.search(r"(import|from) (norse|sinabs|samna)\b", source) for source in sources)
