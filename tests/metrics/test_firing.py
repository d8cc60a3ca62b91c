"""Spikes and operations of a spiking network, against counts by hand and by SpikingJelly's neurons."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import neuron as jelly
from torch import Tensor, nn
from torch.nn import functional as F

from transpike.metrics.energy import ACCUMULATE, MULTIPLICATION
from transpike.metrics.firing import FiringMeter
from transpike.models.spiking import OverTime
from transpike.neurons import IFNode, LIFNode, reset_net


class Adds(nn.Module):
    """Two neurons whose spikes are added, pooled and weighted: values 0, 1, 2 and fractions."""

    def __init__(self, neuron: type[nn.Module], **options: float) -> None:
        super().__init__()
        self.first = OverTime(nn.Conv2d(1, 2, 3), neuron(step_mode="m", **options))
        self.second = OverTime(nn.Conv2d(2, 2, 3, padding=1), neuron(step_mode="m", **options))
        self.third = OverTime(nn.Conv2d(2, 3, 2), nn.AvgPool2d(2), nn.Conv2d(3, 1, 1))
        self.seen: list[Tensor] = []
        for layer in (self.first[0], self.second[0]):
            nn.init.uniform_(layer.weight, 0, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(x)
        summed = spikes + self.second(spikes)
        self.seen = [spikes, summed]
        out: Tensor = self.third(summed)
        return out


def test_each_spike_makes_an_accumulate_for_each_target() -> None:
    net, x = Adds(IFNode), torch.rand(4, 5, 1, 7, 7)
    with FiringMeter(net) as meter:
        for part in x.split(2, dim=1):
            reset_net(net)
            net(part)
    reset_net(net)
    with torch.no_grad():
        net(x)
        fired, summed = net.seen
        pooled = F.avg_pool2d(net.third[0](summed.flatten(0, 1)), 2)
    assert meter.samples == 5 and summed.max() == 2
    by_hand = fired.mean() * 2 * 2 * 9 * 25 * 4 + summed.mean() * 2 * 3 * 4 * 16 * 4
    by_hand += pooled.abs().ceil().mean() * 3 * 4 * 4  # fractions that neurons sent count once
    work = meter.operations
    assert work.accumulates == pytest.approx(by_hand.item(), rel=1e-5)
    assert work.macs == 2 * 9 * 25 * 4
    assert meter.dense_macs == 2 * 9 * 25 + 2 * 2 * 9 * 25 + 2 * 3 * 4 * 16 + 3 * 4
    second = summed - fired
    assert [layer.rate for layer in meter.layers] == pytest.approx([fired.mean().item(), second.mean().item()])
    assert [layer.neurons for layer in meter.layers] == [50, 50]
    assert work.spikes == pytest.approx(summed.sum().item() / 5)


def test_neurons_work_whether_or_not_they_fire() -> None:
    leaky = OverTime(LIFNode(step_mode="m"))
    with FiringMeter(leaky) as meter:
        leaky(torch.zeros(3, 2, 10))
    assert meter.operations.energy()["neurons"] == pytest.approx(30 * (2 * ACCUMULATE + MULTIPLICATION))
    with FiringMeter(leaky) as meter:
        pass
    leaky(torch.zeros(3, 2, 10))
    assert meter.samples == 0, "counts beyond its end"


def test_spikingjelly_counts_alike() -> None:
    x, told = torch.rand(4, 3, 1, 7, 7), []
    for kind in (LIFNode, jelly.LIFNode):
        torch.manual_seed(0)
        net = Adds(kind, v_threshold=0.3)
        with FiringMeter(net) as meter:
            net(x)
        told.append((meter.operations, meter.layers))
    assert told[0] == told[1]
    assert told[0][0].spikes > 0


def test_whole_numbers_are_spikes_and_others_analog() -> None:
    net = OverTime(nn.Linear(4, 3))
    events = torch.tensor([[[0.0, 2.0, 0.0, 1.0]]])
    for x, macs, synops in ((events, 0, 9), (events + 0.5, 12, 0)):
        with FiringMeter(net) as meter:
            net(x)
        assert (meter.operations.macs, meter.operations.accumulates) == (macs, synops)
