"""The tracking neuron: its theorems, its equation, and the equality of its backends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from transpike.errors import ConfigError
from transpike.neurons import tsa
from transpike.neurons.kernels import track_reference
from transpike.neurons.kernels.track_reference import Final
from transpike.neurons.tsa import IDENTITY, RELU, Code, Piecewise, accumulate, change, decode, encode, estimate, track

MULTI = ((1,), (1, 2), (1, 2, 4, 8), (1, 2, 3), (1, 3, 4, 9), tuple(range(1, 17)), (1, *range(5, 15)))
FUNCTIONS = (RELU, IDENTITY, Piecewise(slope=0.1), Piecewise(high=17.3), Piecewise(slope=1.0, low=-3.1, high=2.7))

levels = st.sampled_from(MULTI)
seeds = st.integers(0, 2**31)
codes = st.builds(
    Code,
    steps=st.integers(1, 9),
    beta=st.floats(1.05, 4.5),
    silent=st.integers(0, 3),
    levels=levels,
    signed=st.booleans(),
)


def noise(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def reference(
    z: Tensor,
    code: Code,
    function: Piecewise,
    *,
    accumulated: bool = False,
    unit: float | None = None,
    gain: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the torch backend says of float32 currents ``[T, neurons]``: spikes, residual, target."""
    spikes, ends = torch.empty(code.steps, z.shape[1]), torch.empty(2, z.shape[1])
    track_reference.track(z, spikes, Final(*ends), tsa._tables(code, function, unit, gain), accumulated=accumulated)
    return spikes, ends[0], ends[1]


def by_the_book(z: Tensor, code: Code) -> Tensor:
    """The ternary neuron in double precision, written from its equation for one ReLU."""
    held, sent, spikes = torch.zeros_like(z[0]), torch.zeros_like(z[0]), []
    for step in range(code.steps + code.silent):
        held = code.beta * held + (z[step] if step < code.steps else 0)
        sent = code.beta * sent
        if step >= code.silent:
            gap = held.relu() - sent
            spike = (gap.abs() >= code.beta**code.silent / 2) * gap.sign()
            sent = sent + code.beta**code.silent * spike
            spikes.append(spike)
    return torch.stack(spikes)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, code=codes, function=st.sampled_from(FUNCTIONS), neurons=st.integers(1, 5000))
def test_the_cpu_kernel_equals_the_reference_to_the_bit(
    seed: int, code: Code, function: Piecewise, neurons: int
) -> None:
    z = noise(seed, code.steps, neurons, scale=1.5)
    held, expected = accumulate(z, beta=code.beta, silent=code.silent), torch.empty(code.steps + code.silent, neurons)
    track_reference.accumulate(z, expected, beta=code.beta, units=(1.0,) * len(held))
    assert torch.equal(held, expected)
    estimates, expected = estimate(z, beta=code.beta, unit=0.3), torch.empty(code.steps, neurons)
    units = tuple(0.3 * worth for worth in code.weights)
    track_reference.accumulate(z, expected, beta=code.beta, units=units)
    assert torch.equal(estimates, expected)
    estimates[noise(seed, code.steps, neurons) > 1] = torch.nan
    ours = track(estimates, code=code, function=function, unit=0.3, final=True)
    spikes, residual, target = reference(estimates, code, function, accumulated=True, unit=0.3)
    assert torch.equal(ours.spikes, spikes) and ours.residual is not None and torch.equal(ours.residual, residual)
    overwritten = track(estimates, code=code, function=function, unit=0.3, inplace=True).spikes
    assert overwritten.data_ptr() == estimates.data_ptr() and torch.equal(overwritten, spikes)
    for accumulated, source in ((False, z), (True, held)):
        ours = track(source, code=code, function=function, accumulated=accumulated, final=True)
        spikes, residual, target = reference(source, code, function, accumulated=accumulated)
        assert torch.equal(ours.spikes, spikes)
        assert ours.residual is not None and torch.equal(ours.residual, residual)
        assert ours.target is not None and torch.equal(ours.target, target)
        buffer = source.clone()
        overwritten = track(buffer, code=code, function=function, accumulated=accumulated, inplace=True).spikes
        assert overwritten.data_ptr() == buffer.data_ptr()
        assert torch.equal(overwritten, spikes)
    digits = torch.empty(code.steps, neurons)
    rule = tsa._digits(code.levels, scale=1.0, signed=True)
    track_reference.encode(z[0] * 9, digits, beta=code.beta, start=code.beta**-code.steps, digits=rule)
    assert torch.equal(encode(z[0] * 9, code=code), digits)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, code=codes, function=st.sampled_from(FUNCTIONS), gain=st.floats(0.01, 3.0))
