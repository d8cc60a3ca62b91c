"""Networks with trained weights, and the images they are measured on, for `trained.py`.

Weights are files of a folder: resnet20.safetensors, mobilenetv3.safetensors and vit.safetensors, trained on CIFAR-10;
efficientnet-lite0.safetensors, published; vit-small-dinov2.safetensors, the DINOv2 weights of a ViT-S/14. Images lie in
another: cifar-10-batches-py, and imagenet-500 with train and val of ten classes of ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transpike.data import ImageSets, Loading, load_images
from transpike.models import create_model

CHOSEN = 60  # calibration images by which settings are chosen, where there are no others
PROBES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # strengths that the probe may have


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode, calibration images, and pairs (images, labels) to choose by and to test on."""

    ann: nn.Module
    calibration: Tensor
    choosing: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(name: str, *, data: Path, networks: Path, images: int | None = None, choosing: bool = False) -> Trained:
    """A network by its name in `NETWORKS`.

    Args:
        name: of the network.
        data: folder of the image sets.
        networks: folder of the weights.
        images: at most so many test images, the first in a fixed random order.
        choosing: whether settings are to be chosen: then no calibration image is among those to choose by.
    """
    imagenet = name in IMAGENET
    sets = _imagenet(name, data) if imagenet else load_images("cifar10", root=data, loading=Loading(validation=0.0))
    train = sets.calibration(10**9 if imagenet else 1024)
    pixels, labels = _joined(train, None if imagenet else 768)
    calibration = (len(pixels) - (CHOSEN if choosing else 0)) if imagenet else 512
    rest = slice(len(pixels) - CHOSEN, None) if imagenet else slice(512, None)
    ann = NETWORKS[name](networks / f"{name}.safetensors", sets).eval()
    test, right = _joined(sets.test)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: images or 1000]
    return Trained(ann, pixels[:calibration], (pixels[rest], labels[rest]), (test[order], right[order]))


def _imagenet(name: str, data: Path) -> ImageSets:
    """Images are cropped already; EfficientNet-Lite0's pixels are (x - 127) / 128, and its labels ImageNet's."""
    loading = {"batch_size": 20, "validation": 0.0, "size": 224, "crop": 1.0}
    if name == "efficientnet-lite0":
        loading |= {"outputs": 1000, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    return load_images("folder", root=data / "imagenet-500", loading=Loading(**loading))  # type: ignore[arg-type]


def _joined(loader: DataLoader[object], most: int | None = None) -> tuple[Tensor, Tensor]:
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    return images[:most], labels[:most]


# -- networks ----------------------------------------------------------------------------------------------------------


def _loaded(model: nn.Module, weights: Path) -> nn.Module:
    state = load_file(weights)
    model.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    return model


def _resnet20(weights: Path, sets: ImageSets) -> nn.Module:
    return _loaded(create_model("resnet20"), weights)


def _mobilenetv3(weights: Path, sets: ImageSets) -> nn.Module:
    """Hard-swish, squeeze-excitation and depthwise convolutions; a stem without stride."""
    model = create_model("timm/mobilenetv3_small_100", num_classes=10)
    model.conv_stem.stride = (1, 1)  # type: ignore[union-attr]
    return _loaded(model, weights)


def _vit(weights: Path, sets: ImageSets) -> nn.Module:
    """Seven blocks of width 192, patches of 4 pixels."""
    return _loaded(create_model("timm/vit_tiny_patch16_224", img_size=32, patch_size=4, depth=7), weights)


def _efficientnet(weights: Path, sets: ImageSets) -> nn.Module:
    return _loaded(create_model("timm/tf_efficientnet_lite0", num_classes=1000), weights)


def _dinov2(weights: Path, sets: ImageSets) -> nn.Module:
    """A linear probe on the class token: logistic regression on all training images, kept beside the weights."""
    name = "timm/vit_small_patch14_dinov2"
    bare = _loaded(create_model(name, num_classes=0, dynamic_img_size=True), weights).eval()
    kept = weights.with_name(f"{weights.stem}-probe{sets.classes}-{sets.loading.size}px.safetensors")
    if not kept.exists():
        images, labels = _joined(sets.calibration(10**9))
        with torch.no_grad():
            features = torch.cat([bare(part) for part in images.split(20)])
        search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": PROBES}, cv=5)
        fitted = search.fit(features.numpy(), labels.numpy()).best_estimator_
        probe = {"weight": fitted.coef_, "bias": fitted.intercept_}
        save_file({key: torch.from_numpy(value).float().contiguous() for key, value in probe.items()}, kept)
    model = create_model(name, num_classes=sets.classes, dynamic_img_size=True)
    model.load_state_dict(bare.state_dict() | {f"head.{key}": t for key, t in load_file(kept).items()})
    return model


NETWORKS: dict[str, Callable[[Path, ImageSets], nn.Module]] = {
    "resnet20": _resnet20,
    "mobilenetv3": _mobilenetv3,
    "vit": _vit,
    "efficientnet-lite0": _efficientnet,
    "vit-small-dinov2": _dinov2,
}
IMAGENET = ("efficientnet-lite0", "vit-small-dinov2")
