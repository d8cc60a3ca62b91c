"""`transpike analyze` on a tiny pair that was distilled for one epoch."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.experiments.reading import read

from transpike.cli import main
from transpike.data import Loading, load_images
from transpike.distill import Taps, WaveletRefinement
from transpike.distill.sfkd import standardize
from transpike.metrics.similarity import LinearCKA
from transpike.metrics.spectrum import RadialSpectrum, full_plane
from transpike.models import create_model

CPU = ["--machine.accelerator", "cpu"]
FEW = ["--epochs", "1", "--loading.train_images", "60", "--loading.test_images", "40", "--loading.batch_size", "30"]
WIDTH = '{"width": 4}'
STUDENT = ["--student", "sew_resnet19", "--network", WIDTH, "--steps", "2", "--test-steps", "2"]

Analyze = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and students by BSD, by BSD in the spatial domain, by SFKD, by FitNet and by logits alone."""
    place = tmp_path_factory.mktemp("runs")
    teacher = ["--model", "resnet20", "--network", WIDTH]
    assert main(["train", *teacher, *FEW, *CPU, "--out", str(place / "teacher")]) == 0
    for name, method in (
        ("bsd", ["--method", "bsd", "--settings", '{"beta": 0.001}']),
        ("spatial", ["--method", "srd", "--settings", '{"domain": "spatial"}']),
        ("sfkd", ["--method", "sfkd", "--settings", '{"levels": 1, "sigma": 0.2}']),
        ("fitnet", ["--method", "fitnet"]),
        ("kd", ["--method", "kd"]),
    ):
        given = ["--teacher", str(place / "teacher"), *method, *STUDENT, *FEW, *CPU, "--out", str(place / name)]
        assert main(["distill", *given]) == 0
    return place


@pytest.fixture(scope="session")
def seen(runs: Path) -> Path:
    """The folder of an analysis of the student by BSD."""
    out = runs / "seen"
    asked = ["analyze", str(runs / "bsd"), "--shown", "3", "--out", str(out), "--json", str(runs / "seen.json")]
    assert main(asked) == 0
    return out


