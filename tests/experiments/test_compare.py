"""``transpike compare``: many schemes on one network, in one run."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import transpike
from transpike.cli import main
from transpike.models import create_model, save_weights
from transpike.results import Conversion, read_result

SCHEMES = "[{name: css, steps: [1, 10], percentile: 100}, {name: rate, steps: [8, 32], percentile: 100}]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that tells digits apart, so that accuracy can be lost."""
    torch.manual_seed(0)
    model, sets = create_model("mlp", in_channels=1, image_size=8), transpike.load_images("digits")
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for x, y in sets.train:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    path = tmp_path_factory.mktemp("weights") / "mlp.safetensors"
    save_weights(model, path)
    return path


def run(weights: Path, *more: str) -> int:
    what = ["mlp", "--data", "digits", "--weights", str(weights)]
    return main(["compare", *what, "--calibration", "64", *more])


@pytest.fixture(scope="module")
def compared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "comparison"
    options = ("--schemes", SCHEMES, "--target-loss", "1", "--max-latency", "30", "--payload-bits", "1")
    assert run(trained, *options, "--out", str(out)) == 0
    return out


def read(folder: Path) -> Conversion:
    result = read_result(folder)
    assert isinstance(result, Conversion)
    return result


def test_every_scheme_has_its_rows(compared: Path) -> None:
    result = read(compared)
    steps = {name: [row.steps for row in result.rows if row.scheme["name"] == name] for name in ("css", "rate")}
    assert {1, 10} < set(steps["css"]) and {8, 32} <= set(steps["rate"])
    assert {row.spike_bits for row in result.rows} == {0, 1}
    for row in result.rows:
        assert row.train_bits == pytest.approx(row.steps * (1.585 if row.spike_bits else 1), 1e-3)
    assert not list(compared.glob("*/network.json")), "networks are what `convert` saves"


def test_the_fewest_steps_for_a_loss_have_a_worse_neighbour(compared: Path) -> None:
    rows = {row.steps: row.loss_pp for row in read(compared).rows if row.scheme["name"] == "css"}
    met = min(steps for steps, loss in rows.items() if loss is not None and loss <= 1)
    assert 1 < met < 10 and (rows[met - 1] or 0) > 1


