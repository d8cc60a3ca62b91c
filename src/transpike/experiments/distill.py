"""``transpike distill``: a student learns from a trained teacher in addition to the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

from transpike.checks import whole
from transpike.data.event_files import EVENT_SOURCES
from transpike.distill import check_method, method_needs
from transpike.errors import ConfigError, ModelError
from transpike.experiments.learning import Learning, recorded, settled
from transpike.experiments.options import check_resumed, read_record
from transpike.experiments.source import Source, load_subject
from transpike.experiments.training import finish, make_student
from transpike.models import is_run
from transpike.models.zoo import SPIKING
from transpike.results import Training, copy_results
from transpike.train.options import Arguments
from transpike.train.processes import first_process
from transpike.train.runs import has_epochs, training_run

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from transpike.train.teacher import TargetCache

__all__ = ["Distill", "check_settings", "distill"]


@dataclass(frozen=True)
class Teaching:
    """Who learns from whom, and by what method.

    Attributes:
        teacher: The folder of a `transpike train` or `hybrid` run, or the name of a network with --teacher-weights.
        student: The student's network, as for `transpike train`: sew_resnet19, spiking_resnet19, spikingformer_4_384,
            qkformer_4_384, ...
        method: The method: kd (logits); bsd (bi-spectrum distillation: kd and two other parts); ssd or srd (kd and one
            of these two parts). kdsnn, lasnn, bkdsnn, sakd, ckdsnn, enof, tks and tld were made for spiking students.
            The others are sfkd, fitnet, at, rkd, cc, crd, ofd, reviewkd, dkd, dist and ofa. tks and tld need a spiking
            student. All other methods train any student.
        settings: Settings of the method, such as {"beta": 7e-4} or {"normalize": true}.
        taps: Modules of the student whose features are compared, each with a module of the teacher, such as
            {"layers.2": "layer1"}. The default is all stages of student and teacher.
        teacher_weights: The teacher's weights: a .safetensors file, a state dict or the folder of a run.
        teacher_network: Arguments of the teacher's network.
        teacher_steps: T of a spiking teacher. If the teacher is the folder of a run, the default is the T of this run.
        teacher_size: Side of the teacher's images in pixels. The default is the size in the teacher's run, or that of
            its timm network.
        cache: The memory, in mebibytes, that keeps the teacher's outputs for each image. This is useful only if images
            repeat without augmentation.
    """

    teacher: str | None = None
    student: str = "sew_resnet19"
    _: KW_ONLY
    method: str = "bsd"
    settings: Arguments | None = None
    taps: dict[str, str] | None = None
    teacher_weights: Path | None = None
    teacher_network: Arguments | None = None
    teacher_steps: int | None = None
    teacher_size: int | None = None
    cache: int = 0

    @property
    def source(self) -> Source:
        """The source of the teacher."""
        rest = (self.teacher_weights, self.teacher_network or {}, self.teacher_steps, self.teacher_size)
        return Source(self.teacher or "", *rest)


@dataclass(frozen=True)
class Distill(Learning, Teaching):
    """Train a student network with the labels and a trained teacher. The default method is bi-spectrum distillation.

    The student may be a spiking or an artificial network. The run's folder has the files of `transpike train`:
    `transpike evaluate`, `analyze` and `report` read it. The method may train adapters, which are layers beside the
    student. They are saved in adapters.safetensors. They are not part of the student, so they do not increase its cost.
    results.json holds every term of the loss at the first training step, and curves.csv shows how the terms change
    during training.

    The teacher sees the same augmented batch as the student, in the teacher's image size and normalisation. A teacher
    of `transpike hybrid` uses its own encoder. On events, a spiking teacher can have more steps than its student.

    Examples:
      transpike train --model resnet20 --out runs/teacher
      transpike distill --teacher runs/teacher --student sew_resnet19 --network '{"width": 8}'
      transpike distill --teacher runs/teacher --method kd --settings '{"alpha": 1.0, "temperature": 4}'
      transpike distill --config configs/bsd/resnets.yaml --config configs/bsd/sew_resnet19.yaml
      transpike distill --teacher timm/vit_small_patch16_224 --teacher-weights vit.safetensors --student \
