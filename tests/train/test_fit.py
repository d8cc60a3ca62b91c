import csv
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import neuron as jelly
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.models import create_model
from transpike.models.spiking import OverTime
from transpike.neurons import IFNode
from transpike.train import Loaders, Optim, Recipe, TrainOptions, classify, evaluate, fit
from transpike.train.mix import mix

from .small import CPU, OPTIONS, PLAIN, Interrupting, images, loaders, network

ROOT = Path(__file__).parents[2]


def assert_same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    torch.manual_seed(99)  # whatever came before must not matter
    return fit(network(), loaders(), OPTIONS, folder=folder)


def test_training_lowers_the_loss_and_learns_the_classes(tmp_path):
    net = network()
    fitted = fit(net, loaders(), replace(PLAIN, epochs=6), folder=tmp_path)
    assert fitted.model is net
    assert not net.training
    losses = [row["loss"] for row in fitted.curves]
    assert losses[-1] < losses[0] / 3
    assert fitted.validation_accuracy >= 0.9
    assert fitted.epoch == 6
    told = evaluate(net, loaders().validation, machine=CPU)
    assert (told.accuracy, told.images) == (fitted.validation_accuracy, 31)
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == losses
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())


def test_the_rate_warms_up_then_falls_to_its_least(tmp_path):
    options = replace(PLAIN, epochs=4, optim=Optim(lr=0.1, lr_min=0.01, warmup=2))
    rates = [row["lr"] for row in fit(network(), loaders(), options, folder=tmp_path).curves]
    # After n of 20 steps, of which 10 warm up: the next step's rate.
    assert rates == pytest.approx([0.1 * 6 / 10, 0.1, 0.01 + 0.09 / 2, 0.01])


def test_the_rate_descends_stairs(tmp_path):
    options = replace(PLAIN, epochs=4, optim=Optim(lr=0.1, milestones=(1, 3), decay=0.5, warmup=0))
    rates = [row["lr"] for row in fit(network(), loaders(), options, folder=tmp_path).curves]
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.025])  # of the step after an epoch


def test_gradients_are_clipped_to_a_norm(tmp_path):
    net, before = network(norm=False), network(norm=False)
    clipped = Optim(lr=1.0, warmup=0, momentum=0.0, nesterov=False, weight_decay=0.0, clip=1e-2)
    data = Loaders(DataLoader(images(16), batch_size=16), None)
    fit(net, data, replace(PLAIN, epochs=1, optim=clipped), folder=tmp_path)
    moved = sum((a - b).square().sum() for a, b in zip(net.parameters(), before.parameters(), strict=True))
    assert moved.sqrt().item() == pytest.approx(1e-2, rel=1e-3)


def test_adamw_leaves_norms_and_biases_undecayed(tmp_path):
    net = network()
    with torch.no_grad():
        net[1].bias.fill_(1.0)
    options = replace(PLAIN, epochs=1, optim=Optim(name="adamw", lr=1e-3, weight_decay=900.0, warmup=0))
    fit(net, loaders(), options, folder=tmp_path)
    assert net[1].bias.min() > 0.9
    assert net[0].weight.abs().max() < 0.01


def test_the_best_epoch_is_the_validation_images_choice(tmp_path):
    options = replace(PLAIN, epochs=4, keep="best", optim=Optim(lr=0.5, warmup=0))
    net = network()
    fitted = fit(net, loaders(), options, folder=tmp_path)
    accuracies = [row["validation_accuracy"] for row in fitted.curves]
    assert fitted.epoch == accuracies.index(max(accuracies)) + 1
    assert evaluate(net, loaders().validation, machine=CPU).accuracy == fitted.validation_accuracy == max(accuracies)


def test_without_validation_images_the_last_epoch_counts(tmp_path):
    fitted = fit(network(), Loaders(loaders().train, None), PLAIN, folder=tmp_path)
    assert (fitted.epoch, fitted.validation_accuracy) == (2, None)
    assert "validation_accuracy" not in fitted.curves[0]
    with pytest.raises(ConfigError, match="keep='best'"):
        fit(network(), Loaders(loaders().train, None), replace(PLAIN, keep="best"), folder=tmp_path / "best")


def test_a_seed_gives_the_same_run_and_the_global_state_does_not_matter(unbroken, tmp_path):
    torch.manual_seed(1)
    again = fit(network(), loaders(), OPTIONS, folder=tmp_path / "same")
    assert_same(again.model, unbroken.model)
    other = fit(network(), loaders(), replace(OPTIONS, seed=4), folder=tmp_path / "other")
    assert not torch.equal(other.model[0].weight, unbroken.model[0].weight)


def test_a_killed_run_resumed_equals_an_unbroken_one(unbroken, killed):
    folder = killed / "fit"
    resumed = fit(network(), loaders(), OPTIONS, folder=folder, resume=True)
    assert_same(resumed.model, unbroken.model)
    assert [row["epoch"] for row in resumed.curves] == [1, 2, 3, 4]
    assert [row["loss"] for row in resumed.curves] == [row["loss"] for row in unbroken.curves]
    # A finished run, resumed, is as it was.
    assert_same(fit(network(), loaders(), OPTIONS, folder=folder, resume=True).model, unbroken.model)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_good_order(number, unbroken, tmp_path):
    before = signal.getsignal(number)
    data = Interrupting(images(), after=70 + 20, number=number)
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 2"):
        fit(network(), loaders(data), OPTIONS, folder=tmp_path)
    assert signal.getsignal(number) == before
    assert not list(tmp_path.glob("*.partial"))
    stopped = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (stopped["epoch"], stopped["global_step"]) == (1, 5 + 2)
    assert_same(fit(network(), loaders(), OPTIONS, folder=tmp_path, resume=True).model, unbroken.model)


class Poisoned(TensorDataset):
    """Gives images without a value from the n-th on."""

    def __init__(self, data, *, after):
        super().__init__(*data.tensors)
        self.left = after

    def __getitem__(self, index):
        self.left -= 1
        image, label = super().__getitem__(index)
        return image if self.left > 0 else image * float("nan"), label


def test_a_loss_that_is_no_number_stops_and_is_explained(tmp_path):
    told = r"not finite at step \d+ \(epoch 2\): cross_entropy = nan; .*last\.ckpt holds the last good state"
    with pytest.raises(TranspikeError, match=told):
        fit(network(), loaders(Poisoned(images(), after=70 + 20)), PLAIN, folder=tmp_path / "later")
    told = r"at step 1 \(epoch 1\): .* no epoch had ended yet.* look for such values in the images"
    with pytest.raises(TranspikeError, match=told):
        fit(network(), loaders(Poisoned(images(), after=0)), PLAIN, folder=tmp_path / "first")


@pytest.mark.parametrize(
    ("share", "epochs", "mixed"), [(1.0, None, 8), (1.0, 2, 4), (0.5, None, (1, 7)), (0.0, None, 0)]
)
def test_a_share_of_the_batches_is_mixed_in_the_first_epochs(share, epochs, mixed, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(classify, "mix", lambda *given, **named: calls.append(1) or mix(*given, **named))
    recipe = Recipe(mixup=0.5, mix_share=share, mix_epochs=epochs)
    batches = len(loaders().train)
    fit(network(), loaders(), replace(PLAIN, epochs=4, recipe=recipe), folder=tmp_path)
    whole = 4 * batches
    expected = {8: whole, 4: whole // 2, 0: 0}.get(mixed) if isinstance(mixed, int) else None
    assert len(calls) == expected if expected is not None else 0 < len(calls) < whole


class PerStep(nn.Module):
    """A spiking network's interface: [T, N, *] in, [T, N, classes] out, with a state that must be reset."""

    def __init__(self):
        super().__init__()
        self.net, self.state = network(), 0.0

    def forward(self, x):
        assert x.shape[0] == 3
        assert self.state == 0.0, "state of another batch"
        self.state = 1.0
        return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def reset(self):
        self.state = 0.0


@pytest.mark.parametrize("loss", ["ce", "tet"])
def test_a_network_over_time_sees_repeated_images_and_is_read_by_its_mean(loss, tmp_path):
    options = replace(PLAIN, epochs=4, steps=3, recipe=Recipe(loss=loss, label_smoothing=0.1, mixup=0.1))
    fitted = fit(PerStep(), loaders(), options, folder=tmp_path, reset=PerStep.reset)
    assert fitted.validation_accuracy >= 0.9
    told = evaluate(fitted.model, loaders().validation, machine=CPU, steps=3, reset=PerStep.reset)
    assert told.accuracy == fitted.validation_accuracy


@pytest.mark.parametrize("node", [IFNode, jelly.IFNode])
def test_neurons_are_put_to_rest_between_batches(node, tmp_path):
    torch.manual_seed(0)
    net = OverTime(nn.Flatten(), nn.Linear(36, 24), node(step_mode="m"), nn.Linear(24, 3))
    fitted = fit(net, loaders(), replace(PLAIN, epochs=6, steps=3), folder=tmp_path)
    assert fitted.validation_accuracy >= 0.9
    assert net[2].v == 0.0
    # The last batch is smaller: a membrane that stayed would not fit.
    assert evaluate(net, loaders().validation, machine=CPU, steps=3).accuracy == fitted.validation_accuracy


def test_a_student_that_reads_itself_out_trains(tmp_path):
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = OverTime(nn.Flatten(), nn.Linear(36, 24), IFNode(step_mode="m"), nn.Linear(24, 3))

        def forward(self, x):
            return self.body(x).mean(0)

    fitted = fit(Student(), loaders(), replace(PLAIN, epochs=6, steps=3), folder=tmp_path)
    assert fitted.validation_accuracy >= 0.9


def test_frames_come_time_first(tmp_path):
    def frames(count, seed):
        x, labels = images(count, seed).tensors
        return [(x[i : i + 8].expand(3, -1, -1, -1, -1), labels[i : i + 8]) for i in range(0, count, 8)]

    net = OverTime(nn.Flatten(), nn.Linear(36, 24), IFNode(step_mode="m"), nn.Linear(24, 3))
    data = Loaders(frames(64, 0), frames(32, 1))
    options = replace(PLAIN, epochs=6, steps=3, recipe=Recipe(mixup=0.1, cutmix=0.1))
    assert fit(net, data, options, folder=tmp_path).validation_accuracy >= 0.9
    with pytest.raises(DataError, match=r"the batch has 3 frames, shape \[3, 8, 1, 6, 6\], but steps=4"):
        evaluate(net, data.validation, machine=CPU, steps=4)


def test_bad_input_is_told(tmp_path):
    with pytest.raises(ConfigError, match="nothing to resume"):
        fit(network(), loaders(), PLAIN, folder=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="the train loader needs a length"):
        fit(network(), Loaders((batch for batch in loaders().train), None), PLAIN, folder=tmp_path)
    with pytest.raises(ModelError, match="no parameter to train"):
        fit(nn.Flatten(), loaders(), PLAIN, folder=tmp_path)
    with pytest.raises(ModelError, match="every time step"):
        fit(network(), loaders(), replace(PLAIN, steps=1, recipe=Recipe(loss="tet")), folder=tmp_path,
            encode=lambda x: x)  # fmt: skip
    with pytest.raises(ConfigError, match="no test image"):
        evaluate(network(), DataLoader(images(0)), machine=CPU)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TrainOptions(epochs=0), "epochs=0"),
        (lambda: TrainOptions(steps=0), "steps=0"),
        (lambda: TrainOptions(keep="first"), "keep='first'"),
        (lambda: TrainOptions(recipe=Recipe(loss="tet")), "give steps"),
        (lambda: Optim(lr=-1), "optim.lr=-1"),
        (lambda: Optim(lr=float("nan")), "optim.lr=nan"),
        (lambda: Optim(name="lion"), "'sgd' or 'adamw'"),
        (lambda: Optim(momentum=0.0), "optim.nesterov"),
        (lambda: Optim(milestones=(3, 2)), r"optim.milestones=\(3, 2\): expected ascending epochs from 1 on"),
        (lambda: Optim(milestones=(2,), lr_min=0.01), "optim.lr_min=0.01: expected 0 where milestones are given"),
        (lambda: Optim(decay=0.0), "optim.decay=0.0"),
        (lambda: TrainOptions(epochs=5, optim=Optim(milestones=(2, 5))), "expected epochs before the last, 5"),
        (lambda: Recipe(ema=1.0), "recipe.ema=1.0"),
        (lambda: replace(CPU, devices=0), "machine.devices=0"),
    ],
)
def test_options_out_of_range_are_told(make, told):
    with pytest.raises(ConfigError, match=told):
        make()


def test_a_library_network_trains(tmp_path):
    net = create_model("timm/resnet10t", num_classes=3, in_channels=1)
    assert len(fit(net, loaders(), replace(PLAIN, epochs=1), folder=tmp_path).curves) == 1