@pytest.fixture
def analyze(tmp_path: Path) -> Analyze:
    """Run the command; gives results.json, as the report reads it."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        assert main(["analyze", *map(str, arguments), "--out", str(tmp_path / "out")]) == 0
        return read(tmp_path / "out")

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run the command, which must refuse; gives what it says, on one line."""

    def run(*arguments: str | Path) -> str:
        assert main(["analyze", *map(str, arguments), "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists(), "a run without a result leaves no folder"
        return " ".join(capsys.readouterr().err.split())

    return run


def features(results: dict[str, Any], tap: str, network: int, *, adapted: bool = False) -> dict[str, Any]:
    (found,) = (
        curve
        for stage in results["features"]
        if stage["tap"] == tap
        for curve in stage["curves"]
        if curve["network"] == network and curve["adapted"] is adapted
    )
    return dict(found)


def test_a_distilled_student(runs: Path, seen: Path) -> None:
    results = read(seen)
    assert json.loads((runs / "seen.json").read_text()) == json.loads((seen / "results.json").read_text())
    assert [(network["label"], network["model"]) for network in results["networks"]] == [
        ("teacher", "resnet20"),
        ("student", "sew_resnet19"),
    ]
    trained = {name: json.loads((runs / name / "results.json").read_text()) for name in ("teacher", "bsd")}
    assert results["images"] == 40
    assert [network["accuracy"] for network in results["networks"]] == [
        pytest.approx(trained[name]["accuracy"]) for name in ("teacher", "bsd")
    ]
    assert [(stage["tap"], stage["size"]) for stage in results["features"]] == [
        ("layers.2", [8, 8]),
        ("layers.5", [4, 4]),
        ("layers.7", [2, 2]),
    ]
    # The teacher's spectrum, anew: its stem and first stage are a plain network.
    teacher = create_model(runs / "teacher").eval()
    images, _ = next(iter(load_images("digits", loading=Loading(test_images=40)).test))
    with torch.no_grad():
        maps = teacher.layers[:3](teacher.act(teacher.bn(teacher.conv(images))))
        logits = teacher(images)
    spectrum = RadialSpectrum()
    spectrum.update(maps)
    curve = features(results, "layers.2", 0)
    assert curve["frequency"] == [0.125, 0.25, 0.375, 0.5]
    assert curve["power"] == pytest.approx(spectrum.power.tolist(), rel=1e-4)
    assert curve["high"] == pytest.approx(spectrum.share_above(0.25), rel=1e-4)
    # Teacher's logits in its own order descend.
    curves = results["logits"]["curves"]
    ordered = logits.sort(descending=True).values.mean(0)
    assert curves[0]["mean"] == pytest.approx((ordered - ordered.mean()).tolist(), abs=1e-4)
    assert curves[0]["distance_high"] == 0 < curves[1]["distance_high"]
    assert len(results["logits"]["single"]) == 3
    # Three images of three classes, a map each for teacher and student.
    saliency = results["saliency"]
    assert saliency["taps"] == ["layers.8", "layers.7"]
    assert len({image["label"] for image in saliency["images"]}) == 3 and len(saliency["panels"]) == 6
    values = torch.tensor([panel["map"] for panel in saliency["panels"]])
    assert values.shape == (6, 2, 2) and values.min() >= 0 and values.max() == pytest.approx(1)
    with (seen / "features.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + 3 * (4 + 2 + 1)
    assert rows[1][:3] == ["student", "layers.2", "teacher"] and float(rows[1][4]) == pytest.approx(curve["power"][0])
    assert "Where they look" in (seen / "report.html").read_text()


def test_the_filter_is_the_one_that_was_learned(runs: Path, seen: Path) -> None:
    results = read(seen)
    saved = load_file(runs / "bsd" / "adapters.safetensors")
    for number, one in enumerate(results["filters"]):
        half = torch.view_as_complex(saved[f"srd.{number}.residual.w2"]).abs()
        expected = full_plane(half, width=one["size"][1])
        torch.testing.assert_close(torch.tensor(one["weights"]), expected)
        assert expected.max() > 0


def test_what_srd_leaves(runs: Path, seen: Path) -> None:
    """The first stage anew, by the paper's equations 8 to 10 and NumPy."""
    images, _ = next(iter(load_images("digits", loading=Loading(test_images=40)).test))
    student, teacher = create_model(runs / "bsd").eval(), create_model(runs / "teacher").eval()
    with torch.no_grad(), Taps(student, ["layers.2"]) as own, Taps(teacher, ["layers.2"]) as theirs:
        student(images.expand(2, *images.shape)), teacher(images)
    saved = {name: value.double().numpy() for name, value in load_file(runs / "bsd" / "adapters.safetensors").items()}
    maps = own["layers.2"].mean(0).double().numpy()
    weight, bias = (saved[f"srd.0.adapter.projection.{name}"] for name in ("weight", "bias"))
    projected = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], maps) + bias[:, None, None]
    w1, b1, w2, b2 = (saved[f"srd.0.residual.{name}"] @ np.array([1, 1j]) for name in ("w1", "b1", "w2", "b2"))
    spectrum = np.fft.rfft2(projected, norm="ortho")
    z = w1 * spectrum + b1
    residual = w2 * np.maximum(np.abs(z) + saved["srd.0.residual.bias"], 0) * np.exp(1j * np.angle(z)) + b2
    adapted = np.fft.irfft2(spectrum + residual, s=(8, 8), norm="ortho")
    target = theirs["layers.2"].double().numpy()
    fy, fx = np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8))
    bands = (np.hypot(fy, fx) > 0, np.hypot(fy, fx) <= 0.25), (np.hypot(fy, fx) > 0.25,)

    def power(difference: np.ndarray, masks: tuple[np.ndarray, ...]) -> float:
        return float((np.abs(np.fft.fft2(difference)) ** 2 * np.logical_and.reduce(masks)).sum())

    left = read(seen)["features"][0]["left"]
    for name, maps in (("before", projected), ("after", adapted)):
        expected = [power(target - maps, band) / power(target, band) for band in bands]
        assert left[name] == pytest.approx(expected, rel=1e-3)
    assert left["before"] != left["after"]


def test_the_neuron_is_the_students(seen: Path) -> None:
    (neuron,) = read(seen)["neurons"]
    # ResNet-19's code: u = u / 2 + x.
    assert (neuron["type"], neuron["decay"], neuron["gain"]) == ("LIFNode", 0.5, 1.0)
    assert neuron["measured_amplitude"] == pytest.approx(neuron["expected"], rel=1e-3)
    assert neuron["measured_power"] == pytest.approx([gain**2 for gain in neuron["expected"]], rel=1e-3)
    assert neuron["layers"] == 1 + 16 + 3 + 1 and neuron["networks"] == [1]


