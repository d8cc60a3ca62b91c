"""Classification as a LightningModule, for artificial and for spiking networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from transpike.errors import ConfigError, DataError, ModelError
from transpike.neurons import reset_net
from transpike.train.batches import total
from transpike.train.inputs import check_outputs, read_batch
from transpike.train.losses import readout, temporal_efficient_loss
from transpike.train.mix import mix
from transpike.train.options import Optim, TrainOptions
from transpike.train.resume import seal

__all__ = ["Classifier"]

Batch = tuple[Tensor, Tensor]


class Classifier(L.LightningModule):
    """Trains and tests a network that returns [N, classes] or, if it spikes, [T, N, classes].

    Args:
        model: the network.
        options: how to train it.
        encode: turns images [N, *] into the network's input. By default these are the images themselves or, if
            `options.steps` is T, the images repeated to [T, N, *] (direct coding). Frames [T, N, C, H, W] stay
            unchanged.
        reset: resets a network's state; called before each batch. The default is `reset_net`, which also resets
            SpikingJelly's modules.

    A call returns logits [N, classes], averaged over time for a spiking network.

    Example:
        >>> Classifier(nn.Linear(4, 3), TrainOptions())(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        options: TrainOptions,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        reset: Callable[[nn.Module], object] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.encode = encode
        self.reset = reset or reset_net
        self.classes = 0
        self.facts: dict[str, object] = {}
        self._extent: tuple[int, int] | None = None
        self._sums: dict[str, Tensor] = {}
        self._terms: tuple[str, ...] = ()

    @property
    def trained(self) -> nn.Module:
        """The module that the optimiser trains."""
        return self.model

    def outputs(self, images: Tensor) -> Tensor:
        """Return the network's own output: [N, classes] or [T, N, classes].

        Raises:
            DataError: The frames have another T than `options.steps`.
            ModelError: The network fails on them.
        """
        self.reset(self.model)
        given = self.inputs(images)
        try:
            out: Tensor = self.model(given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            mend = "If it was made for images of another size or other channels, give those."
            if not given.is_floating_point():
                mend = "Make the images floating-point numbers, between 0 and 1 (images / 255) or normalised."
            why = str(error).partition("\n")[0].rstrip(". ")
            raise ModelError(
                f"{type(self.model).__name__} fails on a batch {list(given.shape)} of {given.dtype}: {why}. {mend}"
            ) from error
        return out

    def inputs(self, images: Tensor) -> Tensor:
        """Return the network's input for a batch's images or frames."""
        steps = self.options.steps
        if self.encode is not None:
            return self.encode(images)
        if self._samples(images) == 1:
            if len(images) != steps:
                raise DataError(f"the batch has {len(images)} frames, shape {list(images.shape)}, but steps={steps}.")
            return images
        return images if steps is None else images.expand(steps, *images.shape)

    def _samples(self, images: Tensor) -> int:
        """Return the axis of samples. Frames [T, N, C, H, W], which only a spiking network takes, have time first."""
        return int(self.options.steps is not None and self.encode is None and images.ndim == 5)

    def forward(self, images: Tensor) -> Tensor:
        return readout(self.outputs(images))

    def read(self, batch: object) -> Batch:
        """Return any batch as `read_batch` prepares it for the network.

        Raises:
            DataError: As for `read_batch`.
        """
        # A network of our own conversion has only buffers.
        weights = (t.dtype for t in chain(self.model.parameters(), self.model.buffers()) if t.is_floating_point())
        return read_batch(batch, axis=self._samples, dtype=next(weights, None))

    def on_before_batch_transfer(self, batch: object, dataloader_idx: int) -> Batch:
        images, labels = self.read(batch)
        # If an accelerator holds the labels, this must wait for it, so it is done only in the first epoch.
        known = labels.is_cpu or self.trainer.current_epoch == 0
        self._extent = (int(labels.min()), int(labels.max())) if known else None
        return images, labels

    def terms(self, outputs: Tensor, target: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Return the loss as named terms, whose sum is the loss.

        Args:
            outputs: of the network, [N, classes] or [T, N, classes].
            target: class indices [N] or probabilities [N, classes].
            images: the batch that the network saw, before the encoder.
        """
        recipe = self.options.recipe
        smoothing = recipe.label_smoothing
        if recipe.loss == "ce":
            return {"cross_entropy": F.cross_entropy(readout(outputs), target, label_smoothing=smoothing)}
        if outputs.ndim != 3:
            raise ModelError(
                f"recipe.loss='tet' needs an output for every time step, [T, N, classes]; {type(self.model).__name__} "
                f"gives {list(outputs.shape)}. Take recipe.loss='ce'."
            )
        return temporal_efficient_loss(outputs, target, label_smoothing=smoothing, lamb=recipe.tet_lambda)

    def training_step(self, batch: Batch, index: int) -> dict[str, Any]:
        images, labels = batch
        recipe = self.options.recipe
        if self._mixes():
            images, mixture = mix(images, mixup=recipe.mixup, cutmix=recipe.cutmix, dim=self._samples(images))
            outputs = self._comparable(images, labels)
            target = mixture.target(labels, outputs.shape[-1])
        else:
            outputs, target = self._comparable(images, labels), labels
        terms = self.terms(outputs, target, images)
        loss = torch.stack(list(terms.values())).sum()
        self._terms = tuple(terms)
        self._count("train", readout(outputs.detach()), labels, loss.detach(), *(t.detach() for t in terms.values()))
        loss = loss * self._share(len(labels)) if self.trainer.world_size > 1 else loss
        return {"loss": loss, "terms": {name: term.detach() for name, term in terms.items()}}

    def _mixes(self) -> bool:
        """Whether this batch is mixed."""
        recipe = self.options.recipe
        if not (recipe.mixup or recipe.cutmix):
            return False
        if recipe.mix_epochs is not None and self.current_epoch >= recipe.mix_epochs:
            return False
        return recipe.mix_share == 1 or bool(torch.rand(()) < recipe.mix_share)

    def _comparable(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self.outputs(images)
        check_outputs(outputs, labels, extent=self._extent, network=type(self.model).__name__)
        self.classes = outputs.shape[-1]
        return outputs

    def _share(self, samples: int) -> Tensor:
        """Return the weight of this process's batch relative to the processes' mean.

        Then the gradients are those of one large batch, also if the last batches of an epoch have different sizes.
        """
        mine = torch.tensor(float(samples), device=self.device)
        return mine * self.trainer.world_size / total(mine)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._hold_out("validation", batch)

    def test_step(self, batch: Batch, index: int) -> None:
        self._hold_out("test", batch)

    def _hold_out(self, stage: str, batch: Batch) -> None:
        images, labels = batch
        logits = readout(self._comparable(images, labels))
        self._count(stage, logits, labels, F.cross_entropy(logits, labels))

    def on_train_batch_end(self, *_: Any) -> None:
        # Once for each epoch, not for each batch as in DistributedDataParallel; and before the validation, in which the
        # processes' shares may have different sizes, or be empty.
        if self.trainer.world_size > 1 and self.trainer.is_last_batch:
            for buffer in self.trained.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_fit_end(self) -> None:
        self.reset(self.model)

    def on_test_end(self) -> None:
        self.reset(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Within an epoch: the counts so far.
        sums = self._sums.get("train")
        checkpoint["counted"] = None if sums is None else self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        seal(checkpoint, self.facts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["counted"] is not None and self.trainer.is_global_zero:
            self._sums["train"] = checkpoint["counted"].to(self.device)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.options.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.options.optim.clip)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optim = self.options.optim
        groups = _groups(self.trained, optim)
        optimizer: torch.optim.Optimizer
        if optim.name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
        else:
            optimizer = torch.optim.AdamW(groups, lr=optim.lr)
        total, epochs = int(self.trainer.estimated_stepping_batches), self.options.epochs
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, total, epochs, optim))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def measured(self, stage: str) -> dict[str, float]:
        """Return figures since the last call, over all processes.

        They are the loss, the accuracy in [0, 1], the number of images, and the means of the terms if a training loss
        has several.

        Args:
            stage: "train", "validation" or "test".
        """
        sums = self._sums.pop(stage, torch.zeros(3, dtype=torch.float64, device=self.device))
        count, correct, loss, *terms = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        if count == 0:
            raise ConfigError(f"there is no {stage} image to measure.")
        figures = {"loss": loss / count, "accuracy": correct / count, "images": count}
        return figures | (
            {name: term / count for name, term in zip(self._terms, terms, strict=True)} if terms[1:] else {}
        )

    def _count(self, stage: str, logits: Tensor, labels: Tensor, *means: Tensor) -> None:
        """Add a batch: the numbers of images and of right answers, and means over the batch: loss, then its terms."""
        count = means[0].new_tensor(len(labels))
        sums = torch.stack([count, (logits.argmax(-1) == labels).sum(), *(mean.float() * count for mean in means)])
        self._sums[stage] = self._sums.get(stage, 0) + sums.double()


def _groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Group parameters: those of one dimension (norms, biases, a neuron's tau) are scales. Decay would distort them."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(f"{type(model).__name__} has no parameter to train.")
    decays = [p for p in parameters if optim.decay_all or p.ndim > 1]
    kept = [p for p in parameters if not (optim.decay_all or p.ndim > 1)]
    groups = [{"params": decays, "weight_decay": optim.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _factor(step: int, total: int, epochs: int, optim: Optim) -> float:
    """Return the learning rate of a step as a share of the highest one."""
    warmup = round(optim.warmup * total / epochs)
    if step < warmup:
        return (step + 1) / warmup
    if optim.milestones:
        return optim.decay ** sum(step * epochs >= milestone * total for milestone in optim.milestones)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    low = optim.lr_min / optim.lr
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
