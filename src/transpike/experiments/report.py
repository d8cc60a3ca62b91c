"""``transpike report``: from the folders of runs to one HTML page."""

from __future__ import annotations

from pathlib import Path

__all__ = ["report"]


def report(folders: list[Path] | Path, out: Path = Path("report.html"), title: str = "transpike report") -> None:
    """Turn one or several result folders into one self-contained HTML page.

    The page holds tables and plots (accuracy against T and latency, error and firing by layer, energy) and where
    each number comes from. It loads nothing from elsewhere: open it in any browser, or send it as one file.

    Example: transpike report runs/ternary,runs/levels --out comparison.html

    Args:
        folders: Folders that `transpike demo`, `train`, `convert`, `distill`, `hybrid`, `analyze` or `evaluate` wrote;
            conversions are compared with each other, and so are runs behind an input encoder.
        out: The page to write; an existing one is replaced.
        title: The page's title.

    Raises:
        DataError: A folder has no results.json, or one that is damaged, foreign or of another version.
        ConfigError: No folder is given, or the page cannot be written.
    """
    from transpike.report import write_report

    print(f"Report: {write_report(folders if isinstance(folders, list) else [folders], out, title=title)}")
