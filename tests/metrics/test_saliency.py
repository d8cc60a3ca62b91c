"""Grad-CAM against closed forms and against a computation by hooks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transpike.errors import ModelError
from transpike.metrics.saliency import grad_cam
from transpike.models.spiking import OverTime
from transpike.neurons import LIFNode


def test_a_linear_head_has_a_closed_form() -> None:
    """Of a linear layer behind global average pooling the slopes are its weights, over the number of places."""
    maps, weight = torch.randn(3, 5, 4, 6, requires_grad=True), torch.randn(7, 5)
    logits = maps.mean((-2, -1)) @ weight.T
    target = torch.tensor([0, 3, 6])
    cam = grad_cam(logits.gather(1, target[:, None]).squeeze(1), maps)
    expected = torch.einsum("nk,nkhw->nhw", weight[target], maps.detach()).relu() / 24
    torch.testing.assert_close(cam, expected)
    assert (cam >= 0).all() and cam.max() > 0


def test_a_single_bright_place_is_found() -> None:
    maps = torch.zeros(1, 2, 5, 5)
    maps[0, 0, 1, 3], maps[0, 1, 4, 0] = 2.0, 3.0
    maps.requires_grad_()
    for_first = grad_cam(maps.mean((-2, -1))[:, 0] - maps.mean((-2, -1))[:, 1], maps)
    assert for_first.nonzero().tolist() == [[0, 1, 3]]
    assert float(for_first[0, 1, 3]) == pytest.approx(2 / 25)


def test_images_do_not_mix() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 1))

    def cam(images: Tensor) -> Tensor:
        maps = net(images)
        return grad_cam(head(maps)[:, 0], maps)

    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(cam(images)[1:2], cam(images[1:2]))


def test_over_time_it_is_the_static_network_if_nothing_spikes() -> None:
    """A network over time without neurons says at each step what it says without time: so does its Grad-CAM."""
    body, head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)
    images = torch.randn(2, 1, 6, 6)
    maps = body(images)
    static = grad_cam(head(maps.mean((-2, -1)))[:, 1], maps)
    over_time = OverTime(body)(images.expand(5, *images.shape))
    logits = head(over_time.mean((-2, -1))).mean(0)
    torch.testing.assert_close(grad_cam(logits[:, 1], over_time), static)


def test_spiking_maps_laid_out_otherwise() -> None:
    """Time within the batch, channels last: read lays output and gradient out alike."""
    body = OverTime(nn.Conv2d(1, 4, 3), LIFNode(step_mode="m"))
    images = torch.rand(3, 2, 1, 6, 6) * 4
    with torch.no_grad():
        body[0].weight.abs_()
    maps = body(images).requires_grad_()
    plain = grad_cam(maps.mean((0, -2, -1)) @ torch.ones(4), maps)
    odd = body(images).flatten(0, 1).movedim(1, -1).requires_grad_()
    cam = grad_cam(
        odd.unflatten(0, (3, 2)).mean((0, 2, 3)) @ torch.ones(4),
        odd,
        read=lambda x: x.unflatten(0, (3, 2)).movedim(-1, 2),
    )
    torch.testing.assert_close(cam, plain)
    torch.testing.assert_close(plain, maps.detach().mean(0).sum(1) / 16)  # one of 16 places, all four channels


def test_maps_off_the_path_are_told() -> None:
    maps = torch.ones(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(ModelError, match="no gradient reaches the tapped maps"):
        grad_cam(torch.ones(1, requires_grad=True) * 2, maps)
