"""Two processes do what one does at the same global batch: training, distillation, accuracy, layers and energies."""

import json

import pytest
import torch

from transpike.models import read_weights

from . import small_processes
from .test_fit import program


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    places = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for place, command in zip(places, ([], torchrun), strict=True):
        done = program(*command, small_processes.__file__, str(place))
        assert done.returncode == 0, done.stderr[-2000:]
    return places


def flat(value, name=""):
    if isinstance(value, list | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f"{name}.{key}")
    else:
        yield name, value


@pytest.mark.parametrize("part", ["trained", "distilled", "measured"])
def test_figures_are_those_of_one_process(part, both):
    one, two = (dict(flat(json.loads((place / "told.json").read_text())[part])) for place in both)
    assert one.keys() == two.keys() and len(one) > 10
    for name, value in one.items():
        assert two[name] == (pytest.approx(value, rel=2e-5, abs=1e-7) if isinstance(value, float) else value), name


@pytest.mark.parametrize("folder", ["fit0", "fit1", "distil"])
def test_weights_are_those_of_one_process(folder, both):
    one, two = (read_weights(place / folder) for place in both)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


def test_layers_and_energies_are_of_all_images(both):
    whole, single = json.loads((both[1] / "told.json").read_text())["measured"]
    assert (whole["test"]["images"], single["test"]["images"]) == (37, 1)
    spiking = whole["spiking"]
    assert [layer["name"] for layer in spiking["layers"]] == ["2", "4"]
    assert spiking["neurons"] == 60 and 0 < spiking["rate"] < 1
    # 64 x 40 products of a pixel's value at each of 3 steps.
    assert spiking["macs"] == 3 * 64 * 40
    assert len(whole["after"]) == 3 and 0 < whole["spikes"] < 3 * 64
