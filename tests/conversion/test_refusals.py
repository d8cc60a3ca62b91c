"""What has no spiking form is refused, all of it at once, before anything is computed."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses
from torch import Tensor, nn

from transpike import ConversionError, convert
from transpike.conversion.kinds import title
from transpike.conversion.operators import OPERATORS
from transpike.conversion.trace import trace

SHAPE = (3, 8, 8)


def refusal(model: nn.Module, x: Tensor | None = None) -> str:
    with pytest.raises(ConversionError) as caught:
        convert(model, torch.randn(4, *SHAPE) if x is None else x)
    return str(caught.value)


def places(message: str) -> dict[str, str]:
    """{module path: reasons} of every place that a refusal lists."""
    found: dict[str, str] = {}
    for line in message.splitlines():
        if line.startswith("  - ") and ": " in line:
            paths, reason = line.removeprefix("  - ").split(": ", 1)
            for path in re.split(r", | and (?=\d)", paths):
                assert reason not in found.get(path, ""), "a place is listed twice"
                found[path] = f"{found.get(path, '')}{reason}\n"
    return found


def remedies(message: str) -> str:
    (line,) = [line for line in message.splitlines() if line.startswith("What helps: ")]
    return line


def test_one_error_lists_every_place_with_reason_and_remedy() -> None:
    body = nn.Sequential(
        nn.BatchNorm2d(8, track_running_stats=False),
        Uses(lambda m, x: F.dropout(x)),
        Uses(lambda m, x: torch.fft.rfft2(x).real),
        nn.SiLU(),
        Uses(lambda m, x: x.sort(-1).values),
        Uses(lambda m, x: x.topk(5, -1).values),
    )
    message = refusal(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), body, nn.Linear(5, 5)))
    assert places(message) == {
        "1.0": "BatchNorm without running statistics depends on the batch\n",
        "1.1": "this dropout stays on in evaluation mode\n",
        "1.2": "fft_rfft2 has no spiking form\nreal has no spiking form\n",
        "1.4": "sorting has no spiking form\n",
        "1.5": "sorting has no spiking form\n",
    }
    assert message.splitlines()[0] == "Sequential cannot be converted:" and len(message.splitlines()) == 8
    assert remedies(message) == (
        "What helps: train with track_running_stats=True; pass training=self.training to it; replace it by supported "
        "operations; apply it to the network's output."
    )


def test_equal_reasons_are_one_line_and_many_are_cut() -> None:
    class Sorted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sort(-1).values

    message = refusal(nn.Sequential(*(Sorted(nn.Conv2d(3, 3, 1)) for _ in range(7)), nn.Conv2d(3, 2, 1)))
    assert message.splitlines()[1] == "  - 0, 1, 2, 3 and 3 more: sorting has no spiking form"
    odd = [torch.special.entr, torch.floor, torch.ceil, torch.frac, torch.trunc, torch.digamma, torch.lgamma,
           torch.erfinv, torch.i0, torch.sinc, torch.nan_to_num, torch.special.ndtri, torch.special.bessel_j0,
           torch.special.bessel_j1]  # fmt: skip
    layers = [Uses(lambda m, x, function=function: function(x)) for function in odd]
    lines = refusal(nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Conv2d(8, 2, 1))).splitlines()
    assert len(lines) == 16 and lines[13] == "  - and 2 more reasons" and lines[12].startswith("  - 12: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda m, x: x.argmax(1, keepdim=True).float(), "index of the maximum"),
        (lambda m, x: x.topk(2, 1).values, "sorting"),
        (lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), "unpooling"),
        (lambda m, x: (lambda v, i: v + i)(*x.max(1)), "indices"),
        (lambda m, x: x - x.mean(0, keepdim=True), "batch axis"),
        (lambda m, x: x + x.amax(0), "batch axis"),
        (lambda m, x: x.flip(0), "flip"),
        (lambda m, x: x.roll(1, 0), "roll moves, merges or mixes the batch axis"),
        (lambda m, x: x.softmax(0), "batch axis"),
        (lambda m, x: F.layer_norm(x.transpose(0, 3), x.shape[:1]).transpose(0, 3), "number that depends on"),
        (lambda m, x: torch.einsum("nchw,mchw->nmhw", x, x).sum(1, keepdim=True), "batch axis"),
        (lambda m, x: x.flatten(1) @ x.flatten(1).T @ x.flatten(1), "batch axis"),
        (lambda m, x: x.cumsum(0), "batch axis"),
        (lambda m, x: x.permute(1, 0, 2, 3).reshape(-1, 8, 8, 8), "batch axis|fixes the batch"),
        (lambda m, x: x - x.std(), "batch axis"),
        (lambda m, x: x[:1] + x, "batch axis"),
        (lambda m, x: x[0] + x, "batch axis"),
        (lambda m, x: x.transpose(0, 1).flatten(1).T, "batch axis"),
        (lambda m, x: torch.cat([x, x]), "batch axis"),
        (lambda m, x: torch.stack([x, x]), "batch axis"),
        (lambda m, x: x + x.sum(), "batch axis"),
        (lambda m, x: x * x.shape[0], "number that depends on the batch"),
        (lambda m, x: x[:, : x.shape[0]].sum(1), "number that depends on the batch|fixes the batch"),
        (lambda m, x: x[x > 0].sum() + x, "index"),
        (lambda m, x: F.batch_norm(x, None, None, training=True), "BatchNorm without running statistics"),
        (lambda m, x: F.dropout2d(x, training=True), "dropout"),
        (lambda m, x: x + F.conv2d(x, x[:, :1].mean(0, keepdim=True).expand(8, 8, 8, 8), padding="same"), "batch axis"),
    ],
)  # fmt: skip
def test_a_reason_for_every_refusal(body: Callable[[Any, Tensor], Tensor], words: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(body(m, m.stem(x)).flatten(1)[:, :8])  # type: ignore[no-any-return]

    message = refusal(Uses(forward, stem=nn.Conv2d(3, 8, 3, padding=1), head=nn.Linear(8, 5)))
    assert re.search(words, message)
    if "fixes the batch" in message:
        return
    assert message.startswith("Uses cannot be converted:") and len(places(message)) == 1


def test_softmax_over_the_batch_is_refused_even_behind_the_last_layer() -> None:
    assert "batch axis" in refusal(Uses(lambda m, x: m.net(x).softmax(0), net=Between(nn.Identity(), SHAPE)))


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: m.net(x) if x.sum() > 0 else m.net(-x), "its path depends on the values of a tensor"),
        (lambda m, x: m.net(x) * x.mean().item(), "mul with a number that depends on"),
        (lambda m, x: m.net(x).clamp(0, x.max().item()), "clamp with a number that depends on"),
        (lambda m, x: m.net(x.view(len(x), 3, 8, 8)), "fixes the batch size"),
        (lambda m, x: m.net(x[:, :2]), "does not run on images of shape"),
        (lambda m, x: (m.net(x), None), "every output must be a tensor"),
        (lambda m, x: (m.net(x), m.net.head.weight), "every output must be a tensor"),
        (lambda m, x: {"a": (m.net(x),)}, "tuple, list or dictionary of tensors"),
        (lambda m, x: x.relu().flatten(1), "no convolution and no linear layer"),
        (lambda m, x: m.net(x + torch.rand_like(x)), "rand_like has no spiking form|random"),
        (lambda m, x: F.dropout(m.net(x), training=True), "dropout"),
    ],
)  # fmt: skip
def test_forwards_that_cannot_be_traced(forward: Callable[[Any, Tensor], Any], words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert(Uses(forward, net=Between(nn.Identity(), SHAPE)), torch.randn(4, *SHAPE))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "mixes",
    [
        lambda y: y - 0.5 * y.mean(),
        lambda y: y + (y.sum() + 1),
        lambda y: y * (2 / y.max()),
        lambda y: y - (-y.mean()),
        lambda y: y - y.mean(0) * 2,
        lambda y: y / y.norm(),
        lambda y: y + (y.amax() - y.amin()).relu().clamp(0, 1).sqrt(),
    ],
)
def test_what_is_reduced_over_the_batch_is_refused_whatever_is_done_with_it(mixes: Callable[[Tensor], Tensor]) -> None:
    model = Uses(lambda m, x: m.head(mixes(m.stem(x)).relu()), stem=nn.Linear(4, 8), head=nn.Linear(8, 3))
    reasons = places(refusal(model, torch.rand(16, 4)))["the forward of the model"]
    assert all("moves, merges or mixes the batch axis" in reason for reason in reasons.splitlines())
    unused = Uses(lambda m, x: (mixes(m.stem(x)), m.head(m.stem(x)))[1], stem=nn.Linear(4, 8), head=nn.Linear(8, 3))
    trace(unused, torch.rand(16, 4))


def test_a_number_that_a_buffer_holds_is_a_constant() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.stem(x).clamp(0, m.up.item()))  # type: ignore[no-any-return]

    up = torch.tensor(0.3)
    model, x = Uses(forward, up=up, stem=nn.Linear(4, 8), head=nn.Linear(8, 3)), torch.rand(16, 4)
    (result,) = trace(model, x).run(x).values()
    assert torch.equal(result, model(x)) and "relu0.3" in [title(op) for op in trace(model, x)]


def test_nothing_but_the_message_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    layers = [nn.Conv2d(3, 3, 1) for _ in range(60)]
    model = Uses(lambda m, x: m.net(x) if m.net(x).sum() > 0 else x, net=nn.Sequential(*layers))
    message = refusal(model)
    captured = capfd.readouterr()
    assert captured.err == captured.out == "" and "\n" not in message
    assert message.startswith("the network cannot be traced at test_refusals.py:")


def printed(error: BaseException) -> int:
    """Lines that Python prints where nobody catches ``error``."""
    return len("".join(traceback.format_exception(error)).splitlines())


def test_an_uncaught_refusal_is_short() -> None:
    model: nn.Module = nn.Conv2d(3, 3, 1)
    for _ in range(150):
        model = nn.Sequential(model)
    deep = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 350)
    try:
        with pytest.raises(ConversionError, match="recursion") as caught:
            trace(model, torch.randn(2, *SHAPE))
    finally:
        sys.setrecursionlimit(deep)
    assert printed(caught.value) < 40
    branching = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(60)), Uses(lambda m, x: x if x.sum() > 0 else -x))
    with pytest.raises(ConversionError, match="its path depends on the values of a tensor") as caught:
        trace(branching, torch.randn(2, *SHAPE))
    assert printed(caught.value) < 40


def test_weights_that_are_not_numbers_are_named() -> None:
    model = Between(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), SHAPE)
    with torch.no_grad():
        model.body[0].weight[0] = torch.nan
        model.head.bias[1] = torch.inf
    message = refusal(model)
    assert places(message) == {
        "body.0": "its weight holds NaN or infinity\n",
        "head": "its bias holds NaN or infinity\n",
    }
    assert remedies(message) == "What helps: check the trained weights."


def test_autocast_inside_the_model_is_refused_by_name() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.net(x)  # type: ignore[no-any-return]

    assert "autocast" in refusal(Uses(forward, net=Between(nn.Identity(), SHAPE)))


def test_a_users_operator_is_not_taken_for_pytorchs() -> None:
    @torch.library.custom_op("transpike_tests::neg", mutates_args=())
    def neg(x: Tensor) -> Tensor:
        return x * 2

    neg.register_fake(torch.empty_like)
    assert "neg has no spiking form" in refusal(Between(Uses(lambda m, x: neg(x)), SHAPE))


def test_nothing_is_measured_before_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transpike.conversion.prepare"], "measure", None)
    assert "sorting" in refusal(Between(Uses(lambda m, x: x.sort(-1).values), SHAPE))


def test_a_silent_miss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "relu", lambda to, node, input: input)
    with pytest.raises(ConversionError, match="differs from the model"):
        trace(Between(nn.ReLU(), SHAPE), torch.randn(2, *SHAPE))
