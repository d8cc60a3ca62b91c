"""The figures of the documentation's pages, drawn from the library itself.

    python docs/figures/make.py

writes the SVG files beside this script. They have no background and neutral ink, so that they suit light and dark
pages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

import transpike
from transpike.coding import DCTEncoder, create_scheme
from transpike.distill.map_losses import gaussian_response
from transpike.metrics.spectrum import membrane_response, sort_logits
from transpike.neurons import LIFNode
from transpike.spectral.wavelet import wavedec2

INK, BLUE, ORANGE, GREEN = "#808891", "#3b82c4", "#d9822b", "#3a9d6e"
STYLE = {
    **{"svg.hashsalt": "transpike", "svg.fonttype": "none", "savefig.transparent": True, "font.size": 9},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "legend.frameon": False},
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **{"xtick.color": INK, "ytick.color": INK, "figure.constrained_layout.use": True},
}


def digit(index: int = 5) -> torch.Tensor:
    """One of scikit-learn's digits, 8 x 8 pixels in [0, 1]."""
    return torch.tensor(load_digits().images[index], dtype=torch.float32) / 16


def css() -> Figure:
    """The train of one value: its digits, their worth, and what they say so far."""
    scheme, value = transpike.CSS(steps=8), 0.61
    train = scheme.encode(torch.tensor([value * scheme.full]))[:, 0]
    worth = torch.tensor(scheme.weights) * train / scheme.full
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.4))
    left.bar(range(8), worth, color=[BLUE if each >= 0 else ORANGE for each in worth])
    left.axhline(0, color=INK, lw=0.8)
    for step, spike in enumerate(train.int().tolist()):
        left.annotate(f"{spike:+d}" if spike else "0", (step, 0.93), xycoords=("data", "axes fraction"), ha="center")
    left.set(title="each spike counts by its step's weight", xlabel="step", ylabel="worth", ylim=(-0.35, 0.68))
    right.step(range(8), worth.cumsum(0), where="mid", color=BLUE)
    right.axhline(value, color=INK, ls="--", lw=0.8)
    right.annotate("the value", (0, value), (0, 4), textcoords="offset points")
    right.set(title="the sum approaches the value", xlabel="step", ylim=(0.4, 0.75))
    return figure


def schemes() -> Figure:
    """One value in several codes, as a neuron of a converted network fires it."""
    ann = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    for layer in (ann[0], ann[2]):
        nn.init.ones_(layer.weight)
    values = torch.linspace(0, 1, 512).unsqueeze(1)
    names = ("rate", "ttfs", "tsc", "phase", "fs", "css")
    figure, axes = plt.subplots(len(names), 1, figsize=(7, 4), sharex=True)
    for axis, name in zip(axes, names, strict=True):
        scheme = create_scheme(name, {"steps": 16})
        train = transpike.convert(ann, values, scheme=scheme).trace(torch.tensor([[0.61]]))["1"].spikes.flatten()
        for step, (spike, weight) in enumerate(zip(train.tolist(), scheme.weights, strict=True)):
            height = spike * weight / max(scheme.weights)
            axis.plot([step, step], [0, height], color=BLUE if spike > 0 else ORANGE, lw=3, alpha=float(spike != 0))
        axis.set(ylim=(-1.1, 1.1), yticks=[], ylabel=name)
        axis.yaxis.label.set(rotation=0, ha="right", va="center")
        axis.axhline(0, color=INK, lw=0.6)
    axes[0].set_title("0.61 in 16 steps; the height of a spike is the weight of its step")
    axes[-1].set_xlabel("step")
    return figure


