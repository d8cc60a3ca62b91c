"""Neurons of any function: several operands, constants, groups; their spikes, their error, what they are written as."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from tests.coding.oracles import estimates
from torch import Tensor

from transpike import CSS
from transpike.coding.evaluation import Evaluation, evaluation
from transpike.coding.function import Argument, Call, Constant, Function, Operand, Result
from transpike.coding.operations import Operations
from transpike.coding.operators import INPLACE, OPERATORS, aten, work
from transpike.coding.scheme import decode
from transpike.coding.tracking import TrackingNeuron
from transpike.errors import ConversionError

X, Y = Operand(0), Operand(1)
SIGMOID = Call("sigmoid.default", (Y,))
GELU = Function.of("gelu.default", X)
GATE = Function((SIGMOID, Call("mul.Tensor", (X, Result(0)))), operands=2)
NORM = Function.of("layer_norm.default", X, (4,), Constant("weight"), Constant("bias"), 1e-5)
SOFTMAX = Function.of("softmax.int", X, 1)
CONSTANTS = {"weight": torch.tensor([1.0, 0.5, 2.0, -1.0]), "bias": torch.tensor([0.1, 0.0, -0.2, 0.3])}


def gelu(x: Sequence[float]) -> list[float]:
    return [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x]


def gate(x: Sequence[float], y: Sequence[float]) -> list[float]:
    return [v / (1 + math.exp(-w)) for v, w in zip(x, y, strict=True)]


def norm(x: Sequence[float]) -> list[float]:
    mean = sum(x) / 4
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / 4 + 1e-5)
    weights, biases = (CONSTANTS[key].double().tolist() for key in ("weight", "bias"))
    return [(v - mean) / deviation * w + b for v, w, b in zip(x, weights, biases, strict=True)]


def softmax(x: Sequence[float]) -> list[float]:
    powers = [math.exp(v) for v in x]
    return [power / sum(powers) for power in powers]


ORACLES: dict[str, tuple[Function, Callable[..., list[float]]]] = {
    "gelu": (GELU, gelu),
    "gate": (GATE, gate),
    "layer_norm": (NORM, norm),
    "softmax": (SOFTMAX, softmax),
}


def neuron(function: Function, scheme: CSS, *, theta: float) -> TrackingNeuron:
    found = scheme.neuron(function, amplitude=theta, wait=scheme.wait)
    assert isinstance(found, TrackingNeuron)
    return found


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    "scheme",
    [
        CSS(steps=6, silent=2, amplitude="layer"),
        CSS(steps=5, beta=1.5, silent=1, amplitude="layer"),
        CSS(silent=0, levels=(1, 2, 4, 8), amplitude="layer"),
    ],
)
def test_every_digit_is_the_nearest_to_what_is_still_missing(name: str, scheme: CSS) -> None:
    function, oracle = ORACLES[name]
    torch.manual_seed(len(name))
    z = torch.randint(-2, 3, (function.operands, scheme.steps, 3, 4)).double()
    theta = 2.0**-scheme.steps
    fired = neuron(function, scheme, theta=theta)(list(z), CONSTANTS, inplace=False, final=True)
    for sample in range(3):
        currents = z[:, :, sample].tolist()
        told = estimates(currents, oracle, theta=theta, beta=scheme.beta, silent=scheme.silent, levels=scheme.levels)
        assert fired.spikes[:, sample].tolist() == told
        heard = [(decode(scheme, x[:, sample]) * theta).tolist() for x in z]
        target = torch.tensor(oracle(*heard), dtype=torch.float64) / theta
        assert fired.target is not None and fired.residual is not None
        torch.testing.assert_close(fired.target[sample], target, rtol=1e-6, atol=1e-9)
        left = target - decode(scheme, fired.spikes[:, sample])
        torch.testing.assert_close(fired.residual[sample], left, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ORACLES)
def test_the_decoded_error_shrinks_with_the_steps(name: str) -> None:
    function, oracle = ORACLES[name]
    values = torch.randn(function.operands, 50, 4, generator=torch.Generator().manual_seed(1))
    want = torch.tensor([oracle(*rows) for rows in values.transpose(0, 1).tolist()])
    errors = []
    for steps in (4, 8, 12):
        scheme = CSS(steps=steps, silent=3, amplitude="layer")
        theta = 5.0 / sum(scheme.weights)
        trains = [scheme.encode(x / theta) for x in values]
        fired = neuron(function, scheme, theta=theta)(trains, CONSTANTS, inplace=False, final=False)
        errors.append(float((decode(scheme, fired.spikes) * theta - want).abs().max()))
    assert errors[0] > 8 * errors[1] > 64 * errors[2] and errors[2] < 0.02


def test_a_quotient_without_a_value_waits_for_the_next_digit() -> None:
    share = Function((Call("sum.dim_IntList", (X, (1,), True)), Call("div.Tensor", (X, Result(0)))))
    z = torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]])
    fired = neuron(share, CSS(steps=2, silent=0, amplitude="layer"), theta=0.25)([z], {}, inplace=False, final=True)
    assert fired.spikes.tolist() == [[[0.0, 0.0]], [[1.0, 1.0]]]
    assert fired.target is not None and fired.target.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("name", sorted(INPLACE))
def test_writing_over_operands_changes_no_bit(name: str) -> None:
    x = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(5)).abs() + 0.1
    other: dict[str, tuple[Argument, ...]] = {"Tensor": (Constant("weight"),), "Scalar": (0.3,)}
    others = other.get(name.partition(".")[2], (0.2, 0.9) if name == "clamp.default" else ())
    for function in (Function.of(name, X, *others), GELU.then(Function.of(name, X, *others))):
        wanted, read = function(x, constants=CONSTANTS), x.clone()
        found = function(read, constants=CONSTANTS, overwrite=True)
        assert torch.equal(found, wanted)
        assert found.data_ptr() == read.data_ptr()


def test_what_is_read_twice_or_grows_is_not_written_over() -> None:
    x = torch.rand(2, 1, 4) + 0.1
    twice = Function((Call("exp.default", (X,)), Call("add.Tensor", (Result(0), X))))
    later = Function(
        (Call("neg.default", (X,)), Call("exp.default", (Result(0),)), Call("mul.Tensor", (Result(1), Result(0))))
    )
    grown = Function.of("mul.Tensor", X, Constant("scale"))
    moved = Function((Call("expand_as.default", (X, Y)), Call("exp.default", (Result(0),))), operands=2)
    constants = {"scale": torch.rand(1, 3, 1)}
    for function in (twice, later, grown, moved):
        operands = [x, torch.zeros(2, 3, 4)][: function.operands]
        wanted = function(*operands, constants=constants)
        assert torch.equal(function(*(o.clone() for o in operands), constants=constants, overwrite=True), wanted)


@pytest.mark.parametrize("name", ORACLES)
def test_gains_multiply_the_currents(name: str) -> None:
    function, _ = ORACLES[name]
    z = list(torch.randn(function.operands, 8, 3, 4, generator=torch.Generator().manual_seed(2)))
    gains = (0.7, 1.3)[: function.operands]
    layer = neuron(function, CSS(silent=0, levels=(1, 2, 4, 8), amplitude="layer"), theta=0.01)
    wanted = layer([x * gain for x, gain in zip(z, gains, strict=True)], CONSTANTS, inplace=False, final=True)
    found = layer(z, CONSTANTS, gains=gains, inplace=False, final=True)
    assert torch.equal(found.spikes, wanted.spikes) and torch.equal(found.residual, wanted.residual)  # type: ignore[arg-type]


def test_half_precision_currents_and_masks() -> None:
    mask = torch.tensor([True, False, False, False])
    function = Function(
        (Call("masked_fill.Scalar", (X, Constant("mask"), -math.inf)), *SOFTMAX.placed([Result(0)], after=1))
    )
    fired = neuron(function, CSS(steps=8, silent=2, amplitude="layer"), theta=1 / 255)(
        [torch.zeros(8, 1, 4).half()], {"mask": mask}, inplace=False, final=False
    )
    assert fired.spikes.dtype == torch.half
    said = decode(CSS(steps=8, silent=2, amplitude="layer"), fired.spikes)[0] / 255
    torch.testing.assert_close(said, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]), rtol=0, atol=0.002)
    again = Function.read(json.loads(json.dumps(function.written())))
    assert again == function and again.name == "masked_fill + softmax"


def test_what_an_evaluation_takes_is_counted_every_step() -> None:
    once = evaluation(GATE, [(3,), (3,)])
    assert once == Evaluation(additions=5 * 3, multiplications=6 * 3, group=1)
    own = neuron(Function(), CSS(steps=8, silent=2, amplitude="layer"), theta=1.0).operations(
        neurons=3, spikes=0, inputs=3
    )
    all_steps = neuron(GATE, CSS(steps=8, silent=2, amplitude="layer"), theta=1.0).operations(
        neurons=3, spikes=0, inputs=3, evaluation=once
    )
    assert all_steps == own + Operations(function_additions=5 * 30, function_multiplications=6 * 30)


@pytest.mark.parametrize(
    ("function", "shape", "group", "values"),
    [
        (Function.of("_softmax.default", X, 2, False), (4, 10), 10, 40),
        (Function.of("layer_norm.default", X, (4, 10)), (3, 4, 10), 40, 120),
        (Function.of("group_norm.default", X, 2), (6, 5, 5), 75, 150),
        (Function.of("mean.dim", X, (1, -1), True), (4, 10), 40, 40),
        (Function.of("amax.default", X, (2,)), (4, 10), 10, 40),
        (Function.of("max_pool2d.default", X, (3, 2), (2, 2)), (2, 7, 6), 6, 2 * 3 * 3 * 6),
        (Function.of("max_pool2d.default", X, (3,), (1,)), (2, 7, 6), 9, 2 * 5 * 4 * 9),
        (Function.of("adaptive_max_pool2d.default", X, (2, 2)), (3, 8, 6), 12, 3 * 4 * 12),
        (Function.of("glu.default", X, 1), (4, 10), 1, 40),
        (Function.of("gelu.default", X), (4, 10), 1, 40),
    ],
)
def test_an_evaluation_needs_its_group(function: Function, shape: tuple[int, ...], group: int, values: int) -> None:
    additions, multiplications = work(function.calls[0].operator)
    once = Evaluation(additions=additions * values, multiplications=multiplications * values, group=group)
    assert evaluation(function, [shape]) == once


def test_a_composition_needs_the_largest_group_of_its_calls() -> None:
    mean = Call("mean.dim", (X, (1,), True))
    function = Function((mean, Call("sub.Tensor", (X, Result(0))), Call("mul.Tensor", (Result(1), Constant("scale")))))
    once = evaluation(function, [(8, 5)], constants={"scale": torch.ones(5)})
    assert once == Evaluation(additions=40 + 40, multiplications=40, group=8)


def test_placed_calls_keep_their_places_among_others() -> None:
    both = Function((*GELU.calls, *GATE.placed([Result(0), Operand(1)], after=1, constants={})), operands=2)
    x, y = torch.randn(2, 3, 4)
    torch.testing.assert_close(both(x, y), torch.nn.functional.gelu(x) * y.sigmoid())
    assert both.name == "gelu + sigmoid + mul" and not both.tracked and both.operands == 2
    renamed: tuple[Argument, ...] = NORM.placed([X], after=0, constants={"weight": "a"})[0].args
    assert renamed[2:4] == (Constant("a"), Constant("bias"))


@pytest.mark.parametrize("name", ["rand_like.default", "bernoulli.default", "set_.default", "from_file.default"])
def test_only_listed_operators_are_read(name: str) -> None:
    with pytest.raises(ConversionError, match="cannot hold the operator"):
        Function.read({"operands": 1, "calls": [{"operator": name, "args": [{"operand": 0}]}]})


def test_every_listed_operator_exists_and_changes_nothing_in_place() -> None:
    for name in OPERATORS:
        schema: object = aten(name)._schema  # type: ignore[attr-defined]
        assert not any(a.alias_info and a.alias_info.is_write for a in schema.arguments), name  # type: ignore[attr-defined]
        assert "Generator" not in str(schema) and isinstance(name, str)


def test_results_are_held_no_longer_than_they_are_read() -> None:
    twice = Function(
        (
            Call("exp.default", (X,)),
            Call("add.Tensor", (Result(0), Result(0))),
            Call("mul.Tensor", (Result(1), Result(0))),
        )
    )
    seen: list[Tensor] = []
    assert twice(torch.zeros(1), watch=seen.append).tolist() == [2.0] and len(seen) == 3
    assert twice._spent == [[], [], [1, 0]] and NORM._spent == [[]]


def spikes_of(scheme: CSS, function: Function, *operands: Tensor) -> Tensor:
    return neuron(function, scheme, theta=0.1)(list(operands), {}, inplace=False, final=False).spikes


def test_samples_do_not_matter_to_each_other() -> None:
    x, y = torch.randn(2, 6, 5, 4)
    scheme = CSS(steps=6, silent=2, amplitude="layer")
    whole = spikes_of(scheme, GATE, x, y)
    parts = [spikes_of(scheme, GATE, x[:, n : n + 1], y[:, n : n + 1]) for n in range(5)]
    assert torch.equal(whole, torch.cat(parts, 1))