def test_students_side_by_side(runs: Path, analyze: Analyze) -> None:
    together = ",".join(str(runs / name) for name in ("bsd", "spatial", "kd"))
    results = analyze(together, "--images", "6", "--shown", "2", "--part", "validation")
    assert [network["label"] for network in results["networks"]] == ["teacher", "bsd", "spatial", "kd"]
    assert [network["method"] for network in results["networks"]] == [None, "bsd", "srd", "kd"]
    assert (results["part"], results["images"]) == ("validation", 6)
    domains = {(one["network"], one["domain"], len(one["weights"][0])) for one in results["filters"]}
    assert {(1, "frequency", 8), (2, "spatial", 8)} <= domains and not [place for place, *_ in domains if place == 3]
    # Logits KD compares no features: there are still spectra, but none after SRD.
    (kd,) = (stage for stage in results["features"] if stage["student"] == 3 and stage["tap"] == "layers.2")
    assert [curve["network"] for curve in kd["curves"]] == [0, 3] and kd["left"] is None
    assert features(results, "layers.2", 2, adapted=True)["variance"] > 0
    assert [panel["network"] for panel in results["saliency"]["panels"]] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_sfkd_refines(runs: Path, analyze: Analyze) -> None:
    """The first stage anew: the energy of its bands, two pictures, its spectrum, what is left, and CKA."""
    results = analyze(runs / "sfkd", "--shown", "3", "--loading.test_images", "40")
    images, labels = next(iter(load_images("digits", loading=Loading(test_images=40)).test))
    student, teacher = create_model(runs / "sfkd").eval(), create_model(runs / "teacher").eval()
    with torch.no_grad(), Taps(student, ["layers.2"]) as own, Taps(teacher, ["layers.2"]) as theirs:
        student(images.expand(2, *images.shape)), teacher(images)
    saved = load_file(runs / "sfkd" / "adapters.safetensors")
    refine = WaveletRefinement(4, size=(8, 8), levels=1)
    refine.load_state_dict(
        {name.removeprefix("distances.0.refine."): p for name, p in saved.items() if "0.refine" in name}
    )
    weight, bias = (saved[f"distances.0.adapter.projection.{name}"] for name in ("weight", "bias"))
    with torch.no_grad():
        before = F.conv2d(own["layers.2"].mean(0), weight, bias)
        after, target = refine(before), standardize(theirs["layers.2"])
    assert (before - after).abs().max() > 1e-3

    stage = results["stages"][0]
    assert (stage["tap"], stage["size"], stage["bands"]) == ("layers.2", [8, 8], ["A1", "H1", "V1", "D1"])
    assert [(curve["network"], curve["adapted"]) for curve in stage["curves"]] == [(0, False), (1, False), (1, True)]
    for curve, maps in zip(stage["curves"], (target, before, after), strict=True):
        bands = pywt.dwt2((maps - maps.mean((-2, -1), keepdim=True)).double().numpy(), "haar")
        expected = [np.square(band).sum() / maps.numel() for band in (bands[0], *bands[1])]
        assert curve["energy"] == pytest.approx(expected, rel=1e-3)
    second = next(place for place, label in enumerate(labels) if label != labels[0])
    pictured = [(picture["image"], picture["adapted"]) for picture in stage["pictures"]]
    assert pictured == [(image, adapted) for image in (0, 1) for adapted in (False, False, True)]
    assert [stage["pictures"][place]["label"] for place in (0, 3)] == [str(int(labels[p])) for p in (0, second)]
    channel = int(target[second].var((-2, -1)).argmax())
    assert [picture["channel"] for picture in stage["pictures"][3:]] == [channel] * 3
    low, (high, *_) = pywt.dwt2(after[second, channel].numpy(), "haar")
    np.testing.assert_allclose(stage["pictures"][5]["bands"][0], low, atol=1e-4)
    np.testing.assert_allclose(stage["pictures"][5]["bands"][1], high, atol=1e-4)

    curve = features(results, "layers.2", 1, adapted=True)
    spectrum = RadialSpectrum()
    spectrum.update(after)
    assert curve["power"] == pytest.approx(spectrum.power.tolist(), rel=1e-3)
    left = results["features"][0]["left"]["after"]
    assert results["features"][0]["sigma"] == 0.2
    fine, whole = (np.abs(np.fft.fft2(maps.numpy())) ** 2 for maps in (target - after, target))
    low_pass = np.hypot(*np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8))) <= 0.25
    assert left[1] == pytest.approx(fine[..., ~low_pass].sum() / whole[..., ~low_pass].sum(), rel=1e-3)

    as_it_is, adapted = results["similarity"]
    assert (as_it_is["adapted"], adapted["adapted"]) == (False, True)
    assert as_it_is["taps"] == adapted["taps"] == ["layers.2", "layers.5", "layers.7"]
    assert as_it_is["teacher_taps"] == ["layers.2", "layers.5", "layers.8"]
    for found, maps in ((as_it_is, own["layers.2"].mean(0)), (adapted, after)):
        alike = LinearCKA()
        alike.update([maps], [theirs["layers.2"]])
        assert found["cka"][0][0] == pytest.approx(alike.matrix.item(), rel=1e-3)
    place = Path(results["folder"])
    assert "Sub-bands before and after DS2S" in (place / "report.html").read_text()
    with (place / "similarity.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + 2 * 3 * 3
    assert rows[1][1:4] == ["", "layers.2", "layers.2"] and float(rows[1][4]) == as_it_is["cka"][0][0]
    with (place / "stages.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + 3 * 3 * 4


def test_other_methods_have_stages_too(runs: Path, analyze: Analyze) -> None:
    """Bands and CKA: with what the method adapts, or of logits KD without."""
    together = ",".join(str(runs / name) for name in ("fitnet", "kd"))
    results = analyze(together, "--shown", "1")
    assert [(one["student"], one["adapted"], len(one["cka"])) for one in results["similarity"]] == [
        (1, False, 3),
        (1, True, 3),
        (2, False, 3),
    ]
    shown = [
        (stage["student"], stage["size"][0], stage["bands"][0], len(stage["curves"])) for stage in results["stages"]
    ]
    assert shown == [
        (1, 8, "A2", 3),
        (1, 4, "A2", 3),
        (1, 2, "A1", 3),
        (2, 8, "A2", 2),
        (2, 4, "A2", 2),
        (2, 2, "A1", 2),
    ]
    assert not any(stage["pictures"] for stage in results["stages"])
    assert {stage["sigma"] for stage in results["features"]} == {None}


def test_a_student_without_maps_beside_one(
    runs: Path, analyze: Analyze, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No Grad-CAM then; the sub-bands keep their images' labels. Three images are too few for CKA."""
    assert main(["train", "--model", "mlp", *FEW, *CPU, "--out", str(tmp_path / "mlp")]) == 0
    results = analyze(f"{runs / 'sfkd'},{tmp_path / 'mlp'}", "--images", "3", "--shown", "2")
    assert results["saliency"] == {"images": [], "panels": [], "taps": []} and results["similarity"] == []
    assert len({picture["label"] for picture in results["stages"][0]["pictures"]}) == 2
    assert {stage["student"] for stage in results["features"]} == {1}
    assert "CKA is left out" in capsys.readouterr().out


def test_a_network_alone(runs: Path, analyze: Analyze) -> None:
    """Without a teacher, and without time or spikes either."""
    results = analyze(runs / "teacher", "--images", "20", "--shown", "0", "--taps", "layers.2,layers.5")
    assert [network["role"] for network in results["networks"]] == ["student"]
    assert [(stage["tap"], stage["teacher_tap"]) for stage in results["features"]] == [
        ("layers.2", None),
        ("layers.5", None),
    ]
    assert results["neurons"] == results["filters"] == []
    assert results["saliency"] == {"images": [], "panels": [], "taps": []}
    mean = results["logits"]["curves"][0]["mean"]
    assert mean == sorted(mean, reverse=True)


def test_any_networks_by_name(runs: Path, analyze: Analyze) -> None:
    weights = [str(runs / name / "weights.safetensors") for name in ("bsd", "teacher")]
    student = ["sew_resnet19", "--data", "digits", "--weights", weights[0], "--network", WIDTH, "--steps", "2"]
    teacher = ["--teacher", "resnet20", "--teacher-weights", weights[1], "--teacher-network", WIDTH]
    results = analyze(
        *student, *teacher, "--taps", '{"layers.5": "layers.8"}', "--loading.test_images", "40", "--shown", "1"
    )
    (stage,) = results["features"]
    assert (stage["tap"], stage["teacher_tap"], stage["size"]) == ("layers.5", "layers.8", [2, 2])
    accuracies = [json.loads((runs / name / "results.json").read_text())["accuracy"] for name in ("teacher", "bsd")]
    assert [network["accuracy"] for network in results["networks"]] == pytest.approx(accuracies)


def test_events_with_a_teacher_of_more_steps(tmp_path: Path, analyze: Analyze) -> None:
    root = tmp_path / "events"
    for part in ("Train", "Test"):
        for digit in range(10):
            folder = root / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            events = (bytes([3 * digit, 5, 0x80, 0, us]) for us in range(12))
            (folder / "00000.bin").write_bytes(b"".join(events))
    run = tmp_path / "run"
    net = ["--model", "sew_resnet19", "--network", WIDTH, "--data", "nmnist", "--root", str(root), "--steps", "2"]
    fast = ["--epochs", "1", "--test-steps", "2", "--loading.batch_size", "5", "--loading.validation", "0"]
    assert main(["train", *net, *fast, *CPU, "--out", str(run)]) == 0
    results = analyze(run, "--teacher", run, "--teacher-steps", "4", "--shown", "2")
    assert [network["steps"] for network in results["networks"]] == [4, 2]
    assert results["images"] == 10 and len(results["saliency"]["images"]) == 2
    # Twelve events make three frames' worth for the one and six for the other: another input, hence other features.
    student, teacher = features(results, "layers.2", 1), features(results, "layers.2", 0)
    assert student["power"] != teacher["power"] and len(student["power"]) == len(teacher["power"]) == 17


def test_what_is_not_there(runs: Path, refused: Callable[..., str]) -> None:
    assert "no network 'runs/nothing', nor a folder of that name" in refused("runs/nothing")
    assert "not the folder of a finished `transpike train` run" in refused(runs)
    assert "give its weights" in refused("sew_resnet19", "--data", "digits")
    told = refused(runs / "bsd", "--taps", '{"layers.2": "layer.2"}')
    assert "ResNet has no module 'layer.2' to tap. Did you mean layers.2" in told
    told = refused(runs / "bsd", "--taps", '{"layer.2": "layers.2"}')
    assert "SpikingResNet has no module 'layer.2' to tap. Did you mean layers.2" in told
    assert "images=0: expected a whole number of at least 1" in refused(runs / "bsd", "--images", "0")


def test_teachers_that_do_not_fit(runs: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    def copied(name: str, **change: Any) -> Path:
        shutil.copytree(runs / "teacher", tmp_path / name)
        described = json.loads((tmp_path / name / "model.json").read_text())
        (tmp_path / name / "model.json").write_text(json.dumps(described | change))
        return tmp_path / name

    elsewhere = copied("elsewhere", data="mnist")
    told = refused(runs / "bsd", "--teacher", elsewhere)
    assert "was trained on digits and" in told and "on mnist: compare networks of the same data" in told
    colour = refused(runs / "bsd", "--data", "digits", "--teacher", copied("colour", in_channels=3))
    assert "takes images of 3 channels; those of digits have 1" in colour
    wide = ["--teacher", "resnet20", "--teacher-weights", runs / "teacher" / "weights.safetensors"]
    assert "conv.weight" in refused(runs / "bsd", *wide)

    student = tmp_path / "student"
    shutil.copytree(runs / "bsd", student)
    begun = json.loads((student / "run.json").read_text())
    begun["options"]["teacher"] = str(tmp_path / "gone")
    (student / "run.json").write_text(json.dumps(begun))
    assert "its teacher is not available" in refused(student)
    told = refused(f"{runs / 'bsd'},{student}")
    assert "its teacher is not available" in told
    begun["options"]["teacher"] = str(elsewhere)
    (student / "run.json").write_text(json.dumps(begun))
    assert "learned from different teachers" in refused(f"{runs / 'bsd'},{student}")


def test_validation_images_are_those_of_the_training_with_other_options_too(runs: Path, analyze: Analyze) -> None:
    results = analyze(runs / "kd", "--images", "20", "--part", "validation", "--loading.batch_size", "7")
    assert results["images"] == 6  # of 60


def test_validation_images_must_be_there(runs: Path, refused: Callable[..., str]) -> None:
    told = refused(runs / "bsd", "--part", "validation", "--loading.validation", "0")
    assert "digits has no validation images" in told


def test_beside_a_teacher_without_maps_logits_alone_are_compared(tmp_path: Path) -> None:
    place = {name: str(tmp_path / name) for name in ("teacher", "student", "seen")}
    assert main(["train", "--model", "mlp", *FEW, *CPU, "--out", place["teacher"]]) == 0
    learned = ["--student", "resnet20", "--network", WIDTH, "--method", "kd", "--teacher", place["teacher"]]
    assert main(["distill", *learned, *FEW, *CPU, "--out", place["student"]]) == 0
    assert main(["analyze", place["student"], "--out", place["seen"]]) == 0
    told = json.loads((tmp_path / "seen" / "results.json").read_text())
    assert told["stages"] == [] and len(told["networks"]) == 2
