"""What one process does and several do together: training, distillation, spiking measures and commands.

Run as a program by each process of torchrun.
"""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tests.train.small import CPU, PLAIN, images, loaders, network
from tests.train.small_distill import student, teacher
from torch import nn
from torch.utils.data import DataLoader

from transpike.cli import main
from transpike.data import Loading, load_images
from transpike.measure.spiking import follow_steps, measure_spiking
from transpike.models import save_weights
from transpike.models.spiking import OverTime
from transpike.neurons import IFNode
from transpike.train import Loaders, evaluate, fit
from transpike.train.distill import distill

WORLD = int(os.environ.get("WORLD_SIZE", 1))
GLOBAL = 16
"""Images of a batch, over all processes."""


def uneven():
    """Generic loaders whose last batch of an epoch is smaller than the others, and whose shares differ."""
    # 60 images: of the last global batch there are 12, 8 for one process and 4 for the other.
    train = DataLoader(images(60), batch_size=GLOBAL // WORLD, shuffle=True)
    return Loaders(train, DataLoader(images(31, seed=1), batch_size=7))


def digits(**options):
    """Our own loaders, which share themselves."""
    loading = Loading(batch_size=GLOBAL // WORLD, augment="none", train_images=101, **options)
    return load_images("digits", loading=loading)


def flat_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def spiking_network():
    torch.manual_seed(2)
    layers = [nn.Flatten(), nn.Linear(64, 40), IFNode(step_mode="m"), nn.Linear(40, 20), IFNode(step_mode="m")]
    return OverTime(*layers, nn.Linear(20, 10))


class Thresholds(nn.Module):
    """An encoder: a pixel fires where it is above that step's threshold."""

    steps = 3

    def forward(self, x):
        return (x > torch.arange(3.0).view(3, *[1] * x.ndim)).float()


def trained(folder):
    net, sets = flat_network(), digits()
    told = [vars(evaluate(each, sets.test, machine=CPU)) for each in (net, nn.Flatten())]
    # One validation batch: not every process has one.
    single = loaders(images(64), batch=GLOBAL // WORLD, held_out=40)
    for number, (model, data) in enumerate(
        ((network(norm=False), uneven()), (network(norm=False), single), (net, Loaders(sets.train, sets.validation)))
    ):
        fitted = fit(model, data, PLAIN, folder=folder / f"fit{number}")
        told += [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.curves]
        if os.environ.get("RANK", "0") == "0":
            save_weights(model, folder / f"fit{number}" / "weights.safetensors")
    return told


def distilled(folder):
    net, options = student(norm=False), replace(PLAIN, steps=2)
    # Terms that are means over images; relations between images depend on which share a batch.
    fitted = distill(
        net, teacher(), uneven(), options, folder=folder / "distil", taps={"2": "2"}, settings={"beta": 1e-3}
    )
    if os.environ.get("RANK", "0") == "0":
        save_weights(net, folder / "distil" / "weights.safetensors")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.curves]


def measured(folder):
    """What a spiking network fires and spends, on 37 images and on one, of which a process has none."""
    told = []
    for count in (37, 1):
        test = digits(test_images=count).test
        figures, by_steps, spiking = measure_spiking(
            spiking_network(), lambda _, test=test: test, steps=3, others=[1], machine=CPU
        )
        after, spikes = follow_steps(spiking_network(), test, Thresholds(), device="cpu")
        more = {"by_steps": [asdict(row) for row in by_steps], "spiking": asdict(spiking)}
        told.append({"test": vars(figures), **more, "after": after, "spikes": spikes})
    return told


def command(folder):
    """Compare codes, let them stop early, and evaluate: the weights and the network lie beside the folder."""
    compare = ["compare", "mlp", "--data", "digits", "--weights", folder.parent / "mlp.safetensors"]
    compare += ["--calibration", 64, "--schemes", "[{name: css, steps: 6}]", "--loading.test_images"]
    # More images than single layers are measured on, and odd numbers of them.
    counts = ["--loading.test_images", 91, "--loading.batch_size", 9]
    for name, words in {
        "compared": [*compare, 31],
        "stopped": [*compare, 61, "--agreement", 0.9, "--held-out", 31],
        "evaluated": ["evaluate", folder.parent / "converted" / "T6", *counts],
    }.items():
        assert main([*map(str, words), "--out", str(folder / name)]) == 0


def everything(folder):
    command(folder)  # first: a command must join the processes by itself
    found = {"trained": trained(folder), "distilled": distilled(folder), "measured": measured(folder)}
    if os.environ.get("RANK", "0") == "0":
        (folder / "told.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    everything(Path(sys.argv[1]))
