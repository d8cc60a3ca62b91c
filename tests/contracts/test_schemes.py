"""What every coding scheme keeps; a new scheme is tested by being in `SCHEMES`."""

from __future__ import annotations

import copy
import json
import math
from itertools import accumulate, combinations
from pathlib import Path
from typing import cast, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conversion.nets import distance, true_statistics
from torch import Tensor, nn

import transpike
from transpike.coding import SCHEMES, Scheme, create_scheme, scheme_settings
from transpike.coding.function import Function, Operand
from transpike.coding.neuron import SteppingNeuron, WholeNeuron
from transpike.coding.residuals import Binding
from transpike.coding.scheme import decode, injected, largest, ratio, total
from transpike.conversion import Prepared, SpikingNetwork, anytime, prepare
from transpike.conversion.op import Op
from transpike.errors import ConfigError, ConversionError
from transpike.measure.conversion import compare
from transpike.neurons import tsa, weighted
from transpike.neurons.kernels import track_reference, weighted_reference
from transpike.neurons.tsa import Tracked

NAMES = sorted(SCHEMES)
X = Operand(0)
FUNCTIONS = {
    "relu": Function.of("relu.default", X),
    "relu6": Function.of("relu.default", X).then(Function.of("clamp.default", X, None, 6.0)),
    "levels": Function.of("relu.default", X)
    .then(Function.of("clamp.default", X, None, 4.0))
    .then(Function.of("round.default", X)),
    "max_pool": Function.of("max_pool2d.default", X, (2, 2)),
    "identity": Function(),
    "leaky_relu(0.1)": Function.of("leaky_relu.default", X, 0.1),
}


def scheme(name: str, *, steps: int, **settings: object) -> Scheme:
    """A scheme of so many steps, or of the next number that its code has; of one step where it has no other."""
    for count in (*range(steps, steps + 16), 24, 1):
        try:
            return create_scheme(name, {"steps": count, **settings})
        except ConfigError as error:
            if "steps" not in str(error):
                raise
    raise AssertionError(f"{name} has no number of steps near {steps}")


