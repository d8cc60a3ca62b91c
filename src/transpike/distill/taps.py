"""Features by module name: hooks that record them, and maps from any module's output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from transpike.checks import near
from transpike.errors import ModelError

__all__ = ["Stage", "Tap", "Taps", "find_taps", "listed", "named_modules"]

SHOWN = 30
PREFIX_TOKENS = 5
"""The largest number of class and register tokens before a transformer's grid."""

Layout = Literal["chw", "hwc", "tokens", "transposed"]


@dataclass(frozen=True)
class Stage:
    """A tap of the student and the teacher's tap from which it learns. Sizes are (H, W)."""

    student: str
    teacher: str
    student_channels: int
    teacher_channels: int
    student_size: tuple[int, int]
    teacher_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """The grid on which both are compared: the smaller one. The larger maps are pooled to it."""
        (a, b), (c, d) = self.student_size, self.teacher_size
        return min(a, c), min(b, d)


@dataclass(frozen=True)
class Tap:
    """A module whose output is read as feature maps.

    Attributes:
        name: the module's name in `named_modules()`.
        channels: channels of the maps.
        size: (H, W) of the maps.
        layout: the output's layout after time and samples: "chw"; "hwc"; "tokens", [prefix + H * W, C]; or
            "transposed", [C, prefix + H * W].
        prefix: the number of class and register tokens before the grid, which are dropped.
        steps: T, if the output has a time axis, alone [T, N, *] or within the batch [T * N, *]; otherwise None.
    """

    name: str
    channels: int
    size: tuple[int, int]
    layout: Layout
    prefix: int = 0
    steps: int | None = None

    def maps(self, output: object) -> Tensor:
        """Return the module's output as maps [N, C, H, W], or [T, N, C, H, W] for a network with time.

        Example:
            >>> Tap("blocks.0", channels=8, size=(2, 2), layout="tokens", prefix=1).maps(torch.zeros(3, 5, 8)).shape
            torch.Size([3, 8, 2, 2])
        """
        x = _tensor(output)
        space = 3 if self.layout in ("chw", "hwc") else 2
        if self.steps is not None and x.ndim == space + 1:
            x = x.unflatten(0, (self.steps, -1))
        if self.layout == "hwc":
            return x.movedim(-1, -3)
        if self.layout == "tokens":
            x = x.transpose(-1, -2)
        return x[..., self.prefix :].unflatten(-1, self.size) if space == 2 else x


@dataclass(frozen=True)
class _Record:
    """A module's output in one call: the tensors themselves and, if the network may change them in place, a copy.

    Without a copy and versions, the record is the output itself, whether or not it has changed since.
    """

    output: object
    copy: object = None
    versions: list[int] | None = None

    @property
    def changed(self) -> bool:
        """Whether the network has changed the tensors since the call."""
        return self.versions is not None and _versions(self.output) != self.versions


class Taps:
    """Records the outputs of a network's modules by name, from `open` to `close` or within a `with`.

    The record is the module's output. Gradients flow from it into the module, even if the network later changes it in
    place (``out += identity``, ``nn.ReLU(inplace=True)``). A copy is kept until the record of a first pass is read.
    After that, a copy is kept only of outputs that the network changed in the first pass.

    Args:
        model: any network. It is not changed. A network of `torch.compile` keeps its names from before the compilation.
        names: modules, as in `named_modules()`.
        on_path: whether the network continues with a copy, so that its output depends on the record even if it changes
            the original in place. Gradients with respect to the record need this.

    Raises:
        ModelError: The network has no module with a given name. The message lists its names.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> with Taps(net, ["0"]) as taps:
        ...     _ = net(torch.zeros(1, 3, 8, 8))
        >>> taps["0"].shape
        torch.Size([1, 4, 6, 6])
        >>> Taps(net, ["2"])
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: Sequential has no module '2' to tap. It has: 0, 1
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, on_path: bool = False) -> None:
        modules = named_modules(model)
        self.compiled = modules.pop("_orig_mod", None) is not None
        wrong = [name for name in names if name not in modules]
        if wrong:
            raise ModelError(_no_module(model, wrong, list(modules)))
        self.modules = {name: modules[name] for name in names}
        self.on_path = on_path
        self._records: dict[str, _Record] = {}
        self._changing: set[str] = set()
        self._steady: set[tuple[str, bool]] = set()
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __getitem__(self, name: str) -> Any:
        """Return the module's output in its last call.

        Raises:
            ModelError: The module was not called. Or the network changed the output in place, but had not done so in an
                earlier pass. Then the next pass is right again.
        """
        record = self._records.get(name)
        if record is None:
            raise ModelError(f"the network did not call its module {name!r}, so there is nothing to tap.")
        if record.changed:
            self._changing.add(name)
            if record.copy is None:
                raise ModelError(
                    f"the network changed the output of its module {name!r} in place, but not in an earlier pass. Run "
                    "it again, or tap another module."
                )
        elif record.versions is not None:
            self._steady.add((name, self.modules[name].training))
        # The reader may change the tensor after reading.
        self._records[name] = _Record(record.copy if record.changed else record.output)
        return self._records[name].output

    def clear(self) -> None:
        """Delete the records, so that their memory is free."""
        self._records.clear()

    def open(self) -> Taps:
        """Start to record."""
        self.close()
        if self.compiled:
            torch.compiler.reset()  # code that was compiled without hooks would not call them
        self._hooks = [module.register_forward_hook(self._record(name)) for name, module in self.modules.items()]
        return self

    def close(self) -> None:
        """Remove the hooks. The last records stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> Taps:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, name: str) -> Callable[..., object]:
        def hook(module: nn.Module, inputs: object, output: object) -> object:
            last = self._records.get(name)
            if last is not None and last.changed:
                self._changing.add(name)
            if self.on_path or torch.is_inference_mode_enabled():  # such tensors do not count their changes
                self._records[name] = _Record(output)
                return _copied(output)
            known = (name, module.training) in self._steady and name not in self._changing
            self._records[name] = _Record(output, None if known else _copied(output), _versions(output))
            return output

        # Excluded from torch.compile, which would freeze the hook's state at the time of compilation.
        outside: Callable[..., object] = torch.compiler.disable(hook)
        return outside


