"""The rule for stopping: its threshold is that of conformal risk control, and it keeps its promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transpike.conversion.stopping import SCORES, Said, StopRule, beyond, learned, least_images, other_prediction
from transpike.errors import ConfigError, DataError

T = 5
LEFT = (0.5, 0.25, 0.125, 0.06, 0.0)


def drawn(n: int, *, seed: int) -> Tensor:
    """Outputs [T, n, 3] that come nearer to their last values by half a step, some of them late."""
    g = torch.Generator().manual_seed(seed)
    last = 2 * torch.randn(n, 3, generator=g)
    noise = torch.randn(T, n, 3, generator=g) * torch.tensor([2.0, 1.0, 0.5, 0.25, 0.0])[:, None, None]
    return last + noise


def risk_by_hand(rule: StopRule, outputs: Tensor, threshold: float) -> float:
    """The mean over images of the largest loss at this threshold or any larger one, by trying all of them."""
    scores = rule.scores(outputs, LEFT)
    tried = [threshold, *sorted(s for s in scores.flatten().tolist() if s > threshold and math.isfinite(s))]
    losses = []
    for limit in tried:
        steps = (scores > limit).float().argmax(0)
        answers = outputs[steps, torch.arange(outputs.shape[1])]
        losses.append(other_prediction(answers, outputs[-1]))
    return float(torch.stack(losses).amax(0).mean())


@pytest.mark.parametrize("score", ["bound", "margin", "entropy"])
@pytest.mark.parametrize("agreement", [0.9, 0.97])
def test_the_threshold_is_the_smallest_that_meets_the_corrected_level(score: str, agreement: float) -> None:
    outputs = drawn(60, seed=1)
    rule = learned(outputs, LEFT, score=score, changed=other_prediction, first=1)
    threshold, n = rule.threshold(agreement), outputs.shape[1]
    corrected = (n * risk_by_hand(rule, outputs, threshold) + 1) / (n + 1)
    assert corrected <= 1 - agreement + 1e-9
    below = (n * risk_by_hand(rule, outputs, threshold - 1e-4) + 1) / (n + 1)
    assert below > 1 - agreement


def test_a_loss_that_comes_back_at_a_later_step_counts() -> None:
    """Right at step 1, wrong at step 2: a threshold between the two scores is no safe one, nor is any below."""
    outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]], [[1.0, 0.0]]]).expand(3, 40, 2)
    rule = learned(outputs, (0.5, 0.25, 0.0), score="margin", changed=other_prediction, first=1)
    assert rule.threshold(0.9) == 3.0
    assert set(rule.stops(outputs, (0.5, 0.25, 0.0), agreement=0.9).tolist()) == {3}


def test_an_image_is_lost_once_however_often_it_is_wrong() -> None:
    """Wrong, right, wrong: at the smallest threshold its largest loss, not the sum."""
    outputs = torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]], [[0.0, 3.0]], [[4.0, 0.0]]]).expand(4, 40, 2)
    rule = learned(outputs, (0.5, 0.25, 0.1, 0.0), score="margin", changed=other_prediction, first=1)
    assert sum(loss for _, loss in rule.losses) == 40


def test_the_guarantee_holds_on_average_for_any_score() -> None:
    for score in ("margin", "entropy", lambda said: torch.rand(len(said.outputs))):
        changed = []
        for seed in range(80):
            calibration, test = drawn(80, seed=2 * seed), drawn(300, seed=2 * seed + 1)
            rule = learned(calibration, LEFT, score=score, changed=other_prediction, first=1)
            steps = rule.stops(test, LEFT, agreement=0.95)
            answers = test[steps - 1, torch.arange(300)]
            changed.append(float(other_prediction(answers, test[-1]).mean()))
        assert sum(changed) / len(changed) <= 0.05 + 0.005, score


def test_a_score_that_tells_stops_sooner_than_none() -> None:
    calibration, test = drawn(400, seed=5), drawn(400, seed=6)
    mean = {
        name: learned(calibration, LEFT, score=score, changed=other_prediction, first=1)
        .stops(test, LEFT, agreement=0.98)
        .float()
        .mean()
        for name, score in {"bound": "bound", "none": lambda said: 1 - torch.full((400,), said.left)}.items()
    }
    assert mean["bound"] < mean["none"] - 0.5


def test_real_losses_are_added_up() -> None:
    outputs = drawn(99, seed=7)
    rule = learned(outputs, LEFT, score="margin", changed=lambda a, b: 0.5 * other_prediction(a, b), first=1)
    whole = learned(outputs, LEFT, score="margin", changed=other_prediction, first=1)
    assert rule.threshold(0.95) == whole.threshold(0.91)  # (2 * 4 + 1) / 100: twice as many may be lost


def test_an_error_of_outputs_that_are_no_classes() -> None:
    outputs = drawn(300, seed=8)[..., :1]
    rule = learned(outputs, LEFT, score="steady", changed=beyond(0.6), first=2)
    test = drawn(300, seed=9)[..., :1]
    steps = rule.stops(test, LEFT, agreement=0.9)
    assert steps.min() >= 2 and steps.float().mean() < 4.9
    wrong = (test[steps - 1, torch.arange(300)] - test[-1]).abs().amax(1) > 0.6
    assert wrong.float().mean() <= 0.1 + 0.03


def test_too_few_images_are_named_with_how_many_are_needed() -> None:
    rule = learned(drawn(198, seed=1), LEFT, score="bound", changed=other_prediction)
    with pytest.raises(ConfigError, match=r"needs at least 199 calibration images; this rule has 198"):
        rule.threshold(0.995)
    assert [least_images(a) for a in (0.5, 0.9, 0.99, 0.995, 0.999)] == [1, 9, 99, 199, 999]
    enough = learned(drawn(199, seed=1), LEFT, score="bound", changed=other_prediction)
    assert enough.threshold(0.995) == max(threshold for threshold, _ in enough.losses)  # none may be lost


def test_without_losses_all_stop_at_the_first_step() -> None:
    outputs = drawn(300, seed=3)[-1:].expand(T, 300, 3)
    rule = learned(outputs, LEFT, score="bound", changed=other_prediction, first=2)
    assert rule.losses == () and rule.threshold(0.99) == -math.inf
    assert set(rule.stops(outputs, LEFT, agreement=0.99).tolist()) == {2}


def test_wrong_settings_are_one_error() -> None:
    outputs = drawn(30, seed=3)
    with pytest.raises(ConfigError, match="Did you mean 'margin'"):
        learned(outputs, LEFT, score="margn", changed=other_prediction)
    with pytest.raises(ConfigError, match="one loss from 0 to 1"):
        learned(outputs, LEFT, score="margin", changed=lambda a, b: 2 * other_prediction(a, b))
    with pytest.raises(ConfigError, match="one output per sample"):
        learned(outputs[..., :1], LEFT, score="margin", changed=other_prediction)
    with pytest.raises(DataError, match="must return one number for each sample"):
        learned(outputs, LEFT, score=lambda said: said.outputs, changed=other_prediction)
    with pytest.raises(ConfigError, match=r"first=9"):
        learned(outputs, LEFT, score="margin", changed=other_prediction, first=9)


def test_a_score_of_nothing_never_stops_a_sample() -> None:
    outputs = drawn(30, seed=4)
    rule = StopRule(lambda said: torch.full((30,), torch.nan), 1, 999, ())
    assert set(rule.stops(outputs, LEFT, agreement=0.9).tolist()) == {T}


def test_scores_grow_with_certainty() -> None:
    sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    for name in ("bound", "margin", "entropy"):
        assert SCORES[name](Said(sure, None, 0.5)) > SCORES[name](Said(unsure, None, 0.5))
    assert SCORES["bound"](Said(sure, None, 0.1)) > SCORES["bound"](Said(sure, None, 0.5))
