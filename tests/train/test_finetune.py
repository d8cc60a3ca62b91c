"""Fine-tuning of a converted network, from Python and as a command: silent steps fall, accuracy does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import transpike
from transpike.cli import main
from transpike.coding import Rate
from transpike.conversion import SpikingNetwork
from transpike.errors import ConfigError, ModelError
from transpike.results import Training, read_result
from transpike.train import Loaders, Machine
from transpike.train.finetune import TUNING, Finetuned, Silencing, finetune

OPTIONS = replace(TUNING, epochs=20, machine=Machine(accelerator="cpu"), optim=replace(TUNING.optim, lr=3e-3))
SILENCING = Silencing(tolerance=1.0)


def task(count: int, seed: int) -> TensorDataset:
    """Which of two sums of pixels is the larger, of images that have a large part in common."""
    images = torch.rand(count, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(images + 3, (images[:, ::2].sum(1) > images[:, 1::2].sum(1)).long())


def cancelling() -> nn.Module:
    """It takes differences of large numbers, which early digits get wrong."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    optimiser = torch.optim.Adam(ann.parameters(), lr=1e-2)
    images, labels = task(1024, 0).tensors
    for _ in range(200):
        loss = nn.functional.cross_entropy(ann(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return ann.eval()


def loaders() -> Loaders:
    train, held, test = (task(count, seed) for count, seed in ((512, 0), (400, 1), (400, 2)))
    generator = torch.Generator().manual_seed(0)
    shuffled = DataLoader(train, batch_size=32, shuffle=True, generator=generator)
    return Loaders(shuffled, DataLoader(held, batch_size=100), DataLoader(test, batch_size=100))


@pytest.fixture(scope="module")
def snn() -> SpikingNetwork:
    return transpike.convert(cancelling(), task(512, 0).tensors[0], scheme=transpike.CSS(steps=8))


@pytest.fixture(scope="module")
def tuned(snn: SpikingNetwork, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finetuned, Path]:
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    return finetune(snn, loaders(), OPTIONS, folder=folder, silencing=SILENCING), folder


def accuracy(network: SpikingNetwork, data: TensorDataset) -> float:
    images, labels = data.tensors
    return float((network(images).argmax(1) == labels).double().mean())


def test_silent_steps_fall_at_equal_accuracy(tuned: tuple[Finetuned, Path], snn: SpikingNetwork) -> None:
    result, _ = tuned
    record, network = result.record, result.network
    assert network.latency < snn.latency
    assert (record.before.latency, record.after.latency) == (snn.latency, network.latency)
    assert record.before.waits == snn.timing.waits and record.after.waits == network.timing.waits
    wanted = accuracy(snn, task(400, 1)) - 0.01
    assert accuracy(network, task(400, 1)) >= wanted
    (chosen,) = (row for row in record.schedules if row.chosen)
    assert chosen.weights == "tuned" and chosen.accuracy == pytest.approx(accuracy(network, task(400, 1)))
    assert chosen.silent == sum(network.timing.waits.values())
    assert record.before.accuracy == pytest.approx(accuracy(snn, task(400, 2)))
    assert record.after.accuracy == pytest.approx(accuracy(network, task(400, 2)))
    # In no more steps, the converted weights are less accurate.
    alone = [row for row in record.schedules if row.weights == "converted" and row.latency <= network.latency]
    assert alone and all(row.accuracy < chosen.accuracy for row in alone)
    first, last = result.curves[0], result.curves[-1]
    assert last["violation"] < first["violation"]


def test_its_folder_is_read_by_what_reads_conversions(tuned: tuple[Finetuned, Path]) -> None:
    result, folder = tuned
    network = transpike.load(folder / "T8")
    images = task(50, 3).tensors[0]
    assert torch.equal(network(images), result.network(images))
    assert set(network.residuals) == set(network.timing.waits)
    assert str(network.describe())
    written = read_result(folder)
    assert isinstance(written, Training) and written.finetuning == result.record
    assert written.accuracy == result.record.after.accuracy
    assert main(["report", str(folder), "--out", str(folder / "report.html")]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"latency {result.record.before.latency} before, {result.record.after.latency} after" in page


def test_the_network_that_was_converted_stays(snn: SpikingNetwork, tuned: tuple[Finetuned, Path]) -> None:
    assert tuned[1].is_dir()
    again = transpike.convert(cancelling(), task(512, 0).tensors[0], scheme=transpike.CSS(steps=8))
    assert torch.equal(snn(task(50, 3).tensors[0]), again(task(50, 3).tensors[0]))


def test_a_seed_gives_one_network(snn: SpikingNetwork, tmp_path: Path) -> None:
    short = replace(OPTIONS, epochs=2)
    first, second = (finetune(snn, loaders(), short, folder=tmp_path / name) for name in "ab")
    for mine, other in zip(first.network.buffers(), second.network.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"snn": nn.Linear(8, 2)}, ModelError, "takes a converted network, of transpike.convert or transpike.load"),
        ({"loaders": replace(loaders(), validation=None)}, ConfigError, "judges silent steps on validation images"),
        ({"options": replace(OPTIONS, steps=4)}, ConfigError, "a converted network has its own, 8; leave steps out"),
    ],
)
def test_what_cannot_be_tuned_is_one_error(
    change: dict[str, object], error: type[Exception], words: str, snn: SpikingNetwork, tmp_path: Path
) -> None:
    given: dict[str, object] = {"snn": snn, "loaders": loaders(), "options": OPTIONS, **change}
    with pytest.raises(error, match=words):
        finetune(**given, folder=tmp_path / "run")  # type: ignore[arg-type]


