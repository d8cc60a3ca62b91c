"""A converted network as files: equal to the bit, without the class it came from, and distrustful of what it reads."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conversion.nets import Between
from torch import Tensor, nn

from transpike import CSS, convert, load
from transpike.conversion import SpikingNetwork
from transpike.errors import ModelError, TranspikeError

SHAPE = (3, 8, 8)
SCHEME = CSS(steps=6, beta=1.75, silent=1, levels=(1, 2), percentile=99.5, amplitude="layer")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def snn(images: Tensor) -> SpikingNetwork:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.PReLU(8), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1), nn.ReLU6())
    return convert(nn.Sequential(Between(body, SHAPE), nn.Softmax(1)), images, scheme=SCHEME)


@pytest.fixture
def saved(snn: SpikingNetwork, tmp_path: Path) -> Path:
    snn.save(tmp_path / "net")
    return tmp_path / "net"


def test_what_is_read_equals_what_was_saved_to_the_bit(snn: SpikingNetwork, saved: Path, images: Tensor) -> None:
    read = load(saved)
    assert torch.equal(read(images), snn(images)) and torch.equal(read.analog(images), snn.analog(images))
    assert read.scheme == SCHEME and read.units == snn.units and read.clipped == snn.clipped
    assert read.timing.waits == snn.timing.waits and read.graph.joined == snn.graph.joined
    assert (read.latency, read.interval, read.delays) == (snn.latency, snn.interval, snn.delays)
    for (name, a), (other, b) in zip(snn.trace(images).items(), read.trace(images).items(), strict=True):
        assert name == other and torch.equal(a.spikes, b.spikes) and a.amplitude == b.amplitude
    read.save(saved.parent / "again")
    for name in ("network.json", "weights.safetensors"):
        assert (saved.parent / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_half_precision_survives(snn: SpikingNetwork, images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(4)
    half = convert(Between(nn.Conv2d(8, 8, 3), SHAPE), images, scheme=SCHEME).to(torch.bfloat16)
    half.save(tmp_path)
    assert load(tmp_path).dtype == torch.bfloat16 and torch.equal(load(tmp_path)(images), half(images))


def test_saving_over_an_earlier_network_replaces_it(saved: Path, images: Tensor) -> None:
    other = convert(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), images)
    other.save(str(saved))
    assert sorted(path.name for path in saved.iterdir()) == ["network.json", "weights.safetensors"]
    assert torch.equal(load(str(saved))(images), other(images))


def test_it_loads_where_the_models_class_does_not_exist(snn: SpikingNetwork, saved: Path, images: Tensor) -> None:
    save_file({"x": images, "y": snn(images)}, saved.parent / "expected.safetensors")
    code = (
        "import sys, torch, transpike\n"
        "from safetensors.torch import load_file\n"
        "torch.set_num_threads(1)\n"
        "e = load_file(sys.argv[2])\n"
        "assert torch.equal(transpike.load(sys.argv[1])(e['x']), e['y'])\n"
        "assert not [m for m in sys.modules if m.startswith('tests')], 'the class is there'\n"
        "print('equal')"
    )
    command = [sys.executable, "-c", code, str(saved), str(saved.parent / "expected.safetensors")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=saved.parent, timeout=120)
    assert run.stdout.strip() == "equal", run.stderr


def op(network: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in network["ops"] if entry["kind"] == kind)


def call(network: dict[str, Any]) -> dict[str, Any]:
    """The first operator of the first neuron's function."""
    first: dict[str, Any] = op(network, "call")["function"]["calls"][0]
    return first


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another program's": (lambda n: n.update(format="other"), "not a transpike spiking network"),
    "a later version": (lambda n: n.update(version=99), "format version 99"),
    "no operations": (lambda n: n.update(ops=[]), "damaged"),
    "no units": (lambda n: n.pop("units"), "damaged"),
    "an amplitude missing": (lambda n: n["units"].pop("input"), "damaged"),
    "an amplitude not a number": (lambda n: n["units"].update(input=float("nan")), "NaN"),
    "an amplitude of text": (lambda n: n["units"].update(input="much"), "damaged"),
    "an unknown scheme": (lambda n: n["scheme"].update(name="Nothing"), "scheme='Nothing': expected 'css'"),
    "an unknown option": (lambda n: n["scheme"].update(colour=3), "no setting 'colour'"),
    "a wrong option": (lambda n: n["scheme"].update(steps=0), "steps"),
    "an unknown operation": (lambda n: op(n, "reshape").update(kind="eval"), "unknown operation 'eval'"),
    "a refused operator": (lambda n: call(n).update(operator="system.default"), "cannot hold the operator"),
    "an operator of files": (
        lambda n: op(n, "reshape").update(kind="resample", args={"operator": "from_file.default", "args": []}),
        "cannot hold",
    ),
    "an operator by path": (lambda n: call(n).update(operator="__class__.__init__"), "cannot hold"),
    "an operator that writes": (lambda n: call(n).update(operator="set_.default"), "cannot hold"),
    "an operand that is not there": (lambda n: call(n).update(args=[{"operand": 1}]), "is not an argument"),
    "a result of a later call": (lambda n: call(n).update(args=[{"result": 0}]), "is not an argument"),
    "a constant that is not there": (lambda n: call(n).update(args=[{"constant": "x"}]), "damaged"),
    "more operands than inputs": (lambda n: op(n, "call")["function"].update(operands=2), "but its function has 2"),
    "firing in words": (lambda n: op(n, "call").update(fires="yes"), "true or false"),
    "a wait missing": (lambda n: n["waits"].popitem(), "waits"),
    "a wait below zero": (lambda n: n["waits"].update(dict.fromkeys(n["waits"], -1)), "waits"),
    "a wait of half a step": (lambda n: n["waits"].update(dict.fromkeys(n["waits"], 0.5)), "waits"),
    "the first format": (lambda n: n.update(version=1), "format version 1, .* convert again"),
    "steps of half": (lambda n: n["scheme"].update(steps=1.5), "steps=1.5: expected a whole number"),
    "an amplitude of zero": (lambda n: n["units"].update(input=0.0), "amplitude"),
    "a negative amplitude": (lambda n: n["units"].update(input=-1.0), "amplitude"),
    "an unknown input": (lambda n: n["ops"][3].update(inputs=["nobody"]), "damaged"),
    "no input": (lambda n: n["ops"][3].update(inputs=[]), "damaged"),
    "a loop": (lambda n: n["ops"][1].update(inputs=[n["ops"][2]["name"]]), "damaged"),
    "operations in another order": (lambda n: n["ops"].reverse(), "damaged"),
    "an operation twice": (lambda n: n["ops"].append(n["ops"][-1]), "damaged"),
    "an unknown output": (lambda n: n.update(outputs=["nobody"]), "damaged"),
    "a wrong container": (lambda n: n.update(container=["a", "b", "c"]), "damaged"),
    "a wrong shape": (lambda n: op(n, "input").update(shape=[3, 9, 8]), "damaged"),
    "a shape of text": (lambda n: op(n, "input").update(shape="big"), "damaged"),
    "a missing tensor": (lambda n: op(n, "linear")["tensors"].append("extra"), "damaged"),
    "a wrong stride": (lambda n: op(n, "convolution")["args"].update(stride=[7, 7]), "damaged"),
    "a stride of five axes": (lambda n: op(n, "convolution")["args"].update(stride=[1] * 5), "damaged"),
    "a slope of text": (
        lambda n: op(n, "call")["function"]["calls"].append(
            {"operator": "leaky_relu.default", "args": [{"result": 0}, "steep"]}
        ),
        "damaged",
    ),
    "another latency": (lambda n: n.update(latency=1), "latency=1: expected 10 for this scheme and these waits"),
    "another interval": (lambda n: n.update(interval=70), "interval=70: expected .* for this scheme and these waits"),
    "other delays": (lambda n: n.update(delays=[["input", "x", 1]]), "delays=.*: expected .* for this scheme"),
    "no latency": (lambda n: n.pop("latency"), "latency=None: expected .* for this scheme"),
    "another code": (lambda n: n["code"].update(wait=2), "code=.*: expected .* for this scheme"),
    "another neuron": (lambda n: op(n, "call")["neuron"].update(beta=3.0), "neuron=.*: expected .* for this scheme"),
    "another tail": (lambda n: op(n, "call").update(tail=None), "tail=None: expected .* for its function"),
    "an argument missing": (lambda n: op(n, "convolution")["args"].pop("stride"), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_description_is_one_clear_error(saved: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    network = json.loads((saved / "network.json").read_text())
    damage(network)
    (saved / "network.json").write_text(json.dumps(network))
    with pytest.raises(TranspikeError, match=words) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"\x80\x04K\x01."])
