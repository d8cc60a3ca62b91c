"""What `transpike hybrid` measures behind an encoder, and what `report` and `analyze` make of it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from transpike.cli import main
from transpike.coding import (
    read_encoder,
)
from transpike.data import Loading, load_images
from transpike.measure.spiking import follow_steps
from transpike.models import create_model

QUICK = ["--machine.accelerator", "cpu", "--loading.train_images", "400", "--loading.test_images", "40"]
QUICK += ["--loading.batch_size", "10", "--calibration", "40", "--pretraining.epochs", "3", "--epochs", "1"]
VGG = ["--ann", "vgg5", "--network", '{"layers": [8, 0, 8, 8, 0], "hidden": 32, "dropout": 0.0}']
VGG += ["--settings", '{"stride": 2}', "--steps", "6"]


def results(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


def rows(told: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {row["part"]: row for row in told["operations"]["rows"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLP at T = 4, at T = 2 without tuning, its artificial network again; a VGG behind blocks that overlap."""
    place = tmp_path_factory.mktemp("encoded")
    mlp = ["--ann", str(place / "four")]
    for name, given in (
        ("four", ["--steps", "4", "--network", '{"hidden": 16}']),
        ("two", [*mlp, "--steps", "2", "--settings", '{"frequencies": 2}', "--last", "balance"]),
        ("ann", [*mlp, "--last", "ann"]),
        ("vgg", VGG),
    ):
        assert main(["hybrid", *QUICK, *given, "--out", str(place / name)]) == 0
    return place


def test_reading_out_early_is_showing_fewer_steps(runs: Path) -> None:
    told = results(runs / "four")
    after = told["accuracy_after"]
    assert len(after) == 4 and after[-1] == told["accuracy"]
    # Of a cyclic order the first two steps are those of T = 2.
    assert after[1] == next(row["accuracy"] for row in told["by_steps"] if row["steps"] == 2)
    model, encoder = (
        create_model(runs / "four").train(),
        read_encoder(json.loads((runs / "four/model.json").read_text())),
    )
    test = load_images("digits", loading=Loading(test_images=40)).test
    state = torch.get_rng_state()
    again, spikes = follow_steps(model, test, encoder, device="cpu")
    assert list(again) == after and spikes == told["encoding"]["spikes"]
    assert model.training and bool((torch.get_rng_state() == state).all())


def test_images_are_rebuilt_from_the_spikes(runs: Path) -> None:
    told = results(runs / "vgg")["encoding"]
    assert told["scheme"] == {
        **{"name": "dct", "steps": 6, "block": 4, "stride": 2, "order": "cyclic", "frequencies": None},
        **{"percentile": 93.5, "color": None},
    }
    assert told["steps"] == [1, 2, 4, 6]
    assert sorted(told["error"], reverse=True) == told["error"] and 0 < told["error"][3] < 0.7 * told["error"][0]
    assert [image["label"] for image in told["images"]] == ["1", "2", "3", "4"]
    sets = load_images("digits", loading=Loading(test_images=40))
    images, labels = next(iter(sets.test))
    encoder = read_encoder(json.loads((runs / "vgg" / "model.json").read_text()))
    first = images[labels == 2][:1]
    expected = (encoder.decode(encoder(first)[:2])[0, 0, :8, :8] * sets.std[0] + sets.mean[0]).clamp(0, 1)
    two = told["images"][1]
    for png, pixels in ((two["png"], first[0, 0] * sets.std[0] + sets.mean[0]), (two["rebuilt"][1], expected)):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert shown.shape == (8, 8, 3)
        np.testing.assert_allclose(shown[..., 0] / 255, pixels, atol=0.5 / 255 + 1e-6)


