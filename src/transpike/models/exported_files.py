"""Reads programs of `torch.export.save` (.pt2) as data: PyTorch's own operators by name, and weights as numbers.

`torch.export.load` executes what an unknown person pickled into a file, and evaluates expressions in its text. Here
neither happens. The graph is JSON. It may use the operators of ``torch.ops.aten`` and a few sums of sizes. Weights are
plain numbers. Pickled parts, such as an example of the input, are ignored.
"""

from __future__ import annotations

import json
import operator
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from transpike.errors import ModelError
from transpike.models.archives import FREE, UNPACKED, open_regular
from transpike.models.programs import DEVICE, LARGEST, Name, Program, Step, refused

__all__ = ["is_program", "read_program"]

AGAIN = "Save it again with torch.export.save, of PyTorch 2.8 or later."
_TEXTS = ("padding", "rounding_mode", "approximate", "mode", "equation", "indexing", "reduction", "padding_mode")
"""The arguments that may be text. Operators with others read or write files."""
_DTYPES: dict[int, torch.dtype] = {1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
                                   6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool,
                                   13: torch.bfloat16}  # fmt: skip
_SUMS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "neg")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "getitem")},
    "math.trunc": int,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
}
_UNTOLD = tuple(
    f"torch.ops.aten.{name}.default"
    for name in ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size", "sym_constrain_range")
)


def is_program(path: Path) -> bool:
    """Whether a file is an archive of `torch.export.save`."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return any(name.partition("/")[2] == "models/model.json" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_program(path: Path) -> Program:
    """Read the network of an exported program that takes one tensor of samples [N, \\*].

    Raises:
        ModelError: The file is missing or damaged, the program takes several tensors, or it has unknown operators.
    """
    with open_regular(path) as file:
        try:
            return _program(path, _Archive(file))
        except ModelError:
            raise
        except Exception as error:  # a parser may raise anything for unknown bytes
            why = " ".join(str(error).split())[:200]
            raise ModelError(f"{path} is damaged ({type(error).__name__}: {why}). {AGAIN}") from error


class _Archive:
    """The parts of an archive, by their names without the first folder."""

    def __init__(self, file: IO[bytes]) -> None:
        size = file.seek(0, 2)
        self._archive = zipfile.ZipFile(file)
        entries = self._archive.infolist()
        if sum(entry.file_size for entry in entries) > max(UNPACKED * size, FREE):
            raise ValueError("it unpacks to more than weights do")
        self._parts = {entry.filename.partition("/")[2]: entry for entry in entries}

    def bytes(self, name: str) -> bytes:
        """Return a part unchanged, after a check of its checksum."""
        return self._archive.read(self._parts[name])

    def json(self, name: str) -> Any:
        """Return a JSON part."""
        return json.loads(self.bytes(name))


def _program(path: Path, archive: _Archive) -> Program:
    about = archive.json("models/model.json")["graph_module"]
    graph, signature = about["graph"], about["signature"]
    weights, constants = (
        archive.json(f"data/{name}/model_{name}_config.json")["config"] for name in ("weights", "constants")
    )
    tensors: dict[str, Tensor] = {}
    inputs: list[str] = []
    for spec in signature["input_specs"]:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            inputs.append(content["arg"]["as_tensor"]["name"])
            continue
        key = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}[kind]
        folder, config = ("weights", weights) if content[key] in weights else ("constants", constants)
        tensors[content["arg"]["name"]] = _tensor(archive, folder, config[content[key]])
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {len(inputs)} inputs; transpike converts networks of one tensor")
    outputs = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in signature["output_specs"] if "user_output" in
               spec]  # fmt: skip
    steps, strange = list[Step](), dict[str, list[str]]()
    for node in graph["nodes"]:
        target, where = str(node["target"]), _path(node)
        if target in _UNTOLD:
            continue
        if (run := _operator(target)) is None:
            strange.setdefault(target[:80], []).append(where or str(node.get("name")))
            continue
        args = {item["name"]: _argument(item["arg"]) for item in node["inputs"] if item.get("kind", 1) == 1}
        kwargs = {item["name"]: _argument(item["arg"]) for item in node["inputs"] if item.get("kind", 1) != 1}
        ordered, named = tuple(args.values()), kwargs
        if isinstance(run, torch._ops.OpOverload):
            ordered, named = _bound(run, args | kwargs)
        steps.append(Step(where or str(node.get("name")), run, ordered, _outputs(node), named))
    if strange:
        raise refused(str(path), strange, "Export without them, or convert the module itself from Python.")
    sizes = graph["tensor_values"][inputs[0]]["sizes"]
    shape = [size.get("as_int") for size in sizes[1:]]
    return Program(str(path), steps, tensors, start=inputs[0], outputs=outputs, shape=shape)


def _tensor(archive: _Archive, folder: str, entry: Mapping[str, Any]) -> Tensor:
    """Return weights as numbers. Pickled weights are not read."""
    if entry["use_pickle"]:
        raise ModelError(f"a tensor of it is pickled ({entry['path_name'][:80]}), which is not read. {AGAIN}")
    meta = entry["tensor_meta"]
    data = bytearray(archive.bytes(f"data/{folder}/{entry['path_name']}"))
    dtype, sizes, strides = (
        _DTYPES[meta["dtype"]],
        *([n["as_int"] for n in meta[name]] for name in ("sizes", "strides")),
    )
    whole = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    tensor = torch.as_strided(whole, sizes, strides, meta["storage_offset"]["as_int"])
    if tensor.numel() > LARGEST:
        raise ValueError("its sizes are damaged")
    return tensor.contiguous()


def _operator(target: str) -> Callable[..., Any] | None:
    """Return a sum of sizes, or an operator of PyTorch that uses no files. None for any other name."""
    if target in _SUMS:
        return _SUMS[target]
    parts = target.split(".")
    if target.count(".") != 4 or parts[:3] != ["torch", "ops", "aten"]:
        return None
    packet = getattr(torch.ops.aten, parts[3], None)
    overload = getattr(packet, parts[4], None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    if not isinstance(overload, torch._ops.OpOverload):
        return None
    texts = [a.name for a in overload._schema.arguments if "str" in str(a.type) and a.name not in _TEXTS]
    return None if texts else overload


def _bound(run: torch._ops.OpOverload, given: Mapping[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return arguments by their positions, without the device of the file, because the network may be on another."""
    untaken = ("layout", "pin_memory")
    places = [a for a in run._schema.arguments if not a.kwarg_only]
    last = max((k for k, a in enumerate(places) if a.name in given), default=-1)
    ordered = tuple(given.get(a.name, a.default_value) for a in places[: last + 1])
    names = [a.name for a in run._schema.arguments if a.kwarg_only and a.name not in untaken]
    return ordered, {name: Name(DEVICE) if name == "device" else given[name] for name in names if name in given}


