"""Checks that a run can continue from a checkpoint: it is complete, unchanged, and belongs to this run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, strided

from transpike.checks import few, shown
from transpike.errors import ConfigError, ModelError
from transpike.files import plain
from transpike.models.archives import read_archive
from transpike.train.options import TrainOptions

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from torch import nn

__all__ = ["check_resumable", "read_checkpoint", "run_facts", "seal"]

CONTENTS, RUN = "contents", "run"
PARTS = (CONTENTS, RUN, "callbacks", "loops", "state_dict")


def run_facts(options: TrainOptions, *, batches: int, validates: bool) -> dict[str, object]:
    """Return the facts about a run that its checkpoint stores. They differ between runs; the machine may change."""
    # In the form of run.json, from which a resumed command reads them.
    settled = plain({name: value for name, value in asdict(options).items() if name != "machine"})
    return {"options": settled, "training batches": batches, "validates": validates}


def seal(checkpoint: dict[str, object], facts: Mapping[str, object]) -> None:
    """Add the facts of the run, and a table of the whole content, to a checkpoint before it is written.

    Example:
        >>> checkpoint: dict[str, object] = {"epoch": 3, "rows": [{"loss": 0.5}]}
        >>> seal(checkpoint, {})
        >>> checkpoint["contents"]["rows.0.loss"]
        '0.5'
    """
    checkpoint[RUN] = dict(facts)
    checkpoint[CONTENTS] = dict(_contents(checkpoint))


def read_checkpoint(path: Path, *, remedy: str, values: bool = True) -> dict[str, Any]:
    """Read a checkpoint of `fit`.

    Args:
        path: the file.
        remedy: what to do if it cannot be used, as a sentence.
        values: whether to read the tensors' values. Otherwise they are on the meta device.

    Raises:
        ModelError: It is missing or damaged, has another origin, or has changed since it was written.
    """
    found = read_archive(path, remedy=remedy, values=values)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), Mapping) for name in PARTS):
        raise ModelError(f"{path} is not a checkpoint of this version, or lacks parts: {', '.join(PARTS)}. {remedy}")
    if changed := list(_differences(found[CONTENTS], dict(_contents(found)))):
        raise ModelError(f"{path} has been changed since it was written: {few(changed)}. {remedy}")
    return found


def check_resumable(
    checkpoint: Path, module: nn.Module, callbacks: list[Callback], facts: Mapping[str, object], *, keep: str
) -> None:
    """Check that a run can continue from a checkpoint, before anything is changed.

    Args:
        checkpoint: the run's `last.ckpt`. If the best epoch's weights count, `best.ckpt` beside it is checked too.
        module: the module to train.
        callbacks: the callbacks of the training.
        facts: the facts of the run; see `run_facts`.
        keep: which weights are returned, "last" or "best".

    Raises:
        ModelError: A checkpoint is missing or damaged, or has changed.
        ConfigError: It belongs to another network, other options or other images.
    """
    best = checkpoint.with_name("best.ckpt")
    remedy = (
        f"Copy {best} over it to continue from there, or start a new run." if best.is_file() else "Start a new run."
    )
    found = read_checkpoint(checkpoint, remedy=remedy, values=False)
    _check_origin(checkpoint, found, module, callbacks, facts)
    if keep == "best" and found["callbacks"]["Checkpoints"]["best_epoch"]:
        _check_origin(best, read_checkpoint(best, remedy="Start a new run.", values=False), module, callbacks, facts)


def _check_origin(
    path: Path,
    found: dict[str, Any],
    module: nn.Module,
    callbacks: list[Callback],
    facts: Mapping[str, object],
) -> None:
    states = {callback.state_key for callback in callbacks if callback.state_dict()}
    own = {**facts, "network": _shapes(module.state_dict()), "state": dict.fromkeys(states, "kept")}
    theirs = {
        **found[RUN], "network": _shapes(found["state_dict"]), "state": dict.fromkeys(found["callbacks"], "kept"),
    }  # fmt: skip
    if other := list(_differences(dict(_contents(theirs)), dict(_contents(own)))):
        raise ConfigError(
            f"{path} is of another run: {few(other)}. Resume with the network, the options and the images that it "
            "began with, or start a new run in another folder."
        )


def _shapes(state: Mapping[str, object]) -> dict[str, object]:
    return {str(name): _summary(value) for name, value in state.items()}


def _contents(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every nested value as a text, by its path; containers by their kind and length."""
    if isinstance(value, Mapping):
        inner = {key: each for key, each in value.items() if name or key != CONTENTS}
        if name:
            yield name, f"{len(inner)} names with values"
        for key, each in inner.items():
            step = f".{key}" if isinstance(key, str) else f"[{key!r}]"
            yield from _contents(each, f"{name}{step}".removeprefix("."))
    elif isinstance(value, list | tuple):
        yield name, f"a {type(value).__name__} of {len(value)}"
        for index, each in enumerate(value):
            yield from _contents(each, f"{name}.{index}")
    else:
        yield name, _summary(value)


def _summary(value: object) -> str:
    if isinstance(value, Tensor):
        plain = not (value.is_nested or value.is_quantized) and value.layout == strided
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.") if plain else f"an odd tensor, {value.dtype}"
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def _differences(before: Mapping[object, object], now: Mapping[str, str]) -> Iterator[str]:
    for name in before:
        if name not in now:
            yield f"{name} is missing"
    for name, value in now.items():
        if name not in before:
            yield f"{name} is new ({value:.80})"
        elif (old := before[name]) != value:
            yield f"{name} was {old if isinstance(old, str) else shown(old):.80} and is {value:.80}"
