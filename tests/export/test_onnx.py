"""One step in onnxruntime: without this package the same spikes, and the same outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.export.networks import body

import transpike
from transpike import export
from transpike.conversion import SpikingNetwork
from transpike.errors import ConfigError, ModelError
from transpike.export.step import Step

Network = tuple[SpikingNetwork, torch.Tensor, Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A gate, a mean, a skip that is delayed, a maximum and a bound: every kind of state."""
    torch.manual_seed(0)

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1)
            self.c = torch.nn.Conv2d(4, 4, 3, padding=1)
            self.gate, self.head = torch.nn.Conv2d(4, 4, 1), torch.nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            f = torch.nn.functional
            x = f.relu6(self.a(x))
            x = f.relu(x + self.c(f.relu(self.b(x))))
            x = f.max_pool2d(x * f.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True))), 2)
            return self.head(x.flatten(1))

    images = torch.rand(64, 2, 4, 4)
    snn = transpike.convert(Small().eval(), images, scheme=transpike.CSS(steps=6, silent=1))
    assert any(snn.delays.values())
    return snn, images, export.onnx(snn, tmp_path_factory.mktemp("onnx"))


def played(folder: Path, images: np.ndarray[Any, Any], steps: int) -> list[list[np.ndarray[Any, Any]]]:
    """What the graph gives at each step, a new batch of images (the first axis) entering at each interval."""
    plan = json.loads((folder / "schedule.json").read_text())
    session = onnxruntime.InferenceSession(folder / "step.onnx")
    state = {s["name"]: np.zeros([images.shape[1], *s["shape"]], plan["type"]) for s in plan["states"]}
    seen = []
    for step in range(steps):
        image = images[min(step // plan["interval"], len(images) - 1)]
        control = np.array(plan["schedule"][step % plan["interval"]], plan["type"])
        found = session.run(None, {"image": image, "control": control, **state})
        state = dict(zip(state, found[len(plan["outputs"]) :], strict=True))
        seen.append(found)
    return seen


def test_the_step_equals_the_simulation_to_the_bit(exported: Network) -> None:
    """In torch, where currents are the same: of a whole network, images in flight."""
    snn, images, _ = exported
    step = Step(snn)
    states, rows = [torch.zeros(16, *shape) for shape in step.states.values()], torch.tensor(step.schedule)
    for tick in range(step.interval + step.latency):
        batch = images[16 * min(tick // step.interval, 1) :][:16]
        (found,), states = step(batch, rows[tick % step.interval], states)
        if tick == step.latency - 1:
            assert torch.equal(found, snn(images[:16]))
    assert torch.equal(found, snn(images[16:32]))


def test_onnxruntime_gives_the_same_outputs_for_images_in_flight(exported: Network) -> None:
    snn, images, folder = exported
    seen = played(folder, images[:20].numpy().reshape(2, 10, 2, 4, 4), snn.interval + snn.latency)
    for number, step in enumerate((snn.latency - 1, snn.interval + snn.latency - 1)):
        expected = snn(images[10 * number :][:10]).numpy()
        assert np.abs(seen[step][0] - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_neuron_and_the_encoder_in_onnxruntime_equal_ours_to_the_bit(exported: Network, tmp_path: Path) -> None:
    """Weights of one and zero make currents that no order of sums changes."""
    torch.manual_seed(0)
    functions = [torch.nn.ReLU6(), torch.nn.Hardswish(), torch.nn.LeakyReLU(0.1), torch.nn.Hardsigmoid()]
    layers = [torch.nn.Linear(40, 40, bias=False) for _ in range(5)]
    for layer in layers:
        layer.weight.data = torch.eye(40)
    pairs = [part for pair in zip(layers, functions, strict=False) for part in pair]
    images = torch.randn(64, 40) * 4
    scheme = transpike.CSS(steps=6, silent=1, levels=(1, 2, 4), amplitude="layer")
    snn = transpike.convert(torch.nn.Sequential(*pairs, layers[-1]).eval(), images, scheme=scheme)
    assert len(snn.neurons) == 4
    found = played(export.onnx(snn, tmp_path), images.numpy()[None], snn.latency)[-1][0]
    assert np.array_equal(found, snn(images).numpy())


def test_whole_numbers_give_the_same_bits_in_onnxruntime(exported: Network, tmp_path: Path) -> None:
    snn, images, _ = exported
    whole = snn.quantise(8)
    found = played(export.onnx(whole, tmp_path), images.numpy()[None], snn.latency)[-1][0]
    assert np.array_equal(found, whole(images).numpy())


def test_hard_swishes_and_gates_of_whole_numbers_give_the_same_bits_everywhere(tmp_path: Path) -> None:
    snn, images = body("squeeze and excitation", "levels")
    names = " ".join(op.function.name for op in snn.graph if op.fires)
    assert "hardswish" in names and "hardsigmoid + mul" in names
    whole = snn.quantise(8)
    whole.save(tmp_path / "net")
    found = played(export.onnx(whole, tmp_path / "onnx"), images.numpy()[None], snn.latency)[-1][0]
    assert np.array_equal(found, whole(images).numpy())
    assert np.array_equal(found, export.run(tmp_path / "net", images).outputs)


def test_the_files_speak_for_themselves(exported: Network) -> None:
    """Standard operators alone, any number of images, and no transpike to run them."""
    snn, _, folder = exported
    model = onnx.load(folder / "step.onnx")
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""} and [o.version for o in model.opset_import] == [18]
    code = (
        "import json, sys, numpy as np, onnxruntime\n"
        f"folder = {str(folder)!r}\n"
        "plan = json.load(open(folder + '/schedule.json'))\n"
        "session = onnxruntime.InferenceSession(folder + '/step.onnx')\n"
        "state = {s['name']: np.zeros([3, *s['shape']], np.float32) for s in plan['states']}\n"
        "for step in range(plan['latency']):\n"
        "    control = np.float32(plan['schedule'][step % plan['interval']])\n"
        "    found = session.run(None, {'image': np.ones((3, 2, 4, 4), np.float32), 'control': control, **state})\n"
        "    state = dict(zip(state, found[1:]))\n"
        "assert not {'torch', 'transpike'} & set(sys.modules)\n"
        "print(found[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), snn(torch.ones(3, 2, 4, 4)), rtol=1e-4)


def test_torch_export_loads_without_transpike(exported: Network, tmp_path: Path) -> None:
    snn, _, _ = exported
    export.torch_program(snn, tmp_path)
    code = (
        "import json, sys, torch\n"
        f"folder = {str(tmp_path)!r}\n"
        "plan = json.load(open(folder + '/schedule.json'))\n"
        "step = torch.export.load(folder + '/step.pt2').module()\n"
        "state = [torch.zeros(3, *s['shape']) for s in plan['states']]\n"
        "for tick in range(plan['latency']):\n"
        "    control = torch.tensor(plan['schedule'][tick % plan['interval']])\n"
        "    found, state = step(torch.ones(3, 2, 4, 4), control, state)\n"
        "assert not [name for name in sys.modules if name.startswith('transpike')]\n"
        "print(found[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), snn(torch.ones(3, 2, 4, 4)), rtol=1e-4)


def test_wrong_input_is_one_clear_error_and_nothing_is_half_written(exported: Network, tmp_path: Path) -> None:
    snn, _, _ = exported
    with pytest.raises(ConfigError, match="opset=9: expected a whole number of at least 18"):
        export.onnx(snn, tmp_path / "new", opset=9)
    with pytest.raises(ConfigError, match="opset=999: expected a whole number from 18 to"):
        export.onnx(snn, tmp_path / "new", opset=999)
    with pytest.raises(ModelError, match="Linear is not a converted network; give what"):
        export.onnx(torch.nn.Linear(2, 2), tmp_path / "new")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
    (tmp_path / "step.onnx").write_text("mine")
    with pytest.raises(ModelError, match=r"step\.onnx: already exists and is not a step"):
        export.onnx(snn, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step.onnx"]


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    ann = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2)).eval()
    for steps in (4, 6):
        snn = transpike.convert(ann, torch.rand(32, 2), scheme=transpike.CSS(steps=steps, silent=1))
        export.onnx(snn, tmp_path)
    assert json.loads((tmp_path / "schedule.json").read_text())["latency"] == 6 + 2


@pytest.mark.parametrize("scheme", ["rate", "fs", "paper", "burst", "multi-threshold", "8 bits"])
def test_the_step_of_every_code(scheme: str) -> None:
    from tests.export.networks import CODES

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()]
    ann = torch.nn.Sequential(*layers, torch.nn.Linear(16, 5), torch.nn.ReLU6(), torch.nn.Linear(5, 3)).eval()
    images = torch.rand(16, 2, 6, 6)
    snn = transpike.convert(ann, images, scheme=CODES[scheme])
    equal_in_torch(snn, images)


@pytest.mark.parametrize("name", ["attention", "joined", "pooled"])
def test_the_step_of_other_operations(name: str) -> None:
    snn, images = body(name)
    equal_in_torch(snn, images)


def equal_in_torch(snn: SpikingNetwork, images: torch.Tensor) -> None:
    step = Step(snn)
    states, rows = [torch.zeros(len(images), *shape) for shape in step.states.values()], torch.tensor(step.schedule)
    for tick in range(step.latency):
        (found,), states = step(images, rows[tick % step.interval], states)
    assert torch.allclose(found, snn(images), rtol=1e-4, atol=1e-5 * float(found.abs().max()))


def test_the_outputs_before_the_last_step_are_the_answers_so_far(exported: Network) -> None:
    snn, images, _ = exported
    step = Step(snn)
    states, rows = [torch.zeros(20, *shape) for shape in step.states.values()], torch.tensor(step.schedule)
    moments = {moment.latency - 1: moment.outputs for moment in snn.stream(images[:20])}
    early = (
        snn.latency - snn.steps - max(snn.timing.first_spike[name] for name in snn.readouts)
    )  # the output's own wait
    for tick in range(step.latency):
        (found,), states = step(images[:20], rows[tick % step.interval], states)
        if tick + early in moments:
            torch.testing.assert_close(found, moments[tick + early], rtol=1e-5, atol=1e-6)
            moments.pop(tick + early)
    assert not moments


def test_a_schedule_carries_the_stop_rule(exported: Network) -> None:
    snn, images, _ = exported
    assert Step(snn).stop is None
    rule = snn.calibrate_stop(images)
    try:
        stop = Step(snn).stop
    finally:
        snn.stop = None
    assert stop is not None and (stop["score"], stop["first"], stop["images"]) == ("bound", 2, 64)
    assert tuple(zip(stop["thresholds"], stop["losses"], strict=True)) == rule.losses
    assert len(stop["ticks"]) == len(stop["left"]) == snn.steps and stop["left"][-1] == 0


def test_outputs_that_begin_at_different_steps_carry_no_rule() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.a(x).relu()
            return self.b(x), self.c(self.b(x).relu())

    snn = transpike.convert(Two().eval(), torch.rand(64, 6), scheme=transpike.CSS(steps=4, silent=1))
    snn.calibrate_stop(torch.rand(64, 6))
    with pytest.raises(ModelError, match=r"begin at different steps .* snn.stop = None"):
        Step(snn)
