"""The networks of `transpike analyze`: a teacher and students, loaded alike, with their taps, on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from transpike.coding import Encoder, read_encoder
from transpike.data import EventSets, ImageSets, Loading, load_events, load_images
from transpike.data.event_files import EVENT_SOURCES
from transpike.distill import Stage, Tap, create_method, default_taps, find_taps, match_taps, pair_taps
from transpike.distill.adapter import Pairs
from transpike.distill.bsd import SpectralResidualDistillation
from transpike.distill.sfkd import SpatialFrequencyDistillation
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.experiments.inputs import network_name, read_options, timm_config
from transpike.models import check_name, create_model, read_description, read_weights
from transpike.models.mlp import MLP
from transpike.neurons import reset_net
from transpike.train.losses import readout
from transpike.train.teacher import Teacher, TeacherInput

__all__ = ["Source", "Subject", "chosen_loader", "find_stages", "load_data", "load_subject", "recorded_teacher"]


@dataclass(frozen=True)
class Source:
    """Where a network comes from, before it is made.

    Attributes:
        name: the folder of a run, or a network's name.
        weights: a weight file or a run's folder; needed for a network by name.
        network: what else the network takes.
        steps: T; by default the run's.
        size: side of its images in pixels; by default the run's, or timm's.
    """

    name: str
    weights: Path | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.weights is None and not Path(self.name).is_dir():
            check_name(self.name)
            raise ModelError(f"{self.name}: give its weights, a file or a run's folder; untrained it shows nothing.")

    @property
    def run(self) -> Path | None:
        """The folder of the run that trained it, if there is one."""
        return next((Path(place) for place in (self.name, self.weights) if place and Path(place).is_dir()), None)

    @property
    def described(self) -> dict[str, Any]:
        """What its training run says of it; empty if there is none."""
        return read_description(self.run) if self.run else {}

    @property
    def time(self) -> int | None:
        """T, or None for a network without time."""
        recorded: int | None = self.described.get("steps")
        return self.steps or recorded


@dataclass
class Subject:
    """A network that is looked at: how it takes the batches, and where it is tapped.

    Attributes:
        label: its name in tables and figures.
        source: where it comes from.
        model: the network, in evaluation mode.
        given: how it takes the images.
        taps: of its features.
        stages: the students' taps and the teacher's, if there is a teacher.
        method: of its distillation, with what it trained beside the student; None if it trained nothing.
        distilled: what the run says of its distillation.
    """

    label: str
    source: Source
    model: nn.Module
    given: TeacherInput
    taps: dict[str, Tap] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    method: nn.Module | None = None
    distilled: dict[str, Any] = field(default_factory=dict)

    @property
    def adapters(self) -> dict[Stage, SpectralResidualDistillation | SpatialFrequencyDistillation]:
        """By stage, what distillation trained beside the student, if it was SRD or SFKD."""
        found: Any = getattr(self.method, "srd", None) or getattr(self.method, "distances", None) or ()
        return dict(zip(self.stages, found, strict=True)) if len(found) else {}

    def pairs(self, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Pairs:
        """By stage, its maps and the teacher's as its distillation compared them; none if it compared no maps."""
        compare = getattr(self.method, "pairs", None)
        return compare(own, theirs) if compare else {}

    def observer(self) -> Teacher:
        """Called with images, it gives logits [N, classes] and maps {tap: [N, C, H, W]}, means over time."""
        return Teacher(self.model, taps=self.taps, given=self.given)


