"""Operation counts against brute force, and the energy of known networks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transpike import CSS
from transpike.coding import Rate
from transpike.coding.function import Function
from transpike.coding.operations import Technology
from transpike.coding.scheme import encoder_operations, payload_bits, readout_operations
from transpike.coding.tracking import TrackingNeuron
from transpike.errors import ConfigError
from transpike.metrics.energy import Operations, synaptic_operations

MULTI = CSS(steps=8, beta=2.0, silent=0, levels=(1, 2, 3, 4, 8, 10), amplitude="layer")


def updates(scheme: CSS, *, spikes: float, inputs: float = 100) -> Operations:
    """Of 100 neurons."""
    neuron = scheme.neuron(Function(), amplitude=1.0, wait=scheme.wait)
    assert isinstance(neuron, TrackingNeuron)
    return neuron.operations(neurons=100, spikes=spikes, inputs=inputs)


def test_the_figures_are_the_fields() -> None:
    assert Operations(macs=1).joules == pytest.approx(4.6e-12)
    assert Operations(accumulates=1).joules == pytest.approx(0.9e-12)
    assert Operations(multiplications=1).joules == pytest.approx(3.7e-12)
    assert Operations(neuron_multiplications=1, neuron_accumulates=1).energy()["neurons"] == pytest.approx(4.6e-12)


counts = st.integers(0, 10**9)


@given(a=counts, b=counts, c=counts, d=counts, factor=st.integers(0, 9))
def test_operations_and_their_energy_are_linear(a: int, b: int, c: int, d: int, factor: int) -> None:
    left = Operations(macs=a, shifts=b, spikes=c, payload_bits=d)
    right = Operations(accumulates=a, multiplications=b, neuron_shifts=c, neuron_accumulates=d)
    both = left * factor + right
    assert both.spikes == c * factor and both.payload_bits == d * factor and both.synops == a
    assert both.joules == pytest.approx(left.joules * factor + right.joules)
    assert both.joules == pytest.approx(sum(both.energy().values()))


def test_each_spike_costs_an_addition_per_target_and_its_payload_what_it_needs() -> None:
    work = synaptic_operations({-10: 1, -8: 2, -1: 3, 1: 4, 2: 5, 3: 6}, digits=MULTI.digits, fan_out=9)
    assert (work.spikes, work.synops) == (21, 189)
    assert (work.shifts, work.multiplications) == ((2 + 5) * 9, (1 + 6) * 9)
    assert work.payload_bits == 21 * 4  # a sign and one of six levels
    assert work.neuron_accumulates == work.macs == 0


def test_payload_bits() -> None:
    bits = {(True, (1,)): 1, (False, (1,)): 0, (True, (1, 2)): 2, (True, tuple(range(1, 17))): 5}
    for (signed, levels), expected in bits.items():
        assert payload_bits(CSS(levels=levels, signed=signed, silent=2, amplitude="layer").digits) == expected


@pytest.mark.parametrize(
    ("beta", "shifts", "additions", "multiplications"),
    [(2.0, 1, 0, 0), (4.0, 1, 0, 0), (1.5, 1, 1, 0), (3.0, 1, 1, 0), (2.25, 2, 1, 0), (1.75, 0, 0, 1), (1.6, 0, 0, 1)],
)
def test_amplification(beta: float, shifts: int, additions: int, multiplications: int) -> None:
    """Beyond a bias per step, an accumulator only amplifies."""
    work = readout_operations(CSS(steps=8, beta=beta, levels=(1, 2), silent=2, amplitude="layer"), values=10)
    assert work == Operations(
        neuron_shifts=80 * shifts, neuron_accumulates=80 * (additions + 1), neuron_multiplications=80 * multiplications
    )


def test_the_updates_of_firing_neurons() -> None:
    work = updates(CSS(steps=6, beta=1.5, silent=2, amplitude="layer"), spikes=250)
    assert work.neuron_shifts == 100 * 2 * 8
    # per neuron: 2 sums amplified 8 times; bias, difference and one comparison 6 times; and the spikes
    assert work.neuron_accumulates == 100 * (2 * 8 + 3 * 6) + 250
    more = updates(CSS(steps=6, beta=1.5, silent=2, levels=(1, 2, 4, 8), amplitude="layer"), spikes=250)
    assert more.neuron_accumulates - work.neuron_accumulates == 100 * 2 * 6  # 3 comparisons find one of 5 magnitudes


def test_each_input_of_a_maximum_keeps_a_sum_of_its_own() -> None:
    one, four = (
        updates(CSS(steps=6, beta=2.0, silent=2, amplitude="layer"), spikes=250, inputs=inputs) for inputs in (100, 400)
    )
    assert four.neuron_shifts - one.neuron_shifts == 300 * 8  # amplified over 8 steps
    assert four.neuron_accumulates - one.neuron_accumulates == 300 * 2 * 6  # a bias and a comparison in 6 steps


def test_rate_coding_amplifies_nothing_and_its_encoder_does_nothing() -> None:
    rate = Rate(steps=10)
    assert encoder_operations(rate, values=7, spikes=0) == Operations()
    assert readout_operations(rate, values=7) == Operations(neuron_accumulates=70)
    css = encoder_operations(CSS(steps=10, silent=2, amplitude="layer"), values=7, spikes=3)
    assert css == Operations(neuron_shifts=70, neuron_accumulates=73)


def test_a_newer_technology_has_its_own_figures() -> None:
    seven = Technology.of("7nm")
    work = Operations(macs=1, accumulates=1, shifts=1, multiplications=1)
    assert work.energy(seven)["macs"] == pytest.approx(1.69e-12) and work.energy(seven)["shifts"] == 0.03e-12
    assert work.joules_in(seven) == pytest.approx((1.69 + 0.38 + 0.03 + 1.31) * 1e-12)
    assert work.joules_in(Technology.of("45nm")) == work.joules and "memory" not in work.energy()


def test_memory_counts_where_it_is_asked_for() -> None:
    """A synapse takes three accesses, a dense product and a neuron's addition two; each is half of a 64-bit access."""
    work = Operations(macs=10, accumulates=100, neuron_accumulates=1000, shifts=7)
    assert work.energy(Technology.of("45nm", "1MB"))["memory"] == pytest.approx((20 + 300 + 2000) * 50e-12)
    assert work.joules_in(Technology.of("7nm", "8KB")) == pytest.approx(
        work.joules_in(Technology.of("7nm")) + 2320 * 3.75e-12
    )


@pytest.mark.parametrize(("node", "memory"), [("5nm", "none"), ("45nm", "64KB")])
def test_unknown_technologies_are_refused(node: Any, memory: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Technology.of(node, memory)