def test_a_gain_is_the_gained_current_to_the_bit(seed: int, code: Code, function: Piecewise, gain: float) -> None:
    z = noise(seed, code.steps, 700, scale=1.5)
    ours = track(z, code=code, function=function, gain=gain, final=True)
    for expected in (reference(z * gain, code, function), reference(z, code, function, gain=gain)):
        assert all(map(torch.equal, (ours.spikes, ours.residual, ours.target), expected))  # type: ignore[arg-type]
    for found, plain in (
        (accumulate(z, beta=code.beta, silent=1, gain=gain), accumulate(z * gain, beta=code.beta, silent=1)),
        (estimate(z, beta=code.beta, unit=0.3, gain=gain), estimate(z * gain, beta=code.beta, unit=0.3)),
    ):
        assert torch.equal(found, plain)


@pytest.mark.parametrize("script", ["track_on_triton.py"] if find_spec("triton") else [])
def test_the_triton_kernels_equal_the_reference_to_the_bit(script: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name(script))]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


@settings(max_examples=30, deadline=None)
@given(seed=seeds, steps=st.integers(1, 10), beta=st.floats(1.1, 3), silent=st.integers(0, 3))
def test_the_ternary_neuron_obeys_its_equation(seed: int, steps: int, beta: float, silent: int) -> None:
    code = Code(steps=steps, beta=beta, silent=silent)
    z = noise(seed, steps, 500).double()
    assert torch.equal(track(z, code=code).spikes, by_the_book(z, code))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, code=codes, function=st.sampled_from(FUNCTIONS))
def test_charge_is_conserved_and_spikes_are_digits(seed: int, code: Code, function: Piecewise) -> None:
    z = noise(seed, code.steps, 300, scale=2.0).double()
    fired = track(z, code=code, function=function, final=True)
    assert set(fired.spikes.unique().tolist()) <= {0.0, *code.levels, *(-float(k) for k in code.levels)}
    assert code.signed or not (fired.spikes < 0).any()
    assert fired.residual is not None and fired.target is not None
    torch.testing.assert_close(fired.target, function(decode(z, beta=code.beta)))
    torch.testing.assert_close(decode(fired.spikes, beta=code.beta) + fired.residual, fired.target)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, steps=st.integers(1, 12), top=st.integers(1, 12), share=st.floats(0.01, 1))
