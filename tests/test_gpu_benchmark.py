"""The benchmark for GPUs, which runs elsewhere: every part of it, tiny, on the CPU, so that it cannot rot."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PARTS = ("kernels", "convert", "simulate", "graphs", "fidelity", "lif", "training", "compiled", "loader")
pytest.importorskip("spikingjelly")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FOLDER / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys.modules["timing"], "RESULTS", tmp_path)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs(part: str, benchmark: ModuleType, tmp_path: Path) -> None:
    assert tuple(benchmark.PARTS) == PARTS
    assert benchmark.main(["--device", "cpu", "--quick", "--parts", part]) == 0
    found = json.loads((tmp_path / "gpu-quick.json").read_text())["results"]["parts"][part]
    assert found["rows"] and not found["error"]
    for row in found["rows"]:
        if row["most"] == 0:
            assert row["value"] == 0, row["what"]


def test_a_part_that_fails_stops_no_other(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(at: object) -> None:
        raise RuntimeError("no kernel")

    def small(at: object) -> list[object]:
        return [benchmark.Row("a number", 1.0)]

    monkeypatch.setattr(benchmark, "PARTS", {"first": failing, "second": small})
    assert benchmark.main(["--device", "cpu", "--quick"]) == 1
    parts = json.loads((tmp_path / "gpu-quick.json").read_text())["results"]["parts"]
    assert parts["first"]["error"] == "RuntimeError: no kernel" and parts["second"]["rows"][0]["value"] == 1.0
    assert "FAILED: RuntimeError: no kernel" in capsys.readouterr().out
