"""Several files as one change: a reader finds all of them old or all of them new, even if the writer was killed.

The new files are written beside the old ones. A journal, itself written completely or not at all, then lists them. Only
after that are they moved. The next reader or writer completes the moves that a journal lists.
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
    """Several files of one folder, written as one change when the ``with`` block ends. If it fails, none is written.

    Readers that need all files of one change read within `reading`.

    Args:
        folder: the folder, which is created if it is missing.
        error: the class of errors to raise.

    Raises:
        ConfigError: A file cannot be written, or an existing one is of another kind. Or `error`.

    Example:
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
            content: text, bytes, or a function that writes to a given path.
            kind: the file's kind. Only a file of this kind is replaced.
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
        """Write the journal. As soon as it may exist, only its reader may move the files that it lists."""
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
    """Complete a change that a killed writer left unfinished. Does nothing if there is none.

    Raises:
        DataError: The journal is damaged.
        OSError: Files cannot be moved there.
    """
    if (folder / JOURNAL).exists():
        with locked(folder):
            _complete(folder)


@contextmanager
def reading(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Read several files of a folder as one change left them.

    Meanwhile writers wait, so nothing may be written to the folder inside the context. This also works in a read-only
    folder, and while a writer is active.

    Args:
        folder: the folder. Neither it nor its files need to exist.

    Yields:
        A function from a file's name to the path from which to read it.

    Raises:
        DataError: The folder has a damaged journal.

    Example:
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
                continue  # a change happened between the two locks
            yield _places(folder, moved or {})
            return


def claim(folder: Path, name: str, text: str, *, error: type[TranspikeError] = ConfigError) -> int:
    """Claim a folder by its first file. If several processes try at once, one succeeds.

    A folder is taken over if it has only the first file of a dead process and the leftovers of killed writers.

    Args:
        folder: the folder, which is created if it is missing.
        name: the name of the first file.
        text: its content.
        error: the class of errors to raise.

    Returns:
        A number for `release`. Until then, or until the process ends, no other process can claim the folder.

    Raises:
        ConfigError: The folder cannot be created, belongs to another process, or has other files. Or `error`.
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
    """Prevent others from continuing with the data of a file, for example with a run.

    Returns:
        A number for `release`.

    Raises:
        ConfigError: There is no such file, or another process holds it. Or `error`.
    """
    with explained("go on with", path.parent, error):
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        if not lock(descriptor):
            os.close(descriptor)
            raise error(f"{path.parent}: another process is at work there. Wait for its end, or stop it.")
    keep(descriptor)
    return descriptor


def make_folder(folder: Path, *, error: type[TranspikeError] = ConfigError) -> bool:
    """Create a folder and its parents. Returns false if it exists.

    Raises:
        ConfigError: It cannot be created. Or `error`.
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
    """Move the files that the journal lists, and remove it. A missing file has been moved before."""
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
    """Return name, new file and target of each file of the journal. It may only list our own temporary files."""
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
