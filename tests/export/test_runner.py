"""The reference runner against the simulation: the same spikes, the clock that the network promises."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conversion.nets import Between
from tests.export.networks import BODIES, CODES, SHAPE, body

import transpike
from transpike import export
from transpike.coding import QCFS, TSC, TTFS, Differential, Phase, Rate
from transpike.coding.function import Call, Constant, Function, Operand, Result
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.conversion import SpikingNetwork
from transpike.errors import ConfigError, ConversionError, ModelError
from transpike.export import linear
from transpike.export.bundle import Bundle, Node, read
from transpike.export.neurons import Encoder, Neurons
from transpike.neurons.tsa import Code, encode


def same_spikes(snn: SpikingNetwork, images: torch.Tensor, found: export.Run) -> None:
    """Digit for digit, and each at the step that the network's clock says."""
    assert found.spikes is not None
    for number, name in enumerate(found.layers):
        spikes = snn.trace(images)[name].spikes.flatten(2)
        rows = found.spikes[found.spikes["layer"] == number]
        mine = np.zeros(spikes.shape)
        image, step = np.divmod(rows["step"] - snn.timing.first_spike[name], snn.interval)
        mine[step, image, rows["neuron"]] = rows["digit"]
        assert np.array_equal(mine, spikes.numpy()), name
        assert found.events[name] == int((spikes != 0).sum())


@pytest.mark.parametrize("name", BODIES)
def test_every_operation_sends_the_same_spikes(name: str, tmp_path: Path) -> None:
    """In double precision, where the order of sums turns no decision."""
    snn, images = body(name, double=True)
    snn.save(tmp_path)
    found = export.run(tmp_path, images, record=True)
    same_spikes(snn, images, found)
    assert np.allclose(found.outputs, snn(images), rtol=1e-9, atol=1e-12)
    assert (found.latency, found.interval) == (snn.latency, snn.interval)


@pytest.mark.parametrize("code", CODES)
def test_every_code_runs_on_its_clock(code: str, tmp_path: Path) -> None:
    name = "grouped" if code in ("ternary", "levels") else "residual"
    if code == "unsigned":
        torch.manual_seed(0)
        ann = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 4)).eval()
        images = torch.rand(16, 6).double()
        snn = transpike.convert(ann, images.float(), scheme=CODES[code]).double()
    elif code not in ("ternary", "levels", "paper", "many levels"):
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()]
        ann = torch.nn.Sequential(*layers, torch.nn.Linear(16, 5), torch.nn.ReLU6(), torch.nn.Linear(5, 3)).eval()
        images = torch.rand(16, 2, 6, 6).double()
        snn = transpike.convert(ann, images.float(), scheme=CODES[code]).double()
    else:
        snn, images = body(name, code, double=True)
    snn.save(tmp_path)
    found = export.run(tmp_path, images[:3], record=True)
    same_spikes(snn, images[:3], found)
    assert np.allclose(found.outputs, snn(images[:3]), rtol=1e-9, atol=1e-12)
    assert (found.latency, found.interval) == (snn.latency, snn.interval)


