r"""A converted network whose weights train under its own spikes.

The forward pass simulates the network step by step. In the backward pass a layer passes gradients as its function does
at the decoded values. The output of a neuron that tracks f is f of its decoded input, except for the last digit and for
clipping. So its derivative is that of f, and 0 where it clips. Backpropagation through all steps gives the same
gradient. If the digit's derivative is taken as that of rounding (1 unless the digit is the largest), :math:`dG_t =
\beta dG_{t-1} + \beta^{Ts} ds_t` becomes :math:`df_t(H_t)` at every step, for any earlier steps. It would cost T times
as much.

A penalty applies to what violates the sufficient bound (see `transpike.coding.scheme.followed`). "Canonic Signed Spike
Coding" leaves this to future work (Section 6): the decoupling condition as a target of learning, so that fewer silent
steps are needed. The network keeps its silent steps while it trains, but the bound is that of the fewer steps it shall
have later. So its outputs stay correct, and so do its gradients. Networks that trained without the steps lost more
accuracy. The violation of a layer depends on all layers before it, so its gradients do go through all steps, for a
share of each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transpike.coding.neuron import gained
from transpike.coding.scheme import constant_entry, decode, finest, followed, largest, ratio
from transpike.conversion.kinds import KINDS, weighted
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.running import decoded
from transpike.conversion.values import carried, value
from transpike.conversion.walk import finished, walk
from transpike.errors import ConversionError

__all__ = ["Tunable"]


class Tunable(SpikingNetwork):
    """``snn`` with the weights and biases of its weighted layers as parameters.

    In evaluation mode it equals ``snn`` with the present parameters. In training mode its outputs have gradients, and
    `violation` is the violation on the last images. Amplitudes, and constants inside neurons' functions, stay fixed.

    Args:
        snn: a converted network; it is not changed. The training uses its silent steps.
        silent: the largest number of silent steps of a layer for which the bound is computed.
        share: the share of each batch on which violations are measured, which needs gradients through all steps.

    Attributes:
        wanted: the silent steps of each layer for which the bound is computed.
        violation: the squared excess over the bound in the last batch, in units of the first digit: summed over the
            steps, averaged over a layer's neurons, summed over layers. So an excess counts by its final value. Its
            gradients go through all steps.

    Raises:
        ConversionError: No bound is known for the scheme.

    Example:
        >>> import transpike
        >>> _ = torch.manual_seed(0)
        >>> ann = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> images = torch.rand(64, 4)
        >>> tunable = Tunable(transpike.convert(ann, images)).train()
        >>> tunable(images).sum().backward()
        >>> [tuple(p.grad.shape) for p in tunable.parameters()], bool(tunable.violation > 0)
        ([(16, 4), (16,), (3, 16), (3,)], True)
    """

    def __init__(self, snn: SpikingNetwork, *, silent: int = 0, share: float = 0.125) -> None:
        super().__init__(
            snn.current_graph(),
            snn.scheme,
            snn.units,
            waits=snn.timing.waits,
            clipped=snn.clipped,
            residuals=snn.residuals,
        )
        if (bound := followed(self.scheme, 0)) is None:
            raise ConversionError(
                "tuning needs a bound below which neurons certainly follow their input, and "
                f"{type(self.scheme).__name__} has none: convert with signed CSS spikes"
            )
        self.bound, self.share = bound, share
        self.wanted = {name: min(wait, silent) for name, wait in snn.timing.waits.items()}
        self._shares: dict[str, float] = {}
        self.violation = torch.zeros(())
        for op in self.graph:
            kind = KINDS[op.kind]
            for name in (kind.factor, kind.constant) if weighted(op) else ():
                if name in op.tensors:
                    self._parameter(op, str(name), constant_entry(self.scheme) if name == kind.constant else None)

    def _parameter(self, op: Op, name: str, shares: float | None) -> None:
        """Add a constant as a parameter. A step uses a share of it; the whole has the scale that optimisers expect."""
        key = op.key(name)
        value = self._buffers.pop(key)
        assert value is not None
        self.register_parameter(key, nn.Parameter(value * (shares or 1.0)))
        self._shares[key] = shares or 1.0

    def tensors(self, op: Op) -> dict[str, Tensor]:
        own = super().tensors(op)
        shares = {name: self._shares.get(op.key(name), 1.0) for name in own}
        return {name: tensor if shares[name] == 1 else tensor / shares[name] for name, tensor in own.items()}

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return super().forward(x)
        if self._fitting(x) is not self:
            expected = ", ".join(map(str, self.graph.input.shape))
            raise ConversionError(f"tuning takes images [N, {expected}] as in calibration, not {list(x.shape)}")
        self.violation = torch.zeros((), device=self.device)
        few = max(1, round(self.share * len(x)))
        decoded_values: dict[str, list[Tensor]] = {}
        self._listen(x[:few], decoded_values, watched=True)
        if few < len(x):
            with torch.no_grad():
                self._listen(x[few:], decoded_values, watched=False)
        reach = largest(self.scheme) + finest(self.scheme) / 2

        def fire(op: Op, *inputs: Tensor) -> Tensor:
            """Return the function's gradient with the value of the spikes."""
            target, decoded_value = value(self, op, *inputs), torch.cat(decoded_values[op.name])
            return decoded_value + (target - target.detach()) * (target.detach().abs() <= reach)

        return self.graph.pack(finished(self, carried(self, x, fire)))

    def _listen(self, x: Tensor, said: dict[str, list[Tensor]], *, watched: bool) -> None:
        """Simulate, and store the decoded value of each layer."""

        def fire(op: Op, *inputs: Tensor) -> Tensor:
            if op.kind == "input":
                spikes = self.encode(self.scaled(op, *inputs)).spikes
            else:
                z = [x.unflatten(0, (self.steps, -1)) for x in gained(inputs, op.gains)]
                fired = self.neurons[op.name](z, self.tensors(op), inplace=False, final=False)
                spikes = fired.spikes
                if watched and any(each.requires_grad for each in z):
                    change = self._change(op, z)
                    self.violation = self.violation + self._violated(change, self.wanted[op.name])
                    digits = _late(change, self.timing.waits[op.name]) / _like(self._weights, change)
                    spikes = spikes + (digits - digits.detach())
            said.setdefault(op.name, []).append(decode(self.scheme, spikes.detach()))
            return spikes.flatten(0, 1)

        walk(self, x, fire, self.current, lambda op, z: decoded(self, op, z))

    @property
    def _weights(self) -> Tensor:
        return torch.tensor(self.scheme.weights, device=self.device)

    def _change(self, op: Op, z: Sequence[Tensor]) -> Tensor:
        """Return the change of the function of the input so far by each step's input, [T, N, \\*] in units of theta."""
        accumulated = [(each * _like(self._weights, each)).cumsum(0) for each in z]
        for each in accumulated:
            if each.requires_grad:  # a quotient without input has no derivative yet
                each.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
        unit, constants = self.units[op.name], self.tensors(op)
        target = op.function.at(*(each.flatten(0, 1) for each in accumulated), unit=unit, constants=constants)
        target = target.unflatten(0, (self.steps, -1)).nan_to_num()
        return torch.cat([target[:1], target[1:] - target[:-1]])

    def _violated(self, change: Tensor, wait: int) -> Tensor:
        r"""Return the squared excess of a layer over its bound, if it has this wait.

        The bound limits how much the function of the input so far changes in a step, in digits of that step. For the
        identity, this change is the current itself. If the residual after a digit is at most half a digit, the next
        digit need not exceed L as long as the change is at most :math:`(2L + 1 - \beta) / 2`. So the bound holds for
        any function. The input of the silent steps arrives at once, in the first digit: at most :math:`L + 1/2`.
        """
        beta = ratio(self.scheme)
        assert beta is not None
        if wait >= self.steps:  # the layer knows its whole input before it fires
            return change.new_zeros(())
        late, digits = _late(change, wait), _like(self._weights, change)
        most = torch.full_like(digits, self.bound)
        most[0] += beta / 2
        excess = (late.abs() - most * digits).relu() / digits[0]
        violated: Tensor = excess.square().sum() / change[0].numel()
        return violated


def _late(change: Tensor, wait: int) -> Tensor:
    """Return the changes by firing step for this wait. The first contains all input of the silent steps."""
    wait = min(wait, len(change) - 1)
    return torch.cat([change[: wait + 1].sum(0)[None], change[wait + 1 :], change.new_zeros(change[:wait].shape)])


def _like(weights: Tensor, x: Tensor) -> Tensor:
    return weights.view(-1, *(1,) * (x.ndim - 1))
