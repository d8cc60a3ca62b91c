"""Wrong command lines and configuration files: one line that names file, option and what would be right."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml

from transpike import cli
from transpike.checks import number
from transpike.errors import ConfigError
from transpike.files.yaml import load_yaml


@dataclass(frozen=True)
class Optim:
    """How to step.

    Attributes:
        lr: how far.
        name: by which rule.
    """

    lr: float = 0.1
    name: Literal["sgd", "adamw"] = "sgd"

    def __post_init__(self) -> None:
        number("optim.lr", self.lr, above=0)


Wrong = Callable[..., str]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Wrong:
    """Run `transpike demo` with another verb behind it and wrong arguments; gives the one line that it says."""

    @dataclass(frozen=True)
    class Demo:
        """Do something."""

        model: str
        data: str = "digits"
        _: KW_ONLY
        steps: list[int] | int = 8
        share: float = 0.5
        keep: Literal["last", "best"] = "last"
        network: dict[str, Any] | None = None
        paths: list[Path] | Path = Path()
        optim: Optim = Optim()
        download: bool = False
        json: Path | None = None

    def demo(options: Demo) -> None:
        number("share", options.share, least=0)
        if "widht" in (options.network or {}):
            raise ConfigError("mlp takes no 'widht'. Did you mean width?")

    module = ModuleType("transpike.experiments.demo")
    module.demo, module.Demo = demo, Demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, verb: tuple[str, ...] = ("demo",), code: int = 2) -> str:
        assert cli.main([*verb, *arguments]) == code
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == (code != 0)
        return said.err.removeprefix("transpike: ").strip()

    return call


SEE = "See `transpike demo --help`."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--stepz", "3"], "--stepz is no option of `transpike demo`. Did you mean --steps?"),
        (["x", "--optim.lrr=3"], "--optim.lrr is no option of `transpike demo`. Did you mean --optim.lr?"),
        (["x", "--zzz", "3"], f"--zzz is no option of `transpike demo`. {SEE}"),
        (["x", "--share.part", "3"], "--share.part is no option of `transpike demo`. Did you mean --share?"),
        (["x", "--steps", "many"], "--steps many: expected a list of whole numbers, such as 4,6,8, or a whole number."),
        (["x", "--steps", "4,b"], "--steps 4,b: expected a list of whole numbers, such as 4,6,8, or a whole number."),
        (["x", "--share=half"], "--share half: expected a number."),
        (["x", "--shar", "1"], "--shar is no option of `transpike demo`. Did you mean --share?"),
        (["x", "--share", "1", "--share", "half"], "--share half: expected a number."),
        (["x", "--keep", "lasst"], "--keep lasst: expected 'last' or 'best'. Did you mean 'last'?"),
        (["x", "--optim.name", "adam"], "--optim.name adam: expected 'sgd' or 'adamw'. Did you mean 'adamw'?"),
        (["x", "--optim", "3"], "--optim 3: expected options of its own, such as --optim.lr."),
        (["x", "--network", "[1]"], '--network [1]: expected names with values, such as {"width": 8}.'),
        (["x", "--network", '{"width": 8'], '--network {"width": 8: expected names with values, such as {"width": 8}.'),
        (["x", "--download", "maybe"], "--download maybe: expected true or false."),
        (["x", "--download"], "--download: give true or false after it."),
        (["x", "--steps"], "--steps: give a list of whole numbers, such as 4,6,8, or a whole number after it."),
        (["x", "y", "z"], "'y': `transpike demo` takes no argument at this place. Give options by name, such as "
         "--data y."),
        ([], f"`transpike demo` needs MODEL. {SEE}"),
        (["x", "--optim.lr", "-1"], "optim.lr=-1.0: expected a number above 0."),
        (["x", "--share", "-1"], "share=-1.0: expected a number of at least 0."),
        (["x", "--share", "nan"], "--share nan: expected a number."),
        (["x", "--share", "1" + "0" * 5000], None),
        (["x", "--network", "[" * 60_000], None),
        (["x", "--json", "run.json"], "run.json: already exists and is not a copy of results of transpike; name "
         "another place."),
        (["x", "--json", "."], "cannot write .: it is a folder. Name a file in it."),
    ],
)  # fmt: skip
def test_a_wrong_flag(wrong: Wrong, arguments: list[str], said: str | None) -> None:
    Path("run.json").write_text('{"verb": "train"}')
    line = wrong(*arguments)
    assert line == said if said is not None else len(line) < 200


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("dmo", f"no command 'dmo'. Did you mean demo? Choose from {', '.join(cli.VERBS)}."),
        ("zzz", f"no command 'zzz'. Choose from {', '.join(cli.VERBS)}."),
        ("--verson", "no option '--verson'. Did you mean --version? Choose from --help, --version."),
    ],
)  # fmt: skip
def test_a_wrong_verb(wrong: Wrong, verb: str, said: str) -> None:
    assert wrong(verb=(verb,)) == said


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stepz: 3", "x.yaml: stepz is no option of `transpike demo`. Did you mean steps?"),
        ("zzz: 3", f"x.yaml: zzz is no option of `transpike demo`. {SEE}"),
        ("optim:\n  lrr: 3", "x.yaml: optim.lrr is no option of `transpike demo`. Did you mean optim.lr?"),
        ("3: 3", f"x.yaml: 3 is no option of `transpike demo`. {SEE}"),
        ("steps: many", "x.yaml: steps='many': expected a list of whole numbers, such as 4,6,8, or a whole number."),
        ("optim: {lr: x}", "x.yaml: optim.lr='x': expected a number."),
        ("optim: {name: adam}", "x.yaml: optim.name='adam': expected 'sgd' or 'adamw'. Did you mean 'adamw'?"),
        ("optim: null", "x.yaml: optim=None: expected options of its own, such as --optim.lr."),
        ("data: null", "x.yaml: data=None: expected text."),
        ("optim: {lr: null}", "x.yaml: optim.lr=None: expected a number."),
        ("optim: 3", "x.yaml: optim=3: expected options of its own, such as --optim.lr."),
        ("network: [1]", 'x.yaml: network=[1]: expected names with values, such as {"width": 8}.'),
        ("optim: {lr: -1}", "x.yaml: optim.lr=-1.0: expected a number above 0."),
        ("share: -1", "x.yaml: share=-1.0: expected a number of at least 0."),
        ("share: 2020-13-45", "x.yaml: share='2020-13-45': expected a number."),
        ("a: [1\nb: 2", "x.yaml: line 2: did not find expected ',' or ']'."),
        ("share: !!python/object/apply:os.system [id]", "x.yaml: line 1: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/object/apply:os.system'."),
        ("share: !!timestamp 2", "x.yaml: a value cannot be read ('NoneType' object has no attribute 'groupdict')."),
        ("share: !!bool 2", "x.yaml: a value cannot be read ('2')."),
        ("- 1", "x.yaml: expected options with values, one per line, such as `epochs: 20`."),
        ("", "x.yaml: expected options with values, one per line, such as `epochs: 20`."),
        (b"model: caf\xe9", "x.yaml: damaged: not UTF-8 at byte 10."),
        (BOMB, "x.yaml: holds more than 100,000 values, with those that it refers to."),
        ("network: &a {b: *a}", "x.yaml: *a refers to a value that contains it."),
        ("network: " + "[" * 61 + "]" * 61, "x.yaml: nested deeper than 60."),
        ("network: " + "[" * 100_000, None),
        ("steps: 1" + "0" * 5000, None),
        ("#" * (2**20 + 1), "x.yaml: larger than 1 MiB."),
    ],
    ids=range(28),
)  # fmt: skip
def test_a_wrong_configuration_file(wrong: Wrong, content: str | bytes, said: str | None) -> None:
    Path("x.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    for flag in (["--config", "x.yaml"], ["--config=x.yaml"]):
        line = wrong("x", *flag)
        assert line == said if said is not None else line.startswith("x.yaml: ") and len(line) < 300


def test_the_file_that_is_named_is_the_one_the_value_is_from(wrong: Wrong) -> None:
    Path("first.yaml").write_text("share: -1")
    Path("second.yaml").write_text("share: -2")
    configs = ["--config", "first.yaml", "--config", "second.yaml"]
    assert wrong("x", *configs, "--keep", "last") == "second.yaml: share=-2.0: expected a number of at least 0."
    assert wrong("x", *configs, "--keep", "last", "--share=-3") == "share=-3.0: expected a number of at least 0."
    Path("first.yaml").write_text("keep: lasst")
    assert (
        wrong("x", *configs, "--keep", "last")
        == "first.yaml: keep='lasst': expected 'last' or 'best'. Did you mean 'last'?"
    )


def test_a_wrong_key_is_found_in_the_file_of_several_that_has_it(wrong: Wrong) -> None:
    Path("protocol.yaml").write_text("share: 1\noptim:\n  lr: 0.5\nnetwork:\n  width: 8")
    Path("row.yaml").write_text("optim:\n  lrr: 3")
    files = ["x", "--config", "protocol.yaml", "--config", "row.yaml"]
    assert wrong(*files) == "row.yaml: optim.lrr is no option of `transpike demo`. Did you mean optim.lr?"
    assert wrong("x", *files[3:], *files[1:3]) == wrong(*files)
    Path("row.yaml").write_text("network:\n  widht: 8")
    assert wrong(*files) == "row.yaml: network.widht: mlp takes no 'widht'. Did you mean width?"
    assert wrong(*files, "--network", '{"widht": 8}') == "mlp takes no 'widht'. Did you mean width?"


def test_files_that_are_none(wrong: Wrong) -> None:
    os.mkfifo("pipe.yaml")
    for name, said in [
        ("none.yaml", "none.yaml: no such file or folder. Check the path."),
        ("pipe.yaml", "pipe.yaml: a pipe, a device or a folder, not a file."),
        ("/dev/zero", "/dev/zero: a pipe, a device or a folder, not a file."),
        (".", ".: a pipe, a device or a folder, not a file."),
        ("x" * 300, f"{'x' * 300}: its name is too long. Name a shorter one."),
    ]:
        assert wrong("x", "--config", name) == said


def test_what_is_right_is_still_right(wrong: Wrong) -> None:
    Path("x.yaml").write_text("optim.lr: 1e-3\nshare: 1\nsteps: 4\nnetwork: {width: 8, deep: {er: 1}}\npaths: [a, b]")
    for arguments in (
        ["x", "--config", "x.yaml"],
        ["x", "--config", '{"steps": [4, 6]}'],
        ["x", "--network.width", "8", "--network.deeper", "1"],
        ["x", "--share", "1", "--steps", "4,6"],
        ["--share", "1", "x"],
    ):
        assert wrong(*arguments, code=0) == ""


def test_yaml_is_read_as_before() -> None:
    read = load_yaml("a: 1e-3\nb: yes\nc: [4, 8]\nd: &x {e: 1}\nf: *x\ng: 2020-01-01\n")
    assert read == {"a": 0.001, "b": read["b"], "c": [4, 8], "d": {"e": 1}, "f": {"e": 1}, "g": "2020-01-01"}
    with pytest.raises(yaml.YAMLError, match="longer than 1,048,576 characters"):
        load_yaml(" " * (2**20 + 1))


def test_whatever_a_function_says_is_the_users_fault_stays_of_its_class() -> None:
    with pytest.raises(ConfigError):
        cli._run("zzz", [])
