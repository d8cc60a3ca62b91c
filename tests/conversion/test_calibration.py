"""Calibration images: what is taken, what is refused, and what amplitudes follow."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.conversion.nets import Between
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from transpike import CSS, ConversionError, convert
from transpike.conversion import prepare
from transpike.conversion.outlook import Outlook

SHAPE = (3, 8, 8)
EXACT = CSS(steps=8, percentile=100, silent=2, amplitude="layer")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(1)
    return Between(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()), SHAPE).eval()


def test_amplitudes_are_the_percentiles_of_the_models_activations(model: Any) -> None:
    x = torch.randn(32, *SHAPE)
    with torch.no_grad():
        stem = model.stem(x).relu()
        body = model.body(stem)
    exact = prepare(model, x).convert(EXACT)
    names = [op.name for op in exact.graph.neurons]
    assert exact.units["input"] == pytest.approx(x.abs().max().item() / 255)
    assert [exact.units[n] for n in names] == pytest.approx([stem.max().item() / 255, body.max().item() / 255])
    snn = prepare(model, x).convert(CSS(steps=8, percentile=90, silent=2, amplitude="layer"))
    assert snn.units["input"] == exact.units["input"]  # of the input, always the largest
    assert snn.units[names[1]] * 255 == pytest.approx(np.percentile(body.numpy(), 90), rel=2e-3)
    assert snn.clipped[names[1]] == pytest.approx(0.1, abs=2e-3)
    assert exact.clipped[names[1]] == pytest.approx(0, abs=1e-9)


def test_any_division_into_batches_gives_the_same_network(model: nn.Module) -> None:
    x, y = torch.randn(70, *SHAPE), torch.arange(70)

    def peaks(batches: Any) -> dict[str, float]:
        return {name: each.values.quantile(99.0) for name, each in prepare(model, batches).statistics.seen.items()}

    whole = peaks(x)
    for batches in (x.split(16), [(a, b) for a, b in zip(x.split(3), y.split(3), strict=True)],
                    DataLoader(TensorDataset(x, y), batch_size=32), (a for a in x.split(50)), [[x, y]]):  # fmt: skip
        assert peaks(batches) == pytest.approx(whole, rel=1e-5)


def test_no_more_batches_are_drawn_than_needed(model: nn.Module) -> None:
    drawn = 0

    def endless() -> Iterator[Tensor]:
        nonlocal drawn
        while True:
            drawn += 1
            yield torch.randn(100, *SHAPE)

    assert prepare(model, endless()).statistics.images == 512 and drawn == 6
    assert len(prepare(model, endless(), images=30).images) == 30 and drawn == 7


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ([], "no images"),
        (torch.zeros(0, *SHAPE), "no images"),
        (iter(()), "no images"),
        (torch.randint(0, 255, (4, *SHAPE), dtype=torch.uint8), "torch.uint8; convert them to float"),
        (torch.full((4, *SHAPE), torch.nan), "NaN or infinity"),
        (torch.full((4, *SHAPE), torch.inf), "NaN or infinity"),
        ([torch.randn(4, *SHAPE), torch.randn(4, 3, 9, 9)], r"shape \(3, 9, 9\) after images of shape \(3, 8, 8\)"),
        ([np.zeros((4, *SHAPE))], "not ndarray"),
        ([{"image": torch.randn(4, *SHAPE)}], "not dict"),
        ([torch.zeros(3)], r"not a tensor of shape \(3,\)"),
        (torch.randn(4, 1, 8, 8), r"does not run on images of shape \(1, 8, 8\)"),
        (torch.randn(4, 3, 2), "does not run on images"),
        (None, "NoneType"),
        (7, "int"),
    ],
)
def test_bad_calibration_images_are_one_clear_error(model: nn.Module, calibration: Any, words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert(model, calibration)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["css", CSS, 8])
def test_what_is_no_scheme_is_one_clear_error(model: nn.Module, scheme: Any) -> None:
    with pytest.raises(ConversionError, match=r"scheme: expected a coding scheme such as transpike\.CSS\(steps=8\)"):
        convert(model, torch.randn(4, *SHAPE), scheme=scheme)


def test_activations_that_overflow_name_the_layer(model: nn.Module) -> None:
    huge = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    with torch.no_grad():
        huge[0].weight.fill_(3e38)
    x = torch.ones(2, *SHAPE) * 1e-30
    x[1] = 1e3
    with pytest.raises(ConversionError, match="NaN or infinite"):
        convert(huge, torch.cat([x[:1]] * 3 + [x[1:]]))


def test_a_dead_layer_is_named_and_safe(model: nn.Module) -> None:
    dead = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    with torch.no_grad():
        dead[0].bias.fill_(-100)
        dead[2].bias.fill_(-0.5)
    x = torch.randn(8, *SHAPE)
    with pytest.warns(UserWarning, match="no calibration image activates 1, 3: every activation there is 0"):
        snn = convert(dead, x, scheme=EXACT)
    with torch.no_grad():
        assert torch.allclose(snn(x), dead(x), atol=1e-6)
    assert snn(torch.randn(8, *SHAPE) * 100).isfinite().all()


@pytest.mark.parametrize("amplitude", ["layer", "channel"])
def test_a_layer_so_sparse_that_its_percentile_is_zero_gets_its_maximum(amplitude: Any) -> None:
    x = torch.randn(64, *SHAPE)
    sparse = Between(nn.Identity(), SHAPE).eval()
    with torch.no_grad():
        sparse.stem.weight.mul_(1e-3)
        sparse.stem.bias.fill_(-1)
        x[0, 0] = 1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snn = convert(sparse, x, scheme=CSS(steps=8, percentile=50, silent=2, amplitude=amplitude))
    (name,) = [op.name for op in snn.graph.neurons]
    assert snn.units[name] * 255 == pytest.approx(sparse.stem(x).relu().max().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            torch.zeros(2, 3, 9, 8),
            r"as in calibration, not \[N, 3, 9, 8\]; its size is fixed: the model itself",
        ),
        (torch.zeros(3, 8, 8), "expects images"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((2, 3, 8, 8), torch.nan), "NaN"),
    ],
)
def test_the_networks_own_input_is_checked(model: nn.Module, x: Tensor, words: str) -> None:
    snn = convert(model, torch.randn(4, *SHAPE))
    for call in (snn, snn.trace, snn.analog):
        with pytest.raises(ConversionError, match=words):
            call(x)


def test_it_says_what_it_will_take_before_it_starts(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name.startswith("transpike")]

    told: list[tuple[int, Outlook]] = []
    prepared = prepare(model, torch.randn(70, *SHAPE), progress=lambda *step: told.append(step))
    assert [done for done, _ in told] == [0, 32, 64, 70]
    expected = told[0][1]
    assert expected.images == 70 and expected.seconds > 0
    values = 2 * 70 * 192 + 12 * 32 * 2 * 512  # images; two layers of 8 x 8 x 8 values at a time
    weights = sum(t.numel() for op in prepared.graph for t in op.tensors.values())
    assert expected.bytes == 4 * (values + weights) + 3 * 2**21
    prepare(model, torch.randn(70, *SHAPE))
    assert not logged()
    monkeypatch.setattr("transpike.conversion.outlook.SOON", 0.0)
    prepare(model, torch.randn(128, *SHAPE))
    assert re.fullmatch(r"calibration on 128 images takes about \d+ s and \d+ MiB of memory", logged()[0])
    assert logged()[1:] == [f"calibration: {done} of 128 images" for done in (32, 64, 96, 128)]


def test_large_activations_are_measured_a_few_images_at_a_time(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, sizes = torch.randn(10, *SHAPE), []
    whole = prepare(model, x).statistics.seen
    monkeypatch.setattr("transpike.conversion.outlook._BUDGET", 4 * 4 * 1024)
    parts = prepare(model, x, progress=lambda done, _: sizes.append(done)).statistics.seen
    assert sizes == [0, 4, 8, 10]
    assert {name: each.values.quantile(99.0) for name, each in parts.items()} == pytest.approx(
        {name: each.values.quantile(99.0) for name, each in whole.items()}, rel=1e-5
    )
