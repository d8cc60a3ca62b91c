"""``transpike analyze``: how student and teacher differ in the frequencies of features and logits, and in focus."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from transpike import files
from transpike.checks import whole
from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.options import Paths, record
from transpike.experiments.source import Data, Source, load_data, load_subject, recorded_teacher
from transpike.report import PAGE, build_page
from transpike.report.curves import curve_tables
from transpike.report.terminal import analysis_tables
from transpike.results import Analysis, Finished, copy_results, read_run, start_run
from transpike.results.folder import RESULTS, as_json
from transpike.train.options import Arguments
from transpike.train.processes import checked_device
from transpike.train.recorded import recorded_loading, same_split

__all__ = ["Analyze", "analyze"]


@dataclass(frozen=True)
class Analyze(Paths):
    """Compare students with their teacher: which frequencies their features and logits contain, and which parts of an
    image decide their answers.

    The analysis measures:
    - the radial power spectra of the features after each stage; for a student trained with SRD or SFKD, also those of
      the features that the method refined
    - the energy of the features' wavelet sub-bands, and how similar the student's stages are to the teacher's (CKA)
    - the sub-bands of two images before and after SFKD's refinement
    - the curve of the logits, with the classes sorted by the teacher's logits, and the high frequencies of this curve
    - the weights of SRD's learned filter
    - the frequency response of the student's neuron
    - Grad-CAM maps of some images

    The folder of the analysis receives results.json, the curves as CSV and report.html. Without a teacher the student
    is analysed alone.

    Examples:
      transpike analyze runs/distill-20261121-110000
      transpike analyze runs/bsd,runs/bsd-spatial,runs/kd
      transpike analyze runs/student --teacher runs/teacher --taps '{"layers.2": "layer1", "layers.5": "layer2"}'
      transpike analyze sew_resnet19 --weights student.safetensors --data cifar10 --teacher timm/resnet18 \
--teacher-weights teacher.safetensors

    Attributes:
        student: The folder of a `transpike distill`, `train` or `hybrid` run, or several to compare; or the name of a
            network with --weights. The images of a hybrid run pass through the encoder of this run.
        data: The data set, as for `transpike train`. The default is that of the student's run.
        teacher: The folder of a run, or the name of a network with --teacher-weights. The default is the teacher of the
            student's run.
        teacher_weights: The teacher's weights: a .safetensors file, a state dict or the folder of a run.
        teacher_network: Arguments of the teacher's network.
        teacher_steps: T of a spiking teacher. If the teacher is the folder of a run, the default is the T of this run.
        teacher_size: Side of the teacher's images in pixels. The default is the size in the teacher's run, or that of
            its timm network.
        weights: The student's weights, if the student is a name.
        network: Arguments of the student's network.
        steps: T of a spiking student. If the student is the folder of a run, the default is the T of this run.
        taps: Modules of the student whose features are analysed, with or without a module of the teacher for each. The
            default is the modules of the run, or the stages of each network.
        part: The images to use: test or validation.
        images: The number of images, evenly spaced over the set.
        shown: The number of images that are shown one by one, of different classes if possible.
        root: The folder of the data set's files. The default is that of the run. If the run has none, it is the folder
            `data`.
        download: Download the data set into root if it is missing.
        loading: Image size, normalisation and batches. The default is the options of the run. If you set any of these
            options, only image size, normalisation and the validation split still come from the run. Every other option
            that you do not set has the default that --loading.help shows.
        device: The device that computes: cpu, cuda, cuda:1, ...
        out: The folder of the analysis. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
    """

    student: list[str] | str
    data: str | None = None
    _: KW_ONLY
    teacher: str | None = None
    teacher_weights: Path | None = None
    teacher_network: Arguments | None = None
    teacher_steps: int | None = None
    teacher_size: int | None = None
    weights: Path | None = None
    network: Arguments | None = None
    steps: int | None = None
    taps: dict[str, str] | list[str] | None = None
    part: Literal["test", "validation"] = "test"
    images: int = 256
    shown: int = 4
    root: Path | None = None
    download: bool = False
    loading: Loading | None = None
    device: str = "cpu"
    out: Path | None = None
    json: Path | None = None

    @property
    def students(self) -> list[str]:
        """The students as a list, also if there is only one."""
        return [self.student] if isinstance(self.student, str) else list(self.student)


def analyze(options: Analyze) -> Analysis:
    """Analyse students and their teacher, and write the results to a folder.

    Returns:
        The content of results.json.

    Raises:
        TranspikeError: A run, its teacher, the weights or the data are not available; a tap does not exist; or teacher
            and student have different data or classes.
    """
    if not options.students:
        raise ConfigError("student: give at least one.")
    whole("images", options.images)
    whole("shown", options.shown, least=0)
    if len(options.students) > 1 and (options.weights or options.network):
        raise ConfigError("--weights and --network are for one student: give the folders of runs to compare several.")
    checked_device(options.device)
    networks = {"teacher_network": options.teacher_network or {}, "network": options.network or {}}
    with start_run("analyze", record(options, student=options.students, **networks), out=options.out) as run:
        results = _look(options)
        _write(results, run.folder)
    Console(highlight=False).print(*analysis_tables(results), sep="\n")
    print(f"Results: {run.folder}\nReport: {run.folder / 'report.html'}")
    copy_results(results, options.json)
    return results


def _look(options: Analyze) -> Analysis:
    from transpike.measure.looking import analysis
    from transpike.measure.pictures import chosen_loader
    from transpike.measure.subjects import find_stages

    sources, teaching, own = _sources(options)
    loading, first = options.loading, sources[0]
    if loading is not None and options.data in (None, first.recorded.get("data")):
        loading = same_split(loading, recorded_loading(first.recorded, first.name))
    data = Data(options.data, options.root, options.download, loading)
    everyone = [*sources, *([teaching] if teaching else [])]
    sets, device = load_data(everyone, data, own_teacher=teaching if own else None), options.device
    teacher = load_subject(teaching, sets, label="teacher", device=device) if teaching else None
    labelled = zip(sources, _labels(options.students), strict=True)
    students = [load_subject(source, sets, label=label, device=device) for source, label in labelled]
    loader = chosen_loader(sets, options.part, options.images)
    first = next(iter(loader))[0].to(device)
    for student in students:
        find_stages(student, teacher, first[:, :2] if first.ndim == 5 else first[:2], taps=options.taps)
    return analysis(teacher, students, loader, sets=sets, part=options.part, shown=options.shown)


def _sources(options: Analyze) -> tuple[list[Source], Source | None, bool]:
    """Return the students, their teacher if there is one, and whether it is the one from which they learned."""
    named = (options.weights, options.network or {}, options.steps)
    students = [Source(name, *named).checked("its weights", "show") for name in options.students]
    if options.teacher is not None:
        network = options.teacher_network or {}
        given_too = (options.teacher_weights, network, options.teacher_steps, options.teacher_size)
        return students, Source(options.teacher, *given_too).checked("its weights", "show"), False
    known = {name: found for name in options.students if (found := recorded_teacher(name)) is not None}
    if any(found != next(iter(known.values())) for found in known.values()):
        each = ", ".join(f"{name} from {found.name}" for name, found in known.items())
        raise ConfigError(f"the students learned from different teachers ({each}): give --teacher, or one at a time.")
    return students, next(iter(known.values()), None), True


def _labels(students: list[str]) -> list[str]:
    """Return labels that distinguish the students: the last part of their folders' names, or all of it."""
    if len(students) == 1:
        return ["student"]
    short = [Path(name).name for name in students]
    return short if len(set(short)) == len(short) else students


def _write(results: Analysis, folder: Path) -> None:
    """Write results.json, the curves and the page as one change: a killed command leaves all of them or none."""
    page = build_page([Finished(results, read_run(folder), str(folder))])
    with files.Change(folder) as change:
        for name, heading, rows in curve_tables(results):
            text, kind = files.csv_table(heading, rows)
            change.write(name, text, kind=kind)
        change.write("report.html", page, kind=PAGE)
        change.write("results.json", files.dumps(as_json(results)), kind=RESULTS)
