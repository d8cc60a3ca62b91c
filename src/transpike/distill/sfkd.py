"""SFKD: features of different architectures, refined by wavelet sub-bands and compared at low frequencies.

Source: Wang, Wang, "SFKD: Spatial-Frequency Joint-Aware Heterogeneous Knowledge Distillation via Multi-Level Wavelet
Spectral Interaction", 2026. Only its abstract and summaries are public. They name the parts: wavelets, DS2S and the
Gaussian-filtered frequency loss. Levels, basis, sigma, weights and the contents of the parts are our reading, and each
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
    """Return maps [N, C, H, W] with mean 0 and variance 1 in each channel, over images and places. Constants become ~0.

    Example:
        >>> standardize(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)).flatten()
        tensor([-1.,  1.])
    """
    maps = full_precision(maps)
    mean = maps.mean((0, 2, 3), keepdim=True)
    centred = maps - mean
    spread: Tensor = centred.square().mean((0, 2, 3), keepdim=True).sqrt()
    return centred / spread.clamp(min=1e-6 + 1e-5 * mean.abs())  # a smaller spread is only rounding


class SpatialFrequencyDistillation(nn.Module):
    """The distance of a student's refined maps from the teacher's, on a common grid. Used only in training.

    The steps are: mean over time, pooling of larger maps to the grid, 1x1 convolution to the teacher's channels,
    refinement, loss.

    Args:
        student_channels: channels of the student's maps.
        teacher_channels: channels of the teacher's maps.
        size: (H, W) of the grid; neither map may be smaller.
        refine: computes maps from maps [N, C', H, W], such as a `WaveletRefinement`. None compares them unrefined.
        loss: a function of two maps [N, C', H, W] that returns a scalar.
        refine_teacher: whether to apply the same refinement, without its gradient, to the teacher's maps too.
        anchor: a separate refinement for the teacher's maps, which `anchoring` trains. The loss gives its result no
            gradient.
        classes: the number of logits of the anchor's head. 0 without a head.
        normalize: `standardize` the teacher's maps, so that the loss depends neither on the teacher's scale nor on the
            few channels that are largest in a transformer.

    Shapes: student [T, N, C, H, W] or [N, C, H, W], teacher [N, C', H', W'] -> a scalar.

    Raises:
        DataError: On call: the maps do not fit.

    Example:
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
        """Return the maps that the loss compares, both as [N, C', H, W]."""
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
        """Return the loss that keeps the anchor's maps close to the teacher: KD of a head on their means over space.

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
    """alpha * KD + beta * GFFL, summed over stages, of maps that DS2S refined: SFKD's terms beside the task loss.

    Both networks' maps are brought to a grid whose sides are powers of two. The student's maps are decomposed by
    wavelets, refined (`DualStreamRefinement`) and composed again. Then `gaussian_frequency_loss` compares both. Our
    reading: the target is the teacher's unrefined maps. If the refinement that the loss trains also acted on the
    teacher's maps (`refine="both"`), the loss could fall because the refinement makes both equal.

    Other readings of the public text are settings. `bands=True` compares each refined sub-band, each with its own
    Gaussian, without the inverse transform. `refine="anchored"` refines both networks' maps; the teacher's DS2S is
    separate and learns to keep the teacher's answer. `refine="projector"` computes the maps by DS2S, without a shortcut
    or a last norm. All of them keep grids of powers of two.

    Ablations are settings, too: `levels=0` refines maps without wavelets; `refine="none"` uses no DS2S (and no
    wavelets, which alone change nothing); `sigma=None` uses no Gaussian; `loss` and `wavelet`.

    Args:
        stages: pairs of taps; see `transpike.distill.taps`.
        alpha: weight of logits KD. A term with weight 0 is left out.
        beta: weight of the loss of features. With 5, four stages and "gffl", the first gradients of a ResNet-18 have
            about half the size of the cross-entropy's. "infonce" needs a smaller weight.
        temperature: the temperature of logits KD.
        levels: the levels of the wavelet transform.
        wavelet: a discrete wavelet of PyWavelets, by name.
        refine: which maps DS2S refines: "student", "projector", "both", "anchored" or "none".
        bands: whether to average the loss over the sub-bands of the maps, instead of using the maps.
        width: channels inside DS2S, a multiple of 8.
        loss: "gffl", "mse", "infonce", "pooled_infonce", "focal_frequency", or a function of two maps [N, C, H, W].
        sigma: the width of the Gaussian of "gffl", in cycles per pixel of the grid. None or infinity uses no Gaussian.
        grid: the largest side of the grid. Larger maps are pooled to it, which limits the cost of attention.
        normalize: `standardize` the teacher's maps.
        classes: the number of logits of the anchors' heads, at least the number of classes. The trainer sets it.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "kd" and one by the loss's name,
    "gffl" (of a function: "features"); with anchors "anchor", whose gradient does not reach the student.

    Raises:
        ConfigError: There are no stages, settings are out of range, or maps are too small for the levels. The message
            has the largest possible number of levels.

    Example:
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
            if refine != "none" or bands:  # both need maps that wavelets can decompose
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
        """Return the compared maps of each stage, the student's refined ones and the teacher's, both [N, C', H, W]."""
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
    """Return the largest grid with sides that are powers of two up to `largest`, to which maps can be pooled.

    Example:
        >>> powers_of_two((7, 28), 16)
        (4, 16)
    """
    height, width = (1 << (min(side, largest).bit_length() - 1) for side in size)
    return height, width
