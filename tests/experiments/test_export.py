"""`transpike export`: files for other runtimes, from a folder that `transpike convert` wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import transpike
from transpike.cli import main
from transpike.coding import Rate
from transpike.results import start_run


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    ann = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9), torch.nn.ReLU(), torch.nn.Linear(9, 10))
    snn = transpike.convert(ann.eval(), torch.rand(64, 1, 8, 8), scheme=transpike.CSS(steps=4, silent=1))
    snn.save(folder / "T4")
    return folder / "T4"


def test_to_events(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "events"
    assert (
        main(["export", str(converted), "--to", "events", "--images", "3", "--data", "digits", "--out", str(out)]) == 0
    )
    counts, snn = json.loads((out / "events.json").read_text()), transpike.load(converted)
    assert (counts["images"], counts["latency"], counts["interval"]) == (3, snn.latency, snn.interval)
    with np.load(out / "spikes.npz") as spikes:
        assert len(spikes["step"]) == sum(counts["events"].values()) > 0
        assert [str(name) for name in spikes["layers"]] == list(counts["events"])
    assert f"3 images. The output is complete {snn.latency} steps after an image" in capsys.readouterr().out


def test_events_of_images_that_stop_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    ann = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9), torch.nn.ReLU(), torch.nn.Linear(9, 10))
    snn = transpike.convert(ann.eval(), torch.rand(64, 1, 8, 8), scheme=transpike.CSS(steps=6, levels=(1, 2, 4, 8)))
    words = [str(tmp_path / "net"), "--to", "events", "--images", "4", "--data", "digits", "--agreement", "0.8"]
    snn.save(tmp_path / "net")
    assert main(["export", *words]) == 2
    assert "saved without a stop rule; snn.calibrate_stop(images)" in capsys.readouterr().err
    snn.calibrate_stop(torch.rand(64, 1, 8, 8))
    snn.save(tmp_path / "net")
    assert main(["export", *words, "--bits", "6"]) == 2
    assert "the stop rule is that of the weights as they are" in capsys.readouterr().err
    assert main(["export", *words]) == 0
    counts = json.loads((tmp_path / "net" / "events" / "events.json").read_text())
    assert len(counts["steps"]) == 4 and max(counts["steps"]) < 6
    mean = sum(counts["steps"]) / 4
    assert f"On average, images stop after {mean:.3g} steps of the output." in capsys.readouterr().out


def test_events_keep_the_normalisation_of_the_run(converted: Path, tmp_path: Path) -> None:
    normal = {"mean": [5.0], "std": [0.5]}
    run = start_run("convert", {"data": "digits", "loading": normal}, out=tmp_path / "run").folder
    shutil.copytree(converted, run / "T4")
    counts = []
    for name, words in {
        "recorded": [],
        "batches": ["--loading.batch_size", "7"],
        "plain": ["--loading.mean", "[0]"],
    }.items():
        out = tmp_path / name
        assert main(["export", str(run / "T4"), "--to", "events", "--images", "3", *words, "--out", str(out)]) == 0
        counts.append(json.loads((out / "events.json").read_text())["events"])
    assert counts[0] == counts[1] != counts[2]


def test_to_onnx_and_torch_beside_the_network(converted: Path) -> None:
    assert main(["export", str(converted)]) == 0
    assert main(["export", str(converted), "--to", "torch"]) == 0
    assert {path.name for path in (converted / "onnx").iterdir()} == {"step.onnx", "schedule.json"}
    assert {path.name for path in (converted / "torch").iterdir()} == {"step.pt2", "schedule.json"}


def test_to_integers(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["export", str(converted), "--to", "integers", "--bits", "6", "--out", str(tmp_path / "whole")]) == 0
    description = json.loads((tmp_path / "whole" / "integers.json").read_text())
    assert {op["bits"] for op in description["ops"] if "bits" in op} == {6}
    told = capsys.readouterr().out.splitlines()
    assert {"weights", "bytes", "cores"} <= {word for line in told for word in line.split()}
    assert all(len(line) <= 80 for line in told if str(tmp_path) not in line), "the table fits a narrow terminal"
    assert not any("…" in line for line in told), "every name stands whole"
    words = ["--to", "events", "--bits", "6", "--data", "digits", "--out", str(tmp_path / "events")]
    assert main(["export", str(converted), *words]) == 0
    found = json.loads((tmp_path / "events" / "events.json").read_text())
    assert found["events"] and found["latency"] == transpike.load(converted).latency


def test_to_nir(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(converted), "--to", "nir", "--out", str(tmp_path / "new")]) == 2
    assert "NIR has no spike with a sign or a size" in capsys.readouterr().err and not (tmp_path / "new").exists()
    ann = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 4)).eval()
    transpike.convert(ann, torch.rand(16, 6), scheme=Rate(steps=8)).save(tmp_path / "rate")
    assert main(["export", str(tmp_path / "rate"), "--to", "nir"]) == 0
    assert len(transpike.import_nir(tmp_path / "rate" / "nir" / "network.nir")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "nirr"], "to"),
        (["--to", "events"], "give --data, the images"),
        (["--to", "events", "--images", "0", "--data", "digits"], "images=0: expected a whole number of at least 1"),
        (
            ["--to", "nir", "--bits", "8"],
            "bits: --to nir does not take this option; it is for onnx, torch, integers, events",
        ),
        (["--agreement", "0.9"], "agreement: --to onnx does not take this option; it is for events"),
        (["--images", "3"], "images: --to onnx does not take this option; it is for events"),
        (["--opset", "3"], "opset=3: expected a whole number of at least 18"),
    ],
)
def test_a_wrong_option_is_one_line(
    converted: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(converted), *words, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) <= 2
    assert not (tmp_path / "new").exists()


def test_a_wrong_folder_is_one_line(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "nowhere")]) == 2
    assert "no such folder; give one that `transpike convert` wrote" in capsys.readouterr().err
    assert main(["export", str(converted.parent)]) == 2
    assert "holds several converted networks; give one of them" in capsys.readouterr().err
