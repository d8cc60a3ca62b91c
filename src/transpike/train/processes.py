"""The devices and processes: checks a device, joins several processes (one writes), and sums over them."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from transpike.errors import ConfigError
from transpike.train.batches import total

__all__ = ["checked_device", "first_process", "join_processes"]


def first_process() -> bool:
    """Whether this is the process that writes and prints.

    Example:
        >>> first_process()
        True
    """
    from lightning.pytorch.utilities import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def join_processes(device: str) -> Callable[[Tensor], Tensor] | None:
    """Join the processes of torchrun.

    device: the device type of each process: cpu, or cuda.

    Returns:
    A function that sums a tensor over the processes. None if torchrun has not started this process.

    Example:
        >>> join_processes("cpu") is None
        True
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return None
    import lightning as L

    here = int(os.environ["LOCAL_WORLD_SIZE"])
    accelerator = "cuda" if device.startswith("cuda") else "cpu"
    fabric = L.Fabric(accelerator=accelerator, devices=here, num_nodes=world // here, strategy="ddp")
    fabric.launch()
    return total


def checked_device(name: str) -> str:
    """Return ``name`` if it is a device that can compute.

    Raises:
        ConfigError: PyTorch does not know such a device, or this machine has none.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); use cpu, or cuda on a machine with a GPU"
        ) from error
    return name
