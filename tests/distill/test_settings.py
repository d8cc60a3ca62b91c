"""Settings are told to be wrong before there are networks, each in one sentence."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch

from transpike.distill import METHODS, check_method, create_method, method_needs
from transpike.distill.settings import check_weights
from transpike.errors import ConfigError

WRONG: list[Any] = ["high", [1], {"a": 1}, -1, math.nan, ""]


def settings_of(name: str) -> dict[str, inspect.Parameter]:
    return {one.name: one for one in list(inspect.signature(METHODS[name]).parameters.values())[1:]}


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_right_and_nonsense_is_not(name: str) -> None:
    state = torch.get_rng_state()
    defaults = {setting: parameter.default for setting, parameter in settings_of(name).items()}
    check_method(name, defaults)
    for setting in defaults:
        for wrong in WRONG:
            with pytest.raises(ConfigError, match=setting) as caught:
                check_method(name, {setting: wrong})
            assert str(caught.value).count("\n") == 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("kd", {"temprature": 1}, "'kd' has no setting 'temprature'. Did you mean temperature. It has: alpha, temp"),
        ("kd", {"stages": ()}, "'kd' has no setting 'stages'"),
        ("kd", {"alpha": "7e-4"}, "'kd': alpha='7e-4': expected a number."),
        ("kd", {"alpha": True}, "alpha=True: expected a number."),
        ("kd", {"alpha": math.inf}, "alpha=inf: expected a number of at least 0"),
        ("ssd", {"beta": 1.0}, "'ssd' has no setting 'beta'"),
        ("bsd", {"normalize": 1}, "normalize=1: expected true or false."),
        ("bsd", {"domain": "time"}, "domain='time': expected 'frequency' or 'spatial'."),
        ("ssd", {"penalty": 0.5}, "'ssd' has no setting 'penalty'"),
        ("srd", {"penalty": -0.5}, "penalty=-0.5: expected a number of at least 0"),
        ("sfkd", {"sigma": "wide"}, "sigma='wide': expected a number or null."),
        ("sfkd", {"loss": 3}, "loss=3: expected a word or a function."),
        ("sfkd", {"levels": 4}, "maps of 8 x 8 are too small for levels=4"),
        ("reviewkd", {"width": 0}, "width=0: expected a whole number of at least 1."),
        ("crd", {"width": 64.0}, "width=64.0: expected a whole number."),
        ("crd", {"contrast": math.inf}, "contrast=inf: expected a number above 0"),
    ],
)
def test_what_is_wrong_is_named(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_method(name, settings)


def test_a_method_of_ones_own_judges_its_settings_itself() -> None:
    def make(stages: Any, *, depth: int) -> torch.nn.Module:
        return torch.nn.Linear(depth, depth)

    assert create_method(make, (), {"depth": 2}).in_features == 2
    with pytest.raises(ConfigError, match=r"cannot be made with these settings: .*'width'"):
        create_method(make, (), {"width": 2})


def test_weights_and_time() -> None:
    check_weights(alpha=0, beta=2.5)
    with pytest.raises(ConfigError, match=r"beta=-0\.1: expected a number of at least 0"):
        check_weights(alpha=0, beta=-0.1)
    assert [name for name in METHODS if "time" in method_needs(name)] == ["tks", "tld"]
