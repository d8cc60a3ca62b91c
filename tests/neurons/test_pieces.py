"""Pieces of steps equal a whole run, to the bit, on every backend, whatever the cuts are."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels import track_reference
from transpike.neurons.pieces import Accumulated, Pieces, kept
from transpike.neurons.tsa import IDENTITY, RELU, Code, Piecewise, accumulate, estimate, track

CODES = [
    Code(steps=6, beta=2.0, silent=0, levels=(1, 2, 4, 8)),
    Code(steps=6, beta=2.0, silent=2),
    Code(steps=5, beta=1.5, silent=1, levels=(1, 2)),
    Code(steps=4, beta=4.0, silent=0, levels=tuple(range(1, 17))),
    Code(steps=7, beta=1.0, silent=0, signed=False, start=0.5),
    Code(steps=5, beta=2.0, silent=5, signed=False),
]
FUNCTIONS = [RELU, IDENTITY, Piecewise(slope=0.1, high=3.0)]


def in_pieces(rows: Tensor, make: Pieces, cuts: list[int]) -> Tensor:
    edges = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
    return torch.cat([make(rows[a:b]) for a, b in pairwise(edges)])


@pytest.mark.parametrize("backend", ["usual", "reference"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_pieces_of_steps_fire_as_a_whole_run(backend: str, layout: torch.memory_format, data: st.DataObject) -> None:
    code, function = data.draw(st.sampled_from(CODES)), data.draw(st.sampled_from(FUNCTIONS))
    usual = tsa._prepare
    seed, cuts = data.draw(st.integers(0, 2**31)), data.draw(st.lists(st.integers(0, 20), max_size=5))
    z = 2 * torch.randn(code.steps * 3, 2, 4, 5, generator=torch.Generator().manual_seed(seed))
    z = z.contiguous(memory_format=layout).unflatten(0, (code.steps, 3))
    with pytest.MonkeyPatch.context() as patch:
        if backend == "reference":
            patch.setattr(tsa, "_prepare", lambda z, *, rows: (track_reference, usual(z, rows=rows)[1]))
        idle = z.new_zeros(code.silent, *z.shape[1:])
        got = in_pieces(torch.cat([z, idle]), Pieces(code, function, gain=0.7), cuts)
        assert torch.equal(got, track(z, code=code, function=function, gain=0.7).spikes)
        h = accumulate(z, beta=code.beta, silent=code.silent)
        got = in_pieces(h, Pieces(code, function, accumulated=True), cuts)
        assert torch.equal(got, track(h, code=code, function=function, accumulated=True).spikes)
        values = estimate(z, beta=code.beta, unit=0.3).sigmoid()
        values[0, 0] = torch.nan  # not there yet
        whole = track(values.clone(), code=code, function=IDENTITY, unit=0.3).spikes
        rows = torch.cat([values, values[-1:].expand(code.silent, *z.shape[1:])])
        assert torch.equal(in_pieces(rows, Pieces(code, IDENTITY, accumulated=True, unit=0.3), cuts), whole)


@pytest.mark.parametrize("backend", ["usual", "reference"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("cut", range(1, 6))
def test_pieces_with_idle_steps_and_more_currents_fire_as_a_whole_run(backend: str, inplace: bool, cut: int) -> None:
    """Idle steps behind the last current, in one piece with it and without; a bias and a skip within the kernel."""
    code, usual = CODES[1], tsa._prepare
    generator = torch.Generator().manual_seed(4)
    z, other = 2 * torch.randn(2, 6, 3, 4, 5, generator=generator)
    by = torch.randn(4, 1, generator=generator)

    def inflow(steps: slice) -> Inflow:
        return Inflow(shift=by, shares=(0.5, 1, 1, 1, 1, 0.0)[steps], other=other[steps].clone(), factor=by)

    with pytest.MonkeyPatch.context() as patch:
        if backend == "reference":
            patch.setattr(tsa, "_prepare", lambda z, *, rows: (track_reference, usual(z, rows=rows)[1]))
        whole = track(z, code=code, inflow=inflow(slice(None))).spikes
        sums = accumulate(z, beta=2.0, silent=2, inflow=inflow(slice(None)))
        values = estimate(z, beta=code.beta, unit=0.3).sigmoid()
        tracked = track(values.clone(), code=code, function=IDENTITY, unit=0.3).spikes
        for behind in (0, 1, 2):  # idle steps in the piece of the last current
            make, total = Pieces(code), Accumulated(2.0, (1.0,) * 8)
            holds = Pieces(code, IDENTITY, accumulated=True, unit=0.3)
            found, held, said = [], [], []
            for steps, idle in ((slice(0, cut), 0), (slice(cut, 6), behind), (slice(6, 6), 2 - behind)):
                given = {"idle": idle, "inflow": inflow(steps), "inplace": inplace}
                found.append(make(z[steps].clone(), **given).clone())
                held.append(total(z[steps].clone(), **given).clone())
                last = values[-1:] if steps.start == 6 else values[steps]
                if idle or steps.start < 6:
                    said.append(holds(last.clone(), idle=idle - (steps.start == 6), inplace=inplace).clone())
            assert torch.equal(torch.cat(found), whole) and torch.equal(torch.cat(held), sums)
            assert torch.equal(torch.cat(said), tracked)


def test_sums_in_pieces_are_those_of_a_whole_run() -> None:
    z = torch.randn(6, 3, 50, generator=torch.Generator().manual_seed(1))
    worths = tuple(0.7 * 1.5**power for power in reversed(range(6)))
    sums = Accumulated(1.5, worths, gain=0.3)
    whole = estimate(z, beta=1.5, unit=0.7, gain=0.3)
    assert torch.equal(torch.cat([sums(z[:1]), sums(z[1:4]), sums(z[4:])]), whole)


def test_samples_that_are_kept_go_on_as_if_alone() -> None:
    code, few = CODES[1], torch.tensor([2, 0])
    z = torch.randn(8, 3, 2, 4, 5, generator=torch.Generator().manual_seed(2))
    both, alone = Pieces(code), Pieces(code)
    both(z[:4])
    alone(z[:4, few])
    both.rebatch(lambda x, axis: kept(x, few, axis=axis))
    assert torch.equal(both(z[4:, few]), alone(z[4:, few]))
    sums = Accumulated(2.0, (1.0,) * 8)
    sums(z[:4])
    sums.rebatch(lambda x, axis: kept(x, few, axis=axis))
    assert torch.equal(sums(z[4:, few])[-1], accumulate(z, beta=2.0, silent=0)[-1, few])


def test_what_is_kept_stays_in_its_memory_format() -> None:
    x = torch.randn(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    few = kept(x, torch.tensor([3, 1]), axis=0)
    assert torch.equal(few, x[[3, 1]]) and few.is_contiguous(memory_format=torch.channels_last)


def test_state_in_half_precision_is_float32() -> None:
    code, z = CODES[0], torch.randn(6, 3, 40, generator=torch.Generator().manual_seed(3)).half()
    make = Pieces(code)
    got = torch.cat([make(z[:2]), make(z[2:])])
    assert got.dtype == torch.float16 and torch.equal(got, track(z, code=code).spikes)
    assert make.state is not None and make.state.dtype == torch.float32