def load_data(
    sources: Sequence[Source],
    *,
    data: str | None,
    root: Path | None,
    download: bool,
    loading: Loading | None,
    own_teacher: Source | None,
) -> ImageSets | EventSets:
    """The data that the first network was trained on, or `data`, prepared as for that network; of events as many frames
    as all networks' can be merged from.

    Raises:
        TranspikeError: if the networks were trained on different data, or the data cannot be read. A student's own
            teacher, `own_teacher`, may come from elsewhere.
    """
    first = sources[0]
    # The stages of `transpike hybrid` lie in folders of their own within the run's.
    recorded = (read_options(first.run) or read_options(first.run.parent)) if first.run else {}
    described = first.described
    name = data or described.get("data")
    if name is None:
        raise ConfigError(f"{first.name}: give --data, the images to look at.")
    for other in sources:
        theirs = other.described.get("data", name)
        if data is None and theirs != name and other != own_teacher:
            raise DataError(
                f"{first.name} was trained on {name} and {other.name} on {theirs}: compare networks of the same data, "
                "or give --data, whose classes both must know."
            )
    loading = loading or Loading(**(recorded.get("loading", {}) if described.get("data") == name else {}))
    root = root or Path(recorded.get("root", "data"))
    if name in EVENT_SOURCES:
        frames = lcm(*(source.time or 1 for source in sources))
        return load_events(name, steps=frames, split_by=described.get("split_by", "number"), root=root, loading=loading)
    known = described if described.get("data") == name else _timm(first)
    facts: dict[str, Any] = {name: known.get(name) and tuple(known[name]) for name in ("mean", "std")}
    facts["size"] = None if known.get("encoder") else known.get("image_size")
    loading = replace(loading, **{key: fact for key, fact in facts.items() if getattr(loading, key) is None})
    return load_images(name, root=root, download=download, loading=loading)


def load_subject(source: Source, sets: ImageSets | EventSets, *, label: str, device: str) -> Subject:
    """Make a network and tell how it takes the data's images."""
    described = source.described
    encoded = described.get("encoder") is not None
    if (channels := described.get("in_channels", sets.channels)) != sets.channels:
        raise DataError(
            f"{source.name} takes images of {channels} channels; those of {sets.name} have {sets.channels}."
        )
    shape: dict[str, Any] = {
        "num_classes": described.get("num_classes", sets.classes),
        "in_channels": sets.channels,
        "image_size": (None if encoded else source.size) or described.get("image_size", sets.size),
    }
    model = create_model(source.name, **shape, weights=source.weights, **source.network).to(device)
    known = described or _timm(source)
    scale = offset = None
    if isinstance(sets, ImageSets) and known.get("mean") and len(known["mean"]) == sets.channels:
        scale, offset = TeacherInput.renormalized((sets.mean, sets.std), (known["mean"], known["std"]))
    given = TeacherInput(source.size or known.get("image_size"), scale, offset, source.time)
    if encoded:
        encoder = read_encoder(known, steps=source.time).to(device)
        side = _side(source, encoder, sets.size)
        given = replace(given, size=side, encode=encoder if known["steps"] else encoder.layout)
    return Subject(label, source, model.eval().requires_grad_(False), given)


def _side(source: Source, encoder: Encoder, side: int) -> int:
    """Side of the images that an encoder lays out as its network takes them: the data's, if it does so with these.

    Raises:
        ConfigError: if the source's own size is laid out otherwise.
    """
    wanted = source.described["image_size"]
    whole, _ = encoder.input_size((wanted, wanted))
    for one in [side, whole] if source.size is None else [source.size]:
        if encoder.output_size((one, one))[0] == wanted:
            return one
    raise ConfigError(
        f"{source.name} takes what its encoder makes of images of {whole} x {whole}, not of {source.size} x "
        f"{source.size}: leave the size out."
    )


def _timm(source: Source) -> dict[str, Any]:
    return timm_config(source.name.removeprefix("timm/")) if source.name.startswith("timm/") else {}


def recorded_teacher(folder: str) -> Source | None:
    """The teacher of a run of `transpike distill`.

    Raises:
        ModelError: if it is not where it was.
    """
    options = read_options(Path(folder))
    if options.get("teacher") is None:
        return None
    weights = options.get("teacher_weights")
    try:
        return Source(
            options["teacher"], Path(weights) if weights else None, options.get("teacher_network") or {},
            options.get("teacher_steps"), options.get("teacher_size"),
        )  # fmt: skip
    except TranspikeError as error:
        raise ModelError(f"{folder}: its teacher cannot be had ({error}) Give --teacher.") from error


