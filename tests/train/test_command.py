import errno
import json
import os
import shutil
import signal

import pytest
import torch
from torch import nn

from transpike.cli import main
from transpike.errors import ConfigError
from transpike.models import create_model, read_weights
from transpike.train import Classifier, Loaders, Machine, TrainOptions, fit
from transpike.train.callbacks import Curves

TINY = ["--network", '{"width": 4}', "--machine.accelerator", "cpu", "--loading.train_images", "300"]


def test_train_writes_a_run_that_the_other_commands_read(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *TINY, "--epochs", "2", "--out", str(run), "--json", str(tmp_path / "copy.json")]) == 0
    assert f"Written to {run}" in capsys.readouterr().out
    names = {path.name for path in run.iterdir()}
    assert names >= {"run.json", "model.json", "weights.safetensors", "results.json", "curves.csv", "last.ckpt"}
    results = json.loads((run / "results.json").read_text())
    assert results == json.loads((tmp_path / "copy.json").read_text())
    assert (results["kind"], results["dataset"], results["images"]) == ("training", "digits", 360)
    assert [row["epoch"] for row in results["epochs"]] == [1, 2]
    assert results["epochs"][1]["loss"] < results["epochs"][0]["loss"]
    model = json.loads((run / "model.json").read_text())
    assert (model["name"], model["num_classes"], model["in_channels"], model["image_size"]) == ("resnet20", 10, 1, 8)
    net = create_model(run).eval()
    assert torch.equal(net.fc.weight, read_weights(run / "last.ckpt")["model.fc.weight"])


def test_a_run_in_bf16_is_evaluated_in_bf16(tmp_path):
    run, check = tmp_path / "run", tmp_path / "check.json"
    told = ["--epochs", "1", "--machine.precision", "bf16-mixed"]
    assert main(["train", *TINY, *told, "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--out", str(tmp_path / "again"), "--json", str(check)]) == 0
    first, again = (json.loads(path.read_text()) for path in (run / "results.json", check))
    assert (first["accuracy"], first["loss"]) == (again["accuracy"], again["loss"])


