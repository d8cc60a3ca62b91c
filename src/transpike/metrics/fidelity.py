"""How close a spiking network is to the network that it was made from: predictions, logits and each layer's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.residuals import Binding, binding, split

__all__ = ["LayerError", "LayerErrors", "accuracy", "agreement", "logit_error"]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of rows of ``logits`` ``[N, classes]`` whose largest entry is at ``labels`` ``[N]``.

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    return float((logits.argmax(-1) == labels).double().mean())


def agreement(snn: Tensor, ann: Tensor) -> float:
    """The share of rows of two ``[N, classes]`` logits that predict the same class.

    Example:
        >>> agreement(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
        0.5
    """
    return accuracy(snn, ann.argmax(-1))


def logit_error(snn: Tensor, ann: Tensor, *, centred: bool = True) -> float:
    """``|snn - ann| / |ann|`` in the Euclidean norm over all of ``[N, classes]``.

    Args:
        snn: logits to judge.
        ann: logits they should equal.
        centred: take each row's mean off first, as softmax and argmax do; a common offset is then no error, and
            large logits that say nothing do not hide one.

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
        rms: root mean square of decoded minus target value, in units of the last step: own and inherited error
            together.
        own: root mean square of the residual, the error of the layer's neurons for their own inputs.
        clipped: share of the neurons whose own input exceeds the largest value that a train can represent.
        coupled: share of the values not clipped whose residual exceeds a unit of the last step.
        from_clipping: share of the squared residuals that the clipped values make.
        from_coupling: share of the squared residuals that the coupled values make; the rest is resolution, the
            rounding to a digit.
    """

    rms: float
    own: float
    clipped: float
    coupled: float
    from_clipping: float
    from_coupling: float

    @property
    def binding(self) -> Binding:
        """The largest part of the layer's own error, hence which setting helps: see `transpike.coding.residuals`."""
        rest = 1 - self.from_clipping - self.from_coupling
        return binding(resolution=rest, clipping=self.from_clipping, coupling=self.from_coupling)


class LayerErrors:
    """Accumulate a layer's errors over batches, then `result`.

    Args:
        largest: the largest magnitude a train can write with an error of half a unit, in units of theta.
        unit: the worth of a unit spike at the last step, in units of theta; errors are given in it.

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
        """Add a batch; the three tensors have one shape and are in units of theta.

        Args:
            target: the original network's activation.
            decoded: the value of the spike train.
            residual: the final residual of the neurons (`track`'s), their own target minus ``decoded``.
        """
        if self.unit != 1:
            target, decoded, residual = (values / self.unit for values in (target, decoded, residual))
        error, missed = decoded - target, residual.abs()
        # Whatever is clipped or coupled misses more than the half unit of rounding; the rest need not be looked at.
        missing = missed > 0.5
        own = residual[missing]
        clipped, coupled = split((decoded + residual)[missing], own, largest=self.largest)
        squared = own.double().square()
        parts = ((error * error).sum(), (residual * residual).sum(), clipped.sum(), coupled.sum())
        shares = (squared[clipped].sum(), squared[coupled].sum())
        self._sums += torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in (*parts, *shares)]).cpu()
        self._count += target.numel()

    def combine(self, total: Callable[[Tensor], Tensor]) -> None:
        """Make of what this process has seen what all have; each calls it once.

        Args:
            total: sums a tensor over the processes.
        """
        *sums, count = total(torch.cat([self._sums, self._sums.new_tensor([self._count])])).tolist()
        self._sums, self._count = self._sums.new_tensor(sums), int(count)

    def result(self) -> LayerError:
        """The errors of everything seen so far.

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
