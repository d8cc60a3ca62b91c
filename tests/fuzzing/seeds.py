"""Small whole files of every kind that transpike reads, for the fuzzer to damage."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import re
import struct
import sys
import warnings
from collections import defaultdict
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from tests.data import recordings
from tests.report.samples import make_analysis, make_conversion, make_training
from torch import Tensor, nn

import transpike
from transpike import export
from transpike.cli import main
from transpike.coding import Rate, create_encoder, describe_encoder
from transpike.data.event_files import EVENT_SOURCES
from transpike.models import create_model, save_network, save_weights
from transpike.neurons import IFNode, LIFNode
from transpike.results import start_run

ROOT = Path(__file__).parents[2]
TINY = ["--machine.accelerator", "cpu", "--epochs", "1", "--loading.batch_size", "4", "--loading.size", "8"]
LAYERS = (6, 5, 3)


def network() -> nn.Sequential:
    """The network whose weights and converted form are among the seeds."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(LAYERS[0], LAYERS[1]), nn.ReLU(), nn.Linear(LAYERS[1], LAYERS[2])).eval()


class Attention(nn.Module):
    """Products, a gate, moves by index, contractions and windows: what a saved network may hold beside plain layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.norm = nn.LayerNorm(8)
        self.qkv, self.gate = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mixed = nn.Parameter(torch.randn(2, 16, 4) / 4)
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2).roll(1, 1)  # [N, 16, 8]
        windows = self.norm(x).reshape(-1, 4, 8)  # of four patches, in the axis of samples
        q, k, v = self.qkv(windows).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 16, 8)
        x = F.gelu(x) * torch.sigmoid(self.gate(x))
        y = torch.einsum("nlc,glk->ngkc", x, self.mixed)
        logits: Tensor = self.head(F.relu(y.flatten(1)))
        return logits


def _nir(place: Path) -> None:
    place.mkdir(parents=True)
    chain = nn.Sequential(nn.Linear(LAYERS[0], LAYERS[1]), LIFNode(), nn.Linear(LAYERS[1], LAYERS[2]), IFNode())
    export.nir(chain, place / "chain.nir", shape=LAYERS[:1])


def _exports(place: Path) -> None:
    """What `transpike export` writes, to be exported over."""
    snn, folder = transpike.load(place / "network"), place / "exports"
    export.integers(snn.quantise(8), folder)
    export.onnx(snn, folder)
    export.nir(transpike.load(place / "rate"), folder / "network.nir")
    export.run(place / "network", torch.rand(1, LAYERS[0]), record=True).save_spikes(folder / "spikes.npz")
    (folder / "events.json").write_text(json.dumps({"latency": 4, "queued": 0}))


def make_seeds(place: Path) -> None:
    """A folder for each kind of file."""
    _images(place / "images")
    _image_sets(place / "mnist", place / "cifar")
    _events(place)
    _weights(place / "weights")
    _configs(place / "config")
    _results(place / "results")
    _nir(place / "nir")
    images = torch.rand(16, LAYERS[0])
    snn = transpike.convert(network(), images, scheme=transpike.CSS(steps=4))
    snn.save(place / "network")
    snn.quantise(8).save(place / "whole")
    convolutional = create_model("resnet8x4", width=2, num_classes=2, image_size=8).eval()
    transpike.convert(convolutional, torch.rand(8, 3, 8, 8), scheme=transpike.CSS(steps=4)).save(place / "resnet")
    torch.manual_seed(0)
    transpike.convert(Attention().eval(), torch.rand(8, 3, 8, 8), scheme=transpike.CSS(steps=4)).save(
        place / "attention"
    )
    transpike.convert(network(), images, scheme=Rate(steps=4)).save(place / "rate")
    _exports(place)
    _encoded(place / "encoder")
    _networks(place / "onnx", place / "exported")
    options = [
        *TINY,
        "--model",
        "mlp",
        "--network",
        '{"hidden": 4}',
        "--data",
        "folder",
        "--root",
        str(place / "images"),
    ]
    clock = patch("time.perf_counter", count(0.0, 0.5).__next__)  # what is written is as long in every run
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), clock:
        code = main(["train", *options, "--recipe.ema", "0.9", "--out", str(place / "run")])
    if code:
        sys.exit("the run that the fuzzer damages cannot be made")
    for path in (place / "run").iterdir():  # Lightning's, which nothing reads
        if path.suffix not in (".json", ".safetensors", ".ckpt"):
            path.unlink()


class Foreign(nn.Module):
    """What files of other tools hold: windows, moves, sizes computed, a resizing, an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.patches(F.pad(images, (1, 1, 1, 1), "reflect")))), 2)
        x = F.interpolate(x, scale_factor=2.0)[:, :, 1:-1].flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        logits: Tensor = self.head(x.reshape(x.shape[0], -1, 8).mean(1))
        return logits


