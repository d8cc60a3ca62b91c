"""What a user names: a run, a network by its name and weights, a teacher; and the images that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from transpike.coding import Encoder, read_encoder
from transpike.data import EventSets, ImageSets, Loading, load_events, load_images
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.experiments.runs import located
from transpike.models import check_name, create_model, read_description

if TYPE_CHECKING:
    from transpike.measure.subjects import Subject

__all__ = [
    "Source",
    "checked_device",
    "load_data",
    "load_inputs",
    "load_subject",
    "network_name",
    "read_options",
    "recorded_teacher",
    "timm_config",
]


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
    known = described if described.get("data") == name else _timm_facts(first)
    facts: dict[str, Any] = {name: known.get(name) and tuple(known[name]) for name in ("mean", "std")}
    facts["size"] = None if known.get("encoder") else known.get("image_size")
    loading = replace(loading, **{key: fact for key, fact in facts.items() if getattr(loading, key) is None})
    return load_images(name, root=root, download=download, loading=loading)


def load_subject(source: Source, sets: ImageSets | EventSets, *, label: str, device: str) -> Subject:
    """Make a network and tell how it takes the data's images."""
    from transpike.measure.subjects import Subject
    from transpike.train.teacher import TeacherInput

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
    known = described or _timm_facts(source)
    scale = offset = None
    if isinstance(sets, ImageSets) and known.get("mean") and len(known["mean"]) == sets.channels:
        scale, offset = TeacherInput.renormalized((sets.mean, sets.std), (known["mean"], known["std"]))
    given = TeacherInput(source.size or known.get("image_size"), scale, offset, source.time)
    if encoded:
        encoder = read_encoder(known, steps=source.time).to(device)
        side = _side(source, encoder, sets.size)
        given = replace(given, size=side, encode=encoder if known["steps"] else encoder.layout)
    return Subject(label, source.name, network_name(source.name), model.eval().requires_grad_(False), given)


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


def _timm_facts(source: Source) -> dict[str, Any]:
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


def load_inputs(
    model: str,
    *,
    data: str | None,
    root: Path,
    download: bool,
    loading: Loading,
    weights: Path | None = None,
    network: dict[str, Any] | None = None,
) -> tuple[nn.Module, ImageSets]:
    """The network named ``model``, in evaluation mode, and images prepared as it was trained on them.

    ``model`` may be the folder of a `transpike train` run, which knows its data set; timm's networks know their image
    size and normalisation. What ``loading`` says goes first.

    Raises:
        TranspikeError: if the network, its weights or its images cannot be had.
    """
    described: dict[str, Any] = {}
    if Path(model).is_dir():
        described = read_description(model)
        if described.get("encoder"):
            raise ModelError(f"{model}: a network of `transpike hybrid` takes encoded images, as `evaluate` does.")
    elif weights is None:
        check_name(model)
        raise ModelError(
            f"{model}: give --weights, a file or the folder of a `transpike train` run; an untrained network has "
            "nothing to convert. To train one: transpike train"
        )
    elif Path(weights).is_dir() and (Path(weights) / "model.json").exists():
        described = read_description(weights)
    data = data or described.get("data")
    if data is None:
        raise ConfigError(f"{model}: give --data, the images to calibrate and to test with")
    if described.get("data") == data:
        loading = _filled(loading, described)
    elif model.startswith("timm/"):
        loading = _filled(loading, timm_config(model.removeprefix("timm/")))
    sets = load_images(data, root=root, download=download, loading=loading)
    shape = {"num_classes": loading.outputs or sets.classes, "in_channels": sets.channels, "image_size": sets.size}
    ann = create_model(model, **shape, weights=weights, **(network or {}))
    return ann.eval(), sets


def network_name(model: str) -> str:
    """The network's name, also where ``model`` is the folder of a training run."""
    return str(read_description(model)["name"]) if Path(model).is_dir() else model


def _filled(loading: Loading, known: dict[str, Any]) -> Loading:
    """``loading`` with what it leaves open taken from what is known of the network's training."""
    given: dict[str, Any] = {
        "mean": tuple(known["mean"]) if known.get("mean") else None,
        "std": tuple(known["std"]) if known.get("std") else None,
        "size": known.get("image_size"),
        "crop": known.get("crop"),
        "interpolation": known.get("interpolation"),
        "outputs": known.get("num_classes"),
    }
    return replace(loading, **{key: value for key, value in given.items() if getattr(loading, key) is None})


def timm_config(name: str) -> dict[str, Any]:
    """What timm knows of its network's images: normalisation, size, crop, interpolation; empty if nothing."""
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return {}
    known = {"mean": config.mean, "std": config.std, "image_size": config.input_size[-1], "crop": config.crop_pct}
    return known | {"interpolation": config.interpolation}


def checked_device(name: str) -> str:
    """``name``, if something can be computed there.

    Raises:
        ConfigError: if PyTorch knows no such device, or this machine has none.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); use cpu, or cuda on a machine with a GPU"
        ) from error
    return name


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the run in ``folder``; empty if it holds none that can be read."""
    try:
        return located(json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
