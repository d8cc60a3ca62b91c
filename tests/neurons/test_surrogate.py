from __future__ import annotations

import math

import pytest
import torch

from transpike import ConfigError
from transpike.neurons import ATan, Rectangular, Sigmoid, Ternary, Triangular

SURROGATES = [ATan(), ATan(alpha=5.0), Sigmoid(), Sigmoid(alpha=1.0), Triangular(0.3, 2.0), Rectangular(0.7)]
ALL = [*SURROGATES, *(Ternary(binary, 0.4) for binary in SURROGATES)]


@pytest.mark.parametrize("surrogate", ALL, ids=repr)
def test_derivative_is_that_of_the_primitive(surrogate):
    x = torch.linspace(-3.001, 3.003, 501, dtype=torch.float64, requires_grad=True)
    (numeric,) = torch.autograd.grad(surrogate.primitive(x).sum(), x)
    torch.testing.assert_close(surrogate.derivative(x.detach()), numeric, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_step_forward_and_derivative_backward(surrogate):
    x = torch.tensor([-1.0, -1e-7, 0.0, 0.2, math.inf], requires_grad=True)
    spike = surrogate(x)
    assert spike.tolist() == [0, 0, 1, 1, 1]
    (grad,) = torch.autograd.grad(spike.sum(), x)
    torch.testing.assert_close(grad, surrogate.derivative(x.detach()))
    assert surrogate(torch.tensor([math.nan])).isnan().all()


def test_values_at_the_threshold_are_the_published_ones():
    zero = torch.zeros(1)
    assert ATan(alpha=2.0).derivative(zero) == 1  # alpha / 2
    assert Sigmoid(alpha=4.0).derivative(zero) == 1  # alpha / 4
    # DCT-SNN Eq. 11 with v_th = 2 at u = 3: 0.3 max(0, 1 - |3/2 - 1|)
    torch.testing.assert_close(Triangular(gamma=0.3, width=2.0).derivative(zero + 1), zero + 0.15)


def test_rectangles_at_both_thresholds_are_straight_through():
    x = torch.linspace(-0.99, 0.99, 199, dtype=torch.float64)
    pair = Ternary(Rectangular(width=1.0), threshold=0.5)
    off_threshold = ((x.abs() - 0.5).abs() < 0.499) & (x != 0)
    assert (pair.derivative(x)[off_threshold] == 1).all()
    assert (pair.derivative(x * 2)[x.abs() > 0.51] == 0).all()


@pytest.mark.parametrize("make", [lambda: ATan(0.0), lambda: Sigmoid(-1.0), lambda: Triangular(1.0, math.nan)])
def test_parameters_are_positive(make):
    with pytest.raises(ConfigError, match="expected a number above 0"):
        make()
