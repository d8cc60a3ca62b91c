"""What every encoder of images keeps; a new one is tested by being in `ENCODERS`.

Where one keeps less, it says so in its class (`digits`) or is an exception here, with the reason.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from tests.distill.batches import noise
from torch import Tensor

from transpike.coding import ENCODERS, Encoder, create_encoder, describe_encoder, encoder_scheme, read_encoder
from transpike.errors import ConfigError, DataError
from transpike.metrics.energy import Operations

encoders = pytest.mark.parametrize("name", ENCODERS)

STEPS, MEAN, STD = 32, (0.4, 0.3, 0.5), (0.3, 0.2, 0.25)


def pixels(count: int = 5) -> Tensor:
    """Smooth images with pixels in [0, 1], black and white among them."""
    images = noise(count, 3, 8, 8).cumsum(-1).cumsum(-2).sigmoid()
    images[0, :, 0, 0], images[0, :, 0, 1] = 0, 1
    return images


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def encoder(name: str, *, steps: int = STEPS, **settings: object) -> Encoder:
    return create_encoder(name, steps=steps, settings=settings, mean=MEAN, std=STD).fit(normalised(pixels(64)))


@encoders
@pytest.mark.parametrize("steps", [1, 7, STEPS])
@pytest.mark.filterwarnings("ignore:steps=.* only the first")
def test_every_step_shows_its_digits(name: str, steps: int) -> None:
    made, images = encoder(name, steps=steps), normalised(pixels())
    shown = made(images)
    assert shown.shape == (steps, 5, 3, *made.output_size((8, 8))) and made(images.double()).dtype == torch.float64
    for t, step in enumerate(shown):
        digits = made.digits(t)
        if digits is None:
            assert torch.equal(step, images)
        else:
            nearest = (step.flatten()[:, None] - torch.tensor(digits)).abs().amin(1)
            assert (nearest <= 1e-6 * step.flatten().abs()).all() and len(set(digits)) == len(digits)
    assert not made(images.requires_grad_()).requires_grad or made.digits(0) is None


# How far a pixel in [0, 1] may be off after all steps, and why.
BOUNDS = {
    "dct": 0.15,  # what is left on the membranes of two periods
    "direct": 1e-6,
    "poisson": 4.5 * 0.5 / math.sqrt(STEPS),  # 4.5 deviations of a fair coin
    "latency": 0.5 / (STEPS - 1),  # half a step of time
    "phase": 2.0**-8,  # the last binary digit
    "burst": 6 / STEPS,  # what is left on the membrane, spread over all steps
}


@encoders
def test_what_is_shown_can_be_decoded(name: str) -> None:
    made, images = encoder(name), pixels()
    spikes = made(normalised(images))
    errors = []
    for steps in (1, 4, STEPS):
        decoded = made.decode(spikes[:steps], size=(8, 8))
        assert decoded.shape == images.shape and decoded.dtype == torch.float32
        errors.append((decoded * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1) - images).abs())
    assert errors[-1].max() <= BOUNDS[name] + 1e-6
    first, _, last = (error.square().mean().sqrt() for error in errors)
    assert last < 0.5 * first or first < 1e-6
    for wrong in (spikes[:0], torch.cat([spikes, spikes])):
        with pytest.raises(DataError, match="decode takes"):
            made.decode(wrong)


@encoders
def test_the_same_images_give_the_same_spikes(name: str) -> None:
    made, images = encoder(name), normalised(pixels())
    torch.manual_seed(3)
    once, twice = made(images), made(images)
    assert torch.equal(once, twice) != made.draws
    torch.manual_seed(3)
    assert torch.equal(once, made(images))
    if made.draws:
        drawn = [type(made)(steps=4, generator=torch.Generator().manual_seed(1))(pixels()) for _ in range(2)]
        assert torch.equal(*drawn)
    else:  # whatever else is in the batch
        for sample in range(len(images)):
            assert torch.equal(made(images[sample : sample + 1])[:, 0], once[:, sample])


@encoders
def test_a_description_reads_back_to_the_bit(name: str) -> None:
    made, images = encoder(name), normalised(pixels())
    described = json.loads(json.dumps(describe_encoder(name, {}, made)))
    assert list(described) == ["name", "steps", "settings", "thresholds"]
    for steps in (None, 2 * STEPS):
        again = read_encoder({"encoder": described, "mean": list(MEAN), "std": list(STD)}, steps=steps)
        assert type(again) is type(made) and again.steps == (steps or STEPS) and again.state() == made.state()
        torch.manual_seed(0)
        shown = again(images)
        torch.manual_seed(0)
        expected = made(images) if steps is None else encoder(name, steps=steps)(images)
        torch.manual_seed(0)
        assert torch.equal(shown, expected) or (made.draws and steps)
    assert all(torch.equal(x, again.state_dict()[key]) for key, x in made.state_dict().items())


@encoders
def test_operations_are_counts_that_grow_with_spikes_and_steps(name: str) -> None:
    known = {field.name for field in fields(Operations)}

    def joules(steps: int, spikes: float) -> float:
        counts = encoder(name, steps=steps).operations((3, 8, 8), spikes=spikes)
        assert counts.keys() <= known and all(count >= 0 for count in counts.values())
        return Operations(**counts).joules

    none, some, more = (joules(STEPS, spikes) for spikes in (0.0, 100.0, 200.0))
    assert none <= some <= more and more - some == pytest.approx(some - none)
    assert joules(2 * STEPS, 0.0) >= none and (none > 0) != (encoder(name).digits(0) is None)


@encoders
def test_an_artificial_network_sees_images_laid_out_as_the_spikes_are(name: str) -> None:
    made, images = encoder(name), normalised(pixels())
    for size in ((8, 8), (6, 7)):
        seen = made.layout(images[..., : size[0], : size[1]])
        assert seen.shape[2:] == made.output_size(size) == made(images[..., : size[0], : size[1]]).shape[3:]
        assert made.output_size(made.input_size(made.output_size(size))) == made.output_size(size)
    assert torch.allclose(made.layout(images), images, atol=1e-5)


@encoders
def test_settings_of_an_encoder(name: str) -> None:
    known = ENCODERS[name].settings({})
    assert encoder_scheme(name, {}, steps=4) == {"name": name, "steps": 4, **known}
    with pytest.raises(ConfigError, match=f"settings={{'mean': 0.5}} do not fit the {name} encoder"):
        encoder(name, mean=0.5)
    for setting in known:
        with pytest.raises(ConfigError, match=f"{setting}={{'wrong': 1}}"):
            encoder(name, **{setting: {"wrong": 1}})
    for steps in (0, 2.5, "4", True):
        with pytest.raises(ConfigError, match="steps="):
            encoder(name, steps=steps)  # type: ignore[arg-type]
    if ENCODERS[name].takes_pixels:
        with pytest.raises(DataError, match=r"codes pixels in \[0, 1\]"):
            encoder(name)(10 * normalised(pixels()))


def settings_of(kind: Callable[..., object]) -> list[str]:
    return list(inspect.signature(kind).parameters)[1:]
