"""Prepares the inputs of a loss: fitting shapes, full precision, and no gradient to the teacher."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transpike.distill.adapter import mean_over_time
from transpike.errors import DataError
from transpike.spectral.fourier import full_precision

__all__ = ["check_images", "feature_pair", "labels", "logit_pair", "mean_logit_pair"]


def logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of both networks for a loss.

    The teacher may exclude a class by minus infinity. Such a class gets a finite logit that softmax turns into exactly
    0. The same is done in the student's logits if the student also excludes it. Then the class adds 0 to a loss, not
    NaN.

    Args:
        student: [T, N, classes] or [N, classes].
        teacher: [N, classes].

    Raises:
        DataError: The shapes do not fit, or the batch has no images.

    Example:
        >>> masked = torch.tensor([[0.0, -math.inf]])
        >>> student, teacher = logit_pair(masked, masked)
        >>> bool(student.isfinite().all()), student.softmax(-1)
        (True, tensor([[1., 0.]]))
    """
    _check_logits(student, teacher)
    student, teacher = full_precision(student), full_precision(teacher.detach())
    out = teacher == -math.inf
    return student.masked_fill(out & (student == -math.inf), _low(student)), teacher.masked_fill(out, _low(teacher))


def mean_logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return `logit_pair` of the student's mean over time: both [N, classes].

    Example:
        >>> mean_logit_pair(torch.tensor([[[4.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[2.0, 0.0]]))
        (tensor([[2., 0.]]), tensor([[2., 0.]]))
    """
    _check_logits(student, teacher)
    return logit_pair(mean_over_time(full_precision(student)), teacher)


def feature_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps or vectors of both networks for a loss, [N, *] each.

    Raises:
        DataError: The numbers of images differ, or there are no images.

    Example:
        >>> feature_pair(torch.ones(2, 3), torch.ones(1, 3))
        Traceback (most recent call last):
        ...
        transpike.errors.DataError: features of shapes [2, 3] and [1, 3]: expected as many images of both, 1 or more.
    """
    check_images(student, teacher)
    return full_precision(student), full_precision(teacher.detach())


def check_images(student: Tensor, teacher: Tensor, *, least: int = 1) -> None:
    """Raise an error for features [N, *] with different or too small numbers of images.

    Raises:
        DataError: The numbers differ, or one is below ``least``.
    """
    if not student.ndim or student.shape[:1] != teacher.shape[:1] or len(student) < least:
        raise DataError(
            f"features of shapes {list(student.shape)} and {list(teacher.shape)}: expected as many images of both, "
            f"{least} or more."
        )


def labels(target: Tensor | None) -> Tensor:
    """Return the labels, for a method that needs them.

    Raises:
        DataError: There are no labels.
    """
    if target is None:
        raise DataError("this method compares with the labels: give class indices [N] or probabilities [N, classes].")
    return target


def _check_logits(student: Tensor, teacher: Tensor) -> None:
    if student.ndim not in (2, 3) or student.shape[-2:] != teacher.shape:
        raise DataError(
            f"the student's logits have the shape {list(student.shape)} and the teacher's {list(teacher.shape)}: "
            "expected [T, N, classes] or [N, classes] of the student and [N, classes] of the teacher."
        )
    if 0 in student.shape:
        raise DataError(f"the student's logits have the shape {list(student.shape)}: there is nothing to compare.")


def _low(logits: Tensor) -> float:
    """Return a number far below any logit, for which sums of a few and quotients are still finite."""
    return -math.sqrt(torch.finfo(logits.dtype).max)