def test_a_scheme_without_a_bound_is_one_error(tmp_path: Path) -> None:
    rate = transpike.convert(cancelling(), task(64, 0).tensors[0], scheme=Rate(steps=16))
    with pytest.raises(ModelError, match="Rate has no known bound"):
        finetune(rate, loaders(), OPTIONS, folder=tmp_path / "run")


@pytest.mark.parametrize(("name", "value"), [("silent", -1), ("penalty", -0.5), ("tolerance", 101), ("judged", 0)])
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        Silencing(**{name: value})  # type: ignore[arg-type]


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of a small network, as `transpike convert` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "converted"
    torch.manual_seed(0)
    images = torch.cat([x for x, _ in transpike.load_images("digits").calibration(256)])
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    transpike.convert(ann, images, scheme=transpike.CSS(steps=6)).save(folder / "T6")
    return folder / "T6"


def test_the_command_tunes_evaluates_and_resumes(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["finetune", str(digits), "--data", "digits", "--epochs", "2", "--out", str(out), "--judged", "100"]
    assert main([*given, "--json", str(tmp_path / "copy.json")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    result = read_result(out)
    assert isinstance(result, Training) and result.finetuning is not None
    record = result.finetuning
    assert f"latency {record.before.latency} before, {record.after.latency} after" in said
    assert record.images == 100 and result.images == 360
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads((out / "results.json").read_text())
    assert main(["evaluate", str(out / "T6"), "--out", str(tmp_path / "checked")]) == 0
    checked = read_result(tmp_path / "checked")
    assert checked.rows[0].accuracy == pytest.approx(record.after.accuracy)  # type: ignore[union-attr]
    assert main(["finetune", str(digits), "--resume", str(out)]) == 0
    again = read_result(out)
    assert isinstance(again, Training) and again.finetuning == record
    assert main(["finetune", str(digits), "--resume", str(out), "--penalty", "7"]) == 2
    assert "the run began with other options (penalty)" in capsys.readouterr().err
    assert main(["finetune", str(digits), "--resume", str(out), "--loading.batch_size", "7"]) == 2
    assert "the run began with other options (loading.batch_size)" in capsys.readouterr().err


def test_wrong_input_is_one_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, words in (
        ([str(digits.parent)], f"give one of the networks in it: {digits}"),
        ([str(tmp_path)], "no converted network (network.json) of `transpike convert` is there"),
        ([str(digits)], "give --data, the images to tune it on"),
        ([str(digits), "--data", "nmnist"], "nmnist gives frames of events"),
        ([str(digits), "--data", "digits", "--silent", "-1"], "silent=-1"),
    ):
        assert main(["finetune", *given, "--out", str(tmp_path / "none")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert words in said, said
        assert not (tmp_path / "none").exists()
