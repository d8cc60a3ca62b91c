"""What the tests convert: small networks around one operation, and true statistics for BatchNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike import CSS

FINE = CSS(steps=14, beta=2.0, silent=2, percentile=100, amplitude="layer")
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Uses(nn.Module):
    """``function(self, x)``, with modules, parameters or buffers as attributes of ``self``."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Between(nn.Module):
    """A convolution to 8 channels, ReLU, the ``body`` under test, and a linear classifier for 5 classes."""

    def __init__(self, body: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = CONV[len(shape) - 1](shape[0], 8, 3, padding=1)
        self.body = body
        with torch.no_grad():
            features = self.body.eval()(self.stem(torch.zeros(2, *shape))).flatten(1).shape[1]
        self.head = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.stem(x))).flatten(1))


def true_statistics(model: nn.Module, x: Tensor) -> nn.Module:
    """``model`` in evaluation mode with the BatchNorm statistics of ``x``, and varied scales and shifts."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model(x)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def leaves(outputs: Any) -> list[Tensor]:
    return (
        [outputs] if isinstance(outputs, Tensor) else list(outputs.values() if isinstance(outputs, dict) else outputs)
    )


def distance(got: Tensor, want: Tensor) -> float:
    """||got - want|| relative to ||want||."""
    assert got.shape == want.shape
    return ((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-9)).item()


def logit_error(got: Tensor, want: Tensor) -> float:
    """Relative error of the centred logits: what can change a prediction."""
    return distance(got - got.mean(-1, keepdim=True), want - want.mean(-1, keepdim=True))
