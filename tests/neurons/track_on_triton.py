"""Run by test_tsa with TRITON_INTERPRET=1: the Triton kernels, interpreted on the CPU, against the reference.

On a machine with a GPU, run without that variable, it compares the compiled kernels, and in every combination.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.kernels import track_gpu, track_reference
from transpike.neurons.kernels.track_reference import PLAIN, Carried, Clip, Feed, Final, Pattern

CODES = (
    tsa.Code(steps=5, beta=2.0),
    tsa.Code(steps=5, beta=1.5, silent=2, signed=False),
    tsa.Code(steps=4, beta=2.3, silent=0, levels=(1, 2, 4, 8)),
    tsa.Code(steps=3, beta=4.7, silent=1, levels=tuple(range(1, 17))),
    tsa.Code(steps=3, beta=4.0, silent=0, levels=tuple(range(1, 17)), signed=False),
    tsa.Code(steps=6, beta=1.0, silent=0, signed=False, start=0.5),
    tsa.Code(steps=6, beta=2.0, silent=6, signed=False),
)
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
FUNCTIONS = (tsa.RELU, tsa.Piecewise(slope=0.1, low=-1.0, high=17.3))


def tracked(
    backend: ModuleType,
    source: Tensor,
    code: tsa.Code,
    function: tsa.Piecewise,
    *,
    accumulated: bool,
    unit: float | None,
    gain: float,
    feed: Feed = PLAIN,
    clip: Clip | None = None,
) -> list[Tensor]:
    """Spikes, residuals and targets, and the spikes written over the input."""
    neurons, tables = source.shape[1], tsa._tables(code, function, unit, gain)
    spikes = torch.empty(code.steps, neurons, device=source.device)
    ends = torch.empty(2, neurons, device=source.device)
    given = {"accumulated": accumulated, "feed": feed, "clip": clip}
    backend.track(source, spikes, Final(*ends), tables, **given)
    over, nothing = source.clone(), torch.empty(0, device=source.device)
    backend.track(over, over[: code.steps], Final(nothing, nothing), tables, **given)
    return [spikes.cpu(), ends.cpu(), over[: code.steps].cpu()]


def in_pieces(backend: ModuleType, source: Tensor, code: tsa.Code, *, accumulated: bool, cut: int) -> list[Tensor]:
    """Spikes of two pieces of steps, and the state behind each; the last rows hold on, or are zeros of currents."""
    tables, neurons = tsa._tables(code, tsa.RELU, 0.3 if accumulated else None, 0.7), source.shape[1]
    idle = code.steps + code.silent - len(source)
    last = source[-1:] if accumulated else torch.zeros_like(source[-1:])
    rows = torch.cat([source, last.expand(idle, neurons)])
    state, nothing, found = torch.full((2, neurons), 7.0, device=source.device), source.new_empty(0), []
    for a, b in ((0, cut), (cut, len(rows))):
        fired = max(b - max(a, code.silent), 0)
        spikes = torch.zeros(fired, neurons, device=source.device)
        carried = Carried(state, a)
        backend.track(rows[a:b], spikes, Final(nothing, nothing), tables, accumulated=accumulated, carried=carried)
        found += [spikes.cpu(), state.cpu().clone()]
    sums, state = torch.zeros_like(rows), torch.full((1, neurons), 7.0, device=source.device)
    units = tuple(1 + step / 7 for step in range(len(rows)))
    for a, b in ((0, cut), (cut, len(rows))):
        given = {"beta": code.beta, "units": units[a:b], "gain": 0.7, "carried": Carried(state, a)}
        backend.accumulate(rows[a:b].nan_to_num(), sums[a:b], **given)
        found += [sums.cpu().clone(), state.cpu().clone()]
    return found


def feeds(steps: int, neurons: int, device: str) -> list[Feed]:
    """A scale, a bias with and without a ramp, a second current: patterns along channels that are last, or not."""
    generator = torch.Generator().manual_seed(steps)
    values = {n: torch.randn(n, generator=generator).to(device) for n in (1, 3, 5)}
    other = torch.randn(steps, neurons, generator=generator).to(device)
    ramp = tuple(0.3 * step for step in range(steps))
    return [
        Feed(shift=Pattern(values[3], 1), shares=(1.0,) * steps),
        Feed(shift=Pattern(values[5], 7), shares=ramp),
        Feed(Pattern(values[3], 7), Pattern(values[5], 1), ramp, other, Pattern(values[1], 1)),
        Feed(other=other, factor=Pattern(values[5], 11)),
    ]


def clips(steps: int, device: str) -> list[Clip]:
    """ReLU6 and a leaky ReLU with a bound, over amplitudes of channels that are last, or not."""
    relative = torch.rand(5, generator=torch.Generator().manual_seed(steps)).to(device) + 0.1
    worths = tuple(0.3 * 2.0**-step for step in range(steps))
    return [Clip(worths, 0.0, 0.0, 0.4, Pattern(relative, 1)), Clip(worths, 0.1, -0.2, torch.inf, Pattern(relative, 7))]


def undefined(z: Tensor) -> Tensor:
    """Estimates with no value in some places."""
    return torch.where(z > 2, torch.nan, torch.where(z < -2.5, torch.inf, z))


def main() -> None:
    torch.manual_seed(0)
    every = DEVICE == "cuda"  # interpreted, each code takes half of the combinations, in turn
    for number, code in enumerate(CODES):
        neurons = int(torch.randint(1, 1500 if every else 250, ())) if number else 1100  # of two programs
        z = torch.randn(code.steps, neurons) * 1.5
        held = torch.empty(code.steps + code.silent, neurons)
        units = tuple(1 + step / 7 for step in range(len(held)))
        track_reference.accumulate(z, held, beta=code.beta, units=units, gain=0.7)
        ours = torch.empty_like(held, device=DEVICE)
        track_gpu.accumulate(z.to(DEVICE), ours, beta=code.beta, units=units, gain=0.7)
        assert torch.equal(held, ours.cpu()), code
        for at, function in enumerate(FUNCTIONS):
            cases = ((False, None, z), (True, None, held), (True, 0.3, undefined(z)))
            for accumulated, unit, source in cases if every else cases[(number + at) % 2 :: 2]:
                how = {"accumulated": accumulated, "unit": unit, "gain": 1.3}
                wanted = tracked(track_reference, source, code, function, **how)
                found = tracked(track_gpu, source.to(DEVICE), code, function, **how)
                assert all(map(torch.equal, wanted, found)), (code, function)
        how = {"accumulated": False, "unit": None, "gain": 1.3}
        for feed, same in zip(feeds(code.steps, neurons, "cpu"), feeds(code.steps, neurons, DEVICE), strict=True):
            wanted = tracked(track_reference, z, code, FUNCTIONS[1], **how, feed=feed)
            found = tracked(track_gpu, z.to(DEVICE), code, FUNCTIONS[1], **how, feed=same)
            assert all(map(torch.equal, wanted, found)), (code, feed)
            track_reference.accumulate(z, held, beta=code.beta, units=units, gain=0.7, feed=feed)
            track_gpu.accumulate(z.to(DEVICE), ours, beta=code.beta, units=units, gain=0.7, feed=same)
            assert torch.equal(held, ours.cpu()), (code, feed)
        how["unit"] = 0.3
        pairs = zip(clips(code.steps, "cpu"), clips(code.steps, DEVICE), strict=True)
        for (clip, same), full in zip(pairs, (False, True), strict=True):
            feed, fed = (feeds(code.steps, neurons, device)[2] if full else PLAIN for device in ("cpu", DEVICE))
            wanted = tracked(track_reference, undefined(z), code, tsa.IDENTITY, **how, feed=feed, clip=clip)
            found = tracked(track_gpu, undefined(z).to(DEVICE), code, tsa.IDENTITY, **how, feed=fed, clip=same)
            assert all(map(torch.equal, wanted, found)), (code, clip)
        for accumulated, source in ((False, z), (True, undefined(z))):
            cuts = (1, code.silent + 1)
            for cut in cuts if every else (cuts[(number + accumulated) % 2],):
                wanted = in_pieces(track_reference, source, code, accumulated=accumulated, cut=cut)
                found = in_pieces(track_gpu, source.to(DEVICE), code, accumulated=accumulated, cut=cut)
                assert all(map(torch.equal, wanted, found)), (code, accumulated, cut)
        digits, start = tsa._digits(code.levels, scale=1.0), code.beta**-code.steps
        spikes, ours = torch.empty(code.steps, neurons), torch.empty(code.steps, neurons, device=DEVICE)
        track_reference.encode(z[0] * 9, spikes, beta=code.beta, start=start, digits=digits)
        track_gpu.encode((z[0] * 9).to(DEVICE), ours, beta=code.beta, start=start, digits=digits)
        assert torch.equal(spikes, ours.cpu()), code
    print("equal")


if __name__ == "__main__":
    main()
