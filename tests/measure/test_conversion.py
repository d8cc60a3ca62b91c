"""A spiking network beside the network it was made from: counts by hand, several schemes in one sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.coding import CSS, Rate
from transpike.conversion import prepare
from transpike.measure.conversion import compare
from transpike.measure.sweep import Sweep, sweep


def test_compare_counts_by_hand() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(10, 6)
    snn = prepare(ann, x).convert(transpike.CSS(steps=8, silent=1, amplitude="layer"))
    row = compare(snn, [x]).row
    trace = snn.trace(x)
    into, hidden = (trace[name].spikes.abs().sum().item() / 10 for name in ("input", "1"))
    assert row.accuracy is None and row.loss_pp is None
    assert row.synops == pytest.approx(8 * into + 3 * hidden)
    assert row.spikes_per_neuron == pytest.approx(hidden / 8)
    assert row.payload_bits == pytest.approx(into + hidden)
    assert (row.latency, row.latency_zero_delay, row.interval) == (8 + 2, 8 + 1, 9)
    levels = prepare(ann, x).convert(transpike.CSS(steps=8, silent=0, levels=(1, 2, 3), amplitude="layer"))
    row, trace = compare(levels, [x]).row, levels.trace(x)
    count = {k: [(trace[n].spikes.abs() == k).sum().item() / 10 for n in ("input", "1")] for k in (2, 3)}
    assert row.shifts == pytest.approx(8 * count[2][0] + 3 * count[2][1])
    assert row.multiplications == pytest.approx(8 * count[3][0] + 3 * count[3][1])


def test_a_loss_is_what_the_original_had_more() -> None:
    """One step of one spike tells a value in three levels: predictions are lost that the original gets right."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    images = torch.randn(400, 6)
    with torch.no_grad():
        labels = ann(images).argmax(1)
    labels[:40] = (labels[:40] + 1) % 5
    snn = transpike.convert(ann, images, scheme=CSS(steps=1, silent=0, amplitude="layer"))
    row, original = (lambda found: (found.row, found.ann))(compare(snn, [(images, labels)]))
    right = float((snn(images).argmax(1) == labels).double().mean())
    assert original.accuracy == pytest.approx(0.9) and row.accuracy == pytest.approx(right) and right < 0.8
    assert row.loss_pp == pytest.approx(100 * (0.9 - right))


def test_the_energy_of_a_network_is_that_of_its_layers_and_of_its_readout() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    images = torch.randn(20, 4)
    row = compare(transpike.convert(ann, images, scheme=CSS(steps=8, silent=1, amplitude="layer")), [images]).row
    # Three outputs accumulate over 8 steps: each amplifies its sum (a shift, 0.1 pJ) and adds the bias (0.9 pJ).
    readout = 3 * 8 * (0.1 + 0.9) * 1e-6
    assert row.energy_uj == pytest.approx(sum(layer.energy_uj for layer in row.layers) + readout, rel=1e-9)
    assert row.energy_uj == pytest.approx(sum(row.energy_parts_uj.values()), rel=1e-9)


def test_a_shared_current_is_passed_on_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norms = nn.Linear(4, 8), nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
            self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.norms[1](x + self.inner(self.norms[0](x))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    images = torch.randn(20, 4)
    snn = transpike.convert(Residual().eval(), images, scheme=CSS(steps=8, silent=2))
    row = compare(snn, [images]).row
    monkeypatch.setattr("transpike.measure.conversion.relays", lambda graph: {})
    without = compare(snn, [images]).row
    # Eight values are added to what the first norm accumulates, and where the blocks' results meet.
    assert row.neuron_updates - without.neuron_updates == pytest.approx(8 * (8 + 8))
    gained = [a.energy_uj - b.energy_uj for a, b in zip(row.layers, without.layers, strict=True)]
    assert gained == pytest.approx([0, 8 * 8 * 0.9e-6, 0], abs=1e-12)
    assert row.energy_uj - without.energy_uj == pytest.approx(8 * (8 + 8) * 0.9e-6)


def test_a_sweep_leaves_out_what_is_known_and_orders_its_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sets = transpike.load_images("digits", loading=transpike.Loading(test_images=20))
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    schemes = [
        CSS(steps=6),
        CSS(steps=4, silent=0),
        CSS(steps=4),
        Rate(steps=8),
    ]
    task = Sweep("mlp", ann, sets, schemes, calibration=32)
    found = list(sweep(task, tmp_path))
    assert [len(each.rows) for each in found] == [1, 2, 3, 4]
    last = found[-1]
    assert [row.network for row in last.rows] == ["T4", "T6", "T4_silent-0", "T8_rate"], "a code's rows lie together"
    assert (last.model, last.dataset, last.images) == ("mlp", "digits", 20)
    assert last.calibration is not None and last.calibration.images == 32
    assert set(last.glossary) == set(CSS(silent=2, amplitude="layer").terms)
    images = next(iter(sets.test))[0]
    snn = transpike.load(tmp_path / "T4_silent-0")
    same = (snn(images).argmax(1) == ann(images).argmax(1)).double().mean().item()
    assert last.rows[2].agreement == pytest.approx(same)
    found = snn.diagnose(images[:24])
    (row,) = (row for row in last.rows if row.network == "T4_silent-0")
    assert row.output_error == pytest.approx(found.error) and row.diagnosis == found.words
    assert dict(row.advice) == dict(found.advice) and row.advice
    assert [layer.output_coupling for layer in row.layers] == pytest.approx([r.caused.coupling for r in found.rows])
    assert sum(layer.output_resolution for layer in row.layers) == pytest.approx(found.caused.resolution)  # type: ignore[misc]
    assert sum(layer.output_clipping for layer in row.layers) == pytest.approx(found.caused.clipping)  # type: ignore[misc]

    (again,) = sweep(replace(task, schemes=[*schemes, CSS(steps=2)]), tmp_path, rows=last.rows)
    assert [row.network for row in again.rows] == ["T2", "T4", "T6", "T4_silent-0", "T8_rate"]
    assert again.rows[1] is last.rows[0]
    assert list(sweep(task, tmp_path, rows=last.rows)) == []
