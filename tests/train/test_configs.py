"""Every recipe is what its header's commands say: they parse, fit together, and what they ask for can be built."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch

from transpike.cli import VERBS, _underscored, build_parser
from transpike.data.event_files import EVENT_SOURCES
from transpike.data.sources import SOURCES
from transpike.distill import create_method, default_taps, find_taps, match_taps, pair_taps
from transpike.distill.taps import Stage
from transpike.experiments.training import EPOCHS, student_steps
from transpike.models import create_model, model_names

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
COMMAND = re.compile(r"^#   (?:torchrun .*)?transpike (\w+) (.*--config .*)$", re.MULTILINE)

# Classes, channels and side of an image.
IMAGES = {
    **{"digits": (10, 1, 8), "mnist": (10, 1, 28), "fashion_mnist": (10, 1, 28)},
    **{"cifar10": (10, 3, 32), "cifar100": (100, 3, 32), "folder": (1000, 3, 224)},
    **{"nmnist": (10, 2, 34), "cifar10_dvs": (10, 2, 128), "dvs128_gesture": (11, 2, 128)},
}
TERMS = {"kd": {"kd"}, "ssd": {"kd", "ssd"}, "srd": {"kd", "srd"}, "bsd": {"kd", "srd", "ssd"}}
RESNETS = ("sew_resnet19", "spiking_resnet19")


@cache
def parser_of(verb):
    return build_parser(verb)


@cache
def parse(verb, *arguments):
    parser = parser_of(verb)
    return parser.instantiate(parser.parse_args([verb, *arguments]))[verb]


def commands(path):
    """The commands in a file's header, as (verb, arguments), with files that are found from anywhere."""
    for verb, rest in COMMAND.findall(path.read_text()):
        arguments = [str(CONFIGS / part[8:]) if part.startswith("configs/") else part for part in shlex.split(rest)]
        yield verb, tuple(map(_underscored, arguments))


def own_commands(path, verb):
    """Those in which the file itself takes part."""
    return [arguments for told, arguments in commands(path) if told == verb and str(path) in arguments]


TRAININGS = [(path, args) for path in FILES for args in own_commands(path, "train")]
DISTILLATIONS = [(path, args) for path in FILES for args in own_commands(path, "distill")]


def label(value):
    """The files of a command, as the name of a test."""
    files = [Path(part).stem for part in value if part.endswith(".yaml")] if isinstance(value, tuple) else []
    return "+".join(files) + ("" if "--data" not in value else "+" + value[value.index("--data") + 1]) if files else ""


def shape_of(told):
    classes, channels, size = IMAGES[told.data]
    return told.loading.outputs or classes, channels, told.loading.size or size


@cache
def tapped(name, kwargs, classes, channels, size, steps, taps):
    """How the taps of a network are laid out; all of it without memory."""
    with torch.device("meta"):
        net = create_model(name, num_classes=classes, in_channels=channels, image_size=size, **json.loads(kwargs))
        images = torch.zeros(2, channels, size, size) if steps is None else torch.zeros(steps, 2, channels, size, size)
        outputs = []
        found = find_taps(
            net, taps or default_taps(net), lambda: outputs.append(net(images)), samples=2, image=(size, size),
            steps=steps,
        )  # fmt: skip
    assert outputs[0].shape[-1] == classes
    return found


@cache
def trained_into(folder):
    """How the command of some header trains that folder."""
    [told] = {args: parse("train", *args) for _, args in TRAININGS if "--out" in args and folder in args}.values()
    return told


def teacher_of(told):
    """Name, further arguments, image size and T of a teacher, as the command that trained it says."""
    if told.teacher_weights is not None:
        return told.teacher, told.teacher_network or {}, told.teacher_size or 224, told.teacher_steps
    trained = trained_into(told.teacher)
    assert shape_of(trained)[:2] == shape_of(told)[:2], "teacher and student see other data"
    assert trained.data == told.data
    return (
        trained.model,
        trained.network or {},
        shape_of(trained)[2],
        student_steps(trained.model, told.data, trained.steps),
    )


@cache
def stages_of(arguments):
    told = parse("distill", *arguments)
    classes, channels, size = shape_of(told)
    steps = student_steps(told.student, told.data, told.steps)
    own, other = (tuple(names) for names in (told.taps or {}, (told.taps or {}).values()))
    student = tapped(told.student, json.dumps(told.network or {}), classes, channels, size, steps, own)
    name, kwargs, size, steps = teacher_of(told)
    teacher = tapped(name, json.dumps(kwargs), classes, channels, size, steps, other)
    return pair_taps(student, teacher, list(told.taps.items()) if told.taps else match_taps(student, teacher))


def test_every_row_of_a_paper_has_its_file():
    names = {path.stem for path in FILES}
    rows = {"resnet20-cifar10", "resnet18-cifar10", "vgg16-cifar10", "resnet19-cifar10", "resnet19-cifar100"}
    students = (*RESNETS, "spikingformer_4_384", "qkformer_4_384")
    rows |= {f"bsd-table1-{data}-{student}" for data in ("cifar10", "cifar100") for student in students}
    rows |= {f"bsd-table2-imagenet-sew_resnet{depth}" for depth in (18, 50)}
    rows |= {"bsd-table3-cifar10_dvs-spikingformer_2_256", "bsd-table4-none"}
    assert rows | {f"{row}-short" for row in rows} <= names
    assert {f"bsd-table4-{row}" for row in ("kd", "ssd", "srd")} | {"bsd-ablation-spatial"} <= names
    assert {f"bsd-table5-blocks{blocks}" for blocks in ("1", "2", "3", "12", "13", "23")} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_header_tells_how_to_run_its_file(path):
    told = [(verb, arguments) for verb, arguments in commands(path) if str(path) in arguments]
    assert told
    for verb, arguments in commands(path):
        assert verb in VERBS
        parse(verb, *arguments)
    assert {verb for verb, _ in told} == {told[0][0]}, "a file is of one verb"


