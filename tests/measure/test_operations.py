"""Operations of artificial networks and of encoders, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transpike.coding import BurstEncoder, DCTEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.measure.operations import ann_operations, equation_13
from transpike.metrics.energy import Operations


def test_equation_13_of_the_papers_network() -> None:
    shape = {"num_classes": 10, "in_channels": 3}
    state = torch.get_rng_state()
    small = equation_13("spiking_vgg5", {"hidden": 8}, shape={**shape, "image_size": 32})
    assert bool((torch.get_rng_state() == state).all())
    large = equation_13("spiking_vgg5", {"hidden": 8}, shape={**shape, "image_size": 60})
    assert large / small == pytest.approx((60 / 32) ** 2, rel=1e-3)
    found = ann_operations("spiking_vgg9", {"hidden": 8}, shape={**shape, "image_size": 16}, side=10)
    assert [row.part for row in found.rows] == ["ann"], "of 10 x 10 four poolings leave nothing"
    assert found.poolings == 4


@pytest.mark.parametrize(
    ("encoder", "picojoules"),
    [
        (DCTEncoder(steps=16, color="ycbcr"), 4.6 * (2 * 192 * 4 + 16 * 192 + 9 * 64) + 0.9 * (2 * 16 * 192 + 30)),
        (DirectEncoder(steps=4), 0.0),
        (PoissonEncoder(steps=4), 0.9 * 4 * 192),
        (LatencyEncoder(steps=4), 4.6 * 192 + 0.9 * 4 * 192),
        (PhaseEncoder(steps=4), 0.1 * 4 * 192),
        (BurstEncoder(steps=4), 0.9 * (2 * 4 * 192 + 30) + 0.1 * 30),
        (BurstEncoder(steps=4, beta=1.7), 0.9 * (2 * 4 * 192 + 30) + 3.7 * 30),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_encoders_own_operations(encoder: Any, picojoules: float) -> None:
    work = Operations(**encoder.operations((3, 8, 8), spikes=30.0))
    assert work.joules * 1e12 == pytest.approx(picojoules)
