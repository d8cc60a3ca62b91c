"""Where a network looks: Grad-CAM, for networks with and without time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transpike.errors import ModelError

__all__ = ["grad_cam"]


def grad_cam(score: Tensor, output: Tensor, *, read: Callable[[Tensor], Tensor] = lambda output: output) -> Tensor:
    """How much each place of a layer's maps speaks for each image's score: maps [N, H, W] of 0 or more.

    L = relu(sum_k alpha_k A_k),  alpha_k = mean over (i, j) of d score / d A_k[i, j]

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV
    2017, Eqs. 1 and 2. Of a spiking network the score is a logit averaged over time, A_k the map averaged over time,
    and the gradient that for a change of the map in all steps alike: its sum over time.

    Args:
        score: [N], each depending on its own image alone, with its graph.
        output: what the layer gave in the same pass.
        read: lays the output (and its gradient) out as maps [N, C, H, W], or [T, N, C, H, W]; by default as it is.

    Raises:
        ModelError: The score does not depend on the output.

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
