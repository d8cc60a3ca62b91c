"""A converted network whose weights train: what gradients pass its spikes, and what violates the bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.coding import Rate, Scheme
from transpike.conversion import SpikingNetwork
from transpike.conversion.reopen import proposals, reopen
from transpike.conversion.scale import scale, unscale
from transpike.conversion.tuning import Tunable
from transpike.errors import ConversionError

IMAGES = torch.rand(64, 3, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5


def modern() -> nn.Module:
    """A convolution, channels of different sizes, a maximum, GELU, a gate."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.one, self.gate, self.last = nn.Linear(72, 16), nn.Linear(72, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).relu()
            x = (x + self.deep(x)).relu()
            x = nn.functional.max_pool2d(x, 2).flatten(1)
            return self.last(nn.functional.gelu(self.one(x)) * self.gate(x).sigmoid())

    torch.manual_seed(0)
    net = Net().eval()
    net.conv.weight.data *= 4 ** torch.linspace(-1, 1, 8).view(8, 1, 1, 1)
    return net


@pytest.mark.parametrize("levels", [(1,), (1, 2, 4, 8)])
def test_it_computes_what_the_network_does(levels: tuple[int, ...]) -> None:
    snn = transpike.convert(modern(), IMAGES, scheme=transpike.CSS(steps=8, levels=levels))
    tunable = Tunable(snn)
    torch.testing.assert_close(tunable.eval()(IMAGES), snn(IMAGES))
    trained = tunable.train()(IMAGES)
    torch.testing.assert_close(trained, snn(IMAGES))
    (trained.square().sum() + tunable.violation).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in tunable.parameters())
    assert len(list(tunable.parameters())) == 10
    torch.testing.assert_close(tunable.timed(snn.timing.waits)(IMAGES), snn(IMAGES))


