"""What ``transpike hybrid`` measures of each stage's network, for its results.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transpike.experiments.hybrid_stages import Made, Work
    from transpike.train import Evaluation, Fitted

__all__ = ["measure_ann", "measure_twin", "results_of", "summary"]


def measure_ann(work: Work, ann: Made) -> dict[str, Any]:
    """The operations of the artificial network, or of the one that a twin comes from."""
    from transpike.measure.operations import ann_operations

    name = f"spiking_{ann.name.removeprefix('spiking_')}"
    return ann_operations(name, ann.kwargs, shape=work.shape, side=work.sets.size)


def measure_twin(work: Work, twin: Made) -> tuple[Evaluation, dict[str, Any]]:
    """Accuracy by T and by steps shown, firing, operations, and images rebuilt from the encoder's spikes."""
    import torch

    from transpike.coding import describe_encoder, encoder_scheme, read_encoder
    from transpike.measure.operations import spiking_operations
    from transpike.measure.rebuilding import rebuilt
    from transpike.measure.spiking import follow_steps, measure_spiking

    asked, sets, encoder = work.asked, work.sets, work.encoder
    torch.manual_seed(asked["seed"])  # whatever was drawn before, in this process or in the one that it continues
    told = describe_encoder(asked["encoder"], asked["settings"], encoder)
    about = {"mean": sets.mean, "std": sets.std, "encoder": told}
    steps, others = asked["steps"], asked["test_steps"]
    tested, measured = measure_spiking(
        twin.model,
        lambda _: sets.test,
        steps=steps,
        others=[max(1, steps // 2), 2 * steps] if others is None else others,
        machine=work.machine,
        encoder=lambda count: read_encoder(about, steps=count),
    )
    after, spikes = follow_steps(twin.model, sets.test, encoder, device=work.device)
    scheme = encoder_scheme(asked["encoder"], asked["settings"], steps=steps)
    return tested, measured | {
        "thresholds": twin.thresholds,
        "accuracy_after": after,
        "encoding": {"scheme": scheme, "spikes": spikes, **rebuilt(encoder, sets)},
        "operations": spiking_operations(measure_ann(work, twin), measured["spiking"], encoder, spikes=spikes),
    }


def results_of(work: Work, network: Made, tested: Evaluation, trained: Fitted | None) -> dict[str, Any]:
    """What results.json says of any stage."""
    measured = {"images": tested.images, "accuracy": tested.accuracy, "loss": tested.loss}
    results = {"kind": "evaluation", "version": 1, "model": network.name, "dataset": work.asked["data"], **measured}
    if trained is None:
        return results
    curves = {"weights_of_epoch": trained.epoch, "validation_accuracy": trained.validation_accuracy}
    return results | {"kind": "training", **curves, "epochs": trained.curves}


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """What the results of the last stage say of an earlier one."""
    names = ("model", "accuracy", "loss", "validation_accuracy", "weights_of_epoch")
    return {name: results[name] for name in names if name in results}
