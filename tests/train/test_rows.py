"""docs/rows.md: every row of the papers is one command, and every configuration file takes part in one."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.rows import COMMANDS, CONFIGS, FILES, ROOT, ROWS, Command, command, headers, parser_of, tables

from transpike.arguments import Arguments
from transpike.cli import VERBS, _verb

PAPERS = ("bsd", "css", "dct", "sfkd")


def test_the_files_are_few_and_one_of_each_paper_is_for_a_small_machine() -> None:
    assert len(FILES) <= 45
    assert {path.parent.name for path in FILES} == {*PAPERS, "small"} and not list(CONFIGS.glob("*.yaml"))
    assert sorted(path.parent.name for path in FILES if "short" in path.stem) == sorted(PAPERS)


def test_every_file_takes_part_in_a_command_and_shows_one() -> None:
    names = {str(path.relative_to(CONFIGS).with_suffix("")) for path in FILES}
    assert {name for each in COMMANDS for name in each.files} == names
    assert {each.name for each in headers() if each.name in each.files} == names


def test_every_row_of_a_table_has_its_command() -> None:
    listed = 0
    for title, rows, found in tables():
        if rows:
            assert rows == [each.name for each in found], title
            listed += len(rows)
    assert listed >= 90
    assert max(Counter(each.name for each in ROWS).values()) == 1


@pytest.mark.parametrize("each", COMMANDS, ids=lambda each: each.name.replace("/", "-"))
def test_the_command_line_takes_every_command(each: Command) -> None:
    assert each.verb in VERBS
    options = Arguments(each.verb, _verb(each.verb)[1], each.arguments).parse(parser_of(each.verb))
    assert _verb(each.verb)[1](**options)


def test_the_papers_rows_are_all_here() -> None:
    """Of each table: as many rows as the paper's own rows of its method."""
    counted = {title.partition(":")[0]: len(found) for title, _, found in tables()}
    assert counted["Table 1"] == 2 * 4 and counted["Table 2"] == 3  # BSD's come after CSS's
    assert counted["Table 3"] == 1 and counted["Table 4"] == 2 * 4 and counted["Table 5"] == 2 * 6
    assert counted["MNIST, 784-100-10"] == 3 and counted["CIFAR and TinyImageNet"] == 3
    assert counted["Orders of the frequencies, VGG-9 on CIFAR-10"] == 5
    assert sum("CSS" in each.name and "ImageNet" in each.name for each in ROWS) == 3


def test_no_page_names_a_file_that_is_not_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for folder in ("docs", "src", "benchmarks", "examples"):
        pages += (ROOT / folder).rglob("*.[mp][dy]")
    named = {(each, name) for each in pages for name in re.findall(r"configs/[\w/.*-]+", each.read_text("utf-8"))}
    assert len(named) > 30
    assert not [f"{page}: {name}" for page, name in named if not (ROOT / name.rstrip(".")).exists()]


@pytest.mark.parametrize("page", ["commands.md", "tutorials/own-network.md", "tutorials/spiking-student.md"])
def test_the_command_line_takes_what_a_page_shows(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    shown = re.findall(r"^(transpike .*)$|`(transpike [a-z]+ [^`]*)`", text, re.MULTILINE)
    for line in ("".join(each) for each in shown):
        each = command(page, line)
        Arguments(each.verb, _verb(each.verb)[1], each.arguments).parse(parser_of(each.verb))
    assert shown
    if page == "commands.md":
        assert sorted(re.findall(r"^## (\w+):", text, re.MULTILINE)) == sorted(VERBS)
