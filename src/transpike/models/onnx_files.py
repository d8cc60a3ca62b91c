"""Networks in ONNX files, as modules. The file is data, and only the operators of `onnx_operators` run.

Sizes (of `Shape`, and constants of whole numbers) stay numbers in lists. So what a network computes from the size of
its input can be traced for any number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transpike.errors import ModelError
from transpike.models.archives import open_regular
from transpike.models.onnx_operators import OPERATORS, Sizes
from transpike.models.programs import Name, Program, Step, refused

__all__ = ["read_onnx"]

AGAIN = "Export it again."
_BYTES = 2**31
_RECURRENT = ("LSTM", "GRU", "RNN", "Loop", "Scan", "If")
_NUMBERS = {"Clip": (1, 2), "Dropout": (1,), "Pad": (1, 2, 3), "Resize": (1, 2, 3), "Upsample": (1,)}
"""The inputs of each operator that are plain numbers instead of values."""


def read_onnx(path: Path, *, whole: bool = True) -> Program:
    """Read the network of an ONNX file that takes one tensor of samples [N, \\*].

    Without ``whole``, unknown operators and further inputs are errors only if an output needs them.

    Raises:
        ModelError: The file is missing or damaged, the network takes several tensors or has unknown operators, or the
            package ``onnx`` is missing.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError(
            f"{path}: reading ONNX takes the package onnx. Install it: pip install 'transpike[onnx]'"
        ) from None
    with open_regular(path) as file:
        size = file.seek(0, 2)
        if size > _BYTES:
            raise ModelError(f"{path} has {size / 2**30:.1f} GiB, and an ONNX file at most 2. {AGAIN}")
        file.seek(0)
        data = file.read()
    try:
        model = onnx.load_from_string(data)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        return _program(path, model, whole)
    except ModelError:
        raise
    except Exception as error:  # a parser may raise anything for unknown bytes
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is damaged, or no ONNX file ({type(error).__name__}: {why}). {AGAIN}") from error


def _program(path: Path, model: Any, whole: bool) -> Program:
    from onnx import helper

    graph, title = model.graph, str(path)
    if not graph.node:
        raise ModelError(f"{path} holds no network. {AGAIN}")
    version = max([entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")], default=0)
    tensors: dict[str, Tensor] = {}
    known: dict[str, object] = {}  # whole numbers
    plain: dict[str, object] = {}  # inputs that some operators take as numbers
    for tensor in graph.initializer:
        _keep(tensor.name, _array(tensor), tensors, known, plain)
    inputs = [entry for entry in graph.input if entry.name not in tensors and entry.name not in known]
    if not inputs or (whole and len(inputs) > 1):
        names = ", ".join(entry.name for entry in inputs) or "none"
        cells = [f"{node.op_type} {node.name[:60]}" for node in graph.node if node.op_type in _RECURRENT]
        raise ModelError(
            f"{path} takes {len(inputs)} tensors ({names[:200]}); transpike converts networks of one. "
            + (f"It has recurrent or conditional parts ({', '.join(cells)[:200]}). " if cells else "")
            + (f"A part that needs {inputs[0].name[:60]} alone converts: until= names its last step." if inputs else "")
        )
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in inputs[0].type.tensor_type.shape.dim]
    batch, strange = dims[0] if dims else None, dict[str, list[str]]()
    steps: list[Step] = []
    for number, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{number}"
        attributes = {item.name: _attribute(helper.get_attribute_value(item)) for item in node.attribute}
        if node.op_type == "Constant" and len(node.output) == 1:
            _keep(node.output[0], _constant(attributes), tensors, known, plain)
            continue
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            strange.setdefault(node.op_type, []).append(name)
            steps.append(Step(name, None, [Name(source) for source in node.input], tuple(node.output), {}))
            continue
        args: list[object] = []
        for place, source in enumerate(node.input):
            value = plain.get(source) if place in _NUMBERS.get(node.op_type, ()) else known.get(source)
            args.append(None if not source else Name(source) if value is None else value)
        operator = OPERATORS[node.op_type](attributes, Sizes(version, batch, len(node.output)))
        steps.append(Step(name, operator, args, tuple(node.output), {}))
    if strange and whole:
        words = "Take the network before it: until= names the last step, and the rest runs on as it is."
        raise refused(title, strange, words if any(name in _RECURRENT for name in strange) else "Export without them.")
    outputs, absent = ([entry.name for entry in some] for some in (graph.output, inputs[1:]))
    return Program(title, steps, tensors, start=inputs[0].name, outputs=outputs, shape=dims[1:], absent=absent)


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _attribute(value: Any) -> object:
    """Return an attribute as plain data; a tensor becomes an array."""
    if type(value).__name__ == "TensorProto":
        return _array(value)
    if type(value).__name__ in ("GraphProto", "SparseTensorProto", "TypeProto"):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _constant(attributes: dict[str, Any]) -> np.ndarray[Any, Any]:
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for name, value in attributes.items():
        if name == "value" and value is not None:
            return np.asarray(value)
        if name in kinds:
            return np.asarray(value, dtype=kinds[name])
    raise ModelError(f"a constant is of a kind that transpike does not read: {', '.join(attributes)[:100]}. {AGAIN}")


def _keep(
    name: str,
    array: np.ndarray[Any, Any],
    tensors: dict[str, Tensor],
    known: dict[str, object],
    plain: dict[str, object],
) -> None:
    """Store an array. A few whole numbers are sizes or places; all others are tensors."""
    if array.ndim < 2 and array.size <= 64:
        plain[name] = array.tolist()
    if array.dtype.kind in "iu" and array.size <= 64:
        known[name] = array.astype(object)
    elif array.dtype == np.float16 or array.dtype.kind == "f":
        tensors[name] = torch.from_numpy(np.array(array, dtype=np.float32))
    elif array.dtype.kind in "iub":
        tensors[name] = torch.from_numpy(np.array(array, dtype=bool if array.dtype.kind == "b" else np.int64))
    else:
        raise ModelError(f"{name[:80]} holds {array.dtype}, no numbers that transpike reads. {AGAIN}")
