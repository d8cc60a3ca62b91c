"""A LIF layer over T steps: ours, SpikingJelly, snnTorch, a torch loop, the loop compiled, and a copy as the floor.

    python benchmarks/neurons.py
    python benchmarks/neurons.py --together true
    python benchmarks/neurons.py --device cuda --dtype bfloat16 --shape "[32, 32, 128, 32, 32]"

Hard reset to 0, tau 2, input decayed, ATan surrogate. Forward is without gradients; forward and backward take a dense
gradient of the spikes. The floor copies the input, and for the backward pass the gradient too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Literal

import snntorch
import torch
from jsonargparse import auto_cli
from spikingjelly.activation_based import functional, neuron, surrogate
from timing import alone, best_seconds, peak_mebibytes, save, show
from torch import Tensor

from transpike.neurons import ATan, LIFNode, reset_net

Layer = Callable[[Tensor], Tensor]
Row = tuple[float, float, float, float]


def _ours() -> Layer:
    node = LIFNode(surrogate_function=ATan(), step_mode="m")

    def layer(x: Tensor) -> Tensor:
        reset_net(node)
        return node(x)

    return layer


def _spikingjelly() -> Layer:
    node = neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m")

    def layer(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return layer


def _snntorch() -> Layer:
    node = snntorch.Leaky(beta=0.5, reset_mechanism="zero", spike_grad=snntorch.surrogate.atan())

    def layer(x: Tensor) -> Tensor:
        node.to(x.device)  # its decay is a tensor
        v = node.reset_mem()
        spikes = []
        for current in x * 0.5:
            s, v = node(current, v)
            spikes.append(s)
        return torch.stack(spikes)

    return layer


def _loop(x: Tensor) -> Tensor:
    fire, v, spikes = ATan(), torch.zeros_like(x[0]), []
    for current in x:
        h = v + (current - v) / 2
        s = fire(h - 1)
        v = h * (1 - s)
        spikes.append(s)
    return torch.stack(spikes)


_LAYERS: dict[str, Callable[[], Layer]] = {
    "transpike": _ours,
    "SpikingJelly": _spikingjelly,
    "snnTorch": _snntorch,
    "torch loop": lambda: _loop,
    "torch.compile of the loop": lambda: torch.compile(_loop, dynamic=False),
    "copy (floor)": lambda: torch.clone,
}


def _without_gradients(layer: Layer, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


def _with_gradients(layer: Layer, x: Tensor, grad: Tensor) -> Tensor:
    x.grad = None
    spikes = layer(x)
    spikes.backward(grad)
    return spikes.detach()


def _measure(names: Sequence[str], device: str, dtype: str, shape: Sequence[int], repeats: int) -> list[Row]:
    """Seconds forward and both ways, MiB at the peak and firing rate, for each of these layers in this process."""
    torch.manual_seed(0)
    cuda = device == "cuda"
    x = torch.randn(shape, device=device).to(getattr(torch, dtype))
    grad = torch.randn_like(x)
    leaf = x.clone().requires_grad_()
    layers = {name: _LAYERS[name]() for name in names}
    forward = {name: lambda layer=layer: _without_gradients(layer, x) for name, layer in layers.items()}
    both = {name: lambda layer=layer: _with_gradients(layer, leaf, grad) for name, layer in layers.items()}
    seconds = [best_seconds(runs, repeats=repeats, cuda=cuda) for runs in (forward, both)]
    rows = []
    for name in names:
        leaf.grad = None
        peak = peak_mebibytes(both[name], cuda=cuda)
        rows.append((seconds[0][name], seconds[1][name], peak, forward[name]().float().mean().item()))
    return rows


def main(
    device: Literal["cpu", "cuda"] = "cpu",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    shape: list[int] = [4, 32, 128, 32, 32],  # noqa: B006  (jsonargparse shows it)
    repeats: int = 7,
    rounds: int = 3,
    together: bool = False,
) -> None:
    """Time and peak memory of each; writes benchmarks/results/neurons-DEVICE-DTYPE-TxNx....json.

    Args:
        device: Where.
        dtype: Of the input.
        shape: Of the input, [T, N, *].
        repeats: Turns of a process, of which the fastest counts.
        rounds: Processes of each layer, in turns, of which the fastest counts.
        together: All take turns in one process, on memory that the others have left and beside their waiting
            threads; otherwise each has a process of its own, as a program that uses it and no other.
    """
    setting = device, dtype, shape, repeats
    if together:
        turns = [_measure(list(_LAYERS), *setting)]
    else:
        turns = [[alone(_measure, [name], *setting)[0] for name in _LAYERS] for _ in range(rounds)]
    rows = {name: tuple(map(min, zip(*measured, strict=True))) for name, *measured in zip(_LAYERS, *turns, strict=True)}
    rates = {name: row[3] for name, row in rows.items() if name != "copy (floor)"}
    if max(rates.values()) - min(rates.values()) > 1e-4:
        raise SystemExit(f"the layers do not compute the same neuron, firing rates: {rates}")
    base = rows["SpikingJelly"]
    show(
        f"LIF {shape} {dtype} on {device}{', in one process' if together else ''}; both = forward and backward; "
        f"SpikingJelly {version('spikingjelly')}, snnTorch {version('snntorch')}",
        ["", "forward ms", "speed-up", "both ms", "speed-up", "peak MiB"],
        [
            [name, f"{f * 1e3:.2f}", f"{base[0] / f:.1f}x", f"{b * 1e3:.2f}", f"{base[1] / b:.1f}x", f"{m:.0f}"]
            for name, (f, b, m, _) in rows.items()
        ],
    )
    keys = ("forward_s", "forward_backward_s", "peak_mib")
    results = {name: dict(zip(keys, row[:3], strict=True)) for name, row in rows.items()}
    name = f"neurons-{device}-{dtype}-{'x'.join(map(str, shape))}"
    print(save(f"{name}-together" if together else name, results))


if __name__ == "__main__":
    auto_cli(main)
