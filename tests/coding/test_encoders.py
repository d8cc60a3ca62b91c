"""The usual encoders: their numbers, against SpikingJelly's where it has them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import encoding
from torch import Tensor, nn

from transpike.coding import BurstEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.errors import ConfigError, DataError

CODES = [PoissonEncoder, LatencyEncoder, PhaseEncoder, BurstEncoder]
LEVELS = torch.arange(256).view(1, 1, 16, 16) / 255


def test_direct_is_the_image_at_every_step() -> None:
    image = torch.randn(2, 3, 4, 4)
    shown = DirectEncoder(steps=5)(image)
    assert shown.shape == (5, 2, 3, 4, 4) and all(torch.equal(step, image) for step in shown)
    assert shown.data_ptr() == image.data_ptr()


def test_poisson_rates_are_the_pixels_and_steps_are_independent() -> None:
    steps = 4000
    spikes = PoissonEncoder(steps=steps, generator=torch.Generator().manual_seed(0))(LEVELS)
    assert spikes.unique().tolist() == [0, 1]
    deviation = (LEVELS * (1 - LEVELS) / steps).sqrt()
    assert ((spikes.mean(0) - LEVELS).abs() <= 4.5 * deviation).all()
    middle = spikes[:, LEVELS.sub(0.5).abs() < 0.1] - LEVELS[LEVELS.sub(0.5).abs() < 0.1]
    assert (middle[1:] * middle[:-1]).mean().abs() < 4 * 0.25 / middle.numel() ** 0.5


def test_poisson_is_seeded() -> None:
    encoder = PoissonEncoder(steps=8)
    torch.manual_seed(3)
    first, second = encoder(LEVELS), encoder(LEVELS)
    torch.manual_seed(3)
    assert torch.equal(encoder(LEVELS), first) and not torch.equal(first, second)
    own = [PoissonEncoder(steps=8, generator=torch.Generator().manual_seed(4))(LEVELS) for _ in range(2)]
    assert torch.equal(*own) and not torch.equal(own[0], first)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 20), seed=st.integers(0, 99))
def test_latency_is_one_spike_the_brighter_the_earlier_as_spikingjellys(steps: int, seed: int) -> None:
    pixels = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    pixels[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    spikes = LatencyEncoder(steps=steps)(pixels)
    assert (spikes.sum(0) == 1).all()
    times = spikes.argmax(0)
    assert times[0, 0, 0].tolist()[:2] == [steps - 1, 0]
    order = pixels.flatten().argsort(descending=True)
    assert (times.flatten()[order].diff() >= 0).all()
    assert torch.equal(spikes, encoding.LatencyEncoder(steps).single_step_encode(pixels))


@pytest.mark.parametrize("phases", [1, 3, 8])
def test_phase_sums_to_the_pixel_within_its_last_digit(phases: int) -> None:
    spikes = PhaseEncoder(steps=2 * phases, phases=phases)(LEVELS)
    assert torch.equal(spikes[:phases], spikes[phases:])
    error = LEVELS - spikes[:phases].sum(0)
    assert error.min() >= 0 and error.max() <= 2.0**-phases
    for t, step in enumerate(spikes):
        assert set(step.unique().tolist()) <= {0.0, 2.0 ** -(1 + t % phases)}


def test_phase_is_the_bits_of_a_byte_and_spikingjellys() -> None:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    spikes = PhaseEncoder(steps=8)(LEVELS)
    np.testing.assert_array_equal(spikes.flatten(1).T > 0, bits)
    below_one = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * (1 - 2**-8)
    peers = encoding.WeightedPhaseEncoder(8).single_step_encode(below_one)
    assert torch.equal(PhaseEncoder(steps=8)(below_one) > 0, peers > 0)
    assert torch.equal(PhaseEncoder(steps=5)(LEVELS), spikes[:5])


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 60), beta=st.floats(1.1, 3), threshold=st.floats(0.02, 1), pixel=st.floats(0, 1, width=32))
def test_burst_equals_its_equation_and_keeps_charge(steps: int, beta: float, threshold: float, pixel: float) -> None:
    spikes = BurstEncoder(steps=steps, beta=beta, v_threshold=threshold)(torch.full((1, 1), pixel).double()).flatten()
    membrane, run = 0.0, 0
    for spike in spikes.tolist():
        membrane += pixel
        weight = beta**run * threshold
        fired = spike > 0
        assert spike == (pytest.approx(weight, rel=1e-4) if fired else 0)
        assert fired == (membrane >= weight) or membrane == pytest.approx(weight, rel=1e-4)
        membrane -= spike
        run = run + 1 if fired else 0
    assert membrane >= -1e-4 and spikes.sum() + membrane == pytest.approx(steps * pixel, abs=1e-3)


def test_burst_by_hand_and_its_mean_tends_to_the_pixel() -> None:
    spikes = BurstEncoder(steps=7)(torch.tensor([[1.0, 0.1]]))[:, 0]
    assert spikes[:, 0].tolist() == [0.125, 0.25, 0.5, 1, 2, 0, 0.125]
    assert spikes[:, 1].tolist() == pytest.approx([0, 0.125, 0, 0.125, 0.25, 0, 0.125])
    error = (BurstEncoder(steps=2000)(LEVELS).mean(0) - LEVELS).abs()
    assert error.max() < 4e-3


@pytest.mark.parametrize("code", CODES)
def test_normalised_images_are_mapped_back(code: type[nn.Module]) -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    pixels = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 1
    pixels = (pixels * 254 + 0.3) / 255
    normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.manual_seed(0)
    plain = code(steps=16)(pixels)
    torch.manual_seed(0)
    mapped = code(steps=16, mean=mean, std=std)(normalised)
    assert (plain != mapped).float().mean() < 1e-3 and plain.any()
    with pytest.raises(DataError, match=r"pixels in \[0, 1\], and these lie in \[-1\.985, 2\.115\]"):
        code(steps=2)(normalised)
    grey = code(steps=16, mean=0.5, std=0.5)(torch.full((1, 1, 2, 2), -1.0))
    assert grey.sum() == (4 if code is LatencyEncoder else 0)


@pytest.mark.parametrize("code", CODES)
def test_types_shapes_copies_and_errors(code: type[nn.Module]) -> None:
    encoder = copy.deepcopy(code(steps=3))
    assert not encoder.state_dict() and "steps=3" in repr(encoder)
    for dtype in (torch.float16, torch.float32, torch.float64):
        spikes: Tensor = encoder(LEVELS.to(dtype).requires_grad_())
        assert spikes.shape == (3, 1, 1, 16, 16) and spikes.dtype == dtype and not spikes.requires_grad
    assert encoder(torch.zeros(4, 7)).shape == (3, 4, 7) and encoder(torch.zeros(0, 7)).shape == (3, 0, 7)
    if code is not PoissonEncoder:
        assert torch.equal(encoder(LEVELS.expand(3, 1, 16, 16))[:, :1], encoder(LEVELS))
    with pytest.raises(ConfigError, match="steps=0"):
        code(steps=0)
    with pytest.raises(ConfigError, match="std=0"):
        code(steps=1, std=0)
    with pytest.raises(DataError, match="divide bytes by 255"):
        encoder(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match="nan"):
        encoder(torch.tensor([[0.5, torch.nan]]))
    with pytest.raises(DataError, match="mean and std have 3 channels, but the images have shape"):
        code(steps=1, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    # A step of latency is 1/31 of white, rounded; a period of phases tells all eight bits, rounded down.
    ("code", "bound"),
    [(PoissonEncoder, 0.4), (LatencyEncoder, 0.5 / 31), (PhaseEncoder, 1 / 256), (BurstEncoder, 0.2)],
)
def test_decoded_images_come_nearer(code: type[nn.Module], bound: float) -> None:
    torch.manual_seed(0)
    images = (LEVELS.detach() - 0.3) / 0.5
    encoder = code(steps=32, mean=0.3, std=0.5)
    spikes = encoder(images)
    few, all_ = ((encoder.decode(spikes[:steps]) - images).abs() * 0.5 for steps in (4, 32))
    assert all_.max() <= bound + 1e-6 and all_.mean() < 0.6 * few.mean()
    for wrong in (spikes[:0], torch.cat((spikes, spikes))):
        with pytest.raises(DataError, match="decode takes 1 to 32 steps"):
            encoder.decode(wrong)


def test_direct_is_decoded_to_the_images() -> None:
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(DirectEncoder(steps=5).decode(images.expand(3, 2, 3, 4, 4)), images)


def test_a_burst_is_decoded_as_its_input_less_what_is_left_on_the_membrane() -> None:
    encoder = BurstEncoder(steps=7)
    pixels = LEVELS.detach()
    spikes, membrane = encoder(pixels), torch.zeros_like(pixels)
    for step in spikes:
        membrane += pixels - step
    torch.testing.assert_close(encoder.decode(spikes), pixels - membrane / 7)


def test_bad_options_of_one() -> None:
    for build, words in (
        (lambda: DirectEncoder(steps=0), "steps=0"),
        (lambda: PhaseEncoder(steps=1, phases=0), "phases=0"),
        (lambda: PhaseEncoder(steps=1, phases=25), "phases=25: expected a whole number from 1 to 24"),
        (lambda: PhaseEncoder(steps=1, phases=2.5), "phases=2.5"),  # type: ignore[arg-type]
        (lambda: PoissonEncoder(steps=True), "steps=True"),
        (lambda: BurstEncoder(steps=1, beta=1), "beta=1"),
        (lambda: BurstEncoder(steps=1, beta=float("inf")), "beta=inf"),
        (lambda: BurstEncoder(steps=1, v_threshold=0), "v_threshold=0"),
        (lambda: BurstEncoder(steps=1, v_threshold="1"), "v_threshold='1'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=words):
            build()