@pytest.mark.parametrize("bits", [None, 8])
def test_gains_on_the_edges_of_neurons_are_kept(bits: int | None, tmp_path: Path) -> None:
    """With one amplitude a layer, a gate reads a train through the ratio of both amplitudes."""
    code = transpike.CSS(steps=8, silent=1, amplitude="layer")
    snn, images = body("squeeze and excitation", code, double=True)
    assert any(gain != 1 for op in snn.graph.neurons for gain in op.gains)
    snn = snn.quantise(bits) if bits else snn
    snn.save(tmp_path)
    found = export.run(tmp_path, images, record=True)
    same_spikes(snn, images, found)
    assert np.allclose(found.outputs, snn(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_adds_place_by_place_and_channel_by_channel(groups: int, tmp_path: Path) -> None:
    """Each sum rounded to float32, the bias last."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=groups), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3)]
    snn = transpike.convert(torch.nn.Sequential(*layers).eval(), torch.rand(16, 6, 7, 7))
    snn.save(tmp_path)
    bundle = read(tmp_path)
    weight, bias = (bundle.by_name["0"].tensors[key] for key in ("weight", "bias"))
    digits = torch.randint(-1, 2, (1, 6, 7, 7)).float().numpy()
    found, additions = linear.make(bundle.by_name["0"], bundle)(0, [digits])
    padded, inputs = np.pad(digits[0], [(0, 0), (1, 1), (1, 1)]), 6 // groups
    expected = np.zeros((4, 4, 4), np.float32)
    for (c, y, x), k, i in product(np.ndindex(4, 4, 4), range(9), range(inputs)):
        digit = padded[c // (4 // groups) * inputs + i, 2 * y + k // 3, 2 * x + k % 3]
        expected[c, y, x] += weight[c, i, k // 3, k % 3] * digit
    assert np.array_equal(found[0], expected + bias[:, None, None])
    wide = torch.nn.functional.conv2d(
        *(torch.tensor(x).double() for x in (digits, weight, bias)), stride=2, padding=1, groups=groups
    )
    assert not np.array_equal(found[0], wide[0].float()) and np.allclose(found[0], wide[0], atol=1e-5)
    reached = torch.nn.functional.conv2d((torch.tensor(digits) != 0).float(), torch.ones(4, inputs, 3, 3), stride=2,
                                         padding=1, groups=groups)  # fmt: skip
    assert additions == int(reached.sum())


def test_images_in_flight_do_not_disturb_each_other(tmp_path: Path) -> None:
    snn, images = body("residual", transpike.CSS(steps=6, silent=2), double=True)
    assert snn.latency > 2 * snn.interval, "several images are on their way at once"
    snn.save(tmp_path)
    streamed = export.run(tmp_path, images)
    alone = [export.run(tmp_path, images[k : k + 1]).outputs for k in range(len(images))]
    assert np.array_equal(streamed.outputs, np.concatenate(alone))
    apart = export.run(tmp_path, images, interval=snn.interval + 5)
    assert np.array_equal(streamed.outputs, apart.outputs) and apart.interval == snn.interval + 5
    with pytest.raises(ConfigError, match=f"interval={snn.interval - 1}: expected a whole number of at least"):
        export.run(tmp_path, images, interval=snn.interval - 1)


def test_delays_hold_the_spikes_of_a_skip(tmp_path: Path) -> None:
    """A chain queues nothing; a skip around a layer that waits holds its events for as long."""
    snn, images = body("residual", transpike.CSS(steps=6, silent=2))
    snn.save(tmp_path)
    found = export.run(tmp_path, images[:1])
    held = {edge: steps for edge, steps in snn.delays.items() if steps}
    assert held and 0 < found.queued <= sum(found.events.values())
    chain, images = body("grouped")
    chain.save(tmp_path / "chain")
    assert export.run(tmp_path / "chain", images[:1]).queued == 0


def test_synapses_are_counted_as_the_cost_of_a_network_counts_them(tmp_path: Path) -> None:
    from transpike.conversion.cost import fan_out

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)]
    images = torch.rand(16, 2, 4, 4)
    snn = transpike.convert(torch.nn.Sequential(*layers).eval(), images, scheme=transpike.CSS(steps=4))
    snn.save(tmp_path)
    found = export.run(tmp_path, images[:2])
    trace, fans = snn.trace(images[:2]), fan_out(snn.graph)
    expected = sum(float(((trace[name].spikes != 0) * fan).sum()) for name, fan in fans.items())
    assert found.synaptic_updates == expected
    assert found.neuron_updates == 2 * 64 * (4 + snn.timing.waits["1"])


NEURONS = {
    "relu": (Function.of("relu.default", Operand(0)), 1),
    "relu6": (Function.of("clamp.default", Operand(0), 0.0, 6.0), 1),
    "leaky": (Function.of("leaky_relu.default", Operand(0), 0.1), 1),
    "identity": (Function(), 1),
    "slopes": (Function.of("_prelu_kernel.default", Operand(0), Constant("slope")), 1),
    "hard-swish": (Function.of("hardswish.default", Operand(0)), 1),
    "a gate": (
        Function((Call("hardsigmoid.default", (Operand(0),)), Call("mul.Tensor", (Operand(1), Result(0)))), 2),
        2,
    ),
}
RULES = {
    "ternary": Code(steps=8, beta=2.0, silent=2),
    "levels": Code(steps=6, beta=2.0, silent=0, levels=(1, 2, 4, 8)),
    "the paper's": Code(steps=12, beta=1.5, silent=1),
    "sixteen": Code(steps=3, beta=4.0, silent=1, levels=tuple(range(1, 17))),
    "from half": Code(steps=16, beta=1.0, silent=0, signed=False, start=0.5),
    "whole": Code(steps=8, beta=2.0, silent=8, signed=False),
}


def bundle_of(code: Code, node: Node) -> Bundle:
    empty: dict[tuple[str, str], int] = {}
    return Bundle(
        nodes=(node,), outputs=(), container="tensor", spiking=frozenset(), readouts=frozenset(), weights=code.weights,
        entry=(), encoded=tuple(code.levels), ratio=code.beta, wait=0, latency=1, interval=1, delays=empty,
        dtype=np.dtype(np.float32),
    )  # fmt: skip


PAIRS = [
    (name, code)
    for name, (function, _) in NEURONS.items()
    for code, rule in RULES.items()
    if rule.signed or not TrackingNeuron.refusal(function, signed=False)
]


@pytest.mark.parametrize(("name", "code"), PAIRS)
def test_a_neuron_equals_ours_to_the_bit_on_the_same_currents(name: str, code: str) -> None:
    from transpike.conversion.save import tail

    function, operands = NEURONS[name]
    constants = {"slope": torch.rand(50) - 0.5}
    ours = TrackingNeuron(code=RULES[code], function=function, amplitude=0.7, last=0.5)
    currents = [torch.randn(RULES[code].steps, 1, 50) * 2 for _ in range(operands)]
    expected = ours([z.clone() for z in currents], constants, inplace=False, final=False).spikes
    node = Node(
        name="n", kind="call", inputs=("a",) * operands, shape=(50,), args={}, gains=(),
        tensors={key: t.numpy() for key, t in constants.items()},
        calls=tuple(json.loads(json.dumps(function.written()["calls"]))), tail=tail(function), rule=ours.rule(),
        fires=True, unit=0.7, wait=RULES[code].silent,
    )  # fmt: skip
    layer = Neurons(node, bundle_of(RULES[code], node))
    fired = []
    for step in range(RULES[code].steps + RULES[code].silent):
        arriving = [z[step].numpy() for z in currents] if step < RULES[code].steps else []
        digit, distance = layer(step, arriving)
        if digit is not None and distance is not None:
            fired.append(digit)
            assert (distance >= 0).all() and distance.shape == digit.shape
    assert np.array_equal(np.stack(fired), expected.numpy())
    assert len(np.unique(np.stack(fired))) > 1


@pytest.mark.parametrize("code", [code for code in RULES.values() if code.signed], ids=str)
def test_the_encoder_equals_ours_to_the_bit(code: Code) -> None:
    x = torch.randn(1, 300) * code.weights[0]
    relative = torch.rand(300) + 0.1
    node = Node("input", "input", (), (300,), {}, (), {"relative": relative.numpy()}, (), None, None, False, 0.3, 0)
    encoder = Encoder(bundle_of(code, node))
    encoder.start(x.numpy())
    fired = np.stack([encoder(step)[0] for step in range(code.steps)])
    assert np.array_equal(fired, encode(x / relative / 0.3, code=code).numpy())


def test_what_turns_by_rounding_is_reported(tmp_path: Path) -> None:
    """An image whose value lies on a threshold of the encoder is told; others are not."""
    ann = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2)).eval()
    images = torch.rand(64, 2)
    snn = transpike.convert(ann, images, scheme=transpike.CSS(steps=4, silent=1, amplitude="layer"))
    snn.save(tmp_path)
    at = torch.tensor([[0.5 * snn.units["input"], 0.0]])
    on, off = export.run(tmp_path, at), export.run(tmp_path, images[:1])
    assert on.close[0] > 0 and on.nearest[0] < export.CLOSE
    assert off.nearest[0] > export.CLOSE and off.close[0] == 0


def test_large_values_round_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision of a value of hundreds of theta may turn farther from its threshold; in float32 alone."""
    snn, images = body("residual", "levels")
    snn.save(tmp_path / "single")
    before = export.run(tmp_path / "single", images)
    monkeypatch.setattr("transpike.export.neurons.ROUNDING", 1e-3)
    after = export.run(tmp_path / "single", images)
    assert (after.close > before.close).all() and np.array_equal(after.nearest, before.nearest)
    snn.double().save(tmp_path / "double")
    assert export.run(tmp_path / "double", images.double()).close.sum() < after.close.sum() / 10


def test_the_runner_needs_no_torch(tmp_path: Path) -> None:
    snn, images = body("squeeze and excitation")
    snn.save(tmp_path / "net")
    np.save(tmp_path / "images.npy", images.numpy())
    code = (
        "import sys, numpy as np\n"
        "from transpike import export\n"
        f"print(export.run({str(tmp_path / 'net')!r}, np.load({str(tmp_path / 'images.npy')!r})).outputs.argmax(1))\n"
        "assert not {'torch', 'numba', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(snn(images).argmax(1).numpy())


def test_recorded_spikes_are_written_and_read_back(tmp_path: Path) -> None:
    snn, images = body("grouped")
    snn.save(tmp_path / "net")
    found = export.run(tmp_path / "net", images[:1], record=True)
    path = found.save_spikes(tmp_path / "spikes.npz")
    assert found.spikes is not None
    with np.load(path) as table:
        assert [str(name) for name in table["layers"]] == list(found.layers)
        assert all(np.array_equal(table[column], found.spikes[column]) for column in ("step", "neuron", "digit"))
    found.save_spikes(path)  # over its own kind
    (tmp_path / "mine.npz").write_text("mine")
    with pytest.raises(ModelError, match=r"mine\.npz: already exists and is not spikes"):
        found.save_spikes(tmp_path / "mine.npz")
    with pytest.raises(ModelError, match="record=True"):
        export.run(tmp_path / "net", images[:1]).save_spikes(path)


def test_wrong_images_are_one_clear_error(tmp_path: Path) -> None:
    snn, images = body("grouped")
    snn.save(tmp_path)
    for wrong in (images[:, :2], images.int(), images[:0], images[0]):
        with pytest.raises(ConversionError, match=r"expects floating-point images \[N, 3, 8, 8\]"):
            export.run(tmp_path, wrong)
    with pytest.raises(ConversionError, match="not finite"):
        export.run(tmp_path, images * np.nan)


OTHERS = [
    *(Phase(steps=8), Differential(steps=4), TTFS(steps=8), TSC(steps=8)),
    *(QCFS(steps=4, pre=2), Rate.calibrated(steps=4)),
]


@pytest.mark.parametrize("scheme", OTHERS, ids=lambda scheme: type(scheme).__name__)
def test_a_neuron_of_another_kind_is_refused_by_name(scheme: Scheme, tmp_path: Path) -> None:
    """By every exporter, with what can be done, and nothing is written."""
    ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    snn = transpike.convert(ann, torch.rand(32, 4), scheme=scheme)
    snn.save(tmp_path / "net")
    name, remedy = type(scheme).__name__, "convert with css, burst, fs, multithreshold or the default rate"
    with pytest.raises(ModelError, match=f"1: the NumPy runner does not have the neurons of {name.lower()}; {remedy}"):
        export.run(tmp_path / "net", torch.rand(1, 4))
    for write in (export.onnx, export.torch_program):
        with pytest.raises(ModelError, match=f"1: the neurons of {name} have no step to export; {remedy}"):
            write(snn, tmp_path / "step")
    kind = (
        "1: NIR has no node" if name == "Rate" else f"{name}: NIR has no spike .*; convert with transpike.coding.Rate"
    )
    with pytest.raises(ModelError, match=f"^{kind}"):
        export.nir(snn, tmp_path / "net.nir")
    with pytest.raises(ConversionError, match=f"^{name}.* whole numbers.*CSS"):
        snn.quantise()
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_what_it_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Mish(), torch.nn.Linear(8, 2)).eval()
    transpike.convert(ann, torch.rand(32, 4), scheme=transpike.CSS(steps=4)).save(tmp_path)
    with pytest.raises(
        ModelError, match=r"1: the NumPy runner does not have the operator 'mish.default'. Export the network to ONNX"
    ):
        export.run(tmp_path, torch.rand(1, 4))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", "other", "not a spiking network of format version 4"),
        ("version", 3, "not a spiking network of format version 4"),
        ("ops", [], "no operations"),
        ("units", 3, "units=3: expected an object"),
        ("code", {"weights": [1.0]}, "code.entry is missing"),
        ("delays", [["input"]], "damaged"),
        ("delays", [["a", "b", 10**9]], "delays=1000000000: expected a whole number from 0 to 16384"),
        ("interval", 10**9, "interval=1000000000: expected"),
        ("weights_sha256", "0", "not the one it was written with"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(field: str, value: object, words: str, tmp_path: Path) -> None:
    snn, images = body("grouped")
    snn.save(tmp_path)
    network = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(network | {field: value}))
    with pytest.raises(ModelError, match=words):
        export.run(tmp_path, images)
    with pytest.raises(ModelError, match="give the folder that"):
        read(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def stopping(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpikingNetwork, torch.Tensor, Path]:
    """Waits, a skip that is delayed, a softmax behind the output, and a stop rule; in double precision."""
    torch.manual_seed(0)
    ann = torch.nn.Sequential(Between(BODIES["residual"](), SHAPE), torch.nn.Softmax(1)).eval()
    images = torch.randn(80, *SHAPE)
    scheme = transpike.CSS(steps=8, levels=(1, 2), silent=1)
    snn = transpike.convert(ann, images[:32], scheme=scheme).double()
    snn.calibrate_stop(images.double()[:60])
    folder = tmp_path_factory.mktemp("stopping")
    snn.save(folder)
    return snn, images.double()[60:], folder


@pytest.mark.parametrize("score", ["bound", "margin", "entropy", "steady"])
def test_images_stop_at_the_steps_at_which_they_do_in_the_simulation(
    score: str, stopping: tuple[SpikingNetwork, torch.Tensor, Path], tmp_path: Path
) -> None:
    snn, images, _ = stopping
    rule = snn.calibrate_stop(images.flip(0), score=score)
    snn.save(tmp_path)
    loaded = transpike.load(tmp_path)
    assert loaded.stop == rule
    answer, found = snn.until(images, agreement=0.8), export.run(tmp_path, images, agreement=0.8)
    assert found.steps.tolist() == answer.steps.tolist() and len(set(found.steps.tolist())) > 1
    assert np.allclose(found.outputs, answer.outputs, rtol=1e-9, atol=1e-12)
    assert found.latency == snn.latency and found.interval == snn.interval


def test_nothing_moves_on_for_an_image_that_has_stopped(stopping: tuple[SpikingNetwork, torch.Tensor, Path]) -> None:
    snn, images, folder = stopping
    full, found = export.run(folder, images, record=True), export.run(folder, images, record=True, agreement=0.8)
    assert found.neuron_updates < full.neuron_updates and found.synaptic_updates < full.synaptic_updates
    assert full.steps.tolist() == [8] * len(images)
    arrived = snn.latency - snn.steps - 1  # the output waits a step, too
    assert found.spikes is not None and full.spikes is not None
    table = full.spikes
    layer = snn.timing.first_spike[full.layers[-1]]
    last = table[table["layer"] == len(full.layers) - 1]
    image, step = np.divmod(last["step"] - layer, snn.interval)
    kept = last[step <= arrived + found.steps[image] - 1 - layer]
    assert np.array_equal(kept, found.spikes[found.spikes["layer"] == len(full.layers) - 1]) and len(kept) < len(last)


def test_whole_numbers_stop_alike(tmp_path: Path) -> None:
    snn, images = body("grouped", "levels")
    whole = snn.quantise(8)
    whole.calibrate_stop(torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(5)))
    whole.save(tmp_path)
    found, answer = export.run(tmp_path, images, agreement=0.9), whole.until(images, agreement=0.9)
    assert found.steps.tolist() == answer.steps.tolist() and np.array_equal(found.outputs, answer.outputs)


def test_an_agreement_needs_a_rule_of_enough_images(
    stopping: tuple[SpikingNetwork, torch.Tensor, Path], tmp_path: Path
) -> None:
    _, images, folder = stopping
    with pytest.raises(ConfigError, match=r"agreement=0.999: the rule comes from 60 images, enough for 0.98"):
        export.run(folder, images, agreement=0.999)
    snn, images = body("grouped")
    snn.save(tmp_path)
    with pytest.raises(ConfigError, match=r"agreement=0.9: the network was saved without a stop rule"):
        export.run(tmp_path, images, agreement=0.9)
