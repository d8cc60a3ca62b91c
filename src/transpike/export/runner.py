"""The reference runner: runs a saved network on one clock, event by event, with NumPy and SciPy only.

Every operation runs as its inputs arrive, with the delays of the saved network. A neuron keeps its state from step to
step. It first listens for the steps of its wait, then fires. The next image enters before the last one has left
(Appendix A.4 of the paper of CSS).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transpike import files
from transpike.checks import whole
from transpike.errors import ConversionError, ModelError, TranspikeError
from transpike.export import linear
from transpike.export.answers import Answers
from transpike.export.bundle import DAMAGED, Array, Bundle, Node, read
from transpike.export.neurons import Encoder, Neurons

__all__ = ["CLOSE", "Run", "run"]

CLOSE = 1e-5
"""The distance from a threshold, in units of theta, below which another simulator's rounding may change a decision.

For values above 20 theta the distance is larger: `transpike.export.neurons.ROUNDING` times the value."""

_AGAIN = "the delays in network.json are damaged. Save the network again."

SPIKES = files.zip_kind("spikes of a network (.npz)", "step.npy", "layer.npy", "neuron.npy", "digit.npy", "layers.npy")


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The results of the runner.

    Attributes:
        outputs: the decoded outputs [N, \\*] of all images, in the form of the network's own outputs.
        steps: the number of output steps of each image, [N]: T, or fewer if the image stopped early.
        latency: the measured number of steps from an image's arrival to its complete output. An image that stopped
            early had its output T - steps earlier.
        interval: the number of steps between two images. It equals the measured number of steps between two complete
            outputs.
        events: the number of spikes of each layer, by name; the input comes first. If the input is an analog current,
            its values count.
        synaptic_updates: the number of additions of a weight to a current.
        neuron_updates: the number of updates of neurons' state values.
        queued: the largest number of events that waited in delays at the same time.
        close: for each image, how many decisions were closer to a threshold than `CLOSE`, or than the rounding of large
            values in float32, [N].
        nearest: for each image, the distance of the closest decision from its threshold, in units of theta, [N].
        spikes: a table with the columns step, layer, neuron and digit. None unless recorded.
        layers: the names of the layers. The column layer of the table has their index.
    """

    outputs: Any
    steps: Array
    latency: int
    interval: int
    events: Mapping[str, int]
    synaptic_updates: int
    neuron_updates: int
    queued: int
    close: Array
    nearest: Array
    spikes: Array | None
    layers: tuple[str, ...]

    def save_spikes(self, path: Path | str) -> Path:
        """Write the recorded spikes to an .npz file with four columns and the layers' names, and return its path.

        Raises:
            ModelError: No spikes were recorded, or the file cannot be written.
        """
        if self.spikes is None:
            raise ModelError(f"{path}: no spikes were recorded. Run the network with record=True.")
        return files.write(path, self.write_spikes, kind=SPIKES, error=ModelError)

    def write_spikes(self, place: Path) -> None:
        """Write the spikes, without a check for an existing file."""
        assert self.spikes is not None
        columns = {name: self.spikes[name] for name in self.spikes.dtype.names or ()}
        with place.open("wb") as file:
            np.savez_compressed(file, layers=np.array(self.layers), **columns)

    def __repr__(self) -> str:
        """Show figures in place of values."""
        return (
            f"Run(images={len(self.close)}, steps={self.steps.mean():.3g}, latency={self.latency}, "
            f"interval={self.interval}, "
            f"events={sum(self.events.values())}, queued={self.queued}, close={int(self.close.sum())})"
        )


