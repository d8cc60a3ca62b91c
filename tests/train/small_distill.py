"""A small teacher and a small spiking student; run as a program, the processes that are killed or work together."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tests.train.small import OPTIONS, PLAIN, Interrupting, images, loaders, network
from torch import nn

from transpike.models import save_weights
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


def together(folder):
    """One of several processes under torchrun."""
    net, data = student(norm=False), loaders(images(64), batch=8)
    distill(net, teacher(), data, replace(PLAIN, steps=2), folder=folder, taps=TAPS, settings={"beta": 1e-3})
    if os.environ["RANK"] == "0":
        save_weights(net, folder / "weights.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"killed": killed, "together": together}[sys.argv[1]](Path(sys.argv[2]))
