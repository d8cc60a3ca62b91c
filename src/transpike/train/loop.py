"""Training and testing from Python: `fit` and `evaluate` take any module and any loaders."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from transpike import files
from transpike.errors import ConfigError, ModelError, TranspikeError
from transpike.results import RunFolder
from transpike.train.batches import Passes, share
from transpike.train.callbacks import (
    CheckpointFiles,
    Checkpoints,
    Curves,
    FiniteLoss,
    Interrupted,
    OneBar,
    StopOnSignal,
)
from transpike.train.classify import Classifier
from transpike.train.fitted import Batches, Evaluation, Fitted, Loaders
from transpike.train.inputs import check_loader
from transpike.train.layouts import safe_layouts
from transpike.train.options import Machine, TrainOptions
from transpike.train.outlook import Outlook
from transpike.train.record import check_folder, leave, python_run
from transpike.train.resume import check_resumable, read_checkpoint, run_facts

__all__ = ["evaluate", "fit", "fit_module", "tested"]

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""The exceptions of Lightning and torch for a checkpoint that claims to be complete but has other content."""


class _Data(L.LightningDataModule):
    """Each process's share of the loaders, selected when Lightning knows the number of processes."""

    def __init__(self, seed: int, train: Batches | None, held_out: Batches | None) -> None:
        super().__init__()
        # There may be fewer validation batches than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.seed, self.train, self.held_out = seed, train, held_out

    def train_dataloader(self) -> Passes:
        trainer = self.trainer
        assert trainer is not None and self.train is not None
        rank, world = trainer.global_rank, trainer.world_size
        mine = share(self.train, rank, world, even=True)
        if len(mine) == 0:  # type: ignore[arg-type]
            raise ConfigError(f"the training images make fewer batches than there are processes, {world}.")
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return Passes(
            mine,
            seed=self.seed,
            epoch=lambda: trainer.current_epoch,
            done=lambda: progress.current.ready,
            rank=rank,
        )

    def val_dataloader(self) -> Batches:
        assert self.trainer is not None
        return [] if self.held_out is None else share(self.held_out, self.trainer.global_rank, self.trainer.world_size)

    test_dataloader = val_dataloader


def fit(
    model: nn.Module,
    loaders: Loaders,
    options: TrainOptions | None = None,
    *,
    folder: str | Path | RunFolder,
    resume: bool = False,
    encode: Callable[[Tensor], Tensor] | None = None,
    reset: Callable[[nn.Module], object] | None = None,
    watching: Sequence[Callback] = (),
) -> Fitted:
    """Train a classifier.

    The folder receives `last.ckpt` after every epoch and on a signal, `best.ckpt` by validation accuracy, `curves.csv`
    and TensorBoard events. Like the folder of a command, it also receives run.json and, in the end,
    weights.safetensors, model.json and results.json. `transpike report` reads it. So do `transpike evaluate`, `analyze`
    and `convert`, if the network comes from `create_model` and the images come from `Loaders.of` or are named by
    --data.

    A run that was stopped by Ctrl-C or SIGTERM continues after its last trained batch. A run that was killed continues
    after its last finished epoch. In one process on the CPU, the final weights equal those of an uninterrupted run bit
    for bit. Batches of the interrupted epoch that are already trained are fetched again, but not trained on.

    Under torchrun each process takes every world-th batch. So the batch size is that of one process. At the end of an
    epoch, batches are left out if they are fewer than the processes.

    Args:
        model: any module that returns [N, classes], or [T, N, classes] with `options.steps`. It is changed in place.
        loaders: training and validation batches.
        options: how to train.
        folder: the folder of the run, which must be new or empty. A `RunFolder` already has a record, which its creator
            completes.
        resume: continue from the folder's `last.ckpt`. Model, loaders and options must be those of the first start.
        encode: turns images [N, *] into a spiking network's input. By default they are repeated over time, and frames
            [T, N, C, H, W] stay unchanged.
        reset: resets a spiking network's state; called before each batch. The default is `reset_net`.
        watching: further callbacks of Lightning.

    Returns:
        The trained network and its curves. Its weights are those of the last epoch, or with `options.keep` those of the
        best epoch on the validation images.

    Raises:
        ConfigError: There is nothing to resume from, or it belongs to another network, other options or other images.
            Or the folder holds anything else, or a loader has no length.
        ModelError: A checkpoint is damaged, or has changed since it was written.
        DataError: The frames have another T than `options.steps`.
        TranspikeError: The loss is no longer finite. The message names the step, the terms and the last good
            checkpoint.
        KeyboardInterrupt: Ctrl-C was pressed or SIGTERM came. The present batch is finished first.

    Example:
        >>> import tempfile
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> images = torch.eye(4).repeat(16, 1)
        >>> loader = DataLoader(TensorDataset(images, images.argmax(1)), batch_size=16, shuffle=True)
        >>> options = TrainOptions(epochs=3, machine=Machine(accelerator="cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fitted = fit(nn.Linear(4, 4), Loaders(loader, loader), options, folder=folder)
        >>> fitted.validation_accuracy, fitted.epoch
        (1.0, 3)
    """
    options = options or TrainOptions()
    classifier = Classifier(model, options, encode=encode, reset=reset)
    if isinstance(folder, RunFolder):
        return fit_module(classifier, loaders, folder=folder.folder, resume=resume, watching=watching)
    with python_run("fit", model, loaders, options, folder=Path(folder), resume=resume) as run:
        fitted = fit_module(classifier, loaders, folder=run.folder, resume=resume, watching=watching)
        leave(run, fitted, tested(classifier, loaders), loaders=loaders, classifier=classifier)
    return fitted


