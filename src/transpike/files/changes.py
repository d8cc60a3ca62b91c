"""Several files as one change: a reader finds all of them old or all of them new, wherever the writer was killed.

The new files are written beside the old. A journal, itself written whole or not at all, then lists them, and only then
they are moved. Whoever comes next, reader or writer, completes what a journal lists.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

from transpike.errors import ConfigError, DataError, TranspikeError, reason
from transpike.files.json import read_json
from transpike.files.kinds import Kind, check_kind
from transpike.files.partial import (
    JOURNAL,
    Content,
    Partial,
    explained,
    is_partial_of,
    keep,
    lock,
    locked,
    sync,
    take,
    target_of,
    tidy,
)

__all__ = ["Change", "claim", "hold", "make_folder", "reading", "settle"]

_FORMAT = "transpike change"


class Change:
    """Several files of one folder, written as one change when the ``with`` block ends; none of them if it fails.

    Readers that need them all of one change read within `reading`.

    Args:
        folder: made if it is missing.
        error: what to raise.

    Raises:
        ConfigError: if a file cannot be written, or one that lies there is of another kind; or `error`.

    >>> import tempfile
    >>> from transpike.files.kinds import json_kind
    >>> kind = json_kind("half of a pair", half=str)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Change(Path(folder)) as change:
    ...         change.write("a.json", '{"half": "left"}', kind=kind)
    ...         change.write("b.json", '{"half": "right"}', kind=kind)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a.json', 'b.json']
    """

    def __init__(self, folder: Path, *, error: type[TranspikeError] = ConfigError) -> None:
        self.folder = folder
        self.error = error
        self._partials: dict[str, Partial] = {}
        self._listed = False

    def __enter__(self) -> Change:
        with explained("make the folder", self.folder, self.error):
            self.folder.mkdir(parents=True, exist_ok=True)
        with explained("write", self.folder, self.error):
            settle(self.folder)
        return self

    def write(self, name: str, content: Content, *, kind: Kind) -> None:
        """Write a file of the change beside the one that it will replace.

        Args:
            name: its name in the folder.
            content: text, bytes, or a function that writes it to the path that it is given.
            kind: what it is; only a file of that kind is replaced.
        """
        path = self.folder / name
        check_kind(path, kind, error=self.error)
        with explained("write", path, self.error):
            self._partials[name] = partial = Partial(target_of(path))
            partial.fill(content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with explained("write", self.folder, self.error), locked(self.folder):
                    _complete(self.folder)
                    self._list()
                    _complete(self.folder)
                    for target in [self.folder / JOURNAL, *(partial.target for partial in self._partials.values())]:
                        tidy(target.parent, target.name)
        finally:
            for partial in self._partials.values():
                partial.close() if self._listed else partial.discard()

    def _list(self) -> None:
        """Write the journal. From when it may be there, the files that it lists are its own to move."""
        for partial in self._partials.values():
            sync(partial.target.parent)
        entries = {name: partial.path.name for name, partial in self._partials.items()}
        journal = Partial(self.folder / JOURNAL)
        try:
            journal.fill(json.dumps({"format": _FORMAT, "version": 1, "files": entries}) + "\n")
            self._listed = True
            journal.place()
        except OSError:
            self._listed = False
            raise
        finally:
            journal.discard()
        sync(self.folder)


def settle(folder: Path) -> None:
    """Complete a change that a killed writer left half done; nothing if there is none.

    Raises:
        DataError: if the journal is damaged.
        OSError: if files cannot be moved there.
    """
    if (folder / JOURNAL).exists():
        with locked(folder):
            _complete(folder)


@contextmanager
def reading(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Several files of a folder as one change left them, for as long as they are read.

    Writers wait meanwhile, so nothing may be written to the folder within. Also in a folder that nobody may write to,
    and while a writer is at work.

    Args:
        folder: it need not exist, nor its files.

    Yields:
        A function from a file's name to where it is to be read.

    Raises:
        DataError: if a journal lies there that is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, reading(Path(folder)) as place:
    ...     place("network.json").name
    'network.json'
    """
    if not os.path.isdir(folder):
        yield _places(folder, {})
        return
    while True:
        moved: dict[str, Path] | None = None
        try:
            settle(folder)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                broken = f"{folder}: a change of its files was interrupted and cannot be completed"
                raise DataError(f"{broken}: {reason(error)}") from error
            moved = {name: partial for name, partial, _ in _entries(folder) if partial.exists()}
        with locked(folder, shared=True) if os.access(folder, os.R_OK) else nullcontext():
            if moved is None and (folder / JOURNAL).exists():
                continue  # a change between the two locks
            yield _places(folder, moved or {})
            return


