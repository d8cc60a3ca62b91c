"""Damages small files of every kind that transpike reads, and reads them: one clear error, or success.

    python tests/fuzz.py --seconds 60            as many inputs as a minute allows
    python tests/fuzz.py --inputs 2000           so many
    python tests/fuzz.py --only 1234             one of them again, with its traceback

Anything else is a fault: another exception, a message that is none, more than a minute of processor time or than 4 GiB,
a file of the user's that changed, code from a file that ran. Each input that finds one is copied to a folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))
# Without a GPU: a process that has trained beside one cannot be forked to train again.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

from PIL import Image
from tests.fuzzing.mutations import CANARY, mutate
from tests.fuzzing.readers import KINDS, Reader
from tests.fuzzing.seeds import make_seeds

from transpike.errors import TranspikeError

SECONDS, MEMORY = 60.0, 2**32
ASLEEP = 5 * SECONDS
"""On the clock; a busy machine may take long for a minute of processor time."""

FAULTS = ("traceback", "message", "hang", "memory", "changed", "ran code")
OUTCOMES = ("error", "success", *FAULTS)
REFUSING = ("_report_over", "_options_typed", "_weights_of_model")
"""Readers that refuse whole files, too. So is CIFAR's: its files have published checksums."""

BY_FILE = ("_weights", "_options", "_report", "_export_over")
WRITING = ("_resume", "_export_over")
"""Readers that write into the folder that they read; when they refuse, it must be as it was."""

NAMES = ("n" * 300, "a\0b", "/".join(["deep"] * 900), "\udcff", " ", "no\nsuch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, help="how many; by default as many as --seconds allow")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this input alone, and what it says")
    parser.add_argument("--whole", action="store_true", help="first read the undamaged files")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--failures", type=Path, default=Path(tempfile.gettempdir()) / "transpike-fuzz")
    options = parser.parse_args()
    begun, tally = time.monotonic(), Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        seeds = home / "seeds"
        make_seeds(seeds)  # here, so that the children need not import, compile and trace for the first time
        if options.whole and (wrong := _read_whole(home)):
            return wrong
        before, begun = _state(seeds), time.monotonic()
        for number in count() if options.only is None else [options.only]:
            over = time.monotonic() - begun > options.seconds if options.inputs is None else number >= options.inputs
            if over and options.only is None:
                break
            kind = options.kinds[number % len(options.kinds)]
            place, log = home / str(number), home / f"{number}.txt"
            outcome, peak = _forked(lambda: _try(number, kind, options.seed, place, seeds), log)  # noqa: B023
            if _state(seeds) != before:
                outcome = "changed"
            tally[kind, outcome] += 1
            if outcome in FAULTS or options.only is not None:
                print(f"{number} {kind}: {outcome}, {peak / 2**20:.0f} MiB\n{_last_lines(log)}", flush=True)
                _keep(place, log, options.failures / f"{options.seed}-{number}")
            shutil.rmtree(place, ignore_errors=True)
            log.unlink(missing_ok=True)
    _print_table(tally, time.monotonic() - begun)
    return int(any(outcome in FAULTS for _, outcome in tally))


def _try(number: int, kind: str, seed: int, place: Path, seeds: Path) -> None:
    """Make one input and read it."""
    draw = Random(f"{seed} {number}")
    place.mkdir()
    os.chdir(place)
    folder = Path("input").absolute()
    shutil.copytree(seeds / kind, folder)
    others = sorted(path for path in seeds.rglob("*") if path.is_file())
    path, done = mutate(folder, draw, others)
    readers = KINDS[kind]
    index = draw.randrange(len(readers))
    print(ascii(f"{path.relative_to(place)}: {done:.300}; reader {index}"))
    if draw.random() < 0.02:
        path = folder = folder / draw.choice(NAMES)
    socket.socket.connect = _no_network  # type: ignore[assignment]
    Image.MAX_IMAGE_PIXELS = 10**8
    before, writes = _state(place), readers[index].__name__ in WRITING
    refused = False
    try:
        readers[index](folder, path, seeds)
    except TranspikeError as error:
        refused = True
        traceback.print_exc()
        message = str(error).replace(str(path), "PATH").replace(str(folder), "FOLDER")
        lines = "\n" in message and "cannot be converted:\n" not in message  # which names every place on a line
        if not message.strip() or lines or len(message) > 2000 or "Traceback" in message:
            raise Fault("message", repr(message[:3000])) from None
    if Path(CANARY).exists():
        raise Fault("ran code")
    now = _state(place)
    if changed := [name for name in before if before[name] != now.get(name) and not (writes and not refused)]:
        raise Fault("changed", ", ".join(changed))
    if refused:
        raise Fault("error")