def _copied(output: object) -> object:
    return tree_map_only(Tensor, torch.clone, output)


def _versions(output: object) -> list[int]:
    """Return how often the tensors of a module's output have been changed in place."""
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def find_taps(
    model: nn.Module,
    names: Sequence[str],
    run: Callable[[], object],
    *,
    samples: int,
    image: tuple[int, int],
    steps: int | None = None,
) -> dict[str, Tap]:
    """Find the layout of modules' outputs by running the network once: in evaluation mode, without gradients.

    Four-dimensional outputs are [N, C, H, W], or [N, H, W, C] if only this layout has the image's proportions (Swin).
    Tokens [N, L, C] are a grid with the image's proportions, after at most five class and register tokens.

    Args:
        model: the network.
        names: modules, as in `named_modules()`.
        run: calls the network on an example.
        samples: N of the example.
        image: (H, W) of the example.
        steps: T of a spiking network. None for a network without time.

    Raises:
        ModelError: A name is unknown, or the output of a module has no spatial axes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
        >>> find_taps(net, ["0"], lambda: net(torch.zeros(1, 3, 8, 8)), samples=1, image=(8, 8))
        {'0': Tap(name='0', channels=4, size=(6, 6), layout='chw', prefix=0, steps=None)}
        >>> find_taps(net, ["1"], lambda: net(torch.zeros(1, 3, 8, 8)), samples=1, image=(8, 8))
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: Sequential: module '1' gives [1, 144], which has no spatial axes ...
    """
    with Taps(model, names) as taps, _evaluating(model):
        run()
    prefix = getattr(model, "num_prefix_tokens", None)
    return {name: _tap(model, name, taps[name], samples, image, steps, prefix) for name in names}


def _tap(
    model: nn.Module,
    name: str,
    output: object,
    samples: int,
    image: tuple[int, int],
    steps: int | None,
    prefix: int | None,
) -> Tap:
    x = _tensor(output)
    shape = list(x.shape)
    apart = steps is not None and shape[:2] == [steps, samples]
    timed = apart or (steps is not None and steps > 1 and shape[0] == steps * samples)
    rest = shape[2:] if apart else shape[1:]
    if len(rest) == 3:
        chw = Tap(name, rest[0], (rest[1], rest[2]), "chw", steps=steps if timed else None)
        hwc = Tap(name, rest[2], (rest[0], rest[1]), "hwc", steps=steps if timed else None)
        return hwc if _fits(hwc.size, image) and not _fits(chw.size, image) else chw
    if len(rest) == 2:
        first, last = rest
        readings: list[tuple[Layout, int, int]] = [("tokens", first, last), ("transposed", last, first)]
        for layout, length, channels in readings:
            grid = _grid(length, image, prefix)
            if grid is not None:
                return Tap(name, channels, grid[0], layout, grid[1], steps if timed else None)
    raise ModelError(
        f"{type(model).__name__}: module {name!r} gives {shape}, which has no spatial axes to read as [N, C, H, W] or "
        "as tokens [N, L, C] of a grid: tap a module before the pooling, or take a method of logits alone, such as kd."
    )


def _fits(size: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a map has the proportions of the image, except for rounding."""
    return abs(size[0] * image[1] - size[1] * image[0]) < max(image)


def _grid(length: int, image: tuple[int, int], prefix: int | None) -> tuple[tuple[int, int], int] | None:
    """Return height and width of a grid of tokens for an image, and the number of tokens before it."""
    for dropped in range(min(PREFIX_TOKENS + 1, length)) if prefix is None else (prefix, 0):
        tokens = length - dropped
        height = round((tokens * image[0] / image[1]) ** 0.5)
        if height and tokens % height == 0 and _fits((height, tokens // height), image):
            return (height, tokens // height), dropped
    return None


def _tensor(output: object) -> Tensor:
    """Return the output itself, or the first tensor of several."""
    found = output if isinstance(output, Tensor) else tree_leaves(output)[0]
    if not isinstance(found, Tensor):
        raise ModelError(f"a tapped module gives a {type(found).__name__}, not a tensor: tap another.")
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules except the model itself. Modules of `torch.compile` keep their names from before it."""
    return {name.removeprefix("_orig_mod."): module for name, module in model.named_modules() if name}


def _no_module(model: nn.Module, wrong: Sequence[str], known: Sequence[str]) -> str:
    guesses = "".join(near(name, known, most=2) for name in wrong)
    named = ", ".join(repr(name) for name in wrong)
    several = "s" if len(wrong) > 1 else ""
    return f"{type(model).__name__} has no module{several} {named} to tap.{guesses} {listed(known)}"


def listed(known: Sequence[str]) -> str:
    """List the available names for a message. If there are many, list only the outermost."""
    # The outermost come first, because these are the usual taps.
    ordered = sorted(known, key=lambda name: name.count("."))
    more = f", ... ({len(known) - SHOWN} more)" if len(known) > SHOWN else ""
    return f"It has: {', '.join(ordered[:SHOWN])}{more}"
