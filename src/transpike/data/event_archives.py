"""Finds an event set's recordings under a root, and unpacks the published archives if necessary."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transpike.data.event_files import EventSource
from transpike.errors import DataError

__all__ = ["place_of"]


def place_of(name: str, source: EventSource, root: Path) -> Path:
    """Return the place of the set's unpacked files: its folder, or ``extract`` inside it as in SpikingJelly's layout.

    If they are in neither, but the archives are in ``download``, the archives are checked and unpacked.

    Raises:
        DataError: Files are missing. Or an archive is missing or damaged, or SpikingJelly is not installed.
    """
    folder = root / source.folder
    place = _unpacked(name, source, folder)
    if place is None:
        _unpack(name, source, folder)
        place = _unpacked(name, source, folder)
    if place is None:
        raise DataError(f"{name}: the archives in {folder / 'download'} hold no {', '.join(source.landmarks)}.")
    return place


def _unpacked(name: str, source: EventSource, folder: Path) -> Path | None:
    for place in (folder / source.inside, folder / "extract" / source.inside):
        missing = [landmark for landmark in source.landmarks if not (place / landmark).exists()]
        if not missing:
            return place
        if len(missing) < len(source.landmarks):
            raise DataError(
                f"{name}: {', '.join(missing)} not found in {place}, only the rest: the download or its unpacking was "
                "interrupted. Unpack the published archives there again."
            )
    return None


def _unpack(name: str, source: EventSource, folder: Path) -> None:
    download = folder / "download"
    if not download.is_dir():
        raise DataError(
            f"{name}: nothing found in {folder}. Unpack the published archives there ({', '.join(source.archives)}), "
            f"put them into {download}, or name another folder with --root."
        )
    if missing := [archive for archive in source.archives if not (download / archive).is_file()]:
        raise DataError(f"{name}: {', '.join(missing)} not found in {download}. Download them there, too.")
    for archive, md5 in source.archives.items():
        with open(download / archive, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            raise DataError(
                f"{name}: {download / archive} is damaged or incomplete: its MD5 is {found}, not {md5}. "
                "Download it again."
            )
    # Each process unpacks for itself, and the first one's folder stays. So nobody sees a partial set.
    own = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder))
    try:
        for archive in source.archives:
            # Python's own filter for tar files is not yet the default. zip files always stay inside the folder.
            kept_inside: Any = {"filter": "data"} if archive.endswith(".tar.gz") else {}
            shutil.unpack_archive(download / archive, own, **kept_inside)
        own.chmod(0o755)
        own.rename(folder / "extract")
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise DataError(f"{name}: {download} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(own, ignore_errors=True)
