"""What early answers are measured to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.coding import CSS, FS, Rate, Scheme
from transpike.conversion import SpikingNetwork
from transpike.conversion.anytime import trajectories
from transpike.errors import ConfigError, DataError
from transpike.measure.anytime import early, energies, fixed, stopped
from transpike.measure.conversion import compare

SCHEMES = [CSS(steps=6, levels=(1, 2, 4, 8)), CSS(steps=6, silent=1), Rate(steps=8), FS(steps=6)]


class Attention(nn.Module):
    """A product of trains, a current that several layers read, a softmax: all that energy is counted for."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        return self.head((x + nn.functional.gelu(x)).mean(1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(64, 6, 8, generator=torch.Generator().manual_seed(0))


def made(scheme: Scheme, images: Tensor) -> SpikingNetwork:
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4))
    return transpike.convert((Attention() if isinstance(scheme, CSS) else plain).eval(), images, scheme=scheme)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.label)
def test_the_energy_of_a_full_run_is_that_of_the_comparison(scheme: Scheme, images: Tensor) -> None:
    snn = made(scheme, images)
    energy = energies(snn, images[:20])
    assert energy.shape == (20, snn.steps) and (energy.diff(dim=1) >= 0).all() and (energy[:, 0] > 0).all()
    want = compare(snn, [images[:20]], layer_images=20).row.energy_uj
    assert float(energy[:, -1].mean()) == pytest.approx(want)


def test_spikes_after_the_stop_cost_nothing(images: Tensor) -> None:
    """One layer: of an early stop only the spikes until then, and the share of the updates until then."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()
    snn = transpike.convert(net, images, scheme=CSS(steps=4, silent=0))
    spikes = snn.trace(images[:3])["input"].spikes
    caused = spikes.abs().flatten(2).sum(2).cumsum(0).T * (5 * 0.9 + 0.9)  # five synapses, and its own subtraction
    updates = 48 * 4 * (0.1 + 0.9) + 5 * 4 * (0.1 + 0.9)  # a shift and an addition or a comparison a step
    want = (caused + updates * torch.arange(1, 5) / 4) * 1e-6
    torch.testing.assert_close(energies(snn, images[:3]).float(), want, rtol=1e-5, atol=0)


def test_early_answers_are_counted(images: Tensor) -> None:
    snn = made(CSS(steps=6, levels=(1, 2, 4, 8)), images)
    snn.calibrate_stop(images[:40])
    x, energy = images[40:], energies(snn, images[40:])
    full, outputs = snn(x), trajectories(snn, images[40:])
    labels = full.argmax(1)
    answer = snn.until(x, agreement=0.9)
    row = stopped(snn, answer, full, agreement=0.9, labels=labels, energy=energy)
    assert row.images == 24 == sum(row.stopped) and row.accuracy == pytest.approx(1 - row.changed)
    assert row.steps == pytest.approx(float(answer.steps.float().mean())) and row.steps < 6
    assert row.latency - row.steps == snn.latency - snn.steps
    picked = [energy[k, step - 1] for k, step in enumerate(answer.steps)]
    assert row.energy_uj == pytest.approx(float(torch.stack(picked).mean())) and row.energy_uj < energy[:, -1].mean()
    each = fixed(snn, outputs, labels=labels, energy=energy)
    assert [one.steps for one in each] == [1, 2, 3, 4, 5, 6] and each[-1].changed == 0 and each[0].changed > 0
    assert each[2].stopped == (0, 0, 24, 0, 0, 0)
    assert each[-1].energy_uj == pytest.approx(float(energy[:, -1].mean()))


def test_a_curve_of_agreements_beside_fixed_steps(images: Tensor) -> None:
    """The rows of an evaluation are those of single calls."""
    snn = made(CSS(steps=6, levels=(1, 2, 4, 8)), images)
    labels = torch.arange(64) % 4
    batches = [(images[:30], labels[:30]), (images[30:], labels[30:])]
    rows = early(snn, batches, agreement=0.93, held_out=40, counted=10)
    assert [row.agreement for row in rows] == [0.93, 0.9, 0.95, *(None,) * 6]
    snn.calibrate_stop(images[:40])
    answer = snn.until(images[40:], agreement=0.93)
    energy = energies(snn, images[40:50])
    want = stopped(snn, answer, snn(images[40:]), agreement=0.93, labels=labels[40:], energy=energy)
    assert rows[0] == want and rows[-1].accuracy == float((snn(images[40:]).argmax(1) == labels[40:]).float().mean())
    assert early(snn, [images], agreement=0.9, held_out=40)[0].accuracy is None
    with pytest.raises(DataError, match="none of 64 is left"):
        early(snn, batches, agreement=0.9, held_out=64)
    with pytest.raises(ConfigError, match="needs at least 199 held-out images, not 40"):
        early(snn, batches, agreement=0.995, held_out=40)


def test_no_images_are_one_error(images: Tensor) -> None:
    snn = made(CSS(steps=3), images)
    with pytest.raises(DataError, match="no images"):
        fixed(snn, torch.zeros(3, 0, 4))