def test_operations_of_a_run(runs: Path) -> None:
    told = results(runs / "vgg")
    work, spiking, found = told["operations"], told["spiking"], rows(told)
    assert (work["image"], work["input"], work["steps"]) == ([1, 8, 8], [1, 12, 12], 6)
    # Eq. 13 by hand, behind the blocks laid out and for the image itself.
    for part, side in (("ann", 12), ("ann_image", 8)):
        half, quarter = side // 2, side // 4
        convolutions = 9 * side**2 * 8 + 2 * 9 * 8 * half**2 * 8
        assert found[part]["macs"] == convolutions + 8 * quarter**2 * 32 + 32 * 32 + 32 * 10
        assert found[part]["energy_uj"] == pytest.approx(found[part]["macs"] * 4.6e-6)
    assert spiking["ann_macs"] == found["ann"]["macs"]
    # Ternary spikes reach the first layer: no multiply-accumulate, and an addition for each spike and target.
    assert (found["synapses"]["macs"], found["synapses"]["accumulates"]) == (0, spiking["synops"])
    assert work["input_rate"] * 6 * spiking["ann_macs"] == pytest.approx(spiking["synops"])
    own = 2 * 144 * 4 + 6 * 144, 2 * 6 * 144 + told["encoding"]["spikes"]
    assert (found["encoder"]["macs"], found["encoder"]["accumulates"]) == own
    whole = sum(found[part]["energy_uj"] for part in ("synapses", "neurons", "encoder"))
    assert found["spiking"]["energy_uj"] == pytest.approx(whole)
    assert whole - found["encoder"]["energy_uj"] == pytest.approx(spiking["energy_uj"])


def test_operations_of_an_artificial_network_alone(runs: Path) -> None:
    for folder in (runs / "ann", runs / "four" / "ann"):
        assert rows(results(folder)) == {
            "ann": {
                **{"part": "ann", "macs": 64 * 16 + 16 * 10, "accumulates": 0, "multiplications": 0, "shifts": 0},
                "energy_uj": pytest.approx((64 * 16 + 16 * 10) * 4.6e-6),
            }
        }


def test_every_stage_is_reported_and_runs_side_by_side(runs: Path, tmp_path: Path) -> None:
    folders = ",".join(str(runs / name) for name in ("two", "vgg", "ann"))
    assert main(["report", folders, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for told in (
        "2 runs with an input encoder, side by side.",
        "spiking_mlp on digits, T = 2, no overlap, 2 frequencies, not tuned",
        "What the encoder shows: dct, T = 2",
        "DCT-SNN’s Eq. 13 counts 1,184 multiply-accumulates for the artificial network.",
        "lays an image of 8 × 8 out as 12 × 12, 2.25 times as large.",
    ):
        assert told in page
    assert "poolings" not in page, "of 8 and of 12 pixels two poolings leave nothing out"


def test_a_convolutional_run_is_analyzed_beside_its_artificial_network(runs: Path, tmp_path: Path) -> None:
    given = ["--teacher", str(runs / "vgg" / "ann"), "--images", "40", "--shown", "2"]
    assert main(["analyze", str(runs / "vgg"), *given, "--out", str(tmp_path / "out")]) == 0
    told = results(tmp_path / "out")
    # The same images, encoded or laid out, as when the run was tested.
    assert [network["accuracy"] for network in told["networks"]] == [
        pytest.approx(results(runs / "vgg" / "ann")["accuracy"]),
        pytest.approx(results(runs / "vgg")["accuracy"]),
    ]
    assert [(stage["tap"], stage["size"]) for stage in told["features"]] == [
        ("features.1", [12, 12]),
        ("features.7", [6, 6]),
    ]
    assert told["networks"][1]["accuracy"] > 0.2
    assert [len(panel["map"]) for panel in told["saliency"]["panels"]] == [6, 6, 6, 6]
    assert max(max(map(max, panel["map"])) for panel in told["saliency"]["panels"]) == pytest.approx(1)
    assert (told["neurons"][0]["type"], told["neurons"][0]["networks"]) == ("DCTLIFNode", [1])


def test_a_fully_connected_run_is_analyzed_without_maps(runs: Path, tmp_path: Path) -> None:
    both = f"{runs / 'four'},{runs / 'two'}"
    assert main(["analyze", both, "--images", "40", "--out", str(tmp_path / "out")]) == 0
    told = results(tmp_path / "out")
    assert [network["accuracy"] for network in told["networks"]] == [
        pytest.approx(results(runs / name)["accuracy"]) for name in ("four", "two")
    ]
    assert told["features"] == [] and told["saliency"]["panels"] == []
    assert told["neurons"][0]["networks"] == [0, 1]
    assert "Sorted logits, mean over images" in (tmp_path / "out" / "report.html").read_text()


def test_a_stage_in_a_folder_of_its_own_is_analyzed_on_the_runs_images(runs: Path, tmp_path: Path) -> None:
    assert main(["analyze", str(runs / "vgg" / "balanced"), "--shown", "0", "--out", str(tmp_path / "out")]) == 0
    told = results(tmp_path / "out")
    assert told["images"] == 40
    assert told["networks"][0]["accuracy"] == pytest.approx(results(runs / "vgg" / "balanced")["accuracy"])