def tested(classifier: Classifier, loaders: Loaders) -> Evaluation | None:
    """Return the test of a trained network, if there are test images."""
    if loaders.test is None:
        return None
    return evaluate(
        classifier.model,
        loaders.test,
        machine=classifier.options.machine,
        steps=classifier.options.steps,
        encode=classifier.encode,
        reset=classifier.reset,
    )


def fit_module(
    classifier: Classifier, loaders: Loaders, *, folder: Path, resume: bool, watching: Sequence[Callback] = ()
) -> Fitted:
    """Do the work of `fit`, for a `Classifier` with any loss. `watching` are further callbacks."""
    model, options = classifier.model, classifier.options
    checkpoint = folder / "last.ckpt"
    check_folder(folder, resume=resume)
    for name, loader in vars(loaders).items():
        if name != "sets" and loader is not None:
            check_loader(name, loader, counted=name != "test")
    if loaders.validation is None and options.keep == "best":
        raise ConfigError("keep='best' needs validation images, and there are none: take keep='last'.")
    batches, validates = len(loaders.train), loaders.validation is not None  # type: ignore[arg-type]
    curves = Curves(folder, validates=validates)
    stop = StopOnSignal()
    checkpoints = Checkpoints(folder, curves, stop)
    bar = OneBar(curves)
    outlook = Outlook(curves, bar)
    callbacks: list[Callback] = [*watching, FiniteLoss(folder), curves, bar, outlook, checkpoints]
    if options.recipe.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=options.recipe.ema))
    classifier.facts = run_facts(options, batches=batches, validates=validates)
    if resume:
        check_resumable(checkpoint, classifier, callbacks, classifier.facts, keep=options.keep)
    with files.explained("make the folder", folder, ConfigError):
        folder.mkdir(parents=True, exist_ok=True)
    data = _Data(options.seed, loaders.train, loaders.validation)
    with _quiet(), stop, safe_layouts(classifier.trained):
        logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
        logger.log_hyperparams(asdict(options))
        trainer = _trainer(
            options.machine, max_epochs=options.epochs, callbacks=callbacks, logger=logger, plugins=[CheckpointFiles()]
        )
        try:
            trainer.fit(classifier, data, ckpt_path=checkpoint if resume else None, weights_only=True)
        except (Interrupted, SIGTERMException):
            raise KeyboardInterrupt(f"stopped in epoch {trainer.current_epoch + 1}") from None
        except UNREADABLE as error:
            if outlook.started or not resume or isinstance(error, TranspikeError):
                raise
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ModelError(f"training cannot continue from {checkpoint} ({why:.300}). Start a new run.") from error
    epoch, accuracy = len(curves.rows), curves.rows[-1].get("validation_accuracy")
    if options.keep == "best":
        epoch, accuracy = checkpoints.best_epoch, checkpoints.best
    # Read it even after the last epoch, because a finished run that is resumed trains nothing and has no average.
    kept = read_checkpoint(checkpoints.folder / f"{options.keep}.ckpt", remedy="Train again.")
    classifier.load_state_dict(kept["state_dict"])
    return Fitted(model.eval(), curves.rows, epoch, accuracy)


