"""The measurements of `transpike analyze` on a teacher and its students."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from transpike.data import EventSets, ImageSets
from transpike.distill.bsd import SpectralResidual, SpectralResidualDistillation
from transpike.distill.taps import Taps
from transpike.measure.pictures import pixels_of, png
from transpike.measure.stages import CUTOFF, PairedStages, StageSpectra, curve, matrix
from transpike.measure.subjects import Subject
from transpike.metrics.fidelity import accuracy
from transpike.metrics.saliency import grad_cam
from transpike.metrics.spectrum import full_plane, leak, membrane_response, sort_logits, spike_spectrum
from transpike.neurons import reset_net
from transpike.results import (
    Analysis,
    Bands,
    Features,
    Filter,
    HeatMap,
    LogitCurve,
    LogitRow,
    Logits,
    Network,
    Neuron,
    Saliency,
    Shown,
    Similarity,
    SpikeSpectrum,
)
from transpike.spectral.fourier import high_pass
from transpike.train.losses import readout

__all__ = ["Seen", "analysis", "filters", "look", "neurons", "saliency"]

Batches = Iterable[Sequence[Tensor]]

PICTURED = 2
"""The number of images whose sub-bands are shown: the first of the shown images."""


@dataclass(frozen=True)
class Seen:
    """The networks' results on the images: see `look`."""

    images: int
    accuracy: list[float]
    features: tuple[Features, ...]
    logits: Logits
    stages: tuple[Bands, ...]
    similarity: tuple[Similarity, ...]
    shown: list[tuple[Tensor, int]]


def analysis(
    teacher: Subject | None,
    students: Sequence[Subject],
    loader: Batches,
    *,
    sets: ImageSets | EventSets,
    part: Literal["test", "validation"],
    shown: int,
) -> Analysis:
    """Measure everything about a teacher, if there is one, and about students with their taps.

    Args:
        teacher: the network with which the students are compared.
        students: one or more networks.
        loader: the images.
        sets: the data set of the images.
        part: the part of the data set.
        shown: how many images are shown individually, of different classes if possible.
    """
    subjects = [*([teacher] if teacher else []), *students]
    device = str(next(students[0].model.parameters()).device)
    seen = look(subjects, bool(teacher), loader, class_names=sets.class_names, device=device, shown=shown)
    networks = (
        Network(
            label=subject.label,
            role="teacher" if subject is teacher else "student",
            model=subject.name,
            steps=subject.given.steps,
            accuracy=accuracy,
            method=subject.learned.method if subject.learned else None,
            adapts=getattr(subject.method, "adapts", None),
        )
        for subject, accuracy in zip(subjects, seen.accuracy, strict=True)
    )
    return Analysis(
        model=students[0].name,
        dataset=sets.name,
        part=part,
        images=seen.images,
        networks=tuple(networks),
        features=seen.features,
        stages=seen.stages,
        similarity=seen.similarity,
        logits=seen.logits,
        filters=filters(subjects),
        neurons=neurons(subjects),
        saliency=saliency(subjects, seen, sets, device=device),
    )