def test_theorem_2_the_encoder_errs_by_half_an_amplitude_at_most(seed: int, steps: int, top: int, share: float) -> None:
    code = Code(steps=steps, beta=1 + 2 * top * share, levels=tuple(range(1, top + 1)))
    largest = top * sum(code.weights) + 0.5
    a = (torch.rand(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) * largest
    assert (decode(encode(a, code=code), beta=code.beta) - a).abs().max() <= 0.5 + 1e-12 * largest


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    steps=st.integers(1, 10),
    silent=st.integers(0, 3),
    top=st.integers(1, 12),
    share=st.floats(0.01, 1),
    function=st.sampled_from(FUNCTIONS),
)
def test_the_sufficient_bound(seed: int, steps: int, silent: int, top: int, share: float, function: Piecewise) -> None:
    """Currents within (2L + 1 - beta) beta^Ts / 2, of which at most beta^Ts / 2 gather in silence: error <= 1/2."""
    code = Code(steps=steps, beta=1 + 2 * top * share, silent=silent, levels=tuple(range(1, top + 1)))
    scale = code.beta**silent
    z = torch.rand(steps, 400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    z = (z * 3).clamp(-1, 1) * (2 * top + 1 - code.beta) * scale / 2
    if silent:
        listened = functional.pad(z[:silent], (0, 0, 0, max(0, silent - steps)))
        gathered = accumulate(listened, beta=code.beta, silent=0)[-1]
        z[:silent] *= (scale / 2 / gathered.abs().clamp_min(1e-9)).clamp_max(1)
    fired = track(z, code=code, function=function, final=True)
    assert fired.residual is not None
    assert fired.residual.abs().max() <= 0.5 + 1e-9


def test_beyond_the_bound_it_fails() -> None:
    """Without silence a ternary train that is all ones first and negative then is told too late."""
    z = torch.tensor([2.0, -1.0, -1.0, -1.0])[:, None]
    fired = track(z, code=Code(steps=4, beta=1.5, silent=0), final=True)
    assert fired.residual is not None and fired.residual.abs().item() > 0.5


@settings(max_examples=30, deadline=None)
@given(seed=seeds, code=codes, dtype=st.sampled_from((torch.float32, torch.float64)))
def test_estimates_run_to_the_value_and_their_changes_are_the_currents(
    seed: int, code: Code, dtype: torch.dtype
) -> None:
    z = noise(seed, code.steps, 3, 70).to(dtype)
    estimates, weights = estimate(z, beta=code.beta, unit=0.3), [0.3 * weight for weight in code.weights]
    worth = torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1)
    close = partial(torch.testing.assert_close, rtol=0, atol=(1e-4 if dtype == torch.float32 else 1e-12) * weights[0])
    close(estimates.double(), (z.double() * worth).cumsum(0))
    close(estimates[-1], decode(z, beta=code.beta) * 0.3)
    assert torch.equal(estimate(z.clone(), beta=code.beta, unit=0.3, inplace=True), estimates)
    again = change(estimates, weights=weights)
    assert again.data_ptr() == estimates.data_ptr()
    close(again * worth, z * worth)
    silent = change(torch.ones(2, 5, dtype=dtype), weights=(0.0, 0.5))
    assert silent.tolist() == [[0.0] * 5, [0.0] * 5]


@settings(max_examples=30, deadline=None)
@given(seed=seeds, code=codes, function=st.sampled_from((RELU, Piecewise(slope=0.1), Piecewise(high=5.0))))
def test_max_pooling_by_tracking_is_exact(seed: int, code: Code, function: Piecewise) -> None:
    """The pooled neuron aims at the pooled activation itself, whichever input of the window leads at each step."""
    z = noise(seed, code.steps, 2, 3, 6, 6).double()
    held = accumulate(z, beta=code.beta, silent=code.silent)
    pooled = functional.max_pool2d(held.flatten(0, 1), 2).unflatten(0, (-1, 2))
    fired = track(pooled, code=code, function=function, accumulated=True, final=True)
    expected = functional.max_pool2d(function(decode(z, beta=code.beta)), 2)
    torch.testing.assert_close(fired.target, expected)
    assert fired.residual is not None
    torch.testing.assert_close(decode(fired.spikes, beta=code.beta) + fired.residual, expected)
    unpooled = track(held, code=code, function=function, accumulated=True).spikes
    assert torch.equal(unpooled, track(z, code=code, function=function).spikes)


def test_max_pooling_of_bounded_currents_errs_by_half_an_amplitude_at_most() -> None:
    code = Code(steps=9, beta=2.0, silent=2)
    z = (torch.rand(9, 4, 8, 16, 16) - 0.5).double() * 4
    z[:2] /= 6  # what gathers in silence is at most 3 * 2/6 = 1, below beta^2 / 2
    held = accumulate(z, beta=2.0, silent=2)
    pooled = functional.max_pool2d(held.flatten(0, 1), 3, 2, 1).unflatten(0, (-1, 4))
    fired = track(pooled, code=code, accumulated=True)
    expected = functional.max_pool2d(decode(z, beta=2.0).relu(), 3, 2, 1)
    assert (decode(fired.spikes, beta=2.0) - expected).abs().max() <= 0.5 + 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=seeds, code=codes, cut=st.integers(1, 6))
