"""The content of run.json: who ran what, where and with which versions."""

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
        cores: the number of cores that the process may use.
        threads: the number of PyTorch's threads.
        gpus: the names of the GPUs.
    """

    cpu: str
    cores: Count
    threads: Count
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run was started. It is written before anything else happens.

    Attributes:
        verb: the command (``train``, ``convert``, ...).
        command: the command line as typed, word by word.
        directory: the working directory.
        options: the options as the command understood them, including defaults.
        seed: the seed of all random numbers. None for a command that draws none.
        started: date and time, ISO 8601.
        versions: the versions of Python, PyTorch and so on, by name.
        commit: the commit of the source, with ``+`` if the working tree differs. None outside a checkout.
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
