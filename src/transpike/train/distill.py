"""Distillation: a student, spiking or not, learns from the labels and from a teacher's outputs for the same images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from transpike import files
from transpike.distill import Method, create_method, default_taps, find_taps, match_taps, method_needs, pair_taps
from transpike.distill.methods import MethodLike
from transpike.distill.taps import Stage, Tap, Taps
from transpike.errors import ModelError
from transpike.neurons import reset_net
from transpike.results import Distillation, RunFolder
from transpike.train.classify import Classifier
from transpike.train.fitted import Fitted, Loaders
from transpike.train.inputs import check_loader
from transpike.train.loop import fit_module, tested
from transpike.train.options import TrainOptions
from transpike.train.record import leave, network_name, python_run
from transpike.train.teacher import TargetCache, Teacher, TeacherInput, head_weight, merge_frames

__all__ = ["Distilled", "Distiller", "distill"]

TASK = ("cross_entropy", "regulariser")
OUTWEIGHS = 10

ADAPTERS = files.safetensors_kind("adapters that transpike trained")


class Distiller(Classifier):
    """A `Classifier` whose loss is the task's loss plus the terms of a distillation method.

    Args:
        student: the network to train.
        teacher: the network from which it learns.
        method: returns named, weighted terms. Its parameters (adapters) are trained too. See `transpike.distill`.
        taps: the taps of the student's features, by name.
        options: how to train.
        encode: as in `fit`.
        reset: as in `fit`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        method: nn.Module,
        *,
        taps: Mapping[str, Tap],
        options: TrainOptions,
        encode: Callable[[Tensor], Tensor] | None = None,
        reset: Callable[[nn.Module], object] | None = None,
    ) -> None:
        super().__init__(student, options, encode=encode, reset=reset)
        self.method = method
        self.teacher = teacher
        self.taps = taps
        self.recorded = Taps(student, list(taps))

    @property
    def trained(self) -> nn.Module:
        return nn.ModuleList([self.model, self.method])

    def inputs(self, images: Tensor) -> Tensor:
        steps = self.options.steps
        return super().inputs(merge_frames(images, steps) if steps and self._samples(images) else images)

    def terms(self, outputs: Tensor, target: Tensor, images: Tensor) -> dict[str, Tensor]:
        terms = super().terms(outputs, target, images)
        features = {name: tap.maps(self.recorded[name]) for name, tap in self.taps.items()}
        self.recorded.clear()
        logits, targets = self.teacher(images)
        distilled: dict[str, Tensor] = self.method(outputs, logits, features, targets, target)
        return terms | distilled

    def on_fit_start(self) -> None:
        self.teacher.to(self.device)

    def on_train_start(self) -> None:
        self.recorded.open()

    def on_train_end(self) -> None:
        self.recorded.close()


@dataclass(frozen=True)
class Distilled(Fitted):
    """The results of distillation, in addition to those of `fit`.

    Attributes:
        method: the method with its trained adapters, which the student does not need.
        stages: the pairs of the student's and the teacher's taps.
        first_terms: every weighted term of the loss at the first training step.
    """

    method: nn.Module
    stages: tuple[Stage, ...]
    first_terms: dict[str, float]

    def record(self, *, teacher: str, method: str, settings: Mapping[str, Any]) -> Distillation:
        """Return the entry for results.json."""
        return Distillation(
            teacher=teacher,
            method=method,
            settings=settings,
            taps={stage.student: stage.teacher for stage in self.stages},
            adapter_parameters=sum(parameter.numel() for parameter in self.method.parameters()),
            first_terms=self.first_terms,
        )


