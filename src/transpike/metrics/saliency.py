"""The places of an image on which a network relies: Grad-CAM, for networks with and without time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transpike.errors import ModelError

__all__ = ["grad_cam"]


def grad_cam(score: Tensor, output: Tensor, *, read: Callable[[Tensor], Tensor] = lambda output: output) -> Tensor:
    """Return how much each place of a layer's maps supports each image's score: maps [N, H, W] of 0 or more.

    L = relu(sum_k alpha_k A_k),  alpha_k = mean over (i, j) of d score / d A_k[i, j]

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV
        2017, Eqs. 1 and 2. For a spiking network the score is a logit averaged over time, and A_k is the map averaged
        over time. The gradient is for an equal change of the map in all steps, which is the sum over time.

    Args:
        score: [N], with its graph. Each entry depends only on its own image.
        output: the layer's output in the same pass.
        read: brings the output (and its gradient) into maps [N, C, H, W] or [T, N, C, H, W]. By default it stays
            unchanged.

    Raises:
        ModelError: The score does not depend on the output.

    Example:
        >>> maps = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]], requires_grad=True)
        >>> grad_cam(maps.mean((1, 2, 3)), maps)
        tensor([[[0.2500, 0.0000],
                 [0.0000, 0.5000]]])
    """
    try:
        (gradient,) = torch.autograd.grad(score.sum(), output, retain_graph=True)
    except RuntimeError as error:
        raise ModelError(
            f"no gradient reaches the tapped maps ({error}): tap a module that the score passes."
        ) from error
    with torch.no_grad():
        maps, slope = read(output).float(), read(gradient).float()
        if maps.ndim == 5:
            maps, slope = maps.mean(0), slope.sum(0)
        return (slope.mean((-2, -1), keepdim=True) * maps).sum(-3).relu()
