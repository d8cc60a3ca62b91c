"""How similarly networks represent the same images: linear centred kernel alignment, over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transpike.errors import DataError
from transpike.spectral.fourier import full_precision

__all__ = ["LinearCKA", "unbiased_hsic"]


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Estimate the dependence of two representations of the same n images, without bias, from their Gram matrices.

    HSIC_1(K, L) = (tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 / (n - 2) sum(K L)) / (n (n - 3))

    The diagonals of K and L are set to 0. For independent representations it is 0 on average, for any number of images.

    Source: Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, its unbiased estimator.

    Args:
        first: K, [n, n], symmetric.
        second: L, [n, n], symmetric.

    Returns:
        A scalar.

    Raises:
        DataError: There are fewer than four images, or the shapes of the matrices differ.

    Example:
        >>> gram = torch.eye(4) + torch.ones(4, 4)  # a part that all images share does not count
        >>> unbiased_hsic(gram, gram).item()
        0.0
    """
    count = len(first)
    if first.shape != second.shape or first.shape != (count, count) or count < 4:
        raise DataError(
            f"expected two Gram matrices [n, n] of the same n >= 4 images, found {list(first.shape)} and "
            f"{list(second.shape)}."
        )
    first, second = (gram - gram.diagonal().diag() for gram in (first, second))
    trace, rows, other_rows = (first * second).sum(), first.sum(0), second.sum(0)
    whole = rows.sum() * other_rows.sum() / ((count - 1) * (count - 2))
    hsic: Tensor = (trace + whole - 2 / (count - 2) * (rows @ other_rows)) / (count * (count - 3))
    return hsic


class LinearCKA:
    """Linear CKA of every representation of one network with every one of another, over any number of batches.

    CKA(X, Y) = HSIC(X X^T, Y Y^T) / sqrt(HSIC(X X^T, X X^T) HSIC(Y Y^T, Y Y^T))

    It is 1 if representations are equal up to a rotation, a shift and a scale, and about 0 if they are unrelated. A
    representation is one vector for each image. Maps are flattened, and the two networks' sizes and channels may
    differ.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019. Each HSIC is the mean
    of `unbiased_hsic` over batches, as in Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?",
    ICLR 2021. So only one batch is in memory, and the batch size changes the result only by noise. Our reading: batches
    are weighted by their images, and batches of fewer than four images are left out.

    Example:
        >>> points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 4.0], [3.0, 3.0], [5.0, 1.0]])
        >>> alike = LinearCKA()
        >>> alike.update([points], [3 * points.flip(1) + 1, points[:, :1]])
        >>> alike.matrix.round(decimals=3)
        tensor([[1.0000, 0.7280]], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.images = 0
        self._cross = self._own = self._other = torch.zeros(())

    def update(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """Add a batch: each representation of the first network and of the second, [N, *] of any shape."""
        count = len(first[0])
        if count < 4:
            return
        own, other = ([_gram(features) for features in one] for one in (first, second))
        cross = torch.stack([torch.stack([unbiased_hsic(a, b) for b in other]) for a in own])
        self.images += count
        self._cross = self._cross + count * cross
        self._own = self._own + count * torch.stack([unbiased_hsic(a, a) for a in own])
        self._other = self._other + count * torch.stack([unbiased_hsic(b, b) for b in other])

    @property
    def matrix(self) -> Tensor:
        """CKA [representations of the first, representations of the second]; NaN if one never varies.

        Raises:
            DataError: No batch had four images or more.
        """
        if not self.images:
            raise DataError("similarity needs a batch of at least 4 images: use more images.")
        norm = (self._own[:, None] * self._other).clamp(min=0).sqrt()
        return torch.where(norm > 0, self._cross / norm, torch.nan)


def _gram(features: Tensor) -> Tensor:
    # HSIC does not depend on a shift. Without it, float32 keeps more of the variation.
    flat = full_precision(features.detach()).flatten(1)
    flat = flat - flat.mean(0)
    return (flat @ flat.mT).double().cpu()