class Terms(L.Callback):
    """Logs every weighted term from the first step on, and warns if one of them is much larger than the task's loss."""

    EVERY = 10

    def __init__(self) -> None:
        self.first: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        step = trainer.global_step - 1
        if self.first and step % self.EVERY:
            return
        terms = {name: float(term) for name, term in outputs["terms"].items()}
        for logger in trainer.loggers:
            logger.log_metrics({f"terms/{name}": term for name, term in terms.items()}, step=step)
        if self.first:
            return
        self.first = terms
        task = sum(terms.get(name, 0.0) for name in TASK)
        heavy = [name for name, term in terms.items() if term > OUTWEIGHS * task]
        if heavy and trainer.is_global_zero:
            values = ", ".join(f"{name} = {term:.3g}" for name, term in terms.items())
            warnings.warn(
                f"{' and '.join(heavy)} outweighs the task loss more than {OUTWEIGHS} times at the first step "
                f"({values}): lower its weight, or normalize the teacher's features.",
                stacklevel=1,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first = dict(state_dict["first"])


def distill(
    student: nn.Module,
    teacher: nn.Module,
    loaders: Loaders,
    options: TrainOptions | None = None,
    *,
    folder: str | Path | RunFolder,
    method: MethodLike = "bsd",
    settings: Mapping[str, Any] | None = None,
    taps: Mapping[str, str] | None = None,
    given: TeacherInput | None = None,
    cache: TargetCache | None = None,
    resume: bool = False,
    encode: Callable[[Tensor], Tensor] | None = None,
    reset: Callable[[nn.Module], object] | None = None,
    watching: Sequence[L.Callback] = (),
) -> Distilled:
    """Train a student with labels and a teacher.

    The folder receives the files of `fit`, and `adapters.safetensors`, the method's parameters. The student itself has
    no more parameters than before, and its hooks are removed.

    Args:
        student: any module that returns [N, classes], or [T, N, classes] with `options.steps`. It is changed in place.
        teacher: any trained module that returns [N, classes], or [T, N, classes] with `given.steps`.
        loaders: training and validation batches, as for `fit`. There may be more frames of events than `options.steps`,
            if their number is divisible by it. Neighbouring frames are added.
        options: how to train.
        folder: the folder of the run, as for `fit`.
        method: a name of `transpike.distill.METHODS`, or a function that creates a module from the stages; see there.
        settings: further arguments of the method.
        taps: the student's modules whose features are compared, and the corresponding modules of the teacher. By
            default those of `default_taps`, paired by `match_taps`.
        given: turns the student's images into the teacher's input. By default they stay unchanged.
        cache: caches the teacher's outputs by image content. It helps only if images repeat without augmentation.
        resume: continue from the folder's `last.ckpt`.
        encode: as in `fit`.
        reset: as in `fit`.
        watching: as in `fit`.

    Raises:
        ModelError: Taps do not exist or have no spatial axes, the networks have different classes, or one cannot take
            the images.
        ConfigError: The method is unknown, or does not have a setting.
        DataError: A batch of a loader has too few images for the method.
        TranspikeError: As for `fit`.
    """
    options, given = options or TrainOptions(), given or TeacherInput()
    probe = Distiller(
        student, Teacher(teacher, taps={}, given=given), nn.Module(), taps={}, options=options, encode=encode,
        reset=reset,
    )  # fmt: skip
    found = _survey(probe, loaders, taps if "features" in method_needs(method) else {})
    compare = create_method(method, found.stages, settings or {}, classes=found.classes)
    if isinstance(compare, Method) and "head" in compare.needs:
        compare.see_head(head_weight(teacher, found.classes))  # type: ignore[operator]
    if isinstance(compare, Method):
        compare.check_batch(_smallest_batch(loaders.train, first=found.batch))
    distiller = Distiller(
        student,
        Teacher(teacher, taps=found.teacher_taps, given=given, cache=cache),
        compare,
        taps=found.student_taps,
        options=options,
        encode=encode,
        reset=reset,
    )
    if isinstance(folder, RunFolder):
        return _fit(distiller, loaders, found.stages, folder=folder.folder, resume=resume, watching=watching)
    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    record = {"method": name, "settings": settings or {}, "taps": taps}
    with python_run("distill", student, loaders, options, folder=Path(folder), resume=resume, more=record) as run:
        fitted = _fit(distiller, loaders, found.stages, folder=run.folder, resume=resume, watching=watching)
        learned = fitted.record(teacher=network_name(teacher), method=name, settings=settings or {})
        leave(run, fitted, tested(distiller, loaders), loaders=loaders, classifier=distiller, distillation=learned)
    return fitted


def _fit(
    distiller: Distiller,
    loaders: Loaders,
    stages: tuple[Stage, ...],
    *,
    folder: Path,
    resume: bool,
    watching: Sequence[L.Callback],
) -> Distilled:
    terms = Terms()
    try:
        fitted = fit_module(distiller, loaders, folder=folder, resume=resume, watching=[terms, *watching])
    finally:
        distiller.recorded.close()
    _save_adapters(distiller.method, folder)
    return Distilled(**vars(fitted), method=distiller.method.eval(), stages=stages, first_terms=terms.first)


@dataclass(frozen=True)
class _Survey:
    """The result of running both networks on two images: taps by name, their pairs, classes, and images in a batch."""

    student_taps: dict[str, Tap]
    teacher_taps: dict[str, Tap]
    stages: tuple[Stage, ...]
    classes: int
    batch: int


def _smallest_batch(loader: Iterable[object], *, first: int) -> int:
    """Return the size of the smallest batch, as far as the first one and a `DataLoader` show it."""
    if not isinstance(loader, DataLoader) or loader.drop_last or loader.batch_size is None:
        return first
    if not isinstance(loader.sampler, Sized):
        return first
    return min(first, len(loader.sampler) % loader.batch_size or first)


def _survey(probe: Distiller, loaders: Loaders, taps: Mapping[str, str] | None) -> _Survey:
    """Run both networks on two images: count and compare their classes, and find taps and their layouts."""
    check_loader("train", loaders.train, counted=True)
    batch, _ = probe.read(next(iter(loaders.train)))
    timed = probe._samples(batch)
    images = batch[:, :2] if timed else batch[:2]
    samples, side = len(images) if images.ndim == 4 else images.shape[1], (images.shape[-2], images.shape[-1])
    student, teacher, given = probe.model, probe.teacher.model, probe.teacher.given
    device = next((parameter.device for parameter in student.parameters()), torch.device("cpu"))
    images = images.to(device)
    probe.teacher.to(device)
    shown = given(images)
    said: dict[str, Tensor] = {}

    def run_student() -> None:
        with _accepting("student", student, images):
            said["student"] = probe.outputs(images)

    def run_teacher() -> None:
        reset_net(teacher)
        with _accepting("teacher", teacher, shown):
            said["teacher"] = teacher(shown)

    own = list(taps) if taps is not None else default_taps(student)
    other = list(taps.values()) if taps is not None else default_taps(teacher)
    steps = probe.options.steps
    try:
        found = find_taps(student, own, run_student, samples=samples, image=side, steps=steps)
        theirs = find_taps(
            teacher, other, run_teacher, samples=samples, image=(shown.shape[-2], shown.shape[-1]), steps=given.steps
        )
    finally:
        probe.reset(student)
        reset_net(teacher)
    classes = {name: output.shape[-1] for name, output in said.items()}
    if classes["student"] != classes["teacher"]:
        raise ModelError(
            f"the student gives {classes['student']} classes and the teacher {classes['teacher']}: "
            "tune the teacher's head to the student's data first (transpike train --weights ...)."
        )
    pairs = list(taps.items()) if taps is not None else match_taps(found, theirs)
    stages = pair_taps(found, theirs, pairs)
    learning = {stage.student: found[stage.student] for stage in stages}
    teaching = {stage.teacher: theirs[stage.teacher] for stage in stages}
    return _Survey(learning, teaching, stages, classes["student"], batch.shape[1 if timed else 0])


@contextmanager
def _accepting(role: str, model: nn.Module, given: Tensor) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"the {role}, {type(model).__name__}, cannot take a batch of shape {list(given.shape)} ({reason}): give "
            "images of the size and channels that it was made for."
        ) from error


def _save_adapters(method: nn.Module, folder: Path) -> None:
    if state := method.state_dict():
        files.write(folder / "adapters.safetensors", files.tensors(state, ADAPTERS), kind=ADAPTERS)
