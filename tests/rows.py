"""The commands of docs/rows.md and of the headers of configs/, as the command line takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transpike.cli import _underscored, _verb, build_parser

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PAGE = ROOT / "docs" / "rows.md"
COMMAND = re.compile(r"(?:torchrun .*?)?transpike (\w+)\b(.*)")


class Command(NamedTuple):
    """A command by what names it: its row, or the file in whose header it stands."""

    name: str
    verb: str
    arguments: tuple[str, ...]

    @property
    def options(self) -> Any:
        """What the parser makes of it."""
        return parse(self.verb, *self.arguments)

    @property
    def files(self) -> list[str]:
        """Its configuration files, as `bsd/short`."""
        return [
            str(Path(each).relative_to(CONFIGS).with_suffix("")) for each in self.arguments if each.endswith("yaml")
        ]


def command(name: str, line: str) -> Command:
    """A line of a page, with configuration files that are found from anywhere."""
    verb, rest = COMMAND.fullmatch(line.strip()).groups()  # type: ignore[union-attr]
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in shlex.split(rest)]
    return Command(name, verb, tuple(map(_underscored, words)))


@cache
def parser_of(verb: str) -> Any:
    return build_parser(verb)


@cache
def parse(verb: str, *arguments: str) -> Any:
    """The verb's options, as its function takes them."""
    read = parser_of(verb).instantiate(parser_of(verb).parse_args([verb, *arguments]))[verb]
    return _verb(verb)[1](**{name: value for name, value in vars(read).items() if name != "config"})


def tables() -> Iterator[tuple[str, list[str], list[Command]]]:
    """Each section of the page: its title, the names of its table's rows, the commands below."""
    for section in re.split(r"^#{2,3} ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        rows = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[2:]
        found = re.findall(
            r"^# (.*)\n(.*)$", "".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL)), re.MULTILINE
        )
        yield title, rows, [command(name, line) for name, line in found]


def headers() -> Iterator[Command]:
    """The commands in the headers of the configuration files."""
    for path in FILES:
        for line in re.findall(r"^#   (.*transpike \w+ .*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield command(str(path.relative_to(CONFIGS).with_suffix("")), line)


ROWS = [each for _, _, found in tables() for each in found]
COMMANDS = list({(each.verb, each.arguments): each for each in (*headers(), *ROWS)}.values())