def test_a_description_that_is_something_else(saved: Path, content: bytes) -> None:
    (saved / "network.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|JSON|expected an object|nested|UTF-8"):
        load(saved)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights(saved: Path, keep: int) -> None:
    whole = (saved / "weights.safetensors").read_bytes()
    (saved / "weights.safetensors").write_bytes(whole[:keep])
    with pytest.raises(ModelError, match="damaged"):
        load(saved)


RELATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "of zero": lambda r: r * 0,
    "below zero": lambda r: -r,
    "not a number": lambda r: r * math.nan,
    "above 1": lambda r: r * 4,
    "integers": lambda r: r.long() + 1,
    "too few": lambda r: r[1:],
    "of fewer axes": lambda r: r.flatten(),
    "of more axes": lambda r: r[None],
}


@pytest.mark.parametrize("name", RELATIVES)
@pytest.mark.parametrize("layer", ["input", "1"])
def test_damaged_amplitudes_of_channels_are_one_clear_error(
    tmp_path: Path, images: Tensor, name: str, layer: str
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(-1, 1, 4).view(-1, 1, 1, 1))
    snn = convert(net, images * torch.tensor([1.0, 2.0, 3.0]).view(-1, 1, 1), scheme=CSS(steps=6, silent=1))
    held = snn.get_buffer(f"{layer}/relative")
    snn.register_buffer(f"{layer}/relative", RELATIVES[name](held))
    snn.save(tmp_path / "damaged")
    with pytest.raises(ModelError, match="damaged"):
        load(tmp_path / "damaged")


