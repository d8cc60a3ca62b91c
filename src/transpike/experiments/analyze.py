"""``transpike analyze``: where student and teacher differ: frequencies of features and logits, and where each looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.runs import start_run, write_json
from transpike.experiments.source import checked_device, network_name

if TYPE_CHECKING:
    from transpike.measure.subjects import Subject

__all__ = ["analyze"]


def analyze(
    student: list[str] | str,
    data: str | None = None,
    *,
    teacher: str | None = None,
    teacher_weights: Path | None = None,
    teacher_network: dict[str, Any] | None = None,
    teacher_steps: int | None = None,
    teacher_size: int | None = None,
    weights: Path | None = None,
    network: dict[str, Any] | None = None,
    steps: int | None = None,
    taps: dict[str, str] | list[str] | None = None,
    part: Literal["test", "validation"] = "test",
    images: int = 256,
    shown: int = 4,
    root: Path | None = None,
    download: bool = False,
    loading: Loading | None = None,
    device: str = "cpu",
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Look at students and their teacher: what frequencies their features and logits have, and where they look.

    Measured are the radial power spectra of the features after each stage, the student's before and after what SRD or
    SFKD learned beside it; the energy of their wavelet sub-bands, and how alike the stages are (CKA); the sub-bands of
    two images before and after SFKD's refinement; the logits in the teacher's order and their high frequencies; the
    weights of SRD's filter; the student's neuron as a filter; and Grad-CAM on some images. The run's folder receives
    results.json, the curves as CSV and report.html. Without a teacher the student is looked at alone.

    Examples:
      transpike analyze runs/distill-20261121-110000
      transpike analyze runs/bsd,runs/bsd-spatial,runs/kd
      transpike analyze runs/student --teacher runs/teacher --taps '{"layers.2": "layer1", "layers.5": "layer2"}'
      transpike analyze sew_resnet19 --weights student.safetensors --data cifar10 --teacher timm/resnet18 \
--teacher-weights teacher.safetensors

    Args:
        student: The folder of a `transpike distill`, `train` or `hybrid` run, or several to compare; or a network's
            name with --weights. A hybrid run's images pass through its own encoder.
        data: The images, as for `transpike train`; by default those of the student's run.
        teacher: The folder of a run, or a network's name with --teacher-weights; by default the run's own teacher.
        teacher_weights: A .safetensors file, a state dict or a run's folder.
        teacher_network: What else the teacher's network takes.
        teacher_steps: T of a spiking teacher; a run's folder knows its own.
        teacher_size: Side of the teacher's images in pixels; by default that of its run, or for timm's networks their
            own.
        weights: The student's weights, where it is no run.
        network: What else the student's network takes.
        steps: T of a spiking student; a run's folder knows its own.
        taps: Modules of the student whose features are looked at, each with the teacher's module, or without; by
            default those of the run, or each network's stages.
        part: Which images: test or validation.
        images: How many of them, evenly spaced over the set.
        shown: How many of these are shown one by one, of different classes if possible.
        root: Where the data set's files lie; by default as in the run, else data.
        download: Download the data set into root where it is missing.
        loading: Image size, normalisation, batches; by default as in the run.
        device: Where to compute: cpu, cuda, cuda:1, ...
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: A run, its teacher, the weights or the data cannot be had; a tap does not exist; teacher and
            student are of different data or classes.
    """
    students = [student] if isinstance(student, str) else list(student)
    if not students or images < 1 or shown < 0:
        raise ConfigError("give at least one student, one image, and no negative number of images to show.")
    if len(students) > 1 and (weights or network):
        raise ConfigError("--weights and --network are for one student: give the folders of runs to compare several.")
    checked_device(device)
    asked: dict[str, Any] = {
        "student": students, "data": data, "teacher": teacher, "teacher_weights": teacher_weights,
        "teacher_network": teacher_network or {}, "teacher_steps": teacher_steps, "teacher_size": teacher_size,
        "weights": weights, "network": network or {}, "steps": steps, "taps": taps, "part": part, "images": images,
        "shown": shown, "root": root, "download": download, "loading": loading, "device": device,
    }  # fmt: skip
    with start_run("analyze", asked, out=out) as run:
        results = _analyze(asked)
        run.write("results.json", results)
        _tell(results, run.folder)
    if json is not None:
        write_json(json, results)


