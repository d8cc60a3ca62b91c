"""Writes one file: completely or not at all, only over a file of the same kind."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from transpike.errors import ConfigError, TranspikeError
from transpike.files.changes import settle
from transpike.files.json import dumps
from transpike.files.kinds import Kind, check_kind, marked
from transpike.files.partial import WAIT, Content, Partial, explained, sync, target_of, tidy

__all__ = ["check_target", "csv_table", "write", "write_csv", "write_json"]


def write(path: Path | str, content: Content, *, kind: Kind, error: type[TranspikeError] = ConfigError) -> Path:
    """Write a file, completely or not at all.

    It is written beside its place and then moved. A link is followed to its target. Devices and pipes, such as
    /dev/stdout, are written directly. Leftovers of killed writers of the same file are removed.

    Args:
        path: the file. Missing folders are created.
        content: text, bytes, or a function that writes to a given path.
        kind: the file's kind. Only a file of this kind is replaced.
        error: the class of errors to raise.

    Returns:
        The path.

    Raises:
        ConfigError: It cannot be written, or the existing file is of another kind. Or `error`.

    Example:
        >>> from transpike.files.kinds import marked
        >>> page = marked("a page", "<title>")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write(f"{folder}/new/page.html", "<title>1</title>", kind=page)
        ...     _ = path.with_name("notes.txt").write_text("mine")
        ...     write(path.with_name("notes.txt"), "<title>2</title>", kind=page)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: .../notes.txt: already exists and is not a page; name another place.
    """
    path = Path(path)
    with explained("write", path, error):
        if (descriptor := _open_in_place(path)) is not None:
            # It is no error of the file if nobody reads this process's output any more.
            with suppress(BrokenPipeError) if _own_descriptor(path) is not None else nullcontext():
                _pour(descriptor, content)
            return path
        check_kind(path, kind, error=error)
        target = target_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        settle(target.parent)
        partial = Partial(target)
        try:
            partial.fill(content)
            partial.place()
        finally:
            partial.discard()
        sync(target.parent)
        with suppress(OSError):  # the folder may allow writing, but not listing
            tidy(target.parent, target.name)
    return path


def write_json(path: Path | str, data: object, *, kind: Kind, error: type[TranspikeError] = ConfigError) -> Path:
    """Write ``data`` as JSON, with `write`. `plain` converts it."""
    return write(path, dumps(data), kind=kind, error=error)


def csv_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> tuple[str, Kind]:
    """Return a table as CSV, and its kind. It only replaces a table with the same heading."""
    text = io.StringIO()
    csv.writer(text).writerows([heading, *rows])
    first = text.getvalue().partition("\r\n")[0]
    return text.getvalue(), marked(f"a table of {first}", first, within=len(first.encode()))


def write_csv(path: Path | str, heading: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a `csv_table`, with `write`."""
    text, kind = csv_table(heading, rows)
    return write(path, text, kind=kind)


def check_target(path: Path | str, kind: Kind, *, error: type[TranspikeError] = ConfigError) -> None:
    """Check, before the work, that the file for its result can be written.

    Raises:
        ConfigError: The existing file is of another kind, or its folder cannot be written to. Or `error`.
    """
    path = Path(path)
    with explained("write", path, error):
        if _special(path):
            return
        check_kind(path, kind, error=error)
        # Missing folders would be created in the nearest existing one.
        folder = next(each for each in target_of(path).parents if each.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            with suppress(FileNotFoundError):
                os.unlink(folder / f".{secrets.token_hex(8)}")  # shows the reason: no permission, or a read-only disk
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _special(path: Path) -> bool:
    """Whether a path leads to a device, to a pipe, or to a file that this process has open."""
    try:
        if _own_descriptor(path) is not None:
            return True
        mode = os.stat(path).st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False


def _open_in_place(path: Path) -> int | None:
    """Return a file descriptor of a device, a pipe, or an open file of this process. None for other files."""
    own = _own_descriptor(path)
    if own is not None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # earlier output comes before it
        return os.dup(own)
    if not _special(path):
        return None
    end = time.monotonic() + WAIT
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            # A pipe that has no reader yet.
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode) or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _pour(descriptor: int, content: Content) -> None:
    with os.fdopen(descriptor, "wb") as file:
        if callable(content):
            with tempfile.TemporaryDirectory() as folder:
                content(Path(folder) / "content")
                file.write((Path(folder) / "content").read_bytes())
        else:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def _own_descriptor(path: Path) -> int | None:
    """Return the number of this process's open file for a path such as /dev/stdout."""
    place = os.path.join(os.getcwd(), path)
    for _ in range(40):  # the largest depth of links on Linux
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        if re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd", folder) and name.isdecimal():
            return int(name)
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None
