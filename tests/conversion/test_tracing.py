"""What may be given for a network, how it is traced without being changed, and what of it is part of the network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import FINE, Uses, distance
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim

from transpike import ConversionError, convert
from transpike.conversion import Prepared, prepare
from transpike.conversion.state import evaluation
from transpike.conversion.trace import trace

X = torch.rand(16, 4, generator=torch.Generator().manual_seed(3)) - 0.3


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def refusal(model: Any, x: Tensor = X) -> str:
    with pytest.raises(ConversionError) as caught:
        convert(model, x)
    return str(caught.value)


def same(model: Any, wanted: nn.Module) -> bool:
    """Whether ``model`` is traced to the operations of ``wanted``, whatever their names, and to its very values."""
    graphs = [trace(m, X) for m in (model, wanted)]
    places = [{op.name: k for k, op in enumerate(graph)} for graph in graphs]
    plain = [
        [(op.kind, [at[n] for n in op.inputs], op.shape, op.args, op.gains, op.function) for op in graph]
        for graph, at in zip(graphs, places, strict=True)
    ]
    values = [[t for op in graph for t in op.tensors.values()] for graph in graphs]
    return plain[0] == plain[1] and all(map(torch.equal, *values))


def peak(prepared: Prepared) -> float:
    return prepared.statistics.seen[prepared.graph.neurons[0].name].values.quantile(99)


class Star(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, *args: Tensor, **options: Tensor) -> Tensor:
        return self.net(*args)  # type: ignore[no-any-return]


def counted(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **options: forward(*args, **options)


class Decorated(Star):
    @counted
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.net(x) * scale  # type: ignore[no-any-return]


# -- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        ModelEmaV3,
        torch.compile,
        lambda m: nn.DataParallel(torch.compile(nn.DataParallel(m))),
        lambda m: torch.export.export(m, (X,)),
        lambda m: torch.export.export(m, (X,)).module(),
        lambda m: torch.export.export(m, (X,), dynamic_shapes=({0: Dim.DYNAMIC},)).module(),
    ],
    ids=["parallel", "averaged", "ema", "compiled", "all-of-them", "program", "its-module", "its-module-of-any-batch"],
)
def test_a_wrapped_network_is_converted_as_the_network_inside(wrap: Callable[[nn.Module], Any]) -> None:
    assert same(wrap(net()), net())


@pytest.mark.parametrize("wrap", [Star, Decorated])
def test_any_signature_that_takes_one_tensor(wrap: type[nn.Module]) -> None:
    snn = convert(wrap(), X, scheme=FINE)
    assert distance(snn(X), net()(X)) < 1e-3 and len(snn.graph.neurons) == 1


def test_a_program_that_holds_its_number_of_images_is_refused() -> None:
    model = Uses(lambda m, x: m.net(x.reshape(x.shape[0], 2, 2).flatten(1)), net=net())
    message = refusal(torch.export.export(model, (X[:2],)))
    assert message.startswith("the network cannot be traced: it fixes the batch size (N = 2)")
    assert same(torch.export.export(model, (X[:2],), dynamic_shapes=({0: Dim.DYNAMIC},)), model)


NO_NETWORK = {
    "expected a network, not its name 'resnet18'; build it first, as transpike.create_model('resnet18')": "resnet18",
    "expected a network, not the class Linear; make one: Linear(...)": nn.Linear,
    "expected a torch.nn.Module, not a function; write it as a module's forward, with its layers as attributes": (
        lambda x: x
    ),
    "expected a torch.nn.Module, not an OrderedDict; build the network": net().state_dict(),
    "expected a torch.nn.Module, not a NoneType; build the network": None,
    "0.weight is on the meta device, without values; load weights into a network on another device": net().to("meta"),
    "0.weight has no values yet; run the network once, and train it": nn.Sequential(nn.LazyLinear(3)),
}


@pytest.mark.parametrize("words", NO_NETWORK)
def test_what_is_no_network_is_one_line(words: str) -> None:
    assert refusal(NO_NETWORK[words]) == words


def test_modules_nested_beyond_pythons_stack_are_one_line() -> None:
    model: nn.Module = net()
    for _ in range(2000):
        model = nn.Sequential(model)
    assert refusal(model) == "its modules are nested too deeply for Python; nest them less"


# -- the number of images ----------------------------------------------------------------------------------------------


def test_bounds_that_kernels_of_gpus_set_to_the_batch_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, torch.export finds that a convolution takes up to 65,535 images, BatchNorm up to 880,801."""
    images = torch.randn(4, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    wanted = prepare(model, images)
    convolution, calls = F.conv2d, []

    def bounded(x: Tensor, *args: Any, **options: Any) -> Tensor:
        assert x.shape[0] <= 65535 and x.shape[0] <= 880801 and x.numel() < 2**31
        calls.append(x.shape[0])
        return convolution(x, *args, **options)

    monkeypatch.setattr(F, "conv2d", bounded)
    prepared = prepare(model, images)
    assert len(calls) == 5  # a call, torch.export, a later call; torch.export at two other sizes
    (got,), (want,) = prepared.graph.run(images).values(), wanted.graph.run(images).values()
    assert torch.equal(got, want) and peak(prepared) == peak(wanted)


@pytest.mark.parametrize(
    ("holds", "condition"),
    [
        (lambda n: n <= 8, "N <= 8"),
        (lambda n: n % 2 == 0, "Eq(Mod(N, 2), 0)"),
        (lambda n: n != 7, "Ne(N, 7)"),
        (lambda n: n == 2, "N = 2"),
    ],
)
def test_a_forward_that_looks_at_the_number_of_images_is_refused(holds: Any, condition: str) -> None:
    message = refusal(Uses(lambda m, x: m.net(x) if holds(x.shape[0]) else -m.net(x), net=net()))
    assert f"it fixes the batch size ({condition})" in message and "\n" not in message


# -- images ------------------------------------------------------------------------------------------------------------


TENSOR = "expected a tensor of images [N, *], not"
NO_IMAGES = {
    f"{TENSOR} dict with the keys 'x', 0; pass the images, as (batch['image'] for batch in loader)": [{"x": X, 0: 1}],
    f"{TENSOR} dict with the keys 'x'; pass the images, as (batch['image'] for batch in loader)": {"x": X},
    f"{TENSOR} ndarray; pass a DataLoader, or a list of batches: images, or pairs (images, y)": [X.numpy()],
    "images are on the meta device, without values; pass ordinary tensors": [X.to("meta")],
    "images are torch.sparse_coo; pass ordinary tensors": [X.to_sparse()],
    "images are torch.int64; convert them to float and normalise them as in the network's training": [X.long()],
    "no images; pass batches of training images, preprocessed as for the network": [X[:0]],
    "expected batches of images, not int; pass a DataLoader, or a list of batches": 7,
}


@pytest.mark.parametrize("words", NO_IMAGES)
def test_what_are_no_images_is_one_line(words: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(net(), NO_IMAGES[words])
    assert str(caught.value) == f"calibration: {words}"


def test_images_of_other_precisions_and_iterators() -> None:
    wanted = prepare(net(), X)
    for images in (X.double(), iter([X[:9], X[9:].double()]), ((x, 0) for x in X.split(5)), [[X.clone()]]):
        prepared = prepare(net(), images)
        assert torch.equal(prepared.images, X) and peak(prepared) == peak(wanted)


@pytest.mark.parametrize("images", [X.numpy(), [X], None])
def test_the_network_itself_takes_tensors_alone(images: Any) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(net(), X)(images)
    kind = type(images).__name__
    assert str(caught.value) == f"the network's input: expected a tensor of images [N, *], not {kind}; pass a tensor"


# -- state -------------------------------------------------------------------------------------------------------------


class Counts(nn.Module):
    """Multiplies by what ``factor`` makes of the number of calls."""

    def __init__(self, factor: Callable[[Any], Any], calls: Any) -> None:
        super().__init__()
        self.net, self.factor = net(), factor
        if isinstance(calls, Tensor):
            self.register_buffer("calls", calls)
        else:
            self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) * self.factor(self.calls)  # type: ignore[no-any-return]


@pytest.mark.parametrize("calls", [0, 4, torch.tensor(1.0)])
@pytest.mark.parametrize("factor", [lambda n: n, lambda n: 1 + n % 2, lambda n: 1 + 0.01 * n])
def test_a_counter_that_changes_the_output_is_refused(factor: Any, calls: Any) -> None:
    model = Counts(factor, copy.copy(calls))
    assert "random or stateful" in refusal(model)
    assert model.calls == calls


def test_a_change_after_two_calls_is_found_by_a_third() -> None:
    calls: list[int] = []

    def forward(m: Any, x: Tensor) -> Tensor:
        calls.append(1)
        return m.net(x) * (1 if len(calls) < 3 else 2)  # type: ignore[no-any-return]

    assert "differs from the model by 50.00%" in refusal(Uses(forward, net=net()))


def test_the_network_is_left_as_it_was() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.calls += 1
        m.log.append(x.mean())
        m.stored["last"] = x
        m.seen = torch.maximum(m.seen, x.max())
        m.total.add_(x.sum())
        m.plain.add_(1)
        m.newest = x
        return m.net(x)  # type: ignore[no-any-return]

    model = Uses(forward, net=net(), seen=torch.zeros(()), total=torch.ones(()))
    model.calls, model.log, model.stored = 7, [3], {"first": [1]}
    object.__setattr__(model, "plain", torch.full((2,), 5.0))
    seen, log = model.seen, model.log
    model.train()
    model.net[1].eval()
    assert same(model, Uses(lambda m, x: m.net(x), net=net()))
    assert model.calls == 7 and model.log is log and log == [3] and model.stored == {"first": [1]}
    assert model.seen is seen and seen == 0 and model.total == 1 and torch.equal(model.plain, torch.full((2,), 5.0))
    assert not hasattr(model, "newest")
    assert [m.training for m in model.modules()] == [True, True, True, False, True]


def test_evaluation_puts_back_what_an_error_leaves() -> None:
    model = nn.Sequential(nn.Dropout())
    with pytest.raises(ZeroDivisionError), evaluation(model):
        model.extra = 1 / len(model[1:])  # type: ignore[assignment]
    assert model.training and model[0].training


# -- what only records -------------------------------------------------------------------------------------------------


def maximum(m: Any, x: Tensor) -> None:
    m.seen.copy_(torch.maximum(m.seen, x.max()))


def average(m: Any, x: Tensor) -> None:
    m.seen.mul_(0.9).add_(x.mean(), alpha=0.1)


def attribute(m: Any, x: Tensor) -> None:
    m.last = x.max()


def assigned(m: Any, x: Tensor) -> None:
    m.seen = torch.maximum(m.seen, x.detach().max())


def number(m: Any, x: Tensor) -> None:
    m.last = x.abs().mean().item()


def histogram(m: Any, x: Tensor) -> None:
    m.last = torch.histc(x.sort(0).values * 0.1 + x.mean(), 4)


@pytest.mark.parametrize("record", [maximum, average, attribute, assigned, number, histogram])
def test_a_layer_that_only_records_is_the_identity(record: Any) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        record(m, x)
        return x

    watch = Uses(forward, seen=torch.zeros(()))
    plain = net()
    watched = nn.Sequential(plain[0], watch, plain[1], watch, plain[2]).eval()
    assert same(watched, plain)
    assert watch.seen == 0 and not hasattr(watch, "last")


def test_outputs_that_an_unused_operation_computes_beside_need_no_form() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.net[0](x)
        y.mean() * 0.1 + y.softmax(0).sort(1).values[0]
        return m.net[2](m.net[1](y))  # type: ignore[no-any-return]

    assert same(Uses(forward, net=net()), Uses(lambda m, x: m.net(x), net=net()))


def test_hooks_that_only_monitor_are_left_out_and_see_no_shape_without_values() -> None:
    model, seen, lines = net(), [], []

    def monitor(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append(output)
        lines.append(f"{output.numpy().mean():.3f} {float(output.max())}")

    model[1].register_forward_hook(monitor)
    model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert same(model, net())
    assert len(seen) == 2 * 2 and not any(isinstance(value, FakeTensor) for value in seen)
    assert model[1]._forward_hooks.popitem()[1] is monitor


def test_hooks_that_change_what_flows_are_part_of_the_network() -> None:
    model = net()
    model[0].register_forward_hook(lambda module, args, output: output * 2 - 0.1)
    model[2].register_forward_pre_hook(lambda module, args: (args[0].clamp(max=0.5),))
    model[1].register_forward_hook(lambda module, args, output: output.mul_(0.5).__class__ and None)
    snn = convert(model, X, scheme=FINE)
    assert distance(snn.analog(X), model(X)) < 1e-5 and distance(snn(X), model(X)) < 1e-3


def test_what_a_hook_stores_for_a_later_layer_is_part_of_the_network() -> None:
    stored: dict[str, Tensor] = {}

    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.skip = net(), nn.Linear(8, 3)
            self.net[1].register_forward_hook(lambda m, args, output: stored.update(relu=output))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.skip(stored["relu"])  # type: ignore[no-any-return]

    model = Skips().eval()
    snn = convert(model, X, scheme=FINE)
    assert distance(snn.analog(X), model(X)) < 1e-5
    assert "add" in [op.kind for op in snn.graph]


def test_weights_that_hooks_compute() -> None:
    model = net()
    model[0] = torch.nn.utils.weight_norm(model[0])
    model[2] = torch.nn.utils.spectral_norm(model[2]).eval()
    assert distance(convert(model, X, scheme=FINE).analog(X), model(X)) < 1e-5


def test_a_refusal_names_the_hook_and_its_layer() -> None:
    def squash(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.sort().values

    class Gate:
        def __call__(self, module: nn.Module, args: Any) -> Any:
            return (args[0].cumprod(1),)

    model = net()
    model[1].register_forward_hook(squash)
    model[2].register_forward_pre_hook(Gate())
    lines = refusal(model).splitlines()
    assert lines[1] == "  - 1 (its hook squash): sorting has no spiking form"
    model[1]._forward_hooks.clear()
    assert refusal(model).splitlines()[1] == "  - 2 (its hook Gate): cumprod has no spiking form"


def test_a_hook_that_cannot_be_traced_is_named() -> None:
    def through_numpy(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return torch.from_numpy(output.numpy())

    model = net()
    model[1].register_forward_hook(through_numpy)
    message = refusal(model)
    assert (
        message.startswith("the network cannot be traced at test_tracing.py:")
        and "in the hook through_numpy" in message
    )


# -- in place ----------------------------------------------------------------------------------------------------------


class View(nn.Module):
    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.fc, self.work = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2), work

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.work(self.bn(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


def halves(y: Tensor) -> Tensor:
    z = y[:, :4]
    z += y[:, 4:]
    return z


@pytest.mark.parametrize("work", [lambda y: y[:, :4].relu_(), halves, lambda y: y.detach().relu_()[:, :4] + y[:, 4:]])
def test_batchnorm_before_work_in_place_on_a_view(work: Any) -> None:
    torch.manual_seed(0)
    model, x = View(work).eval(), torch.randn(8, 3, 8, 8)
    snn = convert(model, x, scheme=FINE)
    assert distance(snn.analog(x), model(x)) < 1e-5 and distance(snn(x), model(x)) < 1e-3


# -- rounding ----------------------------------------------------------------------------------------------------------


def cancelling(size: float) -> nn.Sequential:
    """Two channels that differ by 1 part in ``size``, normalised, and their difference: float32 loses digits."""
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2, eps=0), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[size], [size + 1]]))
        model[0].bias.zero_()
        model[1].running_var.fill_(0.3)
        model[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
        model[2].bias.zero_()
    return model.eval()


def test_what_float32_itself_loses_is_no_reason_to_refuse() -> None:
    x = torch.linspace(0.1, 1, 16)[:, None]
    model = cancelling(3e4)
    (values,) = prepare(model, x).graph.run(x).values()
    exact = copy.deepcopy(model).double()(x.double())
    assert distance(values, model(x)) > 1e-3 and distance(model(x), exact) > 1e-3
    assert distance(values, exact) < 3 * distance(model(x), exact)


def test_what_float32_loses_hides_nothing() -> None:
    x = torch.linspace(0.1, 1, 16)[:, None]
    model = Uses(lambda m, x: m.net(x) * (1 + 0.02 * torch.rand(())), net=cancelling(3e4))
    with pytest.raises(ConversionError, match="random or stateful"):
        prepare(model, x)
