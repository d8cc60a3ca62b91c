"""What is measured of a trained spiking network: accuracy at several numbers of steps, firing, operations, energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transpike.train import Evaluation, Machine, evaluate

__all__ = ["measure_spiking", "spiking_tables"]


def measure_spiking(
    model: nn.Module,
    test: Callable[[int], DataLoader[Any]],
    *,
    steps: int,
    others: Sequence[int],
    machine: Machine,
    encoder: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Test a spiking network at ``steps``, where its spikes are counted, and at ``others``.

    Args:
        model: Takes [T, N, *].
        test: Gives the test images, or recordings, for T steps.
        steps: T as trained.
        others: Other numbers of steps, for accuracy alone.
        machine: Devices and precision.
        encoder: Gives what encodes images in T steps; by default they are repeated.

    Returns:
        What ``evaluate`` gives at ``steps``; and "by_steps", a row a number of steps, with "spiking", counts for one
        image over all steps, energy in microjoules, and a row for every layer of neurons.
    """
    from transpike.metrics.energy import MULTIPLY_ACCUMULATE
    from transpike.metrics.firing import FiringMeter

    def tested_at(count: int) -> Evaluation:
        encode = None if encoder is None else encoder(count)
        return evaluate(model, test(count), machine=machine, steps=count, encode=encode)

    with FiringMeter(model) as meter:
        tested = {steps: tested_at(steps)}
    for count in others:
        if count != steps:
            tested[count] = tested_at(count)
    work = meter.operations
    neurons = sum(layer.neurons for layer in meter.layers)
    spiking = {
        "steps": steps,
        "neurons": neurons,
        "rate": work.spikes / (neurons * steps),
        "spikes_per_neuron": work.spikes / neurons,
        "synops": work.synops,
        "macs": work.macs,
        "energy_uj": work.joules * 1e6,
        "energy_parts_uj": {part: joules * 1e6 for part, joules in work.energy().items()},
        "ann_macs": meter.dense_macs,
        "ann_energy_uj": meter.dense_macs * MULTIPLY_ACCUMULATE * 1e6,
        "layers": [
            {
                "name": layer.name,
                "neurons": layer.neurons,
                "rate": layer.rate,
                "spikes_per_neuron": layer.rate * steps,
                "positive_per_neuron": (layer.rate - layer.negative) * steps,
                "negative_per_neuron": layer.negative * steps,
            }
            for layer in meter.layers
        ],
    }
    rows = [
        {"steps": count, "accuracy": figures.accuracy, "loss": figures.loss}
        for count, figures in sorted(tested.items())
    ]
    return tested[steps], {"by_steps": rows, "spiking": spiking}


def spiking_tables(results: Mapping[str, Any]) -> list[Table | str]:
    """Firing by layer, operations and accuracy by T, of the results of `transpike train`, for the terminal."""
    spiking = results["spiking"]
    firing = Table(title=f"Firing at T = {spiking['steps']}", title_justify="left", box=box.SIMPLE_HEAD)
    firing.add_column("layer")
    for heading in ("neurons", "spikes per neuron and step"):
        firing.add_column(heading, justify="right")
    for layer in [*spiking["layers"], {"name": "all", **spiking}]:
        firing.add_row(layer["name"], str(layer["neurons"]), f"{layer['rate']:.3f}")
    work = (
        f"An image takes {spiking['synops'] / 1e6:.3g} M SynOps and {spiking['macs'] / 1e6:.3g} M MACs, "
        f"{spiking['energy_uj']:.3g} µJ; as an ANN {spiking['ann_macs'] / 1e6:.3g} M MACs, "
        f"{spiking['ann_energy_uj']:.3g} µJ (45 nm model)."
    )
    steps = Table(box=box.SIMPLE_HEAD)
    for row in results["by_steps"]:
        steps.add_column(f"T = {row['steps']}", justify="right")
    steps.add_row(*(f"{row['accuracy']:.2%}" for row in results["by_steps"]))
    return [firing, work, steps]