def find_stages(
    student: Subject,
    teacher: Subject | None,
    images: Tensor,
    *,
    taps: Mapping[str, str] | Sequence[str] | None,
) -> None:
    """Find a student's taps, the teacher's beside them and, where the run trained any, its method's adapters.

    Args:
        student: receives taps, stages and its method.
        teacher: receives taps.
        images: two of them.
        taps: the student's modules, each with the teacher's or without; by default those of the run, or the networks'
            stages.

    Raises:
        ModelError: for taps that do not exist or have no spatial axes, and networks of different classes.
    """
    recorded = _distillation(student.source)
    student.distilled = recorded
    own = teacher is None or network_name(teacher.source.name) == recorded.get("teacher")
    known = recorded.get("taps") or _default_taps(student.model)
    pairs = taps or (known if own else list(known))
    student.taps, classes = _find(student, list(pairs), images)
    if teacher is None:
        return
    others = list(pairs.values()) if isinstance(pairs, Mapping) else _default_taps(teacher.model)
    found, their_classes = _find(teacher, others, images)
    if classes != their_classes:
        raise ModelError(
            f"{student.source.name} gives {classes} classes and the teacher, {teacher.source.name}, {their_classes}."
        )
    matched = match_taps(student.taps, found) if found else []  # an MLP has none
    if isinstance(pairs, Mapping):
        matched = list(pairs.items())
    student.stages = pair_taps(student.taps, found, matched)
    teacher.taps |= {stage.teacher: found[stage.teacher] for stage in student.stages}
    if own and recorded.get("taps") == dict(matched):
        student.method = _method(student, recorded)


def _default_taps(model: nn.Module) -> list[str]:
    """The network's stages; none of a fully connected one, which has no maps."""
    return [] if isinstance(model, MLP) else default_taps(model)


def _find(subject: Subject, names: list[str], images: Tensor) -> tuple[dict[str, Tap], int]:
    """Taps, and how many classes the network tells apart."""
    shown, told = subject.given(images), []

    def run() -> None:
        told.append(readout(subject.model(shown)).shape[-1])

    samples, image = shown.shape[int(shown.ndim == 5)], (shown.shape[-2], shown.shape[-1])
    reset_net(subject.model)
    try:
        found = find_taps(subject.model, names, run, samples=samples, image=image, steps=subject.given.steps)
    finally:
        reset_net(subject.model)
    return found, told[0]


def _distillation(source: Source) -> dict[str, Any]:
    try:
        results = json.loads((Path(source.name) / "results.json").read_text())
    except (OSError, ValueError):
        return {}
    found: dict[str, Any] = results.get("distillation") or {}
    return found


def _method(student: Subject, recorded: Mapping[str, Any]) -> nn.Module | None:
    file = Path(student.source.name) / "adapters.safetensors"
    if not file.is_file():
        return None
    method = create_method(recorded["method"], student.stages, recorded.get("settings") or {})
    if not hasattr(method, "pairs"):
        return None
    try:
        method.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise ModelError(f"{file}: does not fit the run's taps and settings ({error}). Distil again.") from error
    device = next(student.model.parameters()).device
    return method.to(device).eval().requires_grad_(False)


def chosen_loader(sets: ImageSets | EventSets, part: str, images: int) -> DataLoader[Any]:
    """A loader of so many of the test or validation images, evenly spaced over the set.

    Raises:
        ConfigError: if the part is empty.
    """
    loader: DataLoader[Any] = getattr(sets, part)
    dataset: Any = loader.dataset
    if len(dataset) == 0:
        raise ConfigError(f"{sets.name} has no {part} images; with --loading.validation 0.1 a part is held back.")
    count = min(images, len(dataset))
    places = torch.linspace(0, len(dataset) - 1, count).round().long().tolist()
    return DataLoader(
        Subset(dataset, places), batch_size=loader.batch_size, collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    )  # fmt: skip
