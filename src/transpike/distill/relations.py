"""Distillation of relations between the images of a batch: RKD, CC and CRD, on features averaged over time and space.

They compare no channel with another, so any pair of networks works. The losses of CC and CRD have gradients for both
sides, because they compare embeddings, and the embedding of the teacher's features is trained too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.checks import whole
from transpike.distill.feature_method import FeatureMethod, stage_maps
from transpike.distill.inputs import check_images, feature_pair
from transpike.distill.method import Features
from transpike.distill.taps import Stage
from transpike.errors import ConfigError
from transpike.spectral.fourier import full_precision

__all__ = [
    "CCDistillation",
    "CRDDistillation",
    "RKDDistillation",
    "consecutive_correlation",
    "contrastive_distance",
    "correlation_congruence",
    "relational_angle",
    "relational_distance",
]


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the distances between images, each network's in units of their mean: a scalar.

    L = 1 / N^2 * sum_ij huber(d_s[ij] - d_t[ij]),  d[ij] = |x_i - x_j| / (mean of all such that are not 0)

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, its distance-wise loss; the mean over all N^2
    pairs as in public code.

    Args:
        student: [N, D].
        teacher: [N, D'].

    Example:
        >>> student = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> relational_distance(10 * student, student[:, :1]).item()
        0.0
        >>> relational_distance(torch.zeros(2, 2), student).item()  # two of four pairs, huber(1) = 1/2 each
        0.25
    """
    student, teacher = feature_pair(student, teacher)
    return F.smooth_l1_loss(_distances(student), _distances(teacher))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the cosines of the angles between three images: a scalar.

    L = 1 / N^3 * sum_ijk huber(c_s[ijk] - c_t[ijk]),  c[ijk] = <e_ij, e_ik>,  e_ij = (x_j - x_i) / |x_j - x_i|

    and e = 0 for equal features. Memory grows as N^3.

    Source: Park et al., CVPR 2019, its angle-wise loss; the mean over all N^3 triples as in public code.

    Args:
        student: [N, D].
        teacher: [N, D'].

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> relational_angle(5 - 2 * corner, corner).item()
        0.0
    """
    student, teacher = feature_pair(student, teacher)
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _distances(x: Tensor) -> Tensor:
    # Without a matrix product, which loses small distances and has no gradient at 0.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, 1)


def _cosines(x: Tensor) -> Tensor:
    edges = x.unsqueeze(0) - x.unsqueeze(1)
    lengths = torch.linalg.vector_norm(edges, dim=-1, keepdim=True)
    # Without a gradient where there is no direction, because a silent student gives equal features.
    edges = edges / torch.where(lengths > 0, lengths, math.inf)
    return edges @ edges.transpose(1, 2)


def correlation_congruence(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Return the mean squared difference of the correlations between images: a scalar.

    L = 1 / N^2 * sum_ij (C(s_i, s_j) - C(t_i, t_j))^2,  C(x, y) = exp(-2 gamma) * sum over p <= order of
    (2 gamma <x, y>)^p / p!

    The vectors have unit length. C is the Taylor expansion of exp(-gamma |x - y|^2).

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019.

    Args:
        student: [N, D].
        teacher: [N, D'].
        gamma: gamma in exp(-gamma |x - y|^2).
        order: the order of the expansion.

    Example:
        >>> student = torch.eye(3)
        >>> correlation_congruence(student, 7 * student).item()
        0.0
    """
    check_images(student, teacher)
    return F.mse_loss(_correlations(student, gamma, order), _correlations(teacher, gamma, order))


def _correlations(x: Tensor, gamma: float, order: int) -> Tensor:
    unit = F.normalize(full_precision(x), dim=1)
    terms = [(2 * gamma * unit @ unit.T) ** p / math.factorial(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(0)


def consecutive_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the product of the errors of neighbours in the batch, summed over features: a scalar.

    L = 1 / (N - 1) * sum_i <delta_i, delta_(i + 1)>,  delta = |s - t|

    Source: the code that the authors of Peng et al., ICCV 2019, gave to Tian et al. ("Contrastive Representation
    Distillation", ICLR 2020). Tian et al. publish it with the numbers that later papers quote as CC. It is not the
    paper's formula, which is `correlation_congruence`.

    Args:
        student: [N, D], N at least 2.
        teacher: [N, D].

    Example:
        >>> consecutive_correlation(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 5.0]])).item()
        4.0
    """
    check_images(student, teacher, least=2)
    errors = (full_precision(student) - full_precision(teacher)).abs()
    return (errors[:-1] * errors[1:]).sum(1).mean()


def contrastive_distance(student: Tensor, teacher: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Return how hard it is to find an image's features among those of the batch, in both directions: a scalar.

    L = CE(S, i) + CE(S^T, i),  S[ij] = <s_i, t_j> / tau,  with unit vectors, averaged over the images i

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020. The paper estimates the same
    mutual information by noise contrastive estimation against 16,384 features from a memory of the whole data set. This
    needs the index of every image, which a method does not receive. So in our reading the negatives are the other
    images of the batch, and the bound is InfoNCE (van den Oord et al., 2018), with which the paper compares itself.
    Larger batches give more negatives. Two random networks of unit features give 2 log N at high temperature. Equal
    features do not give 0.

    Args:
        student: [N, D].
        teacher: [N, D].
        temperature: tau.

    Example:
        >>> round(contrastive_distance(torch.ones(4, 2), torch.ones(4, 2)).item(), 4)  # 2 log 4
        2.7726
        >>> contrastive_distance(torch.eye(4), torch.eye(4)) < 1e-4
        tensor(True)
    """
    check_images(student, teacher)
    units = [F.normalize(full_precision(x), dim=1) for x in (student, teacher)]
    similarity = units[0] @ units[1].T / temperature
    own = torch.arange(len(similarity), device=similarity.device)
    return F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)


