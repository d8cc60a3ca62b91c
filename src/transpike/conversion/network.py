"""The converted network: it lets spikes run through the graph, and tells what it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from transpike.coding.scheme import Activation, Scheme
from transpike.conversion.calibrate import check_images
from transpike.conversion.graph import Graph, Op, apply, max_pool, piecewise
from transpike.errors import ConversionError
from transpike.neurons.tsa import Piecewise, Tracked

__all__ = ["LayerTrace", "SpikingNetwork", "Watch"]

Watch = Callable[[Op, Tracked], None]

_BUDGET = {"cpu": 2**21, "cuda": 2**25}  # values of one layer at all steps of a chunk; a processor's caches are small
_FRESH = {"convolution", "linear", "add"}  # operations whose result shares no memory with their inputs


@dataclass(frozen=True)
class LayerTrace:
    """What one layer fired and what it left out.

    Attributes:
        spikes: digits [T, N, \\*] in {0, ±levels}.
        residual: [N, \\*] in units of theta, target less decoded value; None for the input's code.
        target: [N, \\*] in units of theta, the function of the layer's whole input; None for the input's code.
        amplitude: theta.
    """

    spikes: Tensor
    residual: Tensor | None
    target: Tensor | None
    amplitude: float


class SpikingNetwork(nn.Module):
    """A spiking network, as `transpike.convert` makes it.

    Called on images [N, \\*] it encodes them, lets spikes travel for T steps and returns the decoded outputs: logits,
    in the ANN's own form and units. No state is left between calls, and a sample's output does not depend on its batch
    mates.

    Attributes:
        scheme: the coding scheme.
        units: real value of one unit of every operation's result; for neurons, their amplitude theta.
        clipped: share of calibration activations beyond what each neuron can encode.
        chunk: samples simulated at a time, which bounds memory; None chooses by the largest layer.
    """

    def __init__(
        self, graph: Graph, scheme: Scheme, units: Mapping[str, float], clipped: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.graph = graph
        self.scheme = scheme
        self.units = dict(units)
        self.clipped = dict(clipped or {})
        self.chunk: int | None = None
        for op in graph:
            for key, tensor in op.tensors.items():
                layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
                # One layout whatever the model's was, so that a network read from files computes the same bits.
                self.register_buffer(_key(op, key), tensor.clone(memory_format=layout))
        self._plan()

    def _plan(self) -> None:
        """What is known before any image: what is read decoded, when a value is last used, who may overwrite."""
        graph, consumers = self.graph, self.graph.consumers()
        self._spiking = graph.spiking()
        readers = [name for op in graph if op.name not in self._spiking for name in op.inputs]
        self._decoded = self._spiking.intersection([*readers, *graph.outputs])
        last = {name: ops[-1].name for name, ops in consumers.items()}
        self._last = {op.name: [n for n in set(op.inputs) if last[n] == op.name] for op in graph}
        self._overwrite = {
            op.name
            for op in graph.neurons
            if (graph[op.inputs[0]].target in _FRESH and len(consumers[op.inputs[0]]) == 1) or op.gains
        }

    # -- running -------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Any:
        """Decoded outputs for images ``x`` [N, \\*]. No gradients flow through spikes.

        Raises:
            ConversionError: if the images have another shape than in calibration, are integers, or not finite.
        """
        return self.observe(x)

    @torch.no_grad()
    def observe(self, x: Tensor, watch: Watch | None = None, *, final: bool = False) -> Any:
        """Like calling the network; ``watch(op, tracked)`` sees each layer's spikes as they are made, chunk by chunk.

        With ``final``, each neuron's residual and target are computed too.
        """
        self._check(x)
        chunks = max(1, math.ceil(len(x) / (self.chunk or self.default_chunk)))  # of like sizes: a small rest is slow
        parts = [self._run(part, watch, final) for part in x.tensor_split(chunks)]
        return self.graph.pack({name: torch.cat([part[name] for part in parts]) for name in self.graph.outputs})

    def trace(self, x: Tensor) -> dict[str, LayerTrace]:
        """Spikes, residuals and targets of every layer for images ``x``, by name; the input's code comes first."""
        kept: dict[str, list[Tracked]] = {}
        self.observe(x, lambda op, tracked: kept.setdefault(op.name, []).append(tracked), final=True)
        return {name: _joined(parts, self.units[name]) for name, parts in kept.items()}

    @torch.no_grad()
    def analog(self, x: Tensor, observe: Callable[[Op, Tensor], None] | None = None) -> Any:
        """The network this one was made from, on the same weights: real values in place of spikes.

        ``observe(op, value)`` sees every layer's activations [N, \\*] in units of its amplitude theta.
        """

        def value(op: Op, x: Tensor) -> Tensor:
            if op.target == "input":
                result = x.to(self.device, self.dtype) / self.units[op.name]
            else:
                activation, unit = self._activation(op), self.units[op.name]
                z = x * op.gains[0] if op.gains else x
                z = activation.pool(z) if activation.pool else z
                f = activation.function
                slope = f.slope if activation.slope is None else activation.slope
                result = piecewise(z, slope, f.low / unit, f.high / unit)
            if observe:
                observe(op, result)
            return result

        def tensors(op: Op) -> dict[str, Tensor]:
            constants = {"bias", "shift"}  # they enter at every step, divided by the value of a train of ones
            held = self._tensors(op)
            return {k: t * self.scheme.total if k in constants else t for k, t in held.items()}

        self._check(x)
        return self.graph.pack(self._walk(x, value, tensors, lambda op, z: z.float() * self.units[op.name]))

    def _run(self, x: Tensor, watch: Watch | None, final: bool) -> dict[str, Tensor]:
        def spikes(op: Op, x: Tensor) -> Tensor:
            fired = self._encode(op, x) if op.target == "input" else self._fire(op, x, final)
            if watch:
                watch(op, fired)
            return fired.spikes.flatten(0, 1)

        return self._walk(x, spikes, self._tensors, self._decode)

    def _walk(
        self,
        x: Tensor,
        fire: Callable[[Op, Tensor], Tensor],
        tensors: Callable[[Op], dict[str, Tensor]],
        decode: Callable[[Op, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Carry ``x`` through the graph: ``fire`` at the input and at neurons, decoded values at the end."""
        currents: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for op in self.graph:
            if op.name not in self._spiking:
                held = {key: tensor.float() for key, tensor in self._tensors(op).items()}
                values[op.name] = apply(op, held, *(values[name] for name in op.inputs))
                continue
            if op.target in ("input", "neuron"):
                currents[op.name] = fire(op, currents[op.inputs[0]] if op.inputs else x)
            else:
                currents[op.name] = apply(op, tensors(op), *(currents[name] for name in op.inputs))
            if op.name in self._decoded:
                values[op.name] = decode(op, currents[op.name])
            for name in self._last[op.name]:
                currents.pop(name, None)
        return {name: values[name] for name in self.graph.outputs}

    def _encode(self, op: Op, x: Tensor) -> Tracked:
        x = x.to(self.device, torch.float32) / self.units[op.name]
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return Tracked(self.scheme.encode(x.contiguous(memory_format=layout)).to(self.dtype))

    def _fire(self, op: Op, z: Tensor, final: bool) -> Tracked:
        z = z.unflatten(0, (self.scheme.steps, -1))
        z = z * op.gains[0] if op.gains else z
        inplace = op.name in self._overwrite
        return self.scheme.fire(z, self._activation(op), self.units[op.name], inplace=inplace, final=final)

    def _activation(self, op: Op) -> Activation:
        low, high = op.args["low"], op.args["high"]
        function = Piecewise(
            slope=op.args["slope"], low=-math.inf if low is None else low, high=math.inf if high is None else high
        )
        pool = partial(max_pool, op.args["pool"]) if op.args["pool"] else None
        return Activation(function, self._tensors(op).get("slope"), pool)

    def _decode(self, op: Op, current: Tensor) -> Tensor:
        return self.scheme.decode(current.unflatten(0, (self.scheme.steps, -1))) * self.units[op.name]

    def _tensors(self, op: Op) -> dict[str, Tensor]:
        return {key: self.get_buffer(_key(op, key)) for key in op.tensors}

    def _check(self, x: Tensor) -> None:
        check_images(x, "the network's input")
        if tuple(x.shape[1:]) != self.graph.input.shape:
            expected = ", ".join(map(str, self.graph.input.shape))
            raise ConversionError(f"the network expects images [N, {expected}] as in calibration, not {list(x.shape)}")

    @property
    def default_chunk(self) -> int:
        """How many samples at a time keep the largest layer, over all steps, within 8 MiB (128 MiB on a GPU)."""
        largest = max(math.prod(op.shape) for op in self.graph)
        return max(1, _BUDGET.get(self.device.type, _BUDGET["cuda"]) // (largest * self.scheme.interval))

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.buffers()).dtype

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def readouts(self) -> set[str]:
        """The operations whose results are decoded, for the output or for functions of decoded values."""
        return self._decoded

    @property
    def depths(self) -> dict[str, int]:
        """How many neurons lie on the longest path from the image to each spiking operation, itself included."""
        depths: dict[str, int] = {}
        for op in self.graph:
            if op.name in self._spiking:
                depths[op.name] = max((depths[n] for n in op.inputs), default=0) + (op.target == "neuron")
        return depths

    @property
    def depth(self) -> int:
        """n: firing layers on the longest path, and the classifier, which accumulates."""
        depths = self.depths
        return max(depths[name] + (self.graph[name].target != "neuron") for name in self._decoded)

    @property
    def latency(self) -> int:
        """Steps from an image's arrival to its complete output, T + Ts * n (the paper's T + n for Ts = 1)."""
        return self.scheme.latency(self.depth)

    @property
    def interval(self) -> int:
        """Steps between two images that enter one after the other, T + Ts."""
        return self.scheme.interval

    @property
    def delays(self) -> dict[tuple[str, str], int]:
        """Steps by which each edge must wait for the slowest input of its target: skips around neurons need them."""
        depths, wait = self.depths, self.scheme.latency(1) - self.scheme.latency(0)
        return {
            (name, op.name): wait * (max(depths[n] for n in op.inputs) - depths[name])
            for op in self.graph
            if op.name in self._spiking
            for name in op.inputs
        }

    def describe(self) -> Table:
        """A table of the layers: what each computes, its amplitude, the share it clips, and when its spikes begin."""
        from transpike.conversion.describe import describe

        return describe(self)

    def save(self, folder: Any) -> None:
        """Write the network to ``folder``: network.json and weights.safetensors. `transpike.load` reads it back."""
        from transpike.conversion.store import save

        save(self, folder)

    def extra_repr(self) -> str:
        return f"{self.scheme}, {len(self.graph.neurons)} neuron layers, latency {self.latency}"


def _key(op: Op, key: str) -> str:
    return f"{op.name}.{key}".replace(".", "/")


def _joined(parts: list[Tracked], amplitude: float) -> LayerTrace:
    def cat(tensors: list[Tensor | None]) -> Tensor | None:
        given = [t for t in tensors if t is not None]
        return torch.cat(given) if given else None

    spikes = torch.cat([part.spikes for part in parts], 1)
    return LayerTrace(spikes, cat([p.residual for p in parts]), cat([p.target for p in parts]), amplitude)
