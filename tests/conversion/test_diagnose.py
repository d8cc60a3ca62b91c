"""What makes the error of a converted network, and whether the advice mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conversion.test_amplitudes import made
from tests.conversion.test_silence import Loud
from torch import Tensor, nn

import transpike
from transpike import CSS
from transpike.coding import FS, Rate
from transpike.coding.scheme import followed
from transpike.conversion import prepare
from transpike.conversion.diagnose import Diagnosis
from transpike.conversion.op import Op
from transpike.conversion.sensitivity import relative_error
from transpike.errors import ConversionError
from transpike.neurons.tsa import Tracked


class Residual(nn.Module):
    """Two blocks with skip connections, whose weights spread by channel as trained ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for conv in (self.stem, *self.blocks):
                conv.weight *= torch.linspace(-1, 1, 8).exp().view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = torch.relu(x + second(torch.relu(first(x))))
        return self.head(x.mean((2, 3)))


def loud() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Loud().eval(), 10 * torch.rand(256, 1) + torch.rand(256, 64)


def plain() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = (nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(*layers).eval(), torch.randn(256, 32)


def mobile() -> tuple[nn.Module, Tensor]:
    return made("mobile")[0], torch.randn(256, 3, 8, 8)


def residual() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Residual().eval(), torch.randn(96, 3, 8, 8)


Net = Callable[[], tuple[nn.Module, Tensor]]
NETS: dict[str, tuple[Net, CSS, str]] = {
    "a loud common part": (loud, CSS(steps=12, silent=0), "coupling"),
    "few steps": (plain, CSS(steps=4, silent=3), "resolution"),
    "a low percentile": (plain, CSS(steps=12, percentile=98, amplitude="layer"), "clipping"),
    "mobile": (mobile, CSS(steps=12, silent=0), "coupling"),
    "residual": (residual, CSS.paper(steps=6), "resolution"),
}


def diagnosed(name: str, **changes: object) -> Diagnosis:
    """On images that calibration has not seen."""
    make, scheme, _ = NETS[name]
    net, images = make()
    half = len(images) // 2
    return prepare(net, images[:half]).convert(replace(scheme, **changes)).diagnose(images[half:][:32])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*cannot follow their input")
def test_advice_lowers_the_error_by_a_third_on_four_of_five_networks() -> None:
    lowered = []
    for name, (_, _, binding) in NETS.items():
        found = diagnosed(name)
        assert found.binding == binding, f"{name}: {found}"
        assert found.caused.error == pytest.approx(found.error, rel=0.5), name
        better = diagnosed(name, **found.advice)
        lowered.append(better.error / found.error)
    assert sum(ratio <= 2 / 3 for ratio in lowered) >= 4, lowered


@pytest.mark.filterwarnings("ignore:.*cannot follow their input")
def test_each_layer_causes_what_its_residual_alone_does_to_the_analog_network() -> None:
    net, images = mobile()
    snn = prepare(net, images).convert(CSS(steps=8, silent=2, percentile=99))
    x = images[:32]
    want = snn.analog(x)
    trace = snn.trace(x)
    for row in snn.diagnose(x).rows[1:]:

        def moved(op: Op, value: Tensor, name: str = row.name) -> None:
            if op.name == name:
                missed = trace[name].residual
                assert missed is not None
                value.sub_(missed)

        assert row.caused.error == pytest.approx(relative_error(snn.analog(x, moved), want), rel=0.35), row.name
        assert row.residual == pytest.approx(float(trace[row.name].residual.square().mean().sqrt()), rel=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("silent", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:.*cannot follow their input")
def test_the_decoupling_condition_is_counted_by_the_residual(silent: int) -> None:
    """Eq. 10 at every step: what is still to be said is less than all later spikes can say and one unit more."""
    net, images = mobile()
    scheme = CSS(steps=8, beta=1.5, silent=silent)
    snn = prepare(net, images[:64]).convert(scheme)
    trace, found = snn.trace(images[:16]), snn.diagnose(images[:16])
    shares = []
    for row in found.rows[1:]:
        layer, holds = trace[row.name], torch.tensor(True)
        assert layer.target is not None
        for step in range(scheme.steps + 1):
            said = torch.zeros(())
            for weight, spikes in zip(scheme.weights[:step], layer.spikes[:step], strict=True):
                said = said + weight * spikes
            holds = holds & ((layer.target - said).abs() < 1 + sum(scheme.weights[step:]) - 1e-3)
        shares.append(float(holds.float().mean()))
        assert row.decoupled == pytest.approx(shares[-1], abs=2e-3)
    assert min(shares) < 0.95 or silent


@pytest.mark.parametrize("levels", [(1,), (1, 2, 4, 8)])
def test_neurons_within_the_bound_follow_their_input(levels: tuple[int, ...]) -> None:
    net, images = residual()
    snn = prepare(net, images).convert(CSS(steps=8, silent=2, levels=levels, percentile=100))
    x, kept = images[:16], {}

    def fire(op: Op, currents: list[Tensor]) -> Tracked:
        if op.kind == "input":
            return snn.encode(*currents)
        fired = snn.neurons[op.name](currents, snn.tensors(op), inplace=False, final=True)
        bound, (z,) = followed(snn.scheme, 2), currents
        within = (z.abs().amax(0) <= bound) & ((2 * z[0] + z[1]).abs() <= 2)
        assert fired.residual is not None and float(fired.residual[within].abs().max()) <= 0.5 + 1e-4
        kept[op.name] = float(within.float().mean())
        return fired

    snn.simulate(x, fire)
    found = {row.name: row for row in snn.diagnose(x).rows if row.bound is not None}
    assert {name: row.bounded for name, row in found.items()} == pytest.approx(kept)
    assert 0.05 < min(kept.values()) < 1 and not any(row.certain for row in found.values())
    assert {row.bound for row in found.values()} == {(3 - 2) * 4 / 2 if levels == (1,) else (5 - 2) * 4 / 2}


def test_small_weights_ensure_the_bound_whatever_the_images() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.5, 0.0]]))
        net[0].bias.fill_(0.25)
    images = torch.tensor([[1.0, 1.0], [-1.0, 0.5]])
    scheme = CSS(steps=6, beta=2.0, silent=0, percentile=100, amplitude="layer")
    (_, row) = prepare(net, images).convert(scheme).diagnose(images).rows
    # theta is 0.75 / 63, the input's 1 / 63: a spike brings 2/3, the bias 1/3 of a unit in a step; the bound is 1/2.
    assert (row.gain, row.current, row.bound, row.certain) == (pytest.approx(2 / 3), pytest.approx(1), 0.5, False)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.1, 0.0]]))
        net[0].bias.fill_(1.0)
    (_, row) = prepare(net, images).convert(replace(scheme, beta=1.1)).diagnose(images).rows
    assert row.gain == pytest.approx(1 / 11) and row.certain is False  # the bias brings 10/11; the bound is 0.95
    (_, row) = prepare(net, images).convert(replace(scheme, beta=1.1, levels=(1, 2), silent=0)).diagnose(images).rows
    assert row.bound == pytest.approx(1.95) and row.certain is True and row.bounded == 1
    net[0].bias.data.fill_(0.0)
    net[0].weight.data.copy_(torch.tensor([[1.0, 0.0]]))
    (_, row) = prepare(net, images).convert(replace(scheme, levels=(1, 2))).diagnose(images).rows
    assert row.gain == pytest.approx(1) and (row.bound, row.certain) == (1.5, False)  # a spike of 2 brings 2


