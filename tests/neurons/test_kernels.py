"""The fused kernels against the reference, and as PyTorch sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from transpike.errors import DataError
from transpike.neurons import (
    ATan,
    DCTLIFNode,
    Dynamics,
    IFNode,
    LIFNode,
    ParametricLIFNode,
    Rectangular,
    Sigmoid,
    Triangular,
    TSANode,
    multi_step,
    reset_net,
)
from transpike.neurons.kernels import reference, threads

LIF = Dynamics(1.0, decay=0.5, gain=0.5, carry=0.0)
OPERATOR = torch.ops.transpike.neuron.default
numbers = st.floats(-1, 1, width=32)
neurons = st.builds(
    Dynamics,
    threshold=st.floats(0.25, 1.5, width=32),
    decay=st.floats(0, 2, width=32),
    gain=numbers,
    bias=numbers,
    carry=st.sampled_from([0.0, 0.5, 1.0]),
    rest=numbers,
    drop=st.floats(0, 2, width=32),
    keep=st.sampled_from([0.5, 1.0]),
    start=numbers,
    ternary=st.sampled_from([0, 1]),
    detach_reset=st.sampled_from([0, 1]),
)
surrogates = st.sampled_from([ATan(), ATan(8.0), Sigmoid(), Sigmoid(20.0), Triangular(0.3, 0.7), Rectangular(0.9)])


@settings(max_examples=80, deadline=None)
@given(dynamics=neurons, surrogate=surrogates, data=st.data())
def test_the_cpu_kernel_equals_the_reference(dynamics, surrogate, data):
    seed, steps, size = (data.draw(st.integers(1, high)) for high in (1 << 30, 9, 20_000))
    learned, state = data.draw(st.booleans()), data.draw(st.booleans())
    torch.manual_seed(seed)
    x, v, mix = torch.randn(steps, size), torch.randn(size), torch.randn(steps + 1, size)
    charge = torch.rand(3)

    def run(step, dtype):
        leaves = [x.to(dtype, copy=True).requires_grad_()]
        start = v.to(dtype, copy=True).requires_grad_() if state else None
        coefficients = charge.to(dtype, copy=True).requires_grad_() if learned else None
        leaves += [leaf for leaf in (start, coefficients) if leaf is not None]
        if step is multi_step:
            s, last = step(leaves[0], start, dynamics, surrogate, charge=coefficients)
        else:
            s, last, _ = step(leaves[0], start, coefficients, dynamics, surrogate)
        weighted = (s * mix[:-1].to(dtype)).sum() + (last * mix[-1].to(dtype)).sum()
        return s, last, torch.autograd.grad(weighted, leaves)

    s, last, grads = run(multi_step, torch.float32)
    s_reference, last_reference, rounded = run(reference.multi_step, torch.float32)
    assert torch.equal(s, s_reference) and torch.equal(last, last_reference)
    # Gradients of steep surrogates grow over time, and rounding errors with them: float64 is the truth, and ours may
    # be as far from it as the reference in float32.
    s_exact, _, truth = run(reference.multi_step, torch.float64)
    assume(torch.equal(s.double(), s_exact))
    for grad, other, exact in zip(grads, rounded, truth, strict=True):
        allowed = 1e-5 * max(1.0, exact.abs().max().item()) + 10 * (other - exact).abs().max().item()
        torch.testing.assert_close(grad.double(), exact, rtol=1e-5, atol=allowed)


def _layouts():
    x = torch.randn(3 * 2, 5, 4, 6)
    yield x.view(3, 2, 5, 4, 6)
    yield x.to(memory_format=torch.channels_last).view(3, 2, 5, 4, 6)
    yield torch.randn(2, 3, 7).transpose(0, 1)
    yield torch.randn(3, 2, 14)[..., ::2]
    yield torch.randn(3, 1, 7).expand(3, 2, 7)
    yield torch.randn(3, 0, 7)


@pytest.mark.parametrize("x", list(_layouts()), ids=lambda x: str(x.stride()))
def test_memory_formats(x):
    leaf, twin = x.clone().requires_grad_(), x.contiguous().clone().requires_grad_()
    v = torch.randn_like(x[0])
    s, last = multi_step(leaf.as_strided(x.shape, x.stride()) if x.is_contiguous() else leaf, v, LIF, Sigmoid())
    s_twin, last_twin = multi_step(twin, v.contiguous(), LIF, Sigmoid())
    assert torch.equal(s, s_twin) and torch.equal(last, last_twin)
    grad = torch.randn(x.shape[1:] + x.shape[:1]).movedim(-1, 0)
    for ours, wanted in zip((s, leaf), (s_twin, twin), strict=True):
        assert ours.shape == wanted.shape
    torch.testing.assert_close(*(torch.autograd.grad(a, b, grad)[0] for a, b in ((s, leaf), (s_twin, twin))))


def test_channels_last_stays():
    x = torch.randn(6, 5, 4, 6).to(memory_format=torch.channels_last).view(3, 2, 5, 4, 6).requires_grad_()
    s, last = multi_step(x, None, LIF, Sigmoid())
    (grad,) = torch.autograd.grad(s.sum(), x)
    assert s.stride() == grad.stride() == x.stride() and last.stride() == x.stride()[1:]


@pytest.fixture(params=["PyTorch's", "ours"])
def _threads(request, monkeypatch):
    """Either kind of threads."""
    if request.param == "ours":
        monkeypatch.setattr(threads, "_run_team", None)
    elif threads._run_team is None:
        pytest.skip("PyTorch has no OpenMP here that calls functions of others")
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_threads")
def test_threads_change_nothing():
    x, charge = torch.randn(4, 100_000), torch.tensor([0.6, 0.4, 0.1], requires_grad=True)
    results = []
    for number in (1, 2, 3, 5):
        torch.set_num_threads(number)
        s, last = multi_step(x, None, LIF, Sigmoid(), charge=charge)
        results.append((s, last, *torch.autograd.grad(s.sum(), charge)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


@pytest.mark.usefixtures("_threads")
def test_all_threads_work_and_an_error_in_one_leaves_nothing_behind():
    torch.set_num_threads(2)
    workers, all_work, done = set(), threading.Event(), []

    def piece(fails, lo, hi):
        workers.add(threading.get_ident())
        if len(workers) == 2:
            all_work.set()
        assert all_work.wait(60)
        if fails and lo == 0:
            raise DataError("the first piece")
        done.append((lo, hi))

    for fails in (True, False):
        workers.clear()
        all_work.clear()
        done.clear()
        with pytest.raises(DataError, match="the first piece") if fails else nullcontext():
            threads.spread(piece, (fails,), items=1 << 20, cost=1, align=1)
    ordered = sorted(done)
    assert ordered[0][0] == 0 and ordered[-1][1] == 1 << 20
    assert all(one[1] == two[0] for one, two in pairwise(ordered))


@pytest.mark.skipif(sys.platform != "linux", reason="LLVM's OpenMP calls functions of others on Linux alone")
def test_pytorch_s_own_threads_are_found():
    assert threads._run_team or not torch.backends.openmp.is_available()


@pytest.mark.usefixtures("_threads")
def test_concurrent_callers_and_a_fork():
    torch.set_num_threads(2)
    x = torch.randn(4, 50_000)
    s, _ = multi_step(x, None, LIF, Sigmoid())
    with ThreadPoolExecutor(4) as pool:
        for other, _ in pool.map(lambda _: multi_step(x, None, LIF, Sigmoid()), range(16)):
            assert torch.equal(other, s)
    child = os.fork()
    if child == 0:  # compares by NumPy, since OpenMP, which PyTorch uses, does not outlive a fork
        os._exit(0 if (multi_step(x, None, LIF, Sigmoid())[0].numpy() == s.numpy()).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_float32_membrane(dtype):
    x = torch.randn(5, 300).to(dtype)
    results = []
    for run in (x, x.float()):
        leaf = run.clone().requires_grad_()
        s, last = multi_step(leaf, None, LIF, Sigmoid())
        assert s.dtype == run.dtype and last.dtype == torch.float32
        results.append((s.float(), last, torch.autograd.grad(s.sum(), leaf)[0].float()))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_the_operators_are_what_pytorch_expects(learned, state):
    x = torch.randn(3, 2, 5, requires_grad=True)
    v = torch.randn(2, 5, requires_grad=True) if state else None
    charge = torch.tensor([0.5, 0.5, 0.0], requires_grad=True) if learned else None
    surrogate = [0.0, 2.0, 1.0]
    given = (x, v, charge, [float(number) for number in LIF], surrogate)
    torch.library.opcheck(OPERATOR, given)
    for grads in ((torch.randn(3, 2, 5), None), (torch.randn(3, 2, 5), torch.randn(2, 5))):
        plain = (None if tensor is None else tensor.detach() for tensor in given[:3])
        torch.library.opcheck(torch.ops.transpike.neuron_backward.default, (*grads, *plain, *given[3:]))


def test_a_second_derivative_is_refused():
    weight = torch.ones(5, requires_grad=True)
    (first,) = torch.autograd.grad(LIFNode(step_mode="m")(torch.rand(3, 5) * weight).sum(), weight, create_graph=True)
    with pytest.raises(NotImplementedError, match='backend="torch"'):
        first.square().sum().backward()


@pytest.mark.parametrize("surrogate", [ATan(), Sigmoid(), Triangular(), Rectangular()], ids=repr)
@pytest.mark.parametrize("kind", [IFNode, LIFNode, ParametricLIFNode, TSANode, DCTLIFNode])
def test_forward_mode_derivatives_are_those_of_the_backward_pass(kind, surrogate):
    x, direction = 2 * torch.randn(4, 2, 3), torch.randn(4, 2, 3)

    def fire(x):
        return kind(step_mode="m", surrogate_function=surrogate)(x)

    backward = torch.autograd.functional.jacobian(fire, x)
    assert backward.abs().max() > 0
    torch.testing.assert_close(torch.func.jacfwd(fire)(x), backward)
    expected = (backward.flatten(3) @ direction.flatten()).view_as(x)
    torch.testing.assert_close(torch.func.jvp(fire, (x,), (direction,))[1], expected)
    with forward_ad.dual_level():
        dual = fire(forward_ad.make_dual(x, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)
        membrane = kind(step_mode="m", surrogate_function=surrogate)
        membrane.v = forward_ad.make_dual(torch.zeros(2, 3), direction[0])
        spikes = membrane(x)
        assert forward_ad.unpack_dual(spikes).tangent.abs().max() > 0


def test_a_hessian_by_forward_over_reverse():
    x = 2 * torch.randn(3, 1, 2)

    def energy(backend):
        return lambda x: LIFNode(step_mode="m", backend=backend)(x).add(1).square().sum()

    expected = torch.autograd.functional.hessian(energy("torch"), x)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(torch.func.hessian(energy("auto"))(x), expected)


@pytest.mark.parametrize("far", [1e12, 1e17, 3e38])
def test_far_from_the_threshold_no_gradient_is_left(far):
    x = torch.full((2, 3), far, requires_grad=True)
    LIFNode(step_mode="m", surrogate_function=Sigmoid())(x).sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("x", "v", "told"),
    [
        (torch.zeros(0, 3), None, r"one step or more, got torch.float32 \[0, 3\]"),
        (torch.zeros(2, 3, dtype=torch.int64), None, "floating-point"),
        (torch.zeros(2, 3), torch.zeros(50), r"shape \[50\], a step of the input \[3\]"),
    ],
)
def test_input_of_other_shapes_is_told(x, v, told):
    with pytest.raises(DataError, match=told):
        multi_step(x, v, LIF, ATan())


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3)
        for synapse in (self.first, self.second):
            nn.init.normal_(synapse.weight, std=0.5)
        self.neurons = nn.ModuleList(
            [
                LIFNode(step_mode="m"),
                ParametricLIFNode(step_mode="m"),
                TSANode(surrogate_function=ATan(), step_mode="m"),
            ]
        )

    def forward(self, x):
        for synapse, node in zip((self.first, self.second, nn.Identity()), self.neurons, strict=True):
            x = node(synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return x.mean(0)


def _train_step(network, forward, x):
    network.zero_grad()
    reset_net(network)
    out = forward(x)
    out.float().square().sum().backward()
    return out.detach(), [parameter.grad.clone() for parameter in network.parameters()]


def test_compiled_without_a_graph_break():
    network, x = Network(), torch.randn(4, 2, 2, 9, 9)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    out, grads = _train_step(network, network, x)
    for _ in range(2):
        out_compiled, grads_compiled = _train_step(network, compiled, x)
        torch.testing.assert_close(out_compiled, out)
        torch.testing.assert_close(grads_compiled, grads)
    assert out.abs().mean() > 0.05 and all(grad.abs().max() > 0 for grad in grads)


def test_autocast():
    network, x = Network(), torch.randn(4, 2, 2, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        out, grads = _train_step(network, network, x)
    assert out.dtype == torch.bfloat16 and all(grad.dtype == torch.float32 for grad in grads)
    assert all(node.v.dtype == torch.float32 for node in network.neurons)
    _, exact = _train_step(network, network, x)
    cosine = torch.cosine_similarity(
        torch.cat([g.flatten() for g in grads]), torch.cat([g.flatten() for g in exact]), 0
    )
    assert cosine > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("steps", [4, 32])
def test_only_the_input_is_kept_for_the_backward_pass(steps, dtype):
    """So a layer holds 4 bytes per element and step, 2 in half precision, as docs/training.md says."""
    kept = []
    x = torch.randn(steps, 1000).to(dtype).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        spikes, v = multi_step(x, None, LIF, Sigmoid())
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]
    assert spikes.dtype == dtype and v.dtype == torch.float32


def test_a_normalisation_is_taken_on_where_there_is_a_gpu():
    """Without one: what is called, of which shape and type; the kernel itself runs in Triton's interpreter."""
    called = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    for grad, device in product((False, True), ("cuda", "cpu")):
        with FakeTensorMode(), torch.set_grad_enabled(grad):
            x = torch.empty(3, 2, 5, 4, dtype=torch.bfloat16, device=device)
            norm = torch.empty(2, 5, device=device).unbind()
            with Seen():
                spikes, v = multi_step(x, None, LIF, Sigmoid(), norm=norm)
        assert (spikes.shape, spikes.dtype, v.shape, v.dtype) == (x.shape, x.dtype, x.shape[1:], torch.float32)
        assert ("transpike.neuron_normed.default" in called) == (device == "cuda" and not grad)
        called.clear()
    plain = torch.randn(3, 2, 5, 4)
    wanted = multi_step(plain * 2 + 0.5, None, LIF, Sigmoid())
    got = multi_step(plain, None, LIF, Sigmoid(), norm=(torch.full((5,), 2.0), torch.full((5,), 0.5)))
    assert all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("script", ["neuron_on_triton.py"] if find_spec("triton") else [])
def test_the_triton_kernels_equal_the_cpu_kernels(script):
    command = [sys.executable, str(Path(__file__).with_name(script))]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr
