"""Loaders and batches of anyone's: what gives the same numbers as ours, and what is said of the rest."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from transpike.errors import ConfigError, DataError, ModelError
from transpike.train import Loaders, Optim, TrainOptions, evaluate, fit
from transpike.train.distill import distill

from .small import CPU, PLAIN, images, network

PIXELS, LABELS = images(48).tensors
ONCE = replace(PLAIN, epochs=1)


def batches(pixels=PIXELS, labels=LABELS, size=16):
    return [(pixels[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def learned(data, folder):
    fitted = fit(network(), Loaders(data, data), ONCE, folder=folder)
    return torch.cat([p.detach().flatten() for p in fitted.model.parameters()]), fitted.curves[0]["loss"]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(batches())


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return learned(batches(), tmp_path_factory.mktemp("expected"))


ALIKE = {
    "int32": (PIXELS, LABELS.int()),
    "uint8": (PIXELS, LABELS.to(torch.uint8)),
    "numpy": (PIXELS.numpy(), LABELS.numpy().astype(np.uint16)),
    "float64": (PIXELS.double(), LABELS),
    "mirrored": (PIXELS.numpy()[::-1][::-1], LABELS),
    "list": (PIXELS, LABELS.tolist()),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_other_types_of_the_same_numbers_train_and_test_alike(kind, expected, tmp_path):
    weights, loss = learned(batches(*ALIKE[kind]), tmp_path)
    assert torch.equal(weights, expected[0])
    assert loss == expected[1]
    one, other = (evaluate(network(), batches(*data), machine=CPU) for data in ((PIXELS, LABELS), ALIKE[kind]))
    assert one == other


def test_a_network_in_double_precision_is_given_doubles():
    one, other = (evaluate(net, batches(), machine=CPU).loss for net in (network(), network().double()))
    assert one == pytest.approx(other, rel=1e-6)


def test_truth_values_are_two_classes():
    truth = evaluate(network(), batches(labels=LABELS > 0), machine=CPU)
    assert truth == evaluate(network(), batches(labels=(LABELS > 0).long()), machine=CPU)


ONE_HOT = nn.functional.one_hot(LABELS)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS.float(), r"tensor \[16\], got torch.float32 \[16\]\. Labels are .* from 0\. Take labels\.long\(\)\.$"),
        (ONE_HOT, r"tensor \[16\], got torch.int64 \[16, 3\]\. .*Take labels\.argmax\(1\) if they are one-hot\.$"),
        (ONE_HOT.float(), r"tensor \[16\], got torch.float32 \[16, 3\]\. .*Take labels\.argmax\(1\)"),
        (LABELS[:, None], r"tensor \[16\], got torch.int64 \[16, 1\]\. .*Take labels\.squeeze\(1\)\.$"),
        (np.array(["auk"] * 48), "labels: expected a tensor or an array of numbers, not this ndarray"),
        (LABELS + 1, "class indices from 1 to 3, but Sequential has 3 classes, 0 to 2. Number the classes from 0"),
        (LABELS - 1, "class indices from -1 to 1, but Sequential has 3 classes, 0 to 2"),
        (LABELS.clone().fill_(255).to(torch.uint8), "class indices from 255 to 255, but Sequential has 3 classes"),
    ],
)
def test_labels_that_are_no_class_indices_are_one_error(labels, said, tmp_path):
    wrong = batches(labels=labels)
    for use in (
        lambda: fit(network(), Loaders(wrong, None), ONCE, folder=tmp_path),
        lambda: evaluate(network(), wrong, machine=CPU),
    ):
        with pytest.raises(DataError, match=said):
            use()


@pytest.mark.parametrize(
    ("batch", "error", "said"),
    [
        (PIXELS[:4], DataError, r"a batch must be a pair \(images, labels\), not a Tensor"),
        ({"x": PIXELS[:4]}, DataError, r"a batch must be a pair \(images, labels\), not a dict"),
        ((PIXELS[:4], LABELS[:4], LABELS[:4]), DataError, "not 3 values"),
        ((PIXELS[0], LABELS[0]), DataError, "This is one sample: make batches"),
        ((PIXELS[:4], LABELS[:3]), DataError, r"expected a whole-number tensor \[4\], got torch.int64 \[3\]"),
        ((PIXELS[:0], LABELS[:0]), DataError, r"images: expected a batch of at least one, got a tensor \[0, 1, 6, 6\]"),
        (([PIXELS[0], None], LABELS[:2]), DataError, "images: expected a tensor or an array of numbers, not this list"),
        (
            (PIXELS[:4, :, :5], LABELS[:4]),
            ModelError,
            r"fails on a batch \[4, 1, 5, 6\] of torch.float32: mat1.* give those\.$",
        ),
        (((PIXELS[:4] * 9).byte(), LABELS[:4]), ModelError, r"of torch.uint8: .*\. Make the images floating-point"),
    ],
)
def test_what_is_no_batch_is_one_error(batch, error, said, tmp_path):
    for use in (
        lambda: fit(network(), Loaders([batch], None), ONCE, folder=tmp_path),
        lambda: evaluate(network(), [batch], machine=CPU),
    ):
        with pytest.raises(error, match=said):
            use()


class Flawed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = network(), change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: {"logits": logits}, "Flawed gives a dict for a batch of 16"),
        (lambda logits: logits[:5], r"Flawed gives \[5, 3\] for a batch of 16: expected a tensor \[N, classes\]"),
        (lambda logits: logits[:, 0], r"Flawed gives \[16\] for a batch of 16"),
        (lambda logits: logits[..., None, None], r"Flawed gives \[16, 3, 1, 1\] for a batch of 16"),
    ],
)
def test_outputs_that_are_no_logits_are_one_error(change, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        evaluate(Flawed(change), batches(), machine=CPU)
    with pytest.raises(ModelError, match=said):
        fit(Flawed(change), Loaders(batches(), None), ONCE, folder=tmp_path)


@pytest.mark.parametrize("loader", [(b for b in batches()), Stream(), DataLoader(Stream(), batch_size=None)])
def test_measuring_needs_no_length(loader, tmp_path):
    assert evaluate(network(), loader, machine=CPU) == evaluate(network(), batches(), machine=CPU)
    with pytest.raises(ConfigError, match=r"the train loader needs a length, .* has none: take a DataLoader or a list"):
        fit(network(), Loaders(loader, None), ONCE, folder=tmp_path)
    with pytest.raises(ConfigError, match="the validation loader needs a length"):
        fit(network(), Loaders(batches(), loader), ONCE, folder=tmp_path)
    with pytest.raises(ConfigError, match="the train loader needs a length"):
        distill(network(), network(), Loaders(loader, None), ONCE, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("loader", [5, None, nn.ReLU()])
def test_what_gives_no_batches_is_one_error(loader, tmp_path):
    with pytest.raises(ConfigError, match=f"the test loader, a {type(loader).__name__}, gives no batches"):
        evaluate(nn.Linear(2, 2), loader, machine=CPU)


def test_no_batches_are_one_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no test image to measure"):
        evaluate(network(), [], machine=CPU)
    with pytest.raises(ConfigError, match="the train loader needs a length, its number of batches, of at least 1"):
        fit(network(), Loaders([], None), ONCE, folder=tmp_path)


def test_a_list_of_arrays_distils(tmp_path):
    data = batches(*ALIKE["numpy"])
    options = TrainOptions(epochs=1, machine=CPU, optim=Optim(lr=0.05))
    fitted = distill(network(), network(), Loaders(data, data), options, folder=tmp_path, method="kd")
    assert fitted.first_terms["cross_entropy"] > 0
