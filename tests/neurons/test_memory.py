"""Memory that a tensor has left is used again, and never while anybody can still see it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest
import torch

from transpike.neurons import LIFNode, empty_cache, reset_net
from transpike.neurons.kernels import memory

SHAPE = (2, memory._SMALLEST)


@pytest.fixture(autouse=True)
def _nothing_kept():
    empty_cache()
    yield
    empty_cache()


def test_the_memory_of_a_dead_tensor_goes_to_the_next_of_its_size():
    first = memory.empty(SHAPE)
    place = first.data_ptr()
    assert first.shape == SHAPE and first.dtype == torch.float32 and first.is_contiguous()
    assert memory.empty([3, memory._SMALLEST]).data_ptr() != place
    del first
    assert memory.empty(SHAPE[::-1]).data_ptr() == place


def test_large_tensors_begin_in_the_middle_of_a_page():
    assert all(memory.empty([memory._SMALLEST + i]).data_ptr() % 4096 == 2048 for i in range(3))


@pytest.mark.parametrize(
    "hold", [lambda a: a[1:], lambda a: a.numpy()[1:], lambda a: a.detach().T, lambda a: memoryview(a.numpy())]
)
def test_memory_that_a_view_still_shows_is_nobody_elses(hold):
    first = memory.empty(SHAPE).fill_(7)
    view = hold(first)
    del first
    gc.collect()
    memory.empty(SHAPE).fill_(0)
    assert view[-1][-1] == 7 if not isinstance(view, memoryview) else view[1, -1] == 7


def test_what_autograd_and_a_caller_hold_survives_the_next_batches():
    node = LIFNode(step_mode="m")
    x = torch.randn(2, memory._SMALLEST, requires_grad=True)
    spikes = node(x)
    copy, membrane = spikes.detach().clone(), node.v.detach()
    before = membrane.clone()
    for _ in range(3):
        reset_net(node)
        node(torch.randn_like(x, requires_grad=True)).sum().backward()
    assert torch.equal(spikes, copy) and torch.equal(membrane, before)


def test_no_more_is_kept_than_the_most_and_what_died_last_stays(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 5 * memory._SMALLEST)
    held = [memory.empty([size, memory._SMALLEST]) for size in (3, 1, 2, 1, 1, 2)]
    while held:
        held.pop(0)
    assert [block.size // memory._SMALLEST for block in memory._free] == [1, 1, 2]
    empty_cache()
    assert not memory._free


def test_a_step_that_needs_more_than_the_most_still_finds_what_is_kept(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 8 * memory._SMALLEST)
    seen = []
    for _ in range(3):
        held = [memory.empty([size, memory._SMALLEST]) for size in (4, *[1] * 20)]
        seen.append({tensor.data_ptr() for tensor in held})
        while held:
            held.pop()
    assert len(seen[1] & seen[2]) >= 5


def test_a_tensor_that_dies_within_these_functions_does_no_harm():
    first = memory.empty(SHAPE)
    with memory._lock:
        del first
    assert not memory._free and memory.empty(SHAPE).shape == SHAPE


def test_threads_never_share_memory():
    wrong = []

    def work(mark: int) -> None:
        for _ in range(50):
            mine = memory.empty(SHAPE).fill_(mark)
            if not (mine == mark).all():
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_is_not_held_up_by_a_lock_of_its_parent():
    with memory._lock:
        child = os.fork()
        if child == 0:
            memory.empty(SHAPE)
            os._exit(0)
    for _ in range(100):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child waits for a lock that nobody in it holds")
    assert status == 0


@pytest.mark.parametrize("shape", [(0,), (3, 0), (5,), ()])
def test_small_tensors_are_plain_ones(shape):
    assert memory.empty(shape).shape == shape and not memory._free


def test_a_block_larger_than_the_most_pushes_nothing_out(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 3 * memory._SMALLEST)
    memory.empty(SHAPE)
    memory.empty([4, memory._SMALLEST])
    assert [block.size for block in memory._free] == [2 * memory._SMALLEST]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_state_is_float32_whatever_the_default(dtype):
    torch.set_default_dtype(dtype)
    try:
        node = LIFNode(step_mode="m")
        spikes = node(torch.full((3, 4), 2.0, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)
    assert spikes.dtype == node.v.dtype == torch.float32 and spikes.sum() > 0