def evaluate(
    model: nn.Module,
    loader: Batches,
    *,
    machine: Machine | None = None,
    steps: int | None = None,
    encode: Callable[[Tensor], Tensor] | None = None,
    reset: Callable[[nn.Module], object] | None = None,
) -> Evaluation:
    """Test any classifier, artificial, spiking or converted. Under torchrun each image counts once.

    Args:
        model: returns [N, classes], or [T, N, classes]. It is tested in evaluation mode.
        loader: batches of (images, labels), for instance a generator.
        machine: devices and precision.
        steps: time steps T of a spiking network, which sees every image T times. None for other networks, and for
            converted ones, which have their own steps.
        encode: as in `fit`.
        reset: as in `fit`.

    Raises:
        ConfigError: There are no images.
        DataError: Batches are not pairs, or labels are not class indices of the network.
        ModelError: Outputs are not [N, classes] or [T, N, classes].

    Example:
        >>> batches = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> evaluate(nn.Identity(), batches, machine=Machine(accelerator="cpu")).images
        3
    """
    classifier = Classifier(model, TrainOptions(steps=steps), encode=encode, reset=reset)
    check_loader("test", loader, counted=False)
    with _quiet():
        trainer = _trainer(machine or Machine(), callbacks=[], logger=False, enable_progress_bar=False)
        trainer.test(classifier, datamodule=_Data(0, None, loader), verbose=False)
        figures = classifier.measured("test")
    return Evaluation(figures["accuracy"], figures["loss"], int(figures["images"]))


def _trainer(machine: Machine, **kwargs: Any) -> L.Trainer:
    processes = _processes(machine)
    nodes = int(os.environ.get("WORLD_SIZE", processes)) // processes
    strategy: Any = "auto"
    if processes * nodes > 1:
        # Buffers are sent once for each epoch: see Classifier.
        strategy = DDPStrategy(broadcast_buffers=False)
        atexit.register(_leave_group)
    return L.Trainer(
        accelerator=machine.accelerator,
        devices=processes,
        num_nodes=nodes,
        precision=machine.precision,
        strategy=strategy,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_model_summary=False,
        **kwargs,
    )


def _processes(machine: Machine) -> int:
    """Return the number of processes on this node: torchrun's, otherwise one for each GPU in use, otherwise one."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = torch.cuda.device_count() if machine.accelerator != "cpu" else 0
    if machine.accelerator == "gpu" and gpus == 0:
        raise ConfigError("machine.accelerator='gpu': torch sees no GPU here. Take 'auto' or 'cpu'.")
    if machine.devices == "auto":
        return max(1, gpus)
    if 0 < gpus < machine.devices:
        raise ConfigError(f"machine.devices={machine.devices}: torch sees {gpus} GPU(s) here.")
    return machine.devices


def _leave_group() -> None:
    """Leave the process group. Otherwise gloo's threads may abort a process that is about to end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's messages about matters that are decided here, and its own end on Ctrl-C."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    interrupt = signal.getsignal(signal.SIGINT)
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            # A remark on speed about DistributedDataParallel's view of a 1x1 convolution's gradient.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield
    except SystemExit as ending:
        if isinstance(ending.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if interrupt is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # Lightning leaves it ignored
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
