"""`transpike train` on spiking networks: images over time, frames of events, and what is told in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transpike.cli import main
from transpike.data import Loading, load_images
from transpike.models import create_model
from transpike.train import Machine, evaluate

CPU = ["--machine.accelerator", "cpu"]
TINY = ["--model", "spiking_resnet19", "--network", '{"width": 4}', *CPU]


def test_images_over_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    recipe = ["--recipe.loss", "tet", "--recipe.mixup", "0.2", "--loading.augment", "standard+randaugment+cutout:3"]
    images = ["--loading.train_images", "200", "--loading.test_images", "60"]
    assert main(["train", *TINY, *recipe, *images, "--steps", "2", "--epochs", "1", "--out", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert [row["steps"] for row in results["by_steps"]] == [1, 2, 4]
    assert results["by_steps"][1]["accuracy"] == results["accuracy"]
    net, test = create_model(run), load_images("digits", loading=Loading(test_images=60)).test
    told = evaluate(net, test, machine=Machine(accelerator="cpu"), steps=2)
    assert (told.accuracy, told.loss) == (results["accuracy"], pytest.approx(results["loss"]))
    assert main(["evaluate", str(run), "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["accuracy"] == results["accuracy"]
    spiking = results["spiking"]
    assert [layer["name"] for layer in spiking["layers"][:2]] == ["act", "layers.0.act1"]
    # A neuron for each pixel and channel: the stem's of 8x8, three blocks of 8x8, three of 4x4, two of 2x2, the head's.
    neurons = 64 * 4 + 6 * 64 * 8 + 6 * 16 * 16 + 4 * 4 * 32 + 256
    assert spiking["neurons"] == neurons
    assert spiking["macs"] == 2 * 64 * 9 * 4  # the stem alone, twice
    assert spiking["rate"] == pytest.approx(sum(x["rate"] * x["neurons"] for x in spiking["layers"]) / neurons)
    assert 0 < spiking["synops"] < spiking["ann_macs"]
    printed = capsys.readouterr().out
    assert "layers.0.act1" in printed and "T = 4" in printed and "at T = 2 after epoch 1" in printed


def test_frames_of_events(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    how = ["--data", "nmnist", "--root", str(events), "--steps", "3", "--split-by", "time", "--test-steps", "[2, 900]"]
    mixed = ["--recipe.cutmix", "1.0", "--loading.batch_size", "6", "--epochs", "1"]
    assert main(["train", *TINY, *how, *mixed, "--out", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert (results["images"], [row["steps"] for row in results["by_steps"]]) == (10, [2, 3])
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "arning" in line)
    assert line.startswith("transpike: warning: not tested at T = 900: ") and "fewer than 900 frames" in line
    # Counts of events are no analog values.
    assert results["spiking"]["macs"] == 0 < results["spiking"]["synops"]
    assert main(["evaluate", str(run), "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["accuracy"] == results["accuracy"]
    model = json.loads((run / "model.json").read_text())
    assert (model["in_channels"], model["image_size"], model["steps"], model["split_by"]) == (2, 34, 3, "time")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "resnet20", "--steps", "4"], "steps=4, which is for spiking networks; resnet20 does not spike"),
        (["--model", "resnet20", "--data", "nmnist"], "nmnist gives frames of events"),
        (["--model", "resnet20", "--recipe.loss", "tet"], "give steps"),
        ([*TINY, "--steps", "0"], "steps=0"),
        ([*TINY, "--loading.augment", "standard+mosaic"], "loading.augment='mosaic': expected 'none'"),
        ([*TINY, "--data", "nmnist", "--loading.augment", "randaugment"], "randaugment is for images"),
    ],
)
def test_what_does_not_go_together_is_told(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