def test_a_part_of_a_batch_equals_the_whole(seed: int, code: Code, cut: int) -> None:
    z = noise(seed, code.steps, 7, 33)
    whole = track(z, code=code).spikes
    parts = [track(part, code=code).spikes for part in (z[:, :cut], z[:, cut:])]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_memory_formats_and_data_types_are_kept() -> None:
    code = Code(steps=6, beta=2.0)
    z = noise(0, 6, 4, 8, 5, 5)
    expected = track(z, code=code, final=True)
    last = z.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (6, 4))
    for other in (last, z.transpose(0, 1).contiguous().transpose(0, 1)):
        fired = track(other, code=code, final=True)
        assert torch.equal(fired.spikes, expected.spikes)
        assert fired.residual is not None and expected.residual is not None
        assert torch.equal(fired.residual, expected.residual)
        assert torch.equal(accumulate(other, beta=2.0, silent=1), accumulate(z, beta=2.0, silent=1))
    assert track(last, code=code).spikes.stride() == last.stride()
    assert encode(last[0], code=code)[2].stride() == last[0].stride()
    half = track(z.bfloat16(), code=code).spikes
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.float(), track(z.bfloat16().float(), code=code).spikes)
    assert track(z[:, :0], code=code, final=True).spikes.shape == (6, 0, 8, 5, 5)


def test_threads_agree_and_survive_a_fork() -> None:
    code, z = Code(steps=8, beta=2.0), noise(0, 8, 50_001)
    expected, threads = track(z, code=code).spikes, torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(track(z, code=code).spikes, expected)
        with ThreadPoolExecutor(4) as pool:
            assert all(
                torch.equal(fired.spikes, expected) for fired in pool.map(lambda _: track(z, code=code), range(8))
            )
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if (track(z, code=code).spikes.numpy() == expected.numpy()).all() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


def test_compilation_is_announced_once_and_a_damaged_cache_of_kernels_is_made_anew(tmp_path: Path) -> None:
    call = "accumulate(torch.ones(2, 1), beta=2.0, silent=0)"
    program = f"import torch; from transpike.neurons.tsa import *; {call}; print({call})"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    first = run()
    assert first.stderr.count("compiling the CPU kernels") == 1
    files = list(tmp_path.rglob("*_accumulate*.nb[ic]"))
    assert {file.suffix for file in files} == {".nbi", ".nbc"}
    for file, damage in zip(sorted(files), itertools.cycle([b"", b"nothing", b"\x80\x04\x95"])):
        file.write_bytes(damage)
    again = run()
    assert again.stdout == first.stdout and "are damaged" in again.stderr
    found = run()  # in the cache
    assert "damaged" not in found.stderr and "compiling" not in found.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"silent": -1},
        {"beta": 0.99},
        {"start": 1.0, "signed": False},
        {"start": 0.0},
        {"beta": float("nan")},
        {"levels": ()},
        {"levels": (2, 4)},
        {"levels": (1, 2, 2)},
        {"steps": 200},
    ],
)
def test_impossible_codes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Code(**({"steps": 8, "beta": 2.0} | wrong))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Piecewise(low=1.0, high=0.0)


def test_impossible_inputs_are_refused() -> None:
    code = Code(steps=4, beta=2.0, levels=(1, 500))
    with pytest.raises(ValueError, match=r"\[4, N, \*\] with time first, got torch\.float32 of shape \(5, 2\)"):
        track(torch.zeros(5, 2), code=code)
    with pytest.raises(ValueError, match=r"torch\.int64"):
        track(torch.zeros(4, 2, dtype=torch.int64), code=code)
    with pytest.raises(ValueError, match="does not hold"):
        track(torch.zeros(4, 2, dtype=torch.bfloat16), code=code)