def test_tables_name_the_pick_and_the_least(compared: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(compared)
    options = ("--schemes", SCHEMES, "--target-loss", "1", "--max-latency", "30", "--payload-bits", "1")
    assert run(trained, *options, "--resume", str(compared)) == 0, "nothing is left to measure"
    assert read(compared) == before
    said = " ".join(capsys.readouterr().out.split())
    assert "within latency 30, 1 payload bits per spike" in said and "Fewest steps that lose at most 1 pp" in said
    page = (compared / "report.html").read_text()
    for text in ("Fewest steps that lose at most 1 pp", "against T × bits", "against energy"):
        assert text in page


def test_rows_are_a_table_for_others(compared: Path) -> None:
    with (compared / "rows.csv").open(newline="") as file:
        first, *lines = csv.DictReader(file)
    result = read(compared)
    assert first["scheme"] == "ann" and float(first["accuracy"]) == result.ann.accuracy
    for line, row in zip(lines, result.rows, strict=True):
        assert line["scheme"] == row.scheme["name"] and json.loads(line["settings"])["steps"] == row.steps
        assert float(line["energy_uj"]) == row.energy_uj and int(line["latency"]) == row.latency


def apart(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A measure of a user's."""
    if not targets.is_floating_point():
        return (outputs.argmax(1) == targets).float()
    return (outputs - targets).abs().amax(1)


@pytest.mark.parametrize("metric", ["correlation", "tests.experiments.test_compare:apart"])
def test_outputs_are_measured_as_the_user_says(
    metric: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schemes = "[{name: css, steps: [4, 12], percentile: 100}]"
    out = tmp_path / "out"
    assert run(trained, "--schemes", schemes, "--metric", metric, "--out", str(out)) == 0
    few, many = read(out).rows
    if metric == "correlation":  # does not take class indices
        assert few.measures[metric] < many.measures[metric] > 0.999 and not many.label_measures
    else:
        assert 10 * many.measures[metric] < few.measures[metric]
        assert many.label_measures[metric] == pytest.approx(many.accuracy)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{metric}: {few.measures[metric]:.4g} (ternary Ts=auto, T = 4), {many.measures[metric]:.4g} (" in said
    page = (out / "report.html").read_text()
    assert page.count(metric) >= 2 and f"{few.measures[metric]:.4f}" in page
    with (out / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))[1:]
    assert [json.loads(line["measures"])[metric] for line in lines] == [few.measures[metric], many.measures[metric]]


def test_a_measure_that_is_none_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "--metric", "correlatoin", "--out", str(tmp_path / "out")) == 2
    assert "metric: 'correlatoin' is not a known metric. Did you mean correlation?" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "out").exists()


def test_a_scheme_is_added_to_a_comparison(compared: Path, trained: Path) -> None:
    count = len(read(compared).rows)
    assert run(trained, "--schemes", "[{name: fs, steps: 8}]", "--resume", str(compared)) == 0
    rows = read(compared).rows
    assert len(rows) == count + 1 and [row.steps for row in rows if row.scheme["name"] == "fs"] == [8]


@pytest.mark.parametrize(
    ("schemes", "complaint"),
    [
        ("csss", "scheme='csss': expected"),
        ("[{levels: [1]}]", "a name, or an object with one"),
        ("[{name: css, levles: [1]}]", "has no setting 'levles'. Did you mean levels?"),
        ("[]", "schemes: give at least one of css"),
        ("[css, {name: tsc, steps: 1}]", "schemes: tsc: steps=1: expected a whole number from 2"),
        ("[{name: css, steps: []}]", "schemes: css: steps=[]: give at least one number of steps"),
        ("{levels: [1]}", "a name, or an object with one"),
        ("[{name: rate, steps: 0}]", "steps=0: expected a whole number"),
    ],
)
def test_wrong_schemes_are_named(
    schemes: str, complaint: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, "--schemes", schemes, "--out", str(tmp_path / "out")) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--max-latency", "0"], "max_latency=0: expected a whole number of at least 1"),
        (["--payload-bits", "-1"], "payload_bits=-1: expected a whole number of at least 0"),
        (["--max-energy", "0"], "max_energy=0.0: expected a number above 0"),
    ],
)
def test_wrong_limits_are_named_by_their_option(
    options: list[str], complaint: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, *options) == 2
    assert f"transpike: {complaint}" in capsys.readouterr().err


def test_the_best_of_spikes_that_carry_nothing(trained: Path, tmp_path: Path) -> None:
    schemes = "[{name: css, steps: 10}, {name: rate, steps: 8}]"
    few = ("--loading.test_images", "40", "--payload-bits", "0")
    assert run(trained, "--schemes", schemes, *few, "--out", str(tmp_path / "out")) == 0
    assert "(Rate)" in (tmp_path / "out" / "report.html").read_text()


def test_one_scheme_needs_no_list(trained: Path, tmp_path: Path) -> None:
    few = ("--loading.test_images", "40", "--out", str(tmp_path / "out"))
    assert run(trained, "--schemes", "{name: css, steps: [4, 6]}", *few) == 0
    assert [row.steps for row in read(tmp_path / "out").rows] == [4, 6]


def test_a_network_goes_before_a_folder_of_its_name(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlp").mkdir()
    (tmp_path / "mlp" / "model.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mlp", "--data", "digits", "--schemes", "css"]) == 2
    assert "give ./mlp" in " ".join(capsys.readouterr().err.split())
    assert run(trained, "--schemes", "[{name: css, steps: 4}]", "--loading.test_images", "40", "--out", "out") == 0
    assert (read(tmp_path / "out").ann.accuracy or 0) > 0.6  # trained, that is


def test_weights_in_place_of_a_network(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(trained), "--data", "digits"]) == 2
    assert "holds weights without a network" in " ".join(capsys.readouterr().err.split())


