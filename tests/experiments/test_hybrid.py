"""`transpike hybrid`: all stages, any one from what an earlier run has saved, and what reads its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rows import COMMANDS, Command

from transpike.cli import main
from transpike.coding import ENCODERS, create_encoder, read_encoder
from transpike.data.sources import SOURCES
from transpike.models import create_model
from transpike.neurons import reset_net
from transpike.train.hybrid import transfer

SMALL = ["--network", '{"hidden": 24}', "--machine.accelerator", "cpu", "--loading.test_images", "100"]
QUICK = [*SMALL, "--pretraining.epochs", "2", "--epochs", "1", "--loading.train_images", "400", "--calibration", "64"]
QUICK += ["--loading.batch_size", "20"]


def results(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


def timeless(told: dict[str, Any]) -> dict[str, Any]:
    """Results without what a clock says."""
    return told | {"epochs": [row | {"seconds": 0} for row in told.get("epochs", ())]}


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["hybrid", *QUICK, *arguments, "--out", str(out)]) == 0
    return results(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages at T = 16 on digits."""
    folder = tmp_path_factory.mktemp("hybrid") / "run"
    run(folder)
    return folder


def test_the_artificial_network_may_have_batches_of_its_own(whole: Path, tmp_path: Path) -> None:
    batches = ["--loading.batch_size", "40", "--pretraining.batch_size", "20"]
    alone = run(tmp_path / "ann", *batches, "--last", "ann")  # the last of an option given twice counts
    kept = ("train_loss", "train_accuracy", "loss", "learning_rate")
    shown = [{name: row.get(name) for name in kept} for row in alone["epochs"]]
    assert shown == [{name: row.get(name) for name in kept} for row in results(whole / "ann")["epochs"]]


def test_all_stages_and_what_they_leave(whole: Path) -> None:
    told = results(whole)
    assert (told["kind"], told["model"], told["images"], len(told["epochs"])) == ("training", "spiking_mlp", 100, 1)
    assert [row["steps"] for row in told["by_steps"]] == [8, 16, 32]
    assert told["by_steps"][1]["accuracy"] == told["accuracy"]
    assert told["stages"]["ann"] | results(whole / "ann") == results(whole / "ann")
    assert told["stages"]["balanced"]["accuracy"] == results(whole / "balanced")["accuracy"] > 0.2
    # Only spikes reach the weights: no multiply-accumulate, and the encoder's ternary ones count as accumulates.
    spiking = told["spiking"]
    assert spiking["macs"] == 0 < spiking["synops"] < 16 * spiking["ann_macs"]
    assert (spiking["neurons"], spiking["ann_macs"]) == (24, 24 * 64 + 24 * 10)
    model = json.loads((whole / "model.json").read_text())
    assert told["thresholds"] == {"layers.1": model["kwargs"]["v_threshold"][0]}
    assert model["encoder"]["thresholds"][0] < 0 < model["encoder"]["thresholds"][1]
    assert create_model(whole).layers[1].v_threshold == told["thresholds"]["layers.1"]
    assert json.loads((whole / "run.json").read_text())["verb"] == "hybrid"
    assert (whole / "curves.csv").is_file() and (whole / "ann" / "curves.csv").is_file()


@pytest.mark.parametrize("stage", [".", "ann", "balanced"])
def test_every_stage_is_evaluated_with_its_encoder(stage: str, whole: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(whole / stage), "--out", str(tmp_path / "again")]) == 0
    again, told = results(tmp_path / "again"), results(whole / stage)
    assert (again["accuracy"], again["images"]) == (told["accuracy"], told["images"])
    assert again["loss"] == pytest.approx(told["loss"])


def test_the_report_reads_it(whole: Path, tmp_path: Path) -> None:
    assert main(["report", str(whole), "--out", str(tmp_path / "page.html")]) == 0
    assert "spiking_mlp on digits" in (tmp_path / "page.html").read_text()


def test_a_stage_alone_from_what_another_run_has_saved(whole: Path, tmp_path: Path) -> None:
    ann = run(tmp_path / "ann", "--last", "ann")
    assert (ann["kind"], ann["model"], ann["accuracy"]) == ("training", "mlp", results(whole / "ann")["accuracy"])
    balanced = run(tmp_path / "balanced", "--ann", str(tmp_path / "ann"), "--last", "balance")
    assert balanced["thresholds"] == results(whole)["thresholds"]
    assert balanced["accuracy"] == results(whole / "balanced")["accuracy"]
    tuned = run(tmp_path / "tuned", "--balanced", str(tmp_path / "balanced"))
    assert tuned["accuracy"] == results(whole)["accuracy"]
    assert tuned["loss"] == pytest.approx(results(whole)["loss"])
    assert {stage: row["accuracy"] for stage, row in tuned["stages"].items()} == {
        "ann": ann["accuracy"],
        "balanced": balanced["accuracy"],
    }
    # From a whole run: its artificial network, balanced anew for another T.
    fewer = run(tmp_path / "fewer", "--ann", str(whole), "--steps", "4", "--settings", '{"frequencies": 4}')
    assert fewer["stages"]["ann"]["accuracy"] == ann["accuracy"]
    assert fewer["thresholds"] != tuned["thresholds"]


