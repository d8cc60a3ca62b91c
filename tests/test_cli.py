"""The command line: flags, YAML, help and errors; what the verbs do is tested beside them."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

import transpike
from transpike import cli
from transpike.errors import DataError
from transpike.experiments.places import NETWORKS, check_network
from transpike.models import model_names

Call = Callable[..., dict[str, Any]]


class Damaged(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise DataError(f"image {index} is damaged.\nDelete it.")


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `transpike demo` with another function behind it; gives what that was called with."""
    called: dict[str, Any] = {}

    @dataclass(frozen=True)
    class Demo:
        """Do something.

        In a second paragraph:

            transpike demo --steps 4,8

        Attributes:
            data: Where from.
            steps: How many.
            levels: Which.
            batch_size: At once.
            name: Whose.
        """

        data: str = "digits"
        steps: list[int] | int = 8
        levels: tuple[int, ...] = (1,)
        batch_size: int = 64
        name: str | None = None

    def demo(options: Demo) -> None:
        data = options.data
        if data == "damaged":
            raise DataError("data/[x]: damaged. Delete it.")
        if data == "worker":
            list(DataLoader(Damaged(), num_workers=1))
        if data == "loud":
            for _ in range(3):
                print("a line")
        if data == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "runs/events")
        if data == "missing":
            raise FileNotFoundError(errno.ENOENT, "a bug")
        if data == "hint":
            stop = KeyboardInterrupt()
            stop.add_note("Go on so.")
            raise stop
        if data == "slow":
            raise KeyboardInterrupt
        if data == "bug":
            raise ZeroDivisionError
        called.update(asdict(options))

    module = ModuleType("transpike.experiments.demo")
    module.demo, module.Demo = demo, Demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def call(*arguments: str, code: int = 0) -> dict[str, Any]:
        called.clear()
        assert cli.main(["demo", *arguments]) == code
        return dict(called)

    return call


def test_flags_are_the_options_fields(demo: Call) -> None:
    assert demo() == {"data": "digits", "steps": 8, "levels": (1,), "batch_size": 64, "name": None}
    got = demo("--data", "mnist", "--steps", "4,6,8", "--levels=1,2", "--batch-size=32", "--name", "a,b")
    assert got == {"data": "mnist", "steps": [4, 6, 8], "levels": (1, 2), "batch_size": 32, "name": "a,b"}
    assert demo("--steps", "4", "--levels", "1,", "--batch_size", "8")["levels"] == (1,)
    assert demo("--steps", "[4, 6]")["steps"] == [4, 6]


def test_a_yaml_file_sets_them_and_flags_override(demo: Call, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: mnist\nsteps: [4, 6]\nlevels: [1, 2, 4]\n")
    got = demo("--config", str(path), "--steps", "10")
    assert (got["data"], got["steps"], got["levels"]) == ("mnist", 10, (1, 2, 4))


def test_bad_input_is_one_message_and_exit_code_2(demo: Call, capsys: pytest.CaptureFixture[str]) -> None:
    demo("--data", "damaged", code=2)
    assert capsys.readouterr().err == "transpike: data/[x]: damaged. Delete it.\n"
    demo("--data", "worker", code=2)
    assert capsys.readouterr().err == "transpike: image 0 is damaged.\nDelete it.\n"
    demo("--data", "slow", code=130)
    assert capsys.readouterr().err == "transpike: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        demo("--data", "bug")


class Closed(io.StringIO):
    """A pipe whose reader takes one line and goes."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor

    def write(self, text: str) -> int:
        if self.getvalue().count("\n"):
            raise BrokenPipeError
        return super().write(text)


def test_a_closed_pipe_is_no_error() -> None:
    runs = subprocess.Popen(
        [sys.executable, "-m", "transpike", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert runs.stdout is not None and runs.stderr is not None
    runs.stdout.close()
    assert (runs.stderr.read(), runs.wait()) == ("", 0)


def test_after_the_pipe_is_closed_the_command_goes_on(demo: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", Closed(nowhere.fileno()))
        assert demo("--data", "loud")["data"] == "loud"


def test_a_full_disk_that_a_library_meets_is_one_sentence(demo: Call, capsys: pytest.CaptureFixture[str]) -> None:
    demo("--data", "full", code=2)
    said = "no space is left on its disk. Free some, or name a place on another disk."
    assert capsys.readouterr().err == f"transpike: cannot write runs/events: {said}\n"
    with pytest.raises(FileNotFoundError):
        demo("--data", "missing")


def test_what_can_be_gone_on_with_is_said_when_interrupted(demo: Call, capsys: pytest.CaptureFixture[str]) -> None:
    demo("--data", "hint", code=130)
    assert capsys.readouterr().err == "transpike: interrupted\nGo on so.\n"


def test_help_teaches(demo: Call, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert "Do something.\n\nIn a second paragraph:\n\n    transpike demo --steps 4,8\n" in told
    assert "How many. (type: list[int] | int, default: 8)" in " ".join(told.split())


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_verb_all_are_listed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert all(f"    {verb} " in told for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert "--config" in capsys.readouterr().out


def test_the_command_lists_its_verbs_without_loading_torch() -> None:
    code = "import sys; from transpike import cli; cli.build_parser('').format_help(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"transpike {transpike.__version__}\n"


@pytest.mark.parametrize("verb", ["evaluate", "export", "finetune"])
def test_a_wrong_folder_is_told_before_pytorch_is_imported(verb: str, tmp_path: Path) -> None:
    """PyTorch alone takes a second or two."""
    program = f"import sys; from transpike.cli import main; print(main(['{verb}', 'nosuch']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 False\n" and done.stderr.startswith("transpike: nosuch: no ")


@pytest.mark.parametrize("verb", ["convert", "compare", "analyze"])
def test_an_unknown_network_is_told_before_pytorch_is_imported(verb: str, tmp_path: Path) -> None:
    program = f"import sys; from transpike.cli import main; print(main(['{verb}', 'resnet21']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("transpike: no network 'resnet21', nor a folder of that name. Did you mean resnet20")


def test_names_that_may_be_networks_are_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    for name in (*NETWORKS, "run", "run,other", "timm/x", "torchvision/x", "missing.onnx", "Missing.PT2"):
        check_network(name)
    assert model_names() == NETWORKS
