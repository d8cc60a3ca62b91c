"""Exports to ONNX and torch.export: one step of the network as a graph of standard operators, its clock as JSON."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from transpike import files
from transpike.checks import whole
from transpike.conversion import SpikingNetwork
from transpike.errors import ModelError, TranspikeError
from transpike.export.step import Step

__all__ = ["onnx", "torch_program"]

FORMAT, VERSION = "transpike step of a spiking network", 1
SCHEDULE = files.json_kind("the schedule of a step (schedule.json)", format=FORMAT)
GRAPH = files.marked("a step that transpike wrote (ONNX)", "transpike", within=64)
PROGRAM = files.zip_kind("a step that torch.export wrote", "archive_format")
LARGEST = 2**31 - 2**20
"""The largest size of one ONNX file in bytes."""


def onnx(snn: SpikingNetwork, folder: Path | str, *, opset: int = 18) -> Path:
    """Write ``step.onnx``, one step of the network, and ``schedule.json``, its clock.

    The graph has no state. Its inputs are ``image`` [N, \\*], ``control`` (a row of the schedule) and the states. Its
    outputs are the network's outputs and the next states, in the same order. N is free. States begin as zeros, and step
    t uses row t modulo the interval. The outputs of an image that enters at step 0 are complete with step latency - 1.
    Before that, from the output's first step on, they equal those of `SpikingNetwork.stream`. If the network has a stop
    rule, the schedule contains it.

    Args:
        snn: the network.
        folder: the folder, which is created if it is missing. Files of an earlier export there are replaced.
        opset: the version of ONNX's operators, from 18 to the newest of the installed onnx.

    Returns:
        The folder.

    Raises:
        ModelError: onnx and onnxscript are not installed, an operator or the stop rule has no ONNX form, or the files
            cannot be written.
    """
    whole("opset", opset, least=18)
    step = _step(snn, Path(folder), "step.onnx", GRAPH)
    size = sum(t.numel() * t.element_size() for t in step.buffers())
    if size > LARGEST:
        raise ModelError(f"its weights take {size / 2**30:.1f} GiB, and an ONNX file has at most 2: use torch_program")
    data = _onnx(step, opset)
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("step.onnx", data, kind=GRAPH)
        change.write("schedule.json", files.dumps(_schedule(step, "step.onnx", opset=opset)), kind=SCHEDULE)
    return Path(folder)


def torch_program(snn: SpikingNetwork, folder: Path | str) -> Path:
    """Write ``step.pt2``, the same step in the form of ``torch.export.save``, and ``schedule.json``.

    ``torch.export.load(path).module()(image, control, states)`` returns the outputs and the next states, as lists.

    Args:
        snn: the network.
        folder: the folder, which is created if it is missing. Files of an earlier export there are replaced.

    Returns:
        The folder.

    Raises:
        ModelError: The files cannot be written.

    Example:
        >>> import tempfile, transpike
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> snn = transpike.convert(ann, torch.rand(64, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in torch_program(snn, folder).iterdir())
        ['schedule.json', 'step.pt2']
    """
    step = _step(snn, Path(folder), "step.pt2", PROGRAM)
    arguments, shapes = _example(step)
    data = io.BytesIO()
    with _quietly(), torch.no_grad():
        torch.export.save(torch.export.export(step, arguments, dynamic_shapes=shapes), data)
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("step.pt2", data.getvalue(), kind=PROGRAM)
        change.write("schedule.json", files.dumps(_schedule(step, "step.pt2")), kind=SCHEDULE)
    return Path(folder)


def _step(snn: SpikingNetwork, folder: Path, name: str, kind: files.Kind) -> Step:
    """Return the step. Raise an error before the work if its files could not be written."""
    if not isinstance(snn, SpikingNetwork):
        raise ModelError(
            f"{type(snn).__name__} is not a converted network; give what transpike.convert or load returns"
        )
    if snn.device.type != "cpu":
        raise ModelError(f"the network is on {snn.device}: move a copy of it to the CPU, snn.cpu()")
    files.check_target(folder / name, kind, error=ModelError)
    files.check_target(folder / "schedule.json", SCHEDULE, error=ModelError)
    return Step(snn).eval()


def _example(step: Step) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return inputs of two samples, and which of their axes are free."""
    kind = next(t.dtype for t in step.buffers() if t.is_floating_point())
    image = torch.zeros(2, *step.graph.input.shape)
    control = torch.tensor(step.schedule[0], dtype=kind)
    states = [torch.zeros(2, *shape, dtype=kind) for shape in step.states.values()]
    batch = torch.export.Dim("N")
    return (image, control, states), ({0: batch}, {}, [{0: batch} for _ in states])


def _onnx(step: Step, opset: int) -> bytes:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError("ONNX needs the packages onnx and onnxscript: pip install 'transpike[export]'") from error
    from onnx.defs import onnx_opset_version

    whole("opset", opset, least=18, most=onnx_opset_version())
    arguments, shapes = _example(step)
    names = {"states": list(step.states), "outputs": _outputs(step)}
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                step,
                arguments,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                input_names=["image", "control", *names["states"]],
                output_names=[*names["outputs"], *(f"next {name}" for name in names["states"])],
                verbose=False,
            )
    except TranspikeError:
        raise
    except Exception as error:  # the exporter's errors have no common base class
        reason = str(error.__cause__ or error).strip().partition("\n")[0][:300]
        raise ModelError(f"no ONNX form: {reason}") from error
    assert program is not None
    model = program.model_proto
    if (reached := next(one.version for one in model.opset_import if not one.domain)) != opset:
        raise ModelError(f"opset={opset}: the installed onnx cannot convert the step further than to {reached}")
    model.producer_name, model.producer_version = "transpike", ""
    data: bytes = model.SerializeToString()
    return data


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporters' messages about progress and future changes."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _outputs(step: Step) -> list[str]:
    keys = step.graph.container
    return (
        [f"output {key}" for key in keys]
        if isinstance(keys, list)
        else ["output" if keys == "tensor" else f"output {k}" for k in range(len(step.graph.outputs))]
    )


def _schedule(step: Step, graph: str, **more: object) -> dict[str, object]:
    kind = next(t.dtype for t in step.buffers() if t.is_floating_point())
    states = [{"name": name, "shape": list(shape)} for name, shape in step.states.items()]
    return {
        "format": FORMAT,
        "version": VERSION,
        "graph": graph,
        **more,
        "type": str(kind).removeprefix("torch."),
        "image": list(step.graph.input.shape),
        "outputs": _outputs(step),
        "states": states,
        "latency": step.latency,
        "interval": step.interval,
        "stop": step.stop,
        "schedule": step.schedule,
    }