def anytime() -> Figure:
    """How many images have their answer after each step, for three agreements."""
    torch.manual_seed(0)
    sets = transpike.load_images("digits")
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(ann.parameters(), 2e-3)
    for _ in range(15):
        for images, labels in sets.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(ann(images), labels).backward()
            optimizer.step()
    snn = transpike.convert(ann.eval(), sets.calibration(256), scheme=transpike.CSS(steps=8, levels=(1, 2, 4, 8)))
    held = torch.cat([images for images, _ in sets.calibration(1000)])
    images = torch.cat([images for images, _ in sets.test])
    snn.calibrate_stop(held)
    figure, axis = plt.subplots(figsize=(7, 2.4))
    for agreement, color in ((0.95, GREEN), (0.99, BLUE), (0.995, ORANGE)):
        steps = snn.until(images, agreement=agreement).steps.float()
        shares = [float((steps <= step).float().mean()) for step in range(1, 9)]
        label = f"agreement {agreement:g}: mean {steps.mean():.1f} steps"
        axis.step(range(1, 9), shares, where="mid", color=color, label=label)
    axis.set(xlabel="step", ylabel="images answered", ylim=(0, 1.05), title="a network of digits, 8 steps")
    axis.legend()
    return figure


def bsd() -> Figure:
    """What BSD is about: a leaky neuron's membrane as a filter, and sorted logits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.4))
    response = membrane_response(LIFNode(tau=2.0))
    left.plot(response.frequency, response.expected / response.expected.max(), color=INK, ls="--", label="|H|, Eq. 3")
    left.plot(response.frequency, response.amplitude / response.amplitude.max(), color=BLUE, label="membrane, measured")
    left.set(title="a leaky neuron lets low frequencies through", xlabel="cycles per step", ylim=(0, 1.05))
    left.legend()
    torch.manual_seed(0)
    teacher = torch.randn(1, 20) * 2
    student = teacher + torch.randn(1, 20)
    for logits, color, name in ((teacher, BLUE, "teacher"), (student, ORANGE, "student")):
        right.plot(sort_logits(logits, teacher)[0], color=color, marker=".", label=name)
    right.set(title="logits in the teacher's order are a curve", xlabel="rank")
    right.legend()
    return figure


def sfkd() -> Figure:
    """The way of a map: wavelet bands, and the Gaussian of the loss."""
    figure, axes = plt.subplots(1, 4, figsize=(7, 2.0), width_ratios=(1, 1, 1, 1.3))
    image = nn.functional.interpolate(digit()[None, None], scale_factor=4, mode="bicubic")[0, 0]
    low, *levels = wavedec2(image, "haar", level=1)
    shown = (("map", image), ("low-pass band", low), ("horizontal details", levels[0][0]))
    for axis, (name, values) in zip(axes, shown, strict=False):
        axis.imshow(values, cmap="viridis")
        axis.set(title=name, xticks=[], yticks=[])
    axes[3].plot(torch.arange(17) / 32, gaussian_response(32, sigma=0.25)[:17], color=BLUE)
    axes[3].set(title="weight in the loss", xlabel="cycles per pixel", ylim=(0, 1.05))
    return figure


def dct() -> Figure:
    """A digit, rebuilt from the spikes of its first steps."""
    pixels = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    encoder = DCTEncoder(steps=16).fit(pixels)
    spikes = encoder(pixels[5:6])
    figure, axes = plt.subplots(2, 5, figsize=(7, 3.0))
    for column, steps in enumerate((1, 2, 4, 8, 16)):
        axes[0, column].imshow(spikes[steps - 1, 0, 0], cmap="coolwarm", vmin=-1.5, vmax=1.5)
        axes[1, column].imshow(encoder.decode(spikes[:steps])[0, 0], cmap="gray", vmin=-1, vmax=1)
        axes[0, column].set_title(f"step {steps}")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("spikes")
    axes[1, 0].set_ylabel("rebuilt so far")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "css": css, "schemes": schemes, "anytime": anytime, "bsd": bsd, "sfkd": sfkd, "dct": dct,
}  # fmt: skip


def draw(name: str, folder: Path) -> None:
    """Draw one of them into a folder."""
    with plt.rc_context(STYLE):
        figure = FIGURES[name]()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    for name in FIGURES:
        draw(name, Path(__file__).parent)
