"""DCT input coding against a block-by-block SciPy loop, its orders, thresholds and inverse."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft
from torch import Tensor, nn

from transpike.coding import DCTEncoder, ycbcr
from transpike.errors import ConfigError, DataError, ModelError
from transpike.models import create_model
from transpike.neurons import reset_net
from transpike.spectral.cosine import zigzag
from transpike.train import Classifier, TrainOptions


def images(*shape: int, seed: int = 0) -> Tensor:
    """Smooth, as photographs are: most of the energy at low frequencies."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (noise.cumsum(-1).cumsum(-2) / 8).tanh()


def by_hand(encoder: DCTEncoder, batch: Tensor, stride: int) -> np.ndarray:
    """The equation of the docstring, one block at a time."""
    low, high = encoder.thresholds.double().tolist()
    side, (height, width) = encoder.block, encoder.output_size((batch.shape[2], batch.shape[3]))
    spikes = np.zeros((encoder.steps, *batch.shape[:2], height, width))
    missing = [(n // side - 1) * stride + side - m for n, m in zip((height, width), batch.shape[2:], strict=True)]
    padded = np.pad(batch.double().numpy(), ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
    order = zigzag(side)
    for n, c, row, column in itertools.product(*map(range, (*batch.shape[:2], height // side, width // side))):
        block = padded[n, c, row * stride : row * stride + side, column * stride : column * stride + side]
        coefficients, u = fft.dctn(block, norm="ortho"), np.zeros((side, side))
        for t, k in enumerate(encoder.schedule):
            one = np.zeros((side, side))
            one[order[k]] = coefficients[order[k]]
            u += fft.idctn(one, norm="ortho")
            s = (u > high) * 1.0 - (u < low)
            u -= high * (s > 0) + low * (s < 0)
            spikes[t, n, c, row * side : (row + 1) * side, column * side : (column + 1) * side] = s
    return spikes


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((2, 3, 8, 12), {"steps": 20}),
        ((2, 1, 9, 7), {"steps": 20, "stride": 2}),
        ((1, 1, 10, 10), {"block": 3, "stride": 1, "steps": 12, "order": "interleaved"}),
        ((1, 2, 8, 8), {"steps": 17, "order": "intermittent"}),
        ((1, 1, 3, 20), {"block": 8, "stride": 5, "steps": 70}),
    ],
)
def test_equals_the_loop_over_blocks(shape: tuple[int, ...], how: dict[str, int | str]) -> None:
    encoder = DCTEncoder(**how).fit(images(16, *shape[1:], seed=1))  # type: ignore[arg-type]
    batch = images(*shape)
    spikes = encoder(batch)
    np.testing.assert_array_equal(spikes, by_hand(encoder, batch, encoder.stride))
    assert spikes.unique().tolist() == [-1, 0, 1]


def test_the_papers_layouts() -> None:
    cifar = DCTEncoder(block=4, stride=2).fit(images(4, 3, 32, 32))
    assert cifar(images(2, 3, 32, 32)).shape == (48, 2, 3, 60, 60) and cifar.output_size((32, 32)) == (60, 60)
    assert DCTEncoder().output_size((64, 64)) == (64, 64) and DCTEncoder().output_size((28, 28)) == (28, 28)
    assert DCTEncoder().output_size((30, 29)) == (32, 32)


def test_orders() -> None:
    all_16 = tuple(range(16))
    assert DCTEncoder(steps=48).schedule == all_16 * 3
    assert DCTEncoder(steps=48, order="interleaved").schedule == tuple(k for k in all_16 for _ in range(3))
    assert DCTEncoder(steps=48, order="intermittent").schedule == (0, 2, 5, 7, 9, 10, 12, 15) * 6
    assert DCTEncoder(steps=24, frequencies=8).schedule == tuple(range(8)) * 3
    eight = DCTEncoder(steps=24, order="interleaved", frequencies=8).schedule
    assert eight == tuple(k for k in range(8) for _ in range(3))
    assert DCTEncoder(steps=6, order="intermittent", frequencies=(3, 1)).schedule == (3, 1) * 3
    assert DCTEncoder(steps=5, order=[0, 0, 7]).schedule == (0, 0, 7, 0, 0)
    uneven = DCTEncoder(steps=20, order="interleaved").schedule
    assert sorted(uneven) == list(uneven) and {uneven.count(k) for k in all_16} == {1, 2}
    assert DCTEncoder(block=2, steps=4).schedule == (0, 1, 2, 3)


@pytest.mark.parametrize("order", ["cyclic", "interleaved"])
def test_less_than_a_period_shows_its_beginning_with_a_warning(order: str) -> None:
    with pytest.warns(UserWarning, match=r"steps=5: only the first 5 of a period's 16 frequencies"):
        short = DCTEncoder(steps=5, order=order)
    assert short.schedule == (0, 1, 2, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DCTEncoder(steps=5, order=order, frequencies=5).schedule == short.schedule


def test_shorter_runs_are_the_beginning_of_longer_ones_and_a_period_repeats_where_no_membrane_is_left() -> None:
    batch = images(2, 1, 8, 8)
    long = DCTEncoder(steps=40).fit(batch)
    short = DCTEncoder(steps=17)
    short.load_state_dict(long.state_dict())
    assert torch.equal(short(batch), long(batch)[:17])
    # Only the highest frequency, of +-1 a pixel, with thresholds just below: the membrane is empty after each period.
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2).view(1, 1, 4, 4)
    cycle = DCTEncoder(block=2, steps=12, percentile=99)
    cycle.thresholds.copy_(torch.tensor([-0.9999, 0.9999]))
    spikes = cycle(board)
    assert torch.equal(spikes[3], board[0, 0].view(1, 1, 4, 4)) and spikes[:3].abs().sum() == 0
    assert torch.equal(spikes[:4], spikes[4:8]) and torch.equal(spikes[:4], spikes[8:])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    batch = images(33, 3, 12, 12)
    batch[1:] *= torch.linspace(0, 50, 32).view(-1, 1, 1, 1)
    encoder = DCTEncoder(stride=2, color="ycbcr").fit(batch[:8])
    together = encoder(batch)
    for n in (0, 1, 7, 32):
        assert torch.equal(together[:, n], encoder(batch[n : n + 1])[:, 0])
    mixed = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    assert torch.equal(together[:, mixed], encoder(batch[mixed]))
    network = nn.Linear(encoder.steps * 3 * 20 * 20, 3).eval()
    with torch.no_grad():
        logits = network(together.transpose(0, 1).flatten(1))
        alone = network(encoder(batch[5:6]).transpose(0, 1).flatten(1))
    assert torch.allclose(logits[5], alone[0], atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(3, 11), block=st.integers(1, 4), stride=st.integers(1, 4), color=st.sampled_from([None, "ycbcr"])
)
def test_an_artificial_network_sees_the_blocks_side_by_side(
    size: int, block: int, stride: int, color: str | None
) -> None:
    stride = min(stride, block)
    batch = torch.randn(2, 3, size, size)
    encoder = DCTEncoder(block=block, stride=stride, steps=block**2, color=color)
    seen = encoder.layout(batch)
    assert seen.shape[2:] == encoder.output_size((size, size))
    shown = batch if color is None else ycbcr(batch)
    count = seen.shape[2] // block
    last = [min(pixel, size - 1) for k in range(count) for pixel in range(k * stride, k * stride + block)]
    assert torch.allclose(seen, shown[:, :, last][:, :, :, last], atol=1e-5)
    unpadded = encoder.input_size(encoder.output_size((size, size)))
    assert unpadded[0] == unpadded[1] >= size and encoder.output_size(unpadded) == seen.shape[2:]
    smaller = (unpadded[0] - 1, unpadded[1])
    assert size == unpadded[0] or smaller[0] < size or encoder.output_size(smaller) == seen.shape[2:]


def test_blocks_without_overlap_are_the_image() -> None:
    batch = torch.randn(2, 1, 8, 8)
    assert torch.allclose(DCTEncoder(steps=16).layout(batch), batch, atol=1e-6)


def test_thresholds_are_percentiles_of_what_a_period_shows() -> None:
    batch = images(6, 2, 8, 8)
    encoder = DCTEncoder(steps=16, percentile=90).fit(batch)
    order, shown = zigzag(4), []
    for n, c, row, column in itertools.product(range(6), range(2), (0, 4), (0, 4)):
        coefficients = fft.dctn(batch[n, c, row : row + 4, column : column + 4].numpy(), norm="ortho")
        for k in range(16):
            one = np.zeros((4, 4))
            one[order[k]] = coefficients[order[k]]
            shown.append(fft.idctn(one, norm="ortho"))
    low, high = encoder.thresholds.tolist()
    assert low == pytest.approx(np.percentile(shown, 10), rel=2e-3)
    assert high == pytest.approx(np.percentile(shown, 90), rel=2e-3)


def test_fit_takes_batches_in_any_order_with_or_without_labels() -> None:
    batch = images(12, 1, 8, 8)
    whole = DCTEncoder(steps=16).fit(batch).thresholds
    assert torch.equal(DCTEncoder(steps=16).fit(reversed(batch.split(5))).thresholds, whole)
    pairs = [(part, torch.zeros(len(part))) for part in batch.split(4)]
    assert torch.equal(DCTEncoder(steps=16).fit(pairs).thresholds, whole)


def test_state_dict_round_trip_and_no_thresholds() -> None:
    batch = images(4, 1, 8, 8)
    fitted, fresh = DCTEncoder(steps=16).fit(batch), DCTEncoder(steps=16)
    for call in (fresh, fresh.decode):
        with pytest.raises(ModelError, match=r"no thresholds yet: call fit\(training images\)"):
            call(torch.zeros(16, 1, 1, 8, 8) if call == fresh.decode else batch)
    assert list(fitted.state_dict()) == ["thresholds"]
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(batch), fitted(batch)) and fresh(batch).any()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_decoding_whole_periods_errs_by_what_the_membranes_keep(data: st.DataObject) -> None:
    block = data.draw(st.integers(1, 5))
    stride = data.draw(st.integers(1, block))
    height, width = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 11))
    periods = data.draw(st.integers(1, 3))
    order = data.draw(st.sampled_from(["cyclic", "interleaved"]))
    encoder = DCTEncoder(block=block, stride=stride, steps=periods * block**2, order=order)
    encoder.thresholds.copy_(torch.tensor([-2.5, 2.5]))
    batch = images(2, 1, height, width, seed=data.draw(st.integers(0, 99)))
    rebuilt = encoder.decode(encoder(batch), size=(height, width))
    # No step shows more than 2 where |pixels| <= 1, so that no membrane keeps more than a threshold.
    assert (rebuilt - batch).abs().max() <= 2.5 / periods + 1e-5


def test_decoding_improves_with_steps_and_shows_what_was_shown() -> None:
    batch = images(8, 3, 13, 18)
    encoder = DCTEncoder(stride=3, steps=160, color="ycbcr", percentile=97).fit(batch)
    spikes = encoder(batch)
    errors = [float((encoder.decode(spikes[:t], size=(13, 18)) - batch).abs().mean()) for t in (1, 8, 16, 48, 160)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 < 0.2 < errors[0]
    flat = DCTEncoder(steps=1, frequencies=1)
    flat.thresholds.copy_(torch.tensor([-0.5, 0.5]))
    assert flat.decode(flat(torch.full((1, 1, 4, 4), 0.7))).unique().tolist() == pytest.approx([0.5])


def test_a_threshold_of_zero_takes_the_others_magnitude_two_are_an_error() -> None:
    with pytest.warns(UserWarning, match="the images have almost no negative values"):
        bright = DCTEncoder(steps=2, frequencies=1).fit(images(8, 1, 8, 8).abs() + 0.1)
    low, high = bright.thresholds.tolist()
    assert low == -high < 0 and bright(torch.ones(1, 1, 4, 4)).min() >= 0
    with pytest.warns(UserWarning, match="the images have almost no positive values"):
        dark = DCTEncoder(steps=2, frequencies=1).fit(-images(8, 1, 8, 8).abs() - 0.1)
    assert dark.thresholds.tolist() == [low, high]
    dots = torch.zeros(40, 1, 8, 8)
    dots[0, 0, 0, 0] = 1
    with pytest.raises(
        DataError, match=r"more than 93.5 % of the shown coefficients are zero\. Use a percentile nearer to 100"
    ):
        DCTEncoder(steps=16).fit(dots)
    assert DCTEncoder(steps=16, percentile=100).fit(dots).thresholds.tolist()[1] == pytest.approx(0.1821, rel=1e-3)


def test_an_offset_of_chroma_is_a_first_frequency_and_nothing_else() -> None:
    """128/255 added to two channels: of each 4 x 4 block only coefficient (0, 0) changes, by four times as much."""
    batch = images(4, 3, 8, 8)
    plain, shifted = (DCTEncoder(color=color, steps=16).layout(batch) for color in ("ycbcr", "ycbcr-offset"))
    torch.testing.assert_close(shifted[:, 0], plain[:, 0])
    torch.testing.assert_close(shifted[:, 1:], plain[:, 1:] + 128 / 255)
    encoder = DCTEncoder(color="ycbcr-offset", steps=16, stride=4)
    encoder.thresholds.copy_(torch.tensor([-2.0, 0.5]))  # between 0 and what the offset gives, 4 * 128/255 / 4
    spikes = encoder(torch.zeros(1, 3, 4, 4))
    assert spikes[0, 0, 0].unique().tolist() == [0] and spikes[0, 0, 1:].unique().tolist() == [1]
    encoder = DCTEncoder(color="ycbcr-offset", steps=640, percentile=99).fit(batch)
    assert (encoder.decode(encoder(batch)) - batch).abs().mean() < 0.05  # in RGB, and without the offset


def test_chroma_of_grey_is_zero_and_luma_keeps_it() -> None:
    grey = images(2, 1, 5, 5).expand(2, 3, 5, 5)
    mixed = ycbcr(grey)
    torch.testing.assert_close(mixed[:, 0], grey[:, 0])
    assert mixed[:, 1:].abs().max() < 1e-6
    # JPEG's numbers (ITU-T T.871): pure blue is (0.114, 0.5, -0.0813).
    blue = ycbcr(torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)).flatten()
    assert blue.tolist() == pytest.approx([0.114, 0.5, -0.0813], abs=1e-4)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"block": 0}, "block=0"),
        ({"stride": 5}, "stride=5"),
        ({"steps": 0}, "steps=0"),
        ({"order": "random"}, "order='random'"),
        ({"block": 4.0}, "block=4.0"),
        ({"stride": 1.5}, "stride=1.5: expected a whole number from 1 to 4"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"order": [16]}, "zigzag ranks, 0 to 15"),
        ({"order": []}, "one or more"),
        ({"order": 3}, "order=3"),
        ({"order": [0.5, 1]}, r"order=\[0.5, 1\]"),
        ({"order": [0, 1], "frequencies": 2}, "omit frequencies"),
        ({"order": "intermittent", "block": 8}, "set frequencies"),
        ({"frequencies": 0}, "a whole number from 1 to 16"),
        ({"frequencies": 17}, "a whole number from 1 to 16"),
        ({"frequencies": 2.5}, "a whole number from 1 to 16"),
        ({"frequencies": True}, "a whole number from 1 to 16"),
        ({"frequencies": [-1]}, "0 to 15"),
        ({"frequencies": [0.5]}, r"frequencies=\[0.5\]"),
        ({"frequencies": "8"}, "frequencies='8'"),
        ({"frequencies": [1, 1]}, "a rank occurs twice"),
        ({"percentile": 50}, r"\(50, 100\]"),
        ({"percentile": 101}, r"\(50, 100\]"),
        ({"percentile": "93"}, "percentile='93'"),
        ({"color": "lab"}, "color='lab'"),
    ],
)
def test_bad_options(how: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DCTEncoder(**how)  # type: ignore[arg-type]


def test_bad_images() -> None:
    encoder = DCTEncoder(steps=16).fit(images(4, 1, 8, 8))
    for wrong in (torch.zeros(1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, 1, 8, 8)):
        with pytest.raises(DataError, match=r"takes images \[N, C, H, W\] of floats"):
            encoder(wrong)
    with pytest.raises(DataError, match="NaN or infinity"):
        encoder(torch.full((1, 1, 8, 8), torch.nan))
    with pytest.raises(DataError, match="NaN or infinite"):
        encoder.fit(torch.full((1, 1, 8, 8), torch.nan))
    with pytest.raises(DataError, match="fit got no images"):
        encoder.fit(iter([]))
    with pytest.raises(DataError, match=r"RGB images \[N, 3, H, W\]"):
        DCTEncoder(color="ycbcr").fit(images(4, 1, 8, 8))
    for spikes in (torch.zeros(17, 1, 1, 8, 8), torch.zeros(0, 1, 1, 8, 8), torch.zeros(4, 1, 1, 8, 9)):
        with pytest.raises(DataError, match="decode takes up to 16 steps"):
            encoder.decode(spikes)


def test_types_and_autocast() -> None:
    batch = images(2, 1, 8, 8)
    encoder = DCTEncoder(steps=16).fit(batch)
    assert encoder(batch.double()).dtype == torch.float64 and encoder(batch.half()).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(batch), encoder(batch.double()).float())
    assert not encoder(batch.requires_grad_()).requires_grad


def test_before_a_spiking_resnet_and_as_the_trainers_encode() -> None:
    encoder = DCTEncoder(steps=4, stride=2, frequencies=4).fit(images(8, 3, 16, 16))
    network = create_model("sew_resnet19", width=8, num_classes=5).eval()
    with torch.no_grad():
        outputs = network(encoder(images(2, 3, 16, 16)))
        assert outputs.shape == (4, 2, 5) and outputs.isfinite().all()
        reset_net(network)
        classifier = Classifier(network, TrainOptions(steps=4), encode=encoder).eval()
        assert torch.equal(classifier(images(2, 3, 16, 16)), outputs.mean(0))
    assert "encode.thresholds" in classifier.state_dict()
