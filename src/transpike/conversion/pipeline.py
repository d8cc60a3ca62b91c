"""Runs a spiking network in pieces of steps, with exactly the results of a whole run.

The network is a pipeline: a layer's step t happens at the global step ``first_spike + t``. A `Pipeline` moves the clock
on by some steps. Every layer then computes those of its steps that are due, and keeps its state. So an early answer
equals that of the whole run at the same step, and long trains need not be in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transpike.coding.neuron import FedSteps, SteppingNeuron, Steps
from transpike.coding.scheme import Scheme, ratio
from transpike.conversion.fired import Watch
from transpike.conversion.kinds import KINDS
from transpike.conversion.op import Op
from transpike.conversion.products import ProductSteps
from transpike.conversion.walk import Network, finished
from transpike.neurons.pieces import Change, joined, kept
from transpike.neurons.tsa import Tracked

__all__ = ["ROWS", "Decoded", "Pipeline"]

ROWS = 16
"""With at least this many rows (steps times samples), a row of a matrix product does not depend on the other rows."""


class Pipeline:
    """Samples in the middle of a run through the network.

    Args:
        snn: the network. Its neurons must be able to run in pieces of steps.
        x: samples [N, \\*]. If they are fewer than ``rows``, copies fill up the batch. No result contains them.
        watch: sees the input's train, then each layer's spikes as they are computed.
        final: whether ``watch`` also sees residuals and targets, with the last spikes.
        rows: the smallest number of samples to simulate.
        every: whether `outputs` are available for every step of the last piece. By default, only its last step has
            them.
    """

    def __init__(
        self,
        snn: Network,
        x: Tensor,
        watch: Watch | None = None,
        *,
        final: bool = False,
        rows: int = ROWS,
        every: bool = False,
    ) -> None:
        self.watch, self.final, self.rows = watch, final, rows
        self.snn, self.graph, self.samples = snn, snn.course.graph, len(x)
        self.total = len(snn.scheme.weights)
        self.arrived = max(snn.timing.first_spike[name] for name in snn.readouts)
        x = x[torch.arange(max(rows, len(x))) % max(len(x), 1)] if len(x) < rows and len(x) else x
        self.train = snn.encode(snn.scaled(snn.graph.input, x)).spikes
        if watch:
            watch(self.graph.input, Tracked(self.train[:, : self.samples]))
        self.spiking = [op for op in self.graph if op.name in self.graph.spiking]
        self.layers: dict[str, Steps] = {}
        self.products: dict[str, ProductSteps] = {}
        self.done = dict.fromkeys(self.graph.spiking, 0)  # steps run so far, including those without input
        self.ended: set[str] = set()
        self.readers = {
            name: [op.name for op in self.graph.consumers.get(name, ()) if op.name in self.done] for name in self.done
        }
        self.waiting: dict[str, tuple[int, Tensor]] = {}  # results that are still to be read, with their first step
        self.said = {name: Decoded(snn.scheme, every=every) for name in snn.readouts}

    def latency(self, step: int) -> int:
        """Return the number of steps from the image's arrival to the output's step ``step``."""
        return self.snn.timing.latency - self.total + step

    def simulated(self, name: str, step: int) -> int:
        """Return how many steps a layer has fired in by the output's step ``step``."""
        return min(self.arrived + step - self.snn.timing.first_spike[name], self.total)

    @torch.no_grad()
    def advance(self, step: int) -> dict[str, Tensor]:
        """Move the clock on to the output's step ``step``, 1 ... T, and return the decoded outputs by name."""
        self.run(step)
        return self.outputs(step)

    @torch.no_grad()
    def outputs(self, step: int) -> dict[str, Tensor]:
        """Return the outputs at the output's step ``step``, by name. See ``every`` for the steps that are available."""
        return finished(self.snn, self.decoded(step))

    @torch.no_grad()
    def run(self, step: int) -> None:
        """Move the clock on to the output's step ``step``."""
        for op in self.spiking:
            if self._advance(op, self.arrived + step):
                for name in {op.name, *op.inputs}:
                    self._forget(name)

    def decoded(self, step: int) -> dict[str, Tensor]:
        """Return the decoded values at the output's step ``step``, by name."""
        values = {}
        for name in self.snn.readouts:
            value, come = self.value(name, step) * self.snn.units[name], self.come(name, step)
            values[name] = value if come == 1 else value / come
        return values

    def value(self, name: str, step: int) -> Tensor:
        """Return the sum decoded from an operation by the output's step ``step``, in units of its amplitude."""
        return self.said[name].value(self.simulated(name, step))[: self.samples]

    def _advance(self, op: Op, clock: int) -> bool:
        """Run the steps of an operation that are due at ``clock``, and return whether there were any."""
        first, begin = self.snn.timing.first_spike[op.name], self.done[op.name]
        wait = self.snn.timing.waits[op.name] if op.fires else 0
        end = min(max(clock - first + wait, 0), self.total + wait)
        if end == begin:
            return False
        self.done[op.name] = end
        come = slice(min(begin, self.total), min(end, self.total))
        inputs = [self._take(name, come) for name in op.inputs]
        if op.kind == "input":
            self._send(op, begin, self.train[begin:end])
        elif op.fires:
            self._send(op, max(begin - wait, 0), self._fire(op, inputs, begin, end, come))
        elif KINDS[op.kind].product and end - begin < self.total:
            if op.name not in self.products:
                self.products[op.name] = ProductSteps(op, self.snn.scheme)
            first, second = (name in self.snn.plan.own for name in op.inputs)
            self._send(op, begin, self.products[op.name](*inputs, inplace=(first, second)))
        else:
            current = self.snn.current(op, *(x.flatten(0, 1) for x in inputs), steps=come)
            self._send(op, begin, current.unflatten(0, (end - begin, -1)))
        if end == self.total + wait:
            self._end(op)
        return True

    def _fire(self, op: Op, inputs: list[Tensor], begin: int, end: int, come: slice) -> Tensor:
        """Return a layer's spikes in the steps that are due. If these are all its steps, the layer runs as a whole."""
        last = end == self.total + self.snn.timing.waits[op.name]
        if last and not begin:
            fired = self.snn.fire(op, [x.flatten(0, 1) for x in inputs], final=self.final)
        else:
            if op.name not in self.layers:
                neuron = self.snn.neurons[op.name]
                assert isinstance(neuron, SteppingNeuron)
                self.layers[op.name] = neuron.begin(self.snn.tensors(op), gains=op.gains)
            layer = self.layers[op.name]
            idle, over = end - begin - (come.stop - come.start), op.inputs[0] in self.snn.course.plan.own
            if (inflow := self.snn.inflow(op, inputs[1:], steps=come)) is not None:
                assert isinstance(layer, FedSteps)
                spikes = layer.fed(inputs[0], inflow, idle=idle, inplace=over)
            else:
                spikes = layer(inputs, idle=idle, inplace=over)
            spikes = spikes.to(self.snn.dtype)
            fired = Tracked(spikes, *(layer.ended() if last and self.final else ()))
        if self.watch and len(fired.spikes):
            seen = (
                fired.spikes[:, : self.samples],
                *(x[: self.samples] for x in (fired.residual, fired.target) if x is not None),
            )
            self.watch(self.snn.graph[op.name], Tracked(*seen))
        return fired.spikes

    def _end(self, op: Op) -> None:
        """Free the state of an operation after its last step."""
        self.ended.add(op.name)
        self.layers.pop(op.name, None)
        self.products.pop(op.name, None)
        if op.kind == "input":
            self.train = self.train[:0].clone()

    def _forget(self, name: str) -> None:
        """Free the steps of a result that all its readers have read; all steps, once the readers have ended."""
        readers = self.readers[name]
        if self.ended.issuperset(readers):
            self.waiting.pop(name, None)
            return
        begin, result = self.waiting[name]
        read = min(self.total, *(self.done[reader] for reader in readers))
        if read > begin:
            rest = result[read - begin :]
            self.waiting[name] = (read, rest.clone() if 2 * len(rest) <= len(result) else rest)

    def _take(self, name: str, steps: slice) -> Tensor:
        begin, result = self.waiting[name]
        return result[steps.start - begin : steps.stop - begin]

    def _send(self, op: Op, begin: int, result: Tensor) -> None:
        if op.name in self.snn.readouts:
            self.said[op.name].add(result)
        before = self.waiting.get(op.name)
        if before and len(before[1]):
            self.waiting[op.name] = (before[0], torch.cat([before[1], result]))
        else:
            self.waiting[op.name] = (begin, result)

    def come(self, name: str, step: int) -> float:
        """Return the share of a constant that has arrived. A value that is read early is divided by it."""
        steps = self.simulated(name, step)
        pairs = zip(self.snn.scheme.weights[:steps], self.snn.scheme.entry, strict=False)
        return sum(weight * share for weight, share in pairs) if steps < self.total else 1.0

    def keep(self, samples: Tensor) -> None:
        """Continue with these samples only, given by their indices. If they are few, copies fill up the batch."""
        count = len(samples)
        if count < self.rows:
            samples = torch.cat([samples, samples[torch.arange(self.rows - count, device=samples.device) % count]])
        self.samples = count
        self._rebatch(lambda x, axis: kept(x, samples, axis=axis))

    def join(self, others: Sequence[Pipeline]) -> None:
        """Append the samples of other pipelines, which must have reached the same step."""
        states = []
        for pipeline in (self, *others):
            pipeline.rows = 1  # no copies
            if pipeline.samples < pipeline.train.shape[1]:
                pipeline.keep(torch.arange(pipeline.samples, device=self.snn.device))
            states.append(pipeline._states())
        places = iter(zip(*states[1:], strict=True))
        self._rebatch(lambda x, axis: joined([x, *next(places)], axis=axis) if others else x)
        self.samples, self.rows = sum(pipeline.samples for pipeline in (self, *others)), ROWS
        if self.samples < ROWS:
            self.keep(torch.arange(self.samples, device=self.snn.device))

    def _states(self) -> list[Tensor]:
        found: list[Tensor] = []

        def see(x: Tensor, axis: int) -> Tensor:
            found.append(x)
            return x

        self._rebatch(see)
        return found

    def _rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        self.train = change(self.train, 1)
        for said in self.said.values():
            said.rebatch(change)
        self.waiting = {name: (at, change(x, 1)) for name, (at, x) in self.waiting.items()}
        for layer in self.layers.values():
            layer.rebatch(change)
        for product in self.products.values():
            product.rebatch(change)


