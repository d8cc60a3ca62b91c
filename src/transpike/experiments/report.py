"""``transpike report``: turns the folders of runs into one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transpike.experiments.options import Paths
from transpike.report import write_report

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report(Paths):
    """Turn one or several result folders into one HTML page.

    The page holds tables and plots (accuracy against T and latency, error and firing of each layer, energy), and shows
    the source of each number. It loads nothing from other places. You can open it in any browser, or send it as one
    file.

    Example:
      transpike report runs/ternary,runs/levels --out comparison.html

    Attributes:
        folders: Folders that `transpike demo`, `train`, `convert`, `compare`, `finetune`, `distill`, `hybrid`,
            `evaluate`, `analyze` or `study` wrote. The page compares conversions with each other. It also compares the
            runs that have an input encoder with each other.
        out: The page to write. If an earlier page of the same folders is there, the command replaces it. It never
            replaces a file that is not a page of transpike.
        title: The page's title.
    """

    folders: list[Path] | Path
    out: Path = Path("report.html")
    title: str = "transpike report"


def report(options: Report) -> Path:
    """Write the page.

    Returns:
        Its path.

    Raises:
        DataError: A folder has no results.json, or one that is damaged, of another origin or of another version.
        ConfigError: There is no folder, or the page cannot be written.
    """
    folders = options.folders if isinstance(options.folders, list) else [options.folders]
    page = write_report(folders, options.out, title=options.title)
    print(f"Report: {page}")
    return page
