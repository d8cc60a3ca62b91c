"""What the networks of `real_network_sources.py` are calibrated and tested on: photographs, crops of them, sounds."""

from __future__ import annotations

import hashlib
import io
import math
import subprocess
import sys
import tarfile
import wave
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from real_faces import Detector, FaceNet, pixels, proposals
from torch import Tensor, nn

from transpike.data import ImageSets, Loading, load_images

Split = tuple[Tensor, Tensor]
FACE = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"  # of astronaut.png
FACES = "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c"  # of lfw_subset.npy
PORTRAIT = "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130"  # of grace_hopper.jpg


def member(file: Path, ending: str) -> bytes:
    """The one file of a package whose name ends so."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(ending)]
            return archive.read(name)
    with tarfile.open(file) as packed:
        (entry,) = [entry for entry in packed.getmembers() if entry.name.endswith(ending)]
        found = packed.extractfile(entry)
        assert found is not None
        return found.read()


# -- photographs -------------------------------------------------------------------------------------------------------


def photographs(
    data: Path, mean: tuple[float, ...] = (0.485, 0.456, 0.406), std: tuple[float, ...] = (0.229, 0.224, 0.225)
) -> Split:
    """Photographs of ImageNet, 224 px: 260 training images, 500 of its validation set; both in fixed random orders."""
    return _shuffled(ten_classes(data, size=224, outputs=1000, mean=mean, std=std))


def small(data: Path) -> Split:
    """The same photographs at 112 px."""
    return _shuffled(ten_classes(data, size=112))


def ten_classes(data: Path, **loading: Any) -> ImageSets:
    """Ten classes of ImageNet."""
    loaded = Loading(batch_size=20, validation=0.0, crop=1.0, **loading)
    return load_images("folder", root=data / "imagenet-500", loading=loaded)


def _shuffled(sets: ImageSets) -> Split:
    found = (torch.cat([x for x, _ in images]) for images in (sets.calibration(10**9), sets.test))
    train, test = (x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))] for x in found)
    return train, test


def halves(data: Path) -> Split:
    """Photographs of the pixels (x - 127) / 128."""
    return photographs(data, (127 / 255,) * 3, (128 / 255,) * 3)


def bgr(data: Path) -> Split:
    """Photographs [N, 224, 224, 3] of pixels from 0 to 255, blue first, less ImageNet's mean."""
    train, test = (
        (255 * x.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)).permute(0, 2, 3, 1).contiguous()
        for x in photographs(data, (0.0,) * 3, (1.0,) * 3)
    )
    return train, test