def _read_whole(home: Path) -> int:
    """Read whole files by every reader, else the fuzzer tests nothing; gives how many do not end as they should."""
    wrong = 0
    for kind, readers in KINDS.items():
        for index, reader in enumerate(dict.fromkeys(readers)):
            place, log = home / f"{kind}{index}", home / f"{kind}{index}.txt"
            outcome, peak = _forked(lambda: _try_whole(kind, reader, place, home / "seeds"), log)  # noqa: B023
            refuses = kind == "cifar" or reader.__name__ in REFUSING
            print(f"{kind:14} {reader.__name__:16} {outcome}, {peak / 2**20:.0f} MiB", flush=True)
            if outcome != ("error" if refuses else "success"):
                wrong += 1
                print(_last_lines(log))
    return wrong


def _try_whole(kind: str, reader: Reader, place: Path, seeds: Path) -> None:
    shutil.copytree(seeds / kind, place)
    os.chdir(place)
    try:
        paths = sorted(path for path in place.rglob("*") if path.is_file())
        for path in paths if reader.__name__ in BY_FILE else paths[-2:-1]:  # of weights: state.pt
            reader(place, path, seeds)
    except TranspikeError:
        traceback.print_exc()
        raise Fault("error") from None


class Fault(Exception):
    """How an input ended, where it did not succeed."""


def _no_network(*_: object) -> None:
    raise OSError("there is no network here")


def _state(place: Path) -> dict[str, tuple[int, int, int]]:
    """Of every file its size, time and number: what writes to it, or replaces it, changes one of these."""
    told = {}
    for folder, _, names in os.walk(place):
        for name in names:
            facts = os.lstat(os.path.join(folder, name))
            if facts.st_size:  # of an empty file nothing can be lost
                told[os.path.join(folder, name)] = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return told


def _forked(work: Callable[[], None], log: Path) -> tuple[str, int]:
    """Do something in a process of its own; gives how it ended, and the memory that it took in bytes."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _in_child(work, log)
    end, peak, status = time.monotonic() + ASLEEP, 0, 0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        peak = max(peak, _memory(child))
        if peak > MEMORY or _seconds(child) > SECONDS or time.monotonic() > end:
            _end_group(child)
            os.waitpid(child, 0)
            return ("memory" if peak > MEMORY else "hang"), peak
        time.sleep(0.005)
    _end_group(child)
    code = os.waitstatus_to_exitcode(status)
    return (OUTCOMES[code] if 0 <= code < len(OUTCOMES) else "traceback"), peak


def _in_child(work: Callable[[], None], log: Path) -> None:
    outcome = "traceback"
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        faulthandler.register(signal.SIGPROF, file=sys.__stderr__)  # type: ignore[arg-type]
        signal.setitimer(signal.ITIMER_PROF, SECONDS * 0.9)
        faulthandler.dump_traceback_later(ASLEEP * 0.9, file=sys.__stderr__)  # type: ignore[arg-type]
        work()
        outcome = "success"
    except Fault as fault:
        outcome = fault.args[0]
        if outcome != "error":
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(OUTCOMES.index(outcome))


def _memory(process: int) -> int:
    try:
        with open(f"/proc/{process}/status") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def _seconds(process: int) -> float:
    """Its processor time."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def _end_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line:.300}" for line in [*lines[:1], "...", *lines[-12:]])


def _keep(place: Path, log: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(log, target / "log.txt")
    for path in (place / "input").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**24:
            copy = target / path.relative_to(place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def _print_table(tally: Counter[tuple[str, str]], seconds: float) -> None:
    kinds = [kind for kind in KINDS if any(kind == name for name, _ in tally)]
    columns = ("inputs", *OUTCOMES)
    print(f"{'':14}" + "".join(f"{name:>10}" for name in columns))
    for kind in [*kinds, "all"]:
        numbers = [sum(n for (k, o), n in tally.items() if kind in (k, "all") and o == name) for name in OUTCOMES]
        print(f"{kind:14}" + "".join(f"{number:>10}" for number in (sum(numbers), *numbers)))
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
