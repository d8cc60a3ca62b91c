"""Counts how often a spiking network's neurons fire, and the operations of this, while the network runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transpike.metrics.energy import Operations

__all__ = ["FiringMeter", "LayerFiring"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_LEAKS = ("tau", "w", "leak", "beta")


@dataclass(frozen=True)
class LayerFiring:
    """The firing of one layer of neurons.

    Attributes:
        name: the module's name.
        neurons: the number of neurons for one sample.
        rate: spikes of either sign for each neuron and step, in [0, 1].
        negative: the negative ones among these.
    """

    name: str
    neurons: int
    rate: float
    negative: float


class FiringMeter:
    """Counts the spikes and operations of a network that runs on [T, N, *] inside the ``with`` block.

    Neurons are modules with a threshold, `v_threshold`, as ours and SpikingJelly's have. Every convolution and linear
    layer counts

        SynOps = (its dense multiply-accumulates) * (mean of ceil |x| over its inputs x),

    which is one accumulate for each spike and target. A sum of k spikes (residual additions) counts k, and a fraction
    (pooled spikes) counts one. For plain spikes this is firing rate * T * FLOPs, as in the literature. Values that are
    not whole numbers and do not come from a neuron are analog. They count dense multiply-accumulates at every step.
    Neurons add their input, compare with the threshold and multiply by their leak, if any, at every step, and subtract
    for each spike. Products of spikes with spikes, in attention, are not counted.

    Args:
        model: the network.

    Source of rate * FLOPs: Rathi and Roy, "DIET-SNN: A Low-Latency Spiking Neural Network With Direct Input Encoding
    and Leakage and Threshold Optimization", IEEE TNNLS 2023.

    Example:
        >>> from transpike.models.spiking import OverTime
        >>> from transpike.neurons import IFNode
        >>> net = OverTime(nn.Linear(2, 3), IFNode(step_mode="m"), nn.Linear(3, 5))
        >>> _ = nn.init.zeros_(net[0].weight), nn.init.constant_(net[0].bias, 0.5)
        >>> with FiringMeter(net) as meter:
        ...     _ = net(torch.full((4, 7, 2), 0.3))
        >>> meter.layers
        [LayerFiring(name='1', neurons=3, rate=0.5, negative=0.0)]
        >>> meter.operations.macs, meter.operations.accumulates, meter.dense_macs
        (24.0, 30.0, 21.0)
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.samples = 0
        self._steps = 0  # of all samples together
        self._fired = False
        self._handles: list[RemovableHandle] = []
        self._updates: Counter[str] = Counter()
        self._leaky: set[str] = set()
        self._dense = 0
        self._sums: dict[str, Tensor] = {}

    def __enter__(self) -> FiringMeter:
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        for name, module in self.model.named_modules():
            if hasattr(module, "v_threshold"):
                self._handles.append(module.register_forward_hook(self._counting(name)))
                if any(hasattr(module, leak) for leak in _LEAKS):
                    self._leaky.add(name)
            elif isinstance(module, _WEIGHTED):
                self._handles.append(module.register_forward_hook(self._weigh))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def layers(self) -> list[LayerFiring]:
        """The layers of neurons that have run, in the order in which they ran."""
        return [
            LayerFiring(
                name,
                updates // self._steps,
                self._total(f"spikes {name}") / updates,
                self._total(f"negative {name}") / updates,
            )
            for name, updates in self._updates.items()
        ]

    @property
    def operations(self) -> Operations:
        """The operations of one sample over all steps, on average."""
        spikes = sum(self._total(f"spikes {name}") for name in self._updates)
        leaks = sum(self._updates[name] for name in self._leaky)
        return Operations(
            macs=self._total("macs"),
            accumulates=self._total("synops"),
            neuron_accumulates=2 * self._updates.total() + spikes,
            neuron_multiplications=leaks,
            spikes=spikes,
        ) * (1 / self.samples)

    @property
    def dense_macs(self) -> float:
        """The multiply-accumulates of one sample at one step if all values were analog, as in an ANN of this shape."""
        return self._dense / self._steps

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace this process's counts by those over all processes. Each process calls it once, outside of ``with``.

        Args:
            total: sums a tensor over the processes.
        """
        # The names come from the network, not from the layers that ran, because a process may have had no sample.
        names = [name for name, module in self.model.named_modules() if hasattr(module, "v_threshold")]
        kinds = ["macs", "synops", *(f"{kind} {name}" for kind in ("spikes", "negative") for name in names)]
        counts = [self.samples, self._steps, self._dense, *(self._updates[name] for name in names)]
        own = torch.tensor([*counts, *map(self._total, kinds)], dtype=torch.float64)
        totals = total(own).tolist()
        self.samples, self._steps, self._dense, *updates = map(int, totals[: len(counts)])
        sums = torch.tensor(totals[len(counts) :], dtype=torch.float64)
        self._sums = dict(zip(kinds, sums, strict=True))
        summed = dict(zip(names, updates, strict=True))
        # In the order in which they ran.
        self._updates = Counter({name: summed[name] for name in [*self._updates, *names] if summed[name]})

    def _total(self, name: str) -> float:
        return float(self._sums.get(name, 0.0))

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value.double()

    def _begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        steps, samples = inputs[0].shape[:2]
        self.samples += samples
        self._steps += steps * samples
        self._fired = False

    def _counting(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(_: nn.Module, __: Any, spikes: Tensor) -> None:
            self._fired = True
            self._updates[name] += spikes.numel()
            self._add(f"spikes {name}", spikes.count_nonzero())
            self._add(f"negative {name}", (spikes < 0).sum())

        return count

    @torch.no_grad()
    def _weigh(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        x, dense = inputs[0], out.numel() * cast(Tensor, module.weight)[0].numel()
        self._dense += dense
        # A tensor, so that nothing waits for an accelerator.
        analog = x.new_zeros((), dtype=torch.bool) if self._fired else (x != x.round()).any()
        self._add("macs", dense * analog)
        self._add("synops", dense * ~analog * x.abs().ceil().mean(dtype=torch.float32))
