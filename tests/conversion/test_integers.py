"""Networks of whole numbers: what is whole, what a state can need, and that nothing else gives other bits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.export.networks import BODIES, CODES, body
from torch import nn

import transpike
from transpike import export
from transpike.conversion.integers import finest, reaches
from transpike.conversion.kinds import KINDS
from transpike.errors import ConfigError, ConversionError, ModelError
from transpike.export.bundle import read
from transpike.export.neurons import Neurons
from transpike.export.step import Step

WHOLE = [name for name in BODIES if name != "attention"]


@pytest.mark.parametrize("name", WHOLE)
def test_torch_numpy_and_the_step_give_the_same_bits(name: str, tmp_path: Path) -> None:
    snn, images = body(name, "levels")
    whole = snn.quantise(8)
    whole.save(tmp_path)
    expected = transpike.load(tmp_path)(images)
    assert torch.equal(expected, whole(images)) and expected.dtype == torch.float64
    assert np.array_equal(export.run(tmp_path, images).outputs, expected)
    step = Step(whole)
    rows = torch.tensor(step.schedule, dtype=torch.float64)
    states = [torch.zeros(len(images), *shape, dtype=torch.float64) for shape in step.states.values()]
    for tick in range(step.latency):
        (found,), states = step(images, rows[tick % step.interval], states)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_whole_numbers_of_so_many_bits(bits: int) -> None:
    """Of each channel, as large as the bits allow."""
    snn, _ = body("residual")
    for op in snn.quantise(bits).graph:
        factor, constant = KINDS[op.kind].factor, KINDS[op.kind].constant
        if op.kind in ("convolution", "linear"):
            rows, bias = op.tensors[str(factor)].flatten(1), op.tensors[str(constant)]
            given = snn.tensors(snn.graph[op.name])
            original, before = given[str(factor)].double().flatten(1), given[str(constant)].double()
            shift = finest(rows, channels=True).double()[:, None]
            assert ((rows * torch.exp2(shift)).abs().amax(1) <= 2 ** (bits - 1) - 1).all()
            unit = original.abs().amax(1) / (2 ** (bits - 1) - 1)
            assert ((rows - original).abs() <= unit[:, None]).all(), "within half a unit of a power of two"
            assert ((bias - before).abs() <= unit / 16).all(), "four bits finer"
            assert torch.equal(bias * 2.0 ** op.args["exponent"], (bias * 2.0 ** op.args["exponent"]).round())


def test_more_bits_are_nearer() -> None:
    snn, images = body("residual", "levels")
    expected = snn(images)
    errors = [float((snn.quantise(bits)(images) - expected).norm() / expected.norm()) for bits in (4, 6, 8, 12)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2] > 2 * errors[3] and errors[2] < 0.05


def test_no_input_overflows_the_stated_width(tmp_path: Path) -> None:
    """The worst input, the largest digit on every synapse at every step, needs nearly all of the bits, and no more."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    snn = transpike.convert(ann, torch.rand(64, 50), scheme=transpike.CSS(steps=8, silent=2, levels=(1, 2, 4)))
    snn.quantise(8).save(tmp_path)
    whole, bundle = transpike.load(tmp_path), read(tmp_path)
    node = next(node for node in bundle.nodes if node.fires)
    linear = bundle.by_name[node.inputs[0]]
    grown = 2.0 ** linear.args["exponent"]
    worst = ((np.abs(linear.tensors["weight"]).sum(1) * 4 + np.abs(linear.tensors["bias"])) * grown).astype(np.int64)
    layer, peaks = Neurons(node, bundle), np.zeros(20)
    assert layer.whole
    for step in range(8 + 2):
        layer(step, [worst[None]])
        peaks = np.maximum(peaks, (np.abs(layer._held[0]) + np.abs(layer._sent))[0])
    own = reaches(whole.graph, whole.scheme)[node.name].exponent[0].numpy()  # of each channel
    width = math.ceil(math.log2((peaks * 2.0 ** (own - node.args["exponent"])).max() + 1)) + 1
    assert node.args["state_bits"] - 2 <= width <= node.args["state_bits"]


