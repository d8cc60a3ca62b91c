"""Builds one self-contained HTML page from result files: without scripts or external files, light and dark."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transpike import files
from transpike.errors import ConfigError
from transpike.report.analysis import describe_analysis
from transpike.report.conversion import ROW_COLUMNS, compare, describe_conversion
from transpike.report.encodings import compare_encodings, encoded_runs
from transpike.report.layers import LAYER_COLUMNS
from transpike.report.parts import Section
from transpike.report.plots import DARK, LIGHT
from transpike.report.rows import check_rows
from transpike.report.series import FAITHFUL, Series, find_series
from transpike.report.study import describe_study
from transpike.report.training import describe_training
from transpike.results import Analysis, Conversion, Findings, Finished, read
from transpike.results.records import to_json

__all__ = ["PAGE", "build_page", "check_outputs", "write_report"]

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

PAGE = files.marked("a page of transpike", '<meta name="generator" content="transpike">')
"""The kind of pages of any runs. The page of a run's own folder replaces one there."""


def write_report(folders: Sequence[Path], out: Path, *, title: str = "transpike report") -> Path:
    """Write the page of one or several run folders to `out`, completely or not at all, and return `out`.

    Raises:
        DataError: A folder has no results.json, or one that is damaged, of another origin or of another version.
        ConfigError: There is no folder, `out` cannot be written, or it is another file than a page of these runs.
    """
    kind = _page_of(folders)
    files.check_target(out, kind)
    return files.write(out, build_page([read(folder) for folder in folders], title=title), kind=kind)


def check_outputs(folder: Path) -> None:
    """Check, before a run's work, that its table of rows and its page can be written into a folder.

    Raises:
        ConfigError: One of them cannot be written, or is another kind of file.
    """
    check_rows(folder / "rows.csv")
    files.check_target(folder / "report.html", PAGE)


def _page_of(folders: Sequence[Path | str]) -> files.Kind:
    """Return the kind of pages of these runs: pages that name the same folders, or lie in a folder of theirs."""
    identity = _identity(folders)
    named = files.marked("", f'<meta name="transpike-runs" content="{identity}">')
    places = [os.path.realpath(folder) for folder in folders]

    def recognises(path: Path) -> bool:
        beside = os.path.realpath(path.parent) in places
        return PAGE.recognises(path) and (beside or named.recognises(path))

    return files.Kind("a page of these runs", recognises)


def _identity(folders: Sequence[Path | str]) -> str:
    """Return the identity of a page: its runs, in any order."""
    places = sorted(os.path.realpath(folder) for folder in folders)
    return hashlib.sha256("\n".join(places).encode(errors="surrogateescape")).hexdigest()[:16]


def build_page(runs: Sequence[Finished], *, title: str = "transpike report") -> str:
    """Build the report of one or several runs as a self-contained HTML page.

    Args:
        runs: each with its result and, if known, how it was started and its folder. Several conversions are also
            compared with each other, and so are several runs with an input encoder.
        title: the page's title. Like every other text it is escaped.

    Raises:
        ConfigError: There is no run.
        DataError: A picture in a result is damaged.

    Example:
        >>> from transpike.results import Evaluation
        >>> tested = Evaluation(model="resnet20", dataset="digits", images=360, accuracy=0.5, loss=0.9)
        >>> "<h2>resnet20 on digits: 50.00 % of the test images right.</h2>" in build_page([Finished(tested)])
        True
    """
    if not runs:
        raise ConfigError("no result to report: give at least one folder with a results.json.")
    conversions = [(run.result, run.folder) for run in runs if isinstance(run.result, Conversion)]
    curves, encoded = find_series(conversions), encoded_runs(runs)
    unread = iter(curves)
    sections = [(compare_encodings(encoded), list[tuple[str, str]]())] if len(encoded) > 1 else []
    sections += [(_section(run, unread, f"r{number}"), _provenance(run)) for number, run in enumerate(runs)]
    return ENVIRONMENT.get_template("template.html").render(
        title=title,
        identity=_identity([run.folder for run in runs if run.folder]),
        sections=sections,
        joint=compare([result for result, _ in conversions], curves) if len(conversions) > 1 else None,
        conversions=len(conversions),
        glossary={term: meaning for result, _ in conversions for term, meaning in result.glossary.items()},
        faithful=FAITHFUL,
        row_columns=ROW_COLUMNS,
        layer_columns=LAYER_COLUMNS,
        light=LIGHT,
        dark=DARK,
        version=version("transpike"),
    )


def _section(run: Finished, curves: Iterator[Sequence[Series]], key: str) -> Section:
    """Return a run's section; for a conversion, with the next of the ``curves``."""
    if isinstance(run.result, Conversion):
        return describe_conversion(run.result, next(curves), key)
    if isinstance(run.result, Analysis):
        return describe_analysis(run.result, key)
    if isinstance(run.result, Findings):
        return describe_study(run.result, key)
    return describe_training(run.result, key)


def _provenance(run: Finished) -> list[tuple[str, str]]:
    facts: dict[str, object] = {"folder": run.folder}
    if run.run is not None:
        facts |= to_json(run.run) | {"command": shlex.join(run.run.command)}
    return [(name, text) for name, value in facts.items() if (text := _flat(value))]


def _flat(value: object) -> str:
    """Return a value in one line. Empty if it is missing."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text}" for name, item in value.items() if (text := _flat(item)))
    if isinstance(value, list):
        return " ".join(map(_flat, value))
    return "" if value is None else str(value)
