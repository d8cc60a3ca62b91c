"""The claim of bi-spectrum distillation on a small budget: one student with and without each part, paired by seed.

    python benchmarks/bsd_claim.py --root data/tiny-imagenet-20 --backbone data/networks/efficientnet-lite0.safetensors

20 classes of Tiny-ImageNet at 64 pixels. The teacher is EfficientNet-Lite0 with ImageNet's weights, at 128 pixels, and
a linear head fitted to the student's training images; the student a SEW-ResNet-18 of width 16 at T = 2, trained from
scratch on a part of the training images, mirrored at random. Tested on the validation set and on the training images
that neither trained nor chose anything. Every finished run is kept in a file: the command goes on where it stopped.
With `--selecting true`, another 1,000 training images are tested on instead: settings are chosen by these.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from timing import RESULTS, save, show
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transpike.data.augment import random_flip
from transpike.data.batches import EpochSampler, MemoryImages
from transpike.models import create_model, load_weights
from transpike.train import Loaders, Optim, TrainOptions, evaluate, fit
from transpike.train.distill import distill
from transpike.train.teacher import TargetCache, TeacherInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
SELECTING = 1000
TAPS = {"layers.1": "blocks.2", "layers.3": "blocks.4", "layers.5": "blocks.6"}


def _read(folder: Path) -> tuple[Tensor, Tensor]:
    """All images of a folder of classes, uint8 [M, 3, 64, 64], and their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(file, label) for label, place in enumerate(classes) for file in sorted(place.glob("*.JPEG"))]
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file, _ in track(files, f"reading {folder.name}")]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor([y for _, y in files])


def _loader(part: tuple[Tensor, Tensor], *, batch: int, seed: int | None = None) -> DataLoader[Any]:
    """Batches in a seeded order and mirrored at random; without a seed as they are."""

    def flip(images: Tensor, generator: torch.Generator) -> Tensor:
        return random_flip(images, generator=generator)

    images = MemoryImages(*part, MEAN, STD, augment=None if seed is None else flip, seed=seed or 0)
    sampler = EpochSampler(len(images), seed=seed or 0, shuffle=seed is not None)
    return DataLoader(
        images, batch_size=batch, sampler=sampler, drop_last=seed is not None, collate_fn=lambda whole: whole,
        generator=torch.Generator(),
    )  # fmt: skip


def _teacher(backbone: Path, part: tuple[Tensor, Tensor], given: TeacherInput, penalty: float) -> nn.Module:
    """EfficientNet-Lite0 with a head of its own: logistic regression on the pooled features."""
    net = create_model("timm/tf_efficientnet_lite0", num_classes=1000)
    load_weights(net, backbone)
    net.reset_classifier(0)  # type: ignore[operator]
    net.eval()
    features, labels = [], []
    with torch.no_grad():
        for images, y in track(_loader(part, batch=50), "the teacher's head"):
            features.append(net(given(images)))
            labels.append(y)
    x, y = torch.cat(features).numpy(), torch.cat(labels).numpy()
    fitted = LogisticRegression(C=1 / penalty, max_iter=2000).fit(x, y)
    net.reset_classifier(20)  # type: ignore[operator]
    head = net.get_classifier()  # type: ignore[operator]
    head.weight.data = torch.from_numpy(fitted.coef_).float()
    head.bias.data = torch.from_numpy(fitted.intercept_).float()
    return net


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
    train, val = _read(root / "train"), _read(root / "val")
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))
    chosen, kept, rest = order[:images], order[images : images + SELECTING], order[images + SELECTING :]
    training = (train[0][chosen], train[1][chosen])
    testing = {"selecting": (train[0][kept], train[1][kept])}
    if not selecting:
        testing = {
            "validation": val,
            "all": (torch.cat([val[0], train[0][rest]]), torch.cat([val[1], train[1][rest]])),
        }
    scale, offset = TeacherInput.renormalized((MEAN, STD), (LITE_MEAN, LITE_STD))
    given = TeacherInput(size=128, scale=scale, offset=offset)
    teacher = _teacher(backbone, training, given, penalty)
    shown = nn.Sequential(_Shown(given), teacher)
    first = next(iter(testing))
    taught = {first: evaluate(shown, _loader(testing[first], batch=50)).accuracy}
    print({"teacher": taught})
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"bsd_claim-{'selecting' if selecting else 'test'}-N{images}-T{steps}.jsonl"
    asked = {"epochs": epochs, "width": width, "lr": lr, "batch": batch, "penalty": penalty}
    logits = {"alpha": alpha, "temperature": temperature}
    features = {"beta": beta, "normalize": normalize}
    settings: dict[str, dict[str, Any]] = {
        "none": {},
        "kd": logits,
        "ssd": logits | {"gamma": gamma},
        "srd": logits | features,
        "bsd": logits | features | {"gamma": gamma},
    }
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    cache = TargetCache(4096)
    for seed in seeds:
        for method in methods:
            key = {"method": method, "seed": seed, "settings": settings.get(method, {}), **asked}
            if any(all(row[name] == value for name, value in key.items()) for row in rows):
                continue
            row = key | _run(
                method, seed, training, testing, teacher, given, cache, steps=steps, settings=key["settings"], **asked
            )  # fmt: skip
            print(row, flush=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
    _tell(rows, list(testing), images, steps)
    print(save(path.stem, {"teacher": taught, "runs": rows}))


class _Shown(nn.Module):
    def __init__(self, given: TeacherInput) -> None:
        super().__init__()
        self.given = given

    def forward(self, images: Tensor) -> Tensor:
        return self.given(images)


def _run(
    method: str, seed: int, training: Any, testing: Any, teacher: nn.Module, given: TeacherInput, cache: TargetCache, *,
    steps: int, epochs: int, width: int, lr: float, batch: int, penalty: float, settings: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    torch.manual_seed(seed)
    student = create_model("sew_resnet18", num_classes=20, width=width)
    loaders = Loaders(_loader(training, batch=batch, seed=seed), None)
    options = TrainOptions(epochs=epochs, seed=seed, steps=steps, optim=Optim(lr=lr))
    with tempfile.TemporaryDirectory() as folder:
        if method == "none":
            fitted = fit(student, loaders, options, folder=folder)
            first = {}
        else:
            taps = None if method in ("kd", "ssd") else TAPS
            fitted = distill(
                student, teacher, loaders, options, folder=folder, method=method, settings=settings, taps=taps,
                given=given, cache=cache,
            )  # fmt: skip
            first = fitted.first_terms
    tested = {name: evaluate(student, _loader(part, batch=250), steps=steps).accuracy for name, part in testing.items()}
    last = {name: value for name, value in fitted.curves[-1].items() if name not in ("epoch", "lr", "seconds")}
    seconds = sum(row["seconds"] for row in fitted.curves)
    return {"accuracy": tested, "first": first, "last": last, "seconds": seconds}


def _tell(rows: list[dict[str, Any]], parts: list[str], images: int, steps: int) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['method']} {_named(row['settings'])}".strip(), []).append(row)
    table = []
    for name, group in groups.items():
        line = [name, str(len(group))]
        for part in parts:
            values = [100 * row["accuracy"][part] for row in group if part in row["accuracy"]]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            line.append(f"{statistics.mean(values):.2f} ± {deviation:.2f}" if values else "-")
        table.append([*line, f"{statistics.mean(row['seconds'] for row in group):.0f}"])
    show(f"{images} images, T = {steps}", ["", "seeds", *(f"{part} %" for part in parts), "s a run"], table)


def _named(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    auto_cli(main)