class Rounded(torch.autograd.Function):
    """The nearest digit, whose derivative is taken as that of the value it rounds."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_: object, grad: Tensor) -> Tensor:
        return grad


def test_gradients_are_those_of_all_steps() -> None:
    """Backpropagation through every step of a network of integer digits, none of them the largest."""
    torch.manual_seed(0)
    ann, x = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(9, 5)
    snn = transpike.convert(ann, x, scheme=transpike.CSS(steps=6, silent=1, levels=range(1, 65), percentile=100))
    tunable = Tunable(snn, share=1.0).train()
    wanted = torch.randn(9, 3)
    (tunable(x) * wanted).sum().backward()

    weights = [p.detach().clone().double().requires_grad_() for p in tunable.parameters()]
    trains = snn.trace(x)["input"].spikes.double()
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        z = trains @ weight.T + bias / 63
        if weight is weights[-2]:
            break
        heard = said = torch.zeros_like(z[0])
        fired = []
        for step in range(7):
            heard, said = 2 * heard + (z[step] if step < 6 else 0), 2 * said
            if step:
                digit = Rounded.apply((heard.relu() - said) / 2)
                fired.append(digit)
                said = said + 2 * digit
        trains = torch.stack(fired)
    decoded = sum(2 ** (5 - step) * z[step] for step in range(6))
    (decoded * wanted * list(snn.units.values())[-1]).sum().backward()
    for mine, theirs in zip(tunable.parameters(), weights, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)


def test_no_gradient_where_a_train_cannot_say_more() -> None:
    ann = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    ann[0].weight.data.fill_(1.0)
    snn = transpike.convert(ann, torch.linspace(0, 1, 64)[:, None], scheme=transpike.CSS(steps=6, silent=1))
    tunable = Tunable(snn).train()
    first = next(tunable.parameters())
    first.data *= 2
    for x, passes in ((0.25, True), (0.9, False)):
        (grad,) = torch.autograd.grad(tunable(torch.tensor([[x]])).sum(), first)
        assert bool(grad != 0) == passes


def neuron(weight: float, *, wait: int, function: nn.Module) -> SpikingNetwork:
    ann = nn.Sequential(nn.Linear(4, 1, bias=False), function, nn.Linear(1, 1, bias=False))
    ann[0].weight.data = torch.tensor([[weight, -weight, weight, 0.5]])
    images = torch.rand(256, 4, generator=torch.Generator().manual_seed(0))
    return transpike.convert(ann, images, scheme=transpike.CSS(steps=8, silent=wait, amplitude="layer", percentile=100))


@pytest.mark.parametrize("wait", [0, 1, 2])
@pytest.mark.parametrize("function", [nn.ReLU(), nn.Identity(), nn.GELU(), nn.Softplus()])
def test_who_keeps_to_the_bound_follows(wait: int, function: nn.Module) -> None:
    snn = neuron(0.5, wait=wait, function=function)
    images = torch.rand(300, 4, generator=torch.Generator().manual_seed(3))
    tunable = Tunable(snn, silent=wait, share=1.0).train()
    name = snn.graph.neurons[0].name
    kept = 0
    for image in images.split(1):
        tunable(image)
        residual = snn.trace(image)[name].residual
        assert residual is not None
        if tunable.violation == 0:
            kept += 1
            assert residual.abs().max() <= 0.5 + 1e-4
    assert kept or wait == 0


def test_the_violation_is_the_squared_excess() -> None:
    snn = neuron(0.5, wait=0, function=nn.ReLU())
    image = torch.tensor([[0.9, 0.3, 0.2, 0.8]])
    tunable = Tunable(snn).train()
    tunable(image)
    (weight, *_), digits = snn.tensors(snn.graph.by_name["0"])["weight"], snn.trace(image)["input"].spikes[:, 0]
    heard, before, expected = 0.0, 0.0, 0.0
    for step, z in enumerate((digits @ weight).tolist()):
        heard = 2 * heard + z
        now = max(heard, 0.0)
        excess = abs(now - 2 * before) - (0.5 if step else 1.5)
        expected += (max(excess, 0.0) / 2**step) ** 2  # in units of the first digit
        before = now
    assert expected > 0
    assert float(tunable.violation.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_step_against_its_gradient_lowers_the_violation() -> None:
    snn = transpike.convert(modern(), IMAGES, scheme=transpike.CSS(steps=8))
    tunable = Tunable(snn, share=1.0).train()
    optimiser = torch.optim.Adam(tunable.parameters(), lr=5e-3)
    seen = []
    for _ in range(12):
        tunable(IMAGES)
        seen.append(float(tunable.violation.detach()))
        optimiser.zero_grad()
        tunable.violation.backward()
        optimiser.step()
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("scheme", [Rate(steps=8), transpike.CSS(steps=8, signed=False, silent=2)])
def test_a_scheme_without_a_bound_is_refused(scheme: Scheme) -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ConversionError, match="convert with signed CSS spikes"):
        Tunable(transpike.convert(ann, torch.rand(32, 4), scheme=scheme))


def test_unscaling_is_the_inverse_of_scaling() -> None:
    ann = modern()
    snn = transpike.convert(ann, IMAGES, scheme=transpike.CSS(steps=8))
    graph = unscale(snn.graph, snn.scheme, snn.units)
    torch.testing.assert_close(graph.run(IMAGES)[graph.outputs[0]], ann(IMAGES))
    again, units = scale(graph, snn.scheme, {op.name: snn.units[op.name] for op in (graph.input, *graph.neurons)})
    assert units == pytest.approx(snn.units)
    for op, other in zip(again, snn.graph, strict=True):
        assert op.gains == pytest.approx(other.gains)
        for key, tensor in op.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[key])


def test_silent_steps_are_chosen_anew() -> None:
    ann = modern()
    snn = transpike.convert(ann, IMAGES, scheme=transpike.CSS(steps=8, levels=(1, 2, 4, 8)))
    found = dict(proposals(snn, IMAGES[:32]))
    assert list(found) == sorted(found, reverse=True) and len(found) == 7
    latencies = [network.latency for network in found.values()]
    assert latencies[0] <= latencies[-1]
    for network in found.values():
        torch.testing.assert_close(network.analog(IMAGES), snn.analog(IMAGES), rtol=1e-4, atol=1e-5)
    assert reopen(snn, IMAGES).clipped == pytest.approx(snn.clipped, abs=0.01)
