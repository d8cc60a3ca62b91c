from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from transpike import ConfigError, DataError
from transpike.neurons import (
    ATan,
    DCTLIFNode,
    IFNode,
    LIFNode,
    ParametricLIFNode,
    Rectangular,
    Sigmoid,
    Triangular,
    TSANode,
    reset_net,
)

from . import oracle

NODES = [
    lambda **kw: IFNode(**kw),
    lambda **kw: IFNode(v_threshold=0.7, v_reset=None, surrogate_function=ATan(), **kw),
    lambda **kw: IFNode(v_reset=-0.2, surrogate_function=Triangular(), **kw),
    lambda **kw: LIFNode(**kw),
    lambda **kw: LIFNode(tau=3.0, decay_input=False, v_reset=None, surrogate_function=Rectangular(), **kw),
    lambda **kw: LIFNode(tau=1.3, v_threshold=0.5, v_reset=0.1, surrogate_function=ATan(alpha=3.0), **kw),
    lambda **kw: ParametricLIFNode(**kw),
    lambda **kw: ParametricLIFNode(init_tau=3.0, decay_input=False, v_reset=0.1, **kw),
    lambda **kw: ParametricLIFNode(init_tau=1.5, v_reset=None, surrogate_function=Triangular(), **kw),
    lambda **kw: TSANode(**kw),
    lambda **kw: TSANode(beta=1.5, v_threshold=0.8, surrogate_function=Sigmoid(), **kw),
    lambda **kw: DCTLIFNode(**kw),
    lambda **kw: DCTLIFNode(leak=0.9, v_threshold=0.6, leak_when="silent", surrogate_function=ATan(), **kw),
]
every_node = pytest.mark.parametrize("make", NODES, ids=lambda make: repr(make()).replace("\n", ""))


def _gradients(node, x, v, mix):
    """Spikes, membrane, and gradients of input, first membrane and w, from a loss that uses both outputs."""
    x, node.v = x.clone().requires_grad_(), v.clone().requires_grad_()
    leaves = [x, node.v, *node.parameters()]
    s = node(x)
    return s, node.v, *torch.autograd.grad((s * mix[:-1]).sum() + (node.v * mix[-1]).sum(), leaves)


@pytest.mark.parametrize("detach_reset", [False, True])
@every_node
def test_equals_the_equations_in_float64(make, detach_reset):
    torch.manual_seed(1)
    node = make(detach_reset=detach_reset, step_mode="m")
    x, v, mix = torch.randn(7, 2000) + 0.3, 0.3 * torch.randn(2000), torch.randn(8, 2000)
    leaves = [t.double().requires_grad_() for t in (x, v, *node.parameters())]
    s, last = oracle.run(node, *leaves)
    grads = torch.autograd.grad((s * mix[:-1]).sum() + (last * mix[-1]).sum(), leaves)
    assert 0.05 < s.abs().mean() < 0.9
    fused = _gradients(node, x, v, mix)
    node.reset()
    exact = _gradients(node.double(), x.double(), v.double(), mix)
    for ours, wanted in zip(exact, (s, last, *grads), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(fused[0].double(), s)
    for ours, wanted in zip(fused[1:], (last, *grads), strict=True):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5 * scale)


@every_node
def test_single_steps_and_chunks_equal_the_whole(make):
    torch.manual_seed(2)
    x, mix = torch.randn(6, 300), torch.randn(6, 300)
    results = []
    for cuts in ([6], [1, 3, 2], [1] * 6):
        node = make(step_mode="m" if cuts != [1] * 6 else "s")
        leaf = x.clone().requires_grad_()
        pieces = leaf.split(cuts) if node.step_mode == "m" else leaf.unbind()
        s = torch.cat([node(piece) for piece in pieces]).view(6, 300)
        grads = torch.autograd.grad((s * mix).sum() + node.v.sum(), [leaf, *node.parameters()])
        results.append((s, node.v, *grads))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0]) and torch.equal(other[1], results[0][1])
        for ours, whole in zip(other[2:], results[0][2:], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-5 * whole.abs().max().item())


