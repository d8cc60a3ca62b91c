"""Callbacks: checkpoints, curves, progress, and a clean stop."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from transpike import files
from transpike.errors import TranspikeError
from transpike.train.classify import Classifier

__all__ = ["CheckpointFiles", "Checkpoints", "Curves", "FiniteLoss", "Interrupted", "OneBar", "StopOnSignal"]


CHECKPOINT = files.zip_kind("a checkpoint of a training", "data.pkl", "version")


class Interrupted(Exception):
    """A signal stopped the training."""


class StopOnSignal:
    """A context that notes Ctrl-C and SIGTERM. A second signal stops at once."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number

    def received(self, trainer: L.Trainer) -> bool:
        """Whether any process has received a signal. All processes must stop after the same batch."""
        mine = self._received is not None
        return trainer.strategy.reduce_boolean_decision(mine, all=False) if trainer.world_size > 1 else mine


class Curves(L.Callback):
    """One row for each epoch, kept in the checkpoint and written to `curves.csv` and to the loggers."""

    def __init__(self, folder: Path, *, validates: bool) -> None:
        self.folder = folder
        self.validates = validates
        self.rows: list[dict[str, float]] = []
        self._began = time.perf_counter()
        self._before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter() - self._before

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        training = pl_module.measured("train")
        row |= {"loss": training.pop("loss"), "train_accuracy": training.pop("accuracy")}
        row |= {name: mean for name, mean in training.items() if name != "images"}
        if self.validates:
            held_out = pl_module.measured("validation")
            row |= {"validation_loss": held_out["loss"], "validation_accuracy": held_out["accuracy"]}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = time.perf_counter() - self._began
        self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"]))
        if trainer.is_global_zero:
            files.write_csv(self.folder / "curves.csv", list(row), [list(each.values()) for each in self.rows])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": time.perf_counter() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._before = list(state_dict["rows"]), state_dict["seconds"]


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after every epoch and on a signal, `best.ckpt` by validation accuracy, each by one move."""

    def __init__(self, folder: Path, curves: Curves, stop: StopOnSignal) -> None:
        self.folder = folder
        self.curves = curves
        self.stop = stop
        self.best = -1.0
        self.best_epoch = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # The first process made the folder, perhaps under a name that only it knows.
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # The last batch of an epoch is followed by its validation and its checkpoint.
        if not trainer.is_last_batch and self.stop.received(trainer):
            self._save(trainer, better=False)
            raise Interrupted

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        accuracy = self.curves.rows[-1].get("validation_accuracy", -1.0)
        better = accuracy > self.best
        if better:
            self.best, self.best_epoch = accuracy, trainer.current_epoch + 1
        self._save(trainer, better=better)
        if self.stop.received(trainer):
            raise Interrupted

    def _save(self, trainer: L.Trainer, *, better: bool) -> None:
        last, best = self.folder / "last.ckpt", self.folder / "best.ckpt"
        # The best comes first. If the run is killed between the two, it repeats the epoch, and again finds it best.
        trainer.save_checkpoint(best if better else last)
        if better and trainer.is_global_zero:
            files.write(last, lambda path: shutil.copyfile(best, path), kind=CHECKPOINT)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints as files, each written completely or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        files.write(path, partial(_save, checkpoint), kind=CHECKPOINT)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # with a path, torch would write the name of a temporary file into it
        torch.save(checkpoint, file)


class FiniteLoss(L.Callback):
    """Stops if the loss is not finite. On an accelerator it checks only sometimes, because each check waits for it."""

    EVERY = 32

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: list[tuple[int, dict[str, Tensor]]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._pending.append((trainer.global_step, outputs["terms"]))
        if pl_module.device.type == "cpu" or len(self._pending) == self.EVERY:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        if not self._pending:
            return
        table = torch.stack([torch.stack(list(terms.values())) for _, terms in self._pending]).tolist()
        pending, self._pending = self._pending, []
        for (step, terms), values in zip(pending, table, strict=True):
            if not all(abs(value) < float("inf") for value in values):
                named = ", ".join(f"{name} = {value:g}" for name, value in zip(terms, values, strict=True))
                last = self.folder / "last.ckpt"
                good = f"{last} holds the last good state" if last.exists() else "no epoch had ended yet"
                raise TranspikeError(
                    f"the loss is not finite at step {step} (epoch {trainer.current_epoch + 1}): {named}; {good}. "
                    + (
                        "No step had been taken: look for such values in the images and in the initial weights."
                        if step == 1
                        else "Lower optim.lr, lengthen optim.warmup or set optim.clip."
                    )
                )


class OneBar(ProgressBar):
    """A single bar for the whole training, with the latest epoch's figures."""

    def __init__(self, curves: Curves) -> None:
        super().__init__()
        self.curves = curves
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", epoch="", figures="")

    def disable(self) -> None:
        self._bar.disable = True

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, highlight=False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._bar.update(self._task, total=total, completed=trainer.global_step)
        if trainer.is_global_zero:
            self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._bar.update(self._task, completed=trainer.global_step, epoch=epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = self.curves.rows[-1]
        figures = f"loss {row['loss']:.3f}"
        if "validation_accuracy" in row:
            figures += f", validation {row['validation_accuracy']:.2%}"
        self._bar.update(self._task, figures=figures)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._bar.stop()