def test_a_loaded_network_is_diagnosed_alike_and_other_images_change_nothing(tmp_path: Path) -> None:
    net, images = made("tokens")
    snn = prepare(net, images).convert(CSS(steps=6, silent=1))
    found = snn.diagnose(images[:20])
    snn.save(tmp_path / "net")
    assert transpike.load(tmp_path / "net").diagnose(images[:20]) == found == snn.diagnose(images[:20])
    (_, *rows) = found.rows
    assert {row.function for row in rows if row.bound is not None} == {"identity", "relu"}
    assert "Eq. 10" in str(found) and " ".join(str(found).split()).endswith(found.words)


class Ends(nn.Module):
    """Two outputs, one of them through a softmax, which no error at the output may hide behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.first(x))
        return self.second(h).softmax(1), self.third(h).argmax(1)


@pytest.mark.parametrize("scheme", [CSS(steps=4, silent=1), Rate(steps=8), FS(steps=4)])
def test_every_scheme_is_diagnosed_at_the_decoded_values(scheme: transpike.coding.Scheme) -> None:
    torch.manual_seed(0)
    net, images = Ends().eval(), torch.randn(64, 8)
    prepared = prepare(net, images)
    found = prepared.convert(scheme).diagnose(images[:1]), prepared.convert(scheme).diagnose(images)
    assert all(each.error > 0.01 and each.binding == "resolution" and len(each.rows) == 2 for each in found)
    assert prepared.convert(replace(scheme, **found[1].advice)).diagnose(images).error < 0.67 * found[1].error  # type: ignore[arg-type]
    assert found[1].words.endswith(f"What would help most: steps={found[1].advice['steps']}.")


def test_what_was_clipped_in_calibration_is_mended_by_the_percentile_and_else_by_levels() -> None:
    assert diagnosed("a low percentile").advice == {"percentile": 100}
    found = diagnosed("a low percentile", percentile=100)
    assert found.binding == "clipping" and found.advice == {"levels": (1, 2, 4, 8)}
    assert found.worst.clipped > 0 and f"{found.caused.shares['clipping']:.0%}" in found.words


@pytest.mark.filterwarnings("ignore:.*cannot follow their input")
def test_a_few_values_clipped_in_calibration_do_not_make_the_percentile_the_remedy() -> None:
    net, images = made("mobile")
    snn = prepare(net, images[:32]).convert(CSS.paper(steps=12))
    found = snn.diagnose(images[32:])
    assert found.binding == "clipping" and 0 < snn.clipped[found.worst.name] < found.worst.clipped
    assert found.advice == {"levels": (1, 2, 4, 8)}


def test_residuals_are_split_in_units_of_the_last_step() -> None:
    net, images = plain()
    found = prepare(net, images).convert(Rate(steps=32, percentile=90)).diagnose(images[:32])
    assert found.binding == "clipping" and found.advice == {"percentile": 100}
    assert all(0.05 < row.clipped < 0.2 for row in found.rows[1:])


def test_a_network_that_is_exact_needs_nothing() -> None:
    net, images = plain()
    found = prepare(net, images).convert(CSS(steps=16, silent=6, percentile=100)).diagnose(images[:16])
    assert found.error < 1e-3 and found.advice == {} and found.words.endswith("nothing needs to be done.")


def test_images_of_another_kind_are_refused() -> None:
    net, images = plain()
    with pytest.raises(ConversionError, match=r"expects images \[N, 32\]"):
        prepare(net, images).convert(CSS()).diagnose(torch.zeros(4, 31))


def test_outputs_that_do_not_vary_are_measured_by_their_norm() -> None:
    net, images = plain()
    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        net[4].weight.zero_()
        net[4].bias.fill_(1 / 3)
    found = prepare(net, images).convert(CSS(steps=4, silent=1)).diagnose(images[:8])
    assert found.error < 1e-6 and found.caused.error < 1e-6 and not found.advice


class Scalar(nn.Module):
    """A layer with one neuron, and an output of one number a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.weights = nn.Linear(4, 8), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        largest = self.body(x).amax(1)
        return torch.relu(torch.einsum("n,k->nk", largest, self.weights)) @ self.weights


def test_numbers_without_an_axis_are_outputs_and_layers() -> None:
    torch.manual_seed(0)
    net, images = Scalar().eval(), torch.randn(64, 4)
    snn = transpike.convert(net, images)
    error = snn.diagnose(images).error
    want = net(images)
    assert snn(images).shape == (64,)
    found = float((snn(images) - want).norm() / (want - want.mean()).norm())
    assert error < 0.1 and error == pytest.approx(found, rel=1e-3)
