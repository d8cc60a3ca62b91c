"""What the two claims of distillation share: 20 classes of Tiny-ImageNet, their split, a teacher's head, and runs that
are kept one by one, so that a command goes on where it was stopped.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from timing import RESULTS, save, show
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transpike.data.augment import random_flip
from transpike.data.batches import EpochSampler, MemoryImages
from transpike.train import Loaders, TrainOptions, evaluate, fit
from transpike.train.distill import distill
from transpike.train.teacher import TeacherInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SELECTING = 1000

Images: TypeAlias = tuple[Tensor, Tensor]


def _read(folder: Path) -> Images:
    """All images of a folder of classes, uint8 [M, 3, 64, 64], and their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(file, label) for label, place in enumerate(classes) for file in sorted(place.glob("*.JPEG"))]
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file, _ in track(files, f"reading {folder.name}")]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor([y for _, y in files])


def split(root: Path, *, images: int, selecting: bool) -> tuple[Images, dict[str, Images]]:
    """Training images, and what is tested on: the validation set alone, and with it the training images that neither
    trained nor chose anything; or, to choose settings, the images kept for that.
    """
    train, val = _read(root / "train"), _read(root / "val")
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))
    chosen, kept, rest = order[:images], order[images : images + SELECTING], order[images + SELECTING :]
    training = (train[0][chosen], train[1][chosen])
    if selecting:
        return training, {"selecting": (train[0][kept], train[1][kept])}
    return training, {
        "validation": val,
        "all": (torch.cat([val[0], train[0][rest]]), torch.cat([val[1], train[1][rest]])),
    }


def loader(part: Images, *, batch: int, seed: int | None = None) -> DataLoader[Any]:
    """Batches in a seeded order and mirrored at random; without a seed as they are."""

    def flip(images: Tensor, generator: torch.Generator) -> Tensor:
        return random_flip(images, generator=generator)

    images = MemoryImages(*part, MEAN, STD, augment=None if seed is None else flip, seed=seed or 0)
    sampler = EpochSampler(len(images), seed=seed or 0, shuffle=seed is not None)
    return DataLoader(
        images, batch_size=batch, sampler=sampler, drop_last=seed is not None, collate_fn=lambda whole: whole,
        generator=torch.Generator(),
    )  # fmt: skip


def fit_head(net: nn.Module, part: Images, given: TeacherInput, *, penalty: float) -> None:
    """Give a network of timm a head for 20 classes: logistic regression on what it has before its head."""
    net.reset_classifier(0)  # type: ignore[operator]
    net.eval()
    features, labels = [], []
    with torch.no_grad():
        for images, y in track(loader(part, batch=50), "the teacher's head"):
            features.append(net(given(images)))
            labels.append(y)
    x, y = torch.cat(features).numpy(), torch.cat(labels).numpy()
    fitted = LogisticRegression(C=1 / penalty, max_iter=2000).fit(x, y)
    net.reset_classifier(20)  # type: ignore[operator]
    head = net.get_classifier()  # type: ignore[operator]
    head.weight.data = torch.from_numpy(fitted.coef_).float()
    head.bias.data = torch.from_numpy(fitted.intercept_).float()


class Shown(nn.Module):
    """A teacher that is shown the student's images."""

    def __init__(self, given: TeacherInput, teacher: nn.Module) -> None:
        super().__init__()
        self.given, self.teacher = given, teacher

    def forward(self, images: Tensor) -> Any:
        return self.teacher(self.given(images))


def learn(
    student: nn.Module, training: Images, testing: dict[str, Images], options: TrainOptions, *, batch: int,
    teacher: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Train a student, with what `distill` takes of a teacher or alone, and test it."""
    loaders = Loaders(loader(training, batch=batch, seed=options.seed), None)
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if teacher is None:
            fitted = fit(student, loaders, options, folder=folder)
        else:
            taught = distill(student, loaders=loaders, options=options, folder=folder, **teacher)
            fitted, first = taught, taught.first_terms
    steps = options.steps
    tested = {name: evaluate(student, loader(part, batch=250), steps=steps).accuracy for name, part in testing.items()}
    last = {name: value for name, value in fitted.curves[-1].items() if name not in ("epoch", "lr", "seconds")}
    seconds = sum(row["seconds"] for row in fitted.curves)
    return {"accuracy": tested, "first": first, "last": last, "seconds": seconds}


def run_claim(
    name: str,
    title: str,
    wanted: Sequence[dict[str, Any]],
    run: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    taught: Mapping[str, float],
) -> None:
    """Run what is not kept yet, tell of all, and save it.

    Args:
        name: of the files in benchmarks/results: a row a run in .jsonl, all of them in .json.
        title: of the table.
        wanted: what a row is known by, with "method", "seed" and "settings".
        run: makes the rest of a row, as `learn` does.
        taught: the teacher's accuracy, by what was tested on.
    """
    rows = _run_all(RESULTS / f"{name}.jsonl", wanted, run)
    _tell(title, rows)
    print(save(name, {"teacher": taught, "runs": rows}))


def _run_all(
    path: Path, wanted: Sequence[dict[str, Any]], run: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of a file: what is wanted with what its run gave, run where the file does not have it yet."""
    path.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for key in wanted:
        if any(all(row.get(name) == value for name, value in key.items()) for row in rows):
            continue
        row = key | run(key)
        print(row, flush=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
    return rows


def _tell(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table of mean and deviation over seeds."""
    parts = list(dict.fromkeys(part for row in rows for part in row["accuracy"]))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        named = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
        groups.setdefault(f"{row['method']} {named}".strip(), []).append(row)
    table = []
    for name, group in groups.items():
        line = [name, str(len(group))]
        for part in parts:
            values = [100 * row["accuracy"][part] for row in group if part in row["accuracy"]]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            line.append(f"{statistics.mean(values):.2f} ± {deviation:.2f}" if values else "-")
        table.append([*line, f"{statistics.mean(row['seconds'] for row in group):.0f}"])
    show(title, ["", "seeds", *(f"{part} %" for part in parts), "s a run"], table)
