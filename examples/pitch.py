"""A 1-D network in a file of torch.export: the pitch of a tone. Convert it by a goal of cents, write the report."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, export, save

import transpike
from transpike.measure.conversion import compare
from transpike.report import write_report
from transpike.results import Conversion, start_run

torch.manual_seed(0)
RATE, CLASSES = 8000, 24


def tones(count: int, samples: int = 256) -> tuple[Tensor, Tensor]:
    """Tones of two octaves from 440 Hz with overtones and noise, and their pitch in semitones above 440 Hz."""
    pitch = CLASSES * torch.rand(count, 1)
    phase = 2 * torch.pi * (440 * 2 ** (pitch / 12) * torch.arange(samples) / RATE + torch.rand(count, 1))
    sound = phase.sin() + 0.4 * (2 * phase).sin() + 0.1 * torch.randn(count, samples)
    return sound.unsqueeze(1), pitch.squeeze(1)


def listener() -> nn.Module:
    """What somebody else trained: how likely each semitone is."""
    layers = [nn.Conv1d(1, 64, 64, 4, 32), nn.ReLU(), nn.Conv1d(64, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, CLASSES + 1), nn.Sigmoid())
    optimizer, steps = torch.optim.Adam(net.parameters(), 4e-3), torch.arange(CLASSES + 1)
    for _ in range(400):
        sounds, pitch = tones(64)
        wanted = (-((pitch[:, None] - steps) ** 2)).exp()
        loss = nn.functional.binary_cross_entropy(net(sounds), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def pitch_of(outputs: Tensor) -> Tensor:
    """The middle of the likely semitones around the likeliest."""
    best, steps = outputs.argmax(1, keepdim=True), torch.arange(outputs.shape[1])
    near = outputs * ((steps - best).abs() <= 2)
    return (near * steps).sum(1) / near.sum(1)


def within_50_cents(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((pitch_of(outputs) - pitch_of(targets)).abs() < 0.5).float()


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "pitch.pt2"
    save(export(listener(), (tones(2)[0],), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO},)), file)

    net = transpike.create_model(file)
    snn = transpike.convert(net, tones(256)[0], scheme="auto", goal={"metric": within_50_cents, "least": 99})
    found = compare(snn, [tones(64, 400)[0]], metric={"within 50 cents": within_50_cents})  # longer ones
    measures, errors = found.row.measures, found.row.output_errors
    print(f"{snn.scheme.label}, T={snn.steps}: {measures['within 50 cents']:.1%} within 50 cents of the network's")
    print(", ".join(f"error of {name} {error:.2%}" for name, error in errors.items()))  # before the sigmoid, too
    with start_run("evaluate", {}, out=Path(folder) / "run") as run:
        run.write(Conversion(model="pitch", dataset="tones", images=found.images, ann=found.ann, rows=(found.row,)))
    write_report([run.folder], run.folder / "report.html")
    assert measures["within 50 cents"] > 0.9 and (run.folder / "report.html").exists()