class Decoded:
    """Decodes a train like `transpike.coding.scheme.decode`, some steps at a time.

    The values are exactly the same if the weights have a constant ratio. Otherwise they differ by rounding.

    Args:
        scheme: the coding scheme of the train.
        every: whether `value` is available for every step of the last rows. By default, only for the last step.

    Example:
        >>> from transpike.coding import CSS
        >>> said = Decoded(CSS(steps=3))
        >>> said.add(torch.tensor([[1.0]])), said.value().item()
        (None, 4.0)
        >>> said.add(torch.tensor([[0.0], [-1.0]])), said.value().item()
        (None, 3.0)
    """

    def __init__(self, scheme: Scheme, *, every: bool = False) -> None:
        self.weights, self.ratio, self.every = scheme.weights, ratio(scheme), every
        self.sums, self.step = [torch.zeros(())], 0  # of the last step; with `every` also of earlier steps

    def add(self, rows: Tensor) -> None:
        """Add the next steps [steps, N, \\*] of the train."""
        weights = self.weights[self.step : self.step + len(rows)]
        del self.sums[:-1]
        for row, weight in zip(rows.to(torch.promote_types(rows.dtype, torch.float32)), weights, strict=True):
            part = row.clone() if self.ratio else row * weight
            total = self.sums[-1] * (self.ratio or 1.0) + part if self.step else part
            self.sums = [*self.sums, total] if self.every else [total]
            self.step += 1

    def value(self, step: int | None = None) -> Tensor:
        """Return the value [N, \\*] decoded up to ``step``, by default the last one, in units of theta."""
        step = self.step if step is None else step
        total = self.sums[step - self.step - 1]
        if not self.ratio:
            return total
        left, last = len(self.weights) - step, self.weights[-1]
        value = total * self.ratio**left if left else total
        return value if last == 1 else value * last

    def rebatch(self, change: Change) -> None:
        """Replace the state by the result of ``change`` for it and its axis of samples."""
        self.sums = [change(total, 0) for total in self.sums[-1:]] if self.step else self.sums