def test_a_run_continues_where_it_ended(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out)
    (out / "results.json").unlink()
    (out / "weights.safetensors").unlink()
    before = (out / "ann" / "weights.safetensors").stat().st_mtime_ns
    assert main(["hybrid", "--resume", str(out)]) == 0
    assert results(out)["accuracy"] == results(whole)["accuracy"]
    assert (out / "ann" / "weights.safetensors").stat().st_mtime_ns == before
    assert len(results(out)["epochs"]) == 1


@pytest.mark.parametrize("encoder", ["dct", "poisson"])
def test_a_run_killed_between_its_stages_continues_as_if_it_had_not_been(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """As by SIGKILL: nothing catches it."""

    def killed(*_: Any) -> None:
        raise Killed

    given = ["--encoder", encoder, "--steps", "4", "--test-steps", "4", "--settings", "{}"]
    whole = run(tmp_path / "whole", *given)
    for stage, left in (("balance", ["ann"]), ("tune", ["ann", "balanced"])):
        out = tmp_path / stage
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"transpike.experiments.hybrid.{stage}", killed)
            main(["hybrid", *QUICK, *given, "--out", str(out)])
        assert sorted(path.name for path in out.iterdir()) == [*left, "run.json"]
        torch.manual_seed(1)  # another process draws from other states
        assert main(["hybrid", "--resume", str(out)]) == 0
        assert timeless(results(out)) == timeless(whole)
        assert timeless(results(out / "balanced")) == timeless(results(tmp_path / "whole" / "balanced"))
        assert (out / "weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ann", "resnet20"], "layer bn (BatchNorm2d) normalises"),
        (["--ann", "resnet20"], "`transpike convert`"),
        (["--ann", "mlpp"], "no network 'mlpp'"),
        (["--ann", "torchvision/alexnet"], "layer features.0 (Conv2d) has a bias"),
        (["--ann", "vgg5", "--network", '{"layers": [8]}'], "network={'layers': [8]}: vgg5 cannot be made"),
        (["--network", '{"num_classes": 3}'], "network: num_classes follows from the images"),
        (["--network", '{"hidden": []}'], "has no layer of neurons"),
        (["--pretraining.network", '{"hiden": 3}'], "mlp takes no 'hiden'. Did you mean hidden?"),
        (["--pretraining.network", '{"hidden": 3}'], "not a spiking twin of this MLP"),
        (["--pretraining.batch_size", "0"], "pretraining.batch_size=0"),
        (["--pretraining.network", '{"dropout": 3}'], "dropout probability has to be between 0 and 1"),
        (["--neuron.leak", "2"], "neuron={'leak': 2}: DCTLIFNode: leak=2: expected a number in (0, 1]"),
        (["--neuron", '{"leek": 0.5}'], "takes no 'leek'. Did you mean leak?"),
        (["--neuron", '{"spiking_neuron": "LIF"}'], "Did you mean 'LIFNode'?"),
        (["--neuron", '{"surrogate_function": 3}'], "neuron={'surrogate_function': 3}"),
        (["--encoder", "dctt"], "Did you mean dct?"),
        (["--encoder", "phase", "--settings", '{"phases": 2.5}'], "phases=2.5: expected a whole number"),
        (["--encoder", "phase", "--settings", '{"mean": 0}'], "do not fit the phase encoder, which takes phases."),
        (
            ["--encoder", "poisson", "--settings", '{"generator": 3}'],
            "do not fit the poisson encoder, which takes none.",
        ),
        (["--settings", '{"blok": 4}'], "do not fit the dct encoder, which takes block, stride, order"),
        (["--settings", '{"frequencies": [0.5]}'], "frequencies=[0.5]: expected one or more zigzag ranks"),
        (["--steps", "0"], "steps=0"),
        (["--percentile", "0"], "percentile=0"),
        (["--epochs", "0"], "epochs=0"),
        (["--balanced", "nowhere", "--last", "balance"], "leave out --last balance"),
        (["--test-steps", "0"], "test_steps=[0]"),
        (["--calibration", "0"], "calibration=0"),
    ],
)
def test_what_is_wrong_is_told_before_images_are_read_or_a_folder_is_made(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("transpike.experiments.hybrid.load_images", lambda *_, **__: pytest.fail("images were read"))
    small = SMALL if arguments[0] not in ("--ann", "--network") else []
    assert main(["hybrid", *small, *arguments, "--out", str(tmp_path / "run")]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_wrong_setting_in_a_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.yaml").write_text("encoder: burst\nsettings: {beta: .inf}\n")
    assert main(["hybrid", "--config", str(tmp_path / "wrong.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "transpike: beta=inf: expected a number above 1.\n"
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_from_another_working_directory(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole.parent)
    told = run(tmp_path / "run", "--balanced", whole.name, "--root", "images")
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["hybrid", "--resume", "run"]) == 0
    assert timeless(results(tmp_path / "run")) == timeless(told)


def test_the_terminal_tells_one_energy_and_warns_in_a_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(tmp_path / "run", "--ann", str(whole), "--steps", "4", "--test-steps", "4", "--last", "balance")
    shown = capsys.readouterr()
    assert shown.out.count("µJ") == 1
    (energy,) = (line.split()[-1] for line in shown.out.splitlines() if "spiking: all three" in line)
    assert float(energy) == pytest.approx(told["operations"]["rows"][-1]["energy_uj"], rel=1e-2)
    (warning,) = (line for line in shown.err.splitlines() if "arning" in line)
    assert warning.startswith("transpike: warning: steps=4: only the first 4 of a period's 16 frequencies are shown, ")


def test_folders_that_do_not_fit_are_told(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["--balanced", str(whole), "--steps", "8"], "balanced for --encoder dct --steps 16"),
        (["--balanced", str(whole / "ann")], "no network with balanced thresholds"),
        (["--balanced", "nowhere"], "nowhere: no such folder"),
        (["--ann", str(whole / "balanced")], "is a spiking network"),
        (["--ann", str(whole), "--settings", '{"stride": 2}'], "image_size 8, here 12"),
        (["--ann", str(whole), "--encoder", "phase"], "here [0.0]"),
        (["--resume", str(tmp_path)], "omit --out"),
    ):
        assert main(["hybrid", *QUICK, *arguments, "--out", str(tmp_path / "run")]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert main(["hybrid", *QUICK, "--resume", str(tmp_path)]) == 2
    assert "no run to resume" in " ".join(capsys.readouterr().err.split())


def test_a_prediction_does_not_depend_on_its_batch(whole: Path) -> None:
    encoder = read_encoder(json.loads((whole / "model.json").read_text()))
    network = create_model(whole).eval()
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def logits(batch: torch.Tensor) -> torch.Tensor:
        reset_net(network)
        with torch.no_grad():
            out: torch.Tensor = network(encoder(batch))
        return out

    alone = torch.cat([logits(image[None]) for image in images], 1)
    torch.testing.assert_close(alone, logits(images), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artificial network for codes of pixels."""
    folder = tmp_path_factory.mktemp("hybrid") / "pixels"
    run(folder, "--encoder", "phase", "--last", "ann")
    return folder


def test_a_code_of_pixels_begins_with_a_network_of_pixels(pixels: Path, tmp_path: Path) -> None:
    """Phase coding tells 8 bits of every pixel: after some periods its twin is the artificial network, nearly."""
    told = run(tmp_path / "run", "--ann", str(pixels), "--encoder", "phase", "--steps", "32", "--last", "balance")
    assert json.loads((pixels / "model.json").read_text())["mean"] == [0.0]
    assert told["accuracy"] > results(pixels)["accuracy"] - 0.15


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "dct"])
def test_every_encoder_has_its_place(name: str, whole: Path, pixels: Path, tmp_path: Path) -> None:
    ann = str(whole if name == "direct" else pixels)
    told = run(tmp_path / "run", "--ann", ann, "--encoder", name, "--steps", "4", "--test-steps", "4")
    assert main(["evaluate", str(tmp_path / "run"), "--out", str(tmp_path / "again")]) == 0
    assert results(tmp_path / "again")["accuracy"] == pytest.approx(told["accuracy"], abs=0.2 * ENCODERS[name].draws)
    assert (told["spiking"]["macs"] > 0) == (name in ("direct", "phase", "burst"))


HYBRIDS = [each for each in COMMANDS if each.verb == "hybrid"]


@pytest.mark.parametrize("each", HYBRIDS, ids=lambda each: each.name.replace("/", "-"))
def test_every_row_is_a_run_whose_networks_and_encoder_can_be_built(each: Command) -> None:
    told = each.options
    assert told.data == "folder" or told.data in SOURCES
    size = {"mnist": 28, "fashion_mnist": 28, "folder": told.loading.size}.get(told.data, 32)
    encoder = create_encoder(told.encoder, steps=told.steps, settings=told.settings or {}, mean=(0.5,), std=(0.5,))
    height, _ = encoder.output_size((size, size))
    shape = {"image_size": height, "in_channels": 1 if "mnist" in told.data else 3, **(told.network or {})}
    with torch.device("meta"):
        transfer(create_model(told.ann, **shape), create_model(f"spiking_{told.ann}", **shape))
    published = {"vgg9": 60, "vgg11": 60, "vgg13": 64}
    assert height == published.get(told.ann, height)
    if "interleaved" in each.name:
        assert encoder.schedule[:4] == (0, 0, 0, 1)