def _networks(onnx: Path, exported: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8)
    for folder in (onnx, exported):
        folder.mkdir()
    nets = {"dense": (network(), torch.rand(2, LAYERS[0])), "colours": (Foreign().eval(), images)}
    for name, (net, x) in nets.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = str(onnx / f"{name}.onnx")
            torch.onnx.export(net, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
        program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, exported / f"{name}.pt2")


def _images(folder: Path) -> None:
    draw = np.random.default_rng(0)
    colour = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 65536, (8, 8), dtype=np.uint16))
    real = Image.fromarray(draw.random((8, 8), dtype=np.float32))
    # fmt: off
    forms = {"a.png": colour, "b.jpg": colour, "c.tiff": real, "d.png": deep, "e.webp": colour, "f.ppm": colour,
             "g.bmp": colour, "h.png": colour.convert("P"), "i.tif": colour, "j.png": colour.convert("RGBA")}
    # fmt: on
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for name, image in forms.items() if part == "train" else list(forms.items())[:3]:
                image.save(folder / part / label / name)


def _image_sets(mnist: Path, cifar: Path) -> None:
    raw = mnist / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images, labels = bytes(range(256)) * 4, bytes(range(10)) * 2
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 20, 7, 7) + images[: 20 * 49])
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 20) + labels)
    folder = cifar / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1], "label_names": list("abcdefghij")}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(batch))


def _events(place: Path) -> None:
    recordings.write_nmnist(place / "nmnist" / EVENT_SOURCES["nmnist"].folder)
    recordings.write_cifar10_dvs(place / "cifar10_dvs" / EVENT_SOURCES["cifar10_dvs"].folder, count=10)
    gesture = EVENT_SOURCES["dvs128_gesture"]
    recordings.write_gestures(place / "dvs128_gesture" / gesture.folder / gesture.inside)


def _weights(folder: Path) -> None:
    folder.mkdir()
    net = network()
    state = net.state_dict()
    beside = {"best": np.float64(0.5), "args": argparse.Namespace(lr=0.1), "counts": defaultdict(int), "path": folder}
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(2, LAYERS[0])).sum().backward()
    optimizer.step()
    torch.save(state, folder / "state.pt")
    torch.save({"state_dict": state, "optimizer": optimizer.state_dict(), **beside}, folder / "checkpoint.ckpt")
    torch.save({"net": state, "epoch": 3}, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_weights(net, folder / "weights.safetensors")
    save_weights(nn.ModuleDict({"adapters": nn.Conv2d(2, 3, 1)}), folder / "adapters.safetensors")


def _configs(folder: Path) -> None:
    folder.mkdir()
    draw = random.Random(0)
    for path in draw.sample(sorted((ROOT / "configs").rglob("*.yaml")), 12):
        text = path.read_text()
        (verb,) = re.findall(rf"transpike (\w+) .*{path.parent.name}/{path.name}", text)[:1]
        (folder / f"{verb}-{path.parent.name}-{path.name}").write_text(text)
    every = {"model": "mlp", "network": {"hidden": 4}, "epochs": 2, "steps": None, "test_steps": [1, 2],
             "loading": {"batch_size": 4, "mean": [0.5], "std": [0.5], "augment": "standard+cutout", "workers": 0},
             "optim": {"lr": 0.1, "milestones": [1], "clip": 1.0, "name": "sgd"}, "seed": 1, "keep": "best",
             "recipe": {"mixup": 0.1, "loss": "ce"}, "machine": {"devices": "auto"}}  # fmt: skip
    (folder / "every.yaml").write_text(yaml.safe_dump(every))
    converting = {"model": "resnet20", "steps": [4, 8], "scheme": "css", "settings": {"beta": 2, "levels": [1, 2]}}
    (folder / "convert.yaml").write_text(yaml.safe_dump(converting))


def _results(folder: Path) -> None:
    tested = {"kind": "evaluation", "version": 2, "model": "mlp", "dataset": "digits", "images": 360, "accuracy": 0.5,
              "loss": 0.75}  # fmt: skip
    kinds = {
        "conversion": make_conversion(),
        "training": make_training(),
        "analysis": make_analysis(),
        "tested": tested,
    }
    for name, content in kinds.items():
        with start_run("train", {"seed": 0, "data": "digits"}, out=folder / name):
            (folder / name / "results.json").write_text(json.dumps(content))


def _encoded(folder: Path) -> None:
    """What `transpike hybrid` leaves: a spiking network, and in its model.json the encoder of its images."""
    settings: dict[str, object] = {"phases": 4}
    encoder = create_encoder("phase", steps=4, settings=settings, mean=(0.5,) * 3, std=(0.5,) * 3)
    facts = {"data": "folder", "class_names": ["cat", "dog"], "mean": [0.5] * 3, "std": [0.5] * 3, "steps": 4}
    shape = {"num_classes": 2, "in_channels": 3, "image_size": 8}
    about = {"name": "spiking_mlp", "kwargs": {"hidden": 4}, **shape, **facts}
    net = create_model("spiking_mlp", hidden=4, **shape)
    save_network(net, about | {"encoder": describe_encoder("phase", settings, encoder)}, folder)
