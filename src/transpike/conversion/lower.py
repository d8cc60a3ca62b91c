"""From PyTorch's operators (as torch.export sees them) to the converter's operations.

Every operator has one lowering, whether the model reached it as a module, a function or a method. Arithmetic on
parameters alone (weight standardisation, a scaled buffer) is done here, once. What has no lowering is collected, so that
one error can name every such place.
"""

from __future__ import annotations

import math
import operator as python_operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from transpike.conversion.graph import DECODED, Op

__all__ = ["Lowering"]

IDENTITY = {"alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "view_as", "_assert_tensor_metadata"}
RESHAPE = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "_reshape_copy", "view_copy"}
RESAMPLE_BASES = ("avg_pool", "adaptive_avg_pool", "upsample_", "_upsample_nearest_exact", "pad", "constant_pad_nd")
REMEDY = {
    "mul": "multiplication of two activations (squeeze-and-excitation, gating) has no spiking form; use a variant without it",
    "div": "division by an activation has no spiking form; use a variant without it",
    "matmul": "a product of two activations (attention) has no spiking form here",
    "bmm": "a product of two activations (attention) has no spiking form here",
    "scaled_dot_product_attention": "attention has no spiking form here",
    "layer_norm": "LayerNorm divides by a statistic of each sample; use BatchNorm, whose statistics are constants",
    "group_norm": "GroupNorm divides by a statistic of each sample; use BatchNorm, whose statistics are constants",
    "instance_norm": "InstanceNorm divides by a statistic of each sample; use BatchNorm, whose statistics are constants",
    "sort": "sorting has no spiking form",
    "topk": "sorting has no spiking form",
    "argmax": "an index of the maximum has no spiking form before the last layer; apply it to the network's output",
}
SUPPORTED = (
    "Supported: convolutions (also transposed, grouped), linear, BatchNorm, ReLU, LeakyReLU, PReLU, ReLU6 and Hardtanh, "
    "max and average pooling, +, -, constants, cat, stack, slices, reshape, permute, padding, interpolation, dropout"
)


