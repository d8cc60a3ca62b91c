"""Gates, norms, attention, windows, tokens, moves: each, in a network, computes what the model does, in spikes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses, distance
from torch import Tensor, nn

from transpike import CSS
from transpike.conversion import load, prepare

Body = Callable[[], nn.Module]
SHAPE = (3, 8, 8)
FINE = CSS(
    steps=14, levels=(1, 2, 4, 8), percentile=100, silent=2, amplitude="layer"
)  # ternary spikes follow a gate of two currents too slowly


def uses(function: Callable[[Any, Tensor], Any], **parts: Callable[[], Any]) -> Body:
    return lambda: Uses(function, **{name: make() for name, make in parts.items()})


def conv(outputs: int = 8, size: int = 1) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(8, outputs, size, padding=size // 2)


def fc(inputs: int = 8, outputs: int = 8) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, outputs)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def random(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape)


def after(function: Callable[[Tensor], Tensor]) -> Body:
    return uses(lambda m, x: function(m.conv(x)), conv=conv())


def heads(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b, n, c = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads(m, tokens(x))
    shares = (q * 0.5 @ k.transpose(-2, -1) + m.bias).softmax(dim=-1)
    return m.proj((shares @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def cosine(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads(m, tokens(x))
    shares = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.scale.exp()).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)


def windows(m: Any, x: Tensor) -> Tensor:
    """Shifted windows of 4 pixels, 2 heads, a mask between what was not neighbours."""
    x = x.permute(0, 2, 3, 1).roll((-2, -2), (1, 2))
    b = x.shape[0]
    parts = x.view(b, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
    q, k, v = m.qkv(parts).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q @ k.transpose(-2, -1)).view(b, 4, 2, 16, 16) + m.mask.unsqueeze(1).unsqueeze(0)
    y = (scores.view(-1, 2, 16, 16).softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, 8)
    y = m.proj(y).view(b, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, 8)
    return y.roll((2, 2), (1, 2)).permute(0, 3, 1, 2)


def tokened(m: Any, x: Tensor) -> Tensor:
    x = torch.cat([m.token.expand(x.shape[0], -1, -1), tokens(x)], 1) + m.position
    return m.fc(m.norm(x))[:, 0]  # type: ignore[no-any-return]


def linear_attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = heads(m, tokens(x))
    q, k = q.relu(), k.relu()
    total = q @ k.sum(-2).unsqueeze(-1)
    return (q @ (k.transpose(-2, -1) @ v) / (total + 1)).transpose(1, 2).flatten(2)


def decomposed_norm(x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-2)


def conditional(m: Any, x: Tensor) -> Tensor:
    """A convolution whose kernel each sample mixes from two."""
    b, shares = x.shape[0], m.route(x.mean((2, 3))).sigmoid()
    kernel = (shares @ m.kernels).view(b * 8, 4, 3, 3)
    return F.conv2d(x.reshape(1, b * 8, 8, 8), kernel, padding=1, groups=b * 2).view(b, 8, 8, 8)


def response_norm(m: Any, x: Tensor) -> Tensor:
    x = F.gelu(m.conv(x))
    power = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * power / (power.mean(1, keepdim=True) + 1e-2)


QKV: dict[str, Callable[[], Any]] = {"qkv": fc(8, 24), "proj": fc()}
FUNCTIONS = {
    "gelu": after(F.gelu),
    "gelu tanh": after(lambda x: F.gelu(x, approximate="tanh")),
    "silu": after(F.silu),
    "mish": after(F.mish),
    "elu": after(lambda x: F.elu(x, 0.7)),
    "selu": after(F.selu),
    "softplus": after(F.softplus),
    "sigmoid": after(torch.sigmoid),
    "tanh": after(torch.tanh),
    "hardswish": after(F.hardswish),
    "hardsigmoid": after(F.hardsigmoid),
    "x * sigmoid(x)": after(lambda x: x * torch.sigmoid(x)),
    "x * relu6(x + 3) / 6": after(lambda x: x * F.relu6(x + 3) / 6),
    "erf": after(lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
    "abs": after(torch.abs),
    "square, root": after(lambda x: (x.square() + 0.1).sqrt()),
    "power": after(lambda x: x**3),
    "reciprocal": after(lambda x: 1 / (1 + x.abs())),
    "threshold": after(lambda x: F.threshold(x, 0, 0)),
    "maximum with 0": after(lambda x: torch.maximum(x, torch.zeros(()))),
    "max of two": after(lambda x: torch.max(x, 0.1 * x)),
    "x * (x > 0)": after(lambda x: x * (x > 0)),
    "where": after(lambda x: torch.where(x > 0, x, 0.1 * x)),
    "mask as numbers": after(lambda x: x * (x > 0).float()),
    "softshrink": after(lambda x: F.softshrink(x, 0.1)),
    "rrelu": after(lambda x: F.rrelu(x, training=False)),
    "log": after(lambda x: torch.log(1 + x.abs())),
    "softmax": after(lambda x: x.softmax(1)),
    "decomposed softmax": after(lambda x: x.exp() / x.exp().sum(1, keepdim=True)),
    "logsumexp": after(lambda x: x.logsumexp(1, keepdim=True)),
    "lstm": uses(lambda m, x: m.rnn(x.amax(3).transpose(1, 2))[0], rnn=lambda: nn.LSTM(8, 6, batch_first=True)),
    "gru": uses(lambda m, x: m.rnn(x.amax(3).transpose(1, 2))[0], rnn=lambda: nn.GRU(8, 6, batch_first=True)),
    "decomposed by PyTorch": after(lambda x: torch.logaddexp(x, 2 * x) + F.cosine_similarity(x, x.flip(1))[:, None]),
    "true_divide": after(lambda x: torch.true_divide(x, 1 + x.abs())),
    "filled in place": after(lambda x: x.index_fill_(2, torch.tensor([0]), 1.0) + x[:, :1].clone().zero_()),
    "trained clip": uses(
        lambda m, x: torch.clamp(m.conv(x), torch.zeros(()), m.up), conv=conv(), up=lambda: torch.tensor(0.3)
    ),
    "clip a channel": uses(
        lambda m, x: torch.minimum(m.conv(x).relu(), m.up), conv=conv(), up=lambda: torch.rand(8, 1, 1)
    ),
}
GATES = {
    "conditional convolution": uses(conditional, route=fc(8, 2), kernels=random(2, 8 * 4 * 9)),
    "squeeze-excitation": uses(
        lambda m, x: x * m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))).sigmoid(),
        a=conv(4),
        b=lambda: nn.Conv2d(4, 8, 1),
    ),
    "glu": uses(lambda m, x: F.glu(m.conv(x), 1), conv=conv(16)),
    "swiglu": uses(lambda m, x: (lambda a, b: F.silu(a) * b)(*m.conv(x).chunk(2, 1)), conv=conv(16)),
    "product of two layers": uses(lambda m, x: m.a(x) * m.b(x), a=conv(), b=conv()),
    "gate that expands": uses(lambda m, x: x * m.fc(x.mean((2, 3))).sigmoid()[:, :, None, None].expand_as(x), fc=fc()),
    "addcmul": uses(
        lambda m, x: torch.addcmul(x, m.g, m.conv(x)), conv=conv(), g=lambda: nn.Parameter(torch.rand(8, 1, 1))
    ),
    "mul then sum": uses(lambda m, x: (m.a(x) * m.b(x)).sum(1, keepdim=True), a=conv(), b=conv()),
    "relu, average, sigmoid": uses(lambda m, x: m.b(F.avg_pool2d(m.a(x).relu(), 2).sigmoid()), a=conv(), b=conv()),
}
NORMS = {
    "deviation and mean": after(lambda x: (lambda s, m: (x - m) / (s + 0.1))(*torch.std_mean(x, 1, keepdim=True))),
    "variance and mean": after(lambda x: (lambda v, m: (x - m) * v)(*torch.var_mean(x, 1, keepdim=True))),
    "LayerNorm": uses(lambda m, x: m.fc(m.norm(tokens(x))), norm=lambda: nn.LayerNorm(8, eps=1e-2), fc=fc()),
    "LayerNorm without constants": after(lambda x: F.layer_norm(x, (8, 8), eps=1e-2)),
    "GroupNorm": uses(lambda m, x: m.norm(m.conv(x)), conv=conv(), norm=lambda: nn.GroupNorm(2, 8, eps=1e-2)),
    "InstanceNorm": uses(lambda m, x: m.norm(m.conv(x)), conv=conv(), norm=lambda: nn.InstanceNorm2d(8, eps=1e-2)),
    "RMSNorm": uses(lambda m, x: m.norm(tokens(x)), norm=lambda: nn.RMSNorm(8, eps=1e-2)),
    "decomposed LayerNorm": after(decomposed_norm),
    "variance": after(lambda x: (x - x.mean(1, True)) / (x.var(1, keepdim=True, unbiased=False) + 0.1).sqrt()),
    "length one": after(lambda x: F.normalize(x, dim=1, eps=0.1)),
    "response norm": uses(response_norm, conv=conv()),
}
ATTENTION = {
    "attention": uses(attention, **QKV, bias=random(1, 2, 64, 64)),
    "scaled_dot_product_attention": uses(
        lambda m, x: m.proj(F.scaled_dot_product_attention(*heads(m, tokens(x))).transpose(1, 2).flatten(2)), **QKV
    ),
    "causal": uses(lambda m, x: F.scaled_dot_product_attention(*heads(m, tokens(x)), is_causal=True), **QKV),
    "cosine": uses(cosine, **QKV, scale=lambda: torch.zeros(2, 1, 1)),
    "windows": uses(windows, **QKV, mask=lambda: torch.rand(4, 16, 16).round() * -100),
    "linear attention": uses(linear_attention, **QKV),
    "MultiheadAttention": uses(
        lambda m, x: m.mha(tokens(x), tokens(x), tokens(x))[0],
        mha=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "MultiheadAttention, sequence first": uses(
        lambda m, x: (lambda y: m.mha(y, y, y, need_weights=False)[0].transpose(0, 1))(x.flatten(2).permute(2, 0, 1)),
        mha=lambda: nn.MultiheadAttention(8, 2),
    ),
    "encoder layer": uses(
        lambda m, x: m.layer(tokens(x)), layer=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    ),
    "einsum of two": uses(lambda m, x: torch.einsum("nchw,ndhw->ncd", m.a(x), m.b(x)), a=conv(), b=conv()),
    "einsum with weights": uses(lambda m, x: torch.einsum("nchw,cd->ndhw", x, m.w), w=random(8, 5)),
    "grouped einsum": uses(
        lambda m, x: torch.einsum("ngcl,gcd->ngdl", x.reshape(-1, 2, 4, 64), m.w), w=random(2, 4, 3)
    ),
    "weights first": uses(lambda m, x: m.w @ x.flatten(2), w=random(5, 8)),
    "squared": uses(lambda m, x: (lambda y: y @ y.transpose(1, 2))(m.conv(x).flatten(2)), conv=conv()),
}
TOKENS = {
    "class token": uses(
        tokened, token=random(1, 1, 8), position=random(1, 65, 8), norm=lambda: nn.LayerNorm(8, eps=1e-2), fc=fc()
    ),
    "constant of the batch's size": uses(lambda m, x: x + torch.ones(x.shape[0], 1, 1, 1)),
    "zeros beside": uses(lambda m, x: torch.cat([x, x.new_zeros(x.shape[0], 4, 8, 8), torch.zeros_like(x)], 1)),
    "constant beside": uses(lambda m, x: torch.cat([x, m.c.expand_as(x)], 1), c=random(1, 8, 8, 8)),
    "mask made in forward": uses(lambda m, x: tokens(x) + torch.arange(64)[None, :, None] / 64),
    "constant that widens": uses(lambda m, x: x.mean((2, 3), keepdim=True) + m.c, c=random(8, 2, 2)),
    "samples second": uses(lambda m, x: m.fc(x.flatten(2).permute(2, 0, 1)).mean(0), fc=fc()),
    "convolution of merged samples": uses(
        lambda m, x: m.conv(x.reshape(-1, 1, 8, 8)).relu().reshape(x.shape[0], -1), conv=lambda: nn.Conv2d(1, 2, 3)
    ),
    "pooling of merged samples": uses(
        lambda m, x: F.max_pool2d(m.conv(x).reshape(-1, 2, 8, 8), 2).reshape(x.shape[0], -1), conv=conv()
    ),
    "norm of merged samples": uses(
        lambda m, x: m.norm(x.reshape(-1, 2, 8, 8)).reshape(x.shape), norm=lambda: nn.GroupNorm(2, 2, eps=1e-2)
    ),
}
MOVES = {
    "roll": uses(lambda m, x: x.roll((1, -2), (2, 3))),
    "flip": uses(lambda m, x: x.flip(-1)),
    "rot90": uses(lambda m, x: x.rot90(1, (2, 3))),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "pixel unshuffle": lambda: nn.PixelUnshuffle(2),
    "channel shuffle": lambda: nn.ChannelShuffle(2),
    "repeat": uses(lambda m, x: x.repeat(1, 2, 1, 1)),
    "repeat_interleave": uses(lambda m, x: x.repeat_interleave(2, 1)),
    "one query for all windows": uses(
        lambda m, x: m.fc(tokens(x).reshape(-1, 16, 8) * tokens(x)[:, :16].repeat_interleave(4, 0)).view(-1, 64, 8),
        fc=fc(),
    ),
    "samples repeated as a whole": uses(
        lambda m, x: (tokens(x).repeat(3, 1, 1) * m.scale).relu().view(3, -1, 64, 8).sum(0), scale=random(64, 8)
    ),
    "index": uses(lambda m, x: x[:, [1, 0, 3, 2, 5, 4, 7, 6]]),
    "index_select": uses(lambda m, x: x.index_select(1, torch.tensor([1, 0]))),
    "unfold": uses(lambda m, x: x.unfold(2, 3, 2)),
    "windows put together": uses(lambda m, x: F.fold(F.unfold(x, 3, 1, 1, 2) * 0.5, (8, 8), 3, 1, 1, 2)),
    "patches": lambda: nn.Unfold(3, padding=1, stride=2),
    "expand": uses(lambda m, x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1)),
    "padding with a constant": uses(lambda m, x: F.pad(x, (1, 1), value=1.0)),
    "movedim": uses(lambda m, x: x.movedim(1, -1)),
    "written among zeros": uses(lambda m, x: x.new_zeros(x.shape).index_copy(1, torch.tensor([1]), x[:, :1])),
}
CASES = FUNCTIONS | GATES | NORMS | ATTENTION | TOKENS | MOVES


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, x = Between(CASES[name](), SHAPE).eval(), torch.randn(6, *SHAPE)
    prepared = prepare(model, x)
    snn = prepared.convert(FINE)
    with torch.no_grad():
        want = model(x)
    assert distance(prepared.graph.run(x)[prepared.graph.outputs[0]], want) < 1e-5
    assert distance(snn.analog(x), want) < 1e-5
    got = snn(x)
    assert distance(got, want) < 1e-3
    assert torch.equal(snn(x[2:3])[0], got[2]) or distance(snn(x[2:3])[0], got[2]) < 1e-3
    snn.save(tmp_path)
    assert torch.equal(load(tmp_path)(x), got)


def test_a_computed_kernel_is_a_synapse_of_the_trains_it_is_made_of() -> None:
    net = Between(CASES["conditional convolution"](), SHAPE).eval()
    found = {op.name: op.inputs for op in prepare(net, torch.randn(4, *SHAPE)).graph.neurons}
    assert found == {"relu": ("stem",), "body.sigmoid": ("body.route",), "flatten.identity": ("flatten",)}
