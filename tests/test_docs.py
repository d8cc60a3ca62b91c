"""What the documentation shows, runs: docstring examples, the README's and docs' Python blocks, examples/."""

from __future__ import annotations

import doctest
import os
import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTED = [page for page in PAGES if page.exists() and "```python" in page.read_text(encoding="utf-8")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples may write files: not into the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    failed, tried = doctest.testmod(
        import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
    )
    assert tried and not failed


@pytest.mark.parametrize("page", SCRIPTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks(page: Path) -> None:
    """A page's blocks run in order as one script."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    scope: dict[str, object] = {"__name__": "__main__"}  # dataclasses look their module up
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_examples(script: Path) -> None:
    runpy.run_path(str(script), run_name="__main__")


def test_pages_name_no_missing_file() -> None:
    """Every relative link and picture of the README and docs leads to a file of the repository."""
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not os.path.exists(page.parent / link):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken
