"""Checks what the user typed or wrote into a configuration file. A mistake is explained in one line."""

from __future__ import annotations

import re
import types
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser
from yaml import YAMLError

from transpike.checks import listed, near, shown
from transpike.errors import ConfigError, TranspikeError
from transpike.files import read_text
from transpike.files.yaml import LARGEST, first_line, load_yaml

__all__ = ["Arguments"]

ALWAYS = ("config", "help", "print_config")
"""The options of every command."""

WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    dict: 'names with values, such as {"width": 8}',
}

LISTS: dict[object, str] = {
    int: "a list of whole numbers, such as 4,6,8",
    float: "a list of numbers, such as 0.5,0.25",
    Path: "a list of paths, such as runs/a,runs/b",
}


class Arguments:
    """The arguments of one command: its dataclass declares them, and the user sets them.

    Args:
        verb: the command.
        kind: the dataclass of its options.
        words: the words after the verb.

    Raises:
        ConfigError: An option does not exist, or a file cannot be read or is not YAML.
    """

    def __init__(self, verb: str, kind: type, words: Sequence[str]) -> None:
        self.verb, self.words = verb, list(words)
        self.types = dict(_flat({name: hint for name, hint in get_type_hints(kind).items() if hint is not KW_ONLY}))
        parameters = signature(kind).parameters.values()
        self.required = [each.name for each in parameters if each.default is Parameter.empty]
        self.files: dict[str, Mapping[Any, Any]] = {}
        for word in self.words:
            flag = word.partition("=")[0]
            if flag.startswith("--") and not self._knows(flag[2:]):
                names = [f"--{name}" for name in self.types]
                raise ConfigError(f"{flag} is no option of `transpike {verb}`.{near(flag, names) or self._see()}")
        for path in self._values("config"):
            self._read(path)

    def parse(self, parser: ArgumentParser) -> dict[str, Any]:
        """Return the values of the dataclass's fields.

        Raises:
            ConfigError: A value has a wrong type or is out of range. The message names the option and, if the value
                comes from one, the configuration file.
        """
        try:
            options = parser.instantiate(parser.parse_args([self.verb, *self.words]))[self.verb]
        except ArgumentError as error:
            raise ConfigError(self._explain(str(error))) from error
        except UnicodeDecodeError as error:
            raise ConfigError("a file that an option names is not UTF-8 text.") from error
        except RecursionError as error:
            raise ConfigError("the value of an option is nested too deeply.") from error
        return {name: value for name, value in options.items() if name != "config"}

    def located(self, error: TranspikeError) -> TranspikeError:
        """Return an error preceded by the configuration file of the wrong value, if it comes from one.

        The error begins with the option's name, or quotes an entry of an option that takes any names.
        """
        name = str(error).partition("=")[0]
        fitting = [each for each in self.types if each == name or each.endswith(f".{name}")]
        path = next(filter(None, map(self._file, fitting)), None)
        place = path or self._entry(str(error))
        return type(error)(f"{place}: {error}") if place else error

    def _entry(self, message: str) -> str | None:
        """Return the configuration file and the entry, such as `a.yaml: network.width`, that a message quotes."""
        for name, hint in self.types.items():
            path = self._file(name) if any(get_origin(each) is dict for each in _members(hint)) else None
            entries = _within(self.files[path], name) if path else None
            for entry in entries if isinstance(entries, Mapping) else ():
                if f"'{entry}'" in message:
                    return f"{path}: {name}.{entry}"
        return None

    def _explain(self, message: str) -> str:
        """Return a message of the parser as one line in our words."""
        if match := re.search(r"unrecognized arguments: (.*)", message, re.DOTALL):
            word = match[1].split()[0]
            first = next(name for name in self.types if name not in self.required)
            return (
                f"{word!r}: `transpike {self.verb}` takes no argument at this place. Give options by name, such as "
                f"--{first} {word}."
            )
        if match := re.search(r"arguments are required: ([\w., ]+)", message):
            names = [name.strip().removeprefix(f"{self.verb}.") for name in match[1].split(",")]
            return f"`transpike {self.verb}` needs {' and '.join(names).upper()}.{self._see()}"
        if match := re.search(r"argument --([\w.]+)\S*: expected", message):
            return f"--{match[1]}: give {self._expected(match[1])} after it."
        if match := re.search(r'(?:Parser key|Option|option) ["\']([\w.]+)["\']', message):
            name = match[1].removeprefix(f"{self.verb}.")
            if name in self.types:
                return self._wrong(name, message)
        return " ".join(message.split())

    def _wrong(self, name: str, message: str) -> str:
        """Return what is wrong with an option's value, and its place. Of several values, it is the named one."""
        candidates: list[tuple[str, object]] = [
            (f"--{name} {_short(value)}", value) for value in reversed(self._values(name))
        ]
        for path, content in reversed(self.files.items()):
            if (value := _within(content, name)) is not None:
                candidates.append((f"{path}: {name}={shown(value)}", value))
        named = re.findall(r"value: (.*)", message)
        first = candidates[0] if candidates else (f"--{name}", None)
        where, value = next((each for each in candidates if str(each[1]) in named), first)
        choices = [repr(each) for part in _members(self.types[name]) for each in _choices(part)]
        guess = near(repr(value), choices) if isinstance(value, str) else ""
        return f"{where}: expected {self._expected(name)}.{guess}"

    def _expected(self, name: str) -> str:
        inner = [each for each in self.types if each.startswith(f"{name}.")]
        if inner:
            return f"options of its own, such as --{inner[0]}"
        return _words(self.types.get(name, str))

    def _see(self) -> str:
        return f" See `transpike {self.verb} --help`."

    def _knows(self, name: str) -> bool:
        """Whether this is an option, or an entry of an option that takes any names."""
        if name in ("", *self.types, *ALWAYS):
            return True
        outer = name
        while "." in outer:
            outer = outer.rpartition(".")[0]
            if outer in self.types:
                return name.endswith(".help") or any(get_origin(each) is dict for each in _members(self.types[outer]))
        return False

    def _values(self, name: str) -> list[str]:
        """Return the values of an option on the command line."""
        values = []
        for index, word in enumerate(self.words):
            flag, equals, value = word.partition("=")
            if flag == f"--{name}":
                values += [value] if equals else self.words[index + 1 : index + 2]
        return values

    def _file(self, name: str) -> str | None:
        """Return the configuration file of an option's value, or None if it comes from the command line."""
        if self._values(name):
            return None
        for path, content in reversed(self.files.items()):
            if _within(content, name) is not None:
                return path
        return None

    def _read(self, path: str) -> None:
        """Read a configuration file, or the text in its place, and check that all names exist."""
        if path.lstrip().startswith("{"):
            text, path = path, "--config"
        else:
            text = read_text(Path(path), error=ConfigError, largest=LARGEST)
        try:
            content = load_yaml(text)
        except YAMLError as error:
            raise ConfigError(f"{path}: {first_line(error)}") from error
        if not isinstance(content, Mapping):
            raise ConfigError(f"{path}: expected options with values, one per line, such as `epochs: 20`.")
        self.files[path] = content
        for name in self._names(path, content):
            if not self._knows_fully(name):
                raise ConfigError(
                    f"{path}: {name} is no option of `transpike {self.verb}`.{near(name, self.types) or self._see()}"
                )
            if _within(content, name) is None and name in self.types and not self._optional(name):
                raise ConfigError(f"{path}: {name}=None: expected {self._expected(name)}.")

    def _names(self, path: str, content: Mapping[Any, Any], outer: str = "") -> Iterator[str]:
        """Yield the full names of the options that a configuration file sets."""
        for name, value in content.items():
            whole = f"{outer}{name}"
            inner = any(each.startswith(f"{whole}.") for each in self.types)
            if inner and isinstance(value, Mapping):
                yield from self._names(path, value, f"{whole}.")
            elif inner and not isinstance(value, str) and not (value is None and self._optional(whole)):
                raise ConfigError(f"{path}: {whole}={shown(value)}: expected {self._expected(whole)}.")
            else:
                yield whole

    def _optional(self, name: str) -> bool:
        return type(None) in _members(self.types.get(name))

    def _knows_fully(self, name: str) -> bool:
        return name in self.types or ("." in name and self._knows(name) and not name.endswith(".help"))


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def _flat(hints: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the types of options by name. Options inside dataclasses have names with dots."""
    for name, hint in hints.items():
        if name == "return":
            continue
        yield f"{outer}{name}", hint
        for member in _members(hint):
            if isinstance(member, type) and is_dataclass(member):
                inner = get_type_hints(member)
                yield from _flat(
                    {each.name: inner[each.name] for each in fields(member) if each.init}, f"{outer}{name}."
                )


def _within(content: Mapping[Any, Any], name: str) -> object:
    """Return an option's value in a configuration file, or None. Its name may be one key or nested keys."""
    entry: object = content
    for part in name.split("."):
        entry = entry.get(part) if isinstance(entry, Mapping) else None
    return content.get(name) if entry is None else entry


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _words(hint: Any) -> str:
    """Return a type in words for the user.

    Example:
        >>> _words(list[int] | int | None), _words(Literal["last", "best"])
        ('a list of whole numbers, such as 4,6,8, or a whole number', "'last' or 'best'")
    """
    words: list[str] = []
    for member in _members(hint):
        if choices := _choices(member):
            words.append(listed([repr(each) for each in choices]))
        elif get_origin(member) in (list, tuple):
            plural = WORDS.get(get_args(member)[0], "values").removeprefix("a ")
            words.append(
                f"a list of {plural}s, such as {'4,6,8' if 'number' in plural else 'a,b'}".replace("texts", "names")
            )
        elif member is not type(None):
            words.append(WORDS.get(get_origin(member) or member, "another value"))
    return ", or ".join(words) if len(words) == 2 and "," in words[0] else listed(words)
