from pathlib import Path

import pytest
import torch

from transpike.cli import build_parser
from transpike.data.sources import SOURCES
from transpike.experiments.training import EPOCHS, student_steps
from transpike.models import create_model

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.yaml") if "model:" in path.read_text())


def parse(*arguments):
    parser = build_parser("train")
    return parser.instantiate(parser.parse_args(["train", *arguments]))["train"]


def test_every_paper_row_has_its_file():
    names = {path.stem for path in FILES}
    rows = {"resnet20-cifar10", "resnet18-cifar10", "vgg16-cifar10"}
    assert {"resnet20-digits"} | rows | {f"{row}-short" for row in rows} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_a_training_that_can_be_built(path):
    told = parse("--config", str(path))
    assert path.stem.startswith((f"{told.model}-{told.data}", f"spiking-{told.data}"))
    assert told.data in SOURCES
    assert f"transpike train --config configs/{path.name}" in path.read_text()
    assert path.stem.startswith("spiking") == (student_steps(told.model, told.data, told.steps) is not None)
    with torch.device("meta"):
        net = create_model(told.model, num_classes=10, **(told.network or {}))
    assert sum(p.numel() for p in net.parameters()) > 0


def test_the_digits_file_is_the_default_written_out():
    written, default = parse("--config", str(CONFIGS / "resnet20-digits.yaml")), parse()
    assert written.epochs == EPOCHS["digits"]
    for name in ("model", "data", "loading", "optim", "recipe", "machine"):
        assert written[name] == default[name], name
