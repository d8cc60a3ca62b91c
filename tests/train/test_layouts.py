"""Narrow strided 1x1 convolutions in channels-last, in which oneDNN errs: in a process of their own, for it may die."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from transpike.models import create_model, model_names
from transpike.train.layouts import safe_layouts

LAST = torch.channels_last

# Gradients of the weights within `safe_layouts`, in the layout that a network of ours has, against float64 in NCHW.
SCRIPT = """
import sys, torch
from copy import deepcopy
from torch import nn
from transpike.train.layouts import safe_layouts

torch.set_num_threads(1)
for shape in sys.argv[1:]:
    print(shape, file=sys.stderr)
    torch.manual_seed(0)
    kind, channels, side = shape.split()
    channels, side = int(channels), int(side)
    if kind == "transposed":
        layer = nn.ConvTranspose2d(16, channels, 1, 2, output_padding=1)
        images = torch.randn(8, 16, side // 2, side // 2)
    else:
        layer = nn.Conv2d(channels, 16, 1, (1, 2) if kind == "axis" else 2)
        images = torch.randn(8, channels, side, side)
    layer, exact = layer.to(memory_format=torch.channels_last), deepcopy(layer).double()
    seen = images.to(memory_format=torch.channels_last)
    with safe_layouts(nn.Sequential(layer)):
        for _ in range(3):
            layer.zero_grad(), exact.zero_grad()
            ours, theirs = layer(seen), exact(images.double())
            pull = torch.randn(ours.shape)
            ours.backward(pull), theirs.backward(pull.double())
            error = (layer.weight.grad - exact.weight.grad).norm() / exact.weight.grad.norm()
            assert error < 1e-5, error
"""
SHAPES = ("square 4 64", "square 8 56", "square 12 112", "square 2 8", "axis 4 64", "transposed 4 64")


@pytest.mark.parametrize("isa", ["ALL", "AVX2"])
def test_gradients_are_right_and_the_process_lives(isa):
    paths = os.pathsep.join(sys.path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", SCRIPT, *SHAPES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("layer", "side", "kept"),
    [
        (nn.Conv2d(16, 32, 1, 2), 64, True),
        (nn.Conv2d(8, 16, 3, 2, padding=1), 64, True),
        (nn.Conv2d(8, 16, 1, 1), 64, True),
        (nn.Conv2d(8, 16, 1, 2, groups=2), 64, True),
        (nn.Conv2d(8, 16, 1, 2), 32, True),
        (nn.Conv2d(8, 16, 1, 2), 34, False),
        (nn.Conv2d(7, 16, 1, 2), 8, False),
        (nn.Conv2d(15, 16, 1, 2), 64, False),
        (nn.ConvTranspose2d(16, 8, 1, 2), 20, False),
        (nn.ConvTranspose2d(16, 16, 1, 2), 20, True),
    ],
)
def test_other_convolutions_keep_their_layout(layer, side, kept):
    images = torch.zeros(2, layer.in_channels, side, side).to(memory_format=LAST)
    layer = layer.to(memory_format=LAST)
    with safe_layouts(layer):
        assert layer(images).is_contiguous(memory_format=LAST) == kept
        with torch.no_grad():
            assert layer(images).is_contiguous(memory_format=LAST)
        layer.weight.requires_grad_(False)
        assert layer(images).is_contiguous(memory_format=LAST)
    layer.weight.requires_grad_(True)
    assert layer(images).is_contiguous(memory_format=LAST)


def test_no_network_of_ours_is_touched_at_its_own_width():
    for name in [*model_names(), "timm/resnet18", "torchvision/resnet18"]:
        with torch.device("meta"):
            model = create_model(name)
        with safe_layouts(model):
            touched = [module for module in model.modules() if module._forward_pre_hooks]
        assert not touched, name


def test_weights_keep_their_numbers():
    layer = nn.Conv2d(4, 8, 1, 2).to(memory_format=LAST)
    before, place = layer.weight.detach().clone(), layer.weight
    with pytest.raises(ZeroDivisionError), safe_layouts(layer):
        assert torch.equal(layer.weight, before) and layer.weight is place
        _ = 1 / 0
    assert not layer._forward_pre_hooks
