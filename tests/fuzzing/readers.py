"""What reads each kind of file, from Python and by the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TypeAlias

import torch
from tests.fuzzing.seeds import LAYERS, TINY, network

import transpike
from transpike import export
from transpike.arguments import Arguments
from transpike.cli import build_parser, main
from transpike.coding import read_encoder
from transpike.data import Loading, load_events, load_images
from transpike.errors import TranspikeError
from transpike.experiments.convert import Convert
from transpike.experiments.distill import Distill
from transpike.experiments.hybrid import Hybrid
from transpike.experiments.learning import settled
from transpike.experiments.train import Train
from transpike.models import create_model, load_weights, read_description, read_network, read_weights
from transpike.report import write_report
from transpike.results import read

Reader: TypeAlias = Callable[[Path, Path, Path], object]
"""Takes the folder of the input, the damaged file in it, and the folder of the whole files."""

LOADING = Loading(batch_size=4, size=8, validation=0.0)
VERBS = {"distill": Distill, "hybrid": Hybrid, "convert": Convert}


def _command(*words: object) -> None:
    """Run a command; what it says of a mistake is raised, as the Python interface would."""
    with redirect_stderr(StringIO()) as said:
        code = main([str(word) for word in words])
    print(said.getvalue())
    if code == 2:
        raise TranspikeError(said.getvalue().rpartition("transpike: ")[2].removesuffix("\n"))
    if code:
        raise AssertionError(f"exit code {code}")


def _network(folder: Path, path: Path, seeds: Path) -> object:
    return transpike.load(folder)(torch.rand(2, LAYERS[0]))


def _clocked(shape: tuple[int, ...]) -> Reader:
    return lambda folder, path, seeds: export.run(folder, torch.rand(2, *shape))


def _on_colours(folder: Path, path: Path, seeds: Path) -> object:
    return transpike.load(folder)(torch.rand(2, 3, 8, 8))


def _on_images(verb: str, *more: str) -> Reader:
    sized = ("--loading.size", 8, "--loading.batch_size", 4)

    def read(folder: Path, path: Path, seeds: Path) -> None:
        _command(verb, folder, "--data", "folder", "--root", seeds / "images", *sized, *more, "--out", "out")

    return read


def _verb(verb: str, *more: object) -> Reader:
    return lambda folder, path, seeds: _command(verb, folder, *more, "--out", "out")


def _resume(folder: Path, path: Path, seeds: Path) -> object:
    return _command("train", "--resume", folder)


def _model(folder: Path, path: Path, seeds: Path) -> object:
    return create_model(folder)


def _report(folder: Path, path: Path, seeds: Path) -> object:
    place = path.parent
    return read(place), write_report([place], Path(f"{place.name}.html"))


def _report_all(folder: Path, path: Path, seeds: Path) -> object:
    names = (seeds / "results").iterdir()
    return _command("report", ",".join(str(folder / name.name) for name in sorted(names)), "--out", "page.html")


def _report_over(folder: Path, path: Path, seeds: Path) -> object:
    return _command("report", seeds / "results" / "tested", "--out", path)


def _encoder(folder: Path, path: Path, seeds: Path) -> object:
    return read_encoder(read_description(folder))(torch.rand(2, 3, 8, 8))


def _weights(folder: Path, path: Path, seeds: Path) -> object:
    return read_weights(path)


def _weights_into(folder: Path, path: Path, seeds: Path) -> object:
    return load_weights(network(), path)


def _weights_of_model(folder: Path, path: Path, seeds: Path) -> object:
    return _command("convert", "resnet8x4", "--weights", path, "--data", "digits", "--out", "out")


def _foreign(folder: Path, path: Path, seeds: Path) -> object:
    """A network of another tool's file, and what it says of images of the shape that it names."""
    net = read_network(path)
    return net(torch.rand(2, *(size or 8 for size in net.sizes)))


def _foreign_part(folder: Path, path: Path, seeds: Path) -> object:
    net = read_network(path, whole=False)
    names = [name for name, _ in net.named_children()]
    name = next((name for name in names if re.search("Conv|Gemm|patches|^0", name)), "none")  # the first with weights
    x = torch.rand(4, *(size or 8 for size in net.sizes))
    return transpike.convert(net, x, until=name, scheme=transpike.CSS(steps=2, silent=0))


