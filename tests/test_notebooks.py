"""The notebooks run, in little time, and the outputs that are stored in them are theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IN_A_KERNEL = "convert"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSPIKE_EPOCHS", "1")


def test_a_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1] / "src"))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.syspath_prepend(str(FOLDER))
    from run import execute

    cells = execute(FOLDER / f"{IN_A_KERNEL}.ipynb", tmp_path).cells
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ())) >= 1
    sys.modules.pop("run")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != IN_A_KERNEL], ids=lambda path: path.stem)
def test_the_cells_of_the_others_run_in_order(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, because a kernel of its own imports PyTorch and Lightning again."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    with plt.rc_context({"backend": "agg"}):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, str(path), "exec"), scope)
        assert plt.get_fignums()
        plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_small_and_without_errors(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {"display_data"} <= {output.output_type for output in outputs} <= {"display_data", "stream"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert path.stat().st_size < 200_000


def test_there_are_three_and_the_page_lists_them() -> None:
    page = (FOLDER / "index.md").read_text()
    assert len(NOTEBOOKS) == 3 and all(f"({path.name})" in page for path in NOTEBOOKS)
