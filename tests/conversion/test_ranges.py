"""Images of another scale than the calibration images: one warning, and no other numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.coding import Scheme, create_scheme
from transpike.conversion import SpikingNetwork
from transpike.conversion.ranges import warn_beyond

X = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(scheme: Scheme) -> SpikingNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    return transpike.convert(net, X, scheme=scheme)


CODES = [
    transpike.CSS(steps=6, silent=1),
    transpike.CSS(steps=4, levels=(1, 2, 4, 8)),
    create_scheme("tsc", {"steps": 8}),
]


@pytest.mark.parametrize("scheme", CODES)
def test_images_from_0_to_255_are_said_to_be_clipped(scheme: Scheme) -> None:
    snn = made(scheme)
    with pytest.warns(
        UserWarning, match=r"input: \d+% of the images' values are clipped. The values lie between 0.\d+ and 25"
    ) as seen:
        found = snn(255 * X)
        snn(255 * X), snn(255 * torch.rand(2, 3, 12, 12)), snn.trace(255 * X), snn.diagnose(255 * X)
    assert len(seen) == 1 and "Preprocess the images exactly like the calibration images" in str(seen[0].message)
    silent = made(scheme)
    silent._warned.add("range")
    assert torch.equal(silent(255 * X), found)


def halves(high: float) -> Tensor:
    """Images of which a hundredth and a bit is as large as this, the others as the calibration images."""
    x = X.clone()
    x.view(-1)[:: round(1 / 0.012)] = high
    return x


@pytest.mark.parametrize("scheme", [*CODES, create_scheme("quantised", {"bits": 4})])
def test_images_like_those_of_the_calibration_are_not(scheme: Scheme) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snn = made(scheme)
        snn(X), snn(-X), snn(torch.ones(4, 3, 8, 8) * X.max()), snn(X[:0])
        few = X.clone()
        few.view(-1)[::200] = 255.0
        snn(few)
        snn.analog(255 * X)
    with pytest.warns(UserWarning, match=r"input: 1% .* and 255\."):
        snn(halves(255.0))


def test_an_analog_current_is_never_clipped() -> None:
    assert not warn_beyond(create_scheme("rate", {"steps": 8}), X, 1e6 * X, theta=torch.tensor(1.0))
    assert not made(create_scheme("rate", {"steps": 8}))._warned


def test_channels_have_ranges_of_their_own() -> None:
    scale = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    snn = transpike.convert(net, scale * X, scheme=transpike.CSS(steps=8, silent=1))
    words = r"between \S+ and 9\d.* encode values between -\d+.* \(in the channel with the narrowest range between -1"
    with pytest.warns(UserWarning, match=words):
        snn(100 * X)