def look(
    subjects: Sequence[Subject],
    taught: bool,
    loader: Batches,
    *,
    class_names: Sequence[str],
    device: str,
    shown: int,
) -> Seen:
    """Pass the images through all networks once.

    Args:
        subjects: the teacher first if `taught`, then students with their taps.
        taught: whether there is a teacher.
        loader: the images.
        class_names: the names of the labels.
        device: the device of the networks.
        shown: how many images to keep, of different classes if possible.
    """
    observers = [subject.observer() for subject in subjects]
    stages = [
        (number, [StageSpectra(stage.student, stage, subject.adapters.get(stage)) for stage in subject.stages]
         or [StageSpectra(tap, None, None) for tap in subject.taps])
        for number, subject in enumerate(subjects) if number or not taught
    ]  # fmt: skip
    paired = {number: PairedStages(subject) for number, subject in enumerate(subjects) if subject.stages}
    logits_by_network: list[list[Tensor]] = [[] for _ in subjects]
    labels: list[Tensor] = []
    pictures: list[tuple[Tensor, int]] = []
    console = Console(stderr=True)
    for images, target in track(loader, description="looking", console=console):
        batch = images.to(device)
        results = [observer(batch) for observer in observers]
        with torch.no_grad():
            for number, spectra in stages:
                for one in spectra:
                    one.update(results[number][1], results[0][1])
            first = [] if labels else _of_new_classes(target, (), min(shown, PICTURED))
            pictured = {place: class_names[int(target[place])] for place in first}
            for number, pair in paired.items():
                pair.update(results[number][1], results[0][1], pictured=pictured)
        for collected, (logits, _) in zip(logits_by_network, results, strict=True):
            collected.append(logits.cpu())
        labels.append(target)
        places = _of_new_classes(target, [label for _, label in pictures], shown - len(pictures))
        pictures += [(images.select(int(images.ndim == 5), place), int(target[place])) for place in places]
    everything, truth = [torch.cat(collected) for collected in logits_by_network], torch.cat(labels)
    return Seen(
        images=len(truth),
        accuracy=[accuracy(each, truth) for each in everything],
        features=tuple(one.found(number) for number, spectra in stages for one in spectra),
        logits=_logits(everything, shown),
        stages=tuple(bands for number, pair in paired.items() for bands in pair.found(number)),
        similarity=tuple(one for number, pair in paired.items() for one in pair.similarity(number)),
        shown=pictures,
    )


def _of_new_classes(target: Tensor, known: Sequence[int], most: int) -> list[int]:
    """Return the positions of at most so many images whose classes are new and differ from each other."""
    positions: dict[int, int] = {}
    for place, label in enumerate(target.tolist()):
        if label not in known and label not in positions and len(positions) < most:
            positions[label] = place
    return list(positions.values())


def _logits(logits: Sequence[Tensor], shown: int) -> Logits:
    """Return curves in the order of the first network's logits: means over images, and some single images."""
    ordered = [sort_logits(each, by=logits[0]) for each in logits]
    high = [high_pass(each) for each in ordered]
    some = torch.linspace(0, len(ordered[0]) - 1, min(shown, len(ordered[0]))).long().tolist()
    curves = (
        LogitCurve(
            network=number,
            mean=curve(each.mean(0)),
            high=curve(fine.square().mean(0).sqrt()),
            rms=float(each.square().mean().sqrt()),
            rms_high=float(fine.square().mean().sqrt()),
            distance_high=float((fine - high[0]).square().mean().sqrt()),
        )
        for number, (each, fine) in enumerate(zip(ordered, high, strict=True))
    )
    single = (
        tuple(
            LogitRow(network=number, logits=curve(each[row]), high=curve(fine[row]))
            for number, (each, fine) in enumerate(zip(ordered, high, strict=True))
        )
        for row in some
    )
    return Logits(curves=tuple(curves), single=tuple(single))


def filters(subjects: Sequence[Subject]) -> tuple[Filter, ...]:
    """Return |W2| of each SRD filter: with zero frequency in the middle, or by place for a spatial filter."""
    result = []
    for number, subject in enumerate(subjects):
        for stage, adapter in subject.adapters.items():
            if not isinstance(adapter, SpectralResidualDistillation):
                continue
            residual: SpectralResidual = adapter.residual
            weights, ratio = residual.w2.detach().cpu(), None
            if residual.domain == "frequency":
                weights = full_plane(torch.view_as_complex(weights).abs(), width=stage.size[1])
                ratio = _high_over_low(weights)
            plane = matrix(weights.abs())
            result.append(
                Filter(
                    network=number, tap=stage.student, domain=residual.domain, size=stage.size, weights=plane,
                    high_over_low=ratio,
                )
            )  # fmt: skip
    return tuple(result)


def _high_over_low(weights: Tensor) -> float | None:
    """Return the mean of centred weights at high frequencies over the mean at low ones."""
    vertical, horizontal = (torch.fft.fftshift(torch.fft.fftfreq(side)) for side in weights.shape)
    high = (vertical[:, None].square() + horizontal.square()).sqrt() > CUTOFF
    low = float(weights[~high].mean())
    return float(weights[high].mean()) / low if low and high.any() else None


