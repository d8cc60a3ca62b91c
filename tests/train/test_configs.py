"""Every recipe is what its command says: networks, losses and pairs of stages can be built, and are the papers'."""

import json
from functools import cache

import pytest
import torch
from tests.rows import COMMANDS, CONFIGS, ROWS, Command, command, parse

from transpike.data.event_files import EVENT_SOURCES
from transpike.data.sources import SOURCES
from transpike.distill import METHODS, create_method, default_taps, find_taps, match_taps, method_needs, pair_taps
from transpike.distill.taps import Stage
from transpike.models import check_name, create_model
from transpike.train.options import EPOCHS
from transpike.train.runs import student_steps

# Classes, channels and side of an image.
IMAGES = {
    **{"digits": (10, 1, 8), "mnist": (10, 1, 28), "fashion_mnist": (10, 1, 28)},
    **{"cifar10": (10, 3, 32), "cifar100": (100, 3, 32), "folder": (1000, 3, 224)},
    **{"nmnist": (10, 2, 34), "cifar10_dvs": (10, 2, 128), "dvs128_gesture": (11, 2, 128)},
}
TERMS = {"kd": {"kd"}, "ssd": {"kd", "ssd"}, "srd": {"kd", "srd"}, "bsd": {"kd", "srd", "ssd"}}
RESNETS = ("sew_resnet19", "spiking_resnet19")

DEEPEST = {
    **{"swin_tiny": "layers.3", "vit_small": "blocks.11", "mixer_b16": "blocks.11", "convnext_tiny": "stages.3"},
    **{"resnet56": "layers.26", "wrn_40_2": "layers.17", "vgg13_bn": "features.32", "resnet32x4": "layers.14"},
}

TRAININGS = [each for each in COMMANDS if each.verb == "train"]
DISTILLATIONS = [each for each in COMMANDS if each.verb == "distill"]
BSD = [each for each in DISTILLATIONS if each.files[0].startswith("bsd/") and each.options.method in TERMS]
PROTOCOLS = ("sfkd/ofakd-cnn", "sfkd/ofakd-vit", "sfkd/crd")
SFKD = [
    each for each in ROWS
    if each.verb == "distill" and each.files[0] in PROTOCOLS and each.options.method == "sfkd"
    and "sfkd/short" not in each.files
]  # fmt: skip


def label(each: Command) -> str:
    return each.name.replace("/", "-")


def shape_of(options):
    classes, channels, size = IMAGES[options.data]
    return options.loading.outputs or classes, channels, options.loading.size or size


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
    """How some command trains that folder."""
    first, *others = [each.options for each in TRAININGS if each.options.out and str(each.options.out) == folder]
    assert all(other == first for other in others)
    return first


def teacher_of(options):
    """Name, further arguments, image size and T of a teacher, as the command that trained it says."""
    if options.teacher_weights is not None:
        return options.teacher, options.teacher_network or {}, options.teacher_size or 224, options.teacher_steps
    trained = trained_into(options.teacher)
    assert shape_of(trained)[:2] == shape_of(options)[:2], "teacher and student see other data"
    assert trained.data == options.data
    return (
        trained.model,
        trained.network or {},
        shape_of(trained)[2],
        student_steps(trained.model, options.data, trained.steps),
    )


@cache
def stages_of(each):
    options = each.options
    classes, channels, size = shape_of(options)
    steps = student_steps(options.student, options.data, options.steps)
    own, other = (tuple(names) for names in (options.taps or {}, (options.taps or {}).values()))
    student = tapped(options.student, json.dumps(options.network or {}), classes, channels, size, steps, own)
    name, kwargs, size, steps = teacher_of(options)
    teacher = tapped(name, json.dumps(kwargs), classes, channels, size, steps, other)
    return pair_taps(student, teacher, list(options.taps.items()) if options.taps else match_taps(student, teacher))


@pytest.mark.parametrize("each", TRAININGS, ids=label)
def test_every_training_can_be_built(each):
    options = each.options
    assert options.data in SOURCES or options.data in EVENT_SOURCES
    classes, channels, size = shape_of(options)
    with torch.device("meta"):
        net = create_model(
            options.model, num_classes=classes, in_channels=channels, image_size=size, **(options.network or {})
        )
    assert sum(p.numel() for p in net.parameters()) > 0