def _scikit_image(packages: Path, name: str, sha256: str) -> io.BytesIO:
    """A file of scikit-image's data, as it was measured."""
    if not list(packages.glob("scikit_image-0.26.0-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(packages)]
        subprocess.run([*pip, "scikit-image==0.26.0"], check=True)
    return _known(member(next(packages.glob("scikit_image-0.26.0-*.whl")), f"skimage/data/{name}"), name, sha256)


def _known(data: bytes, name: str, sha256: str) -> io.BytesIO:
    if hashlib.sha256(data).hexdigest() != sha256:
        sys.exit(f"{name} is not the one that was measured")
    return io.BytesIO(data)


def _photograph(data: io.BytesIO) -> Tensor:
    return torch.from_numpy(np.array(Image.open(data).convert("RGB"))).permute(2, 0, 1)[None].float()


def astronaut(packages: Path) -> Tensor:
    """The photograph of a face in scikit-image [1, 3, 512, 512], pixels from 0 to 255."""
    return _photograph(_scikit_image(packages, "astronaut.png", FACE))


def portrait() -> Tensor:
    """The photograph of a face in matplotlib [1, 3, 600, 512], pixels from 0 to 255."""
    data = (Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()
    return _photograph(_known(data, "grace_hopper.jpg", PORTRAIT))


def mosaics(packages: Path) -> list[Tensor]:
    """The hundred faces in scikit-image (of LFW, gray, 25 px), four times as large, 25 of them a mosaic
    [1, 3, 500, 500]."""
    small = torch.from_numpy(np.load(_scikit_image(packages, "lfw_subset.npy", FACES))[:100, None]).float()
    large = nn.functional.interpolate(255 * small, scale_factor=4, mode="bicubic").clamp(0, 255)
    rows = large.view(4, 5, 5, 100, 100).transpose(2, 3).reshape(4, 1, 500, 500)
    return list(rows.expand(-1, 3, -1, -1).split(1))


# -- faces: what each of three networks sees ---------------------------------------------------------------------------


@cache
def _people(data: Path) -> Split:
    train, test = photographs(data, (0.0,) * 3, (1.0,) * 3)
    return 255 * train[:130], 255 * test[:100]


def windows(data: Path, net: FaceNet) -> Split:
    """Windows of 48 px in photographs, at the scales of a pyramid."""
    return _windows(_people(data)[0], 512, 0), _windows(_people(data)[1], 512, 1)


def _windows(images: Tensor, count: int, seed: int) -> Tensor:
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        image = int(torch.randint(len(images), (), generator=generator))
        scale = 0.6 * 0.709 ** int(torch.randint(0, 3, (), generator=generator))
        small = nn.functional.interpolate(images[image : image + 1], scale_factor=scale, mode="area")
        y, x = torch.randint(0, small.shape[-1] - 47, (2,), generator=generator).tolist()
        found.append(pixels(small[..., y : y + 48, x : x + 48]))
    return torch.cat(found)


def proposed(data: Path, nets: tuple[FaceNet, ...], side: int) -> Split:
    """What the networks before propose in photographs, scaled to ``side`` pixels: at most 512, in a random order."""
    train, test = (
        torch.cat([proposals(Detector(*nets), image[None], side) for image in images]) for images in _people(data)
    )
    orders = (torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:512] for x in (train, test))
    first, second = orders
    return train[first], test[second]


# -- sounds ------------------------------------------------------------------------------------------------------------


def tones(count: int = 512, samples: int = 1024, rate: int = 16_000) -> Split:
    """Windows of tones from 55 to 1760 Hz with overtones and noise, of mean 0 and deviation 1."""
    found = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        pitch = 55 * 2 ** (5 * torch.rand(count, 1, generator=generator))
        phase = 2 * math.pi * (pitch * torch.arange(samples) / rate + torch.rand(count, 1, generator=generator))
        parts = torch.rand(count, 6, 1, generator=generator) / torch.arange(1, 7).view(6, 1)
        parts[:, 0] = 1
        sound = (parts * (phase[:, None] * torch.arange(1, 7).view(6, 1)).sin()).sum(1)
        sound = sound + 0.05 * torch.randn(count, samples, generator=generator)
        found.append((sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True))
    return found[0], found[1]


def chords(count: int = 32, samples: int = 43_844, rate: int = 22_050) -> Split:
    """Two seconds of one to four notes that are struck one after another, with overtones [N, samples, 1]."""
    found, time = [], torch.arange(samples) / rate
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        sounds = 0.003 * torch.randn(count, samples, generator=generator)
        for sound in sounds:
            for _ in range(int(torch.randint(1, 5, (), generator=generator))):
                pitch = 440 * 2 ** ((float(torch.randint(40, 84, (), generator=generator)) - 69) / 12)
                since = (time - 1.2 * torch.rand((), generator=generator)).clamp_min(0)
                for k in range(1, 6):
                    sound += 0.15 / k * (-2 * since).exp() * (2 * math.pi * k * pitch * since).sin()
        found.append(sounds[..., None])
    return found[0], found[1]


def _recordings(sounds: Path) -> list[Tensor]:
    found = []
    for name in ("examples/c++/aepyx.wav", "tests/data/test.wav"):
        with wave.open(io.BytesIO(member(sounds, name))) as recording:
            data = bytearray(recording.readframes(recording.getnframes()))
        found.append(torch.frombuffer(data, dtype=torch.int16).float() / 2**15)
    return found


def speech(sounds: Path, transform: Tensor) -> Split:
    """Spectral magnitudes [129, 4] of windows of speech, in their order: of the first halves of two recordings each
    seventh to calibrate, the others all to test."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for samples in _recordings(sounds):
        for part, half in zip(parts, samples.chunk(2), strict=True):
            part.append(half.unfold(0, 576, 512))  # 512 samples, and 64 before them
    train, test = torch.cat(parts[0])[::7][:512], torch.cat(parts[1])
    return _magnitudes(train, transform), _magnitudes(test, transform)


def _magnitudes(some: Tensor, transform: Tensor) -> Tensor:
    waves = nn.functional.pad(some[:, None], (0, 64), mode="reflect")
    real, imaginary = nn.functional.conv1d(waves, transform, stride=128).chunk(2, 1)
    return torch.hypot(real, imaginary)


def spectra(sounds: Path, count: int = 24, seconds: int = 2) -> Split:
    """Logarithmic spectra [201, 161] of speech with noise, of first halves of two recordings and of second ones.

    The network is made for nine seconds; two are taken, for the sake of time.
    """
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    generator = torch.Generator().manual_seed(0)
    first, second = _recordings(sounds)
    size = 16_000 * seconds
    for k in range(2 * count):
        half = (first if k % 4 < 3 else second).chunk(2)[k // count]
        start = int(torch.randint(0, len(half) - size, (), generator=generator))
        sound = half[start : start + size]
        level = float(sound.std()) * 10 ** -(0.25 + 1.75 * float(torch.rand((), generator=generator)))
        sound = sound + level * torch.randn(size, generator=generator)
        power = torch.stft(sound, 320, 160, window=torch.hann_window(320), pad_mode="constant", return_complex=True)
        found[k // count].append(power.abs().square().clamp_min(1e-12).log10().mT)
    return torch.stack(found[0]), torch.stack(found[1])
