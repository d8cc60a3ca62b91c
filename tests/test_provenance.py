"""What a run records of the source that it ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from transpike.results.provenance import _commit


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_the_commit_is_that_of_the_packages_own_files(digest: str, tmp_path: Path) -> None:
    package = tmp_path / "src" / "package"
    (package / "inner").mkdir(parents=True)
    for name in ("a.py", "inner/ä.py", "page.html"):
        (package / name).write_text(f"{name}\n")
    assert _commit(package) is None
    git(tmp_path, "init", "--quiet", f"--object-format={digest}")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "x")
    assert _commit(package) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "y")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "beside.py").write_text("not the package's")
    assert _commit(package) == commit
    for name in ("page.html", "new.py"):
        before = (package / name).read_text() if (package / name).exists() else None
        (package / name).write_text("changed")
        assert _commit(package) == f"{commit}+"
        (package / name).unlink() if before is None else (package / name).write_text(before)
    (package / "inner" / "ä.py").unlink()
    assert _commit(package) == f"{commit}+"


def test_whatever_repository_encloses_the_package_none_of_its_programs_run(tmp_path: Path) -> None:
    package, ran = tmp_path / "repository" / "package", tmp_path / "ran"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (package / ".gitattributes").write_text("* filter=spy diff=spy\n")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "x")
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    spy.chmod(0o755)
    hooks = package.parent / ".git" / "hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        shutil.copy(spy, hooks / hook)
    for key in ("core.fsmonitor", "filter.spy.clean", "filter.spy.process", "diff.spy.command", "core.pager"):
        git(package.parent, "config", key, str(spy))
    ran.unlink(missing_ok=True)
    (package / "a.py").write_text("2\n")
    commit = _commit(package)
    assert commit is not None and commit.endswith("+") and not ran.exists()
    git(package.parent, "status")
    assert ran.exists()  # it would have
