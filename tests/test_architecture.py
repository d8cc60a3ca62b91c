"""The floors of docs/architecture.md: who may import whom, and what `import transpike` may not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import transpike

PACKAGE = Path(transpike.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The ground, which every floor may import; within it each may import those before it.
GROUND = ("errors", "checks", "files", "results")

# Floor -> the floors it may import. Every floor may import itself and the ground; the longest name that fits counts.
FLOORS: dict[str, set[str]] = {
    **{name: set(GROUND[:index]) for index, name in enumerate(GROUND)},
    "quantiles": set(),
    "moments": set(),
    "spectral": set(),
    "data": set(),
    "report": set(),
    "neurons.surrogate": set(),
    "neurons.kernels": {"neurons.surrogate"},
    "neurons": {"neurons.surrogate", "neurons.kernels"},
    "coding": {"neurons", "neurons.surrogate", "neurons.kernels", "spectral", "quantiles", "moments"},
    "models": {"neurons", "neurons.surrogate", "neurons.kernels"},
    "metrics": {"coding", "neurons", "neurons.surrogate", "neurons.kernels", "spectral"},
    "distill": {"spectral"},
    "conversion": {"coding", "neurons", "neurons.surrogate", "neurons.kernels", "quantiles", "moments"},
}
FLOORS["export"] = {"conversion", *FLOORS["conversion"]} - {"quantiles"}
FLOORS["train"] = set(FLOORS) - {"report", "export"}
FLOORS["measure"] = set(FLOORS) - {"report", "export"}
FLOORS["experiments"] = set(FLOORS)
FLOORS["arguments"] = set()
FLOORS["cli"] = {"arguments", "experiments"}
FLOORS["__main__"] = {"cli"}


def floor(module: str) -> str:
    """The floor on which `transpike.<module>` stands; '' for the root package."""
    fitting = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    return max(fitting, key=len, default="")


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere, without the leading `transpike.`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports absolutely"
            # `from transpike.neurons import kernels` imports a module too; a plain name adds nothing new.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name.removeprefix("transpike").removeprefix(".") for name in names if name.split(".")[0] == "transpike"
        )


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_every_module_stands_on_a_floor() -> None:
    homeless = [name for name in map(module_name, MODULES) if name and not floor(name)]
    assert not homeless, f"no floor for {homeless}: add one here and to docs/architecture.md"


@pytest.mark.parametrize("path", [path for path in MODULES if module_name(path)], ids=module_name)
def test_imports_go_down(path: Path) -> None:
    name = module_name(path)
    here = floor(name)
    allowed = FLOORS[here] | {here} | (set() if here in GROUND else set(GROUND))
    if here == "cli":
        allowed |= {""}  # the version
    wrong = {target for target in imports(path) if floor(target) not in allowed}
    assert not wrong, f"{name} ({here}) may not import {sorted(wrong)}"


def test_there_is_no_circle() -> None:
    """Not inside packages either, nor by imports within functions or for types alone."""
    names = {module_name(path) for path in MODULES}
    edges = {
        name: {found for target in imports(path) if (found := _module(target, names)) is not None} - {name}
        for path in MODULES
        if (name := module_name(path))
    }
    waiting = dict(edges)
    while free := [name for name, targets in waiting.items() if not targets & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"each of these imports another of them: {sorted(waiting)}"


def _module(target: str, names: set[str]) -> str | None:
    """The module of ours that an import names: `coding.css.CSS` is `coding.css`."""
    while target and target not in names:
        target = target.rpartition(".")[0]
    return target or None


def test_import_is_quick() -> None:
    heavy = ["torch", "torchvision", "timm", "lightning", "matplotlib", "sklearn", "numba", "spikingjelly"]
    code = f"import sys, transpike; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("name", transpike.__all__)
def test_every_name_of_the_root_resolves(name: str) -> None:
    assert getattr(transpike, name) is not None


def test_the_root_lists_its_names_once() -> None:
    assert set(transpike._HOMES) | {"__version__"} == set(transpike.__all__) <= set(dir(transpike))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = transpike.nothing


def test_convert_is_the_function_even_after_its_package_is_imported() -> None:
    import transpike.conversion

    assert callable(transpike.convert)


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_no_module_hides_a_name_that_loads_on_first_use() -> None:
    """A package's attribute becomes its module of the same name as soon as that is imported."""
    for package in PACKAGE.rglob("__init__.py"):
        text = package.read_text(encoding="utf-8")
        if "def __getattr__" not in text:
            continue
        listed = re.search(r"__all__ = \[(.*?)\]", text, re.DOTALL)
        names = set(re.findall(r'"(\w+)"', listed[1])) if listed else set()
        assert not names & {path.stem for path in package.parent.glob("*.py")}, package


def test_packages_load_on_first_use() -> None:
    code = "import sys, transpike; assert 'torch' not in sys.modules; print(transpike.export.run.__name__)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "run\n"