def test_weights_longer_than_memory(saved: Path) -> None:
    os.truncate(saved / "weights.safetensors", 2**40)
    with pytest.raises(ModelError, match="damaged"):
        load(saved)


def test_weights_of_another_network(saved: Path) -> None:
    tensors = load_file(saved / "weights.safetensors")
    for changed in ({k: v[:1] for k, v in tensors.items()}, {k: v.long() for k, v in tensors.items()}, {}):
        save_file(changed, saved / "weights.safetensors")
        with pytest.raises(ModelError, match="damaged"):
            load(saved)


def test_another_programs_files_are_not_replaced(snn: SpikingNetwork, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    before = (tmp_path / "weights.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"weights\.safetensors: already exists and is not"):
        snn.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_missing_files(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no network\.json there"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no network\.json there"):
        load(tmp_path / ("n" * 300))
    (saved / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights\.safetensors there"):
        load(saved)


def test_the_stop_rule_goes_with_the_network(snn: SpikingNetwork, images: Tensor, tmp_path: Path) -> None:
    some = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(3))
    rule = snn.calibrate_stop(some)
    try:
        snn.save(tmp_path / "net")
        read = load(tmp_path / "net")
        assert read.stop == rule and rule.losses
        one, other = read.until(images, agreement=0.9), snn.until(images, agreement=0.9)
        assert torch.equal(one.steps, other.steps) and torch.equal(one.outputs, other.outputs)
        snn.calibrate_stop(some, score=lambda said: said.outputs[:, 0])
        with pytest.raises(
            ModelError, match=r"its score is a function, and a file cannot hold a function.*snn.stop = None"
        ):
            snn.save(tmp_path / "own")
        assert not (tmp_path / "own").exists()
    finally:
        snn.stop = None
    snn.save(tmp_path / "net")
    assert load(tmp_path / "net").stop is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": "bond"}, "stop.score='bond': expected"),
        ({"first": 9}, "stop.first=9: expected a whole number from 1 to 6"),
        ({"images": 0}, "stop.images=0: expected"),
        ({"thresholds": [1.0]}, "stop.thresholds: expected as many numbers as in losses"),
        ({"thresholds": [1.0, 2.0]}, "stop.thresholds: expected as many numbers as in losses, the largest first"),
        ({"losses": [1.0, -1.0]}, "stop.losses: expected numbers above 0 whose sum is at most images=40"),
        ({"losses": [1.0, 40.0]}, "stop.losses: expected numbers above 0 whose sum is at most images=40"),
        ({"seen": [1.0, 2.0, 3.0]}, "stop.seen: expected as many numbers for each step"),
        ({"code": "import os"}, "stop.code is unknown"),
    ],
)
def test_a_stop_rule_that_can_be_none_is_named(change: dict[str, object], words: str, saved: Path) -> None:
    rule = {"score": "bound", "first": 2, "images": 40, "thresholds": [2.0, 1.0], "losses": [1.0, 1.0]}
    network = json.loads((saved / "network.json").read_text())
    (saved / "network.json").write_text(json.dumps(network | {"stop": rule}))
    assert load(saved).stop is not None
    (saved / "network.json").write_text(json.dumps(network | {"stop": rule | change}))
    with pytest.raises(ModelError, match=words):
        load(saved)
