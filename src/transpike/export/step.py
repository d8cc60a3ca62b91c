"""One step of a whole network as a stateless module: image, controls and states in; outputs and next states out.

Some numbers differ from step to step: when a layer starts anew, waits or fires, and the scale of a bound. They enter as
a short vector. The same vectors return every `interval` steps. So a table of `interval` rows is the network's clock,
and images may follow each other at this interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from transpike.coding.function import Argument, Call, Function, Result
from transpike.coding.scheme import Scheme, constant_entry, ratio
from transpike.coding.tracking import TrackingNeuron
from transpike.conversion import SpikingNetwork
from transpike.conversion.anytime import left
from transpike.conversion.integers import reaches
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op
from transpike.errors import ModelError

__all__ = ["Step"]

Control = Callable[[Tensor], "Tensor | float"]
"""A function from the controls of a step to one of them."""


class Step(nn.Module):
    """One step of a spiking network. In every tensor but the controls, the first axis counts samples.

    A call with images [N, \\*], a row of `schedule` and a list of states returns the outputs, as the network decodes
    them, and the next states. The states begin as zeros. The image is read only in a step in which a new one enters.

    Attributes:
        states: the shape of one sample of each state, by name.
        schedule: a row of controls for each of `interval` steps. Step t uses row t modulo `interval`.
        interval: steps between two images.
        latency: the outputs of an image are complete with step latency - 1 from its arrival.
        stop: the rule for when an answer is sure, as in schedule.json. None if the network has no rule.

    Raises:
        ModelError: A layer's neurons are not tracking neurons.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        super().__init__()
        self.interval, self.latency = snn.interval, snn.latency
        self.graph, self.scheme = snn.graph, snn.scheme
        self.states: dict[str, tuple[int, ...]] = {}
        self._units, self._timing, self._neurons = snn.units, snn.timing, snn.neurons
        self._columns: list[tuple[float, ...]] = []
        self._tensors: dict[str, dict[str, str]] = {}
        for op in snn.graph:
            self._tensors[op.name] = {}
            for key, tensor in snn.tensors(op).items():
                self._tensors[op.name][key] = name = f"{op.name}.{key}".replace(".", "/")
                self.register_buffer(name, tensor.contiguous())
        self._check_sums()
        for name, neuron in snn.neurons.items():
            if not isinstance(neuron, TrackingNeuron):
                kind = f"the neurons of {type(snn.scheme).__name__} have no step to export"
                raise ModelError(f"{name}: {kind}; convert with css, burst, fs, multithreshold or the default rate")
        self._runs = [(op, self._run(op)) for op in self.graph if op.name in self.graph.spiking]
        self.stop = _stop(snn)
        last = max(snn.timing.first_spike[name] for name in snn.readouts)
        self._readouts = {name: self._readout(self.graph[name], last) for name in snn.readouts}
        self._names = list(self.states)

    def _check_sums(self) -> None:
        """Check that the sums of an integer network's convolutions fit in 24 bits, which float32 holds exactly."""
        if "exponent" not in self.graph.input.args:
            return
        bare = (replace(op, tensors={k: t for k, t in op.tensors.items() if k != "bias"}) for op in self.graph)
        for name, reach in reaches(replace(self.graph, ops=tuple(bare)), self.scheme).items():
            largest = float((reach.bound * torch.exp2(reach.exponent.double())).max())
            if self.graph[name].kind == "convolution" and largest > 2**24:
                raise ModelError(f"{name}: its sums may need {math.log2(largest):.0f} bits, and float32 holds 24")

    @property
    def schedule(self) -> list[list[float]]:
        return [[column[row] for column in self._columns] for row in range(self.interval)]

    def forward(self, image: Tensor, control: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        before = dict(zip(self._names, state, strict=True))
        after: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for op, run in self._runs:
            values[op.name] = run([values[name] for name in op.inputs] or [image], control, before, after)
        decoded = {
            name: run([values[name]], control, before, after) * self._units[name]
            for name, run in self._readouts.items()
        }
        for op in self.graph:
            if op.name not in self.graph.spiking:
                inputs = [decoded[name] for name in op.inputs]
                tensors = {key: t.float() if t.is_floating_point() else t for key, t in self._own(op).items()}
                called = replace(op, function=exact(op.function))
                decoded[op.name] = apply(called, tensors, *inputs)
        return [decoded[name] for name in self.graph.outputs], [after[name] for name in self._names]

    # -- controls ------------------------------------------------------------------------------------------------------

    def _control(self, start: int, values: Sequence[float]) -> Control:
        """Return a number that depends on the step of a clock that starts at ``start``. A constant needs no control."""
        full = [*values, *[0.0] * (self.interval - len(values))]
        column = tuple(full[(row - start) % self.interval] for row in range(self.interval))
        if len(set(column)) == 1:
            return lambda control: column[0]
        if column not in self._columns:
            self._columns.append(column)
        index = self._columns.index(column)
        return lambda control: control[index]

    def _state(self, name: str, shape: Sequence[int]) -> str:
        self.states[name] = tuple(shape)
        return name

    def _own(self, op: Op) -> dict[str, Tensor]:
        return {key: self.get_buffer(name) for key, name in self._tensors[op.name].items()}

    # -- operations ----------------------------------------------------------------------------------------------------

    def _run(self, op: Op) -> Callable[..., Tensor]:
        start = self._timing.first_spike[op.name] - self._timing.waits.get(op.name, 0)
        run = (
            self._encoder(op)
            if op.kind == "input"
            else self._layer(op, start)
            if op.fires
            else self._product(op, start)
            if KINDS[op.kind].product
            else self._linear(op, start)
        )
        delays = [self._timing.delays[name, op.name] for name in op.inputs]
        lines = [self._delay(name, op.name, steps) for name, steps in zip(op.inputs, delays, strict=True)]

        def delayed(
            inputs: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]
        ) -> Tensor:
            if lines:
                inputs = [line(x, before, after) for line, x in zip(lines, inputs, strict=True)]
            return run(inputs, control, before, after)

        return delayed

    def _delay(self, source: str, to: str, steps: int) -> Callable[..., Tensor]:
        """Return a line of ``steps`` places, in which each input leaves after so many steps."""
        if not steps:
            return lambda x, before, after: x
        name = self._state(f"{source} to {to}", (steps, *self.graph[source].shape))

        def line(x: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            after[name] = torch.cat([x.unsqueeze(1), before[name][:, :-1]], 1)
            return before[name][:, -1]

        return line

    def _encoder(self, op: Op) -> Callable[..., Tensor]:
        steps, unit = len(self.scheme.weights), self._units[op.name]
        name = self._state(f"{op.name}.membrane", op.shape)
        load, keep = self._control(0, [1.0]), self._control(0, [0.0] + [1.0] * (self.interval - 1))
        share = self._control(0, [*self.scheme.entry, 0.0])
        fire = self._control(0, [1.0] * steps)
        levels = tuple(digit for digit in self.scheme.encoded or () if digit > 0)
        beta = ratio(self.scheme) or 1.0

        def run(x: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            scaled = apply(op, self._own(op), x[0]) / unit
            if not levels:
                after[name] = scaled * load(control) + before[name] * keep(control)
                return after[name] * share(control)
            state = scaled * beta**-steps * load(control) + before[name] * keep(control)
            state = state * beta
            digit = _digit(state, levels, scale=1.0, start=0.5, signed=True)
            after[name] = state - digit
            return digit * fire(control)

        return run

    def _linear(self, op: Op, start: int) -> Callable[..., Tensor]:
        constant, share = KINDS[op.kind].constant, self._control(start, self.scheme.entry)
        ramped = constant in op.tensors and constant_entry(self.scheme) is None

        def run(x: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            tensors = self._own(op)
            if not ramped:
                return self._exactly(op, tensors, x) if op.kind == "convolution" else apply(op, tensors, *x)
            shift = tensors.pop(str(constant)) * share(control)
            trailing = (1,) * (op.tensors["weight"].ndim - 2) if op.kind == "convolution" else ()
            return apply(op, tensors, *x) + shift.view(*shift.shape, *trailing)

        return run

    def _exactly(self, op: Op, tensors: dict[str, Tensor], x: list[Tensor]) -> Tensor:
        """Run a convolution. Runtimes have none in float64; float32 holds the sums of whole numbers exactly."""
        if tensors["weight"].dtype != torch.float64 or "exponent" not in op.args:
            return apply(op, tensors, *x)
        bias = tensors.pop("bias", None)
        z = apply(op, {"weight": tensors["weight"].float()}, *(one.float() for one in x)).double()
        return z if bias is None else z + bias.view(-1, *[1] * (op.tensors["weight"].ndim - 2))

    def _product(self, op: Op, start: int) -> Callable[..., Tensor]:
        weights = self.scheme.weights
        worth = self._control(start, weights)
        keep = self._control(start, [0.0] + [1.0] * (self.interval - 1))
        share = self._control(start, [1 / weight if weight else 0.0 for weight in weights])
        states = [self._state(f"{op.name}.{k}", self.graph[name].shape) for k, name in enumerate(op.inputs)]
        last = self._state(f"{op.name}.product", op.shape)
        gains = op.gains or (1.0, 1.0)

        def run(x: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            for name, z, gain in zip(states, x, gains, strict=True):
                after[name] = before[name] * keep(control) + z * gain * worth(control)
            after[last] = apply(replace(op, gains=()), {}, *(after[name] for name in states))
            return (after[last] - before[last] * keep(control)) * share(control)

        return run

    def _layer(self, op: Op, start: int) -> Callable[..., Tensor]:
        neuron = self._neurons[op.name]
        assert isinstance(neuron, TrackingNeuron)
        code, function, unit = neuron.code, exact(neuron.function), neuron.amplitude * neuron.last
        steps, tracked = code.steps, neuron.function.tracked
        total = steps + code.silent
        worth = [code.beta ** (t - steps + 1) for t in range(total)]
        listen = self._control(start, [1.0] * steps)
        fire = self._control(start, [0.0] * code.silent + [1.0] * steps)
        held_on = [0.0] + [code.beta] * (steps - 1) + [code.beta if tracked else 1.0] * code.silent
        keep, kept = self._control(start, held_on), self._control(start, [0.0] + [code.beta] * (total - 1))
        real = self._control(start, [unit / w for w in worth[:steps]] + [unit] * code.silent)
        scaled = self._control(start, [w / unit for w in worth])
        tail, head = neuron.function.tail, neuron.function.head
        bounds = [b if math.isfinite(b) else None for b in (tail.low, tail.high)] if tracked else [None, None]
        low, high = (b if b is None else self._control(start, [b / unit * w for w in worth]) for b in bounds)
        states = [self._state(f"{op.name}.held.{k}", self.graph[name].shape) for k, name in enumerate(op.inputs)]
        sent = self._state(f"{op.name}.sent", op.shape)
        scale, start_at = code.beta**code.silent, code.start if code.start is not None else 0.5 * code.signed
        gains = op.gains or (1.0,) * len(op.inputs)

        def run(x: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            for name, z, gain in zip(states, x, gains, strict=True):
                z = z if gain == 1 else z * gain
                after[name] = before[name] * keep(control) + z * listen(control)
            own, sums = self._own(op), [after[name] for name in states]
            if tracked:
                value = head(*sums, constants=own)
                value = _sloped(value, tail.slope)
                value = value if low is None else torch.maximum(value, torch.as_tensor(low(control), dtype=value.dtype))
                value = (
                    value if high is None else torch.minimum(value, torch.as_tensor(high(control), dtype=value.dtype))
                )
            else:
                value = function(*(h * real(control) for h in sums), constants=own) * scaled(control)
                value = torch.where(value == value, value, 0.0)
            past = before[sent] * kept(control)
            digit = _digit(value - past, code.levels, scale=scale, start=start_at, signed=code.signed) * fire(control)
            after[sent] = past + digit * scale
            return digit

        return run

    def _readout(self, op: Op, last: int) -> Callable[..., Tensor]:
        """Return an accumulator of a decoded result. All readouts count from the step of the slowest.

        Before the last step it returns the sum so far, divided by the share of a constant that has arrived.
        """
        start, weights, beta = self._timing.first_spike[op.name], self.scheme.weights, ratio(self.scheme)
        line = self._delay(op.name, "output", last - start)
        name, steps = self._state(f"{op.name}.decoded", op.shape), len(weights)
        after_all = [1.0] * (self.interval - steps)
        keep = self._control(last, [0.0] + [1.0 if beta is None else beta] * (steps - 1) + after_all)
        worth = self._control(last, [1.0] * steps if beta is not None else weights)
        so_far = self._control(last, [*_so_far(self.scheme), *after_all])

        def run(x: list[Tensor], control: Tensor, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> Tensor:
            after[name] = before[name] * keep(control) + line(x[0], before, after) * worth(control)
            value = after[name] * weights[-1] if beta is not None and weights[-1] != 1 else after[name]
            return value * so_far(control)

        return run


def _so_far(scheme: Scheme) -> list[float]:
    """Return the factor of an accumulated value after each step: for the steps to come, and the share so far."""
    beta, weights = ratio(scheme), scheme.weights
    if beta is None:
        return [1.0] * len(weights)
    come = [sum(w * share for w, share in zip(weights[:k], scheme.entry, strict=False)) for k in range(1, len(weights))]
    return [*(beta ** (len(weights) - 1 - k) / share for k, share in enumerate(come)), 1.0]


def _stop(snn: SpikingNetwork) -> dict[str, Any] | None:
    """Return the stop rule and, for each output step, its time and the share of a train's weight still to come."""
    if snn.stop is None:
        return None
    begins = {snn.timing.first_spike[name] for name in snn.readouts}
    if len(begins) > 1:
        raise ModelError(
            f"stop: the outputs of this network begin at different steps ({sorted(begins)}), so that one step's "
            "outputs are not those of snn.until. Remove the rule: snn.stop = None."
        )
    first = begins.pop()
    return snn.stop.written() | {"ticks": [first + step for step in range(snn.steps)], "left": list(left(snn))}


def _sloped(x: Tensor, slope: float) -> Tensor:
    return x if slope == 1 else x.relu() if slope == 0 else torch.where(x > 0, x, x * slope)


def _digit(value: Tensor, levels: Sequence[int], *, scale: float, start: float, signed: bool) -> Tensor:
    """Return the largest level whose threshold the magnitude reaches, with the value's sign."""
    size = value.abs() if signed else value.relu()
    if len(levels) > 8 and levels[-1] == len(levels):
        digit = (size * (1 / scale) + start).clamp_max(levels[-1]).floor()
    else:
        digit, below = torch.zeros_like(value), 0
        for level in levels:
            digit = digit + (size >= (level - start * (level - below)) * scale).to(value.dtype) * (level - below)
            below = level
    return torch.where(value > 0, digit, 0 - digit) if signed else digit


def exact(function: Function) -> Function:
    """Return the same function with single operations in place of those that runtimes fuse and round differently.

    Example:
        >>> from transpike.coding.function import Operand
        >>> exact(Function.of("hardsigmoid.default", Operand(0))).name
        'add + clamp + div'
    """
    calls: list[Call] = []
    moved: dict[int, int] = {}
    for k, call in enumerate(function.calls):
        placed = _renumbered(call, moved)
        if call.operator in ("hardsigmoid.default", "hardswish.default"):
            x, n = placed.args[0], len(calls)
            calls += [Call("add.Scalar", (x, 3.0)), Call("clamp.default", (Result(n), 0.0, 6.0))]
            if call.operator == "hardswish.default":
                calls.append(Call("mul.Tensor", (x, Result(n + 1))))
            calls.append(Call("div.Scalar", (Result(len(calls) - 1), 6.0)))
        else:
            calls.append(placed)
        moved[k] = len(calls) - 1
    return Function(tuple(calls), function.operands)


def _renumbered(call: Call, moved: Mapping[int, int]) -> Call:
    def place(argument: Argument) -> Argument:
        if isinstance(argument, Result):
            return Result(moved[argument.call])
        return tuple(place(item) for item in argument) if isinstance(argument, tuple) else argument

    return Call(call.operator, tuple(map(place, call.args)), tuple((k, place(a)) for k, a in call.kwargs))
