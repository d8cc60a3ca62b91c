"""``transpike distill``: a student that learns from a trained teacher beside the labels."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transpike.data import Loading
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, ModelError
from transpike.experiments.source import network_name
from transpike.experiments.training import Training, asked_of_all, run_training, student_steps
from transpike.train.options import Machine, Optim, Recipe

if TYPE_CHECKING:
    from transpike.experiments.source import Source

__all__ = ["distill"]

ASKED = (
    *("teacher", "teacher_weights", "teacher_network", "teacher_steps", "teacher_size"),
    *("method", "settings", "taps", "cache"),
)


def distill(
    teacher: str | None = None,
    student: str = "sew_resnet19",
    data: str = "digits",
    *,
    method: str = "bsd",
    settings: dict[str, Any] | None = None,
    taps: dict[str, str] | None = None,
    teacher_weights: Path | None = None,
    teacher_network: dict[str, Any] | None = None,
    teacher_steps: int | None = None,
    teacher_size: int | None = None,
    cache: int = 0,
    root: Path = Path("data"),
    download: bool = False,
    loading: Loading = Loading(),
    network: dict[str, Any] | None = None,
    weights: Path | None = None,
    steps: int | None = None,
    split_by: Literal["number", "time"] = "number",
    test_steps: list[int] | int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    keep: Literal["last", "best"] = "last",
    optim: Optim = Optim(),
    recipe: Recipe = Recipe(),
    machine: Machine = Machine(),
    resume: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Train a student, spiking or not, by the labels and by a trained teacher; by default by bi-spectrum distillation.

    The run's folder is that of `transpike train`: `transpike evaluate`, `analyze` and `report` read it. The method's
    adapters lie apart in adapters.safetensors; the student has none of them, and costs what it cost before. Every term
    of the loss is told from the first step on: in results.json, curves.csv and TensorBoard.

    The teacher sees each batch once, as the student sees it, resized to its own image size and normalised as it was
    trained; one of `transpike hybrid` sees it through its own encoder. Of events, a teacher of the same network with
    more steps teaches a student with fewer.

    Examples:
      transpike train --model resnet20 --out runs/teacher
      transpike distill --teacher runs/teacher --student sew_resnet19 --network '{"width": 8}'
      transpike distill --teacher runs/teacher --method kd --settings '{"alpha": 1.0, "temperature": 4}'
      transpike distill --config configs/bsd-table1-cifar10-sew_resnet19.yaml --teacher runs/resnet19-cifar10
      transpike distill --teacher timm/vit_small_patch16_224 --teacher-weights vit.safetensors --student \
spikingformer_4_384 --data cifar100
      transpike distill --resume runs/distill-20260101-120000

    Args:
        teacher: The folder of a `transpike train` or `hybrid` run, or a network's name with --teacher-weights.
        student: sew_resnet19, spiking_resnet19, spikingformer_4_384, qkformer_4_384, ... as for `transpike train`.
        data: As for `transpike train`: digits, mnist, cifar10, cifar100, folder, ..., or events: nmnist, cifar10_dvs.
        method: bsd; ssd or srd, logits KD with one half of it; kd, logits KD; for spiking students kdsnn, lasnn,
            bkdsnn, sakd, tks, tld; for any sfkd, fitnet, at, rkd, cc, crd, ofd, reviewkd, dkd, dist, ofa.
        settings: What else the method takes, such as {"beta": 7e-4} or {"normalize": true}.
        taps: Modules of the student whose features are compared, each with the teacher's module; by default each
            network's stages, {"layers.2": "layer1", ...}.
        teacher_weights: A .safetensors file, a state dict or a run's folder.
        teacher_network: What else the teacher's network takes.
        teacher_steps: T of a spiking teacher; a run's folder knows its own.
        teacher_size: Side of the teacher's images in pixels; by default that of its run, or for timm's networks their
            own.
        cache: Mebibytes of memory for what the teacher says of images that come again unchanged; pays where the
            augmentation is none or little.
        root: Where the data set's files lie.
        download: Download the data set into root where it is missing.
        loading: Batches, augmentation, validation split. Its seed is replaced by `seed`.
        network: What else the student's network takes.
        weights: Start the student from these weights instead of random ones.
        steps: T of a spiking student, 4 by default.
        split_by: How a recording of events is split into T frames: by number of events, or by time.
        test_steps: Other numbers of steps to test a spiking student at; by default 1, 2 and 2T.
        epochs: Passes over the training images; by default 40 for digits, 10 for mnist, 100 for cifar10, ...
        seed: Of the first weights, the order of images, augmentation, dropout and the validation split.
        keep: The weights to hand on: those of the last epoch, or of the best one on the validation images.
        optim: The optimiser and its schedule.
        recipe: The task's loss and its regularisers.
        machine: Devices and precision.
        resume: Continue this run's folder, as `transpike train --resume` does; all other options are ignored.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: An option, the data set, the weights or the folder is not as it must be; teacher and student
            have other classes; a tap does not exist; the loss is not finite.
    """
    asked = asked_of_all(
        student,
        data,
        steps=steps if resume else student_steps(student, data, steps),
        epochs=epochs,
        seed=seed,
        loading=loading,
        test_steps=test_steps,
        options={"keep": keep, "optim": optim, "recipe": recipe, "machine": machine},
        network=network or {},
        weights=weights,
        root=root,
        download=download,
        split_by=split_by,
        teacher=teacher,
        teacher_weights=teacher_weights,
        teacher_network=teacher_network or {},
        teacher_steps=teacher_steps,
        teacher_size=teacher_size,
        method=method,
        settings=settings or {},
        taps=taps,
        cache=cache,
    )
    if resume is None:
        _check_teacher(asked)
        _check_method(asked)
    run_training("distill", asked, _learn, frames=_frames, also=ASKED, resume=resume, out=out, json=json)


