"""NIR round trips with the tools that read it: SpikingJelly, sinabs, norse. Which spikes are the same?

    pip install nirtorch sinabs norse && python benchmarks/nir_tools.py

A rate network (soft reset, T = 24) and a chain of LIF neurons (hard reset) are written by `transpike.export.nir` and
run in each tool over the same images. A row counts the output values (of so many) that are equal to ours, to 1e-5 of
the largest. A tool that is missing, or fails, is named.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import save, show
from torch import Tensor, nn

import transpike
from transpike import export
from transpike.coding import Rate
from transpike.neurons import LIFNode, reset_net

STEPS, IMAGES = 24, 16


def main() -> None:
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    ann = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)).eval()
    images = torch.rand(64, 20)
    rate = transpike.convert(ann, images, scheme=Rate(steps=STEPS, start=0.0))
    chain = nn.Sequential(nn.Linear(20, 30), LIFNode(tau=2.0), nn.Linear(30, 5), LIFNode(tau=2.0)).eval()
    for layer in (chain[0], chain[2]):
        layer.weight.data.abs_()
    x = images[:IMAGES].expand(STEPS, IMAGES, 20) * 1.0
    rate_path = export.nir(rate, folder / "rate.nir")
    chain_path = export.nir(chain, folder / "chain.nir", shape=(20,))
    wanted = {"rate": rate(images[:IMAGES]), "chain": played(chain, x)}
    rows = []
    for tool, read in TOOLS.items():
        for name, path in (("rate", rate_path), ("chain", chain_path)):
            row = {"tool": tool, "network": name, "values": wanted[name].numel(), "equal": "", "note": ""}
            try:
                found = read(path, name, x)
                found = found.mean(0) if name == "rate" else found
                row["equal"] = int((found - wanted[name]).abs().lt(1e-5 * wanted[name].abs().max()).sum())
            except Exception as error:  # whatever a tool raises is its row
                row["note"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
            rows.append(row)
    show("NIR in other tools", list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    print(save("nir_tools", rows))


@torch.no_grad()
def played(net: nn.Module, x: Tensor) -> Tensor:
    reset_net(net)
    return torch.stack([net(step) for step in x])


@torch.no_grad()
def spikingjelly(path: Path, name: str, x: Tensor) -> Tensor:
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    net, state, found = import_from_nir(path), None, []
    for node in net.modules():
        if isinstance(node, neuron.IFNode) and name == "rate":
            node.v_reset = None
    for step in x:
        out, state = net(step) if state is None else net(step, state)
        found.append(out)
    return torch.stack(found)


@torch.no_grad()
def sinabs(path: Path, name: str, x: Tensor) -> Tensor:
    import nir
    from sinabs.nir import from_nir

    net = from_nir(nir.read(path), batch_size=x.shape[1])
    for node in net.modules():
        if hasattr(node, "min_v_mem"):
            node.min_v_mem = None
    flat = x.transpose(0, 1).flatten(0, 1)  # sinabs takes [N * T, *]
    found = net(flat)
    found = found[0] if isinstance(found, tuple) else found
    return found.unflatten(0, (x.shape[1], -1)).transpose(0, 1)


@torch.no_grad()
def norse(path: Path, name: str, x: Tensor) -> Tensor:
    import nir
    from norse.torch import from_nir

    net: Any = from_nir(nir.read(path), dt=1e-4)
    state, found = None, []
    for step in x:
        out, state = net(step, state)
        found.append(out)
    return torch.stack(found)


TOOLS: dict[str, Callable[[Path, str, Tensor], Tensor]] = {
    "SpikingJelly": spikingjelly,
    "sinabs": sinabs,
    "norse": norse,
}


if __name__ == "__main__":
    main()
