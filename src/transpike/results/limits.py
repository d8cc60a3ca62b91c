"""What a user's hardware or application allows of a spiking network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from transpike.checks import near, number, refuse, whole
from transpike.errors import ConfigError
from transpike.results.records import Count

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network may not exceed; None is no limit.

    Attributes:
        latency: steps from an image's arrival until the output stands.
        payload_bits: that a spike carries beside its address; ternary spikes carry one.
        energy: microjoules an image, by the model of `transpike.coding.operations`.

    >>> print(Limits(latency=32, payload_bits=3))
    latency 32, 3 payload bits a spike
    >>> Limits(latency=32).keep(latency=40, payload_bits=1, energy=2.0)
    False
    """

    latency: Count | None = None
    payload_bits: Count | None = None
    energy: float | None = None

    @classmethod
    def of(cls, given: object) -> Limits:
        """Limits from what a user gives; a value None is none.

        Raises:
            ConfigError: for an unknown limit, and for a value that can be none.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise refuse("limits", given, 'some of {"latency": 32, "payload_bits": 3, "energy": 20}')
        for name in given:
            if name not in known:
                raise ConfigError(f"limits: no limit {name!r}.{near(str(name), known)} There are: {', '.join(known)}.")
        limits = cls(**given)
        for name in ("latency", "payload_bits"):
            if getattr(limits, name) is not None:
                whole(f"limits: {name}", getattr(limits, name))
        if limits.energy is not None:
            number("limits: energy", limits.energy, above=0)
        return limits

    def __str__(self) -> str:
        parts = {"latency": f"latency {self.latency}", "payload_bits": f"{self.payload_bits} payload bits a spike"}
        parts["energy"] = f"{self.energy:g} µJ" if self.energy is not None else ""
        return ", ".join(text for name, text in parts.items() if getattr(self, name) is not None)

    def keep(self, *, latency: int = 0, payload_bits: int = 0, energy: float = 0.0) -> bool:
        """Whether a network of these figures exceeds none."""
        pairs = (latency, self.latency), (payload_bits, self.payload_bits), (energy, self.energy)
        return all(limit is None or value <= limit for value, limit in pairs)
