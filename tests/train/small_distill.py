"""A small teacher and a small spiking student; run as a program, a training and a distillation that are killed."""

import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tests.files.children import ended, fork
from tests.train import small
from tests.train.small import OPTIONS, Interrupting, images, loaders, network
from torch import nn

from transpike.models.spiking import OverTime
from transpike.neurons import LIFNode
from transpike.train.distill import distill

TAPS = {"2": "2"}


def teacher():
    return network().requires_grad_(True)


def student(*, norm=True):
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4)]
    return OverTime(*layers, LIFNode(step_mode="m", decay_input=False), nn.Flatten(), nn.Linear(144, 3))


def killed(folder):
    data = Interrupting(images(), after=2 * 70 + 40, number=signal.SIGKILL)
    options = replace(OPTIONS, steps=2)
    distill(student(), teacher(), loaders(data), options, folder=folder, taps=TAPS, settings={"beta": 1e-3})


if __name__ == "__main__":
    import lightning.pytorch  # noqa: F401 once, before the forks

    torch.set_num_threads(1)
    for name, work in (("fit", small.killed), ("distill", killed)):
        assert ended(fork(partial(work, Path(sys.argv[1], name)))) == -signal.SIGKILL, name