spikingformer_4_384 --data cifar100
      transpike distill --resume runs/distill-20260101-120000

    Attributes:
        data: The data set, as for `transpike train`: digits, mnist, cifar10, cifar100, folder, ...; or events: nmnist,
            cifar10_dvs, ...
        network: Arguments of the student's network.
        recipe: The loss of the labels and its regularisers.
    """

    data: str = "digits"

    @property
    def learner(self) -> str:
        return self.student

    @property
    def frames(self) -> int | None:
        """For events: the number of frames from which both networks' frames can be merged."""
        theirs = self.source.time
        return lcm(self.steps, theirs) if self.steps and theirs and self.data in EVENT_SOURCES else self.steps


def distill(options: Distill, *, watching: Sequence[Callback] = (), cache: TargetCache | None = None) -> Training:
    """Train a student with a teacher, and write its run's folder.

    Args:
        options: the command's options.
        watching: further callbacks of Lightning.
        cache: the teacher's outputs from other runs, in place of a new cache of ``options.cache`` mebibytes.

    Returns:
        The content of results.json: as for `train`, and what the student learned from.

    Raises:
        TranspikeError: An option, the data set, the weights or the folder is wrong; teacher and student have different
            classes; a tap does not exist; or the loss is not finite.
    """
    if options.resume is None:
        chosen = settled(options)
        _check_teacher(chosen)
        check_settings(chosen)
    else:
        chosen = read_record(options.resume, "distill", Distill, renamed={"model": "student"})
        check_resumed(options, chosen, options.resume)
    with training_run("distill", _recorded(chosen), resume=options.resume, out=options.out) as run:
        from transpike.train import Loaders
        from transpike.train.distill import distill as learn
        from transpike.train.teacher import TargetCache

        sets = chosen.images.load(chosen.frames)
        model = make_student(chosen, sets)
        teacher = load_subject(chosen.source, sets, label="teacher", device="cpu")
        fitted = learn(
            model,
            teacher.model,
            Loaders.of(sets),
            chosen.training,
            folder=run,
            watching=watching,
            method=chosen.method,
            settings=chosen.settings,
            taps=chosen.taps,
            given=teacher.given,
            cache=TargetCache(chosen.cache) if cache is None and chosen.cache else cache,
            resume=options.resume is not None and has_epochs(run.folder),
        )
        learned = fitted.record(teacher=chosen.source.model, method=chosen.method, settings=chosen.settings or {})
        results = finish(chosen, sets, fitted, run, distillation=learned)
    if first_process():
        copy_results(results, options.json)
    return results


def _recorded(chosen: Distill) -> dict[str, object]:
    settings, network = chosen.settings or {}, chosen.teacher_network or {}
    options = recorded(chosen, settings=settings, teacher_network=network)
    return {"model": options.pop("student"), **options}


def check_settings(chosen: Distill) -> None:
    """Check the method, its settings and its taps before anything is loaded."""
    check_method(chosen.method, chosen.settings or {}, batch=chosen.loading.batch_size)
    if chosen.steps is None and "time" in method_needs(chosen.method):
        raise ModelError(f"{chosen.method} compares time steps, of which {Source(chosen.student).model} has none.")
    if chosen.taps is not None and not chosen.taps and "features" in method_needs(chosen.method):
        raise ConfigError("--taps names no module. Omit it to use each network's stages.")
    whole("cache", chosen.cache, least=0)


def _check_teacher(chosen: Distill) -> None:
    """Check, before anything is loaded, that the teacher is available and can process the student's data."""
    if chosen.teacher is None:
        raise ConfigError("give --teacher: the folder of a `transpike train` run, or a name with --teacher-weights.")
    source = chosen.source.checked("--teacher-weights", "teach")
    for option, value in (("teacher_size", source.size), ("teacher_steps", source.steps)):
        if value is not None:
            whole(option, value)
    if is_run(source.name) and source.network:
        raise ConfigError(f"{source.name}: a run's folder knows its network: leave --teacher-network out.")
    events, spikes = chosen.data in EVENT_SOURCES, source.model in SPIKING
    if events and source.described.get("encoder"):
        raise ConfigError(
            f"{source.name} encodes images, and {chosen.data} gives frames of events, which it cannot encode."
        )
    if source.steps is not None and not spikes:
        raise ConfigError(f"--teacher-steps is T of a spiking teacher; {source.model} does not spike: omit it.")
    if spikes and source.time is None:
        raise ConfigError(f"{source.name} is a spiking network: give --teacher-steps, the T that it was trained with.")
    if events and not spikes:
        raise ConfigError(f"{chosen.data} gives frames of events: give a spiking teacher, not {source.model}.")
