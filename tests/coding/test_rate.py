"""Rate coding, calibrated: theta by least squares, the shift, corrected layers; and SpikingJelly's spikes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe
from tests.coding import oracles
from torch import Tensor, nn

import transpike
from transpike.coding import Rate
from transpike.coding.calibration import Seen
from transpike.coding.function import Function, Operand
from transpike.coding.scheme import Scheme, decode, injected
from transpike.conversion import prepare
from transpike.errors import ConfigError
from transpike.quantiles import Quantiles

RELU = Function.of("relu.default", Operand(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    head = [nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4)]
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, *head).eval()


def test_spikes_are_spikingjellys() -> None:
    """Its rate recipe and ours on one network in float64: soft reset, start at 0, thresholds 0.9 of the maximum."""
    ann, x, steps = net().double(), torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double(), 48
    recipe = RateCodingRecipe([x.clone()], mode=0.9, momentum=1.0)
    peer = Converter(recipe).convert(copy.deepcopy(ann)).eval().double()
    theirs: dict[str, list[Tensor]] = {}
    for name, module in peer.named_modules():
        if isinstance(module, neuron.IFNode):
            module.register_forward_hook(lambda _, i, out, name=name: theirs.setdefault(name, []).append(out))
    functional.reset_net(peer)
    with torch.no_grad():
        logits = sum(peer(x) for _ in range(steps)) / steps
    scheme, ready = Rate(steps=steps, start=0.0, percentile=100), prepare(ann, x)
    scales = {name: 0.9 * theta if name != "input" else theta for name, theta in ready.amplitudes(scheme).items()}
    snn = ready.build(scheme, scales).double()
    ours = [layer.spikes for name, layer in snn.trace(x).items() if name != "input"]
    assert len(ours) == len(theirs) == 3
    for spikes, peers in zip(ours, theirs.values(), strict=True):
        assert 0.02 < spikes.mean() < 0.9 and torch.equal(spikes, torch.stack(peers))
    torch.testing.assert_close(snn(x).double(), logits, atol=1e-6, rtol=1e-5)


def test_the_shift_is_a_current_of_half_a_spike_over_the_run() -> None:
    scheme = Rate(steps=8, start=0.0, shift=True)
    found = scheme.neuron(RELU, amplitude=1.0, wait=0)
    assert not isinstance(found, str)
    z = torch.tensor([0.3, 0.7, -0.2, 0.5, 0.1, 0.1, 0.9, 0.2])
    fired = found([z[:, None].clone()], {}, inplace=False, final=True)
    assert fired.spikes.flatten().tolist() == oracles.integrate_and_fire((z + 0.5 / 8).tolist(), start=0.0)
    assert fired.target is not None and fired.target.item() == pytest.approx(z.sum().item() / 8)  # without the shift
    # Half a spike by the end, no less: a value of 7.5 spikes is rounded up.
    half = found([torch.full((8, 1), 7.5 / 8)], {}, inplace=False, final=False).spikes
    assert half.sum() == 8


def test_theta_by_least_squares_beats_maximum_and_percentile() -> None:
    values = Quantiles()
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).relu().pow(3)
    values.update(x)

    def squared(scheme: Scheme) -> float:
        theta = scheme.calibration.amplitudes(
            {"a": Seen(values)}, full=scheme.full, largest=scheme.reach, residuals=lambda _: {}
        )["a"]
        found = scheme.neuron(RELU, amplitude=1.0, wait=0)
        assert not isinstance(found, str)
        said = decode(scheme, found([injected(scheme, (x / theta).float())], {}, inplace=False, final=False).spikes)
        return float((said * theta - x).square().mean())

    # Few steps call for a smaller theta than the 99.9th percentile, many for a larger one.
    for steps in (4, 16, 64, 256):
        fit, *others = (squared(Rate(steps=steps, percentile=p)) for p in ("fit", 99.9, 99.99, 100))
        assert fit < 1.1 * min(others) and fit < 0.7 * max(others), (steps, fit, others)


@pytest.mark.parametrize("correction", ["bias", "potential"])
def test_means_of_corrected_layers_are_the_originals(correction: str, tmp_path: Path) -> None:
    """At 4 steps without a shift every layer says too little, and the next hears it."""
    ann, x = net(), torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ready = prepare(ann, x)

    def bias(scheme: Scheme) -> list[float]:
        snn, want = ready.convert(scheme), dict[str, Tensor]()
        snn.analog(x, lambda op, value: want.__setitem__(op.name, value.mean(0)))
        trace = snn.trace(x)
        axes = ready.statistics.axes
        off = {
            n: (decode(scheme, trace[n].spikes).mean(0) - want[n])
            .transpose(0, axes[n] - 0)
            .flatten(1 if want[n].ndim > 1 else 0)
            for n in trace
            if n != "input"
        }
        return [float((each.mean(1) if each.ndim > 1 else each).abs().mean()) for each in off.values()]

    plain, corrected = Rate(steps=4, start=0.0), Rate(steps=4, start=0.0, correction=correction)  # type: ignore[arg-type]
    for before, after in zip(bias(plain), bias(corrected), strict=True):
        assert after < 0.6 * before
    snn = ready.convert(corrected)
    snn.save(tmp_path / "net")
    assert torch.equal(transpike.load(tmp_path / "net")(x), snn(x))


def test_calibrated_errs_less_than_rounding_down() -> None:
    ann, x = net(), torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ready = prepare(ann, x)
    want = ann(x).detach()

    def error(scheme: Rate) -> float:
        return float((ready.convert(scheme)(x) - want).norm() / (want - want.mean(0)).norm())

    for steps in (8, 16):
        assert error(Rate.calibrated(steps=steps)) < 0.6 * error(Rate(steps=steps, start=0.0))


def test_settings() -> None:
    assert Rate.calibrated(steps=8).label == "rate start=0 fit shift bias corrected"
    with pytest.raises(ConfigError, match=r"correction='bia'.*Did you mean 'bias'"):
        Rate(correction="bia")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shift=1: expected true or false"):
        Rate(shift=1)  # type: ignore[arg-type]