def test_an_average_over_nine_is_a_sum_and_a_number(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    images = torch.rand(32, 1, 4, 4)
    snn = transpike.convert(nn.Sequential(*layers).eval(), images, scheme=transpike.CSS(steps=8, silent=1))
    whole = snn.quantise(8)
    whole.save(tmp_path)
    assert np.array_equal(export.run(tmp_path, images[:3]).outputs, whole(images[:3]))
    assert float((whole(images) - snn(images)).norm() / snn(images).norm()) < 0.05


def test_what_has_no_whole_form_is_refused_by_name() -> None:
    snn, _ = body("attention")
    with pytest.raises(ConversionError, match="a product of two trains has no form in whole numbers"):
        snn.quantise()
    snn, _ = body("grouped", "paper")
    with pytest.raises(ConversionError, match=r"CSS has .* another bit each step with beta=1\.5; use CSS with beta=2"):
        snn.quantise()
    snn, _ = body("grouped")
    for value in (float("nan"), float("inf"), 1e300):
        wrong = snn.double()
        next(t for t in wrong.tensors(wrong.graph.ops[1]).values())[0] = value
        with pytest.raises(ConversionError, match=r"not finite, or too large|would need"):
            wrong.quantise()
    with pytest.raises(ConfigError, match="bits=1: expected a whole number from 2 to 16"):
        snn.quantise(1)
    ann = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(ConversionError, match="its input is an analog current"):
        transpike.convert(ann, torch.rand(8, 4), scheme=CODES["rate"]).quantise()
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ConversionError, match=r"2: an average over 9 values has no form"):
        transpike.convert(pooled.eval(), torch.rand(8, 1, 6, 6), scheme=CODES["ternary"]).quantise()


def test_whole_numbers_are_written_and_give_the_weights_back(tmp_path: Path) -> None:
    import json

    snn, images = body("squeeze and excitation")
    with pytest.raises(ModelError, match=r"pass the result of snn.quantise\(bits=8\)"):
        export.integers(snn, tmp_path)
    whole = snn.quantise(6)
    export.integers(whole, tmp_path)
    description = json.loads((tmp_path / "integers.json").read_text())
    numbers = load_file(tmp_path / "integers.safetensors")
    for op in description["ops"]:
        own = whole.tensors(whole.graph[op["name"]])
        if op["kind"] in ("convolution", "linear"):
            weight, shift = numbers[f"{op['name']}.weight"], numbers[f"{op['name']}.weight_shift"]
            assert weight.dtype == torch.int8 and int(weight.abs().max()) <= 31
            scale = torch.exp2(-shift.double()).view(-1, *[1] * (weight.ndim - 1))
            assert torch.equal(weight.double() * scale, own["weight"])
            shift = numbers[f"{op['name']}.bias_shift"].double()
            assert torch.equal(numbers[f"{op['name']}.bias"].double() * torch.exp2(-shift), own["bias"])
    assert description["latency"] == snn.latency
    assert whole(images).shape == snn(images).shape


def test_a_footprint_counts_what_a_chip_needs() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    snn = transpike.convert(nn.Sequential(*layers).eval(), torch.rand(16, 2, 4, 4), scheme=CODES["ternary"])
    first, last = export.footprint(snn.quantise(8), export.Core(neurons=40, memory=512)).rows
    assert (first.neurons, first.fan_in, first.fan_out, first.weights, first.weight_bits) == (64, 18, 3, 72, 8)
    assert (last.neurons, last.fan_in, last.fan_out, last.weights) == (3, 64, 0, 192)
    assert first.bytes == math.ceil((72 * 8 + (4 + 128) * first.state_bits) / 8)
    assert first.cores == max(2, math.ceil(first.bytes / 512)) and last.cores == 1
    assert [row.cores for row in export.footprint(snn, export.Core(fan_in=20)).rows] == [1, None]
    assert "does not fit" in str(export.footprint(snn, export.Core(state_bits=16)))
    with pytest.raises(ConfigError, match="neurons=0"):
        export.Core(neurons=0)
