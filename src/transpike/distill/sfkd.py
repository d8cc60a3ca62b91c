"""SFKD: features of unlike architectures, refined by wavelet sub-bands and compared at low frequencies.

Source: Wang, Wang, "SFKD: Spatial-Frequency Joint-Aware Heterogeneous Knowledge Distillation via Multi-Level Wavelet
Spectral Interaction", 2026. Only its abstract and summaries are public: they name the parts, wavelets, DS2S and the
Gaussian-filtered frequency loss. Levels, basis, sigma, weights and what is inside the parts are our reading, and each
is a setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.checks import choice, whole
from transpike.distill.adapter import Adapter, Pairs, on_grid
from transpike.distill.feature_method import FeatureMethod
from transpike.distill.logits import knowledge_distillation
from transpike.distill.map_losses import (
    Loss,
    band_loss,
    focal_frequency_loss,
    gaussian_frequency_loss,
    gaussian_response,
    info_nce,
    pooled_info_nce,
)
from transpike.distill.method import NONE, Features
from transpike.distill.refinement import WaveletRefinement, check_refinement
from transpike.distill.taps import Stage
from transpike.errors import ConfigError
from transpike.spectral.fourier import full_precision

__all__ = [
    "SFKDDistillation",
    "SpatialFrequencyDistillation",
    "powers_of_two",
    "standardize",
]

Refine: TypeAlias = Literal["student", "projector", "both", "anchored", "none"]


def standardize(maps: Tensor) -> Tensor:
    """Maps [N, C, H, W] with mean 0 and variance 1 in every channel, over images and places; about 0 in constant ones.

    >>> standardize(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)).flatten()
    tensor([-1.,  1.])
    """
    maps = full_precision(maps)
    mean = maps.mean((0, 2, 3), keepdim=True)
    centred = maps - mean
    spread: Tensor = centred.square().mean((0, 2, 3), keepdim=True).sqrt()
    return centred / spread.clamp(min=1e-6 + 1e-5 * mean.abs())  # below it there is rounding alone


class SpatialFrequencyDistillation(nn.Module):
    """Distance of a student's refined maps from the teacher's, on a common grid.

    Mean over time, larger maps pooled to the grid, 1x1 convolution to the teacher's channels, refinement, loss. Only
    needed in training.

    Args:
        student_channels: channels of the student's maps.
        teacher_channels: channels of the teacher's maps.
        size: (H, W) of the grid; neither map may be smaller.
        refine: makes maps of maps [N, C', H, W], such as a `WaveletRefinement`; None compares them as they are.
        loss: of two maps [N, C', H, W], a scalar.
        refine_teacher: let the same refinement, without its gradient, act on the teacher's maps too.
        anchor: a refinement of the teacher's maps of its own, which `anchoring` trains; the loss sees its result as a
            constant.
        classes: answers of the anchor's head; 0 without one.
        normalize: `standardize` the teacher's maps, so that the loss depends neither on the teacher's scale nor on the
            few channels that are largest in a transformer.

    Shapes: student [T, N, C, H, W] or [N, C, H, W], teacher [N, C', H', W'] -> a scalar.

    Raises:
        DataError: on call, for maps that do not fit.

    >>> refine = WaveletRefinement(6, size=(4, 4))
    >>> distance = SpatialFrequencyDistillation(3, 6, size=(4, 4), refine=refine)
    >>> student, teacher = distance.pair(torch.rand(2, 5, 3, 8, 8), torch.rand(5, 6, 7, 7))
    >>> student.shape, teacher.shape
    (torch.Size([5, 6, 4, 4]), torch.Size([5, 6, 4, 4]))
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        size: tuple[int, int],
        refine: nn.Module | None = None,
        loss: Loss = gaussian_frequency_loss,
        refine_teacher: bool = False,
        anchor: nn.Module | None = None,
        classes: int = 0,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.anchor = anchor
        self.head = nn.Linear(teacher_channels, classes) if anchor is not None else None
        self.adapter = Adapter(student_channels, teacher_channels)
        self.refine = nn.Identity() if refine is None else refine
        self.size, self.loss = size, loss
        self.refine_teacher, self.normalize = refine_teacher, normalize

    def pair(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss compares: both maps as [N, C', H, W]."""
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = self.adapter(student, teacher, size=self.size)
            if self.normalize:
                teacher = standardize(teacher)
            own = self.refine if self.refine_teacher else self.anchor
            if own is not None:
                with torch.no_grad():
                    teacher = own(teacher)
            return self.refine(student), teacher

    def anchoring(self, teacher_features: Tensor, teacher_logits: Tensor) -> Tensor:
        """What keeps the anchor's maps the teacher's: KD of a head of their means over space, a scalar.

        No gradient of it reaches the student.
        """
        assert self.anchor is not None and self.head is not None
        with torch.autocast(teacher_features.device.type, enabled=False):
            maps = on_grid(full_precision(teacher_features), self.size)
            refined = self.anchor(standardize(maps) if self.normalize else maps)
            logits = self.head(refined.mean((-2, -1)))[:, : teacher_logits.shape[-1]]
            return knowledge_distillation(logits, teacher_logits, temperature=1.0)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        with torch.autocast(student_features.device.type, enabled=False):
            return self.loss(*self.pair(student_features, teacher_features))

    def extra_repr(self) -> str:
        return f"size={self.size}, refine_teacher={self.refine_teacher}, normalize={self.normalize}"


class SFKDDistillation(FeatureMethod):
    """alpha * KD + beta * GFFL, summed over stages, of maps that DS2S refined: what is added to the task loss.

    Both networks' maps are brought to a grid whose sides are powers of two, the student's taken apart by wavelets,
    refined (`DualStreamRefinement`) and put together again, and compared by `gaussian_frequency_loss`. Our reading: the
    teacher's maps are the target as they are. Were they, too, refined by what the loss trains (`refine="both"`), the
    loss could fall by the refinement making both alike.

    Other readings of the public text are settings: `bands=True` compares each refined sub-band, each with a Gaussian of
    its own, and no inverse transform; `refine="anchored"` refines both networks' maps, the teacher's by a DS2S of its
    own that learns to keep the teacher's answer; `refine="projector"` has DS2S make the maps, without a shortcut or a
    last norm. Of the last, grids stay powers of two.

    Ablations are settings: `levels=0` for maps that are refined without wavelets, `refine="none"` for no DS2S (and
    then no wavelets, which alone change nothing), `sigma=None` for no Gaussian, `loss`, `wavelet`.

    Args:
        stages: pairs of taps; see `transpike.distill.taps`.
        alpha: weight of logits KD; a term whose weight is 0 is left out.
        beta: weight of the loss of features. With 5, four stages and "gffl", a ResNet-18 begins with gradients of about
            half the size of the cross-entropy's; "infonce" wants less.
        temperature: of logits KD.
        levels: of the wavelet transform.
        wavelet: a discrete wavelet of PyWavelets, by name.
        refine: whose maps DS2S refines: "student", "projector", "both", "anchored" or "none".
        bands: whether the loss is of each sub-band of the maps, averaged, and not of the maps.
        width: channels inside DS2S, a multiple of 8.
        loss: "gffl", "mse", "infonce", "pooled_infonce", "focal_frequency", or a function of two maps [N, C, H, W].
        sigma: of the Gaussian of "gffl", in cycles per pixel of the grid; None, or infinity, for none.
        grid: its largest side; larger maps are pooled to it, which bounds what the attention costs.
        normalize: `standardize` the teacher's maps.
        classes: answers of the anchors' heads, at least as many as there are classes. The trainer gives their number.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "kd" and one by the loss's name,
    "gffl" (of a function: "features"); with anchors "anchor", whose gradient does not reach the student.

    Raises:
        ConfigError: without stages, for settings out of range, and for maps too small for the levels, with the largest
            number that they allow.

    >>> method = SFKDDistillation([Stage("a", "b", 4, 6, (8, 8), (7, 7))])
    >>> logits, teacher = torch.zeros(3, 10), torch.ones(3, 6, 7, 7)
    >>> terms = method(logits, logits, {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": teacher})
    >>> {name: term.item() for name, term in terms.items()}
    {'kd': 0.0, 'gffl': 0.0}
    """

    needs = frozenset({"features", "classes"})
    adapts = (
        "SFKD projects them to the teacher’s channels and refines them in sub-bands (DS2S); it may standardize the "
        "teacher’s channels before it compares."
    )

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.5,
        beta: float = 5.0,
        temperature: float = 2.0,
        levels: int = 2,
        wavelet: str = "haar",
        refine: Refine = "student",
        bands: bool = False,
        width: int = 32,
        loss: str | Loss = "gffl",
        sigma: float | None = 0.25,
        grid: int = 8,
        normalize: bool = True,
        classes: int = 1000,
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        choice("refine", refine, get_args(Refine))
        whole("grid", grid)
        whole("classes", classes)
        check_refinement(levels=levels, wavelet=wavelet, width=width)
        self.term, distance = _loss(loss, sigma)
        if bands:
            distance = partial(band_loss, loss=distance, wavelet=wavelet, levels=levels)
        self.distances = nn.ModuleList()
        for stage in self.stages:
            channels, size = stage.teacher_channels, powers_of_two(stage.size, grid)
            refinement, anchor = None, None
            make = partial(WaveletRefinement, channels, size=size, levels=levels, wavelet=wavelet, width=width)
            if refine != "none" or bands:  # both need maps that can be taken apart
                try:
                    refinement = make(shortcut=refine != "projector")
                except ConfigError as error:
                    raise ConfigError(f"{stage.student!r} and {stage.teacher!r}: {error}") from None
            if refine == "anchored":
                anchor = make()
            self.distances.append(
                SpatialFrequencyDistillation(
                    stage.student_channels,
                    channels,
                    size=size,
                    refine=None if refine == "none" else refinement,
                    loss=distance,
                    refine_teacher=refine == "both",
                    anchor=anchor,
                    classes=classes,
                    normalize=normalize,
                )
            )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features = NONE,
        teacher_features: Features = NONE,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        terms = super().forward(student_logits, teacher_logits, student_features, teacher_features, target)
        anchored = [
            distance.anchoring(teacher_features[stage.teacher], teacher_logits)  # type: ignore[operator]
            for distance, stage in zip(self.distances, self.stages, strict=True)
            if distance.anchor is not None
        ]
        return terms | ({"anchor": torch.stack(anchored).sum()} if anchored else {})

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """What is compared at each stage: the student's refined maps and the teacher's, both [N, C', H, W]."""
        return {
            stage: distance.pair(student[stage.student], teacher[stage.teacher])  # type: ignore[operator]
            for distance, stage in zip(self.distances, self.stages, strict=True)
        }

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        distances = [
            distance(student[stage.student], teacher[stage.teacher])
            for distance, stage in zip(self.distances, self.stages, strict=True)
        ]
        return {self.term: self.weights["beta"] * torch.stack(distances).sum()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, loss={self.term!r}"


def _loss(loss: str | Loss, sigma: float | None) -> tuple[str, Loss]:
    sigma = math.inf if sigma is None else sigma
    gaussian_response(1, sigma=sigma)  # refuses
    if callable(loss):
        return "features", loss
    known: dict[str, Loss] = {
        "gffl": partial(gaussian_frequency_loss, sigma=sigma),
        "mse": F.mse_loss,
        "infonce": info_nce,
        "pooled_infonce": pooled_info_nce,
        "focal_frequency": focal_frequency_loss,
    }
    if loss not in known:
        raise ConfigError(f"loss={loss!r}: expected one of {', '.join(known)}, or a function of two maps.")
    return loss, known[loss]


def powers_of_two(size: tuple[int, int], largest: int) -> tuple[int, int]:
    """The largest grid of sides that are powers of two, none above `largest`, to which maps of a size can be pooled.

    >>> powers_of_two((7, 28), 16)
    (4, 16)
    """
    height, width = (1 << (min(side, largest).bit_length() - 1) for side in size)
    return height, width
