"""CKDSNN by NumPy, after its public code; the teacher's last layer from the trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from transpike.distill.ckdsnn import CKDSNNDistillation, noisy_distillation
from transpike.distill.taps import Stage
from transpike.errors import ModelError
from transpike.train.teacher import head_weight

from .batches import CLASSES, SAMPLES, STEPS, batch, noise

STAGES = (Stage("low", "a", 4, 6, (8, 8), (4, 4)), Stage("high", "b", 8, 6, (4, 4), (4, 4)))


def by_numpy(maps: np.ndarray) -> np.ndarray:
    maps = maps - maps.min()
    maps = maps / (maps.max() + 1e-3)
    return softmax((maps / 2).reshape(len(maps), -1), -1) + 1e-10


def test_activity_of_spikes_against_the_class_activation() -> None:
    student, teacher, own, other, _ = batch(STAGES)
    method = CKDSNNDistillation(STAGES, beta=3.0, noise=0.0)
    head = noise(CLASSES, 6, seed=9)
    method.see_head(head)
    spikes = own["high"].double().numpy().sum((0, 2))  # over time and channels, as in the public code
    cams = np.stack(
        [
            sum(head[k, c].item() * other["b"][n, c].double().numpy() for c in range(6))
            for n, k in enumerate(teacher.argmax(-1).tolist())
        ]
    )
    terms = method(student, teacher, own, other)
    for activity, tolerance in ((spikes / STEPS, 1e-4), (spikes, 2e-3)):
        p, q = by_numpy(activity), by_numpy(np.maximum(cams, 0))
        expected = 3 * rel_entr(q, p).sum() / SAMPLES
        assert terms["activity"].item() == pytest.approx(expected, rel=tolerance)
    assert not method.state_dict()


def test_noise_mixes_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = noise(2, SAMPLES, CLASSES).double(), noise(SAMPLES, CLASSES, seed=1).double()
    drawn = noise(SAMPLES, CLASSES, seed=2).double()
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    z = student.mean(0).numpy()
    noisy = z.mean(-1, keepdims=True) + drawn.numpy() * z.std(-1, ddof=1, keepdims=True) ** 2
    mixed = 0.7 * softmax(z / 2, -1) + 0.3 * softmax(noisy / 2, -1)
    expected = 4 * rel_entr(softmax(teacher.numpy() / 2, -1), mixed).sum() / SAMPLES
    assert noisy_distillation(student, teacher, noise=0.3).item() == pytest.approx(expected, rel=1e-6)


def test_the_last_layer_of_a_teacher() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    method = CKDSNNDistillation(STAGES)
    method.see_head(head_weight(net, CLASSES))
    assert method.head is not None and torch.equal(method.head, net[3].weight)
    for weight, told in ((head_weight(net, 7), "none was found"), (torch.zeros(CLASSES, 5), "the last one takes 5")):
        with pytest.raises(ModelError, match=told):
            method.see_head(weight)
