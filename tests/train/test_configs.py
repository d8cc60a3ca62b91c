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
from transpike.distill import METHODS, create_method, default_taps, find_taps, match_taps, method_needs, pair_taps
from transpike.distill.taps import Stage
from transpike.models import check_name, create_model
from transpike.train.options import EPOCHS
from transpike.train.runs import student_steps

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

PAIRS = {
    "ofakd": (
        *("swin_tiny-resnet18", "vit_small-resnet18", "vit_small-mobilenetv2"),
        *("mixer_b16-deit_tiny", "mixer_b16-swin_pico", "convnext_tiny-deit_tiny", "convnext_tiny-swin_pico"),
        *("convnext_tiny-resmlp_s12", "swin_tiny-resmlp_s12"),
    ),
    "crd": (
        *("resnet56-resnet20", "wrn_40_2-wrn_16_2", "vgg13_bn-vgg8_bn", "resnet32x4-resnet8x4"),
        "resnet32x4-shufflenet_v2",
    ),
}
DEEPEST = {
    **{"swin_tiny": "layers.3", "vit_small": "blocks.11", "mixer_b16": "blocks.11", "convnext_tiny": "stages.3"},
    **{"resnet56": "layers.26", "wrn_40_2": "layers.17", "vgg13_bn": "features.32", "resnet32x4": "layers.14"},
}
SFKD = [f"sfkd-{protocol}-{pair}" for protocol, pairs in PAIRS.items() for pair in pairs]


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
    shortened = {"sfkd-ofakd-swin_tiny-resnet18", "sfkd-ofakd-convnext_tiny-deit_tiny", "sfkd-crd-resnet56-resnet20"}
    assert {*rows, *SFKD} | {f"{row}-short" for row in rows | shortened} <= names
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
    if not path.stem.startswith(("bsd-", "dct-", "sfkd-")):
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
    check_name(told.student)
    stages, (classes, _, _) = stages_of(arguments), shape_of(told)
    assert len({stage.student for stage in stages}) == len(stages) > 0
    method = create_method(told.method, stages, told.settings or {}, classes=classes)
    own = {stage.student: torch.zeros(3, stage.student_channels, *stage.student_size) for stage in stages}
    other = {stage.teacher: torch.ones(3, stage.teacher_channels, *stage.teacher_size) for stage in stages}
    logits = torch.zeros(3, classes)
    with torch.no_grad():
        terms = method(logits, logits, own, other, torch.zeros(3, dtype=torch.int64))
    assert all(term.isfinite() for term in terms.values()) and terms.keys() == TERMS.get(told.method, terms.keys())
    if "srd" in terms:
        distance = sum(stage.teacher_channels * stage.size[0] * stage.size[1] for stage in stages)
        assert terms["srd"].item() == pytest.approx(told.settings["beta"] * distance, rel=1e-4)


@pytest.mark.parametrize("path, arguments", [row for row in DISTILLATIONS if row[0].stem.startswith("bsd-")], ids=label)
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


@pytest.mark.parametrize("name", SFKD)
def test_every_stage_of_a_pair_of_sfkd_has_its_teacher_in_every_method(name):
    [arguments] = own_commands(CONFIGS / f"{name}.yaml", "distill")
    stages = stages_of(arguments)
    teacher, student = name.split("-")[2:]
    assert len(stages) == {"mobilenetv2": 5, "vgg8_bn": 4}.get(student, 3 if "crd" in name else 4)
    depths = [int(stage.teacher.rpartition(".")[2]) for stage in stages]
    assert depths == sorted(depths) and stages[-1].teacher == DEEPEST[teacher]
    with torch.device("meta"):
        for method in METHODS:
            learned = list(create_method(method, stages, {}, classes=100).parameters())
            assert "features" in method_needs(method) or not learned


@pytest.mark.parametrize("name", SFKD)
def test_a_pair_of_sfkd_follows_its_protocol(name):
    [arguments] = own_commands(CONFIGS / f"{name}.yaml", "distill")
    told, student = parse("distill", *arguments), name.split("-")[3]
    optim, recipe, loading = told.optim, told.recipe, told.loading
    if "crd" in name:
        lr = 0.01 if student == "shufflenet_v2" else 0.05
        assert (optim.name, optim.lr, optim.weight_decay, told.epochs, loading.batch_size) == ("sgd", lr, 5e-4, 240, 64)
        assert (tuple(optim.milestones), optim.decay, loading.size) == ((150, 180, 210), 0.1, None)
        assert (optim.nesterov, optim.decay_all, optim.warmup) == (False, True, 0)
        return
    assert (told.epochs, loading.batch_size, loading.size, recipe.label_smoothing) == (300, 128, 224, 0.1)
    if student in ("resnet18", "mobilenetv2"):
        assert (optim.name, optim.lr, optim.weight_decay, optim.warmup, optim.clip) == ("sgd", 0.05, 2e-3, 3, None)
        assert (recipe.mixup, recipe.cutmix, loading.augment, optim.lr_min) == (0, 0, "standard", 1e-3)
    else:
        assert (optim.name, optim.lr, optim.weight_decay, optim.warmup, optim.clip) == ("adamw", 5e-4, 0.05, 20, 5)
        assert (recipe.mixup, recipe.cutmix, optim.lr_min) == (0.8, 1, 1e-5)
        assert loading.augment == "standard+randaugment:27+erasing:0.25"


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