@pytest.mark.parametrize("path, arguments", TRAININGS, ids=label)
def test_every_training_can_be_built(path, arguments):
    told = parse("train", *arguments)
    assert told.data in SOURCES or told.data in EVENT_SOURCES
    if not path.stem.startswith(("bsd-", "dct-")):
        assert path.stem.startswith((f"{told.model}-{told.data}", f"spiking-{told.data}"))
        assert path.stem.startswith("spiking") == (student_steps(told.model, told.data, told.steps) is not None)
    classes, channels, size = shape_of(told)
    with torch.device("meta"):
        net = create_model(
            told.model, num_classes=classes, in_channels=channels, image_size=size, **(told.network or {})
        )
    assert sum(p.numel() for p in net.parameters()) > 0


@pytest.mark.parametrize("path, arguments", DISTILLATIONS, ids=label)
def test_every_distillation_can_be_built(path, arguments):
    told = parse("distill", *arguments)
    assert told.student in model_names()
    stages = stages_of(arguments)
    assert len({stage.student for stage in stages}) == len(stages) > 0
    method = create_method(told.method, stages, told.settings)
    own = {stage.student: torch.zeros(1, stage.student_channels, *stage.student_size) for stage in stages}
    other = {stage.teacher: torch.ones(1, stage.teacher_channels, *stage.teacher_size) for stage in stages}
    logits = torch.zeros(1, shape_of(told)[0])
    with torch.no_grad():
        terms = method(logits, logits, own, other, torch.zeros(1, dtype=torch.int64))
    assert set(terms) == TERMS[told.method]
    if "srd" in terms:
        distance = sum(stage.teacher_channels * stage.size[0] * stage.size[1] for stage in stages)
        assert terms["srd"].item() == pytest.approx(told.settings["beta"] * distance, rel=1e-4)


@pytest.mark.parametrize("path, arguments", DISTILLATIONS, ids=label)
def test_weights_are_the_papers(path, arguments):
    told = parse("distill", *arguments)
    weights = {"alpha": 0.5, "temperature": 2.0}
    if "srd" in TERMS[told.method]:
        weights |= {"beta": 7e-4 if told.student in RESNETS else 7e-5, "penalty": 0.01}
    if "ssd" in TERMS[told.method]:
        weights |= {"gamma": 0.5}
    assert weights == {name: value for name, value in told.settings.items() if name != "domain"}
    assert (told.settings.get("domain") == "spatial") == ("spatial" in path.stem)


def distillation(*names):
    return tuple(part for name in names for part in ("--config", str(CONFIGS / f"{name}.yaml")))


def pairs(*names):
    return {stage.student: stage.teacher for stage in stages_of(distillation(*names))}


def test_every_stage_has_its_teacher():
    assert pairs("bsd-table1-cifar10-sew_resnet19") == {f"layers.{n}": f"layers.{n}" for n in (2, 5, 7)}
    assert pairs("bsd-table1-cifar10-spikingformer_4_384") == {f"blocks.{n}": f"blocks.{3 * n + 2}" for n in range(4)}
    assert list(pairs("bsd-table1-cifar10-qkformer_4_384").values()) == ["blocks.3", "blocks.7", "blocks.11"]
    assert pairs("bsd-table3-cifar10_dvs-spikingformer_2_256") == {f"blocks.{n}": f"blocks.{n}" for n in (0, 1)}
    deep = stages_of(distillation("bsd-table2-imagenet-sew_resnet50"))
    assert [stage.teacher for stage in deep] == [f"layer{n}" for n in (1, 2, 3, 4)]
    assert deep[-1] == Stage("layers.15", "layer4", 2048, 2048, (7, 7), (7, 7))


@pytest.mark.parametrize("blocks", ["1", "2", "3", "12", "13", "23"])
@pytest.mark.parametrize("student", RESNETS)
def test_table_5_puts_srd_after_the_blocks_of_its_row(blocks, student):
    expected = [{"1": "layers.2", "2": "layers.5", "3": "layers.7"}[block] for block in blocks]
    assert list(pairs(f"bsd-table1-cifar10-{student}", f"bsd-table5-blocks{blocks}")) == expected


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_an_ablation_differs_from_bsd_in_its_method_alone(data):
    base = distillation(f"bsd-table1-{data}-sew_resnet19")
    whole, alone = parse("distill", *base), parse("train", *distillation("bsd-table4-none"), "--data", data)
    for row in ("kd", "ssd", "srd"):
        told = parse("distill", *base, *distillation(f"bsd-table4-{row}"))
        assert {name for name in vars(whole) if whole[name] != told[name]} <= {"config", "method", "settings"}
        assert told.method == row
    for name in ("data", "network", "steps", "epochs", "loading", "optim", "recipe", "machine"):
        assert alone[name] == whole[name], name
    assert alone.model == whole.student


def test_the_digits_file_is_the_default_written_out():
    written, default = parse("train", "--config", str(CONFIGS / "resnet20-digits.yaml")), parse("train")
    assert written.epochs == EPOCHS["digits"]
    for name in ("model", "data", "loading", "optim", "recipe", "machine"):
        assert written[name] == default[name], name
