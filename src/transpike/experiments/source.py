"""Loads what a user names: images, and a network by the folder of its run, or by a name with weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lcm
from pathlib import Path

import torch
from torch import nn

from transpike.coding import read_encoder
from transpike.data import EventSets, ImageSets, Loading, load_events, load_images
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.measure.subjects import Subject
from transpike.models import (
    check_beside,
    check_name,
    create_model,
    describe_images,
    is_network_file,
    is_run,
    read_description,
    read_network,
)
from transpike.models.programs import Program
from transpike.models.zoo import NETWORKS
from transpike.train.options import Arguments
from transpike.train.recorded import read_options, recorded_loading
from transpike.train.runs import STEPS
from transpike.train.teacher import input_of

__all__ = ["Data", "Sets", "Source", "load_data", "load_model", "load_subject", "recorded_teacher"]

Sets = ImageSets | EventSets


@dataclass(frozen=True)
class Data:
    """Images, or recordings of events.

    Attributes:
        name: the name of the set. By default that of the network's run.
        root: the folder of its files. By default that of the network's run.
        download: whether to download it into root if it is missing.
        loading: splits and batches. By default those of the network's run.
        split_by: how recordings are split into frames.
    """

    name: str | None
    root: Path | None = None
    download: bool = False
    loading: Loading | None = None
    split_by: str = "number"

    def load(self, frames: int | None) -> Sets:
        """Load the images, or recordings of events with this number of frames.

        Raises:
            TranspikeError: As for `load_images` and `load_events`.
        """
        name, root, loading = self.name or "", self.root or Path("data"), self.loading or Loading()
        if name in EVENT_SOURCES:
            return load_events(name, steps=frames or STEPS, split_by=self.split_by, root=root, loading=loading)
        return load_images(name, root=root, download=self.download, loading=loading)


@dataclass(frozen=True)
class Source:
    """The source of a network, before it is created.

    Attributes:
        name: the folder of a run, a network's name (which has priority over a folder of that name), or a network's
            file: ONNX, or a program of torch.export.
        weights: a weight file or a run's folder. A network by name needs it.
        network: the network's other arguments.
        steps: T. By default the run's.
        size: side of its images in pixels. By default the run's, or timm's.
        whole: for a file, whether the whole network is needed.
    """

    name: str
    weights: Path | None = None
    network: Arguments = field(default_factory=dict)
    steps: int | None = None
    size: int | None = None
    whole: bool = True

    def checked(self, option: str, purpose: str) -> Source:
        """Return the source unchanged, if it has weights.

        Raises:
            ModelError: As for `check_beside`; or a named network has no weights. The message names the option for them
                and their purpose.
        """
        check_beside(self.network)
        if self.file is not None:
            if self.weights is not None or self.network:
                raise ConfigError(
                    f"{self.name}: a file of a network holds its weights; leave {option} and --network out"
                )
            return self
        if self.weights is None and not is_run(self.name):
            check_name(self.name)
            folder = f" For the folder of this name, give ./{self.name}." if os.path.isdir(self.name) else ""
            raise ModelError(
                f"{self.name}: give {option}, a file or the folder of a `transpike train` run; an untrained network "
                f"has nothing to {purpose}. To train one: transpike train.{folder}"
            )
        return self

    @cached_property
    def file(self) -> Program | None:
        """The network in the file that ``name`` leads to, or None."""
        named = self.name not in NETWORKS and not os.path.isdir(self.name) and is_network_file(self.name)
        return read_network(self.name, whole=self.whole) if named else None

    @property
    def run(self) -> Path | None:
        """The folder of the run that trained it, if there is one."""
        if is_run(self.name):
            return Path(self.name)
        return self.weights if self.weights and os.path.isfile(self.weights / "model.json") else None

    @property
    def described(self) -> Arguments:
        """The content of its run's model.json. Empty if there is none."""
        return read_description(self.run) if self.run else {}

    @property
    def recorded(self) -> Arguments:
        """The options of its run. If a stage of a run has its own folder, these are those of the whole run."""
        return (read_options(self.run) or read_options(self.run.parent)) if self.run else {}

    @property
    def root(self) -> Path:
        """The folder in which its run found the data set's files."""
        return Path(self.recorded.get("root", "data"))

    @property
    def model(self) -> str:
        """The network's name, also if ``name`` is a run's folder."""
        return str(read_description(self.name)["name"]) if is_run(self.name) else self.name

    @property
    def time(self) -> int | None:
        """T, or None for a network without time."""
        recorded: int | None = self.described.get("steps")
        return self.steps or recorded

    @property
    def known(self) -> Arguments:
        """The known facts about its images, from its run or from timm."""
        return self.described or self._images

    @property
    def _images(self) -> Arguments:
        """The facts of timm, or of its file, about its images."""
        if self.file is None:
            own = self.network.get("img_size")  # a size other than timm's, with which timm did not train
            return describe_images(self.name) if own is None else {"image_size": own}
        size = self.file.sizes[-1] if len(self.file.sizes) == 3 else None
        return {} if size is None else {"image_size": size}

    def prepare(self, loading: Loading, data: str) -> Loading:
        """Return ``loading`` with its open values taken from the network, if these are the images of its run."""
        facts = self.described if self.described.get("data") == data else self._images
        chosen: Arguments = {name: facts.get(name) and tuple(facts[name]) for name in ("mean", "std")}
        chosen |= {name: facts.get(name) for name in ("crop", "interpolation")}
        # An encoder may have enlarged the images.
        chosen |= {
            "size": None if facts.get("encoder") else facts.get("image_size"),
            "outputs": facts.get("num_classes"),
        }
        return replace(loading, **{name: fact for name, fact in chosen.items() if getattr(loading, name) is None})


