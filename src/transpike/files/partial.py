"""Temporary files beside their targets, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transpike.errors import TranspikeError, reason

__all__ = ["Content", "Partial", "explained", "keep", "lock", "locked", "release", "sync", "target_of", "tidy"]

Content = str | bytes | Callable[[Path], object]
"""The content of a file: text, bytes, or a function that writes to a given path."""

JOURNAL = ".transpike.journal"
"""The name of the file that lists a change of several files; see `files.changes`."""

LONGEST = 255
"""The largest length of a file's name on Linux, in bytes."""

WAIT = 30.0
"""Seconds to wait for another process that changes or reads the same folder."""

_RANDOM = r"[0-9a-f]{8}\.partial"
"""The suffix of temporary files."""

_held: set[int] = set()
"""File descriptors whose locks last until `release` or until the process ends."""


class Partial:
    """A temporary file beside its target, locked while its writer lives.

    By the lock, the next writer distinguishes a killed writer's file from one that is being written.

    Args:
        target: the file that it will become. Its folder must exist.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        while True:
            self.path = target.with_name(f"{_prefix(target.name)}{secrets.token_hex(4)}.partial")
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            # Between the two calls another process may have removed it as a leftover.
            if lock(self._descriptor) and _is_at(self._descriptor, self.path):
                return
            os.close(self._descriptor)

    def fill(self, content: Content) -> None:
        """Write the content, and wait until it is on the disk."""
        if callable(content):
            try:
                content(self.path)
            except (OSError, TranspikeError):
                raise
            except Exception:
                self._probe()
                raise
            if not _is_at(self._descriptor, self.path):  # a library wrote it elsewhere and moved it here
                mode = os.fstat(self._descriptor).st_mode  # with the umask, which the moved file may not have
                os.close(self._descriptor)
                self._descriptor = os.open(self.path, os.O_RDWR)
                os.fchmod(self._descriptor, mode)
                lock(self._descriptor)
        else:
            # A character without a UTF-8 form, such as half of a surrogate pair, is escaped as in JSON and Python.
            data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(data)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without this function
                raise

    def _probe(self) -> None:
        """Write another megabyte to raise the system's error, because libraries hide why they could not write."""
        with self.path.open("ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())

    def place(self) -> None:
        """Move it to its target's place."""
        os.replace(self.path, self.target)

    def place_first(self) -> int:
        """Move it to its target's place if there is no file yet. Returns the file descriptor, which stays locked.

        Raises:
            FileExistsError: There is a file.
        """
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: a kill may leave an empty file, which is taken over
            os.close(os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.replace(self.path, self.target)
        else:
            self.path.unlink()
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """Close it without removing it. The reader of the journal that lists it moves it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Close it, and remove it unless it was placed."""
        self.path.unlink(missing_ok=True)
        self.close()


@contextmanager
def explained(verb: str, path: Path | str, error: type[TranspikeError]) -> Iterator[None]:
    """Turn the system's error about a file into one sentence."""
    try:
        yield
    except TranspikeError:
        raise
    except (OSError, UnicodeEncodeError) as cause:
        raise error(f"cannot {verb} {path}: {reason(cause)}") from cause
    except ValueError as cause:
        if "null byte" not in str(cause) and "null character" not in str(cause):
            raise
        raise error(f"cannot {verb} {path!r}: {reason(cause)}") from cause


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder: alone, to change several files at once, or together with other readers.

    Without locks in the file system, nothing is held. A process that holds a folder must not hold it again.

    Raises:
        OSError: The folder cannot be opened.
        TranspikeError: Others hold it for half a minute.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + WAIT
        while not lock(descriptor, shared=shared):
            if time.monotonic() > end:
                raise TranspikeError(
                    f"{folder}: another process has been at work on its files for {WAIT:.0f} seconds. Wait for its "
                    "end, or stop it."
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def tidy(folder: Path, name: str | None = None) -> list[str]:
    """Remove leftovers of killed writers of one file, or of all. Returns the names of all other files in the folder.

    Nothing is removed while the folder has a journal, which may list it.
    """
    pattern = f"{re.escape(_prefix(name))}{_RANDOM}" if name else rf"\..+\.{_RANDOM}"
    removing = not (folder / JOURNAL).exists()
    others = []
    for entry in os.scandir(folder):
        leaving = removing and re.fullmatch(pattern, entry.name) and entry.is_file(follow_symlinks=False)
        if not (leaving and _remove_dead(Path(entry.path))):
            others.append(entry.name)
    return others


def keep(descriptor: int) -> None:
    """Hold a file's lock until `release` or until the process ends."""
    _held.add(descriptor)


def release(descriptor: int) -> None:
    """Release a lock from `claim`."""
    if descriptor in _held:
        _held.remove(descriptor)
        os.close(descriptor)


def take(path: Path) -> int | None:
    """Return the locked descriptor of a file whose writer is dead. None if it lives, or if this is unknown."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if lock(descriptor, sure=True) and _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def target_of(path: Path) -> Path:
    """Return the file to which a path leads. Links are followed, and the file need not exist.

    Raises:
        OSError: There can be none.
    """
    with suppress(FileNotFoundError):
        os.stat(path)
    return Path(os.path.realpath(path))


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, if this is allowed and possible."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_partial_of(name: str, target: str) -> bool:
    """Whether a file's name is that of a temporary file beside a target."""
    return re.fullmatch(re.escape(_prefix(target)) + _RANDOM, name) is not None


def _prefix(name: str) -> str:
    """Return the beginning of the names of a file's temporary files. A long name is cut, with a digest as its end."""
    raw, room = os.fsencode(name), LONGEST - len(f"..{'0' * 8}.partial")
    if len(raw) > room:
        name = f"{os.fsdecode(raw[: room - 17])}~{hashlib.blake2b(raw, digest_size=8).hexdigest()}"
    return f".{name}."


def lock(descriptor: int, *, shared: bool = False, sure: bool = False) -> bool:
    """Lock an open file, if no other process does. Without locks in the file system: true, or false if `sure`."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not sure
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_dead(path: Path) -> bool:
    descriptor = take(path)
    if descriptor is None:
        return not os.path.lexists(path)
    try:
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _close_held() -> None:
    """Close held locks in a forked process, such as a loader's worker, which may outlive a killed run."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_close_held)
