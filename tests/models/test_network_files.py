"""Networks from ONNX files and exported programs: what they compute, and that they are read as data."""

from __future__ import annotations

import json
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import transpike
from transpike.errors import ModelError
from transpike.models import create_model, read_network


class Maps(nn.Module):
    """Reflection, skips, resizing by another's size, a maximum over all places, moves of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, 2, 1)
        self.c, self.d = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.prelu(self.a(F.pad(x, (1, 1, 1, 1), "reflect")), torch.full((8,), 0.2))
        b = F.hardswish(self.b(a))
        wide = F.interpolate(b, size=a.shape[-2:], mode="bilinear")
        joined = torch.cat([a, self.c(b), wide], 1).view(x.shape[0], 4, 8, 16, 16).transpose(1, 2).flatten(1, 2)
        return self.d(joined).softmax(1), b.amax((2, 3))


class Tokens(nn.Module):
    """Patches, attention, a norm, a gate, an index."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = y + self.attention(*[self.norm(y)] * 3, need_weights=False)[0]
        return self.head((F.gelu(y) * y.sigmoid())[:, 1:].mean(1))


def sound() -> nn.Module:
    layers = (nn.Conv1d(2, 6, 5, 2, 2), nn.BatchNorm1d(6), nn.ELU(), nn.MaxPool1d(3, 2, 1), nn.GroupNorm(2, 6))
    return nn.Sequential(*layers, nn.AvgPool1d(2), nn.Flatten(), nn.Linear(24, 3))


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.LeakyReLU(0.1), nn.MaxPool3d(2), nn.Conv3d(4, 2, 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "maps": (Maps, (3, 16, 16)),
    "tokens": (Tokens, (3, 16, 16)),
    "sound": (sound, (2, 32)),
    "volume": (volume, (1, 6, 8, 8)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    net = build().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean = torch.rand(6)
    return net, torch.rand(3, *shape)


def leaves(outputs: object) -> list[Tensor]:
    return [*outputs] if isinstance(outputs, tuple) else [outputs]  # type: ignore[list-item]


def write_onnx(net: nn.Module, x: Tensor, path: Path, *, version: int = 17, open_batch: bool = True) -> Path:
    axes = {"x": {0: "n"}} if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=version
        )
    return path


@pytest.mark.parametrize("version", [14, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_computes_what_its_runtime_does(name: str, version: int, tmp_path: Path) -> None:
    net, x = made(name)
    path = write_onnx(net, x, tmp_path / "net.onnx", version=version)
    want = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    got = leaves(read_network(path)(x))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, torch.tensor(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_what_its_module_does_for_any_number_of_samples(name: str, tmp_path: Path) -> None:
    net, x = made(name)
    program = torch.export.export(net, (x[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "net.pt2")
    for a, b in zip(leaves(read_network(tmp_path / "net.pt2")(x)), leaves(net(x)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["maps", "tokens"])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_file_converts_as_its_module_does(name: str, kind: str, tmp_path: Path) -> None:
    net, x = made(name)
    path = tmp_path / f"net.{kind}"
    if kind == "onnx":
        write_onnx(net, x, path)
    else:
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)), path)
    images = torch.rand(16, *x.shape[1:])
    scheme = transpike.CSS(steps=14, silent=3)
    got = leaves(transpike.convert(create_model(path), images, scheme=scheme)(x))
    want = leaves(transpike.convert(net, images, scheme=scheme)(x))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_a_file_for_one_sample_takes_several(tmp_path: Path) -> None:
    net, x = made("sound")
    path = write_onnx(net, x[:1], tmp_path / "net.onnx", open_batch=False)
    torch.testing.assert_close(read_network(path)(x), net(x), rtol=1e-4, atol=1e-5)


def graph(nodes: list[onnx.NodeProto], *, tensors: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    value, shape = helper.make_tensor_value_info, ("n", 2, 8, 8)
    held = [numpy_helper.from_array(array, name) for name, array in (tensors or {}).items()]
    content = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)], held
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


NODES: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "uneven maximum": ([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 1, 2, 0])], {}),
    "uneven average": ([helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 1, 2, 0])], {}),
    "same padding": (
        [helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])],
        {"w": np.random.default_rng(0).random((3, 2, 3, 3), np.float32)},
    ),
    "minus infinity around a maximum": (
        [
            helper.make_node("Pad", ["x", "pads", "low"], ["p"]),
            helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2]),
        ],
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "low": np.array(-np.inf, np.float32)},
    ),
    "reflected channels": (
        [helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect")],
        {"pads": np.array([0, 1, 0, 2, 0, 1, 0, 3])},
    ),
    "reflected sound": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Pad", ["f", "pads"], ["y"], mode="reflect"),
        ],
        {"pads": np.array([0, 3, 0, 5])},
    ),
    "where nothing is divided": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Equal", ["r", "zero"], ["none"]),
            helper.make_node("Div", ["x", "r"], ["d"]),
            helper.make_node("Where", ["none", "zero", "d"], ["y"]),
        ],
        {"w": np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), "zero": np.array(0, np.float32)},
    ),
    "sizes computed": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
            helper.make_node("Reshape", ["x", "to"], ["r"]),
            helper.make_node("Slice", ["r", "one", "end", "one"], ["y"]),
        ],
        {"zero": np.array([0]), "rest": np.array([-1, 4]), "one": np.array([1]), "end": np.array([-1])},
    ),
    "depth to space": ([
        helper.make_node("SpaceToDepth", ["x"], ["d"], blocksize=2),
        helper.make_node("DepthToSpace", ["d"], ["y"], blocksize=2),
    ], {}),
    "backwards": (
        [helper.make_node("Slice", ["x", "last", "before", "axis", "back"], ["y"])],
        {"last": np.array([-1]), "before": np.array([-100]), "axis": np.array([3]), "back": np.array([-1])},
    ),
    "resize by factors": (
        [helper.make_node("Resize", ["x", "", "f"], ["y"], mode="nearest", nearest_mode="floor",
                          coordinate_transformation_mode="asymmetric")],
        {"f": np.array([1, 1, 1.5, 2], np.float32)},
    ),
    "split, product of all": ([
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)] if False else [
        helper.make_node("Split", ["x", "parts"], ["a", "b"], axis=3),
        helper.make_node("ReduceMean", ["a"], ["m"], axes=[2, 3], keepdims=1),
        helper.make_node("Mul", ["b", "m"], ["y"]),
    ], {"parts": np.array([3, 5])}),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_operators_compute_what_the_runtime_does(name: str, tmp_path: Path) -> None:
    nodes, tensors = NODES[name]
    model = graph(nodes, tensors=tensors)
    onnx.save(model, tmp_path / "net.onnx")
    x = torch.randn(2, 2, 8, 8)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    torch.testing.assert_close(read_network(tmp_path / "net.onnx")(x), torch.tensor(want), rtol=1e-5, atol=1e-6)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_network(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_operators_are_named_once_and_what_comes_before_converts(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((3, 2, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="encoder"),
        helper.make_node("LSTM", ["c"], ["h"], name="cell", hidden_size=2),
        helper.make_node("Shrink", ["h"], ["y"]),
    ]
    onnx.save(graph(nodes, tensors={"w": weight}), tmp_path / "net.onnx")
    said = refusal(tmp_path / "net.onnx")
    assert "LSTM (cell); Shrink (Shrink_2)" in said and "until=" in said
    net, x = read_network(tmp_path / "net.onnx", whole=False), torch.rand(16, 2, 8, 8)
    snn = transpike.convert(net, x, until="encoder", scheme=transpike.CSS(steps=14))
    torch.testing.assert_close(snn(x), F.conv2d(x, torch.tensor(weight)), rtol=0, atol=1e-2)
    with pytest.raises(ModelError, match="does not read the operator of its step cell"):
        net(x)


def test_a_part_that_needs_one_of_several_inputs_converts(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((3, 2, 3, 3), np.float32)
    nodes = [
        helper.make_node("Neg", ["state"], ["s"], name="before"),
        helper.make_node("Conv", ["x", "w"], ["c"], name="encoder"),
        helper.make_node("GRU", ["c", "s"], ["y"], name="cell", hidden_size=2),
    ]
    model = graph(nodes, tensors={"w": weight})
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, ("n", 2)))
    onnx.save(model, tmp_path / "net.onnx")
    said = refusal(tmp_path / "net.onnx")
    assert "takes 2 tensors (x, state)" in said and "GRU cell" in said and "until=" in said
    net, x = read_network(tmp_path / "net.onnx", whole=False), torch.rand(16, 2, 8, 8)
    assert [name for name, _ in net.named_children()] == ["encoder"]
    snn = transpike.convert(net, x, until="encoder", scheme=transpike.CSS(steps=14))
    torch.testing.assert_close(snn(x), F.conv2d(x, torch.tensor(weight)), rtol=0, atol=1e-2)
    with pytest.raises(ModelError, match="nobody gives its input state"):
        net(x)


def test_a_file_of_more_bytes_than_onnx_has_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(2**31 + 2**30)
    began = time.perf_counter()
    assert "has 3.0 GiB, and an ONNX file at most 2" in refusal(tmp_path / "huge.onnx")
    assert time.perf_counter() - began < 2


def test_what_is_no_network_is_one_line(tmp_path: Path) -> None:
    net, x = made("sound")
    torch.save(net.state_dict(), tmp_path / "state.pt2")
    torch.jit.trace(net, x).save(tmp_path / "script.pt2")
    (tmp_path / "text.onnx").write_text("no network")
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert "holds weights without a network" in refusal(tmp_path / "state.pt2")
    assert "TorchScript, which runs as it is loaded" in refusal(tmp_path / "script.pt2")
    assert "no ONNX file" in refusal(tmp_path / "text.onnx")
    assert "holds no network" in refusal(tmp_path / "empty.onnx")
    assert "no such file" in refusal(tmp_path / "none.onnx")


class Touch:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["weights", "inputs", "target", "operator"])
def test_nothing_of_a_program_is_run(how: str, tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "whole.pt2")
    ran, evil = tmp_path / "ran", tmp_path / "evil.pt2"
    with zipfile.ZipFile(tmp_path / "whole.pt2") as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if how == "inputs" and entry.filename.endswith("sample_inputs/model.pt"):
                data = pickle.dumps(Touch(ran))
            if how == "weights" and entry.filename.endswith("weights/weight_0"):
                data = pickle.dumps(Touch(ran))
            if how == "weights" and entry.filename.endswith("weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            if entry.filename.endswith("models/model.json") and how in ("target", "operator"):
                content = json.loads(data)
                node = content["graph_module"]["graph"]["nodes"][-1]
                node["target"] = "torch.os.system" if how == "target" else "torch.ops.aten.from_file.default"
                data = json.dumps(content).encode()
            target.writestr(entry.filename, data)
    if how == "inputs":
        torch.testing.assert_close(read_network(evil)(x), net(x))
    else:
        assert "pickled" in refusal(evil) or "does not read: torch.o" in refusal(evil)
    assert not ran.exists()


def test_sizes_beyond_all_memory_are_found_before_any_is_taken(tmp_path: Path) -> None:
    nodes = [helper.make_node("Tile", ["x", "times"], ["t"]), helper.make_node("Relu", ["t"], ["y"])]
    onnx.save(graph(nodes, tensors={"times": np.array([1, 2**20, 2**20, 1])}), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="its sizes are damaged"):
        read_network(tmp_path / "net.onnx")(torch.rand(1, 2, 8, 8))