def _analyze(asked: dict[str, Any]) -> dict[str, Any]:
    from transpike.experiments.source import load_data, load_subject
    from transpike.measure import looking
    from transpike.measure.pictures import chosen_loader
    from transpike.measure.subjects import find_stages

    sources, teacher_source, own = _sources(asked)
    sets = load_data(
        [*sources, *([teacher_source] if teacher_source else [])],
        data=asked["data"], root=asked["root"], download=asked["download"], loading=asked["loading"],
        own_teacher=teacher_source if own else None,
    )  # fmt: skip
    device = asked["device"]
    teacher = load_subject(teacher_source, sets, label="teacher", device=device) if teacher_source else None
    labels = _labels(asked["student"])
    students = [
        load_subject(source, sets, label=label, device=device) for source, label in zip(sources, labels, strict=True)
    ]
    loader = chosen_loader(sets, asked["part"], asked["images"])
    first = next(iter(loader))[0].to(device)
    for student in students:
        find_stages(student, teacher, first[:, :2] if first.ndim == 5 else first[:2], taps=asked["taps"])
    subjects: list[Subject] = [*([teacher] if teacher else []), *students]
    seen = looking.look(
        subjects, bool(teacher), loader, class_names=sets.class_names, device=device, shown=asked["shown"]
    )
    return {
        "kind": "analysis",
        "version": 1,
        "model": network_name(asked["student"][0]),
        "dataset": sets.name,
        "part": asked["part"],
        "images": seen.images,
        "networks": [
            {
                "label": subject.label, "role": "teacher" if subject is teacher else "student",
                "model": subject.name, "steps": subject.given.steps, "accuracy": accuracy,
                "method": subject.distilled.get("method"),
            }
            for subject, accuracy in zip(subjects, seen.accuracy, strict=True)
        ],
        "features": seen.features,
        "stages": seen.stages,
        "similarity": seen.similarity,
        "logits": seen.logits,
        "filters": looking.filters(subjects),
        "neurons": looking.neurons(subjects),
        "saliency": looking.saliency(subjects, seen, sets, device=device),
    }  # fmt: skip


def _sources(asked: dict[str, Any]) -> tuple[list[Any], Any, bool]:
    """The students, their teacher if there is one, and whether it is the one that they learned from."""
    from transpike.experiments.source import Source, recorded_teacher

    students = [Source(name, asked["weights"], asked["network"], asked["steps"]) for name in asked["student"]]
    if asked["teacher"] is not None:
        given = (asked[f"teacher_{name}"] for name in ("weights", "network", "steps", "size"))
        return students, Source(asked["teacher"], *given), False
    known = {name: found for name in asked["student"] if (found := recorded_teacher(name)) is not None}
    if any(found != next(iter(known.values())) for found in known.values()):
        told = ", ".join(f"{name} from {found.name}" for name, found in known.items())
        raise ConfigError(f"the students learned from different teachers ({told}): give --teacher, or one at a time.")
    return students, next(iter(known.values()), None), True


def _labels(students: list[str]) -> list[str]:
    """What tells the students apart: the last part of their folders' names, or all of it."""
    if len(students) == 1:
        return ["student"]
    short = [Path(name).name for name in students]
    return short if len(set(short)) == len(short) else students


def _tell(results: dict[str, Any], folder: Path) -> None:
    from rich.console import Console

    from transpike.report import write_report
    from transpike.report.curves import write_curves
    from transpike.report.terminal import analysis_tables

    write_curves(results, folder)
    Console(highlight=False).print(*analysis_tables(results), sep="\n")
    page = write_report([folder], folder / "report.html")
    print(f"Results: {folder}\nReport: {page}")
