"""A trained network as a teacher: its input for a student's images, and its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.coding import Encoder
from transpike.data import EventSets, ImageSets
from transpike.distill.adapter import mean_over_time
from transpike.distill.taps import Tap, Taps
from transpike.errors import ConfigError, DataError
from transpike.neurons import reset_net
from transpike.train.losses import readout

__all__ = ["TargetCache", "Teacher", "TeacherInput", "head_weight", "input_of", "merge_frames"]

LOGITS = ""
"""The name of the whole network in `named_modules()`. Its tap is the network's output."""


@dataclass(frozen=True)
class TeacherInput:
    """Turns the student's images into the teacher's input.

    Attributes:
        size: the side of the teacher's images in pixels, to which a batch is resized. None leaves it unchanged.
        scale: a number for each channel: the teacher sees images * scale + offset. None if both have the same
            normalisation.
        offset: a number for each channel.
        steps: T of a spiking teacher. None for an artificial one.
        encode: turns images into the teacher's input. By default they are repeated over time for a spiking teacher.
    """

    size: int | None = None
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    steps: int | None = None
    encode: Callable[[Tensor], Tensor] | None = None

    @staticmethod
    def renormalized(
        given: tuple[Sequence[float], Sequence[float]], wanted: tuple[Sequence[float], Sequence[float]]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return scale and offset from images normalised by one (mean, std) to another.

        Example:
            >>> TeacherInput.renormalized(((0.5,), (0.25,)), ((0.25,), (0.5,)))
            ((0.5,), (0.5,))
        """
        (mean, std), (new_mean, new_std) = given, wanted
        scale = tuple(a / b for a, b in zip(std, new_std, strict=True))
        offset = tuple((a - b) / c for a, b, c in zip(mean, new_mean, new_std, strict=True))
        return scale, offset

    def __call__(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] in the form of the teacher's input, [T, N, C, H, W] if it spikes.

        Frames are merged to the teacher's T.

        Raises:
            DataError: An artificial teacher or an encoder receives frames.
        """
        if images.ndim == 5:
            if self.encode is not None:
                raise DataError("frames [T, N, C, H, W] cannot be encoded: the teacher takes images.")
            if self.steps is None:
                raise DataError("frames [T, N, C, H, W] need a spiking teacher: give its number of steps.")
            return merge_frames(images, self.steps)
        if self.scale is not None and self.offset is not None:
            scale, offset = (images.new_tensor(values).view(-1, 1, 1) for values in (self.scale, self.offset))
            images = images * scale + offset
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        if self.encode is not None:
            return self.encode(images)
        return images if self.steps is None else images.expand(self.steps, *images.shape)


def input_of(
    known: Mapping[str, Any],
    sets: ImageSets | EventSets,
    *,
    size: int | None = None,
    steps: int | None = None,
    encoder: Encoder | None = None,
) -> TeacherInput:
    """Return a network's input for the images of a data set, from the facts about its training images.

    Args:
        known: facts about the network's images: ``mean``, ``std``, ``image_size``; with an encoder also ``steps``,
            which is None for a network that takes the sum of the encoder's output.
        sets: the data set.
        size: the side of its images in pixels, instead of the known one.
        steps: T of a spiking network.
        encoder: the encoder of `transpike.coding` with which the network was trained.

    Raises:
        ConfigError: The encoder lays out images of this size in another way than the network takes them.
    """
    scale = offset = None
    if isinstance(sets, ImageSets) and known.get("mean") and len(known["mean"]) == sets.channels:
        scale, offset = TeacherInput.renormalized((sets.mean, sets.std), (known["mean"], known["std"]))
    if encoder is None:
        return TeacherInput(size or known.get("image_size"), scale, offset, steps)
    side = _side_before(encoder, known["image_size"], size, sets.size)
    return TeacherInput(side, scale, offset, steps, encoder if known["steps"] else encoder.layout)


def _side_before(encoder: Encoder, wanted: int, size: int | None, side: int) -> int:
    """Return the side of images that an encoder lays out as ``wanted``: ``size``, or ``side`` of the data if it can."""
    whole, _ = encoder.input_size((wanted, wanted))
    for one in [side, whole] if size is None else [size]:
        if encoder.output_size((one, one))[0] == wanted:
            return one
    raise ConfigError(
        f"was trained on images that its encoder made from {whole} x {whole} pixels, not from {size} x {size}: "
        "omit the size."
    )


def merge_frames(frames: Tensor, steps: int) -> Tensor:
    """Merge frames of events [F, N, C, H, W] into fewer, [steps, N, C, H, W], by adding neighbours.

    Raises:
        DataError: F is not a multiple of ``steps``.

    Example:
        >>> merge_frames(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1, 1), 2).flatten()
        tensor([3., 7.])
    """
    if len(frames) % steps:
        raise DataError(f"{len(frames)} frames cannot be merged into {steps}: load a multiple of {steps}.")
    return frames if len(frames) == steps else frames.unflatten(0, (steps, -1)).sum(1)


def head_weight(model: nn.Module, classes: int) -> Tensor | None:
    """Return the weights [classes, C] of the last linear layer or 1x1 convolution with so many outputs, or None.

    Example:
        >>> head_weight(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), 2).shape
        torch.Size([2, 3])
    """
    found = None
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classes:
            found = module.weight.flatten(1)
    return found


class TargetCache:
    """Caches the teacher's outputs by image content. It helps only if images repeat without augmentation.

    With little or no random augmentation, the teacher sees each image only once and not in every epoch. Several runs
    may share a cache if they have the same teacher and `TeacherInput`.

    Args:
        mebibytes: the size in main memory. When it is full, nothing new is stored.

    Example:
        >>> cache = TargetCache(mebibytes=1)
        >>> image = torch.ones(1, 2, 2)
        >>> cache.keep(image, {"logits": torch.tensor([1.0, 2.0])})
        >>> cache.find(image, ["logits"])
        {'logits': tensor([1., 2.])}
    """

    def __init__(self, mebibytes: int) -> None:
        self.room = mebibytes * 2**20
        self._known: dict[bytes, dict[str, Tensor]] = {}

    def find(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor] | None:
        """Return the stored outputs of an image, if all the names are stored."""
        said = self._known.get(self._key(image), {})
        return said if all(name in said for name in names) else None

    def keep(self, image: Tensor, said: Mapping[str, Tensor]) -> None:
        """Store the outputs of an image, while there is room."""
        size = sum(value.nbytes for value in said.values())
        if size <= self.room:
            self.room -= size
            self._known.setdefault(self._key(image), {}).update(
                {name: value.cpu().clone() for name, value in said.items()}
            )

    @staticmethod
    def _key(image: Tensor) -> bytes:
        return hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


class Teacher:
    """A trained network that gives targets: in evaluation mode, without gradients, at its own input size.

    It is not a module of the trained network, so no optimiser, checkpoint or average of weights includes it.

    Args:
        model: returns [N, classes], or [T, N, classes].
        taps: the taps of its features, by name. None are needed for methods that use only logits.
        given: turns the student's images into its input.
        cache: caches its outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: Mapping[str, Tap],
        given: TeacherInput = TeacherInput(),
        cache: TargetCache | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.taps = taps
        self.given = given
        self.cache = cache
        self._recorded = Taps(model, list(taps))

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self  # an average of the student's weights has the same teacher

    def to(self, device: torch.device) -> Teacher:
        self.model.to(device)
        if isinstance(self.given.encode, nn.Module):
            self.given.encode.to(device)
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [N, classes] and features {name: [N, C, H, W]} for a batch of the student."""
        said = self._say(images) if self.cache is None else self._remember(images, self.cache)
        return said[LOGITS], {name: said[name] for name in self.taps}

    def _say(self, images: Tensor) -> dict[str, Tensor]:
        self.model.eval()  # a trainer sets every module that it finds to training mode
        reset_net(self.model)
        with torch.no_grad(), self._recorded as recorded:
            said = {LOGITS: readout(self.model(self.given(images)))}
            said |= {name: mean_over_time(tap.maps(recorded[name])) for name, tap in self.taps.items()}
        recorded.clear()
        return said

    def _remember(self, images: Tensor, cache: TargetCache) -> dict[str, Tensor]:
        time_first = images.ndim == 5
        samples = list(images.transpose(0, 1) if time_first else images)
        names = [LOGITS, *self.taps]
        rows = [cache.find(sample, names) for sample in samples]
        if new := [index for index, row in enumerate(rows) if row is None]:
            batch = self._say(images[:, new] if time_first else images[new])
            for place, index in enumerate(new):
                said = rows[index] = {name: value[place] for name, value in batch.items()}
                cache.keep(samples[index], said)
        return {name: torch.stack([row[name].to(images.device) for row in rows if row is not None]) for name in names}
