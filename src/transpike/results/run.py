"""What run.json says: who ran what, where and with which versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transpike.results.records import Count

__all__ = ["Hardware", "Run"]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine of a run.

    Attributes:
        cpu: the processor's name.
        cores: that the process may use.
        threads: of PyTorch.
        gpus: their names.
    """

    cpu: str
    cores: Count
    threads: Count
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run was started; written before anything else happens.

    Attributes:
        verb: the command (``train``, ``convert``, ...).
        command: as it was typed, word by word.
        directory: in which it was typed.
        options: as the command understood them, also those left at their defaults.
        seed: of all random numbers; None for a command that draws none.
        started: date and time, ISO 8601.
        versions: of Python, PyTorch and so on, by name.
        commit: of the source, with ``+`` where the working tree differs; None outside a checkout.
        hardware: the machine.
    """

    verb: str
    command: tuple[str, ...]
    directory: str
    options: Mapping[str, object]
    seed: int | None
    started: str
    versions: Mapping[str, str]
    commit: str | None
    hardware: Hardware