@pytest.mark.parametrize("each", DISTILLATIONS, ids=label)
def test_every_distillation_can_be_built(each):
    options = each.options
    check_name(options.student)
    stages, (classes, _, _) = stages_of(each), shape_of(options)
    assert len({stage.student for stage in stages}) == len(stages) > 0
    method = create_method(options.method, stages, options.settings or {}, classes=classes)
    own = {stage.student: torch.zeros(3, stage.student_channels, *stage.student_size) for stage in stages}
    other = {stage.teacher: torch.ones(3, stage.teacher_channels, *stage.teacher_size) for stage in stages}
    logits = torch.zeros(3, classes)
    with torch.no_grad():
        terms = method(logits, logits, own, other, torch.zeros(3, dtype=torch.int64))
    assert all(term.isfinite() for term in terms.values()) and terms.keys() == TERMS.get(options.method, terms.keys())
    if "srd" in terms:
        distance = sum(stage.teacher_channels * stage.size[0] * stage.size[1] for stage in stages)
        assert terms["srd"].item() == pytest.approx(options.settings["beta"] * distance, rel=1e-4)


@pytest.mark.parametrize("each", BSD, ids=label)
def test_weights_are_the_papers(each):
    options = each.options
    weights = {"alpha": 0.5, "temperature": 2.0}
    if "srd" in TERMS[options.method]:
        weights |= {"beta": 7e-4 if options.student in RESNETS else 7e-5, "penalty": 0.01}
    if "ssd" in TERMS[options.method]:
        weights |= {"gamma": 0.5}
    assert weights == {name: value for name, value in options.settings.items() if name != "domain"}
    assert (options.settings.get("domain") == "spatial") == ("without Fourier" in each.name)


def distillation(*names, more=""):
    files = " ".join(f"--config configs/{name}.yaml" for name in names)
    return command(" ".join(names), f"transpike distill {files} {more}")


def pairs(*names, more=""):
    return {stage.student: stage.teacher for stage in stages_of(distillation(*names, more=more))}


def test_every_stage_has_its_teacher():
    assert pairs("bsd/resnets", "bsd/sew_resnet19") == {f"layers.{n}": f"layers.{n}" for n in (2, 5, 7)}
    transformer = pairs("bsd/transformers", "bsd/spikingformer_4_384")
    assert transformer == {f"blocks.{n}": f"blocks.{3 * n + 2}" for n in range(4)}
    assert list(pairs("bsd/transformers", "bsd/qkformer_4_384").values()) == ["blocks.3", "blocks.7", "blocks.11"]
    assert pairs("bsd/events", "bsd/spikingformer_2_256") == {f"blocks.{n}": f"blocks.{n}" for n in (0, 1)}
    deep = stages_of(distillation("bsd/imagenet", "bsd/sew_resnet50"))
    assert [stage.teacher for stage in deep] == [f"layer{n}" for n in (1, 2, 3, 4)]
    assert deep[-1] == Stage("layers.15", "layer4", 2048, 2048, (7, 7), (7, 7))


def test_the_pairs_of_sfkd_are_those_of_the_protocols():
    assert len(SFKD) == len({(each.options.teacher, each.options.student) for each in SFKD}) == 9 + 5


@pytest.mark.parametrize("each", SFKD, ids=label)
def test_every_stage_of_a_pair_of_sfkd_has_its_teacher_in_every_method(each):
    stages, student = stages_of(each), each.options.student
    teacher = str(each.options.teacher).removeprefix("runs/").removesuffix("-cifar100")
    expected = {"timm/mobilenetv2_100": 5, "vgg8_bn": 4}
    assert len(stages) == expected.get(student, 3 if "sfkd/crd" in each.files else 4)
    depths = [int(stage.teacher.rpartition(".")[2]) for stage in stages]
    assert depths == sorted(depths) and stages[-1].teacher == DEEPEST[teacher]
    with torch.device("meta"):
        for method in METHODS:
            learned = list(create_method(method, stages, {}, classes=100).parameters())
            assert "features" in method_needs(method) or not learned