@given(
    x=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20),
    threshold=st.floats(0.25, 2, width=32),
    beta=st.sampled_from([1.0, 1.5, 2.0]),
)
@settings(max_examples=60, deadline=None)
def test_soft_reset_conserves_charge(x, threshold, beta):
    x = torch.tensor(x).view(-1, 1)
    weights = torch.tensor([beta ** (len(x) - 1 - t) for t in range(len(x))], dtype=torch.float64).view(-1, 1)
    nodes = [TSANode(beta=beta, v_threshold=threshold, step_mode="m")]
    if beta == 1:
        nodes.append(IFNode(v_threshold=threshold, v_reset=None, step_mode="m"))
        nodes.append(DCTLIFNode(leak=1.0, v_threshold=threshold, step_mode="m"))
    for node in nodes:
        s = node(x)
        emitted = (weights * threshold * s.double()).sum()
        torch.testing.assert_close((weights * x.double()).sum(), emitted + node.v.double().sum(), rtol=1e-4, atol=1e-4)


@given(st.lists(st.floats(-0.5, 0.5, width=32), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_tsa_residual_stays_within_half_a_spike(x):
    """|beta v + x| <= 3/2 keeps |v| <= 1/2: for beta 2 that is |x| <= 1/2."""
    node = TSANode(beta=2.0)
    for value in x:
        node(torch.tensor([value]))
        assert abs(node.v.item()) <= 0.5


PAIRS = [
    (IFNode, neuron.IFNode, {}),
    (IFNode, neuron.IFNode, {"v_reset": None, "v_threshold": 0.5}),
    (LIFNode, neuron.LIFNode, {}),
    (LIFNode, neuron.LIFNode, {"tau": 4.0, "decay_input": False, "v_reset": None, "detach_reset": True}),
    (LIFNode, neuron.LIFNode, {"v_reset": 0.25, "v_threshold": 0.75}),
    (ParametricLIFNode, neuron.ParametricLIFNode, {"init_tau": 2.0}),
    (ParametricLIFNode, neuron.ParametricLIFNode, {"init_tau": 4.0, "v_reset": 0.25, "decay_input": False}),
]


@pytest.mark.parametrize(("ours", "theirs", "keywords"), PAIRS)
def test_equals_spikingjelly(ours, theirs, keywords):
    torch.manual_seed(3)
    a = ours(surrogate_function=ATan(alpha=3.0), step_mode="m", **keywords)
    b = theirs(surrogate_function=surrogate.ATan(alpha=3.0), step_mode="m", **keywords)
    x, mix = torch.randn(5, 4, 50) + 0.5, torch.randn(5, 4, 50)
    assert a.v == b.v
    results = []
    for node in (a, b):
        leaf = x.clone().requires_grad_()
        s = node(leaf)
        results.append((s, node.v, *torch.autograd.grad((s * mix).sum(), [leaf, *node.parameters()])))
    assert torch.equal(results[0][0], results[1][0])
    for mine, reference in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


def test_keywords_and_defaults_are_spikingjellys():
    for ours, theirs in (
        (IFNode, neuron.IFNode),
        (LIFNode, neuron.LIFNode),
        (ParametricLIFNode, neuron.ParametricLIFNode),
    ):
        a, b = ours.__init__.__annotations__, theirs.__init__.__annotations__
        assert set(b) <= set(a)
        mine, reference = ours(), theirs()
        for name in ("v_threshold", "v_reset", "detach_reset", "step_mode", "store_v_seq", "v"):
            assert getattr(mine, name) == getattr(reference, name)
        assert mine.surrogate_function == Sigmoid(alpha=reference.surrogate_function.alpha)


def test_a_foreign_surrogate_runs_on_the_reference():
    torch.manual_seed(4)
    x = torch.randn(4, 30)
    results = []
    for function in (ATan(), surrogate.ATan(), lambda d: ATan()(d)):
        leaf = x.clone().requires_grad_()
        s = LIFNode(surrogate_function=function, step_mode="m")(leaf)
        (grad,) = torch.autograd.grad(s.sum(), leaf)
        results.append((s, grad))
    for s, grad in results[1:]:
        assert torch.equal(s, results[0][0])
        torch.testing.assert_close(grad, results[0][1])


def test_the_membrane_of_every_step():
    torch.manual_seed(5)
    x = torch.randn(5, 3)
    whole, step, plain = LIFNode(step_mode="m", store_v_seq=True), LIFNode(store_v_seq=True), LIFNode()
    whole(x)
    membranes = []
    for current in x:
        step(current)
        plain(current)
        membranes.append(plain.v)
    assert torch.equal(whole.v_seq, torch.stack(membranes)) and torch.equal(step.v_seq, whole.v_seq)
    step.reset()
    assert step.v_seq is None and step.v == 0.0


def test_reset_and_detach():
    net = nn.Sequential(IFNode(v_reset=-0.5), neuron.LIFNode())
    net(torch.tensor([0.4], requires_grad=True))
    net[0].detach()
    assert not net[0].v.requires_grad
    reset_net(net)
    assert net[0].v == -0.5 and float(net[1].v) == 0
    functional.reset_net(net)
    functional.set_step_mode(net, "m")
    functional.detach_net(net)
    assert net[0].step_mode == "m"


def test_copies_and_pickles_begin_at_rest():
    node = ParametricLIFNode()
    node(torch.tensor([0.4], requires_grad=True))
    for twin in (copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert twin.v == 0.0 and twin.w == node.w
    assert list(node.state_dict()) == ["w"]


def test_states_of_two_nodes_are_their_own():
    a, b = IFNode(), IFNode()
    a(torch.tensor([0.4]))
    assert b.v == 0.0


def test_nan_in_nan_out():
    for node in (LIFNode(step_mode="m"), TSANode(step_mode="m"), LIFNode(step_mode="m", backend="torch")):
        s = node(torch.tensor([[0.0, 3.0], [math.nan, 3.0], [0.0, 3.0]]))
        assert s[:, 0].isnan().tolist() == [False, True, True]
        assert s[:, 1].tolist() == [1, 1, 1]
        assert node.v.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("node", "x", "message"),
    [
        (IFNode(step_mode="m"), torch.ones(3), r"\[T, N, \*\], got a tensor of shape \[3\]"),
        (IFNode(), torch.tensor(1.0), r"\[N, \*\], got a tensor of shape \[\]"),
        (IFNode(step_mode="m"), torch.ones(0, 3), "T = 0"),
        (IFNode(), torch.ones(3, dtype=torch.int64), "floating point"),
    ],
)
def test_inputs_that_cannot_be(node, x, message):
    with pytest.raises(DataError, match=message):
        node(x)


def test_a_membrane_of_another_batch_size():
    node = LIFNode(step_mode="m")
    node(torch.ones(4, 8, 3))
    with pytest.raises(DataError, match=r"shape \[8, 3\] from an earlier call.*\[5, 3\].*reset_net"):
        node(torch.ones(4, 5, 3))
    reset_net(node)
    assert node(torch.ones(4, 5, 3)).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIFNode(tau=1.0), "tau=1.0: expected a number above 1"),
        (lambda: LIFNode(tau=math.inf), "tau=inf"),
        (lambda: ParametricLIFNode(init_tau=0.5), "init_tau=0.5: expected a number above 1"),
        (lambda: IFNode(v_threshold=0.0), "v_threshold=0.0: expected a number above 0"),
        (lambda: IFNode(v_threshold=math.nan), "v_threshold=nan"),
        (lambda: IFNode(v_reset=1.0), "v_reset=1.0: expected a number below 1"),
        (lambda: IFNode(step_mode="x"), "step_mode"),
        (lambda: IFNode(backend="cupy"), "backend"),
        (lambda: LIFNode(tau="2"), "tau='2': expected a number above 1"),
        (lambda: LIFNode(surrogate_function="ATan"), r"a function of a tensor, ATan\(\) for instance, got 'ATan'"),
        (lambda: LIFNode(surrogate_function=ATan), "surrogate_function must be a function of a tensor"),
        (lambda: TSANode(beta=0.5), "beta"),
        (lambda: DCTLIFNode(leak=1.5), "leak"),
        (lambda: DCTLIFNode(leak_when="never"), "leak_when"),
    ],
)
def test_parameters_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_settings_may_be_numpys_or_pytorchs():
    x = torch.rand(4, 8) * 3
    plain, other = LIFNode(tau=2.0, step_mode="m"), LIFNode(np.float32(2), torch.tensor(1.0), step_mode="m")
    assert torch.equal(plain(x), other(x))