def _argument(given: Mapping[str, Any]) -> object:
    """Return an argument of a node: plain values, and names of other nodes."""
    ((kind, value),) = given.items()
    match kind:
        case "as_tensor" | "as_sym_int" | "as_sym_bool" | "as_sym_float" if isinstance(value, Mapping):
            return (
                Name(value["name"] if "name" in value else value["as_name"])
                if "as_int" not in value
                else value["as_int"]
            )
        case "as_tensors" | "as_sym_ints" | "as_optional_tensors" | "as_nested_tensors":
            return [_argument({"as_sym_int": item}) if {"as_int", "as_name"} & item.keys() else _optional(item)
                    for item in value]  # fmt: skip
        case "as_none":
            return None
        case "as_scalar_type":
            return _DTYPES[value]
        case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string":
            return value
        case "as_optional_tensor":
            return _optional(value)
        case "as_device" | "as_layout" | "as_memory_format":
            return None
    raise ModelError(f"it has an argument of a kind that is not read, {kind[:40]}. {AGAIN}")


def _optional(item: Mapping[str, Any]) -> object:
    """Return a tensor's name, or None."""
    inner = item.get("as_tensor", item)
    return Name(inner["name"]) if "name" in inner else None


def _outputs(node: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for output in node["outputs"]:
        ((kind, value),) = output.items()
        if kind == "as_tensors":
            names += [item["name"] for item in value]
        elif kind != "as_none":
            names.append(value["name"] if "name" in value else value["as_name"])
    return tuple(names)


def _path(node: Mapping[str, Any]) -> str:
    """Return the path of the module in whose forward a node stands."""
    stack = node.get("metadata", {}).get("nn_module_stack", "")
    path = str(stack).rpartition(";")[2].split(",")[1] if stack else ""
    return "" if path.startswith("_empty") else path
