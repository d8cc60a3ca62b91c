"""The claim of bi-spectrum distillation on a small budget: one student with and without each part, paired by seed.

    python benchmarks/bsd_claim.py --root data/tiny-imagenet-20 --backbone data/networks/efficientnet-lite0.safetensors

20 classes of Tiny-ImageNet at 64 pixels. The teacher is EfficientNet-Lite0 with ImageNet's weights, at 128 pixels, and
a linear head fitted to the student's training images; the student a SEW-ResNet-18 of width 16 at T = 2, trained from
scratch on a part of the training images, mirrored at random. Tested on the validation set and on the training images
that neither trained nor chose anything. Every finished run is kept in a file: the command goes on where it stopped.
With `--selecting true`, another 1,000 training images are tested on instead: settings are chosen by these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from claims import MEAN, STD, Shown, fit_head, learn, loader, run_claim, split
from jsonargparse import auto_cli

from transpike.models import create_model, load_weights
from transpike.train import Optim, TrainOptions, evaluate
from transpike.train.teacher import TargetCache, TeacherInput

LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
TAPS = {"layers.1": "blocks.2", "layers.3": "blocks.4", "layers.5": "blocks.6"}


def main(
    root: Path = Path("data/tiny-imagenet-20"),
    backbone: Path = Path("data/networks/efficientnet-lite0.safetensors"),
    methods: list[str] = ["none", "kd", "ssd", "srd", "bsd"],  # noqa: B006  (jsonargparse shows it)
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    images: int = 2500,
    epochs: int = 40,
    steps: int = 2,
    width: int = 16,
    lr: float = 0.1,
    batch: int = 50,
    penalty: float = 100.0,
    alpha: float = 2.0,
    temperature: float = 4.0,
    beta: float = 5e-4,
    gamma: float = 2.0,
    normalize: bool = True,
    selecting: bool = False,
    threads: int = 1,
) -> None:
    """Mean and deviation of each method's accuracy; writes benchmarks/results/bsd_claim-....json, a row a run.

    Args:
        root: The folder with train/ and val/.
        backbone: EfficientNet-Lite0's weights.
        methods: "none", or methods of `transpike distill`.
        seeds: Each begins from other weights, and draws other batches and mirrored images.
        images: How many training images the student has.
        epochs: Passes over them.
        steps: T.
        width: Of the student.
        lr: Of SGD.
        batch: Images a batch.
        penalty: L2 penalty of the teacher's head.
        alpha: Weight of logits KD.
        temperature: Of logits KD.
        beta: Weight of SRD.
        gamma: Weight of SSD.
        normalize: Divide the teacher's features by their root mean square.
        selecting: Test on images kept for choosing settings.
        threads: Of each computation.
    """
    torch.set_num_threads(threads)
    training, testing = split(root, images=images, selecting=selecting)
    scale, offset = TeacherInput.renormalized((MEAN, STD), (LITE_MEAN, LITE_STD))
    given = TeacherInput(size=128, scale=scale, offset=offset)
    teacher = create_model("timm/tf_efficientnet_lite0", num_classes=1000)
    load_weights(teacher, backbone)
    fit_head(teacher, training, given, penalty=penalty)
    first = next(iter(testing))
    taught = {first: evaluate(Shown(given, teacher), loader(testing[first], batch=50)).accuracy}
    print({"teacher": taught})
    logits = {"alpha": alpha, "temperature": temperature}
    features = {"beta": beta, "normalize": normalize}
    settings: dict[str, dict[str, Any]] = {
        "none": {},
        "kd": logits,
        "ssd": logits | {"gamma": gamma},
        "srd": logits | features,
        "bsd": logits | features | {"gamma": gamma},
    }
    asked = {"epochs": epochs, "width": width, "lr": lr, "batch": batch, "penalty": penalty}
    cache = TargetCache(4096)

    def run(key: dict[str, Any]) -> dict[str, Any]:
        method, seed = key["method"], key["seed"]
        torch.manual_seed(seed)
        student = create_model("sew_resnet18", num_classes=20, width=width)
        options = TrainOptions(epochs=epochs, seed=seed, steps=steps, optim=Optim(lr=lr))
        said = {"teacher": teacher, "method": method, "settings": key["settings"], "given": given, "cache": cache}
        said |= {"taps": None if method in ("kd", "ssd") else TAPS}
        return learn(student, training, testing, options, batch=batch, teacher=None if method == "none" else said)

    name = f"bsd_claim-{'selecting' if selecting else 'test'}-N{images}-T{steps}"
    wanted = [
        {"method": method, "seed": seed, "settings": settings[method], **asked} for seed in seeds for method in methods
    ]
    run_claim(name, f"{images} images, T = {steps}", wanted, run, taught=taught)


if __name__ == "__main__":
    auto_cli(main)