class RKDDistillation(FeatureMethod):
    """distance * `relational_distance` + angle * `relational_angle` of pooled features at the last stage.

    Source: Park et al., CVPR 2019; weights as in the comparison of Tian et al., ICLR 2020.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of logits KD.
        distance: weight of the distances between two images.
        angle: weight of the angles between three images.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalars "distance" and "angle".

    Example:
        >>> method = RKDDistillation([Stage("a", "b", 2, 6, (8, 8), (4, 4))])
        >>> logits, teacher = torch.zeros(2, 10), torch.arange(2.0).view(2, 1, 1, 1).expand(2, 6, 4, 4)
        >>> terms = method(logits, logits, {"a": torch.zeros(2, 2, 8, 8)}, {"b": teacher})
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'distance': 6.25, 'angle': 6.25}
    """

    smallest_batch = 2

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.0,
        distance: float = 25.0,
        angle: float = 50.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(stages[-1:], alpha=alpha, temperature=temperature, distance=distance, angle=angle)

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        own, other = _pooled(self.stages[-1], student, teacher)
        losses = {"distance": relational_distance, "angle": relational_angle}
        return {name: weight * loss(own, other) for name, loss in losses.items() if (weight := self.weights[name])}


class _Embedded(FeatureMethod):
    """Base class: embeds the pooled features of the last stage by a linear layer for each network, to one width."""

    smallest_batch = 2

    def __init__(self, stages: Sequence[Stage], *, alpha: float, beta: float, width: int, temperature: float) -> None:
        super().__init__(stages[-1:], alpha=alpha, temperature=temperature, beta=beta)
        whole("width", width)
        self.student = nn.ModuleList(nn.Linear(stage.student_channels, width) for stage in self.stages)
        self.teacher = nn.ModuleList(nn.Linear(stage.teacher_channels, width) for stage in self.stages)

    def embed(self, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
        own, other = _pooled(self.stages[0], student, teacher)
        return self.student[0](own), self.teacher[0](other)


class CCDistillation(_Embedded):
    """beta * the correlation of pooled features at the last stage, embedded by a linear layer for each network.

    Source: Peng et al., ICCV 2019; beta, width and the default form as in the comparison of Tian et al., ICLR 2020. As
    there, the teacher's layer is trained too.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of logits KD.
        beta: weight of the correlation.
        form: "consecutive" for `consecutive_correlation`, whose numbers are quoted as CC; "kernel" for the paper's
            formula, `correlation_congruence`.
        width: the width of the embedding.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "correlation".

    Example:
        >>> method = CCDistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))])
        >>> sum(parameter.numel() for parameter in method.parameters())  # (4 + 1) * 128 + (6 + 1) * 128
        1536
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.0,
        beta: float = 0.02,
        form: Literal["consecutive", "kernel"] = "consecutive",
        width: int = 128,
        temperature: float = 4.0,
    ) -> None:
        if form not in ("consecutive", "kernel"):
            raise ConfigError(f"form={form!r}: expected 'consecutive' or 'kernel'.")
        super().__init__(stages, alpha=alpha, beta=beta, width=width, temperature=temperature)
        self.form = form

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        loss = consecutive_correlation if self.form == "consecutive" else correlation_congruence
        return {"correlation": self.weights["beta"] * loss(*self.embed(student, teacher))}


class CRDDistillation(_Embedded):
    """beta * `contrastive_distance` of pooled features at the last stage, embedded by a linear layer for each network.

    Source: Tian, Krishnan, Isola, ICLR 2020, with its beta, contrast and width. The negatives come from the batch,
    without the paper's memory: see `contrastive_distance`.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of logits KD.
        beta: weight of the contrast.
        contrast: the temperature of the contrast.
        width: the width of the embedding.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "contrast".

    Example:
        >>> method = CRDDistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))])
        >>> logits = torch.zeros(3, 10)
        >>> terms = method(logits, logits, {"a": torch.ones(3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})
        >>> round(terms["contrast"].item(), 4)  # 0.8 * 2 log 3
        1.7578
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.0,
        beta: float = 0.8,
        contrast: float = 0.07,
        width: int = 128,
        temperature: float = 4.0,
    ) -> None:
        if not 0 < contrast < math.inf:
            raise ConfigError(f"contrast={contrast}: expected a number above 0")
        super().__init__(stages, alpha=alpha, beta=beta, width=width, temperature=temperature)
        self.contrast = contrast

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        loss = contrastive_distance(*self.embed(student, teacher), temperature=self.contrast)
        return {"contrast": self.weights["beta"] * loss}


def _pooled(stage: Stage, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
    own, other = stage_maps(stage, student, teacher)
    return own.mean((-2, -1)), other.mean((-2, -1))
