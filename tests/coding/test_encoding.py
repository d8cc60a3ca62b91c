"""Encoders by name: settings that are refused, and descriptions that are damaged."""

from __future__ import annotations

from typing import Any

import pytest

from transpike.coding import create_encoder, read_encoder
from transpike.errors import ConfigError, ModelError

DCT = {"name": "dct", "steps": 2, "settings": {}, "thresholds": [-1.0, 0.5]}
DESCRIBED = {"encoder": DCT, "mean": [0], "std": [1]}


def test_a_period_that_does_not_fit_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="only the first 2"):
        encoder = create_encoder("dct", steps=2, settings={}, mean=(0.5,), std=(0.5,))
    assert read_encoder(DESCRIBED).state() == [-1.0, 0.5]
    assert read_encoder(DESCRIBED, steps=5).steps == 5 and encoder.schedule == (0, 1)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("phase", {"block": 4}, "settings={'block': 4} do not fit the phase encoder, which takes phases."),
        ("latency", {"mean": 4}, "settings={'mean': 4} do not fit the latency encoder, which takes none."),
        ("direct", {"steps": 4}, "settings={'steps': 4} do not fit the direct encoder, which takes none."),
        (
            "possion",
            {},
            "encoder='possion' is not one of dct, direct, poisson, latency, phase, burst. Did you mean poisson?",
        ),
        ("burst", {"beta": "2"}, "beta='2': expected a number above 1."),
        ("dct", {"block": 0}, "block=0: expected a whole number of at least 1."),
    ],
)
def test_what_is_wrong_is_named(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_encoder(name, steps=2, settings=settings, mean=(0.5,), std=(0.5,))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": None}, "model.json does not describe a complete encoder: encoder is missing or damaged."),
        ({"encoder": {**DCT, "name": ["dct"]}}, "does not describe a complete encoder: encoder is missing"),
        ({"encoder": {**DCT, "steps": "2"}}, "does not describe a complete encoder: encoder is missing"),
        ({"encoder": {**DCT, "settings": [1]}}, "does not describe a complete encoder: encoder is missing"),
        ({"encoder": {**DCT, "thresholds": None}}, "thresholds=None: a DCTEncoder has two numbers"),
        ({"encoder": {**DCT, "thresholds": [1.0, 2.0, 3.0]}}, "has two numbers, the low one and the high one."),
        ({"encoder": {**DCT, "thresholds": ["low", 2.0]}}, "a DCTEncoder has two numbers"),
        ({"mean": None}, "does not describe a complete encoder: mean is missing"),
        ({"std": ["1"]}, "does not describe a complete encoder: std is missing"),
    ],
)
def test_damaged_descriptions_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_encoder({**DESCRIBED, **change})
    assert words in str(caught.value)