def _foreign_command(folder: Path, path: Path, seeds: Path) -> object:
    root, sized = seeds / "images", ("--loading.size", 8, "--loading.batch_size", 4)
    return _command("convert", path, "--data", "folder", "--root", root, *sized, "--steps", 2, "--out", "out")


def _options(folder: Path, path: Path, seeds: Path) -> object:
    verb = VERBS.get(re.split("[-.]", path.name)[0], Train)
    name = verb.__name__.lower()
    options = verb(**Arguments(name, verb, ["--config", str(path)]).parse(build_parser(name)))
    return settled(options) if isinstance(options, Train | Distill) else options


def _options_typed(folder: Path, path: Path, seeds: Path) -> object:
    """A command that ends before it computes: its folder is taken."""
    verb = VERBS.get(re.split("[-.]", path.name)[0], Train).__name__.lower()
    return _command(verb, "--config", path, "--root", "nowhere", "--out", seeds / "run", "--download", "false")


def _image_set(name: str) -> Reader:
    def load(folder: Path, path: Path, seeds: Path) -> None:
        sets = load_images(name, root=folder, loading=LOADING)
        for part in (sets.train, sets.test):
            assert all(torch.isfinite(images).all() for images, _ in part)

    return load


def _event_set(name: str) -> Reader:
    def load(folder: Path, path: Path, seeds: Path) -> None:
        sets = load_events(name, root=folder, steps=4, loading=Loading(batch_size=8))
        for part in (sets.train, sets.test):
            assert all((frames >= 0).all() for frames, _ in part)

    return load


def _training(name: str, *more: str) -> Reader:
    return lambda folder, path, seeds: _command(
        "train", *TINY[:-2], "--data", name, "--root", folder, "--network", '{"hidden": 4}', *more, "--out", "out"
    )


def _tested(folder: Path, path: Path, seeds: Path) -> object:
    return _command("evaluate", seeds / "run", "--data", "folder", "--root", folder, "--out", "out")


def _export_over(folder: Path, path: Path, seeds: Path) -> None:
    """Export over what lies there: replaced where it is of the same kind, else one clear error."""
    options = ("--data", "folder", "--root", seeds / "images", "--loading.size", 8, "--loading.batch_size", 4)
    network, *more = {
        "integers.json": ("network", "integers"),
        "integers.safetensors": ("network", "integers"),
        "network.nir": ("rate", "nir"),
        "spikes.npz": ("resnet", "events", *options),
        "events.json": ("resnet", "events", *options),
    }.get(path.name, ("network", "onnx"))
    _command("export", seeds / network, "--to", *more, "--out", folder)


EVENTS = {name: (_event_set(name),) * 4 for name in ("nmnist", "cifar10_dvs", "dvs128_gesture")}


def _nir(folder: Path, path: Path, seeds: Path) -> object:
    return transpike.import_nir(path)(torch.rand(2, LAYERS[0]))


KINDS: dict[str, tuple[Reader, ...]] = {
    "nir": (_nir,),
    "network": (_network, _clocked((LAYERS[0],)), _verb("export", "--to", "integers")),
    "whole": (_network, _clocked((LAYERS[0],))),
    "rate": (_network, _clocked((LAYERS[0],)), _verb("export", "--to", "nir")),
    "exports": (_export_over,),
    "resnet": (_on_colours, _clocked((3, 8, 8)), _on_images("evaluate"), _on_images("export", "--to", "events")),
    "attention": (_on_colours, _clocked((3, 8, 8)), _on_images("evaluate")),
    "run": (_resume, _resume, _model, _verb("evaluate"), _verb("convert", "--steps", 2), _report, _report_over),
    "encoder": (_model, _encoder, _on_images("evaluate")),
    "results": (_report, _report, _report_all, _report_over),
    "weights": (_weights, _weights_into, _weights_into, _weights_of_model),
    "onnx": (_foreign, _foreign, _foreign_part, _foreign_command),
    "exported": (_foreign, _foreign, _foreign_part, _foreign_command),
    "config": (_options, _options_typed),
    "images": (_image_set("folder"), _image_set("folder"), _tested),
    "mnist": (_image_set("mnist"), _image_set("mnist"), _training("mnist", "--model", "mlp")),
    "cifar": (_image_set("cifar10"),),
    **EVENTS,
    "nmnist": (*EVENTS["nmnist"], _training("nmnist", "--model", "spiking_mlp")),
}
