"""What users install: the wheel, made by the hook that pip and build call."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from hatchling.build import build_wheel


def test_the_wheel_holds_the_package_and_nothing_else(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    with ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        commands = wheel.read(next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))).decode()
    sources = {
        str(path.relative_to(root / "src"))
        for path in (root / "src" / "transpike").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources
    assert names >= {"transpike/py.typed", "transpike/report/template.html"}
    assert "transpike = transpike.cli:main" in commands


def test_the_version_is_one_everywhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    version = build_wheel(str(tmp_path)).split("-")[1]
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    assert cited["version"] == version and cited["cff-version"] == "1.2.0"
    assert f"## [{version}] - {cited['date-released']}" in (root / "CHANGELOG.md").read_text()
