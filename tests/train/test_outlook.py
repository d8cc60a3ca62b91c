"""What is said of a training before its time is spent, and of one that leads nowhere."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from transpike.train import Loaders, Optim, Recipe, fit, outlook
from transpike.train.classify import Classifier
from transpike.train.outlook import Outlook, at_chance, checkpoint_bytes, due, estimate

from .small import PLAIN, images, loaders, network


def test_parameters_and_the_time_of_the_rest_are_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outlook, "SOON", 0.0)
    fit(network(), loaders(), replace(PLAIN, epochs=3), folder=tmp_path)
    told = capsys.readouterr().err
    assert told.count("483 parameters; a checkpoint takes about 0.0 MB") == 1
    # 15 batches in all; the first two are behind it.
    assert told.count("for the 13 batches that are left") == 1
    assert sum(parameter.numel() for parameter in network().parameters()) == 483


def test_a_short_training_is_not_estimated(tmp_path, capsys):
    fit(network(), loaders(), PLAIN, folder=tmp_path)
    assert "batches that are left" not in capsys.readouterr().err


class Ticking:
    """A trainer and its clock: the first batch takes `first` seconds, each other `each`."""

    def __init__(self, first, each, zero=True):
        self.now, self.first, self.each = 0.0, first, each
        self.lines = []
        self.trainer = SimpleNamespace(
            is_global_zero=zero, estimated_stepping_batches=1000, global_step=0, num_training_batches=100,
            num_val_batches=[30],
        )  # fmt: skip
        bar = SimpleNamespace(say=self.lines.append)
        self.callback = Outlook(SimpleNamespace(rows=[]), bar, clock=lambda: self.now)
        self.callback.on_train_start(self.trainer, Classifier(network(), PLAIN))

    def run(self, batches):
        for _ in range(batches):
            self.now += self.each if self.trainer.global_step else self.first
            self.trainer.global_step += 1
            self.callback.on_train_batch_end(self.trainer, None)
        return self.lines[1:]


def test_the_first_batch_is_not_counted():
    ticking = Ticking(first=10, each=2)
    assert ticking.run(10) == []
    # After 11 batches, 20 seconds after the first: 989 * 2 s, and a tenth of it for validation.
    assert ticking.run(1) == ["about 36 min for the 989 batches that are left, 2 s each"]
    assert len(ticking.run(500)) == 1


def test_a_slow_first_batch_is_told_of_within_the_minute():
    assert Ticking(first=40, each=1).run(1) == [
        "about 12 h 13 min for the 999 batches that are left, 40 s each, if all take as long as the first"
    ]
    assert Ticking(first=40, each=1).run(21)[1] == "about 18 min for the 979 batches that are left, 1 s each"


def test_one_process_of_several_speaks():
    ticking = Ticking(first=40, each=40, zero=False)
    ticking.run(20)
    assert ticking.lines == []


def test_training_without_validation_is_estimated():
    trainer = SimpleNamespace(estimated_stepping_batches=10, global_step=4, num_training_batches=5, num_val_batches=[])
    assert estimate(trainer, 3.0) == "about 18 s for the 6 batches that are left, 3 s each"


@pytest.mark.parametrize(
    ("optim", "recipe"),
    [
        (Optim(), Recipe()),
        (Optim(momentum=0.0, nesterov=False), Recipe()),
        (Optim(name="adamw"), Recipe()),
        (Optim(name="adamw", lr=1e-3), Recipe(ema=0.9)),
    ],
)
def test_the_size_of_a_checkpoint_is_what_its_file_has(optim, recipe, tmp_path):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 5000), torch.nn.Linear(5000, 3))
    options = replace(PLAIN, epochs=1, optim=optim, recipe=recipe)
    fit(net, loaders(), options, folder=tmp_path)
    told = checkpoint_bytes(Classifier(net, options))
    assert (tmp_path / "last.ckpt").stat().st_size == pytest.approx(told, rel=0.04)


def chance(labels, folder, **options):
    pixels = images(60).tensors[0]
    data = DataLoader(TensorDataset(torch.zeros_like(pixels), labels), batch_size=20)
    optim = Optim(lr=0.05, warmup=0)
    fit(network(), Loaders(data, data), replace(PLAIN, optim=optim, **options), folder=folder)


def test_a_network_that_guesses_is_warned_of_once(tmp_path):
    with pytest.warns(
        UserWarning, match=r"after 3 epochs the network still guesses: 33\.3% .* chance gives 33\.3% with 3 classes"
    ) as told:
        chance(torch.arange(60) % 3, tmp_path, epochs=6)
    assert sum("guesses" in str(each.message) for each in told) == 1


def test_one_that_learns_or_had_no_time_is_not(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*guesses.*")
        chance(torch.arange(60) % 3, tmp_path / "short", epochs=2)
        fit(network(), loaders(), replace(PLAIN, epochs=4), folder=tmp_path / "long")


def test_chance_has_a_margin():
    assert at_chance({"train_accuracy": 0.119}, 10) and not at_chance({"train_accuracy": 0.121}, 10)
    assert at_chance({"train_accuracy": 0.549}, 2) and not at_chance({"train_accuracy": 0.551}, 2)
    assert not at_chance({"train_accuracy": 0.1, "validation_accuracy": 0.2}, 10)
    assert due(replace(PLAIN, epochs=9, optim=Optim(warmup=2.5))) == 6
