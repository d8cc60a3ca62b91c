"""What the parts of gpu.py share: where to measure, and one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timing import best_seconds
from torch import nn

from transpike import create_model


@dataclass(frozen=True)
class Setting:
    """Where to measure, and whether tiny."""

    device: str
    quick: bool

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def seconds(self, runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        return best_seconds(runs, repeats=1 if self.quick else 5, cuda=self.cuda)

    def network(self, name: str, **options: Any) -> nn.Module:
        """One of ours, or of timm's, in evaluation mode on the device."""
        import timm

        torch.manual_seed(0)
        make = timm.create_model if name.startswith(("resnet50", "vit")) else create_model
        return make(name, **options).eval().to(self.device)


@dataclass(frozen=True)
class Row:
    """One number, and what it must be at most."""

    what: str
    value: float
    unit: str = ""
    most: float | None = None
