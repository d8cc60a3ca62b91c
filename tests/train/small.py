"""A small problem, trained in a second."""

import os
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from transpike.train import Loaders, Machine, Optim, Recipe, TrainOptions, fit

CPU = Machine(accelerator="cpu")
OPTIONS = TrainOptions(
    epochs=4, seed=3, machine=CPU, optim=Optim(lr=0.05), recipe=Recipe(mixup=0.2, cutmix=0.5, ema=0.9)
)
PLAIN = TrainOptions(epochs=2, machine=CPU, optim=Optim(lr=0.05))


def images(count=70, seed=0):
    """Three classes, each a pattern of its own under noise: [count, 1, 6, 6]."""
    generator = torch.Generator().manual_seed(7)
    patterns = torch.randn(3, 1, 6, 6, generator=generator)
    labels = torch.arange(count) % 3
    return TensorDataset(
        patterns[labels] + 0.3 * torch.randn(count, 1, 6, 6, generator=generator.manual_seed(seed)), labels
    )


class Interrupting(TensorDataset):
    """Sends this process a signal when it is asked for the n-th image."""

    def __init__(self, data, *, after, number):
        super().__init__(*data.tensors)
        self.left, self.number = after, number

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


def loaders(train=None, *, batch=16, held_out=10):
    return Loaders(
        DataLoader(train or images(), batch_size=batch, shuffle=True),
        DataLoader(images(31, seed=1), batch_size=held_out),
    )


def network(*, norm=True):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2)] if norm else [nn.ReLU()]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *middle, nn.Flatten(), nn.Linear(144, 3))


def killed(folder):
    data = Interrupting(images(), after=2 * 70 + 40, number=signal.SIGKILL)
    fit(network(), loaders(data), OPTIONS, folder=folder)
