"""How many samples at a time, and what happens when memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from transpike.coding import CSS
from transpike.conversion import SpikingNetwork, network, prepare, room
from transpike.conversion.room import cached, side_by_side
from transpike.errors import DataError


@pytest.fixture(scope="module")
def ready() -> tuple[SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 16, 3), nn.ReLU(), *head)
    images = torch.randn(40, 3, 12, 12)
    return prepare(model.eval(), images).convert(CSS(steps=8, silent=1, amplitude="layer")), images


@pytest.mark.parametrize(("size", "found"), [("32768K\n", 2**23), ("1024K", 2**22), ("320M", 2**25), ("odd", 2**23)])
def test_a_quarter_of_the_last_cache_within_bounds(size: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "size").write_text(size)
    assert cached(str(tmp_path / "size")) == found


def test_on_a_gpu_as_many_as_half_of_its_free_memory_holds(
    ready: tuple[SpikingNetwork, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = ready[0]
    monkeypatch.setattr(SpikingNetwork, "device", property(lambda snn: torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**20)
    # GELU's operand in single precision, beside the current and the spikes, at 9 steps
    layer = 16 * 12 * 12 * 4 * 9
    for gib in (1, 4):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, gib=gib: (gib * 2**30, 80 * 2**30))
        assert snn.default_chunk == (gib * 2**30 + 2 * 2**20) // 2 // (3 * layer)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**46, 2**46))
    assert snn.default_chunk == (2**31 - 1) // (16 * 12 * 12 * 9)  # what one tensor can count
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**46))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**20)
    assert snn.default_chunk == 2  # sixteen rows


def failing(limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory for so many images at a time; the sizes that were tried."""
    sizes, usual = list[int](), network.run

    def run(snn: SpikingNetwork, x: Tensor, *args: object, **options: object) -> object:
        sizes.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return usual(snn, x, *args, **options)

    monkeypatch.setattr(network, "run", run)
    return sizes


def test_out_of_memory_goes_on_with_half_once(
    ready: tuple[SpikingNetwork, Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snn, images = ready
    monkeypatch.setattr(SpikingNetwork, "default_chunk", property(lambda snn: 20))
    whole = snn(images)
    sizes = failing(10, monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(snn(images), whole)
        assert sizes == [20, 10, 10, 10, 10]
        assert torch.equal(snn.readings(images)[0], whole)
    assert [record.getMessage() for record in caplog.records] == 2 * [
        "out of memory with 20 images at a time: continuing with 10. Set the network's `chunk` to choose the number."
    ]
    sizes = failing(9, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        snn(images)
    assert sizes == [20, 10]
    with pytest.raises(torch.OutOfMemoryError):  # who watches would see some spikes twice
        snn.observe(images, lambda op, fired: None)
    monkeypatch.setattr(snn, "chunk", 5)
    assert torch.equal(snn(images), whole)


# -- chunks on several threads -----------------------------------------------------------------------------------------


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_thread_takes_chunks_of_its_own(
    ready: tuple[SpikingNetwork, Tensor], two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn, images = ready
    torch.set_num_threads(1)
    alone = snn(images)
    torch.set_num_threads(2)
    seen, usual, both = list[tuple[int, int]](), network.run, Barrier(2, timeout=60)

    def run(snn: SpikingNetwork, x: Tensor, *args: object, **options: object) -> object:
        seen.append((len(x), torch.get_num_threads()))
        both.wait()  # until the other thread is here
        return usual(snn, x, *args, **options)

    monkeypatch.setattr(network, "run", run)
    assert snn(images).equal(alone)
    assert seen == [(20, 1), (20, 1)]
    assert torch.get_num_threads() == 2


def test_threads_keep_the_modes_of_the_caller(ready: tuple[SpikingNetwork, Tensor], two_threads: None) -> None:
    snn, images = ready
    with torch.inference_mode():
        assert snn(images).is_inference()
    assert not snn(images).is_inference()
    assert not snn(images).requires_grad


@pytest.mark.parametrize("why", ["chunk", "autocast", "few"])
def test_one_chunk_at_a_time(
    why: str, ready: tuple[SpikingNetwork, Tensor], two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn, images = ready
    monkeypatch.setattr(network, "side_by_side", None)
    monkeypatch.setattr(snn, "chunk", 20 if why == "chunk" else None)
    with torch.autocast("cpu", enabled=why == "autocast"):
        snn(images[:3] if why == "few" else images)  # fewer than 16 rows each


def test_the_threads_are_pytorch_s_again_after_an_error_and_after_both_of_two_calls(two_threads: None) -> None:
    both = Barrier(2, timeout=60)

    def failing(part: Tensor) -> None:
        raise DataError("no")

    def meeting(part: Tensor) -> int:
        both.wait()
        return torch.get_num_threads()

    parts = torch.arange(2).tensor_split(2)
    with pytest.raises(DataError):
        side_by_side(parts, failing)
    assert torch.get_num_threads() == 2
    ended = Barrier(2, timeout=60)

    def calling(_: int) -> tuple[list[int], int]:
        result = side_by_side(parts[:1], meeting)
        ended.wait()  # both calls have ended
        return result, torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(calling, range(2))) == [([1], 2), ([1], 2)]
    assert torch.get_num_threads() == 2


def test_a_new_thread_has_one_thread_also_if_another_call_has_just_ended(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when another call restores PyTorch's number before this call's threads begin, and again after they have begun.
    monkeypatch.setattr(room, "_one_thread_each", lambda: nullcontext(2))

    def restored(part: Tensor) -> int:
        with ThreadPoolExecutor(1) as another:
            another.submit(torch.set_num_threads, 2).result()
        return torch.get_num_threads()

    assert side_by_side(torch.arange(2).tensor_split(2), restored) == [1, 1]
