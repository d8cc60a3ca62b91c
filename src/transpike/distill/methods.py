"""The methods by name: what each needs, and how to create it from stages and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from transpike.checks import keywords, near
from transpike.distill.bispectrum import BiSpectrumDistillation, SRDDistillation, SSDDistillation
from transpike.distill.ckdsnn import CKDSNNDistillation
from transpike.distill.decoupled import DISTDistillation, DKDDistillation
from transpike.distill.enof import EnOFDistillation
from transpike.distill.features import BKDSNNDistillation, KDSNNDistillation, LaSNNDistillation, SAKDDistillation
from transpike.distill.hints import ATDistillation, FitNetDistillation, OFDDistillation
from transpike.distill.logits import LogitsDistillation, TKSDistillation, TLDDistillation
from transpike.distill.method import Method, Need
from transpike.distill.ofa import OFADistillation
from transpike.distill.relations import CCDistillation, CRDDistillation, RKDDistillation
from transpike.distill.review import ReviewKDDistillation
from transpike.distill.sfkd import SFKDDistillation
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError

__all__ = ["METHODS", "MethodLike", "check_method", "create_method", "method_needs"]

METHODS: dict[str, type[Method]] = {
    "kd": LogitsDistillation,
    "bsd": BiSpectrumDistillation,
    "ssd": SSDDistillation,
    "srd": SRDDistillation,
    "kdsnn": KDSNNDistillation,
    "lasnn": LaSNNDistillation,
    "bkdsnn": BKDSNNDistillation,
    "sakd": SAKDDistillation,
    "ckdsnn": CKDSNNDistillation,
    "enof": EnOFDistillation,
    "tks": TKSDistillation,
    "tld": TLDDistillation,
    "sfkd": SFKDDistillation,
    "fitnet": FitNetDistillation,
    "at": ATDistillation,
    "rkd": RKDDistillation,
    "cc": CCDistillation,
    "crd": CRDDistillation,
    "ofd": OFDDistillation,
    "reviewkd": ReviewKDDistillation,
    "dkd": DKDDistillation,
    "dist": DISTDistillation,
    "ofa": OFADistillation,
}
"""The methods, by name. Each class states what it needs. No other list of their names exists."""

MethodLike = str | Callable[..., nn.Module]
"""A name of `METHODS`, or a function that creates a module from stages and settings."""

STAND_IN = Stage("student", "teacher", 8, 8, (2**10, 2**10), (2**10, 2**10))
"""A stage for checking settings before there are networks. It is large enough for any grid."""


def method_needs(method: MethodLike) -> frozenset[Need]:
    """Return what a method needs beside logits; see `Method`. Your own method gets features if it declares nothing.

    Raises:
        ConfigError: The name is unknown. The message lists near matches.

    Example:
        >>> sorted(method_needs("tld")), [name for name in METHODS if "classes" in method_needs(name)]
        (['labels', 'time'], ['sfkd', 'ofa'])
    """
    if isinstance(method, str):
        return _known(method).needs
    needs: frozenset[Need] = getattr(method, "needs", frozenset({"features"}))
    return needs


def create_method(
    method: MethodLike, stages: Sequence[Stage], settings: Mapping[str, object], *, classes: int | None = None
) -> nn.Module:
    """Create a method.

    Args:
        method: a name of `METHODS`, or a function that creates a module from stages.
        stages: pairs of taps.
        settings: keyword arguments of the method, such as `alpha` and `temperature`.
        classes: the number of classes, for methods that need it. A value in ``settings`` has priority.

    Raises:
        ConfigError: The name is unknown (the message lists near matches), or a setting is unknown, of another type or
            out of range.

    Example:
        >>> create_method("kd", (), {"alpha": 1.0})
        LogitsDistillation(...)
        >>> create_method("bsb", (), {})
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: no method of distillation 'bsb'. Did you mean bsd? Known: kd, bsd, ...
    """
    if not isinstance(method, str):
        try:
            return method(stages, **settings)
        except TypeError as error:
            raise ConfigError(f"method {method!r} cannot be made with these settings: {error}.") from error
    make: Callable[..., Method] = _known(method)
    keywords(f"method {method!r}", make, settings)
    if classes is not None and "classes" in method_needs(method):
        own = settings.get("classes", classes)
        if isinstance(own, int) and own < classes:
            raise ConfigError(f"classes={own}: the networks have {classes}; leave it out.")
        settings = {"classes": classes, **settings}
    return make(stages, **settings)


def check_method(method: str, settings: Mapping[str, object], *, batch: int | None = None) -> None:
    """Check a method's name, settings and batch size before there are networks to tap.

    Args:
        method: a name of `METHODS`.
        settings: as for `create_method`.
        batch: the number of images in a batch.

    Raises:
        ConfigError: As for `create_method`, or batches are too small for training with the method.

    Example:
        >>> check_method("rkd", {"distance": -1.0})
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: distance=-1.0: expected a number of at least 0.
    """
    with torch.device("meta"):
        made = create_method(method, [STAND_IN] if "features" in method_needs(method) else (), settings)
    if batch is not None and isinstance(made, Method):
        try:
            made.check_batch(batch)
        except DataError as error:
            raise ConfigError(f"batch_size={batch}: {error}") from None


def _known(method: str) -> type[Method]:
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError(f"no method of distillation {method!r}.{near(method, METHODS, most=2)} Known: {known}.")
    return METHODS[method]