def currents(code: Scheme, *, seed: int) -> Tensor:
    return torch.randn(len(code.weights), 2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def unit(code: Scheme) -> float:
    return min(weight for weight in code.weights if weight)


class Net(nn.Module):
    """A skip, a maximum, a clip, averages and two outputs; every function in it is one that is never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.b, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8 * 9, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = nn.functional
        x = f.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        x = f.relu(self.b(f.relu6(self.a(x))) + x)
        logits = self.head(f.avg_pool2d(x, 2).flatten(1))
        return logits, logits.softmax(1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(64, 2, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def ann(images: Tensor) -> nn.Module:
    torch.manual_seed(3)
    return true_statistics(Net(), images)


@pytest.fixture(scope="module")
def ready(ann: nn.Module, images: Tensor) -> Prepared:
    """Traced and measured once for all schemes."""
    return prepare(ann, images)


@pytest.fixture(scope="module")
def leaky(images: Tensor) -> Prepared:
    torch.manual_seed(3)
    return prepare(nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(400, 3)), images)


@pytest.fixture(scope="module", params=NAMES)
def snn(request: pytest.FixtureRequest, ready: Prepared) -> SpikingNetwork:
    return ready.convert(scheme(request.param, steps=10))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_facts_fit_together(name: str, steps: int) -> None:
    code = scheme(name, steps=steps)
    assert len(code.weights) == len(code.entry) and all(weight >= 0 for weight in code.weights)
    assert sum(w * e for w, e in zip(code.weights, code.entry, strict=True)) == pytest.approx(1)
    assert 0 in code.digits and list(code.digits) == sorted(set(code.digits))
    assert 0 < code.full <= largest(code) <= total(code) * max(code.digits)
    assert (code.wait is None or code.wait >= 0) and code.label
    saved = json.loads(json.dumps(scheme_settings(code)))
    assert create_scheme(saved.pop("name"), saved) == code and hash(code) == hash(scheme(name, steps=steps))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 12))
def test_what_is_encoded_is_decoded(name: str, seed: int, steps: int) -> None:
    code = scheme(name, steps=steps)
    x = (torch.rand(3, 50, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * code.full
    train = code.encode(x)
    assert train.shape == (len(code.weights), 3, 50)
    error = (decode(code, train) - x).abs().max()
    if code.encoded is None:
        assert error <= 1e-5 * code.full
    else:
        assert set(train.unique().tolist()) <= set(code.encoded)
        assert error <= unit(code) + 1e-5 * code.full  # half of it where the code rounds to the nearest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spikes_have_the_type_of_the_weights_and_are_exact(
    snn: SpikingNetwork, images: Tensor, dtype: torch.dtype
) -> None:
    """Every digit is a number of half precision; what a layer accumulates is float32."""
    half, seen = copy.deepcopy(snn).to(dtype), dict[str, tuple[torch.dtype, set[float]]]()
    code = half.scheme

    def watch(op: Op, fired: Tracked) -> None:
        seen[op.name] = fired.spikes.dtype, set(fired.spikes.unique().tolist())

    half.observe(images[:8], watch)
    for op in half.graph.neurons:
        assert seen[op.name][0] == dtype and seen[op.name][1] <= set(code.digits), op.name
    z = currents(code, seed=0).to(dtype)
    neuron = code.neuron(FUNCTIONS["relu"], amplitude=0.7, wait=1)
    assert not isinstance(neuron, str)
    found, exact = (neuron([x], {}, inplace=False, final=True) for x in (z, z.float()))
    assert found.spikes.dtype == dtype and torch.equal(found.spikes.float(), exact.spikes)
    assert found.residual is not None and found.residual.dtype == torch.float32
    assert torch.equal(found.residual, exact.residual)


def test_a_type_that_does_not_hold_all_levels_is_refused(ann: nn.Module, images: Tensor) -> None:
    snn = transpike.convert(ann, images, scheme=transpike.CSS(steps=2, beta=8, silent=0, levels=tuple(range(1, 300))))
    with pytest.raises(ConfigError, match="bfloat16 does not hold all integers to 299"):
        snn.to(torch.bfloat16)(images[:2])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31))
def test_a_neuron_fires_digits_and_accounts_for_them(name: str, seed: int) -> None:
    """Charge is conserved: what a layer should say, less what it says, is its residual."""
    code = scheme(name, steps=7)
    z = currents(code, seed=seed).double()
    for function in FUNCTIONS.values():
        neuron = code.neuron(function, amplitude=0.5, wait=code.wait or 0)
        if isinstance(neuron, str):
            continue
        fired = neuron([z], {}, inplace=False, final=True)
        assert set(fired.spikes.unique().tolist()) <= set(code.digits)
        want = function.at(decode(code, z), unit=0.5)
        assert fired.target is not None and fired.residual is not None
        torch.testing.assert_close(fired.target, want)
        torch.testing.assert_close(decode(code, fired.spikes) + fired.residual, want)


@pytest.mark.parametrize("name", NAMES)
def test_gains_multiply_the_currents(name: str) -> None:
    code = scheme(name, steps=8)
    z = currents(code, seed=5)
    for function in FUNCTIONS.values():
        neuron = code.neuron(function, amplitude=0.3, wait=code.wait or 0)
        if isinstance(neuron, str):
            continue
        read = z.clone()
        found = neuron([read], {}, gains=(0.7,), inplace=False, final=False).spikes
        assert torch.equal(found, neuron([z * 0.7], {}, inplace=False, final=False).spikes)
        assert torch.equal(read, z)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_is_told_the_better_the_more_steps_there_are(name: str) -> None:
    errors: dict[Scheme, float] = {}
    for steps in (3, 6, 12):
        code = scheme(name, steps=steps)
        heard = 3 if min(code.digits) < 0 else len(code.weights)  # what is said too early must be taken back
        neuron = code.neuron(FUNCTIONS["relu"], amplitude=1.0, wait=max(code.wait or 0, heard))
        assert not isinstance(neuron, str)
        x = torch.linspace(-1, 1, 200) * code.full
        fired = neuron([injected(code, x)], {}, inplace=False, final=False)
        errors[code] = float((decode(code, fired.spikes) - x.relu()).abs().max() / code.full)
        gaps = len(code.digits) <= max(code.digits) - min(code.digits)
        assert gaps or errors[code] <= 1.01 * unit(code) / code.full
    found = list(errors.values())  # one where the code has one number of steps
    assert len(found) == 1 or found[0] > 1.5 * found[1] > 2.2 * found[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_kernels_equal_the_reference_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = scheme(name, steps=8)
    z = currents(code, seed=5)

    def fired() -> list[Tensor]:
        neurons = [code.neuron(f, amplitude=0.3, wait=code.wait or 0) for f in FUNCTIONS.values()]
        return [n([z.clone()], {}, inplace=False, final=False).spikes for n in neurons if not isinstance(n, str)]

    usual, prepare_ = fired(), tsa._prepare
    monkeypatch.setattr(tsa, "_prepare", lambda z, *, rows: (track_reference, prepare_(z, rows=rows)[1]))
    monkeypatch.setattr(weighted, "backend", lambda z: weighted_reference)
    for one, other in zip(usual, fired(), strict=True):
        assert torch.equal(one, other)


def test_no_two_schemes_have_the_same_neurons() -> None:
    """On one input, of one function at least, each fires another train, or has no neuron."""

    def trains(name: str) -> list[object]:
        code = scheme(name, steps=8)
        z = torch.randn(len(code.weights), 20, generator=torch.Generator().manual_seed(3)) * 3
        neurons = [code.neuron(f, amplitude=1.0, wait=code.wait or 0) for f in FUNCTIONS.values() if not f.pools]
        fired = (n if isinstance(n, str) else n([z.clone()], {}, inplace=False, final=False) for n in neurons)
        return [None if isinstance(each, str) else each.spikes.tolist() for each in fired]

    every = {name: trains(name) for name in NAMES}
    for one, other in combinations(NAMES, 2):
        assert every[one] != every[other], (one, other)


@pytest.mark.parametrize("name", NAMES)
def test_pieces_of_a_train_are_the_train(name: str) -> None:
    """A layer that can go on where it stopped fires as in one run; one that hears all reads nothing but the value."""
    code = scheme(name, steps=12)
    z = currents(code, seed=1)
    for function in FUNCTIONS.values():
        neuron = code.neuron(function, amplitude=0.5, wait=code.wait or 0)
        if isinstance(neuron, str):
            continue
        fired = neuron([z.clone()], {}, inplace=False, final=True)
        assert fired.residual is not None and fired.target is not None
        if code.whole:
            neuron = cast("WholeNeuron", neuron)
            found = neuron.values([decode(code, z)], {})
            pieces = [neuron.train(found.spikes, range(k, k + 4)) for k in (0, 4, 8)]
            torch.testing.assert_close(found.spikes, decode(code, fired.spikes))
            ends = (found.residual, found.target)
        elif isinstance(neuron, SteppingNeuron):
            layer, idle = neuron.begin({}), code.wait or 0
            pieces = [layer([part], idle=0) for part in z.split(4)]
            pieces += [layer([z[:0]], idle=idle)] if idle else []
            ends = layer.ended()
        else:
            continue
        assert torch.equal(torch.cat(pieces), fired.spikes)
        torch.testing.assert_close(ends, (fired.residual, fired.target))


def test_a_network_comes_nearer_to_its_original_with_more_steps(
    snn: SpikingNetwork, ready: Prepared, ann: nn.Module, images: Tensor
) -> None:
    name, errors = str(scheme_settings(snn.scheme)["name"]), []
    for code in dict.fromkeys(scheme(name, steps=steps, percentile=100) for steps in (3, 6, 12, 96)):
        try:
            converted = ready.convert(code)
        except ConfigError:  # more steps than the code has
            break
        errors.append(distance(converted(images)[0], ann(images)[0]))
    assert (len(errors) == 1 or errors[0] > errors[-1]) and errors[-1] < 0.1, errors


def test_the_analog_network_is_the_original(snn: SpikingNetwork, ann: nn.Module, images: Tensor) -> None:
    for got, want in zip(snn.analog(images), ann(images), strict=True):
        assert distance(got, want) < 1e-5


def test_saved_and_loaded_to_the_bit(snn: SpikingNetwork, images: Tensor, tmp_path: Path) -> None:
    snn.save(tmp_path / "net")
    read = transpike.load(tmp_path / "net")
    assert read.scheme == snn.scheme and (read.latency, read.interval) == (snn.latency, snn.interval)
    assert all(torch.equal(a, b) for a, b in zip(read(images), snn(images), strict=True))


def test_a_chunked_run_equals_a_whole_run(snn: SpikingNetwork, images: Tensor) -> None:
    whole = [layer.spikes for layer in snn.trace(images[:8]).values()]
    snn.chunk = 4
    try:
        parts = [layer.spikes for layer in snn.trace(images[:8]).values()]
    finally:
        snn.chunk = None
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def streams(snn: SpikingNetwork) -> bool:
    stepping = all(isinstance(neuron, SteppingNeuron) for neuron in snn.neurons.values())
    return stepping and ratio(snn.scheme) is not None


def test_pieces_of_steps_equal_a_whole_run(snn: SpikingNetwork, images: Tensor) -> None:
    """Of a scheme that streams, to the bit, for many samples and for few; any other says that it does not."""
    if not streams(snn):
        with pytest.raises(ConversionError, match="does not stream"):
            snn.stream(images)
        return
    for count in (64, 20, 3):
        whole, moments = snn(images[:count]), list(snn.stream(images[:count]))
        assert [moment.step for moment in moments] == list(range(1, snn.steps + 1))
        assert moments[-1].latency == snn.latency
        assert all(torch.equal(a, b) for a, b in zip(moments[-1].outputs, whole, strict=True))
        for moment in moments:
            assert ((moment.outputs[0] - whole[0]).abs() <= moment.bound[0] + 1e-4).all()
        assert not moments[-1].bound[0].any() and moments[0].bound[1].isinf().all()


def test_a_sample_that_stops_has_what_the_whole_run_says_then(snn: SpikingNetwork, images: Tensor) -> None:
    if not streams(snn):
        return
    rule = snn.calibrate_stop(images[32:])
    answer, moments = snn.until(images[:32], agreement=0.9), list(snn.stream(images[:32]))
    steps = rule.stops(torch.stack([moment.outputs[0] for moment in moments]), anytime.left(snn), agreement=0.9)
    assert torch.equal(answer.steps, steps)
    for k, step in enumerate(steps.tolist()):
        for got, want in zip(answer.outputs, moments[step - 1].outputs, strict=True):
            assert torch.equal(got[k], want[k])
    assert torch.equal(answer.latency, steps + snn.latency - snn.steps)


def test_a_sample_alone_is_as_in_its_batch(snn: SpikingNetwork, images: Tensor) -> None:
    together = snn(images[:6])[0]
    alone = torch.cat([snn(image[None])[0] for image in images[:6]])
    assert distance(alone, together) < 1e-2


def test_traces_hold_digits_and_decode_to_what_was_sent(snn: SpikingNetwork, images: Tensor) -> None:
    trace = snn.trace(images[:4])
    assert list(trace) == ["input", *(op.name for op in snn.graph.neurons)]
    for name, layer in trace.items():
        if name != "input":
            assert set(layer.spikes.unique().tolist()) <= set(snn.scheme.digits)
            assert layer.target is not None and layer.residual is not None
            said = decode(snn.scheme, layer.spikes)
            assert torch.allclose(said + layer.residual, layer.target, atol=1e-4 * snn.scheme.full)


def test_the_clock(snn: SpikingNetwork) -> None:
    """The longest path has four neurons... and the classifier, which accumulates."""
    steps, wait, waits = len(snn.scheme.weights), snn.scheme.wait, list(snn.timing.waits.values())
    assert all(each >= 0 if wait is None else each == wait for each in waits) and snn.depth == 4
    assert snn.latency == steps + sum(waits) + (wait or 0)  # where a wait is chosen, what is decoded waits for none
    assert snn.interval == steps + max(waits)
    assert {n for n in snn.delays.values() if n} <= set(waits)
    assert wait is None or sorted({n for n in snn.delays.values() if n}) == ([wait] if wait else [])
    rows = snn.describe().rows
    assert [row.first_spike for row in rows] == [0, *accumulate(waits)]


def test_it_is_measured(snn: SpikingNetwork, images: Tensor) -> None:
    labels = torch.zeros(len(images), dtype=torch.long)
    row = compare(snn, [(images, labels)], layer_images=8).row
    assert row.steps == len(snn.scheme.weights) and row.latency == snn.latency
    assert row.energy_uj > 0 and row.logit_error is not None and math.isfinite(row.logit_error)
    assert len(row.layers) == 1 + len(snn.graph.neurons)
    analog_input = snn.scheme.encoded is None
    assert (row.layers[0].spikes_per_neuron == 0) == analog_input
    negative = min(snn.scheme.digits) < 0
    assert negative or row.negative_per_neuron == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_a_neuron_or_a_reason(name: str, function: str) -> None:
    code = scheme(name, steps=4)
    found = code.neuron(FUNCTIONS[function], amplitude=1.0, wait=code.wait or 0)
    assert not isinstance(found, str) or (found and "\n" not in found)
    assert function not in ("relu", "relu6") or not isinstance(found, str)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_neurons_is_refused_in_one_error(name: str, leaky: Prepared, images: Tensor) -> None:
    code = scheme(name, steps=4)
    if not isinstance(code.neuron(FUNCTIONS["leaky_relu(0.1)"], amplitude=1.0, wait=code.wait or 0), str):
        assert leaky.convert(code)(images).shape == (64, 3)
        return
    with pytest.raises(ConversionError, match=r"1: .*negative"):
        leaky.convert(code)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 8])
def test_its_remedies_are_other_settings_of_its_own(name: str, steps: int) -> None:
    code = scheme(name, steps=steps)
    chosen = {key: value for key, value in scheme_settings(code).items() if key != "name"}
    for binding in get_args(Binding):
        for foreseen in (True, False):
            remedy = code.remedy(binding, foreseen=foreseen)
            if remedy is not None:
                assert len(remedy) == 1 and create_scheme(name, chosen | dict(remedy)) != code
