"""Losses of classification over time, and the readout that turns a spiking network's outputs into logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["readout", "temporal_efficient_loss"]


def readout(outputs: Tensor) -> Tensor:
    """Return logits [N, classes] in float32: a network's output itself, or the mean over time of [T, N, classes].

    Example:
        >>> readout(torch.tensor([[[1.0, 0.0]], [[3.0, 2.0]]]))
        tensor([[2., 1.]])
    """
    outputs = outputs.float()
    return outputs.mean(0) if outputs.ndim == 3 else outputs


def temporal_efficient_loss(
    outputs: Tensor, target: Tensor, *, label_smoothing: float = 0.0, lamb: float = 0.05, phi: float = 1.0
) -> dict[str, Tensor]:
    """Temporal efficient training: cross-entropy of every time step, and a regulariser that pulls outputs to `phi`.

    L = (1 - lamb) * mean_t CE(outputs[t], target) + lamb * mean_t MSE(outputs[t], phi)

    Args:
        outputs: [T, N, classes].
        target: class indices [N] or probabilities [N, classes].
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        lamb: the share of the regulariser.
        phi: the goal of the regulariser. In the paper it is the firing threshold.

    Returns:
        The two weighted terms, `cross_entropy` and `regulariser`; their sum is the loss.

    Source: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting",
    ICLR 2022, equations 9, 14 and 15.

    Example:
        >>> terms = temporal_efficient_loss(torch.ones(2, 1, 4), torch.tensor([0]), lamb=0.5)
        >>> round(terms["cross_entropy"].item(), 4), terms["regulariser"].item()
        (0.6931, 0.0)
    """
    outputs = outputs.float()
    # Shape [N, classes, T] and a target repeated over T would give the same mean. Flattening suits both target kinds.
    every = target.repeat(len(outputs), *[1] * (target.ndim - 1))
    cross_entropy = F.cross_entropy(outputs.flatten(0, 1), every, label_smoothing=label_smoothing)
    regulariser = F.mse_loss(outputs, torch.full_like(outputs, phi))
    return {"cross_entropy": (1 - lamb) * cross_entropy, "regulariser": lamb * regulariser}
