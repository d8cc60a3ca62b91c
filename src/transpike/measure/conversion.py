"""Compares a spiking network with the original network on the same images: every figure of a result row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from transpike.coding import scheme_settings
from transpike.coding.operations import TECHNOLOGIES, Technology
from transpike.coding.scheme import (
    decode,
    encoder_operations,
    finest,
    largest,
    payload_bits,
    readout_operations,
    total,
    train_bits,
)
from transpike.conversion import SpikingNetwork
from transpike.conversion.cost import evaluated, fan_out, macs, pairings, relays, step
from transpike.conversion.kinds import title, weighted
from transpike.conversion.op import Op
from transpike.errors import DataError
from transpike.measure.outputs import OutputErrors, Scores, find_metric
from transpike.metrics.energy import Operations, synaptic_operations
from transpike.metrics.fidelity import LayerErrors
from transpike.neurons.tsa import Tracked
from transpike.results import Ann, Layer, Row

__all__ = ["Comparison", "compare", "logits"]

LAYER_IMAGES = 64
SPIKES = {
    "needed": "spikes where needed",
    "blocks": "spikes behind every block",
    "operators": "spikes at every operator",
}


@dataclass(frozen=True)
class Comparison:
    """A spiking network compared with the original network.

    Attributes:
        images: the number of images that both have seen.
        ann: the original network.
        row: the spiking network: counts and energies for each image, energies in microjoules, and each layer of
            neurons.
    """

    images: int
    ann: Ann
    row: Row


def compare(
    snn: SpikingNetwork,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    layer_images: int = LAYER_IMAGES,
    progress: Callable[[int], None] | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    technology: Technology = TECHNOLOGIES["45nm"],
    metric: object = None,
) -> Comparison:
    """Run both networks and measure fidelity, spikes, operations, energy and speed.

    Args:
        snn: a converted network. The original network runs with the same weights (`SpikingNetwork.analog`).
        batches: batches of images of one size, or of pairs (images, labels). With a metric, labels may have any form
            that it accepts.
        layer_images: how many images, the first ones of all processes, are used for the measures of single layers,
            spikes and operations.
        progress: called after each batch with the number of finished images.
        total: sums a tensor over processes. Each process has every world-th of the images, starting from the one of its
            rank. All processes then return the same measures, except for those of time.
        technology: the technology for the energies.
        metric: a measure of the outputs, beside classes: a name of `transpike.metrics.tasks.METRICS`; a function of
            outputs and targets in the network's own form that returns a number, or one for each image; or several by
            name. The spiking network is measured against the original's outputs, and both against labels if there are
            any. Class indices are left out if a measure does not accept them.

    Returns:
        The figures of both. Accuracies are None without labels.

    Raises:
        DataError: There are no images, or labels are not class indices.

    Example:
        >>> import transpike
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> images = torch.rand(64, 4)
        >>> snn = transpike.convert(ann.eval(), images, scheme=transpike.CSS(steps=12, silent=1))
        >>> found = compare(snn, [images])
        >>> found.images, found.row.latency, found.row.logit_error < 0.01, found.row.accuracy
        (64, 14, True, None)
    """
    counts, seconds, count = torch.zeros(5, dtype=torch.float64), [0.0, 0.0], 0
    labelled = known = True
    layers = _Layers(snn, technology)
    if total:
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        layer_images = len(range(rank, layer_images, world))
    metrics = find_metric(metric)
    scores, errors = Scores(metrics), OutputErrors(snn)
    for batch in batches:
        x, y = batch if isinstance(batch, (list, tuple)) else (batch, None)
        labelled &= y is not None
        if not count and (sized := snn.at(x.shape[1:])) is not snn:  # costs are those of the images' size
            snn, layers = sized, _Layers(sized, technology)
        if count < layer_images:
            layers.update(x[: layer_images - count])
        outputs, readings = list[Any](), list[dict[str, Tensor]]()
        for k, analog in enumerate((True, False)):
            started = time.perf_counter()
            result, decoded = snn.readings(x, analog=analog)
            outputs.append(tree_map(Tensor.cpu, result))  # the copy waits for a GPU to finish
            readings.append(decoded)
            seconds[k] += time.perf_counter() - started
        first = [logits(each) for each in outputs]
        classes = isinstance(y, Tensor) and not y.is_floating_point() and y.shape == first[0].shape[:1]
        known = known and (classes or not metrics)
        counts += _counts(first[0], first[1], y if known else None)
        scores.update(outputs[0], outputs[1], y if labelled else None)
        errors.update(readings[0], readings[1])
        count += len(x)
        if progress:
            progress(len(x))
    tally = torch.cat([counts, torch.tensor([count], dtype=torch.float64)])
    ann, right, same, error, norm, images = (total(tally) if total else tally).tolist()
    if not images:
        raise DataError("there are no images to measure on")
    if total:
        layers.combine(total)
    known &= labelled
    beside, ann_measures, snn_measures = scores.result(images, total, labelled)
    work = layers.operations()
    ann_work = Operations(macs=sum(macs(snn.graph).values())) + layers.evaluated_once()
    positive, negative = layers.spikes_per_neuron()
    row = Row(
        scheme=scheme_settings(snn.scheme),
        label=snn.scheme.label + ("" if snn.graph.spikes == "needed" else f", {snn.graph.spikes}"),
        words={"name": type(snn.scheme).__name__, "spikes": SPIKES[snn.graph.spikes], **snn.scheme.words},
        spikes=snn.graph.spikes,
        steps=snn.steps,
        latency=snn.latency,
        latency_zero_delay=snn.timing.latency_zero_delay,
        interval=snn.interval,
        depth=snn.depth,
        accuracy=right / images if known else None,
        loss_pp=100 * (ann - right) / images if known else None,
        measures=beside,
        label_measures=snn_measures,
        output_errors=errors.result(images, total),
        agreement=same / images,
        logit_error=math.sqrt(error / norm) if norm else None,
        spikes_per_neuron=positive + negative,
        positive_per_neuron=positive,
        negative_per_neuron=negative,
        synops=work.synops,
        shifts=work.shifts,
        multiplications=work.multiplications,
        payload_bits=work.payload_bits,
        spike_bits=payload_bits(snn.scheme.digits),
        train_bits=train_bits(snn.scheme),
        products=work.products,
        function_operations=work.function_additions + work.function_multiplications,
        neuron_updates=work.neuron_accumulates + work.neuron_shifts + work.neuron_multiplications,
        energy_uj=work.joules_in(technology) * 1e6,
        energy_parts_uj={
            part.replace("neurons", "neuron_updates"): joules * 1e6
            for part, joules in work.energy(technology).items()
            if joules or part not in ("macs", "products", "functions")
        },
        seconds=seconds[1],
        images_per_second=images / seconds[1] if count else 0.0,
        layer_images=layers.images,
        layers=layers.rows(),
    )
    about = Ann(
        accuracy=ann / images if known else None,
        measures=ann_measures,
        macs=float(ann_work.macs),
        energy_uj=ann_work.joules_in(technology) * 1e6,
        images_per_second=images / seconds[0] if count else 0.0,
    )
    return Comparison(int(images), about, row)


def logits(output: object) -> Tensor:
    """Return the first output as [N, values]."""
    first: Tensor = torch.utils._pytree.tree_leaves(output)[0]
    return (first if first.is_floating_point() else first.float()).reshape(len(first), -1)


def _counts(ann: Tensor, snn: Tensor, labels: Tensor | None) -> Tensor:
    """Return right predictions of both, equal predictions, squared error and squared norm of the centred logits."""
    predicted, fired = ann.argmax(1), snn.argmax(1)
    if labels is None:
        right = [torch.tensor(0.0)] * 2
    elif labels.shape != predicted.shape or labels.is_floating_point():
        raise DataError(f"labels must be class indices [N], not {labels.dtype} of shape {tuple(labels.shape)}")
    else:
        right = [(p.cpu() == labels.cpu()).sum() for p in (predicted, fired)]
    ann, snn = (z.double() - z.double().mean(1, keepdim=True) for z in (ann, snn))
    sums = [*right, (predicted == fired).sum(), (snn - ann).square().sum(), ann.square().sum()]
    return torch.stack([torch.as_tensor(s, dtype=torch.float64).cpu() for s in sums])


def _counted(spikes: Tensor, levels: tuple[int, ...]) -> list[Tensor]:
    """Return for each neuron, over steps and images: its positive spikes, then its spikes of each level or higher."""
    sums = [torch.zeros_like(spikes[0, 0], dtype=torch.float32) for _ in range(1 + len(levels))]
    buffer = torch.empty_like(spikes[0, 0])
    for row in spikes.flatten(0, 1):  # one image at one step, in one buffer: allocation would cost more than counting
        sums[0] += torch.clamp(row, 0, 1, out=buffer)
        for level, count in zip(levels, sums[1:], strict=True):
            count += torch.abs(row, out=buffer).sub_(level - 1).clamp_(0, 1)
    return sums


class _Layers:
    """Collects spikes, operations and errors of every layer over images."""

    def __init__(self, snn: SpikingNetwork, technology: Technology) -> None:
        self.snn, self.technology = snn, technology
        self.fan_out = {name: fan.to(snn.device) for name, fan in fan_out(snn.graph).items()}
        self.pairings = {name: pairs.to(snn.device) for name, pairs in pairings(snn.graph).items()}
        self.ops = {op.name: op for op in (snn.graph.input, *snn.graph.neurons)}
        self.relays = relays(snn.graph)
        self.step = {name: step(snn.graph, op) for name, op in self.ops.items()}
        digits = snn.scheme.digits
        self.digits = {name: snn.scheme.encoded if name == "input" else digits for name in self.ops}
        unit = finest(snn.scheme)
        reach = largest(snn.scheme) + unit / 2
        self.errors = {name: LayerErrors(largest=reach, unit=unit) for name in self.ops}
        self.spikes = {name: {1: 0.0, -1: 0.0} for name in self.ops}  # by sign
        self.synapses = {name: dict.fromkeys(self._levels(name), 0.0) for name in self.ops}  # spikes times fan-out
        self.products = {name: {1: 0.0} for name in self.ops}  # spikes times the numbers of the other operand
        self.images = 0

    def _levels(self, name: str) -> tuple[int, ...]:
        """Return the magnitudes that a spike of the layer may have; none for an analog current."""
        return tuple(sorted({abs(digit) for digit in self.digits[name] or () if digit}))

    def update(self, x: Tensor) -> None:
        """Add images ``x``: analog activations and spikes, one chunk at a time."""
        for part in self.snn.chunks(x):
            self.targets: dict[str, Tensor] = {}
            self.snn.analog(part, lambda op, value: self.targets.__setitem__(op.name, value))
            self.snn.observe(part, self._watch, final=True)
        self.images += len(x)

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace this process's sums by those over all processes; `total` sums a tensor over them."""
        self.images = int(total(torch.tensor(float(self.images), dtype=torch.float64)))
        for name in self.ops:
            self.errors[name].combine(total)
            for counts in (self.spikes[name], self.synapses[name], self.products[name]):
                sums = total(torch.tensor(list(counts.values()), dtype=torch.float64)).tolist()
                counts.update(zip(counts, sums, strict=True))

    def _watch(self, op: Op, fired: Tracked) -> None:
        spikes, name = fired.spikes, op.name
        if levels := self._levels(name):
            positive, *above = _counted(spikes, levels)
            self.spikes[name][1] += float(positive.sum(dtype=torch.float64))
            self.spikes[name][-1] += float((above[0] - positive).sum(dtype=torch.float64))
            self.products[name][1] += float((above[0] * self.pairings[name]).sum(dtype=torch.float64))
            for level, here, beyond in zip(levels, above, [*above[1:], torch.zeros(())], strict=True):
                self.synapses[name][level] += float(((here - beyond) * self.fan_out[name]).sum(dtype=torch.float64))
        if fired.residual is None and op.fires:
            return  # more of the train will follow
        target = self.targets.pop(name).float()
        if fired.residual is None or fired.target is None:
            decoded = decode(self.snn.scheme, spikes)
            self.errors[name].update(target, decoded, target - decoded)
        else:
            self.errors[name].update(target, fired.target - fired.residual, fired.residual)

    def _work(self, name: str) -> Operations:
        """Return the operations of one layer for one image: its own updates, and those that its spikes cause."""
        neurons, digits = math.prod(self.ops[name].shape), self.digits[name]
        if digits is None:  # an analog current: the first layer's products are computed once
            return Operations(macs=float(self.fan_out[name].sum(dtype=torch.float64)))
        spikes = sum(self.spikes[name].values())
        synaptic = synaptic_operations(self.synapses[name], digits=digits, fan_out=1)
        products, bits = self.products[name][1], spikes * payload_bits(digits)
        synaptic = replace(synaptic, spikes=spikes, payload_bits=bits, products=products)
        synaptic = synaptic * (1 / self.images)
        if name == "input":
            return synaptic + encoder_operations(self.snn.scheme, values=neurons, spikes=spikes / self.images)
        op = self.ops[name]
        own = op.function.tracked and not op.function.pools
        inputs = neurons if own else sum(math.prod(self.snn.graph[source].shape) for source in op.inputs)
        relayed = Operations(neuron_accumulates=self.relays.get(name, 0) * self.snn.steps)
        own_work = self.snn.neurons[name].operations(
            neurons=neurons, spikes=spikes / self.images, inputs=inputs, evaluation=evaluated(self.snn.graph, op)
        )
        return synaptic + relayed + own_work

    def evaluated_once(self) -> Operations:
        """Return the cost of one evaluation of each function, in the analog network, beyond comparisons."""
        evaluations = [evaluated(self.snn.graph, op) for op in self.snn.graph.neurons]
        return Operations(
            function_additions=sum(once.additions for once in evaluations),
            function_multiplications=sum(once.multiplications for once in evaluations),
        )

    def operations(self) -> Operations:
        """Return the operations of the whole network for one image."""
        whole = Operations()
        for name in self.ops:
            whole += self._work(name)
        values = sum(math.prod(op.shape) for op in self.snn.graph if weighted(op) and op.name in self.snn.readouts)
        sums = sum(count for name, count in self.relays.items() if name not in self.ops)
        passed = Operations(neuron_accumulates=sums * self.snn.steps)
        return whole + passed + readout_operations(self.snn.scheme, values=values)

    def spikes_per_neuron(self) -> tuple[float, float]:
        """Return positive and negative spikes, averaged over all neurons that fire, without the input's encoder."""
        names = [name for name in self.ops if name != "input"]
        neurons = sum(math.prod(self.ops[name].shape) for name in names) * self.images
        positive, negative = (sum(self.spikes[name][sign] for name in names) / max(neurons, 1) for sign in (1, -1))
        return positive, negative

    def rows(self) -> tuple[Layer, ...]:
        return tuple(map(self._row, self.ops))

    def _row(self, name: str) -> Layer:
        neurons, work, error = math.prod(self.ops[name].shape), self._work(name), self.errors[name].result()
        positive, negative = (self.spikes[name][sign] / (neurons * self.images) for sign in (1, -1))
        return Layer(
            name=name,
            function=title(self.ops[name]),
            neurons=neurons,
            amplitude=self.snn.units[name],
            peak=self.snn.units[name] * min(total(self.snn.scheme), largest(self.snn.scheme)),
            clipped=error.clipped,
            coupled=error.coupled,
            error=error.rms,
            own_error=error.own,
            error_share_clipping=error.from_clipping,
            error_share_coupling=error.from_coupling,
            binding=error.binding,
            spikes_per_neuron=positive + negative,
            positive_per_neuron=positive,
            negative_per_neuron=negative,
            fan_out=float(self.fan_out[name].mean()),
            synops=work.synops,
            energy_uj=work.joules_in(self.technology) * 1e6,
            evaluations=self.step[name].evaluations,
            evaluation_operations=self.step[name].operations,
            state=self.step[name].state,
            group=self.step[name].group,
            products=work.products,
            delay=self.snn.timing.first_spike[name],
        )
