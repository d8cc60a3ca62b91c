"""Checks the folder or the network that a verb receives, by names alone, before PyTorch is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from transpike.checks import no_network
from transpike.errors import ModelError

__all__ = ["NAMED", "PLACES", "check_converted", "check_exported", "check_measured", "check_network"]

NETWORK, TRAINED = "network.json", "model.json"
OTHERS = ("timm/", "torchvision/")  # networks whose names their own library knows
FILES = (".onnx", ".pt2")  # of networks
NETWORKS = [
    "mlp", "qkformer_10_384", "qkformer_4_384", "resnet18", "resnet19", "resnet20", "resnet32x4", "resnet56",
    "resnet8x4", "sew_resnet18", "sew_resnet19", "sew_resnet34", "sew_resnet50", "shufflenet_v2", "spiking_mlp",
    "spiking_resnet18", "spiking_resnet19", "spiking_resnet20", "spiking_vgg11", "spiking_vgg13", "spiking_vgg13_bn",
    "spiking_vgg16", "spiking_vgg5", "spiking_vgg8_bn", "spiking_vgg9", "spikingformer_2_256", "spikingformer_4_384",
    "spikingformer_8_512", "spikingformer_8_768", "vgg11", "vgg13", "vgg13_bn", "vgg16", "vgg5", "vgg8_bn", "vgg9",
    "wrn_16_2", "wrn_40_2",
]  # fmt: skip
"""Those of `transpike.models.model_names`; a test compares them."""


def check_network(name: str) -> None:
    """Check the network of ``transpike convert``, ``compare`` or ``analyze``: a name, a folder, a file, or several.

    Raises:
        ModelError: It cannot be any of them.
    """
    if name in NETWORKS or name.startswith(OTHERS) or name.lower().endswith(FILES) or set(name) & set(",[]"):
        return
    if not os.path.lexists(name):
        raise no_network(name, NETWORKS)


def check_measured(folder: Path) -> None:
    """Check the folder of ``transpike evaluate``: a converted network, or a run of ``transpike train``.

    Raises:
        ModelError: It is neither.
    """
    if not os.path.isdir(folder):
        problem = "a file; give the folder" if os.path.lexists(folder) else "no such folder; give one"
        raise ModelError(f"{folder}: {problem} that `transpike convert` or `transpike train` wrote.")
    if not os.path.isfile(folder / NETWORK):
        _check_single(folder)
        if not os.path.isfile(folder / TRAINED):
            raise ModelError(f"{folder}: not the folder of a finished `transpike train` run, for it has no {TRAINED}.")


def check_exported(folder: Path) -> None:
    """Check the folder of ``transpike export``: a converted network.

    Raises:
        ModelError: It is not.
    """
    if not os.path.isdir(folder):
        raise ModelError(f"{folder}: no such folder; give one that `transpike convert` wrote, such as RUN/T8.")
    if not os.path.isfile(folder / NETWORK):
        _check_single(folder)


def check_converted(folder: Path) -> None:
    """Check the folder of ``transpike finetune``: a converted network.

    Raises:
        ModelError: It is not.
    """
    if not os.path.isfile(folder / NETWORK):
        remedy = f"give one of the networks in it: {', '.join(inner)}" if (inner := _inner(folder)) else ""
        raise ModelError(
            f"{folder}: no converted network ({NETWORK}) of `transpike convert` is there; "
            f"{remedy or 'give a folder such as RUN/T8'}."
        )


PLACES: Mapping[str, Callable[[Path], None]] = {
    "evaluate": check_measured, "export": check_exported, "finetune": check_converted,
}  # fmt: skip
"""The checks, by the verb whose first argument is such a folder."""
NAMED = ("convert", "compare", "analyze")
"""The verbs whose first argument is a network."""


def _check_single(folder: Path) -> None:
    if inner := _inner(folder):
        raise ModelError(f"{folder}: holds several converted networks; give one of them: {', '.join(inner)}")


def _inner(folder: Path) -> list[str]:
    return sorted(str(path.parent) for path in folder.glob(f"*/{NETWORK}"))[:8]
