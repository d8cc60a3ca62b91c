"""The claim of SFKD on a small budget: a CNN taught by a transformer, with and without each part, paired by seed.

    python benchmarks/sfkd_claim.py --root data/tiny-imagenet-20 --backbone data/networks/vit-small-dinov2.safetensors

20 classes of Tiny-ImageNet at 64 pixels. The teacher is a ViT-S/14 with DINOv2's weights, at 112 pixels: first a linear
head, then its last blocks, are fitted to the student's training images. The student is timm's ResNet-18-D of width 16,
trained from scratch on a part of the training images, mirrored at random. Tested on the validation set and on the
training images that neither trained nor chose anything. Every finished run is kept in a file: the command goes on where
it stopped. With `--selecting true`, another 1,000 training images are tested on instead: settings are chosen by these.
With `--spiking true` the student is bsd_claim.py's: a SEW-ResNet-18 of width 16 at T = 2.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from claims import Images, Shown, fit_head, learn, loader, run_claim, split
from jsonargparse import auto_cli
from timing import RESULTS
from torch import nn

from transpike.models import create_model, load_weights, save_weights
from transpike.train import Loaders, Optim, TrainOptions, evaluate, fit
from transpike.train.teacher import TargetCache, TeacherInput

# The deepest stage on which two levels of wavelets fit: the student's map is 4 x 4.
TAPS = {"layer3": "blocks.11"}
SPIKING_TAPS = {"layers.5": "blocks.11"}
GIVEN = TeacherInput(size=112)


def _teacher(backbone: Path, training: Images, *, blocks: int, epochs: int, lr: float) -> nn.Module:
    """The tuned transformer, kept in a file; pixels are normalised as the student's."""
    net = create_model("timm/vit_small_patch14_dinov2", num_classes=20, dynamic_img_size=True)
    path = RESULTS / f"sfkd_teacher-N{len(training[0])}-B{blocks}-E{epochs}-lr{lr}.safetensors"
    if path.exists():
        load_weights(net, path)
        return net
    bare = create_model("timm/vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
    load_weights(bare, backbone)
    fit_head(bare, training, GIVEN, penalty=10.0)
    net.load_state_dict(bare.state_dict())
    net.requires_grad_(False)
    for module in (*list(net.blocks)[-blocks:], net.norm, net.head):  # type: ignore[arg-type]
        module.requires_grad_(True)
    options = TrainOptions(epochs=epochs, optim=Optim(name="adamw", lr=lr, weight_decay=0.05, warmup=0.5, clip=1.0))
    loaders = Loaders(loader(training, batch=50, seed=0), None)
    with tempfile.TemporaryDirectory() as folder:
        fit(Shown(GIVEN, net), loaders, options, folder=folder)
    RESULTS.mkdir(exist_ok=True)
    save_weights(net, path)
    return net


def main(
    root: Path = Path("data/tiny-imagenet-20"),
    backbone: Path = Path("data/networks/vit-small-dinov2.safetensors"),
    methods: list[str] = ["none", "kd", "sfkd", "sfkd-dwt"],  # noqa: B006  (jsonargparse shows it)
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    images: int = 2500,
    epochs: int = 24,
    width: int = 16,
    lr: float = 0.1,
    batch: int = 50,
    alpha: float = 0.5,
    temperature: float = 4.0,
    beta: float = 5.0,
    hint: float = 1.0,
    tuned: int = 4,
    teacher_epochs: int = 1,
    teacher_lr: float = 1e-4,
    spiking: bool = False,
    selecting: bool = False,
    threads: int = 1,
) -> None:
    """Mean and deviation of each method's accuracy; writes benchmarks/results/sfkd_claim-....json, a row a run.

    Args:
        root: The folder with train/ and val/.
        backbone: The transformer's weights.
        methods: "none", kd, sfkd, or sfkd without a part: sfkd-dwt, sfkd-ds2s, sfkd-gaussian; fitnet, ofa, bsd.
        seeds: Each begins from other weights, and draws other batches and mirrored images.
        images: How many training images the student and the teacher have.
        epochs: Passes over them.
        width: Of the student.
        lr: Of SGD.
        batch: Images a batch.
        alpha: Weight of logits KD, in every method but ofa.
        temperature: Of logits KD.
        beta: Weight of SFKD's loss of features.
        hint: Weight of FitNet's.
        tuned: How many of the teacher's last blocks are tuned.
        teacher_epochs: How long.
        teacher_lr: Of AdamW, with which they are.
        spiking: Teach bsd_claim.py's student.
        selecting: Test on images kept for choosing settings.
        threads: Of each computation.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    training, testing = split(root, images=images, selecting=selecting)
    teacher = _teacher(backbone, training, blocks=tuned, epochs=teacher_epochs, lr=teacher_lr)
    first = next(iter(testing))
    taught = {first: evaluate(Shown(GIVEN, teacher), loader(testing[first], batch=50)).accuracy}
    print({"teacher": taught}, flush=True)
    logits = {"alpha": alpha, "temperature": temperature}
    sfkd = logits | {"beta": beta}
    settings: dict[str, dict[str, Any]] = {
        "none": {},
        "kd": logits,
        "sfkd": sfkd,
        "sfkd-dwt": sfkd | {"levels": 0},
        "sfkd-ds2s": sfkd | {"refine": "none"},
        "sfkd-gaussian": sfkd | {"loss": "mse"},
        "fitnet": logits | {"beta": hint},
        "ofa": {},
        "bsd": logits | {"beta": 5e-4, "gamma": 2.0, "normalize": True},
    }
    asked = {"epochs": epochs, "width": width, "lr": lr, "batch": batch, "tuned": tuned, "lr_teacher": teacher_lr}
    asked |= {"epochs_teacher": teacher_epochs, "spiking": spiking}
    cache = TargetCache(8192)

    def run(key: dict[str, Any]) -> dict[str, Any]:
        method, _, _ = key["method"].partition("-")
        torch.manual_seed(key["seed"])
        if spiking:
            student = create_model("sew_resnet18", num_classes=20, width=width)
        else:
            widths = tuple(width << stage for stage in range(4))
            student = create_model("timm/resnet18d", num_classes=20, channels=widths, stem_width=width // 2)
            student = student.to(memory_format=torch.channels_last)
        options = TrainOptions(
            epochs=epochs, seed=key["seed"], steps=2 if spiking else None, optim=Optim(lr=lr, clip=5.0)
        )
        said = {"teacher": teacher, "method": method, "settings": key["settings"], "given": GIVEN, "cache": cache}
        said |= {"taps": None if method == "kd" else SPIKING_TAPS if spiking else TAPS}
        return learn(student, training, testing, options, batch=batch, teacher=None if method == "none" else said)

    kind = "selecting" if selecting else "test"
    name = f"sfkd_claim-{kind}-N{images}{'-spiking' if spiking else ''}"
    wanted = [
        {"method": method, "seed": seed, "settings": settings[method], **asked} for seed in seeds for method in methods
    ]
    run_claim(name, f"{images} images, {'SEW-ResNet-18' if spiking else 'ResNet-18-D'}", wanted, run, taught=taught)


if __name__ == "__main__":
    auto_cli(main)
