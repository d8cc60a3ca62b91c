"""A bias, its ramp and a skip in the kernel are those that PyTorch adds before it, to the bit, in every layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels import track_reference
from transpike.neurons.tsa import RELU, Code, Piecewise, accumulate, estimate, track

CODES = (
    Code(steps=5, beta=2.0, silent=1),
    Code(steps=4, beta=2.0, silent=0, levels=(1, 2, 4, 8)),
    Code(steps=3, beta=4.0, silent=2, levels=tuple(range(1, 17))),
)
LAYOUTS = ("contiguous", "channels last", "tokens")


def drawn(generator: torch.Generator, layout: str, steps: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Two currents [T, N, *], and how a value a channel broadcasts against one sample."""
    shape = (2 * steps, 37, 130) if layout == "tokens" else (2 * steps, 5, 31, 17)
    two = torch.randn(2, *shape, generator=generator)
    if layout == "channels last":
        two = torch.stack([x.contiguous(memory_format=torch.channels_last) for x in two.unbind()])
    a, b = two.unbind()
    like = (130,) if layout == "tokens" else (5, 1, 1)
    return a.unflatten(0, (steps, 2)), b.unflatten(0, (steps, 2)), like


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_kernel_feeds_itself_to_the_bit(dtype: torch.dtype, data: st.DataObject) -> None:
    code, layout = data.draw(st.sampled_from(CODES)), data.draw(st.sampled_from(LAYOUTS))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    z, other, like = drawn(generator, layout, code.steps)
    z, other = z.to(dtype), other.to(dtype)

    def pattern() -> Tensor | None:
        shape = data.draw(st.sampled_from([None, (), like]))
        return None if shape is None else torch.randn(shape, generator=generator)

    scale, shift, factor = pattern(), pattern(), pattern()
    shares = data.draw(st.sampled_from([(), tuple(0.4 * step - 0.5 for step in range(code.steps))]))
    inflow = Inflow(scale, shift, shares, other if data.draw(st.booleans()) else None, factor)
    fed = inflow.apply(z)
    assert fed.dtype == dtype and inflow.feed(tsa._prepare(z, rows=len(z))[1]) is not None
    for function in (RELU, Piecewise(slope=0.3, low=-2.0, high=2.5)):
        got = track(z, code=code, function=function, gain=0.7, inflow=inflow, final=True)
        want = track(fed, code=code, function=function, gain=0.7, final=True)
        assert torch.equal(got.spikes, want.spikes)
        assert got.target is not None and want.target is not None and torch.equal(got.target, want.target)
        assert torch.equal(track(z.clone(), code=code, function=function, gain=0.7, inflow=inflow).spikes, got.spikes)
    assert torch.equal(accumulate(z, beta=2.0, silent=2, inflow=inflow), accumulate(fed, beta=2.0, silent=2))
    how = {"beta": 2.0, "unit": 0.3, "gain": 0.7}
    assert torch.equal(estimate(z.clone(), inflow=inflow, inplace=True, **how), estimate(fed, **how))
    if dtype == torch.float32:  # the reference, from the same patterns
        with pytest.MonkeyPatch.context() as patch:
            usual = tsa._prepare
            patch.setattr(tsa, "_prepare", lambda z, *, rows: (track_reference, usual(z, rows=rows)[1]))
            assert torch.equal(
                track(z, code=code, gain=0.7, inflow=inflow).spikes, track(fed, code=code, gain=0.7).spikes
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_kernel_bounds_and_divides_to_the_bit(dtype: torch.dtype, data: st.DataObject) -> None:
    """ReLU6 of real values over the amplitudes of channels, as PyTorch computes it of the estimates."""
    code, layout = data.draw(st.sampled_from(CODES)), data.draw(st.sampled_from(LAYOUTS))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    z, other, like = drawn(generator, layout, code.steps)
    z, state = z.to(dtype), torch.float64 if dtype == torch.float64 else torch.float32
    z[:, 0, 0] = torch.nan
    shape = data.draw(st.sampled_from([(), like, (1,) * len(like), z.shape[2:]]))  # the last is none for a kernel
    relative = torch.rand(shape, generator=generator).to(state) + 0.1
    inflow = data.draw(st.sampled_from([None, Inflow(other=other.to(dtype), shift=torch.tensor(0.3))]))
    for function in (Piecewise(high=0.6), Piecewise(slope=0.1, low=-0.2), Piecewise(slope=1.0, low=-0.3, high=0.4)):
        how = {"unit": 0.07, "gain": 0.9, "inflow": inflow}
        known = function(estimate(z, beta=code.beta, **how)) / relative
        want = track(known, code=code, function=tsa.IDENTITY, unit=0.07, final=True)
        got = track(z, code=code, function=function, relative=relative, final=True, **how)
        assert got.spikes.dtype == dtype and torch.equal(got.spikes.to(state), want.spikes)
        for ours, theirs in ((got.residual, want.residual), (got.target, want.target)):
            assert ours is not None and theirs is not None and torch.equal(ours, theirs)
        over = track(z.clone(), code=code, function=function, relative=relative, inplace=True, **how)
        assert torch.equal(over.spikes, got.spikes)


def test_what_no_kernel_can_feed_is_done_before_it() -> None:
    code = CODES[0]
    z, other = torch.randn(2, 5, 2, 4, 6, 6).unbind()
    z = z.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (5, 2))
    for inflow in (
        Inflow(other=other),  # in another memory format
        Inflow(shift=torch.randn(4, 6, 1)),
        Inflow(other=other[:, :1]),
    ):
        assert inflow.feed(z) is None
        wanted = track(inflow.apply(z), code=code).spikes
        assert torch.equal(track(z, code=code, inflow=inflow).spikes, wanted)


def test_half_precision_is_fed_in_single() -> None:
    z, bias = torch.randn(5, 3, 40).bfloat16(), torch.randn(40).bfloat16()
    got = track(z, code=CODES[0], inflow=Inflow(shift=bias)).spikes
    assert got.dtype == torch.bfloat16
    assert torch.equal(got.float(), track(z.float() + bias.float(), code=CODES[0]).spikes)