def test_a_folder_beside_the_one_that_goes_on_is_refused(
    trained: Path, compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (compared / "results.json").read_bytes()
    assert run(trained, "--schemes", "fs", "--resume", str(compared), "--out", str(tmp_path / "o")) == 2
    assert "omit --out" in " ".join(capsys.readouterr().err.split())
    assert (compared / "results.json").read_bytes() == before and not (tmp_path / "o").exists()


def test_a_comparison_is_continued_by_its_own_verb(trained: Path, tmp_path: Path, compared: Path) -> None:
    assert run(trained, "--schemes", "fs", "--seed", "1", "--resume", str(compared)) == 2
    what = ["convert", "mlp", "--data", "digits", "--weights", str(trained)]
    assert main([*what, "--resume", str(compared)]) == 2


def test_energies_are_of_the_technology_asked_for(trained: Path, tmp_path: Path) -> None:
    given = ("--schemes", "[{name: css, steps: 4}]", "--loading.test_images", "40")
    assert run(trained, *given, "--out", str(tmp_path / "a")) == 0
    assert run(trained, *given, "--technology", "7nm", "--memory", "8KB", "--out", str(tmp_path / "b")) == 0
    old, new = read(tmp_path / "a"), read(tmp_path / "b")
    assert (old.technology, new.technology) == ("45 nm", "7 nm, SRAM of 8KB")
    assert new.ann.energy_uj == pytest.approx(old.ann.energy_uj * (1.69 + 2 * 3.75) / 4.6, rel=1e-3)
    assert new.rows[0].energy_parts_uj["memory"] > new.rows[0].energy_parts_uj["accumulates"] * 3 * 3.75 / 0.38
    assert "Energy per image, a model (7 nm, SRAM of 8KB)" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.parametrize("name", ["rows.csv", "report.html"])
def test_a_file_of_the_users_stops_a_comparison_before_it_begins(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    assert run(trained, "--schemes", "[{name: css, steps: 4}]", "--out", str(tmp_path)) == 2
    assert name in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


STOPS = "[{name: css, steps: [6, 8], levels: [1, 2, 4, 8]}, {name: rate, steps: 8}, {name: phase, steps: 16}]"


@pytest.fixture(scope="module")
def stops(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stops"
    assert run(trained, "--schemes", STOPS, "--agreement", "0.98", "--held-out", "120", "--out", str(out)) == 0
    return out


def test_codes_stop_early_beside_each_other(stops: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {(row.scheme["name"], row.steps): row for row in read(stops).rows}
    css, longer, rate, phase = (found[key] for key in (("css", 6), ("css", 8), ("rate", 8), ("phase", 16)))
    for row in (css, longer, rate):
        asked, full = row.early[0], row.early[-1]
        assert (asked.agreement, asked.images, full.steps) == (0.98, 240, row.steps) and not row.unstreamed
        assert asked.latency - asked.steps == row.latency - row.steps and (full.energy_uj or 0) > 0
        assert len(row.pictured) == 12 and row.pictured[0].steps <= row.pictured[-1].steps
    assert longer.early[0].steps < rate.early[0].steps - 1
    with (stops / "rows.csv").open(newline="") as file:
        lines = {(line["scheme"], line["steps"]): line for line in csv.DictReader(file)}
    names = ("agreement", "changed", "accuracy", "steps", "latency", "energy_uj")
    assert [float(lines["css", "8"][f"early_{name}"]) for name in names] == [
        getattr(longer.early[0], name) for name in names
    ]
    assert {lines[key][f"early_{name}"] for key in (("phase", "16"), ("ann", "")) for name in names} == {""}
    assert not phase.early and "Phase does not stream" in phase.unstreamed
    assert run(trained, "--schemes", STOPS, "--agreement", "0.98", "--held-out", "120", "--resume", str(stops)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Each image stops when its answer is sure (agreement 0.98)" in said
    assert "No early answers: Phase does not stream" in said
    page = (stops / "report.html").read_text()
    for text in ("code beside code", "accuracy (%) against mean latency (steps)", "energy (µJ) against mean steps"):
        assert text in page
    assert "Phase does not stream: the weights of its steps" in page and "Least sure images" in page


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--held-out", "20"], "held_out=20: it sets the threshold of an agreement"),
        (["--agreement", "0.99", "--held-out", "20"], "agreement=0.99 needs held_out=99 or more, not 20"),
        (["--agreement", "0.999"], "held_out=999: these images set the threshold, and none of 360"),
        (["--agreement", "0.9", "--technology", "7nm"], "the energy of early answers is that of 45nm alone"),
    ],
)
def test_wrong_agreements_are_named(
    options: list[str], complaint: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, *options, "--schemes", "css", "--out", str(tmp_path / "out")) == 2
    assert complaint in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()
