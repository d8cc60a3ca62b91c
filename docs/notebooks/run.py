"""Run the notebooks and store their outputs in them.

    python docs/notebooks/run.py            # all of them, in some minutes

Needs nbclient and ipykernel. What a notebook writes goes to a folder that is removed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs, run in a folder; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which change with every run
        if "outputs" in cell:  # without rich's warning, which names a folder of this machine
            cell.outputs = [output for output in cell.outputs if "ipywidgets" not in str(output)]
    return notebook


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder)), path)
        print(f"{path.name}: {path.stat().st_size // 1024} KiB")
