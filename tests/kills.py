"""Kills every command at random points, then goes on: whatever is there is whole, and the end is as if unbroken.

    python tests/kills.py --kills 100            at file operations and at moments, in turn
    python tests/kills.py --kills 7 --seed 1 --verbs train

After a kill each file is old or new. `train`, `distill`, `hybrid`, `convert`, `finetune` and `compare` resume to the
same bits; `evaluate`, `export`, `analyze` and `report` are repeated with the same `--out`; no temporary file is left.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))
# Without a GPU: a process that has trained beside one cannot be forked to train again.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from tests.files.children import ended, fork

import transpike
from transpike.cli import main as run

QUICK = ["--machine.accelerator", "cpu", "--loading.train_images", "60", "--loading.test_images", "20"]
QUICK += ["--loading.batch_size", "20", "--network", '{"hidden": 6}']
FEW = ["--loading.train_images", "60", "--loading.test_images", "20"]
RESUMED = ("train", "distill", "hybrid", "convert", "finetune", "compare")
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "os.truncate")
CLOCK = ("seconds", "started", "images_per_second")


def commands(home: Path) -> dict[str, list[str]]:
    """The command of each verb, and of `export` for each target, which has yet to be told its folder."""
    teacher, converted = str(home / "teacher"), str(home / "converted" / "T2")
    learn = [*QUICK, "--epochs", "2"]
    return {
        "train": ["train", "--model", "mlp", *learn, "--keep", "best", "--recipe.ema", "0.9"],
        "distill": [
            "distill",
            "--teacher",
            teacher,
            "--student",
            "spiking_mlp",
            "--steps",
            "2",
            "--method",
            "kd",
            *learn,
        ],
        "hybrid": ["hybrid", *learn, "--pretraining.epochs", "2", "--calibration", "20", "--steps", "4"],
        "convert": ["convert", teacher, "--steps", "2,3", "--calibration", "20", "--loading.test_images", "20"],
        "finetune": ["finetune", converted, *FEW, "--loading.batch_size", "20", "--epochs", "2"],
        "compare": ["compare", teacher, *FEW, "--schemes", "css,rate", "--calibration", "20"],
        "evaluate": ["evaluate", converted, "--loading.test_images", "20"],
        "integers": ["export", converted, "--to", "integers"],
        "onnx": ["export", converted, "--to", "onnx"],
        "events": ["export", converted, "--to", "events", "--images", "3"],
        "analyze": ["analyze", teacher, "--images", "8", "--shown", "2"],
        "report": ["report", f"{home / 'converted'},{teacher}"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=list(commands(Path())), default=list(commands(Path())))
    parser.add_argument("--operations", action="store_true", help="kill at file operations alone, never by the clock")
    options = parser.parse_args()
    tally = Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        # Here, so that the children need not import, compile and trace for the first time.
        for words in (
            ["train", "--model", "mlp", *QUICK, "--epochs", "1", "--out", str(home / "teacher")],
            ["convert", str(home / "teacher"), "--steps", "2", "--calibration", "20", "--out", str(home / "converted")],
        ):
            with redirect_stdout(StringIO()):
                if code := run(words):
                    return code
        whole = {verb: _unbroken(home, verb) for verb in options.verbs}
        killed = 0
        for trial in count():
            if killed >= options.kills:
                break
            verb = options.verbs[trial % len(options.verbs)]
            out = home / f"{verb}-{trial}"
            out.mkdir()
            draw = Random(f"{options.seed} {trial}")
            by_time = not options.operations and trial // len(options.verbs) % 2 == 1
            kills, problem = _try(home, verb, out, whole[verb], draw, by_time=by_time)
            killed += kills
            tally[verb, "kills"] += kills
            tally[verb, "faults"] += bool(problem)
            print(f"{killed} {verb}, trial {trial}: {problem or 'went on'}", flush=True)
            shutil.rmtree(out)
    print(f"{'':10}{'kills':>8}{'faults':>8}")
    for verb in options.verbs:
        print(f"{verb:10}{tally[verb, 'kills']:>8}{tally[verb, 'faults']:>8}")
    faults = sum(tally[verb, "faults"] for verb in options.verbs)
    print(f"{'all':10}{killed:>8}{faults:>8}")
    return int(faults > 0)


class Whole:
    """What a command leaves that nobody kills, with the number of its file operations and its seconds."""

    def __init__(self, content: dict[str, object], operations: int, seconds: float) -> None:
        self.content, self.operations, self.seconds = content, operations, seconds


def _words(home: Path, verb: str, out: Path) -> list[str]:
    page = out / "page.html" if verb == "report" else out / "run"
    return [*commands(home)[verb], "--out", str(page)]


def _unbroken(home: Path, verb: str) -> Whole:
    out = home / f"{verb}-whole"
    out.mkdir()
    begun, number = time.monotonic(), home / "number"
    if _command(_words(home, verb, out), home / "log.txt", counted=(out, number)):
        sys.exit((home / "log.txt").read_text())
    return Whole(_content(out), int(number.read_text()), time.monotonic() - begun)


def _try(home: Path, verb: str, out: Path, whole: Whole, draw: Random, *, by_time: bool) -> tuple[int, str]:
    """Kill a command once or twice, go on, and compare; gives the kills, and what is wrong."""
    words, log, kills = _words(home, verb, out), home / "log.txt", 0
    resumes = verb in RESUMED
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(1, whole.operations + 1)
        wait = draw.uniform(0, whole.seconds) if by_time else None
        code = _go_on(words, out, log, resumes, at=None if by_time else at, wait=wait)
        if code != -signal.SIGKILL:
            if code:
                return kills, f"exit code {code}: {_tail(log)}"
            break
        kills += 1
        if wrong := _half(out):
            return kills, f"after a kill at {wait or at}: {wrong}"
    if code := _go_on(words, out, log, resumes):
        return kills, f"exit code {code} in the end: {_tail(log)}"
    if others := {name: (whole.content.get(name), _content(out).get(name)) for name in _differing(whole, out)}:
        return kills, f"differs from an unbroken run: {str(others)[:2000]}"
    return kills, ""


def _differing(whole: Whole, out: Path) -> list[str]:
    now = _content(out)
    return sorted(name for name in now.keys() | whole.content.keys() if now.get(name) != whole.content.get(name))


def _go_on(
    words: list[str], out: Path, log: Path, resumes: bool, *, at: int | None = None, wait: float | None = None
) -> int:
    """As a user goes on after a kill: resumes where a run can be, else gives the same command again."""
    folder = Path(words[-1])
    if resumes and (folder / "run.json").exists():
        again = [*words[:-2], "--resume", str(folder)]
        code = _command(again, log, killed=(out, at), wait=wait)
        if code != 2:
            return code
        print(f"not resumed: {_tail(log)}")
    code = _command(words, log, killed=(out, at), wait=wait)
    finished = not resumes and (folder / "results.json").exists() and "is not an empty folder" in log.read_text()
    return 0 if code == 2 and finished else code


def _command(
    words: Sequence[str],
    log: Path,
    *,
    counted: tuple[Path, Path] | None = None,
    killed: tuple[Path, int | None] | None = None,
    wait: float | None = None,
) -> int:
    """Run a command in a process of its own, counted or killed; gives its exit code."""

    def work() -> None:
        os.setsid()
        operations = [0]
        if counted or (killed and killed[1]):
            _watch(str((counted or killed)[0]), operations, killed[1] if killed else None)  # type: ignore[index]
        with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            code = run(words)
        if counted:
            counted[1].write_text(str(operations[0]))
        os._exit(code)

    child = fork(work)
    if wait is not None:
        end = time.monotonic() + wait
        while time.monotonic() < end and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return ended(child)


def _watch(folder: str, operations: list[int], last: int | None) -> None:
    """Count the file operations within a folder; before the last the process is killed."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in OPERATIONS and str(arguments[0]).startswith(folder):
            operations[0] += 1
            if operations[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _half(out: Path) -> str:
    """What is not whole."""
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        read = READERS.get(path.suffix)
        try:
            if read:
                read(path)
            elif path.name != "hparams.yaml" and not path.name.startswith("events.out.tfevents"):  # Lightning's own
                return f"{path.name} is unexpected"
            if path.name == "network.json":
                transpike.load(path.parent)
        except Exception as error:
            return f"{path.relative_to(out)}: {type(error).__name__}: {error}"
    return ""


def _page(path: Path) -> str:
    text = path.read_text()
    assert text.rstrip().endswith("</html>"), "a page without an end"
    return ""


def _rows(path: Path) -> list[list[str]]:
    rows = list(csv.reader(path.read_text().splitlines()))
    assert path.read_text().endswith("\n") and len({len(row) for row in rows}) == 1, "a table without an end"
    return [row for row in rows if row]


def _tensors(path: Path) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


def _checkpoint(path: Path) -> object:
    return sorted(torch.load(path, weights_only=True)) and None


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: _timeless(json.loads(path.read_text())),
    ".safetensors": _tensors,
    ".ckpt": _checkpoint,
    ".html": _page,
    ".csv": lambda path: len(_rows(path)),
    ".npz": lambda path: {name: value.tolist() for name, value in np.load(path).items()},
    ".onnx": lambda path: onnx.checker.check_model(onnx.load(path)),
}


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if name not in CLOCK}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _content(out: Path) -> dict[str, object]:
    """What a command has left, but for what a clock says: every file by its name."""
    found = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    return {
        name: READERS[path.suffix](path) if path.suffix in READERS else path.suffix
        for name, path in found.items()
        if "tfevents" not in name and path.name != "run.json"
    }


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-4:])


if __name__ == "__main__":
    sys.exit(main())
