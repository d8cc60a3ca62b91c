"""The converted network: it runs spikes through the graph and describes its layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from transpike.checks import whole
from transpike.coding.neuron import FedNeuron, Neuron, gained
from transpike.coding.scheme import Scheme, constant_entry
from transpike.conversion import anytime
from transpike.conversion.anytime import Answer
from transpike.conversion.calibrate import check_images
from transpike.conversion.captured import Captures, captured
from transpike.conversion.course import Course, course, plan
from transpike.conversion.describe import Description, Measured, describe
from transpike.conversion.diagnose import Diagnosis, diagnose
from transpike.conversion.fired import Trace, Watch, joined
from transpike.conversion.graph import Graph
from transpike.conversion.integers import quantised
from transpike.conversion.kinds import KINDS, RELATIVE, apply
from transpike.conversion.op import Op
from transpike.conversion.products import multiplied
from transpike.conversion.ranges import warn_beyond
from transpike.conversion.room import in_chunks, side_by_side
from transpike.conversion.running import chunk, decoded, least, run
from transpike.conversion.save import save
from transpike.conversion.sensitivity import flat_outputs
from transpike.conversion.sizes import at
from transpike.conversion.stopping import Changed, Score, StopRule, least_images
from transpike.conversion.stream import Moment, moments
from transpike.conversion.synapses import Products
from transpike.conversion.timing import Timing
from transpike.conversion.values import activations
from transpike.conversion.walk import finished, walk
from transpike.errors import ConfigError, ConversionError
from transpike.neurons.inflow import Inflow
from transpike.neurons.tsa import Tracked
from transpike.results import Try

__all__ = ["SpikingNetwork"]

T = TypeVar("T")
_SIZES = 64  # sizes of images whose graphs are cached
_SEEN = 64  # images of a call whose range is checked


class SpikingNetwork(nn.Module):
    """A spiking network, made by `transpike.convert`.

    A call on images [N, \\*] encodes them, sends spikes through the layers for T steps and returns the decoded outputs:
    logits in the form and units of the ANN. The network keeps no state between calls. The samples of a batch do not
    influence each other, with one exception by rounding. With fewer than 16 rows (steps times samples) PyTorch adds in
    another order. This happens in a batch of one image at T = 8, but not in a larger batch, whose chunks are never that
    small. Such rounding may flip a spike and change the outputs: on most networks not at all, on a ResNet-50 with
    random weights by up to a tenth of their norm.

    Attributes:
        scheme: the coding scheme.
        units: the real value of one unit of every operation's result. For neurons this is their amplitude theta.
        clipped: the share of calibration activations that exceed the largest value that each neuron can represent.
        residuals: the root mean square of the difference between each layer's target and its trains, on a few
            calibration images, in units of theta. It is about 0.3 if a layer follows its input.
        search: the results of the search for the scheme. Empty if the scheme was given.
        chunk: the number of samples simulated at a time, which bounds memory. With None the network chooses it, see
            `default_chunk`. If a GPU's memory does not suffice, the network tries half as many, once in a call, and
            logs a note.
        capture: whether a GPU runs chunks of equal shape as one CUDA graph from the second chunk on. The graph holds
            its memory. With None, chunks that take at most 256 MiB run so.
        stop: the rule of `calibrate_stop` for when an answer is sure enough. None before.
        timing: the waits of the layers, the steps of their first spikes, the latency and the delays.
        neurons: the neurons of every layer that fires, by name.
        readouts: the operations whose results are decoded.

    Raises:
        ConversionError: The scheme has no neuron for a function of the graph.
    """

    def __init__(
        self,
        graph: Graph,
        scheme: Scheme,
        units: Mapping[str, float],
        *,
        waits: Mapping[str, int] | None = None,
        clipped: Mapping[str, float] | None = None,
        residuals: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.scheme = scheme
        self.units = dict(units)
        waits = {op.name: scheme.wait or 0 for op in graph.neurons} if waits is None else dict(waits)
        self.clipped = dict(clipped or {})
        self.residuals = dict(residuals or {})
        self.search: tuple[Try, ...] = ()
        self.chunk: int | None = None
        self.capture: bool | None = None
        self.captures = Captures()
        self._sizes: dict[tuple[int, ...], Graph] = {}
        self.stop: StopRule | None = None
        self._products = Products(graph, scheme)
        for op in graph:
            for key, tensor in op.tensors.items():
                layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
                # The layout does not depend on the model's, so that a network read from files computes the same bits.
                self.register_buffer(op.key(key), tensor.clone(memory_format=layout))
        self.neurons = {op.name: self._neuron(op, waits[op.name]) for op in graph.neurons}
        self.readouts, self.plan = graph.readouts, plan(graph)
        self._courses: dict[bool, Course] = {}
        self._warned: set[str] = set()  # shared with the networks of other sizes
        self.timing = Timing(graph, self.readouts, waits, steps=self.steps, wait=scheme.wait or 0)

    def _neuron(self, op: Op, wait: int) -> Neuron:
        neuron = self.scheme.neuron(op.function, amplitude=self.units[op.name], wait=wait)
        if isinstance(neuron, str):
            raise ConversionError(f"{op.name}: {neuron}")
        return neuron

    # -- running -------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Any:
        """Return the decoded outputs for images ``x`` [N, \\*]. No gradients flow through spikes.

        Raises:
            ConversionError: The network cannot take images of this shape, or they are integers or not finite.
        """
        return self.observe(x)

    @torch.no_grad()
    def observe(self, x: Tensor, watch: Watch | None = None, *, final: bool = False, trains: bool = True) -> Any:
        """Run the network like a call; ``watch(op, tracked)`` sees each layer's spikes, see `Watch`.

        With ``final``, each neuron's residual and target are computed too. Without ``trains``, ``watch`` may see
        decoded values in place of spikes, if the network computes with values.
        """
        snn = self._fitting(x)

        def answer(part: Tensor) -> dict[str, Tensor]:
            return finished(snn, run(snn, part, watch, final=final, trains=trains))

        places = tuple((each.data_ptr(), each.dtype, each.stride()) for each in snn._tensors())
        runs = answer if watch else captured(snn, answer, key=(final, trains, places))
        parts = snn._in_chunks(x, runs, again=watch is None)
        return self.graph.pack({name: torch.cat([part[name] for part in parts]) for name in self.graph.outputs})

    @torch.no_grad()
    def readings(self, x: Tensor, *, analog: bool = False) -> tuple[Any, dict[str, Tensor]]:
        """Return the outputs for images ``x`` [N, \\*] and, by operation, these and the decoded values before them.

        With ``analog``, they are those of the original network.
        """
        snn = self._fitting(x, analog=analog)

        def read(part: Tensor) -> dict[str, Tensor]:
            values = activations(snn, part) if analog else run(snn, part, None, final=False, trains=False)
            return values | finished(snn, values)

        found = [read(x)] if analog else snn._in_chunks(x, read)
        together = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        return self.graph.pack(together), together

    def stream(self, x: Tensor) -> Iterator[Moment]:
        """Yield, after each of the output's T steps, the outputs so far and how far they can still change.

        The last outputs equal those of a call bit for bit. For a single image they equal those that it has in a larger
        batch. Each step is simulated only when the loop reaches it: leave the loop to stop.

        Raises:
            ConversionError: As for a call, or the scheme does not stream.

        Example:
            >>> import transpike
            >>> x = torch.rand(64, 4)
            >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
            >>> snn = transpike.convert(ann, x)
            >>> [moment.step for moment in snn.stream(x)], torch.equal(list(snn.stream(x))[-1].outputs, snn(x))
            ([1, 2, 3, 4, 5, 6, 7, 8], True)
        """
        return moments(self._fitting(x), x)

    def calibrate_stop(
        self,
        images: Tensor,
        *,
        score: str | Score | None = None,
        error: float | None = None,
        changed: Changed | None = None,
        first: int = 2,
    ) -> StopRule:
        """Learn when an answer is sure enough, from images that the network was not trained on. Sets `stop`.

        Only the stop rule depends on these images. An agreement a needs at least 1 / (1 - a) - 1 images: 199 for 0.995,
        999 for 0.999.

        Args:
            images: images like those that the network will see, [N, \\*].
            score: how sure an answer is: ``"bound"``, ``"margin"``, ``"entropy"``, ``"steady"``, or a function of
                `transpike.conversion.stopping.Said`. The default is ``"bound"``, or ``"steady"`` with an ``error``.
            error: an answer counts as changed if an output differs by more than this. By default an answer counts as
                changed if the prediction differs.
            changed: instead of ``error``, a function of answers [N, \\*] and the answers of the full run. It returns a
                loss [N] from 0 to 1.
            first: the first step at which a sample may stop.

        Raises:
            ConfigError: The score is unknown, or both ``error`` and ``changed`` are set.
            ConversionError: As for `stream`.
        """
        self.stop = anytime.rule(self._fitting(images), images, score=score, error=error, changed=changed, first=first)
        return self.stop

    def until(self, x: Tensor, *, agreement: float = 0.999, stop: StopRule | None = None) -> Answer:
        """Answer images ``x``, each as soon as its answer is sure. Finished samples are not simulated further.

        The expected share of answers that differ from those of the full run is at most 1 - ``agreement``. This holds
        for images from the same source as those of `calibrate_stop`. docs/anytime.md explains what it means.

        Args:
            x: images [N, \\*].
            agreement: the share of answers that must equal those of the full run.
            stop: the stop rule. The default is the rule of `calibrate_stop`.

        Raises:
            ConfigError: There is no rule, or it comes from too few images for this agreement.
            ConversionError: As for `stream`.

        Example:
            >>> import transpike
            >>> x = torch.rand(64, 4)
            >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
            >>> snn = transpike.convert(ann, x)
            >>> _ = snn.calibrate_stop(torch.rand(64, 4))
            >>> answer = snn.until(x, agreement=0.95)
            >>> answer.outputs.shape, answer.steps.shape, bool((answer.latency <= snn.latency).all())
            (torch.Size([64, 3]), torch.Size([64]), True)
        """
        snn = self._fitting(x)
        if stop is None and self.stop is None:
            raise ConfigError(
                f"until needs a stop rule: snn.calibrate_stop(images), on {least_images(agreement)} images or "
                "more that the network was not trained on."
            )
        return anytime.until(snn, x, stop or self.stop, agreement=agreement)  # type: ignore[arg-type]

    def chunks(self, x: Tensor, size: int | None = None) -> tuple[Tensor, ...]:
        """Split the samples ``x`` into chunks of similar sizes, at most `chunk` long.

        By default a chunk has at least 16 rows. ``size`` replaces `chunk`.
        """
        size = size or self.chunk
        count = math.ceil(len(x) / (size or self.default_chunk))
        if size is None:
            count = min(count, len(x) // least(self))
        return x.tensor_split(max(1, count))

    def _in_chunks(self, x: Tensor, run: Callable[[Tensor], T], *, again: bool = True) -> list[T]:
        """Return the result of ``run`` for each chunk.

        With ``again``, a chunk may run twice or beside others. If a GPU's memory does not suffice, half of the chunk is
        tried. On a CPU each of PyTorch's threads takes its own chunks, unless `chunk` bounds memory.
        """
        parts = self.chunks(x)
        if not again:
            return [run(part) for part in parts]
        if self.device.type == "cpu" and not self.chunk and not torch.is_autocast_enabled("cpu"):
            threads = torch.get_num_threads()
            # As many chunks for each thread. So a chunk may be up to half as long again.
            turns = max(math.ceil(len(parts) / threads - 0.5), 1)
            count = min(turns * threads, len(x) // least(self))
            if threads > 1 and count > 1:
                return side_by_side(x.tensor_split(count), run)
        return in_chunks(parts, self.chunks, run)

    def trace(self, x: Tensor) -> Trace:
        """Return spikes, residuals and targets of every layer for images ``x`` [N, \\*], by name, the input first.

        Example:
            >>> import transpike
            >>> x = torch.rand(64, 4)
            >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
            >>> snn = transpike.convert(ann, x)
            >>> [(name, layer.spikes.shape) for name, layer in snn.trace(x).items()]
            [('input', torch.Size([8, 64, 4])), ('1', torch.Size([8, 64, 8]))]
        """
        seen: dict[str, list[Tracked]] = {}

        def watch(op: Op, tracked: Tracked) -> None:
            parts = seen.setdefault(op.name, [])
            if parts and len(parts[-1].spikes) < self.steps:  # the next steps of the same samples
                tracked = replace(tracked, spikes=torch.cat([parts.pop().spikes, tracked.spikes]))
            parts.append(tracked)

        self.observe(x, watch, final=True)
        return Trace(self.graph, {name: joined(parts, self.amplitude(name)) for name, parts in seen.items()})

    def amplitude(self, name: str) -> Tensor:
        """Return theta of the input or of a layer: [], or one for each channel, which broadcasts against one sample."""
        op = self.graph[name]
        relative = self.tensors(op).get(RELATIVE)
        unit = torch.tensor(self.units[name], device=self.device)
        return unit if relative is None else relative.float() * unit

    @torch.no_grad()
    def analog(self, x: Tensor, observe: Callable[[Op, Tensor], None] | None = None) -> Any:
        """Run the original network with the same weights: real values in place of spikes.

        ``observe(op, value)`` sees every layer's activations [N, \\*] in units of its amplitude theta.
        """
        snn = self._fitting(x, analog=True)
        return self.graph.pack(finished(snn, activations(snn, x, observe)))

    def differentiable(self, x: Tensor, observe: Callable[[Op, Tensor], None]) -> Tensor:
        """Run `analog` up to the decoded values [N, values]. Gradients flow through them."""
        return flat_outputs(activations(self, x, observe))

    @torch.no_grad()
    def simulate(self, x: Tensor, fire: Callable[[Op, list[Tensor]], Tracked]) -> Tensor:
        """Return the decoded values [N, values] for all ``x``. ``fire`` computes a layer's spikes from its currents.

        The input's current is ``x`` in units of theta, without steps.
        """

        def spikes(op: Op, *inputs: Tensor) -> Tensor:
            if op.kind == "input":
                z = [self.scaled(op, *inputs)]
            else:
                z = [x.unflatten(0, (self.steps, -1)) for x in gained(inputs, op.gains)]
            return fire(op, z).spikes.flatten(0, 1)

        current = partial(self.current, digits=False)  # trains of half an amplitude are tried, too
        return flat_outputs(walk(self, x, spikes, current, lambda op, z: decoded(self, op, z)))

    def scaled(self, op: Op, x: Tensor) -> Tensor:
        """Return images in units of the input's theta."""
        x = apply(op, self.tensors(op), x.to(self.device, torch.float32)) / self.units[op.name]
        return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)

    def encode(self, x: Tensor) -> Tracked:
        """Return the input's train for ``x`` in units of its theta."""
        return Tracked(self.scheme.encode(x).to(self.dtype))

    def current(self, op: Op, *inputs: Tensor, steps: slice = slice(None), digits: bool = True) -> Tensor:
        """Run one operation on all steps, or on ``steps``. A constant enters in the scheme's share of each step.

        ``digits`` says that trains hold digits of the scheme, and no other values.
        """
        if KINDS[op.kind].product:
            first, second = (name in self.plan.own for name in op.inputs)
            return multiplied(op, *inputs, scheme=self.scheme, inplace=(first, second))
        tensors = self.tensors(op)
        constant = KINDS[op.kind].constant
        if constant not in tensors or constant_entry(self.scheme) is not None:
            return self._linear(op, tensors, *inputs, digits=digits)
        shift = tensors.pop(constant)
        shares = self.scheme.entry[steps]
        z: Tensor = self._linear(op, tensors, *inputs, digits=digits).unflatten(0, (len(shares), -1))
        entry = torch.tensor(shares, dtype=z.dtype, device=z.device)
        trailing = (1,) * (op.tensors["weight"].ndim - 2) if op.kind == "convolution" else ()
        ramp = entry.view(-1, *(1,) * (z.ndim - 1)) * shift.view(*shift.shape, *trailing)
        return (z + ramp).flatten(0, 1)

    def _linear(self, op: Op, tensors: Mapping[str, Tensor], *inputs: Tensor, digits: bool) -> Tensor:
        if digits and self._products.take(op, inputs[0]):
            return self._products(op, tensors, *inputs)
        return apply(op, tensors, *inputs)

    def fire(self, op: Op, inputs: Sequence[Tensor], *, final: bool) -> Tracked:
        """Return the spikes of a layer of neurons over all steps, from its currents [T*N, \\*]."""
        z = [x.unflatten(0, (self.steps, -1)) for x in inputs]
        neuron, inplace = self.neurons[op.name], op.inputs[0] in self.course.plan.own
        if (inflow := self.inflow(op, z[1:])) is None:
            return neuron(z, self.tensors(op), gains=op.gains, inplace=inplace, final=final)
        assert isinstance(neuron, FedNeuron)
        return neuron.fed(z[0], inflow, self.tensors(op), gains=op.gains, inplace=inplace, final=final)

    @property
    def course(self) -> Course:
        """The graph through which trains run, without the operations that the neurons' kernels compute."""
        bare = self._bare
        if bare not in self._courses:
            self._courses[bare] = course(self.graph, self.neurons, bare=bare)
        return self._courses[bare]

    @property
    def _bare(self) -> bool:
        """Whether a bias costs less in the neurons' kernel than in its own layer."""
        return constant_entry(self.scheme) is None or self.device.type == "cuda"

    def inflow(self, op: Op, others: Sequence[Tensor], *, steps: slice = slice(None)) -> Inflow | None:
        """Return the operation on a layer's current that its kernel does itself, on all steps or on ``steps``."""
        joint = self.course.joints.get(op.name)
        if joint is None:
            return None
        shares = self.scheme.entry[steps] if constant_entry(self.scheme) is None else ()
        return joint.inflow({part.name: self.tensors(part) for part in joint.ops}, others, shares)

    def tensors(self, op: Op) -> dict[str, Tensor]:
        """Return an operation's weights and constants as the network has them now: on its device, in its dtype."""
        held = {key: getattr(self, op.key(key)) for key in op.tensors}
        if op.kind == "gather":  # the index may be that of another size
            held["index"] = op.tensors["index"].to(self.device)
        return held

    def timed(self, waits: Mapping[str, int]) -> SpikingNetwork:
        """Return a network with other waits and the same weights, in memory of its own."""
        graph = self.current_graph()
        return SpikingNetwork(graph, self.scheme, self.units, waits=waits, clipped=self.clipped)

    def current_graph(self) -> Graph:
        """Return the graph with the network's tensors as they are now."""
        ops = (replace(op, tensors={k: t.detach() for k, t in self.tensors(op).items()}) for op in self.graph)
        return replace(self.graph, ops=tuple(ops))

    def _fitting(self, x: Tensor, *, analog: bool = False) -> SpikingNetwork:
        check_images(x, "the network's input")
        snn = self.at(x.shape[1:])
        if not analog and "range" not in self._warned:
            images, op = x[:_SEEN].to(self.device, torch.float32), snn.graph.input
            if warn_beyond(self.scheme, images, snn.scaled(op, images), theta=snn.amplitude(op.name)):
                self._warned.add("range")
        return snn

    def at(self, shape: Sequence[int]) -> SpikingNetwork:
        """Return the network for images of another shape [channels, \\*sizes], with the same weights.

        For its own shape this is the network itself. A call does this automatically. The costs and layers of `describe`
        and `chunks` are those of one shape.

        Raises:
            ConversionError: A part of the network depends on the size of the calibration images, such as a linear layer
                over a whole image.
        """
        shape = tuple(shape)
        if shape == self.graph.input.shape:
            return self
        if shape not in self._sizes:
            self._sizes[shape] = at(self.graph, shape)
            while len(self._sizes) > _SIZES:
                del self._sizes[next(iter(self._sizes))]
        other = copy.copy(self)  # shares all tensors
        other.graph = self._sizes[shape]
        other._sizes, other._courses = {}, {}
        return other

    @property
    def default_chunk(self) -> int:
        """Return how many samples are simulated at a time.

        On a CPU, the largest layer over all steps (or over one piece, if trains run in pieces) takes at most a quarter
        of the last-level cache. On a GPU, a chunk takes at most half of the free memory. A chunk has at least 16 rows
        (steps times samples), because with fewer rows PyTorch computes in another way, which is slower. The size of a
        layer is that of its result, or of all that its neurons accumulate. The size of a product includes both
        operands.
        """
        return chunk(self)

    @property
    def device(self) -> torch.device:
        return next(self._tensors()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(tensor.dtype for tensor in self._tensors() if tensor.is_floating_point())

    def _tensors(self) -> Iterator[Tensor]:
        return chain(self.parameters(), self.buffers())

    # -- what it is ----------------------------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> int:
        """T, the number of steps that encode one image."""
        return len(self.scheme.weights)

    @property
    def depth(self) -> int:
        """n: the number of firing layers on the longest path, plus one for the classifier, which accumulates."""
        return self.timing.depth

    @property
    def latency(self) -> int:
        """Steps from an image's arrival to its complete output: T + Ts * n for one wait Ts (the paper's T + n)."""
        return self.timing.latency

    @property
    def interval(self) -> int:
        """Steps between two images that enter one after the other: T plus the largest wait of any layer."""
        return self.timing.interval

    @property
    def delays(self) -> dict[tuple[str, str], int]:
        """The steps that each edge waits for the slowest input of its target. Skips around neurons need them."""
        return self.timing.delays

    def describe(self) -> Description:
        """Describe the layers: their functions, amplitudes, clipped shares, and the steps of their first spikes.

        ``print(snn.describe())`` shows a table; ``snn.describe().rows`` gives the data.
        """
        measured = Measured(self.units, self.clipped, self.residuals)
        return describe(self.graph, self.scheme, self.timing, measured)

    def diagnose(self, images: Tensor) -> Diagnosis:
        """Find the cause of the error on ``images`` [N, \\*] in each layer: resolution, clipping or coupling.

        ``print(snn.diagnose(images))`` shows a table and the setting that would help most. The attributes hold both as
        data. A few dozen images are enough. Each costs about a simulation and four backward passes.

        Raises:
            ConversionError: As for a call.
        """
        return diagnose(self._fitting(images), images)

    def quantise(self, bits: int = 8) -> SpikingNetwork:
        """Return the same network with weights and biases that are whole numbers times a power of two for each channel.

        Currents, states and thresholds are then whole numbers of a unit of their layer. With beta = 2 a neuron needs
        only shifts and additions. The network computes in double precision, which holds these numbers exactly, so that
        every runtime gives the same bits. Functions other than maxima and ReLU are evaluated on whole states in double
        precision. Functions made of additions, products, quotients and bounds (ReLU6, hard-swish, hard-sigmoid and
        their gates) give the same bits everywhere, too. An exponential depends on the runtime's library in its last
        bit. `transpike.export.footprint` lists the memory of each layer.

        Args:
            bits: bits of a weight, including the sign.

        Raises:
            ConfigError: ``bits`` is not from 2 to 16.
            ConversionError: beta is not a whole number, or an operation cannot be written in whole numbers (a product
                of two trains, an average over windows whose size is not a power of two). The message names it.
        """
        whole("bits", bits, least=2, most=16)
        graph = quantised(self.current_graph(), self.scheme, self.timing.waits, bits=bits)
        waits, clipped, residuals = self.timing.waits, self.clipped, self.residuals
        return SpikingNetwork(graph, self.scheme, self.units, waits=waits, clipped=clipped, residuals=residuals)

    def save(self, folder: str | Path) -> None:
        """Write the network to ``folder``: network.json and weights.safetensors. `transpike.load` reads it back.

        The files include the rule of `calibrate_stop`.

        Raises:
            ModelError: The folder cannot be written, or the score of the stop rule is your own function.
        """
        measured = Measured(self.units, self.clipped, self.residuals)
        save(folder, self.current_graph(), self.scheme, self.timing, self.neurons, measured, self.stop)

    def extra_repr(self) -> str:
        return f"{self.scheme}, {len(self.graph.neurons)} neuron layers, latency {self.latency}"
