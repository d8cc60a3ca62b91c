"""Exports an integer network as whole numbers: weights, a shift for each channel, biases and thresholds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from transpike import files
from transpike.coding.scheme import ratio
from transpike.conversion import SpikingNetwork
from transpike.conversion.integers import finest, reaches
from transpike.conversion.kinds import KINDS
from transpike.conversion.op import Op
from transpike.conversion.save import tail
from transpike.errors import ModelError

__all__ = ["integers"]

FORMAT, VERSION = "transpike integer network", 1
DESCRIPTION = files.json_kind("an integer network (integers.json)", format=FORMAT)
NUMBERS = files.safetensors_kind("whole numbers of a network that transpike wrote")


def integers(snn: SpikingNetwork, folder: Path | str) -> Path:
    """Write ``integers.json`` and ``integers.safetensors``, the data to load into a chip or an FPGA.

    docs/format.md explains each field.

    Args:
        snn: the result of `SpikingNetwork.quantise`.
        folder: the folder, which is created if it is missing. Files of an earlier export there are replaced.

    Returns:
        The folder.

    Raises:
        ModelError: The network was not quantised, or the files cannot be written.

    Example:
        >>> import tempfile, torch, transpike
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> snn = transpike.convert(ann, torch.rand(64, 4), scheme=transpike.CSS(steps=8, silent=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in integers(snn.quantise(8), folder).iterdir())
        ['integers.json', 'integers.safetensors']
    """
    if not isinstance(snn, SpikingNetwork) or "exponent" not in snn.graph.input.args:
        raise ModelError("the network does not have whole numbers: pass the result of snn.quantise(bits=8)")
    tensors: dict[str, Tensor] = {}
    ops = []
    ranges = reaches(snn.graph, snn.scheme)
    for op in snn.graph:
        if op.name in snn.graph.spiking:
            own = _numbers(op, snn.tensors(op), ranges[op.name].exponent[0])
            tensors |= {f"{op.name}.{key}": tensor.cpu() for key, tensor in own.items()}
            ops.append(_written(snn, op, list(own)))
    description = {
        "format": FORMAT,
        "version": VERSION,
        "steps": snn.steps,
        "beta": ratio(snn.scheme),
        "digits": list(snn.scheme.digits),
        "latency": snn.latency,
        "interval": snn.interval,
        "delays": [[source, to, steps] for (source, to), steps in snn.delays.items() if steps],
        "input": {"unit": snn.units[snn.graph.input.name], "digits": list(snn.scheme.encoded or ())},
        "outputs": {name: snn.units[name] for name in sorted(snn.readouts)},
        "ops": ops,
    }
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("integers.safetensors", files.tensors(tensors, NUMBERS), kind=NUMBERS)
        change.write("integers.json", files.dumps(description), kind=DESCRIPTION)
    return Path(folder)


def _compressed(t: Tensor) -> Tensor:
    """Return the tensor without the axes along which it does not vary."""
    for axis in range(t.ndim):
        first = t.narrow(axis, 0, 1)
        t = first if bool((t == first).all()) else t
    return t


def _written(snn: SpikingNetwork, op: Op, tensors: list[str]) -> dict[str, object]:
    wait = snn.timing.waits.get(op.name, 0)
    entry: dict[str, object] = {"name": op.name, "kind": op.kind, "inputs": op.inputs, "shape": op.shape}
    entry |= {"args": {k: v for k, v in op.args.items() if k not in ("exponent", "state_bits", "bits")}}
    entry |= {"gains": op.gains, "tensors": tensors}
    entry |= {key: op.args[key] for key in ("bits", "state_bits") if key in op.args}
    if op.fires:
        entry |= {"wait": wait, "function": op.function.written(), "tail": tail(op.function)}
        entry |= {"theta": snn.units[op.name]}
    return entry


def _numbers(op: Op, tensors: dict[str, Tensor], exponent: Tensor) -> dict[str, Tensor]:
    factor, constant = KINDS[op.kind].factor, KINDS[op.kind].constant
    numbers: dict[str, Tensor] = {"exponent": _compressed(exponent).to(torch.int16)}
    for key, tensor in tensors.items():
        if key == factor:
            per = op.kind in ("convolution", "linear") and not op.args.get("transposed")
            shift = finest(tensor, channels=True) if per else finest(tensor, channels=None)
            grown = torch.exp2(shift.double()).view(*shift.shape, *[1] * (tensor.ndim - shift.ndim))
            width = torch.int8 if int(op.args["bits"]) <= 8 else torch.int16
            numbers |= {key: (tensor * grown).to(width), f"{key}_shift": shift.to(torch.int16)}
        elif key == constant:
            shift = finest(tensor, channels=None)
            numbers |= {
                key: (tensor * torch.exp2(shift.double())).to(torch.int64),
                f"{key}_shift": shift.to(torch.int16),
            }
        else:
            numbers[key] = tensor
    return numbers
