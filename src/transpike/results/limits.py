"""The limits that a user's hardware or application sets for a spiking network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from transpike.checks import near, number, refuse, whole
from transpike.errors import ConfigError
from transpike.results.records import Count

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits that a network must keep. None is no limit.

    Attributes:
        latency: steps from an image's arrival until the output is complete.
        payload_bits: the bits that a spike carries beside its address. Ternary spikes carry one.
        energy: microjoules for an image, by the model of `transpike.coding.operations`, for full runs.
        mean_latency: like latency, but averaged over images that stop when their answers are sure.
        agreement: the share of these answers that must equal those of full runs.

    Example:
        >>> print(Limits(latency=32, payload_bits=3))
        latency 32, 3 payload bits per spike
        >>> Limits(latency=32).keep(latency=40, payload_bits=1, energy=2.0)
        False
        >>> print(Limits(mean_latency=9))
        mean latency 9 at an agreement of 0.99
    """

    latency: Count | None = None
    payload_bits: Count | None = None
    energy: float | None = None
    mean_latency: float | None = None
    agreement: float = 0.99

    @classmethod
    def of(cls, given: object) -> Limits:
        """Create limits from a user's input. A value None is no limit.

        Raises:
            ConfigError: A limit is unknown, or its value is not possible.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise refuse("limits", given, 'some of {"latency": 32, "payload_bits": 3, "energy": 20, "mean_latency": 9}')
        for name in given:
            if name not in known:
                raise ConfigError(f"limits: no limit {name!r}.{near(str(name), known)} There are: {', '.join(known)}.")
        limits = cls(**given)
        for name, least in (("latency", 1), ("payload_bits", 0)):  # a spike without a sign needs only its address
            if getattr(limits, name) is not None:
                whole(f"limits: {name}", getattr(limits, name), least=least)
        for name in ("energy", "mean_latency"):
            if getattr(limits, name) is not None:
                number(f"limits: {name}", getattr(limits, name), above=0)
        number("limits: agreement", limits.agreement, above=0, below=1)
        if "agreement" in given and limits.mean_latency is None:
            raise ConfigError("limits: agreement says when answers may stop; give a mean_latency too, or leave it out")
        return limits

    def __str__(self) -> str:
        parts = {"latency": f"latency {self.latency}", "payload_bits": f"{self.payload_bits} payload bits per spike"}
        parts["energy"] = f"{self.energy:g} µJ" if self.energy is not None else ""
        if self.mean_latency is not None:
            parts["mean_latency"] = f"mean latency {self.mean_latency:g} at an agreement of {self.agreement:g}"
        return ", ".join(text for name, text in parts.items() if getattr(self, name) is not None)

    def keep(self, *, latency: int = 0, payload_bits: int = 0, energy: float = 0.0, mean_latency: float = 0.0) -> bool:
        """Whether a network with these figures keeps all limits."""
        pairs = (latency, self.latency), (payload_bits, self.payload_bits), (energy, self.energy)
        return all(limit is None or value <= limit for value, limit in (*pairs, (mean_latency, self.mean_latency)))
