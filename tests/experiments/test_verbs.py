"""Verbs from Python: a dataclass of options and a function; and what run.json keeps of the options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from transpike.coding import DCTEncoder
from transpike.data import Loading, load_images
from transpike.errors import ConfigError, DataError
from transpike.experiments import distill, hybrid_options, train
from transpike.experiments.analyze import Analyze
from transpike.experiments.compare import Compare
from transpike.experiments.convert import Convert, convert
from transpike.experiments.demo import Demo, demo
from transpike.experiments.evaluate import Evaluate, evaluate
from transpike.experiments.export import Export
from transpike.experiments.finetune import Finetune
from transpike.experiments.learning import recorded, settled
from transpike.experiments.options import read_record, record
from transpike.experiments.report import Report
from transpike.experiments.source import Source, load_model
from transpike.experiments.study import Study
from transpike.results import RunFolder, read_result, read_run, start_run
from transpike.train import Machine, Optim
from transpike.train.recorded import read_options, recorded_loading
from transpike.train.teacher import TeacherInput, input_of

CPU = Machine(accelerator="cpu")
FEW = Loading(train_images=100, test_images=20)


def test_a_network_is_trained_converted_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, spiking = tmp_path / "run", tmp_path / "spiking"
    options = train.Train("resnet20", network={"width": 4}, epochs=1, loading=FEW, machine=CPU, root=tmp_path, out=run)
    trained = train.train(options)
    assert trained == read_result(run) and trained.images == 20 and len(trained.epochs) == 1
    assert f"{trained.accuracy:.2%} of 20 test images right after epoch 1 of 1" in capsys.readouterr().out
    converted = convert(
        Convert(
            str(run), steps=[4], loading=Loading(test_images=20), calibration=32, settings={"silent": 1}, out=spiking
        )
    )
    assert converted == read_result(spiking)
    assert (begun := read_run(spiking)) is not None and begun.options["root"] == str(tmp_path)
    (row,) = converted.rows
    assert (row.network, row.latency, converted.ann.accuracy) == ("T4_silent-1", 4 + 20, trained.accuracy)
    again = evaluate(Evaluate(spiking / "T4_silent-1", out=tmp_path / "again"))
    assert (again.rows[0].agreement, again.rows[0].synops) == (row.agreement, row.synops)  # type: ignore[union-attr]
    capsys.readouterr()
    folder = spiking / "T4_silent-1"
    stops = evaluate(Evaluate(folder, agreement=0.8, held_out=12, out=tmp_path / "early"))
    assert read_result(tmp_path / "early").rows[0].early == stops.rows[0].early  # type: ignore[union-attr]
    asked, *others = stops.rows[0].early  # type: ignore[union-attr]
    assert (asked.agreement, asked.images, len(asked.stopped)) == (0.8, 8, 4) and asked.energy_uj
    assert [one.agreement for one in others] == [0.9, None, None, None, None]
    assert others[-1].changed == 0 and others[-1].latency == stops.rows[0].latency  # type: ignore[union-attr]
    assert "agreement 0.8" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="needs held_out=199 or more, not 12"):
        evaluate(Evaluate(folder, agreement=0.995, held_out=12))
    with pytest.raises(ConfigError, match="agreement is for converted networks"):
        evaluate(Evaluate(run, agreement=0.9))
    with pytest.raises(ConfigError, match="held_out=20: these images set the threshold, and none of 20"):
        evaluate(Evaluate(folder, agreement=0.8, held_out=20, out=tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"held_out=12: .*give --agreement, too"):
        evaluate(Evaluate(folder, held_out=12))
    assert not (tmp_path / "none").exists()
    batches = Loading(batch_size=5, test_images=20)  # says nothing of size and normalisation
    said = evaluate(Evaluate(folder, loading=batches, out=tmp_path / "batches"))
    assert said.rows[0].accuracy == row.accuracy  # type: ignore[union-attr]
    before = read_options(spiking)["loading"]
    after: Any = read_run(tmp_path / "batches").options["loading"]  # type: ignore[union-attr]
    assert after["batch_size"] == 5 and before["mean"]
    assert [after[name] for name in ("mean", "std", "size")] == [before[name] for name in ("mean", "std", "size")]


def started(options: Any, verb: str, folder: Path) -> Path:
    with start_run(verb, options, out=folder) as run:
        assert isinstance(run, RunFolder)
    return folder


def test_options_are_read_back_as_they_were(tmp_path: Path) -> None:
    optim, loading = Optim(lr=0.5, milestones=(1, 2)), Loading(mean=(0.5,), std=(0.25,), batch_size=7)
    how: dict[str, Any] = {"epochs": 3, "seed": 5, "optim": optim, "loading": loading, "weights": tmp_path}
    spiking = train.Train("sew_resnet19", network={"width": 4, "neuron": [1, None]}, test_steps=3, keep="best", **how)
    chosen = settled(spiking)
    assert (chosen.steps, chosen.test_steps, chosen.loading.seed) == (4, [3], 5)
    folder = started(recorded(chosen), "train", tmp_path / "train")
    assert read_record(folder, "train", train.Train) == chosen

    learning = settled(distill.Distill("teacher", "sew_resnet19", method="kd", taps={"a": "b"}, cache=3, **how))
    learning = replace(learning, settings={"alpha": 0.5}, teacher_network={})
    folder = started(distill._recorded(learning), "distill", tmp_path / "distill")
    assert read_record(folder, "distill", distill.Distill, renamed={"model": "student"}) == learning

    pretraining = hybrid_options.Pretraining(epochs=4, network={"dropout": 0.5}, optim=optim)
    both = hybrid_options.settled(hybrid_options.Hybrid(pretraining=pretraining, epochs=3, loading=loading, last="ann"))
    folder = started(record(both), "hybrid", tmp_path / "hybrid")
    assert read_record(folder, "hybrid", hybrid_options.Hybrid) == both


def test_a_wrong_option_of_a_run_is_named_with_its_file(tmp_path: Path) -> None:
    options = record(train.Train())
    for wrong, said in (
        ({"seed": "one"}, "Parser key \"seed\": Expected a <class 'int'>. Got value: one"),
        ({"optim": {"name": "sgd", "momentun": 0.5}}, "Group 'optim' does not accept option 'momentun'"),
        ({"optim": {"lr": -1.0}}, "optim.lr=-1.0: expected a number above 0. Start"),
        ({"sead": 3}, "option sead is unknown. Did you mean seed? Start"),
        ({"options": [1]}, "options=[1]: expected an object. Run"),
    ):
        folder = started(options | wrong, "train", tmp_path / str(len(list(tmp_path.iterdir()))))
        with pytest.raises(ConfigError) as error:
            read_record(folder, "train", train.Train)
        assert str(error.value).startswith(f"{folder / 'run.json'}: ") and said in str(error.value)


def test_options_of_an_earlier_run_that_no_run_writes_are_named_with_their_file(tmp_path: Path) -> None:
    options = record(train.Train()) | {"options": {"machine": {"precision": "32-true"}}}
    for wrong, said in (
        ({"data": 5}, "data=5: expected text."),
        ({"root": ["data"]}, "root=['data']: expected text."),
        ({"loading": [1]}, "loading=[1]: expected an object."),
        ({"loading": {"batch": 8}}, "loading.batch is unknown. Did you mean batch_size?"),
        ({"loading": {"augment": 3}}, "loading.augment=3: expected text."),
        ({"options": {"machine": []}}, "options.machine=[]: expected an object."),
        ({"teacher_steps": 0}, "teacher_steps=0: expected a whole number of at least 1."),
    ):
        folder = started(options | wrong, "train", tmp_path / str(len(list(tmp_path.iterdir()))))
        with pytest.raises(ConfigError) as error:
            read_options(folder)
        assert str(error.value) == f"{folder / 'run.json'}: {said} Run the experiment again."
    folder = started(options, "train", tmp_path / "whole")
    assert read_options(folder)["options"] == options["options"] and read_options(tmp_path) == {}


def test_a_network_of_too_few_classes_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = tmp_path / "run"
    train.train(train.Train("mlp", network={"hidden": 4}, epochs=1, loading=FEW, machine=CPU, out=run))
    about = (run / "model.json").read_text()
    (run / "model.json").write_text(about.replace('"num_classes": 10', '"num_classes": 9'))
    with pytest.raises(DataError, match="distinguishes 9 classes, and digits has 10"):
        load_model(Source(str(run)), load_images("digits"))


def test_a_network_of_timm_in_a_size_of_its_own_takes_images_of_that_size() -> None:
    name = "timm/vit_tiny_patch16_224"
    assert Source(name).prepare(Loading(), "cifar10").size == 224
    loading = Source(name, network={"img_size": 32, "patch_size": 4}).prepare(Loading(), "cifar10")
    assert loading == Loading(size=32)


def test_how_a_network_takes_images_of_another_normalisation() -> None:
    sets = load_images("digits", loading=Loading(mean=(0.5,), std=(0.25,)))
    known = {"mean": [0.25], "std": [0.5], "image_size": 12}
    assert input_of(known, sets) == TeacherInput(12, (0.5,), (0.5,), None)
    assert input_of(known, sets, size=16, steps=4) == TeacherInput(16, (0.5,), (0.5,), 4)
    assert input_of({"mean": [0.25] * 3, "std": [0.5] * 3}, sets) == TeacherInput()


def test_behind_an_encoder_images_have_the_size_that_it_lays_out_as_the_network_takes_it() -> None:
    sets, encoder = load_images("digits"), DCTEncoder(steps=16, stride=2)
    known = {"image_size": 12, "steps": 16}
    given = input_of(known, sets, steps=16, encoder=encoder)
    assert (given.size, given.steps, given.encode) == (8, 16, encoder)
    analog = input_of(known | {"steps": None}, sets, encoder=encoder)
    assert analog.encode is not None and analog(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 12, 12)
    with pytest.raises(ConfigError, match="from 8 x 8 pixels, not from 16 x 16: omit the size"):
        input_of(known, sets, size=16, encoder=encoder)


def test_a_loading_that_cannot_be_names_the_run(tmp_path: Path) -> None:
    for verb in ("train", "convert"):
        place = started({"data": "digits", "loading": {"batch_size": 0}}, verb, tmp_path / verb)
        with pytest.raises(ConfigError, match=r"train: in its run\.json: loading\.batch_size=0: expected a whole"):
            recorded_loading(read_options(place), tmp_path / "train")


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"student_epochs": 0}, {"seed": -1}])
def test_the_demo_looks_at_its_options_first(wrong: dict[str, int], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name}="):
        demo(Demo(out=tmp_path / "demo", **wrong))
    assert not (tmp_path / "demo").exists()


def test_from_python_paths_may_be_text_and_text_a_path(tmp_path: Path) -> None:
    assert Convert(tmp_path, out=str(tmp_path)) == Convert(str(tmp_path), out=tmp_path)
    assert train.Train(root="images", weights="w.pt", resume="run").resume == Path("run")
    assert Report("runs/a", out="page.html") == Report(Path("runs/a"), out=Path("page.html"))
    assert Report(("runs/a", Path("runs/b"))).folders == [Path("runs/a"), Path("runs/b")]
    assert Analyze([Path("runs/a"), "runs/b"]).student == ["runs/a", "runs/b"]
    for kind, words in (
        *((Analyze, ["a"]), (Compare, ["a"]), (Demo, []), (distill.Distill, ["a"]), (Evaluate, ["a"])),
        *((Export, ["a"]), (Finetune, ["a"]), (hybrid_options.Hybrid, []), (Study, ["a"])),
    ):
        assert kind(*words, out="runs/x").out == Path("runs/x")
    with pytest.raises(ConfigError, match=r"^out=3: expected a path\.$"):
        Convert("resnet20", out=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^folders=3: expected a path\.$"):
        Report(["runs/a", 3])  # type: ignore[list-item]