@pytest.mark.parametrize("each", SFKD, ids=label)
def test_a_pair_of_sfkd_follows_its_protocol(each):
    options = each.options
    optim, recipe, loading = options.optim, options.recipe, options.loading
    if "sfkd/crd" in each.files:
        lr = 0.01 if options.student == "shufflenet_v2" else 0.05
        assert (optim.name, optim.lr, optim.weight_decay) == ("sgd", lr, 5e-4)
        assert (options.epochs, loading.batch_size) == (240, 64)
        assert (tuple(optim.milestones), optim.decay, loading.size) == ((150, 180, 210), 0.1, None)
        assert (optim.nesterov, optim.decay_all, optim.warmup) == (False, True, 0)
        return
    assert (options.epochs, loading.batch_size, loading.size, recipe.label_smoothing) == (300, 128, 224, 0.1)
    if options.student in ("timm/resnet18", "timm/mobilenetv2_100"):
        assert (optim.name, optim.lr, optim.weight_decay, optim.warmup, optim.clip) == ("sgd", 0.05, 2e-3, 3, None)
        assert (recipe.mixup, recipe.cutmix, loading.augment, optim.lr_min) == (0, 0, "standard", 1e-3)
    else:
        assert (optim.name, optim.lr, optim.weight_decay, optim.warmup, optim.clip) == ("adamw", 5e-4, 0.05, 20, 5)
        assert (recipe.mixup, recipe.cutmix, optim.lr_min) == (0.8, 1, 1e-5)
        assert loading.augment == "standard+randaugment:27+erasing:0.25"


@pytest.mark.parametrize("blocks", ["1", "2", "3", "1 and 2", "1 and 3", "2 and 3"])
@pytest.mark.parametrize("student", ["ResNet-19", "SEW-ResNet-19"])
def test_table_5_puts_srd_after_the_blocks_of_its_row(blocks, student):
    name = f"block{'s' * (len(blocks) > 1)} {blocks}, {student}"
    [row] = [each for each in ROWS if each.name == name]
    expected = [{"1": "layers.2", "2": "layers.5", "3": "layers.7"}[block] for block in blocks.split(" and ")]
    assert [stage.student for stage in stages_of(row)] == [stage.teacher for stage in stages_of(row)] == expected
    [whole] = [each for each in ROWS if each.name == f"{student}, CIFAR-10"]
    assert differing(whole.options, row.options) == {"taps"}


def differing(one, other):
    """Which options of two runs differ, their folders aside."""
    return {name for name in vars(one) if getattr(one, name) != getattr(other, name)} - {"out"}


@pytest.mark.parametrize("data", ["CIFAR-10", "CIFAR-100"])
def test_an_ablation_differs_from_bsd_in_its_method_alone(data):
    rows = {each.name: each.options for each in ROWS}
    whole, alone = rows[f"SEW-ResNet-19, {data}"], rows[f"no distillation, {data}"]
    for name, method in {"logits KD": "kd", "+SSD": "ssd", "+SRD": "srd"}.items():
        options = rows[f"{name}, {data}"]
        assert differing(whole, options) == {"method", "settings"}
        assert options.method == method
    for name in ("data", "network", "steps", "epochs", "loading", "optim", "recipe", "machine"):
        assert getattr(alone, name) == getattr(whole, name), name
    assert alone.model == whole.student


def test_a_short_run_keeps_the_learning_of_its_row_but_for_what_its_file_says():
    rows = {each.name: each.options for each in ROWS}
    short, whole = rows["SEW-ResNet-19, CIFAR-10, short"], rows["SEW-ResNet-19, CIFAR-10"]
    assert differing(short, whole) == {"teacher", "network", "steps", "epochs", "loading", "optim", "machine"}
    assert (short.loading.train_images, short.loading.augment, short.epochs) == (10000, "standard", 20)


def test_the_digits_file_is_the_default_written_out():
    written, default = parse("train", "--config", str(CONFIGS / "small" / "resnet20-digits.yaml")), parse("train")
    assert written.epochs == EPOCHS["digits"]
    for name in ("model", "data", "loading", "optim", "recipe", "machine"):
        assert getattr(written, name) == getattr(default, name), name