def neurons(subjects: Sequence[Subject]) -> tuple[Neuron, ...]:
    """Return how each network's most frequent kind of spiking neuron filters, measured and by BSD's Eq. 3."""
    kinds_seen: dict[tuple[str, float, float], Neuron] = {}
    for number, subject in enumerate(subjects):
        nodes = [module for module in subject.model.modules() if hasattr(module, "v_threshold")]
        kinds = {id(node): (type(node).__name__, *leak(node)) for node in nodes}
        if not nodes:
            continue
        kind, layers = Counter(kinds.values()).most_common(1)[0]
        if kind in kinds_seen:
            kinds_seen[kind] = replace(kinds_seen[kind], networks=(*kinds_seen[kind].networks, number))
        elif kind[1] <= 1:
            node = next(node for node in nodes if kinds[id(node)] == kind)
            kinds_seen[kind] = _neuron(node, number, layers=layers, others=len(nodes) - layers)
    return tuple(kinds_seen.values())


def _neuron(node: nn.Module, network: int, *, layers: int, others: int) -> Neuron:
    (decay, gain), measured = leak(node), membrane_response(node)
    frequency, power, rate = spike_spectrum(node)
    return Neuron(
        networks=(network,),
        type=type(node).__name__,
        decay=decay,
        gain=gain,
        layers=layers,
        other_layers=others,
        frequency=curve(measured.frequency),
        expected=curve(measured.expected),
        measured_amplitude=curve(measured.amplitude),
        measured_power=curve(measured.power),
        spikes=SpikeSpectrum(frequency=curve(frequency), power=curve(power), rate=rate),
    )


def saliency(subjects: Sequence[Subject], seen: Seen, sets: ImageSets | EventSets, *, device: str) -> Saliency:
    """Return Grad-CAM of each network for the labels of the shown images, at its last tap; none if one has no tap."""
    if not seen.shown or not all(subject.taps for subject in subjects):
        return Saliency(images=(), panels=())
    target = torch.tensor([label for _, label in seen.shown], device=device)
    batch = torch.stack([image for image, _ in seen.shown], dim=int(seen.shown[0][0].ndim == 4)).to(device)
    panels: list[HeatMap] = []
    for number, subject in enumerate(subjects):
        maps, predicted = _explain(subject, _last(subjects, number), batch, target)
        panels += [
            HeatMap(network=number, image=image, map=matrix(each), prediction=sets.class_names[prediction])
            for image, (each, prediction) in enumerate(zip(maps, predicted, strict=True))
        ]
    return Saliency(
        images=tuple(Shown(png=_png(image, sets), label=sets.class_names[label]) for image, label in seen.shown),
        panels=tuple(panels),
        taps=tuple(_last(subjects, number) for number in range(len(subjects))),
    )


def _last(subjects: Sequence[Subject], number: int) -> str:
    """Return the last tap of a student, and the corresponding tap of the teacher."""
    subject = subjects[number]
    is_teacher = number == 0 and not subject.stages and len(subjects) > 1 and bool(subjects[1].stages)
    return subjects[1].stages[-1].teacher if is_teacher else list(subject.taps)[-1]


def _explain(subject: Subject, tap: str, batch: Tensor, target: Tensor) -> tuple[Tensor, list[int]]:
    """Return Grad-CAM maps [N, H, W], each with 1 as its largest value, and the predictions."""
    reset_net(subject.model)
    with torch.enable_grad(), Taps(subject.model, [tap], on_path=True) as taps:
        # An encoder passes no gradient on, so the gradient starts after it.
        logits = readout(subject.model(subject.given(batch).detach().requires_grad_()))
        score = logits.gather(1, target[:, None]).squeeze(1)
        maps = grad_cam(score, taps[tap], read=subject.taps[tap].maps)
    reset_net(subject.model)
    peak = maps.amax((-2, -1), keepdim=True)
    return (maps / peak.clamp(min=1e-12)).cpu(), logits.argmax(1).tolist()


def _png(image: Tensor, sets: ImageSets | EventSets) -> str:
    """Return an image before normalisation, or a recording's events (ON red, OFF blue), as PNG in base64."""
    if isinstance(sets, ImageSets):
        return png(pixels_of(image, sets))
    off, on = image.sum(0)
    return png(torch.stack((on, torch.zeros_like(on), off)) / image.sum(0).max().clamp(min=1))
