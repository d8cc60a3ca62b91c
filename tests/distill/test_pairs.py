"""What methods say that they compare is what their terms are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.distill import METHODS, Stage, create_method, gaussian_frequency_loss
from transpike.distill.adapter import on_grid
from transpike.distill.features import feature_distance
from transpike.distill.hints import partial_distance

T, N = 2, 4
STAGES = (Stage("low", "a", 3, 5, (8, 8), (4, 4)), Stage("high", "b", 6, 7, (4, 4), (4, 4)))
COMPARED: dict[str, tuple[dict[str, Any], str, Callable[[Tensor, Tensor], Tensor]]] = {
    "bsd": ({"gamma": 0.0, "penalty": 0.0}, "srd", feature_distance),
    "srd": ({"penalty": 0.0, "domain": "spatial", "normalize": True}, "srd", feature_distance),
    "sfkd": ({}, "gffl", gaussian_frequency_loss),
    "kdsnn": ({}, "features", feature_distance),
    "lasnn": ({}, "features", feature_distance),
    "bkdsnn": ({"drop": 0.0}, "features", feature_distance),
    "sakd": ({}, "features", F.mse_loss),
    "fitnet": ({}, "hint", F.mse_loss),
    "ofd": ({}, "partial", partial_distance),
}


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("timed", [True, False])
def test_the_term_is_the_loss_of_the_pairs(name: str, timed: bool) -> None:
    settings, term, loss = COMPARED[name]
    torch.manual_seed(0)
    method: Any = create_method(name, STAGES, {"alpha": 0.0, "beta": 0.5} | settings).eval()
    for parameter in method.parameters():  # away from where it begins, which may be the identity
        parameter.data += 0.3 * torch.randn_like(parameter)
    time = (T,) if timed else ()
    own = {s.student: noise(*time, N, s.student_channels, *s.student_size, seed=1) for s in STAGES}
    theirs = {s.teacher: noise(N, s.teacher_channels, *s.teacher_size, seed=2) for s in STAGES}
    logits, target = torch.zeros(N, 10), torch.arange(N)
    pairs = method.pairs(own, theirs)
    assert list(pairs) == list(STAGES[-1:] if name in ("kdsnn", "bkdsnn") else STAGES)
    assert [maps.shape for pair in pairs.values() for maps in pair] == [
        (N, stage.teacher_channels, *stage.size) for stage in pairs for _ in range(2)
    ]
    weights = [0.5, 1.0] if name == "ofd" else [1.0] * len(pairs)
    expected = 0.5 * sum(weight * loss(*pair) for weight, pair in zip(weights, pairs.values(), strict=True))
    torch.testing.assert_close(method(logits, logits, own, theirs, target)[term], expected)


def test_others_compare_no_pairs_of_maps() -> None:
    assert {name for name in METHODS if hasattr(create_method(name, STAGES, {}), "pairs")} == set(COMPARED)


@pytest.mark.parametrize("side, wanted", [((8, 12), (4, 3)), ((8, 9), (4, 4)), ((7, 5), (7, 5)), ((5, 4), (1, 1))])
def test_on_grid(side: tuple[int, int], wanted: tuple[int, int]) -> None:
    maps = noise(2, 3, *side, seed=0)
    torch.testing.assert_close(on_grid(maps, wanted), F.adaptive_avg_pool2d(maps, wanted))
