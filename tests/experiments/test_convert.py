import json
from pathlib import Path

import pytest
import torch
from torch import nn

import transpike
from transpike.cli import main
from transpike.models import create_model, save_network, save_weights
from transpike.results import Conversion, read_result

SWEEP = ("--steps", "6,12", "--settings", '{"percentile": 100}')


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow ResNet-20 with the statistics of real digits, so that its predictions vary."""
    torch.manual_seed(0)
    model = create_model("resnet20", in_channels=1, width=4)
    images = torch.cat([x for x, _ in transpike.load_images("digits").calibration(128)])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_weights(model, path)
    return path


def run(weights: Path, *more: str) -> int:
    what = ["resnet20", "--data", "digits", "--weights", str(weights), "--network", '{"width": 4}']
    return main(["convert", *what, "--calibration", "64", "--loading.test_images", "60", *more])


@pytest.fixture(scope="module")
def converted(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sweep"
    assert run(weights, *SWEEP, "--out", str(out), "--json", str(out.parent / "copy.json")) == 0
    return out


def conversion(folder: Path) -> Conversion:
    result = read_result(folder)
    assert isinstance(result, Conversion)
    return result


def test_a_sweep_measures_what_the_networks_do(converted: Path, weights: Path) -> None:
    results = conversion(converted)
    rows = results.rows
    assert [row.steps for row in rows] == [6, 12] and results.images == 60
    assert all(row.steps <= row.latency <= row.steps + 4 * row.depth for row in rows)
    assert (rows[1].logit_error or 0) < 0.02 < (rows[0].logit_error or 0)
    snn = transpike.load(converted / str(rows[1].network))
    ann = create_model("resnet20", in_channels=1, width=4, weights=weights).eval()
    loading = transpike.Loading(test_images=60)
    x, y = next(iter(transpike.load_images("digits", loading=loading).test))
    with torch.no_grad():
        predicted, expected = snn(x).argmax(1), ann(x).argmax(1)
    assert rows[1].agreement == pytest.approx(float((predicted == expected).double().mean()))
    assert rows[1].accuracy == pytest.approx(float((predicted == y).double().mean()))
    assert results.ann.accuracy == pytest.approx(float((expected == y).double().mean()))
    assert rows[1].loss_pp == pytest.approx(100 * (results.ann.accuracy - rows[1].accuracy))
    assert (converted.parent / "copy.json").read_text() == (converted / "results.json").read_text()
    assert (converted / "report.html").stat().st_size > 10_000


def test_a_broken_sweep_continues(converted: Path, weights: Path) -> None:
    path = converted / "results.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"rows": whole["rows"][:1]}))
    stamp = (converted / whole["rows"][0]["network"] / "network.json").stat().st_mtime_ns
    assert run(weights, *SWEEP, "--resume", str(converted)) == 0
    again = json.loads(path.read_text())
    assert (converted / whole["rows"][0]["network"] / "network.json").stat().st_mtime_ns == stamp
    for before, after in zip(whole["rows"], again["rows"], strict=True):
        assert {k: v for k, v in before.items() if "second" not in k} == {
            k: v for k, v in after.items() if "second" not in k
        }


def test_evaluate_offers_the_networks_of_a_sweep(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(converted)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"give one of them: {converted / 'T12_percentile-100'}, {converted / 'T6_percentile-100'}" in said


@pytest.mark.parametrize(("scheme", "steps"), [("rate", 32), ("fs", 12)])
def test_other_schemes_are_converted_measured_tabled_and_drawn(
    scheme: str, steps: int, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--scheme", scheme, "--steps", str(steps), "--settings.percentile", "100")
    assert run(weights, "--out", str(tmp_path / "out"), *given) == 0
    (row,) = conversion(tmp_path / "out").rows
    assert row.scheme["name"] == scheme and row.agreement > 0.9 and row.negative_per_neuron == 0
    snn = transpike.load(tmp_path / "out" / str(row.network))
    assert (snn.steps, snn.latency) == (steps, row.latency)
    page = (tmp_path / "out" / "report.html").read_text()
    assert snn.scheme.label in page and snn.scheme.label in capsys.readouterr().out and "negative" not in page


def test_neurons_at_every_operator_are_recorded(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "single"
    assert run(weights, "--spikes", "operators", "--out", str(out)) == 0
    (row,) = conversion(out).rows
    assert row.spikes == transpike.load(out / str(row.network)).graph.spikes == "operators"
    assert json.loads((out / "run.json").read_text())["options"]["spikes"] == "operators"
    assert "spikes at every operator" in row.words.values()


def test_evaluate_repeats_the_measurement(converted: Path, tmp_path: Path) -> None:
    row = conversion(converted).rows[1]
    assert main(["evaluate", str(converted / str(row.network)), "--out", str(tmp_path / "again")]) == 0
    again = conversion(tmp_path / "again").rows[0]
    figures = ((one.accuracy, one.agreement, one.synops) for one in (again, row))
    assert next(figures) == next(figures)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--steps", "0"], "steps=0: expected a whole number"),
        (["--settings", '{"beta": 1}'], "beta"),
        (["--settings.beta", "3.5"], "beta must lie in (1, 3]"),
        (["--settings", '{"levels": [2, 4]}'], "levels"),
        (["--settings", '{"betta": 2}'], "scheme 'css' has no setting 'betta'. Did you mean beta?"),
        (["--settings", '{"steps": 4}'], "the number of steps is given by --steps"),
        (["--goal", "same=99"], "goal: only a search takes this option; give --scheme auto"),
        (
            ["--scheme", "auto", "--goal", "same=99", "--steps", "8"],
            "steps: --scheme auto searches for steps and settings",
        ),
        (["--scheme", "auto"], "give --goal same=99.5, error=2 or loss=0.2"),
        (["--scheme", "auto", "--goal", "99"], "goal='99': expected same=99.5, error=2 or loss=0.2"),
        (["--scheme", "auto", "--goal", "sam=99"], "goal: no kind 'sam'. Did you mean same?"),
        (["--scheme", "auto", "--goal", "same=99", "--max-latency", "0"], "max_latency=0: expected a whole"),
        (["--scheme", "rat"], "Did you mean 'rate'?"),
        (["--weights", "nowhere.pt"], "no such weight file"),
        (["--network", '{"widht": 4}'], "widht"),
        (["--loading.validation", "2"], "validation"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: list[str], complaint: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run(weights, "--out", str(tmp_path / "out"), *arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    said = capsys.readouterr()
    assert complaint in " ".join((said.err + said.out).split()) and "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_a_search_from_the_command_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--scheme", "auto", "--goal", "same=95,margin=1", "--max-latency", "40", "--payload-bits", "3"]
    assert run(weights, *given, "--out", str(tmp_path / "out")) == 0
    result = conversion(tmp_path / "out")
    (row,), (taken,) = result.rows, [one for one in result.tries if one.chosen]
    assert (row.latency, row.steps, row.scheme) == (taken.latency, taken.steps, taken.scheme)
    assert row.latency <= 40 and taken.payload_bits <= 3 and result.calibration is not None
    assert result.calibration.images == 64 and result.goal == "at least 95 % same predictions"
    assert "what was tried" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What the search tried" in page and page.count("misses the goal") >= 1
    options = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert (options["scheme"], options["steps"], options["goal"]) == ("auto", [row.steps], "same=95,margin=1")


def test_a_goal_out_of_reach_leaves_no_folder(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--scheme", "auto", "--goal", "error=0.1", "--max-latency", "2", "--payload-bits", "1"]
    assert run(weights, *given, "--out", str(tmp_path / "out")) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "what was tried" in said and "The closest is ternary, T = 2" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--calibration", "0"], "transpike: calibration=0: expected a whole number of at least 1."),
        (["--seed", "-1"], "transpike: seed=-1: expected a whole number from 0"),
    ],
)
def test_options_are_named_as_they_are_typed(
    given: list[str], told: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(weights, *given, "--out", str(tmp_path / "out")) == 2
    assert capsys.readouterr().err.startswith(told) and not (tmp_path / "out").exists()


def test_a_spiking_network_is_not_converted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = create_model("spiking_mlp", hidden=4, in_channels=1, image_size=8)
    shape = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    save_network(net, {"name": "spiking_mlp", "kwargs": {"hidden": 4}, **shape, "data": "digits", "steps": 2}, tmp_path)
    assert main(["convert", str(tmp_path)]) == 2
    assert "spiking_mlp is a spiking network already; convert takes an artificial one" in capsys.readouterr().err


def test_evaluate_of_a_file_says_that_it_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt").write_text("")
    assert main(["evaluate", str(tmp_path / "net.pt")]) == 2
    assert "net.pt: a file; give the folder that" in capsys.readouterr().err