def _check_method(asked: Mapping[str, Any]) -> None:
    from transpike.distill import check_method, method_needs

    method, taps = asked["method"], asked["taps"]
    check_method(method, asked["settings"], batch=asked["loading"]["batch_size"])
    if asked["options"]["steps"] is None and "time" in method_needs(method):
        raise ModelError(f"{method} compares time steps, of which {network_name(asked['model'])} has none.")
    if taps is not None and not taps and "features" in method_needs(method):
        raise ConfigError("--taps names no module: leave it out for each network's stages.")
    if asked["cache"] < 0:
        raise ConfigError(f"cache={asked['cache']}: expected mebibytes, 0 or more.")


def _check_teacher(asked: Mapping[str, Any]) -> None:
    """Refuse, before anything is loaded, a teacher that cannot be had or cannot see the student's data."""
    from transpike.models import check_name
    from transpike.models.zoo import SPIKING

    name, weights, events = asked["teacher"], asked["teacher_weights"], asked["data"] in EVENT_SOURCES
    if name is None:
        raise ConfigError("give --teacher: the folder of a `transpike train` run, or a name with --teacher-weights.")
    if weights is None and not Path(name).is_dir():
        check_name(name)
        raise ModelError(
            f"{name}: give --teacher-weights, a file or the folder of a `transpike train` run; an untrained teacher "
            "has nothing to teach. To train one: transpike train"
        )
    for option in ("teacher_size", "teacher_steps"):
        if asked[option] is not None and asked[option] < 1:
            raise ConfigError(f"{option}={asked[option]}: expected 1 or more.")
    if Path(name).is_dir() and asked["teacher_network"]:
        raise ConfigError(f"{name}: a run's folder knows its network: leave --teacher-network out.")
    if events and _teacher(asked).described.get("encoder"):
        raise ConfigError(f"{name} encodes images, and {asked['data']} gives frames of events, which it cannot encode.")
    spikes = network_name(name) in SPIKING
    if asked["teacher_steps"] is not None and not spikes:
        raise ConfigError(f"--teacher-steps is T of a spiking teacher; {network_name(name)} is none: leave it out.")
    if spikes and _teacher(asked).time is None:
        raise ConfigError(f"{name} spikes: give --teacher-steps, the T that it was trained with.")
    if events and not spikes:
        raise ConfigError(f"{asked['data']} gives frames of events: give a spiking teacher, not {network_name(name)}.")


def _teacher(asked: Mapping[str, Any]) -> Source:
    from transpike.experiments.source import Source

    return Source(
        str(asked["teacher"]), *(asked[f"teacher_{name}"] for name in ("weights", "network", "steps", "size"))
    )


def _frames(asked: dict[str, Any]) -> int | None:
    """Frames of events from which both networks' can be merged."""
    steps: int | None = asked["options"]["steps"]
    theirs = _teacher(asked).time
    return lcm(steps, theirs) if steps and theirs and asked["data"] in EVENT_SOURCES else steps


def _learn(training: Training) -> tuple[Any, dict[str, Any]]:
    from transpike.experiments.source import load_subject
    from transpike.train import Loaders
    from transpike.train.distill import distill as learn
    from transpike.train.teacher import TargetCache

    asked, sets = training.asked, training.sets
    teacher = load_subject(_teacher(asked), sets, label="teacher", device="cpu")
    fitted = learn(
        training.model,
        teacher.model,
        Loaders(sets.train, sets.validation if len(sets.validation) else None),
        training.options,
        folder=training.folder,
        method=asked["method"],
        settings=asked["settings"],
        taps=asked["taps"],
        given=teacher.given,
        cache=TargetCache(asked["cache"]) if asked["cache"] else None,
        resume=training.resumed,
    )
    told = {
        "teacher": network_name(asked["teacher"]),
        "method": asked["method"],
        "settings": asked["settings"],
        "taps": {stage.student: stage.teacher for stage in fitted.stages},
        "adapter_parameters": sum(parameter.numel() for parameter in fitted.method.parameters()),
        "first_terms": fitted.first_terms,
    }
    return fitted, {"distillation": told}
