"""The site's own code: examples become code, equations become MathML; pages have their figures and their place."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FIGURES_OF_PAGES = {
    "css": "css",
    "schemes": "schemes",
    "anytime": "anytime",
    "distillation": "bsd",
    "sfkd": "sfkd",
    "dct-snn": "dct",
}


@pytest.fixture
def site() -> Iterator[None]:
    sys.path.insert(0, str(DOCS / "_site"))
    yield
    sys.path.remove(str(DOCS / "_site"))


@pytest.mark.usefixtures("site")
def test_examples_become_code() -> None:
    pytest.importorskip("griffe")
    from examples import fenced

    assert fenced("Add.\n\n>>> 1 + 1\n2\n\nMore.") == "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
    assert fenced("Run.\n\nExamples:\n  transpike demo\n") == "Run.\n\nExample:\n  ```bash\n  transpike demo\n  ```"
    assert fenced("Has:\n    Example:\n        >>> 1\n        1").endswith(
        "        ```pycon\n        >>> 1\n        1\n        ```"
    )
    assert fenced("See :class:`~a.B` of :math:`x^2`::\n\n    y = x") == "See `a.B` of $x^2$:\n\n    y = x"
    assert fenced("transpike is no example here.") == "transpike is no example here."


@pytest.mark.usefixtures("site")
def test_equations_become_mathml() -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    from pages import typeset

    inline = typeset('<p>a <span class="arithmatex">\\(x &lt; 1\\)</span></p>')
    assert inline.startswith("<p>a <math") and "<mi>x</mi>" in inline and "arithmatex" not in inline
    block = typeset('<div class="arithmatex">\\[\\sum_t s_t\\]</div>')
    assert 'display="block"' in block and block.startswith('<div class="equation">') and "<msub>" in block


def test_each_page_of_a_method_has_its_figure() -> None:
    drawn = re.findall(r'"(\w+)": \1', (DOCS / "figures" / "make.py").read_text().split("FIGURES", 1)[1])
    assert (
        sorted(drawn)
        == sorted(path.stem for path in (DOCS / "figures").glob("*.svg"))
        == sorted(FIGURES_OF_PAGES.values())
    )
    for page, figure in FIGURES_OF_PAGES.items():
        assert f"](figures/{figure}.svg)" in (DOCS / f"{page}.md").read_text()


@pytest.mark.parametrize("name", ["css", "bsd", "sfkd", "dct"])
def test_a_figure_is_drawn_from_the_library(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    from make import FIGURES, draw

    draw(name, tmp_path)
    drawn = (tmp_path / f"{name}.svg").read_text()
    assert drawn.count("<path") > 5 and FIGURES.keys() == set(FIGURES_OF_PAGES.values())


def test_every_page_has_its_place_and_a_broken_link_is_an_error() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["strict"] and set(site["validation"].values()) == {"warn"}

    def pages(part: object) -> Iterator[str]:
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from [value] if isinstance(value, str) else pages(value)

    assert sorted(pages(site["nav"])) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert [next(iter(part)) for part in site["nav"]][1:5] == ["Tutorials", "How to", "Explanation", "Reference"]


def test_no_page_loads_anything_from_elsewhere() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in site and "://" not in site and "://" not in (DOCS / "_site" / "site.css").read_text()
