"""`transpike distill`: from a teacher's run to a student's, on images and on events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from transpike.cli import main
from transpike.data import Loading, load_images
from transpike.experiments.source import Source, load_subject
from transpike.models import create_model, save_weights

SMALL = ["--machine.accelerator", "cpu", "--loading.train_images", "200", "--loading.test_images", "60"]
STUDENT = ["--student", "spiking_resnet19", "--network", '{"width": 4}', "--steps", "2", "--epochs", "1", *SMALL]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("teacher") / "run"
    assert main(["train", "--network", '{"width": 4}', "--epochs", "1", *SMALL, "--out", str(run)]) == 0
    return str(run)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `transpike hybrid`: 8 x 8 pixels behind blocks that overlap, 12 x 12, and its artificial network."""
    run = tmp_path_factory.mktemp("encoded") / "run"
    plan = '{"layers": [8, 0, 8, 8, 0], "hidden": 32, "dropout": 0.0}'
    given = ["--ann", "vgg5", "--network", plan, "--settings", '{"stride": 2}', "--steps", "6", "--last", "balance"]
    given += ["--pretraining.epochs", "1", "--calibration", "40", "--test-steps", "6", *SMALL]
    assert main(["hybrid", *given, "--out", str(run)]) == 0
    return run


def read(folder: Path, name: str = "results.json") -> dict[str, object]:
    told: dict[str, object] = json.loads((folder / name).read_text())
    return told


def test_a_run_that_the_other_commands_read(teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["distill", "--teacher", teacher, *STUDENT, "--cache", "64", "--out", str(run)]) == 0
    results = read(run)
    assert (results["kind"], results["model"], results["images"]) == ("training", "spiking_resnet19", 60)
    told = results["distillation"]
    assert isinstance(told, dict)
    assert (told["teacher"], told["method"]) == ("resnet20", "bsd")
    assert told["taps"] == {"layers.2": "layers.2", "layers.5": "layers.5", "layers.7": "layers.8"}
    assert set(told["first_terms"]) == {"cross_entropy", "kd", "srd", "ssd"}
    adapters = load_file(run / "adapters.safetensors")
    assert told["adapter_parameters"] == sum(value.numel() for value in adapters.values())
    student = create_model(run)
    assert set(load_file(run / "weights.safetensors")) == set(student.state_dict())
    assert main(["evaluate", str(run), "--out", str(tmp_path / "again")]) == 0
    assert read(tmp_path / "again")["accuracy"] == results["accuracy"]
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "taught by resnet20 (bsd)" in page and "Weighted terms of the loss" in page
    assert main(["distill", "--resume", str(run)]) == 0
    assert read(run)["accuracy"] == results["accuracy"]
    assert "spiking_resnet19 on digits" in capsys.readouterr().out


def test_ckdsnn_takes_the_weights_of_the_teachers_last_layer(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["distill", "--teacher", teacher, *STUDENT, "--method", "ckdsnn"]
    assert main([*given, "--out", str(tmp_path / "run")]) == 0
    told = read(tmp_path / "run")["distillation"]
    assert isinstance(told, dict) and set(told["first_terms"]) == {"cross_entropy", "noisy_kd", "activity"}
    assert main([*given, "--taps", '{"layers.7": "layers.2"}', "--out", str(tmp_path / "other")]) == 2
    assert "weighs the teacher's maps at 'layers.2' by its last layer" in " ".join(capsys.readouterr().err.split())


def test_enof_reads_the_students_features_by_that_layer(teacher: str, tmp_path: Path) -> None:
    given = ["distill", "--teacher", teacher, *STUDENT, "--method", "enof"]
    assert main([*given, "--out", str(tmp_path / "run")]) == 0
    told = read(tmp_path / "run")["distillation"]
    assert isinstance(told, dict) and set(told["first_terms"]) == {"cross_entropy", "alignment"}


def test_a_teacher_by_name_at_its_own_size_and_normalisation(tmp_path: Path) -> None:
    # timm's network takes three channels of 224 pixels: digits have one, so its own sizes are given.
    weights = tmp_path / "w.safetensors"
    save_weights(create_model("timm/resnet10t", num_classes=10, in_channels=1), weights)
    given = ["--teacher", "timm/resnet10t", "--teacher-weights", str(weights), "--teacher-size", "32"]
    run = tmp_path / "run"
    assert main(["distill", *given, *STUDENT, "--method", "kd", "--settings", '{"alpha": 1.0}', "--out", str(run)]) == 0
    told = read(run)["distillation"]
    assert isinstance(told, dict)
    assert (told["teacher"], told["taps"], told["settings"]) == ("timm/resnet10t", {}, {"alpha": 1.0})


@pytest.mark.parametrize("part, size", [("", "8"), ("ann", "16")])
def test_a_hybrid_teacher_sees_its_own_code(encoded: Path, part: str, size: str, tmp_path: Path) -> None:
    """It repeats its run's loss; a student of larger images shows it them at its own size."""
    teacher, run = encoded / part, tmp_path / "run"
    sets = load_images("digits", loading=Loading(test_images=60))
    subject = load_subject(Source(str(teacher)), sets, label="teacher", device="cpu")
    assert subject.given.size == 8
    losses = [cross_entropy(subject.observer()(images)[0], labels, reduction="sum") for images, labels in sets.test]
    assert sum(losses).item() / 60 == pytest.approx(read(teacher)["loss"])
    given = ["--teacher", str(teacher), *STUDENT, "--loading.size", size]
    assert main(["distill", *given, "--settings", '{"gamma": 0}', "--out", str(run)]) == 0
    told = read(run)["distillation"]
    assert isinstance(told, dict)
    assert told["teacher"] == ("vgg5" if part else "spiking_vgg5") and told["taps"]
    assert set(told["first_terms"]) == {"cross_entropy", "kd", "srd"}


def test_fewer_frames_learn_from_more(events: Path, tmp_path: Path) -> None:
    shared = ["--data", "nmnist", "--root", str(events), "--network", '{"width": 4}', "--epochs", "1"]
    shared += ["--loading.batch_size", "4", "--loading.validation", "0", "--machine.accelerator", "cpu"]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert main(["train", "--model", "spiking_resnet19", *shared, "--steps", "3", "--out", str(teacher)]) == 0
    given = ["--teacher", str(teacher), "--student", "spiking_resnet19", "--steps", "2", "--test-steps", "2"]
    assert main(["distill", *given, *shared, "--out", str(student)]) == 0
    results = read(student)
    assert isinstance(results["distillation"], dict)
    assert results["distillation"]["taps"] == {name: name for name in ("layers.2", "layers.5", "layers.7")}
    assert [row["steps"] for row in results["by_steps"]] == [2]  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "give --teacher: the folder of a `transpike train` run"),
        (["--teacher", "resnet21"], "no network 'resnet21', nor a folder of that name. Did you mean resnet"),
        (["--teacher", "resnet20"], "resnet20: give --teacher-weights"),
        (["--teacher", "{run}", "--method", "bzd"], "no method of distillation 'bzd'. Did you mean bsd"),
        (
            ["--teacher", "{run}", "--method", "kd", "--settings", '{"temperature": 0}'],
            "temperature=0: expected a number above 0",
        ),
        (["--teacher", "{run}", "--settings", '{"betta": 1}'], "'bsd' has no setting 'betta'. Did you mean beta?"),
        (["--teacher", "{run}", "--settings", '{"beta": [1]}'], "'bsd': beta=[1]: expected a number."),
        (["--teacher", "{run}", "--settings", '{"keep": 2}'], "keep=2: expected a number in (0, 1)."),
        (["--teacher", "{run}", "--taps", '{"layers.2": "layer2"}'], "ResNet has no module 'layer2' to tap"),
        (["--teacher", "{run}", "--taps", '{"fc.2": "layers.2"}'], "'fc.2' gives [4, 10], which has no spatial axes"),
        (["--teacher", "{run}", "--taps", "{}"], "--taps names no module"),
        (
            ["--teacher", "{run}", "--method", "crd", "--loading.batch_size", "1"],
            "batch_size=1: CRDDistillation trains on batches of at least 2 images",
        ),
        (["--teacher", "vgg5", "--teacher-weights", "{run}"], "does not fit VGG, "),
        (["--teacher", "{run}", "--teacher-size", "0"], "teacher_size=0: expected a whole number of at least 1."),
        (
            ["--teacher", "{run}", "--teacher-steps", "4"],
            "--teacher-steps is T of a spiking teacher; resnet20 does not spike",
        ),
        (["--teacher", "{run}", "--teacher-network", '{"width": 4}'], "a run's folder knows its network"),
        (
            ["--teacher", "spiking_vgg5", "--teacher-weights", "w.safetensors"],
            "spiking_vgg5 is a spiking network: give --teacher-st",
        ),
        (["--teacher", "{run}", "--cache", "-1"], "cache=-1: expected a whole number of at least 0."),
        (
            ["--teacher", "{run}", "--data", "nmnist", "--root", "nowhere"],
            "nmnist gives frames of events: give a sp",
        ),
        (["--teacher", "{encoded}", "--data", "nmnist"], "encodes images, and nmnist gives frames of events"),
        (["--teacher", "{encoded}", "--teacher-size", "16"], "made from 8 x 8 pixels, not from 16 x 16: omit the"),
        (["--teacher", "{run}", "--student", "{encoded}"], "takes encoded images: train it by that command"),
        (["--teacher", "{run}", "--student", "resnet21"], "no network 'resnet21', nor a folder of that name"),
    ],
)
def test_bad_input_is_told(
    arguments: list[str], told: str, teacher: str, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    given = [argument.replace("{run}", teacher).replace("{encoded}", str(encoded)) for argument in arguments]
    assert main(["distill", *STUDENT, *given, "--out", str(run)]) == 2
    assert told in capsys.readouterr().err
    assert not run.exists()


def test_methods_over_time_need_a_student_with_it(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--teacher", teacher, "--student", "resnet20", "--method", "tld", *SMALL]
    assert main(["distill", *given, "--out", str(tmp_path / "run")]) == 2
    assert "tld compares time steps, of which resnet20 has none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_command_is_not_resumed(teacher: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--resume", teacher]) == 2
    assert "a run of `transpike train`, not of `transpike distill`" in capsys.readouterr().err