def claim(folder: Path, name: str, text: str, *, error: type[TranspikeError] = ConfigError) -> int:
    """Make a folder one's own by its first file; of several processes that try at once, one succeeds.

    A folder that holds nothing but the first file of a process that is dead, and what killed writers left, is taken
    over.

    Args:
        folder: made if it is missing.
        name: of the first file.
        text: what it holds.
        error: what to raise.

    Returns:
        A number for `release`. Until then, or until the process ends, nobody else can claim the folder.

    Raises:
        ConfigError: if the folder cannot be made, is another process's, or holds other files; or `error`.
    """
    with explained("make the folder", folder, error):
        folder.mkdir(parents=True, exist_ok=True)
    with explained("write", folder / name, error), locked(folder):
        _complete(folder)
        others = tidy(folder)
        if others == [name] and (dead := take(folder / name)) is not None:
            os.unlink(folder / name)
            os.close(dead)
            others = []
        taken = error(f"{folder} is not an empty folder: name another one for this run's results.")
        if others:
            raise taken
        partial = Partial(folder / name)
        try:
            partial.fill(text)
            descriptor = partial.place_first()
        except FileExistsError:
            raise taken from None
        finally:
            partial.discard()
        sync(folder)
    keep(descriptor)
    return descriptor


def hold(path: Path, *, error: type[TranspikeError] = ConfigError) -> int:
    """Keep others from going on with what belongs to a file, a run for example.

    Returns:
        A number for `release`.

    Raises:
        ConfigError: if there is no such file, or another process holds it; or `error`.
    """
    with explained("go on with", path.parent, error):
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        if not lock(descriptor):
            os.close(descriptor)
            raise error(f"{path.parent}: another process is at work there. Wait for its end, or stop it.")
    keep(descriptor)
    return descriptor


def make_folder(folder: Path, *, error: type[TranspikeError] = ConfigError) -> bool:
    """Make a folder, and those in which it lies; false if it is there.

    Raises:
        ConfigError: if it cannot be made; or `error`.
    """
    with explained("make the folder", folder, error):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
    return True


def _places(folder: Path, moved: Mapping[str, Path]) -> Callable[[str], Path]:
    return lambda name: moved.get(name, folder / name)


def _complete(folder: Path) -> None:
    """Move what the journal lists, and remove it. What is no longer there was moved before."""
    journal = folder / JOURNAL
    if not journal.exists():
        return
    for _, partial, target in _entries(folder):
        with suppress(FileNotFoundError):
            os.replace(partial, target)
            sync(target.parent)
    journal.unlink(missing_ok=True)
    sync(folder)


def _entries(folder: Path) -> list[tuple[str, Path, Path]]:
    """Name, new file and target of each file of the journal, which moves nothing but our own temporary files."""
    journal = folder / JOURNAL
    content = read_json(journal, remedy="Delete it, and write these files again.")
    files = content.get("files") if isinstance(content, dict) and content.get("format") == _FORMAT else None
    entries = []
    for name, partial in files.items() if isinstance(files, dict) else [("", None)]:
        target = target_of(folder / name)
        plain = isinstance(partial, str) and name == os.path.basename(name) and name not in ("", ".", "..")
        if not plain or not is_partial_of(str(partial), target.name):
            raise DataError(f"{journal}: damaged. Delete it, and write these files again.")
        entries.append((name, target.with_name(str(partial)), target))
    return entries