def test_an_interrupted_run_goes_on_with_the_options_it_began_with(tmp_path, capsys, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert main(["train", *TINY, "--epochs", "3", "--out", str(whole)]) == 0
    write_row = Curves.on_train_epoch_end

    def interrupted(self, trainer, module):
        write_row(self, trainer, module)
        if len(self.rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Curves, "on_train_epoch_end", interrupted)
        assert main(["train", *TINY, "--epochs", "3", "--out", str(part)]) == 130
    assert f"transpike train --resume {part}" in capsys.readouterr().err
    assert not (part / "results.json").exists()
    assert main(["train", "--resume", str(part)]) == 0
    assert (part / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_run_killed_in_its_first_epoch_begins_again(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert main(["train", *TINY, "--epochs", "1", "--out", str(whole)]) == 0
    part.mkdir()
    for name in ("run.json", "hparams.yaml", "best.ckpt"):
        shutil.copy(whole / name, part)
    assert main(["train", "--resume", str(part)]) == 0
    assert (part / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_second_interrupt_ends_at_once_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    write_row, handler = Curves.on_train_epoch_end, signal.getsignal(signal.SIGINT)

    def interrupted(self, trainer, module):
        write_row(self, trainer, module)
        if len(self.rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Curves, "on_train_epoch_end", interrupted)
        assert main(["train", *TINY, "--epochs", "3", "--out", str(run)]) == 130
    said = capsys.readouterr().err
    assert f"Stopped. Continue: transpike train --resume {run}" in said and said.endswith("transpike: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is handler
    assert main(["train", "--resume", str(run)]) == 0
    assert [row["epoch"] for row in json.loads((run / "results.json").read_text())["epochs"]] == [1, 2, 3]


def test_an_interrupted_measurement_ends_with_130_and_can_be_repeated(tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", *TINY, "--epochs", "1", "--out", str(run)]) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert main(["evaluate", str(run), "--out", str(out)]) == 130
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert main(["evaluate", str(run), "--out", str(out)]) == 0


def test_python_trainings_do_not_overwrite_each_other(tmp_path):
    net, batch = nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]
    options = TrainOptions(epochs=1, machine=Machine(accelerator="cpu"))
    fit(net, Loaders(batch, None), options, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"holds an earlier training \(last\.ckpt\)\. Continue it with resume=True"):
        fit(net, Loaders(batch, None), options, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_is_written_whole_and_readable(tmp_path, monkeypatch):
    net, batch = nn.Linear(2, 2), [(torch.eye(2), torch.tensor([0, 1]))]
    options = TrainOptions(epochs=2, machine=Machine(accelerator="cpu"))
    place, moved = os.replace, []

    def second_fails(source, target):
        moved.append(target)
        if [os.path.basename(each) for each in moved].count("last.ckpt") == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        place(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(ConfigError, match=r"cannot write .*last\.ckpt: no space is left on its disk\."):
        fit(net, Loaders(batch, None), options, folder=tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0
    assert not list(tmp_path.glob(".*.partial"))
    assert oct(os.stat(tmp_path / "last.ckpt").st_mode) == oct(os.stat(tmp_path / "curves.csv").st_mode)


def test_a_run_without_a_finished_epoch_is_not_resumed_nor_taken_away(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *TINY, "--epochs", "1", "--out", str(run)]) == 0
    checkpoint = (run / "last.ckpt").read_bytes()
    for kept in (0, 1000, len(checkpoint) // 2):
        (run / "last.ckpt").write_bytes(checkpoint[:kept])
        assert main(["train", "--resume", str(run)]) == 2
        told = capsys.readouterr().err
        assert "last.ckpt is damaged" in told and "best.ckpt over it" in told and "Traceback" not in told
    (run / "last.ckpt").unlink()
    begun = json.loads((run / "run.json").read_text())
    wrong = begun["options"] | {"loading": begun["options"]["loading"] | {"batch_size": "many"}}
    unknown = begun["options"] | {"loading": begun["options"]["loading"] | {"batch_sise": 4}}
    for record, told in (
        (begun, "nothing to resume"),
        (begun | {"verb": "convert"}, "not of `transpike train`"),
        (begun | {"version": 1}, "run.json: written in an older format"),
        (begun | {"options": {"loading": {}}}, "run.json: its options lack "),
        (begun | {"options": wrong}, 'run.json: Parser key "loading.batch_size": Expected'),
        (begun | {"options": unknown}, "run.json: loading.batch_sise is unknown. Did you mean batch_size?"),
        (
            begun | {"options": wrong | {"loading": {"batch_size": 0}}},
            "run.json: loading.batch_size=0: expected a whole number of at least 1. Start",
        ),
        ("{", "damaged"),
    ):
        (run / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
        capsys.readouterr()
        assert main(["train", "--resume", str(run)]) == 2
        assert told in capsys.readouterr().err
        assert (run / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "resnet21"], "Did you mean resnet20"),
        (["--epochs", "0"], "epochs=0"),
        (["--seed", "-1"], "transpike: seed=-1: expected a whole number"),
        (["--loading.outputs", "1000"], "loading.outputs=1000: digits has 10 classes"),
        (["--model", "timm/resnet18x"], "no network 'timm/resnet18x'. Did you mean timm/resnet18"),
        (["--weights", "absent.pt"], "no such weight file"),
        (["--resume", "absent"], "no run to resume"),
        (["--network", '{"depth": 3}'], "depth"),
        (["--network", '{"image_size": 3}'], "network: image_size follows from the images"),
        (["--network", '{"width": -8}'], "width=-8"),
        (["--test_steps", "[1, 0]"], "test_steps=[1, 0]: expected numbers of steps, each of at least 1"),
        (["--loading.device", "nowhere"], "device='nowhere' cannot hold images here"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("runs/*"))


def test_options_beside_resume_must_be_those_of_the_run(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *TINY, "--epochs", "1", "--out", str(run)]) == 0
    before = (run / "results.json").read_bytes()
    for given, named in (
        (["--epochs", "5"], "epochs"),
        (["--recipe.mixup", "0.2", "--keep", "best"], "keep, recipe.mixup"),
        (["--loading.batch_size", "7"], "loading.batch_size"),
    ):
        capsys.readouterr()
        assert main(["train", "--resume", str(run), *given]) == 2
        assert f"{run}: the run began with other options ({named}). Resume with the same" in capsys.readouterr().err
    assert main(["train", *TINY, "--epochs", "1", "--resume", str(run)]) == 0
    assert (run / "results.json").read_bytes() == before
