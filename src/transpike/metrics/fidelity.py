"""How close a spiking network is to the original network: predictions, logits and each layer's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.residuals import Binding, binding, split

__all__ = ["LayerError", "LayerErrors", "accuracy", "agreement", "logit_error"]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows of ``logits`` ``[N, classes]`` whose largest entry is at ``labels`` ``[N]``.

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    return float((logits.argmax(-1) == labels).double().mean())


def agreement(snn: Tensor, ann: Tensor) -> float:
    """Return the share of rows of two ``[N, classes]`` logits that predict the same class.

    Example:
        >>> agreement(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
        0.5
    """
    return accuracy(snn, ann.argmax(-1))


def logit_error(snn: Tensor, ann: Tensor, *, centred: bool = True) -> float:
    """Return ``|snn - ann| / |ann|`` in the Euclidean norm over all of ``[N, classes]``.

    Args:
        snn: logits to judge.
        ann: the logits that they should equal.
        centred: whether to subtract each row's mean first, which changes neither softmax nor argmax. Then a common
            offset is no error, and does not hide one.

    Example:
        >>> logit_error(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, -1.0]]))
        0.0
    """
    snn, ann = snn.double(), ann.double()
    if centred:
        snn, ann = snn - snn.mean(-1, keepdim=True), ann - ann.mean(-1, keepdim=True)
    return float((snn - ann).norm() / ann.norm())


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The parts of a layer's error; see `LayerErrors`.

    Args:
        rms: the root mean square of decoded minus target value, in units of the last step. It includes the layer's own
            error and the error of its inputs.
        own: the root mean square of the residual, which is the error of the layer's neurons for their own inputs.
        clipped: the share of neurons whose own input exceeds the largest value that a train can represent.
        coupled: the share of values that are not clipped and have a residual above one unit of the last step.
        from_clipping: the share of the squared residuals from clipped values.
        from_coupling: the share of the squared residuals from coupled values. The rest is resolution, the rounding to a
            digit.
    """

    rms: float
    own: float
    clipped: float
    coupled: float
    from_clipping: float
    from_coupling: float

    @property
    def binding(self) -> Binding:
        """The largest part of the layer's own error. It shows which setting helps: see `transpike.coding.residuals`."""
        rest = 1 - self.from_clipping - self.from_coupling
        return binding(resolution=rest, clipping=self.from_clipping, coupling=self.from_coupling)


class LayerErrors:
    """Accumulates a layer's errors over batches; `result` returns them.

    Args:
        largest: the largest magnitude that a train represents with an error of at most half a unit, in units of theta.
        unit: the value of a unit spike at the last step, in units of theta. Errors are in this unit.

    Example:
        >>> errors = LayerErrors(largest=7.5)
        >>> errors.update(torch.tensor([9.0, 3.0]), torch.tensor([7.0, 2.8]), torch.tensor([2.0, 0.2]))
        >>> errors.result().clipped, errors.result().binding
        (0.5, 'clipping')
    """

    def __init__(self, *, largest: float, unit: float = 1.0) -> None:
        self.largest, self.unit = largest / unit, unit
        self._count = 0
        self._sums = torch.zeros(6, dtype=torch.float64)

    @torch.no_grad()
    def update(self, target: Tensor, decoded: Tensor, residual: Tensor) -> None:
        """Add a batch. The three tensors have one shape and are in units of theta.

        Args:
            target: the original network's activation.
            decoded: the value of the spike train.
            residual: the final residual of the neurons (from `track`): their own target minus ``decoded``.
        """
        if self.unit != 1:
            target, decoded, residual = (values / self.unit for values in (target, decoded, residual))
        error, missed = decoded - target, residual.abs()
        # Clipped and coupled values have larger errors than the half unit of rounding. Only these are classified.
        missing = missed > 0.5
        own = residual[missing]
        clipped, coupled = split((decoded + residual)[missing], own, largest=self.largest)
        squared = own.double().square()
        parts = ((error * error).sum(), (residual * residual).sum(), clipped.sum(), coupled.sum())
        shares = (squared[clipped].sum(), squared[coupled].sum())
        self._sums += torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in (*parts, *shares)]).cpu()
        self._count += target.numel()

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace this process's sums by those over all processes. Each process calls it once.

        Args:
            total: sums a tensor over the processes.
        """
        *sums, count = total(torch.cat([self._sums, self._sums.new_tensor([self._count])])).tolist()
        self._sums, self._count = self._sums.new_tensor(sums), int(count)

    def result(self) -> LayerError:
        """Return the errors of all values so far.

        Raises:
            ValueError: No values were added.
        """
        if not self._count:
            raise ValueError("no values were seen, so there is no error of them")
        error, own, clipped, coupled, from_clipping, from_coupling = self._sums.tolist()
        return LayerError(
            rms=(error / self._count) ** 0.5,
            own=(own / self._count) ** 0.5,
            clipped=clipped / self._count,
            coupled=coupled / self._count,
            from_clipping=from_clipping / own if own else 0.0,
            from_coupling=from_coupling / own if own else 0.0,
        )