def run(
    folder: Path | str,
    images: Any,
    *,
    interval: int | None = None,
    record: bool = False,
    agreement: float | None = None,
) -> Run:
    """Run a saved network on ``images``, one after the other through the same neurons, on one clock.

    Args:
        folder: a folder that `SpikingNetwork.save` wrote.
        images: the images [N, \\*], an array or a tensor on the CPU. One enters every ``interval`` steps.
        interval: the number of steps between two images. The default, the network's own interval, is the smallest.
        record: whether to store every spike.
        agreement: with it, each image stops as with `SpikingNetwork.until`, by the rule that was saved with the
            network. For an image that has stopped, nothing is computed any more.

    Raises:
        ModelError: The folder does not hold a complete network, or the network has an operator that the runner lacks.
        ConversionError: The images do not have the network's shape, are integers, or are not finite.
        ConfigError: The interval is too short, or there is an agreement but no rule, or the rule comes from too few
            images.

    Example:
        >>> import tempfile, torch, transpike
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> snn = transpike.convert(ann, torch.rand(64, 4), scheme=transpike.CSS(steps=8, silent=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     snn.save(folder)
        ...     found = run(folder, torch.rand(5, 4))
        >>> found.outputs.shape, found.latency == snn.latency, found.interval == snn.interval
        ((5, 3), True, True)
    """
    bundle = read(folder)
    x = _checked(bundle, images)
    interval = bundle.interval if interval is None else whole("interval", interval, least=bundle.interval)
    try:
        return _Clock(bundle, len(x), interval, record=record, agreement=agreement).run(x)
    except TranspikeError:
        raise
    except DAMAGED as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise ModelError(f"{folder}/network.json: damaged ({reason}). Save the network again.") from error


