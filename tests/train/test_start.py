"""Spiking networks that start from the converted ANN with the same layers."""

import json

import pytest
import torch
from torch import nn

from transpike.cli import main
from transpike.errors import ModelError
from transpike.models import create_model
from transpike.models.zoo import TWINS
from transpike.neurons import reset_net
from transpike.train.start import create_twin, start_from

IF = {"spiking_neuron": "IFNode", "v_reset": None}
VGG = {"layers": [8, 8, 0, 8, 0], "image_size": 8, "hidden": 16}
CPU = ["--machine.accelerator", "cpu"]
DIGITS = ["--loading.train_images", "200", "--loading.test_images", "60", "--epochs", "1", *CPU]


def trained_like(name, **kwargs):
    """A network whose norms have seen images of the scales that follow, none of which is 1."""
    torch.manual_seed(0)
    net = create_model(name, in_channels=1, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 3.0)
            nn.init.uniform_(module.bias, -0.5, 1.0)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.uniform_(module.bias, -1.0, 1.0)
    with torch.no_grad():
        net(images(64))
    return net.eval()


def images(count, seed=0):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet19", {"width": 4}),  # projections, identities and a hidden layer in the head
        ("resnet20", {"width": 4}),
        ("vgg16", {**VGG, "dropout": 0.0}),
        ("vgg9", {**VGG, "dropout": 0.0}),  # no norms and no biases; the student's outputs are summed
    ],
)
def test_with_many_steps_it_computes_what_its_twin_does(name, kwargs):
    ann, steps = trained_like(name, **kwargs), 128
    snn = create_model(f"spiking_{name}", in_channels=1, **kwargs, **IF, v_threshold=0.5)
    start_from(snn, ann, images(16), steps=steps)
    x = images(8, seed=1)
    with torch.no_grad():
        wanted, given = ann(x), snn.eval()(x.expand(steps, *x.shape)).mean(0)
    reset_net(snn)
    assert (given - wanted).norm() < 0.15 * wanted.norm()


def test_with_few_steps_and_a_leak_biases_keep_the_mean_answer():
    """Without their correction the distance is 74 %."""
    ann, snn = trained_like("resnet20", width=4), create_model("spiking_resnet20", in_channels=1, width=4)
    x = images(32)
    start_from(snn, ann, x, steps=2)
    with torch.no_grad():
        wanted, given = ann(x).mean(0), snn(x.expand(2, *x.shape)).mean((0, 1))
    reset_net(snn)
    assert not snn.training
    assert (given - wanted).norm() < 0.25 * wanted.norm()


def test_a_neuron_that_scales_its_input_fires_at_the_same_values():
    """LIF with a decaying input takes in half of it: the same images excite it as one without."""
    ann = trained_like("resnet20", width=4)
    fired = []
    for decays in (False, True):
        snn = create_model("spiking_resnet20", in_channels=1, width=4, tau=2.0, decay_input=decays)
        start_from(snn, ann, images(64), steps=1)
        seen = []
        snn.layers[0].act2.register_forward_hook(lambda _, inputs, out, seen=seen: seen.append(out))
        snn.eval()(images(64, seed=1)[None])
        reset_net(snn)
        fired.append(seen[0])
    assert fired[0].sum() > 20
    assert torch.equal(*fired)


def test_a_twin_comes_from_its_run_or_its_weights(tmp_path):
    assert main(["train", "--network", '{"width": 4}', "--out", str(tmp_path / "ann"), *DIGITS]) == 0
    shape = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    file = tmp_path / "ann" / "weights.safetensors"
    twins = [create_twin("spiking_resnet20", place, shape, {"width": 4, "tau": 2.0}) for place in (file.parent, file)]
    assert not twins[0].training
    for one, other in zip(*(twin.state_dict().values() for twin in twins), strict=True):
        assert torch.equal(one, other)

    student = ["--student", "spiking_resnet20", "--network", '{"width": 4}', "--steps", "2", "--test-steps", "2"]
    begin = ["--teacher", str(file.parent), "--start", str(file.parent), "--method", "kd", *student, *DIGITS]
    assert main(["distill", *begin, "--out", str(tmp_path / "snn")]) == 0
    about = json.loads((tmp_path / "snn" / "model.json").read_text())
    assert len(about["kwargs"]["v_threshold"]) == 19
    assert len(set(about["kwargs"]["v_threshold"])) > 5  # seven blocks add their input as it is
    again = [node.v_threshold for node in create_model(tmp_path / "snn").modules() if hasattr(node, "v_threshold")]
    assert again == about["kwargs"]["v_threshold"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "sew_resnet18"], "start: sew_resnet18 does not have the same layers as an ANN here. Use"),
        (["--model", "resnet20"], "start: resnet20 does not have the same layers"),
        (["--model", "spiking_resnet20", "--weights", "a"], "start: it sets the weights; omit --weights"),
        (["--model", "spiking_resnet20", "--start", "nowhere"], "nowhere: no such weight file"),
        (["--model", "spiking_resnet20", "--data", "nmnist"], "start: nmnist gives frames of events"),
    ],
)
def test_what_cannot_start_is_told(options, told, tmp_path, capsys):
    assert main(["train", "--start", "a", *options, "--out", str(tmp_path / "run")]) == 2
    assert told in capsys.readouterr().err


def test_other_networks_are_refused():
    ann = create_model("resnet20", width=4)
    with pytest.raises(ModelError, match=r"not a spiking twin of this ResNet: bn\.bias"):
        start_from(create_model("spiking_resnet20", width=8), ann, images(4), steps=2)
    with pytest.raises(ModelError, match="SpikingResNet: no ANN here has the same layers"):
        start_from(create_model("sew_resnet18", width=4), ann, images(4), steps=2)
    assert {"spiking_resnet18", "spiking_resnet19", "spiking_resnet20", "spiking_vgg16"} <= set(TWINS)
