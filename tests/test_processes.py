"""Two processes do what one does at the same global batch: training, distillation, measures, commands."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests import processes
from torch import nn

import transpike
from transpike.cli import main
from transpike.models import create_model, read_weights, save_weights
from transpike.results import read_result

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def both(root, tmp_path_factory):
    """The folders of one process, this, and of two, which are started once for all that they do."""
    home = tmp_path_factory.mktemp("processes")
    save_weights(digits_network(), home / "mlp.safetensors")
    save_weights(residual_network(), home / "resnet.safetensors")
    given = ["convert", "resnet8x4", "--data", "digits", "--weights", str(home / "resnet.safetensors")]
    given += ["--network", '{"width": 4}', "--calibration", "64", "--steps", "6", "--loading.test_images", "20"]
    assert main([*given, "--out", str(home / "converted")]) == 0
    one, two = home / "one", home / "two"
    one.mkdir(), two.mkdir()
    paths = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *TORCHRUN, processes.__file__, str(two)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    processes.everything(one)
    return one, two


def digits_network():
    """A network that tells digits apart."""
    torch.manual_seed(0)
    model = create_model("mlp", in_channels=1, image_size=8)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for x, y in transpike.load_images("digits").train:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    return model


def residual_network():
    """A narrow network with the statistics of digits, so that its predictions vary."""
    torch.manual_seed(0)
    model = create_model("resnet8x4", in_channels=1, width=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.cat([x for x, _ in transpike.load_images("digits").calibration(128)]))
    return model


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


@pytest.mark.parametrize("folder", ["fit0", "fit1", "fit2", "distil"])
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


def test_a_methods_adapters_are_those_of_one_process(both):
    one, two = (load_file(place / "distil" / "adapters.safetensors") for place in both)
    assert one and one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_every_image_is_tested_once(both):
    told = json.loads((both[1] / "told.json").read_text())["trained"]
    assert [each["images"] for each in told[:2]] == [360, 360]
    losses = [
        nn.functional.cross_entropy(x.flatten(1), y, reduction="sum") for x, y in transpike.load_images("digits").test
    ]
    assert told[1]["loss"] == pytest.approx(float(sum(losses)) / 360)


def test_rows_of_codes_are_those_of_one_process(both):
    (one,), (two,) = (read_result(place / "compared").rows for place in both)
    assert (one.agreement, one.accuracy, one.latency) == (two.agreement, two.accuracy, two.latency)
    assert one.energy_uj == pytest.approx(two.energy_uj, rel=1e-5)


def test_images_stop_where_they_stop_with_one_process(both):
    (one,), (two,) = (read_result(place / "stopped").rows for place in both)
    assert one.early == two.early and one.pictured == two.pictured and one.early[0].images == 30


def test_an_evaluation_is_that_of_one_process(both):
    one, two = (json.loads((place / "evaluated" / "results.json").read_text()) for place in both)
    assert two["images"] == 91 and two["rows"][0]["layer_images"] == 64
    ours, theirs = ({k: v for k, v in flat(results) if "second" not in k} for results in (one, two))
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, value in ours.items():
        assert theirs[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), name
