"""A network and images of one's own: train, convert, compare, save and load."""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import transpike
from transpike.conversion import prepare
from transpike.measure.conversion import compare
from transpike.train import Loaders, Machine, Optim, TrainOptions, fit

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
train, validation, test = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.6, 0.2, 0.2])
loaders = Loaders(DataLoader(train, batch_size=32, shuffle=True), DataLoader(validation, batch_size=128))
test_loader = DataLoader(test, batch_size=128)

ann = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
)
options = TrainOptions(epochs=2, optim=Optim(lr=0.05, warmup=0), machine=Machine(accelerator="cpu"))

with tempfile.TemporaryDirectory() as folder:
    fitted = fit(ann, loaders, options, folder=Path(folder) / "run")

    # Tracing and calibration are done once, for any number of steps.
    prepared = prepare(fitted.model, loaders.train)
    for steps in (4, 8):
        snn = prepared.convert(transpike.CSS(steps=steps))
        found = compare(snn, test_loader)
        accuracies = f"ANN {found.ann.accuracy:.1%}, SNN {found.row.accuracy:.1%}"
        print(f"T={steps}: {accuracies}, {found.row.energy_uj:.2f} uJ an image")

    snn.save(Path(folder) / "snn")
    again = transpike.load(Path(folder) / "snn")
    assert torch.equal(again(images[:16]), snn(images[:16]))
