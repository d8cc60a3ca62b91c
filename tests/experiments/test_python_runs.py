"""What `fit` and `distill` leave when Python code calls them, and what the commands make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from transpike.cli import main
from transpike.data import ImageSets, Loading, load_images
from transpike.errors import ConfigError
from transpike.models import create_model, load_weights
from transpike.results import Training, read, read_result
from transpike.train import Loaders, Machine, TrainOptions, evaluate, fit
from transpike.train.distill import distill

ONCE = TrainOptions(epochs=1, machine=Machine(accelerator="cpu"))


@pytest.fixture(scope="module")
def sets() -> ImageSets:
    return load_images("digits", loading=Loading(train_images=100, test_images=40, batch_size=20))


def mlp(name: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, hidden=6, in_channels=1, image_size=8)


def own() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_network_and_images_of_ours_are_a_run_for_every_command(sets: ImageSets, tmp_path: Path) -> None:
    place, net = tmp_path / "run", mlp()
    fitted = fit(net, Loaders.of(sets), ONCE, folder=place)
    result = read_result(place)
    assert isinstance(result, Training) and (result.model, result.dataset, result.images) == ("mlp", "digits", 40)
    assert result.accuracy == evaluate(net, sets.test, machine=ONCE.machine).accuracy
    assert [row.loss for row in result.epochs] == [row["loss"] for row in fitted.curves]
    assert run("evaluate", place, "--out", tmp_path / "tested") == 0
    tested = read_result(tmp_path / "tested")
    assert (tested.accuracy, tested.images) == (result.accuracy, 40)  # type: ignore[union-attr]
    assert run("convert", place, "--steps", 3, "--calibration", 20, "--out", tmp_path / "converted") == 0
    assert run("analyze", place, "--images", 8, "--shown", 1, "--out", tmp_path / "looked") == 0
    assert run("report", place, "--out", tmp_path / "page.html") == 0
    assert "of the test images right" in (tmp_path / "page.html").read_text()


def test_a_module_and_loaders_of_ones_own_give_a_page(
    sets: ImageSets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, net = tmp_path / "run", own()
    images = DataLoader(TensorDataset(torch.randn(40, 1, 8, 8), torch.arange(40) % 10), batch_size=20)
    fitted = fit(net, Loaders(images, images), ONCE, folder=place)
    assert run("report", place, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert f"Sequential on TensorDataset: {fitted.validation_accuracy:.2%}"[:-1] in page  # a narrow space before %
    assert "of the validation images right" in page
    capsys.readouterr()
    for verb in ("evaluate", "convert", "analyze"):
        assert run(verb, place, "--data", "digits", "--out", tmp_path / verb) == 2
        told = capsys.readouterr().err.strip()
        assert "\n" not in told and f"{place}: its network, Sequential, is a module of your own" in told
    load_weights(again := own(), place)
    assert torch.equal(again(torch.ones(2, 1, 8, 8)), net(torch.ones(2, 1, 8, 8)))


def test_a_network_of_ours_on_other_images_needs_these(
    sets: ImageSets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    fit(mlp(), Loaders(sets.train, None, sets.test), ONCE, folder=place)
    capsys.readouterr()
    assert run("evaluate", place, "--out", tmp_path / "tested") == 2
    assert "give --data, the images; no run says on which it was trained" in capsys.readouterr().err
    assert run("evaluate", place, "--data", "digits", "--loading.test_images", 40, "--out", tmp_path / "tested") == 0
    assert read_result(tmp_path / "tested").accuracy == read_result(place).accuracy  # type: ignore[union-attr]


@pytest.mark.parametrize("change", ["activation", "layer", "encode", "argument"])
def test_what_create_model_would_make_otherwise_is_a_module_of_ones_own(
    change: str, sets: ImageSets, tmp_path: Path
) -> None:
    net = create_model("resnet8x4", width=4, in_channels=1, activation=nn.GELU) if change == "argument" else mlp()
    if change == "activation":
        name = next(name for name, module in net.named_modules() if isinstance(module, nn.ReLU))
        net.set_submodule(name, nn.GELU())
    if change == "layer":
        name = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
        net.set_submodule(name, nn.Linear(6, 12))
    fit(net, Loaders.of(sets), ONCE, folder=tmp_path / "run", encode=torch.relu if change == "encode" else None)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["own"] is True


def test_a_student_and_who_taught_it(sets: ImageSets, tmp_path: Path) -> None:
    place, options = tmp_path / "run", replace(ONCE, steps=2)
    distill(mlp("spiking_mlp"), mlp(), Loaders.of(sets), options, folder=place, method="kd", settings={"alpha": 0.5})
    found = read(place)
    assert isinstance(found.result, Training) and found.result.distillation is not None and found.run is not None
    learned = found.result.distillation
    assert (learned.teacher, learned.method, learned.settings) == ("mlp", "kd", {"alpha": 0.5})
    assert found.run.verb == "transpike.train.distill" and found.run.options["method"] == "kd"
    assert run("evaluate", place, "--out", tmp_path / "tested") == 0
    assert read_result(tmp_path / "tested").accuracy == found.result.accuracy  # type: ignore[union-attr]
    assert run("report", place, "--out", tmp_path / "page.html") == 0
    assert "taught by mlp (kd)" in (tmp_path / "page.html").read_text()


def test_a_run_is_neither_replaced_nor_gone_on_with_by_a_command(
    sets: ImageSets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    fit(mlp(), Loaders.of(sets), ONCE, folder=place)
    with pytest.raises(ConfigError, match="holds an earlier training"):
        fit(mlp(), Loaders.of(sets), ONCE, folder=place)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        fit(mlp(), Loaders.of(sets), ONCE, folder=tmp_path / "other")
    before = (place / "results.json").read_bytes()
    fit(mlp(), Loaders.of(sets), ONCE, folder=place, resume=True)
    assert (place / "results.json").read_bytes() == before
    capsys.readouterr()
    assert run("train", "--resume", place) == 2
    assert f"{place}: a run of transpike.train.fit from Python: continue it there" in capsys.readouterr().err


class Noted(nn.Linear):
    """A layer whose state dict holds more than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


def test_weights_that_safetensors_cannot_hold_stay_in_the_checkpoints(sets: ImageSets, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"only the checkpoints hold the weights, because 1\._extra_state is not a tensor"
    ):
        fit(nn.Sequential(nn.Flatten(), Noted(64, 10)), Loaders.of(sets), ONCE, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert run("report", tmp_path / "run", "--out", tmp_path / "page.html") == 0