@dataclass
class Lowering:
    """Walks the nodes of an exported graph. ``env`` maps a node to the name of an operation, a constant tensor, a number,
    or a list of these (the parts of a split)."""

    ops: dict[str, Op] = field(default_factory=dict)
    env: dict[Node, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lower(self, node: Node) -> Any:
        """What ``node`` becomes; an operator without a lowering becomes a ``decoded:`` operation or a problem."""
        if node.target is python_operator.getitem:
            parent, index = node.args
            parts = self.env[parent]  # type: ignore[index]
            return parts[index] if isinstance(parts, list) else parts
        arguments = self.arguments(node)
        values = [a for a in _flat(arguments.values()) if isinstance(a, str) and a in self.ops]
        if not values:
            return self.constant(node)
        base = _base(node)
        if (
            (base in IDENTITY or base.endswith("dropout"))
            and not arguments.get("train")
            or base in ("to", "_to_copy")
            and node.meta["val"].is_floating_point()
        ):
            return values[0]
        if base in RESHAPE:
            return self.reshape(node, values[0])
        if base.startswith(RESAMPLE_BASES):
            return self.resample(node, arguments, values[0])
        method: Callable[..., Any] | None = getattr(self, "op_" + base, None)
        result = method(node, **_renamed(arguments)) if method else NotImplemented
        return self.function(node, values) if result is NotImplemented else result

    # -- what every lowering needs -------------------------------------------------------------------------------------

    def arguments(self, node: Node) -> dict[str, Any]:
        """All arguments of the operator by name, defaults filled in, nodes replaced by what they became."""
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = dict(zip((a.name for a in schema), node.args, strict=False)) | dict(node.kwargs)
        named = {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}
        return {k: torch.fx.node.map_arg(v, lambda n: self.env[n]) for k, v in named.items()}

    def emit(self, node: Node, target: str, inputs: Sequence[str], *, value: Tensor | None = None, **fields: Any) -> str:
        """Add an operation for ``node`` under a name that leads back to the model's source."""
        shape = (node.meta["val"] if value is None else value).shape
        name = stem = _name(node)
        count = 1
        while name in self.ops:
            count += 1
            name = f"{stem}_{count}"
        self.ops[name] = Op(name, target, tuple(inputs), tuple(int(n) for n in shape[1:]), **fields)
        return name

    def problem(self, node: Node, why: str) -> None:
        where = _path(node) or "the model's forward"
        self.problems.append(f"{where}: {why}")

    def constant(self, node: Node) -> Any:
        """Arithmetic on parameters and buffers alone is done once, now."""
        args = torch.fx.node.map_arg(node.args, lambda n: self.env[n])
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: self.env[n])
        try:
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception:
            self.problem(node, f"{_base(node)} makes a constant whose size depends on the batch; let it broadcast instead")
            return torch.zeros([1 if isinstance(n, torch.SymInt) else n for n in node.meta["val"].shape])

    def function(self, node: Node, values: list[str]) -> Any:
        """An operator that only decoded values can take; where it stands is judged when the graph is whole."""
        name = str(node.target).removeprefix("aten.")
        if name in DECODED and isinstance(node.meta["val"], Tensor):
            tensors: dict[str, Tensor] = {}
            inputs: list[str] = []
            args = []
            for value in self.arguments(node).values():
                if isinstance(value, Tensor):
                    args.append(f"constant {len(tensors)}")
                    tensors[str(len(tensors))] = value
                elif isinstance(value, str) and value in self.ops:
                    args.append(f"input {len(inputs)}")
                    inputs.append(value)
                else:
                    args.append(value)
            while args and args[-1] is None:
                args.pop()
            return self.emit(node, f"decoded:{name}", inputs, args={"args": args}, tensors=tensors)
        self.problem(node, f"{REMEDY.get(_base(node), _base(node) + ' has no spiking form')}")
        result = node.meta["val"]
        if isinstance(result, Tensor):
            return self.emit(node, f"decoded:{name}", values)
        return [self.emit(node, f"decoded:{name}", values, value=part) for part in result]

    def batch_first(self, node: Node) -> bool:
        """Whether the first axis still counts samples."""
        result, batch = node.meta["val"], self.batch
        if result.ndim and str(result.shape[0]) == batch:
            return True
        self.problem(node, f"{_base(node)} moves or merges the batch axis; keep it first: found {tuple(result.shape)}")
        return False

    @property
    def batch(self) -> str:
        """The symbol that torch.export gave the batch axis."""
        node = next(n for n, value in self.env.items() if isinstance(value, str))
        return str(node.meta["val"].shape[0])

    # -- shapes --------------------------------------------------------------------------------------------------------

    def reshape(self, node: Node, x: str) -> str:
        self.batch_first(node)
        shape = [int(n) for n in node.meta["val"].shape[1:]]
        return x if shape == list(self.ops[x].shape) else self.emit(node, "reshape", [x], args={"shape": shape})

    def resample(self, node: Node, arguments: dict[str, Any], x: str) -> str:
        name = str(node.target).removeprefix("aten.")
        if "pad" in _base(node).split("_") and arguments.get("mode", "constant") == "constant" and arguments["value"]:
            self.problem(node, f"padding with {arguments['value']}: only zeros, or the reflect, replicate, circular modes")
        return self.emit(node, f"resample:{name}", [x], args={"args": list(arguments.values())[1:]})

    def op_permute(self, node: Node, input: str, dims: list[int]) -> str:
        dims = [d % len(dims) for d in dims]
        self.batch_first(node)
        return self.emit(node, "permute", [input], args={"dims": dims})

    def op_transpose(self, node: Node, input: str, dim0: int, dim1: int) -> str:
        dims = list(range(node.meta["val"].ndim))
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
        return self.op_permute(node, input, dims)

    op_swapaxes = op_transpose

    def op_cat(self, node: Node, tensors: list[Any], dim: int) -> Any:
        return self._join(node, "cat", tensors, dim)

    op_concat = op_concatenate = op_cat

    def op_stack(self, node: Node, tensors: list[Any], dim: int) -> Any:
        return self._join(node, "stack", tensors, dim)

    def _join(self, node: Node, kind: str, tensors: list[Any], dim: int) -> Any:
        if any(isinstance(t, Tensor) for t in tensors):
            self.problem(node, f"{kind} of an activation with a constant: add the constant to a padded activation instead")
            tensors = [t for t in tensors if isinstance(t, str)]
        self.batch_first(node)
        return self.emit(node, kind, tensors, args={"dim": dim % node.meta["val"].ndim})

    def op_slice(self, node: Node, input: str, dim: int, start: int | None, end: int | None, step: int) -> Any:
        return self._slice(node, node.meta["val"], input, dim, start or 0, end, step)

    def op_narrow(self, node: Node, input: str, dim: int, start: int, length: int) -> Any:
        return self._slice(node, node.meta["val"], input, dim, start, start + length, 1)

    def _slice(self, node: Node, value: Tensor, x: str, dim: int, start: int, end: int | None, step: int) -> str:
        dim %= value.ndim
        shape = self.ops[x].shape
        end = (shape[dim - 1] if dim else 0) if end is None else end
        if dim == 0:
            if start or step != 1 or (isinstance(end, int) and end < 2**62):
                self.problem(node, "a slice of the batch axis: each sample must be treated alike")
            return x
        if (start, step) == (0, 1) and end >= shape[dim - 1]:
            return x
        return self.emit(
            node, "slice", [x], value=value, args={"dim": dim, "start": start, "end": min(end, 2**31), "step": step}
        )

    def op_select(self, node: Node, input: str, dim: int, index: int) -> Any:
        dim %= len(self.ops[input].shape) + 1
        if dim == 0:
            self.problem(node, "one sample picked from the batch: each sample must be treated alike")
            return input
        return self.emit(node, "select", [input], args={"dim": dim, "index": index})

    def op_split(self, node: Node, input: str, split_size: Any, dim: int) -> Any:
        parts, start = [], 0
        for value in node.meta["val"]:
            size = int(value.shape[dim])
            parts.append(self._slice(node, value, input, dim, start, start + size, 1))
            start += size
        return parts

    def op_chunk(self, node: Node, input: str, chunks: int, dim: int) -> Any:
        return self.op_split(node, input, None, dim)

    def op_split_with_sizes(self, node: Node, input: str, split_sizes: list[int], dim: int) -> Any:
        return self.op_split(node, input, None, dim)

    def op_unbind(self, node: Node, input: str, dim: int) -> Any:
        dim %= len(self.ops[input].shape) + 1
        return [
            self.emit(node, "select", [input], value=value, args={"dim": dim, "index": k})
            for k, value in enumerate(node.meta["val"])
        ]

    # -- weighted layers -----------------------------------------------------------------------------------------------

    def op_linear(self, node: Node, input: str, weight: Any, bias: Any = None) -> Any:
        if isinstance(weight, str) or isinstance(bias, str) or isinstance(input, Tensor):
            return NotImplemented
        return self.emit(node, "linear", [input], tensors=_given(weight=weight, bias=bias))

    def op_matmul(self, node: Node, input: Any, other: Any) -> Any:
        if isinstance(other, str) or isinstance(input, Tensor) or other.ndim != 2:
            return NotImplemented
        return self.emit(node, "linear", [input], tensors=_given(weight=other.T))

    def op_mm(self, node: Node, input: Any, mat2: Any) -> Any:
        return self.op_matmul(node, input, mat2)

    def op_addmm(self, node: Node, input: Any, mat1: Any, mat2: Any, beta: float, alpha: float) -> Any:
        if isinstance(mat2, str) or isinstance(input, str) or isinstance(mat1, Tensor):
            return NotImplemented
        return self.emit(node, "linear", [mat1], tensors=_given(weight=mat2.T * alpha, bias=input * beta))

    def op_conv1d(self, node: Node, input: Any, weight: Any, bias: Any, **how: Any) -> Any:
        if isinstance(weight, str) or isinstance(input, Tensor):
            return NotImplemented
        n = weight.ndim - 2
        if len(self.ops[input].shape) != n + 1:
            self.problem(node, "a convolution without a batch axis")
            return input
        padding = how.get("padding", 0)
        if isinstance(padding, str):
            total = [d * (k - 1) for d, k in zip(_tuple(how["dilation"], n), weight.shape[2:], strict=True)]
            padding = [0] * n if padding == "valid" else [p // 2 for p in total]
            if any(p % 2 for p in total) and how["padding"] == "same":
                input = self._pad(node, input, [side for p in reversed(total) for side in (p // 2, p - p // 2)])
                padding = [0] * n
        args = {
            "stride": _tuple(how["stride"], n),
            "padding": _tuple(padding, n),
            "dilation": _tuple(how["dilation"], n),
            "transposed": "output_padding" in how,
            "output_padding": _tuple(how.get("output_padding", 0), n),
            "groups": how["groups"],
        }
        return self.emit(node, "convolution", [input], args=args, tensors=_given(weight=weight, bias=bias))

    op_conv2d = op_conv3d = op_conv_transpose1d = op_conv_transpose2d = op_conv_transpose3d = op_conv1d

    def op_convolution(self, node: Node, input: Any, weight: Any, bias: Any, transposed: bool, **how: Any) -> Any:
        if not transposed:
            how.pop("output_padding")
        return self.op_conv1d(node, input, weight, bias, **how)

    def _pad(self, node: Node, x: str, pads: list[int]) -> str:
        sizes = list(self.ops[x].shape)
        for k in range(len(pads) // 2):
            sizes[-1 - k] += pads[2 * k] + pads[2 * k + 1]
        padded = torch.empty(1, *sizes, device="meta")
        return self.emit(node, "resample:constant_pad_nd.default", [x], value=padded, args={"args": [pads, 0.0]})

    # -- constants -----------------------------------------------------------------------------------------------------

    def op_batch_norm(
        self, node: Node, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, eps: float, **_: Any
    ) -> Any:
        if running_mean is None or _.get("training"):
            self.problem(node, "BatchNorm without running statistics depends on the batch; train with track_running_stats")
            return input
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - running_mean * scale
        trailing = (1,) * (len(self.ops[input].shape) - 1)
        return self.emit(
            node, "affine", [input], tensors={"scale": scale.view(-1, *trailing), "shift": shift.view(-1, *trailing)}
        )

    def op__native_batch_norm_legit_no_training(self, node: Node, input: Any, **rest: Any) -> Any:
        name = self.op_batch_norm(node, input, **rest)
        return [name, None, None]

    def op_add(self, node: Node, input: Any, other: Any, alpha: float = 1) -> Any:
        if isinstance(input, str) and isinstance(other, str):
            self.batch_first(node)
            return self.emit(node, "add", [input, other], gains=(1.0, float(alpha)))
        if isinstance(input, str):
            return self._affine(node, input, shift=other * alpha)
        return self._affine(node, other, shift=input, scale=alpha)

    def op_sub(self, node: Node, input: Any, other: Any, alpha: float = 1) -> Any:
        return self.op_add(node, input, other, -alpha)

    def op_rsub(self, node: Node, input: Any, other: Any, alpha: float = 1) -> Any:
        return self.op_add(node, other, input, -alpha)

    def op_neg(self, node: Node, input: str) -> Any:
        return self._affine(node, input, scale=-1.0)

    def op_mul(self, node: Node, input: Any, other: Any) -> Any:
        if isinstance(input, str) and isinstance(other, str):
            return NotImplemented
        x, constant = (input, other) if isinstance(input, str) else (other, input)
        return self._affine(node, x, scale=constant)

    def op_div(self, node: Node, input: Any, other: Any, rounding_mode: str | None = None) -> Any:
        if isinstance(other, str) or rounding_mode:
            return NotImplemented
        return self._affine(node, input, scale=1 / other)

    def _affine(self, node: Node, x: str, **tensors: Any) -> Any:
        result = node.meta["val"]
        if tuple(int(n) for n in result.shape[1:]) != self.ops[x].shape:
            self.problem(node, f"{_base(node)} with a constant that widens the activation to {tuple(result.shape)}")
            return x
        kept = {}
        for key, tensor in tensors.items():
            tensor = torch.as_tensor(tensor, dtype=torch.get_default_dtype()).to(result.device if not _fake(result) else "cpu")
            if tensor.ndim == result.ndim:
                if tensor.shape[0] != 1:
                    self.problem(node, "a constant with a batch axis of its own: each sample must be treated alike")
                tensor = tensor[0]
            if key != "scale" or tensor.numel() > 1 or tensor.item() != 1:
                kept[key] = tensor
        return self.emit(node, "affine", [x], tensors=kept)

    # -- means, activations, pooling -----------------------------------------------------------------------------------

    def op_mean(self, node: Node, input: str, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        return self._reduce(node, "mean", input, dim, keepdim)

    def op_sum(self, node: Node, input: str, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        return self._reduce(node, "sum", input, dim, keepdim)

    def _reduce(self, node: Node, kind: str, x: str, dim: Any, keepdim: bool) -> Any:
        ndim = len(self.ops[x].shape) + 1
        dims = [d % ndim for d in ([dim] if isinstance(dim, int) else dim or range(ndim))]
        if 0 in dims:
            self.problem(node, f"{kind} over the batch axis: each sample must be treated alike")
            return x
        return self.emit(node, kind, [x], args={"dim": dims, "keepdim": keepdim})

    def _activation(self, node: Node, x: str, slope: Any = 1.0, low: Any = None, high: Any = None, pool: Any = None) -> Any:
        if isinstance(low, (str, Tensor)) or isinstance(high, (str, Tensor)):
            return NotImplemented
        bounds = [None if b is None or math.isinf(b) else float(b) for b in (low, high)]
        tensors = {"slope": slope} if isinstance(slope, Tensor) else {}
        slope = 1.0 if isinstance(slope, Tensor) else float(slope)
        args = {"slope": slope, "low": bounds[0], "high": bounds[1], "pool": pool}
        return self.emit(node, "activation", [x], args=args, tensors=tensors)

    def op_relu(self, node: Node, input: str) -> Any:
        return self._activation(node, input, slope=0.0)

    def op_relu6(self, node: Node, input: str) -> Any:
        return self._activation(node, input, slope=0.0, high=6.0)

    def op_leaky_relu(self, node: Node, input: str, negative_slope: float) -> Any:
        return self._activation(node, input, slope=negative_slope)

    def op_prelu(self, node: Node, input: str, weight: Any) -> Any:
        if isinstance(weight, str):
            return NotImplemented
        if weight.numel() == 1:
            return self._activation(node, input, slope=weight.item())
        return self._activation(node, input, slope=weight.view(-1, *(1,) * (len(self.ops[input].shape) - 1)))

    def op_hardtanh(self, node: Node, input: str, min_val: float, max_val: float) -> Any:
        return self._activation(node, input, slope=0.0 if min_val == 0 else 1.0, low=min_val, high=max_val)

    def op_clamp(self, node: Node, input: str, min: Any = None, max: Any = None) -> Any:
        if min == 0:
            return self._activation(node, input, slope=0.0, high=max)
        return self._activation(node, input, low=min, high=max)

    def op_clamp_min(self, node: Node, input: str, min: Any) -> Any:
        return self.op_clamp(node, input, min=min)

    def op_clamp_max(self, node: Node, input: str, max: Any) -> Any:
        return self.op_clamp(node, input, max=max)

    def op_max_pool2d(self, node: Node, **arguments: Any) -> Any:
        x = arguments.pop("input")
        name = str(node.target).removeprefix("aten.").replace("_with_indices", "")
        value = node.meta["val"]
        pool = {"operator": name, "args": list(arguments.values())}
        if isinstance(value, Tensor):
            return self._activation(node, x, pool=pool)
        indices = [n for n in node.users if n.args[1] == 1 and n.users]
        if indices:
            self.problem(node, "max-pooling whose indices are used (unpooling) has no spiking form")
        args = {"slope": 1.0, "low": None, "high": None, "pool": pool}
        return [self.emit(node, "activation", [x], value=value[0], args=args), None]

    op_max_pool1d = op_max_pool3d = op_max_pool2d_with_indices = op_max_pool3d_with_indices = op_max_pool2d
    op_adaptive_max_pool1d = op_adaptive_max_pool2d = op_adaptive_max_pool3d = op_max_pool2d

    def op_amax(self, node: Node, input: str, dim: list[int], keepdim: bool) -> Any:
        if 0 in [d % (len(self.ops[input].shape) + 1) for d in dim] or not dim:
            self.problem(node, "amax over the batch axis: each sample must be treated alike")
            return input
        return self._activation(node, input, pool={"operator": "amax.default", "args": [dim, keepdim]})


def finish(lowering: Lowering, outputs: tuple[str, ...]) -> dict[str, Op]:
    """The operations the outputs need, tensors detached from the user's module."""
    needed = set(outputs)
    for op in reversed(list(lowering.ops.values())):
        if op.name in needed:
            needed.update(op.inputs)
    return {
        name: replace(op, tensors={k: t.detach().clone() for k, t in op.tensors.items()})
        for name, op in lowering.ops.items()
        if name in needed or op.target == "input"
    }


def _base(node: Node) -> str:
    """The operator's bare name: ``add_.Tensor`` is ``add``."""
    name: str = node.target._schema.name.split("::")[1]  # type: ignore[union-attr]
    return name.rstrip("_")


def _path(node: Node) -> str:
    """The path of the module in whose forward the operator stands."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return "" if path.startswith("_empty") else path


def _name(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = _path(node)
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return path if path and "torch.nn.modules" in kind else f"{path}.{_base(node)}".lstrip(".")


def _renamed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The first argument, which operators call ``input``, ``self`` or ``tensors``, under one name."""
    return {{"self": "input"}.get(key, key): value for key, value in arguments.items()}


def _flat(values: Any) -> list[Any]:
    return [v for value in values for v in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def _tuple(value: Any, n: int) -> list[int]:
    value = [value] if isinstance(value, int) else [int(v) for v in value]
    return value * n if len(value) == 1 else value


def _given(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def _fake(value: Any) -> bool:
    return isinstance(value, torch._subclasses.FakeTensor)