def load_data(sources: Sequence[Source], data: Data, *, own_teacher: Source | None = None) -> Sets:
    """Load the data of the first network's training, or ``data``, prepared as for that network.

    For events, load as many frames as needed to merge every network's frames from them.

    Raises:
        TranspikeError: The networks were trained on different data, or the data cannot be read. A student's own
            teacher, ``own_teacher``, may have other data.
    """
    first = sources[0]
    described, recorded = first.described, first.recorded
    name = data.name or described.get("data")
    if name is None:
        raise ConfigError(f"{first.name}: give --data, the images; no run says on which it was trained.")
    for other in sources:
        theirs = other.described.get("data", name)
        if data.name is None and theirs != name and other != own_teacher:
            raise DataError(
                f"{first.name} was trained on {name} and {other.name} on {theirs}: compare networks of the same data, "
                "or give --data, whose classes both must know."
            )
    own = recorded if described.get("data") == name else {}
    loading = data.loading or recorded_loading(own, first.name)
    chosen = Data(
        name,
        data.root or first.root,
        data.download,
        loading if name in EVENT_SOURCES else first.prepare(loading, name),
        described.get("split_by") or "number",
    )
    return chosen.load(lcm(*(source.time or 1 for source in sources)))


def load_model(source: Source, sets: Sets) -> nn.Module:
    """Create a network for images.

    Raises:
        DataError: It takes images with another number of channels, or has another number of classes.
        ModelError: The network or its weights are not available.
    """
    if source.file is not None:
        return _of_file(source, source.file, sets)
    described = source.described
    outputs = sets.loading.outputs or described.get("num_classes", sets.classes)
    channels = described.get("in_channels", sets.channels)
    if channels != sets.channels:
        raise DataError(
            f"{source.name} takes images of {channels} channels; those of {sets.name} have {sets.channels}."
        )
    if outputs < sets.classes:
        raise DataError(f"{source.name} distinguishes {outputs} classes, and {sets.name} has {sets.classes}.")
    own = None if described.get("encoder") else source.size
    shape = {"in_channels": channels, "image_size": own or described.get("image_size", sets.size)}
    return create_model(source.name, num_classes=outputs, **shape, weights=source.weights, **source.network)


def _of_file(source: Source, program: Program, sets: Sets) -> nn.Module:
    """Return the network of a file, if it takes the data's images and has their classes."""
    name = source.name
    if len(program.sizes) != 3 or program.sizes[0] not in (None, sets.channels):
        raise DataError(f"{name} takes samples of shape {list(program.sizes)}; those of {sets.name} are images of "
                        f"{sets.channels} channels.")  # fmt: skip
    if not source.whole:
        return program
    with torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(program(torch.zeros(1, sets.channels, sets.size, sets.size)))[0]
    if outputs[0].numel() < sets.classes:
        raise DataError(f"{name} distinguishes {outputs[0].numel()} classes, and {sets.name} has {sets.classes}.")
    return program


def load_subject(source: Source, sets: Sets, *, label: str, device: str) -> Subject:
    """Create a network, and find out how it takes the data's images."""
    model, known = load_model(source, sets).to(device), source.known
    encoder = read_encoder(known, steps=source.time).to(device) if known.get("encoder") else None
    try:
        inputs = input_of(known, sets, size=source.size, steps=source.time, encoder=encoder)
    except ConfigError as error:
        raise ConfigError(f"{source.name} {error}") from error
    return Subject(label, source.name, source.model, model.eval().requires_grad_(False), inputs)


def recorded_teacher(folder: str) -> Source | None:
    """Return the teacher of a run of `transpike distill`.

    Raises:
        ModelError: It is no longer in its place.
    """
    options = read_options(Path(folder))
    if options.get("teacher") is None:
        return None
    weights, network, steps, size = (options.get(f"teacher_{name}") for name in ("weights", "network", "steps", "size"))
    teacher = Source(options["teacher"], Path(weights) if weights else None, network or {}, steps, size)
    try:
        return teacher.checked("its weights", "teach")
    except TranspikeError as error:
        raise ModelError(f"{folder}: its teacher is not available ({error}) Give --teacher.") from error