def _checked(bundle: Bundle, images: Any) -> Array:
    x = np.asarray(images)
    if x.ndim == 0 or x.shape[1:] != bundle.input.shape or x.dtype.kind != "f" or not len(x):
        shape = ", ".join(map(str, bundle.input.shape))
        raise ConversionError(f"the network expects floating-point images [N, {shape}], not {x.dtype} {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ConversionError("the images hold values that are not finite (NaN or infinity). Check the preprocessing.")
    return x


class _Clock:
    def __init__(self, bundle: Bundle, images: int, interval: int, *, record: bool, agreement: float | None) -> None:
        self._bundle, self._interval, self._record = bundle, interval, record
        self._nodes = [node for node in bundle.nodes if node.name in bundle.spiking]
        self._layers = {n.name: linear.make(n, bundle) for n in self._nodes if not n.fires and n.kind != "input"}
        self._encoder = Encoder(bundle)
        self._neurons = {node.name: Neurons(node, bundle) for node in self._nodes if node.fires}
        self._arrives, self._first = self._starts()
        self._queue: dict[int, dict[tuple[str, str], Array]] = defaultdict(dict)
        self._arrived = max(self._first[name] for name in bundle.readouts)
        self._answers = Answers(bundle, images, arrived=self._arrived, agreement=agreement)
        self.names = tuple(n.name for n in self._nodes if n.fires or n.kind == "input")
        self.events = dict.fromkeys(self.names, 0)
        self.synaptic = self.neuronal = self.queued = self._waiting = 0
        self._rows: list[Array] = []

    def _starts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the step at which the first image reaches each operation, and the step at which its result begins."""
        arrives: dict[str, int] = {}
        first: dict[str, int] = {}
        for node in self._nodes:
            times = {first[name] + self._bundle.delays.get((name, node.name), 0) for name in node.inputs} or {0}
            if len(times) > 1:
                raise ModelError(f"{node.name}: its inputs arrive at different steps, {sorted(times)}; {_AGAIN}")
            arrives[node.name] = times.pop()
            first[node.name] = arrives[node.name] + node.wait
        return arrives, first

    def run(self, images: Array) -> Run:
        count, bundle = len(images), self._bundle
        self._close, self._nearest = np.zeros(count, np.int64), np.full(count, np.inf)
        answers, done = self._answers, np.zeros(count, np.int64)
        last = max(self._first.values()) + bundle.steps + bundle.wait
        for tick in range((count - 1) * self._interval + last + 1):
            sent: dict[str, Array] = {}
            due = self._queue.pop(tick, {})
            self._waiting -= sum(int(np.count_nonzero(x)) for x in due.values())
            for node in self._nodes:
                image, step = divmod(tick - self._arrives[node.name], self._interval)
                if 0 <= image < count and step < bundle.steps + max(node.wait, bundle.wait) and not answers.over[image]:
                    inputs = [due[n, node.name] if (n, node.name) in due else sent.get(n) for n in node.inputs]
                    if (found := self._step(node, step, image, inputs, images)) is not None:
                        sent[node.name] = found
                        self._count(tick, node, found)
                    if node.name in bundle.readouts and answers.add(node, step, image, found):
                        done[image] = tick
            self._delay(tick, sent)
            image, step = divmod(tick - self._arrived, self._interval)
            if 0 <= image < count and answers.stops(image, step + self._arrived):
                done[image] = tick + bundle.latency - bundle.steps - self._arrived  # the output layer waits, too
        arrivals = np.arange(count) * self._interval
        done += bundle.steps - answers.steps  # for images that stopped: when their output would have been complete
        between = set(np.diff(done).tolist()) or {self._interval}
        latencies = set((done - arrivals + 1).tolist())
        if len(latencies) > 1 or len(between) > 1:
            raise ModelError(f"outputs came after different numbers of steps, {sorted(latencies)}; {_AGAIN}")
        return Run(
            answers.outputs(), answers.steps, latencies.pop(), between.pop(), self.events, self.synaptic, self.neuronal,
            self.queued, self._close, self._nearest, self._table(), self.names,
        )  # fmt: skip

    def _step(self, node: Node, step: int, image: int, inputs: Sequence[Array | None], images: Array) -> Array | None:
        """Return the result of an operation at a step of its own clock. None if it sends nothing."""
        steps = self._bundle.steps
        if node.kind == "input":
            if step == 0:
                self._encoder.start(images[image : image + 1])
            found, near = self._encoder(step) if step < steps else (None, None)
            self._near(image, near)
            return found
        arrived = [x for x in inputs if x is not None]
        if node.fires:
            if step == 0:
                self._neurons[node.name].start()
            if step >= steps + node.wait:
                return None
            found, near = self._neurons[node.name](step, arrived)
            self.neuronal += self._neurons[node.name].size
            self._near(image, near, self._neurons[node.name].rounding)
            return found
        if step >= steps:
            return None
        found, additions = self._layers[node.name](step, arrived)
        self.synaptic += additions
        return found

    def _near(self, image: int, distances: Array | None, rounding: Any = 0.0) -> None:
        if distances is not None and distances.size:
            self._close[image] += np.count_nonzero(distances < np.maximum(CLOSE, rounding))
            self._nearest[image] = min(self._nearest[image], float(distances.min()))

    def _count(self, tick: int, node: Node, found: Array) -> None:
        if node.name not in self.events:
            return
        fired = np.flatnonzero(found)
        self.events[node.name] += len(fired)
        if self._record:
            row = np.empty(len(fired), _TABLE)
            row["step"], row["layer"], row["neuron"] = tick, self.names.index(node.name), fired
            row["digit"] = found.ravel()[fired]
            self._rows.append(row)

    def _table(self) -> Array | None:
        if not self._record:
            return None
        return np.concatenate(self._rows) if self._rows else np.empty(0, _TABLE)

    def _delay(self, tick: int, sent: Mapping[str, Array]) -> None:
        for (source, to), steps in self._bundle.delays.items():
            if source in sent:
                self._queue[tick + steps][source, to] = sent[source]
                self._waiting += int(np.count_nonzero(sent[source]))
        self.queued = max(self.queued, self._waiting)


_TABLE = np.dtype([("step", np.int64), ("layer", np.int32), ("neuron", np.int64), ("digit", np.float64)])
