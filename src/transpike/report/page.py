"""One self-contained HTML page from result files: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transpike import files
from transpike.errors import ConfigError
from transpike.report.encoding import compare_encodings
from transpike.report.plots import DARK, LIGHT
from transpike.report.results import FAITHFUL, Result, check_result, find_series, read_result
from transpike.report.sections import LAYER_COLUMNS, ROW_COLUMNS, SECTIONS, compare

__all__ = ["build_page", "write_report"]

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

PAGE = files.marked("a page of transpike", '<meta name="generator" content="transpike">')
"""What of the files that lie there a new page replaces."""


def write_report(folders: Sequence[Path], out: Path, *, title: str = "transpike report") -> Path:
    """Write the page of one or several run folders to `out`, whole or not at all, and return `out`.

    Raises:
        DataError: a folder has no results.json, or one that is damaged, foreign or of another version.
        ConfigError: no folder is given, `out` cannot be written, or it is a file but no page of ours.
    """
    files.check_target(out, PAGE)
    return files.write(out, build_page([read_result(Path(folder)) for folder in folders], title=title), kind=PAGE)


def build_page(results: Sequence[Result], *, title: str = "transpike report") -> str:
    """The report of one or several results as a self-contained HTML page.

    Args:
        results: contents of results.json files, each optionally with its run.json under "run" and its folder's
            name under "folder". Several conversions are also compared with each other.
        title: the page's title; like every other text it is escaped.

    Raises:
        ConfigError: there is no result.
        DataError: a result is of an unknown kind or another version, or lacks what the page shows.

    >>> epochs = [{"epoch": 1, "loss": 0.9, "train_accuracy": 0.7, "validation_accuracy": 0.6}]
    >>> result = {"kind": "training", "version": 1, "model": "resnet20", "dataset": "digits", "epochs": epochs}
    >>> "<h2>resnet20 on digits: 1 epoch.</h2>" in build_page([result])
    True
    """
    if not results:
        raise ConfigError("no result to report: give at least one folder with a results.json.")
    for number, result in enumerate(results):
        check_result(result, where=str(result.get("folder", f"results[{number}]")), kinds=SECTIONS)
    conversions = [result for result in results if result["kind"] == "conversion"]
    curves = find_series(conversions)
    unread = iter(curves)
    encoded = [result for result in results if "encoding" in result]
    sections = [(compare_encodings(encoded), list[tuple[str, str]]())] if len(encoded) > 1 else []
    for number, result in enumerate(results):
        # Alone, a result's series need fewer words to be told apart than among all others, but keep their colours.
        own = (
            [replace(alone, index=one.index) for alone, one in zip(find_series([result])[0], next(unread), strict=True)]
            if result["kind"] == "conversion"
            else []
        )
        sections.append((SECTIONS[result["kind"]](result, own, f"r{number}"), _provenance(result)))
    return ENVIRONMENT.get_template("template.html").render(
        title=title,
        sections=sections,
        joint=compare(conversions, curves) if len(conversions) > 1 else None,
        conversions=len(conversions),
        faithful=FAITHFUL,
        row_columns=ROW_COLUMNS,
        layer_columns=LAYER_COLUMNS,
        light=LIGHT,
        dark=DARK,
        version=version("transpike"),
    )


def _provenance(result: Result) -> list[tuple[str, str]]:
    run = {"folder": result.get("folder"), **(result.get("run") or {})}
    if isinstance(command := run.get("command"), list):
        run["command"] = shlex.join(map(str, command))
    return [(str(name), _flat(value)) for name, value in run.items() if value not in (None, "", {}, [])]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items() if item not in (None, "", {}, []))
    if isinstance(value, list):
        return " ".join(_flat(item) for item in value)
    return str(value)
