"""The spiking networks of our own: sizes, neurons, and what holds for every one of them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transpike.errors import DataError, ModelError
from transpike.models import create_model, model_names, spiking
from transpike.models.qkformer import token_attention
from transpike.models.spiking import OverTime, over_time
from transpike.models.spikingformer import self_attention
from transpike.models.vgg import VGG, VGGS
from transpike.neurons import ATan, DCTLIFNode, IFNode, LIFNode, Sigmoid, SpikingNode, Triangular, TSANode, reset_net

TINY = {"layers": (4, 0, 8, 8, 0), "hidden": 16}
SMALL = {
    "spiking_resnet18": {"width": 4},
    "spiking_resnet19": {"width": 4},
    "spiking_resnet20": {"width": 4},
    "sew_resnet19": {"width": 4},
    "sew_resnet18": {"width": 4},
    "sew_resnet34": {"width": 4, "large": False, "stages": ((4, 2, 1), (8, 1, 2))},
    "sew_resnet50": {"width": 4, "stages": ((16, 2, 1), (32, 1, 2))},
    "spiking_vgg5": {**TINY, "image_size": 16},
    "spiking_vgg16": {**TINY, "image_size": 16},
    "spiking_mlp": {"hidden": 16, "image_size": 16},
    "spikingformer_4_384": {"width": 16, "depth": 2, "heads": 2},
    "spikingformer_2_256": {"width": 16, "heads": 2},
    "qkformer_4_384": {"width": 16, "heads": 2},
    "qkformer_10_384": {"width": 16, "heads": 2, "depths": (1, 1, 1)},
}
every = pytest.mark.parametrize("name", SMALL)


def small(name, **more):
    """A narrow network in double precision, so that no spike hangs on the order of a sum."""
    torch.manual_seed(0)
    return create_model(name, **SMALL[name], **more).double()


def images(steps=4, batch=3, seed=0):
    return 2 * torch.randn(steps, batch, 3, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def settled(name):
    """A network whose last layers speak, untrained: low thresholds, and batch norms that have seen data."""
    net = small(name, v_threshold=0.3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(images())
    reset_net(net)
    return net.eval()


def outputs(net, kind, x):
    """What every module of a kind gives."""
    seen = []
    hooks = [m.register_forward_hook(lambda *args: seen.append(args[2])) for m in net.modules() if isinstance(m, kind)]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


def inputs(net, kind, x):
    seen = []
    hooks = [
        m.register_forward_pre_hook(lambda *args: seen.append(args[1][0])) for m in net.modules() if isinstance(m, kind)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("spiking_resnet19", {}, 12_630_858),
        ("spiking_resnet19", {"num_classes": 100}, 12_653_988),
        ("sew_resnet19", {"num_classes": 100}, 12_653_988),
        # ResNet-18, -34 and -50 of ImageNet: neurons have no weights.
        ("sew_resnet18", {"num_classes": 1000}, 11_689_512),
        ("sew_resnet34", {"num_classes": 1000}, 21_797_672),
        ("sew_resnet50", {"num_classes": 1000}, 25_557_032),
        ("spiking_vgg5", {}, 50_595_520),
        ("spiking_vgg9", {}, 40_339_136),
        ("spiking_vgg11", {"num_classes": 100}, 47_048_384),
        ("spiking_vgg13", {"num_classes": 200}, 35_387_072),
        ("spiking_vgg16", {}, 15_249_354),
        ("spiking_vgg8_bn", {"num_classes": 100}, 3_963_556),
        # BSD's 9.36 M less the layer norms that its code never calls: two of 2 * 384 in each of 4 blocks.
        ("spikingformer_4_384", {"num_classes": 100}, 9_360_916 - 4 * 2 * 2 * 384),
        ("spikingformer_2_256", {"in_channels": 2}, 2_566_666),
        ("spikingformer_8_512", {"num_classes": 1000}, 29_689_384),
        ("spikingformer_8_768", {"num_classes": 1000}, 66_338_632),
        ("qkformer_4_384", {"num_classes": 100}, 6_740_884),
        ("qkformer_10_384", {"num_classes": 1000}, 16_473_688),
    ],
)
def test_parameter_counts(name, shape, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name, **shape).parameters()) == expected


def test_a_parametric_neuron_adds_one_weight_a_layer():
    with torch.device("meta"):
        net = create_model("sew_resnet18", num_classes=1000, spiking_neuron="ParametricLIFNode", init_tau=4.0)
    # The stem, two a block, and the three shortcuts that project.
    assert sum(p.numel() for p in net.parameters()) == 11_689_512 + 1 + 2 * 8 + 3


@pytest.mark.parametrize(
    ("name", "side", "maps"),
    [
        ("sew_resnet18", 224, {"layers.1": 56, "layers.3": 28, "layers.5": 14, "layers.7": 7}),
        ("sew_resnet50", 224, {"layers.2": 56, "layers.15": 7}),
        ("spikingformer_4_384", 32, {"tokenizer": 8, "blocks": 8}),
        ("spikingformer_2_256", 128, {"tokenizer": 8, "blocks": 8}),
        ("spikingformer_8_512", 224, {"tokenizer": 14}),
        ("qkformer_4_384", 32, {"stage1": 32, "stage2": 16, "stage3": 8}),
        ("qkformer_10_384", 224, {"stage1": 56, "stage2": 28, "stage3": 14}),
    ],
)
def test_maps_have_the_papers_sizes(name, side, maps):
    sizes = {}
    with torch.device("meta"):
        net = create_model(name)
        for module in maps:
            net.get_submodule(module).register_forward_hook(
                lambda _m, _x, out, module=module: sizes.update({module: (out.shape[:2], *out.shape[3:])})
            )
        assert net(torch.empty(1, 2, 3, side, side)).shape == (1, 2, 10)
    assert sizes == {module: ((1, 2), size, size) for module, size in maps.items()}


@pytest.mark.parametrize(
    ("name", "node", "numbers"),
    [
        ("spiking_resnet19", LIFNode, (2.0, False, 1.0, 0.0, Triangular(), False)),
        ("sew_resnet19", LIFNode, (2.0, False, 1.0, 0.0, Triangular(), False)),
        ("sew_resnet18", IFNode, (None, None, 1.0, 0.0, ATan(2.0), True)),
        ("sew_resnet50", IFNode, (None, None, 1.0, 0.0, ATan(2.0), True)),
        ("spiking_vgg5", DCTLIFNode, (None, None, 1.0, None, Triangular(gamma=0.3), False)),
        ("spikingformer_4_384", LIFNode, (2.0, True, 1.0, 0.0, Sigmoid(4.0), True)),
        ("spikingformer_2_256", LIFNode, (1.75, True, 1.0, 0.0, Sigmoid(4.0), True)),
        ("qkformer_4_384", LIFNode, (2.0, True, 1.0, 0.0, Sigmoid(4.0), True)),
    ],
)
def test_neurons_are_the_papers(name, node, numbers):
    nodes = [module for module in small(name).modules() if isinstance(module, SpikingNode)]
    names = ("tau", "decay_input", "v_threshold", "v_reset", "surrogate_function", "detach_reset")
    assert {type(module) for module in nodes} == {node}
    assert tuple(getattr(nodes[0], field, None) for field in names) == numbers
    assert {module.step_mode for module in nodes} == {"m"}


def test_the_attentions_neuron_has_half_the_threshold_of_the_others():
    for name, attentions in (("spikingformer_4_384", 2), ("qkformer_4_384", 4)):
        thresholds = [module.v_threshold for module in small(name).modules() if isinstance(module, SpikingNode)]
        assert set(thresholds) == {0.5, 1.0}
        assert thresholds.count(0.5) == attentions


@every
def test_every_neuron_fires_ones_and_the_gradient_reaches_the_first_layer(name):
    net = small(name, v_threshold=0.3)
    seen = outputs(net, SpikingNode, images())
    assert len(seen) == sum(isinstance(module, SpikingNode) for module in net.modules())
    assert all(set(spikes.unique().tolist()) <= {0.0, 1.0} and spikes.shape[:2] == (4, 3) for spikes in seen)
    assert sum(spikes.any().item() for spikes in seen) > 0.8 * len(seen)
    reset_net(net)
    out = net(images())
    assert out.shape == (4, 3, 10)
    out.mean(0).log_softmax(-1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert next(net.parameters()).grad.abs().sum() > 0


@every
def test_a_sequence_in_pieces_gives_what_the_whole_gives(name):
    net, x = settled(name), images(seed=1)
    whole = net(x)
    reset_net(net)
    summed = name in ("spiking_vgg5", "spiking_mlp")  # outputs times the steps of a call, whose mean is a sum
    pieces = torch.cat([net(piece) * (len(x) / len(piece) if summed else 1) for piece in x.split([2, 1, 1])])
    torch.testing.assert_close(pieces, whole)
    assert len(whole[:, 0].unique(dim=0)) > 1
    reset_net(net)
    torch.testing.assert_close(net(x), whole)


@every
def test_an_image_does_not_depend_on_its_batch(name):
    net, x = settled(name), images(seed=1)
    together = net(x)
    reset_net(net)
    torch.testing.assert_close(net(x[:, 1:2]), together[:, 1:2])
    assert not torch.equal(together[:, 0], together[:, 1])


@every
def test_ternary_amplifying_neurons_serve_in_every_network(name):
    net = small(name, spiking_neuron=TSANode, beta=1.5)
    seen = outputs(net, TSANode, images())
    assert set(torch.cat([spikes.flatten() for spikes in seen]).unique().tolist()) == {-1.0, 0.0, 1.0}
    reset_net(net)
    net(images()).square().sum().backward()
    assert next(net.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["sew_resnet19", "spikingformer_4_384", "qkformer_10_384"])
def test_single_precision_stays_channels_last(name):
    net = create_model(name, **SMALL[name])
    maps = outputs(net, nn.Conv2d, images().float())
    wide = [x for x in maps if x.shape[1] > 1 and x.shape[2] > 1]
    assert wide and all(x.is_contiguous(memory_format=torch.channels_last) for x in wide)


@pytest.mark.parametrize("name", ["resnet19", "vgg5", "vgg16"])
def test_a_twin_with_relu_is_the_artificial_network_at_every_step(name):
    twin = small(f"spiking_{name}", spiking_neuron=lambda step_mode: nn.ReLU())
    options = SMALL[f"spiking_{name}"]
    if name in VGGS:
        ann = VGG(replace(VGGS[name], **options), num_classes=10, in_channels=3).double()
    else:
        ann = create_model(name, **options).double()
    ann.load_state_dict(twin.state_dict())
    x = images()
    scale = len(x) if name == "vgg5" else 1  # a readout that sums over the steps
    torch.testing.assert_close(twin.eval()(x), torch.stack([scale * ann.eval()(step) for step in x]))


def test_convolutions_read_spikes_or_counts_of_spikes():
    for name, highest in (
        ("spiking_resnet19", 1),
        ("spikingformer_4_384", 1),
        ("sew_resnet18", 9),
        ("qkformer_4_384", 9),
    ):
        first, *rest = inputs(small(name), nn.Conv2d, images())
        assert not torch.equal(first, first.round())
        values = torch.cat([x.flatten() for x in rest]).unique()
        assert torch.equal(values, values.round()) and values.min() == 0 and 1 <= values.max() <= highest


@pytest.mark.parametrize("name", ["spikingformer_4_384", "sew_resnet18", "qkformer_4_384"])
def test_a_block_of_silent_branches_is_the_identity(name):
    net = small(name)
    module = {"spikingformer_4_384": "blocks.0", "sew_resnet18": "layers.1", "qkformer_4_384": "stage1.1"}[name]
    block = net.get_submodule(module)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.zeros_(norm.weight)
    channels = next(m for m in block.modules() if isinstance(m, nn.Conv2d)).in_channels
    x = torch.rand(3, 2, channels, 4, 4, dtype=torch.double)
    assert torch.equal(block(x), x)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_attention_is_the_formula(steps, heads, depth, side):
    qkv = (torch.rand(steps, 2, 3 * heads * depth, side, side) < 0.4).double()
    out = self_attention(qkv, heads=heads)
    q, k, v = (x.flatten(3).unflatten(2, (heads, depth)) for x in qkv.chunk(3, 2))
    scores = torch.einsum("tnhdi,tnhdj->tnhij", q, k)
    expected = torch.einsum("tnhij,tnhdj->tnhdi", scores, v) / 8
    assert torch.equal(out, expected.flatten(2, 3).view_as(out))


def test_token_attention_is_the_formula():
    qk = (torch.rand(1, 2, 12, 3, 3) < 0.3).float()
    out = token_attention(qk, IFNode(v_threshold=0.5, step_mode="m"), heads=3)
    q, k = qk[0].chunk(2, 1)
    expected = torch.cat([(q[:, c : c + 2].sum(1, keepdim=True) >= 1) * k[:, c : c + 2] for c in (0, 2, 4)], 1)
    assert torch.equal(out[0], expected)
    assert 0 < out.sum() < k.sum()


@given(st.integers(1, 5), st.integers(1, 3))
def test_layers_see_every_step_alone_and_neurons_see_them_in_order(steps, batch):
    torch.manual_seed(steps)
    conv, node = nn.Conv2d(2, 3, 3, padding=1).double(), LIFNode(step_mode="m", v_threshold=0.2)
    x = torch.randn(steps, batch, 2, 4, 4, dtype=torch.double)
    out = OverTime(conv, node)(x)
    single = LIFNode(v_threshold=0.2)
    torch.testing.assert_close(out, torch.stack([single(conv(step)) for step in x]))


def test_dropout_keeps_one_mask_for_all_steps():
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)
    out = over_time(torch.ones(5, 2, 100), drop)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(out, out[:1].expand_as(out))
    assert not torch.equal(out[0, 0], out[0, 1])
    assert torch.equal(over_time(torch.ones(5, 2, 3), drop.eval()), torch.ones(5, 2, 3))


def test_neurons_and_surrogates_go_by_name():
    net = create_model("sew_resnet18", width=4, spiking_neuron="LIFNode", tau=3.0, surrogate_function="Rectangular")
    assert (net.act.tau, net.act.decay_input, type(net.act.surrogate_function).__name__) == (3.0, True, "Rectangular")


def test_arguments_alone_change_the_papers_neuron():
    act = create_model("spiking_resnet19", width=4, tau=4.0).act
    assert (act.tau, act.decay_input, act.surrogate_function) == (4.0, False, Triangular())


def test_sew_resnets_for_small_images_begin_with_stride_one():
    net = create_model("sew_resnet18", width=8, large=False)
    seen = outputs(net, type(net.layers[0]), torch.zeros(1, 1, 3, 64, 64))
    assert [tuple(x.shape[2:4]) for x in seen[1::2]] == [(8, 64), (16, 32), (32, 16), (64, 8)]


@pytest.mark.parametrize("name", ["sew_resnet19", "sew_resnet50", "spikingformer_4_384", "qkformer_4_384"])
def test_neurons_take_on_the_normalisation_before_them_in_inference(name, monkeypatch):
    net, x = small(name).eval(), torch.randn(3, 2, 3, 16, 16).double()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        for values in (norm.running_mean, norm.weight.data, norm.bias.data):
            values.normal_(0.2)
        norm.running_var.uniform_(0.5, 2)
    wanted, runs = net(x).detach(), []
    monkeypatch.setattr(spiking, "FUSED", ("cpu",))
    monkeypatch.setattr(
        nn.BatchNorm2d, "forward", lambda self, x, usual=nn.BatchNorm2d.forward: runs.append(1) or usual(self, x)
    )
    for grad in (True, False):
        reset_net(net)
        runs.clear()
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(net(x).detach(), wanted)
        assert len(runs) == len(norms) if grad else len(runs) < len(norms)
    seen = []
    handle = norms[0].register_forward_hook(lambda *given: seen.append(1))
    reset_net(net)
    with torch.no_grad():
        net(x)
    handle.remove()
    assert seen == [1]  # who looks at it sees it run
    reset_net(net.train())
    runs.clear()
    with torch.no_grad():
        net(x)
    assert len(runs) == len(norms)


@pytest.mark.parametrize("name", ["sew_resnet19", "spikingformer_4_384"])
def test_a_whole_network_is_compiled_without_a_graph_break(name):
    torch.manual_seed(0)
    net, x = create_model(name, **SMALL[name]), torch.randn(2, 3, 3, 16, 16)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)

    def step(forward):
        net.zero_grad()
        reset_net(net)
        out = forward(x)
        out.square().sum().backward()
        return out.detach(), [weight.grad.clone() for weight in net.parameters()]

    out, grads = step(net)
    assert out.abs().mean() > 0.01
    found, found_grads = step(compiled)
    torch.testing.assert_close(found, out)
    torch.testing.assert_close(found_grads, grads, rtol=1e-3, atol=1e-4)


def test_names():
    spiking = {name for name in model_names() if name.startswith(("spiking", "sew", "qk"))}
    assert spiking == set(SMALL) | {f"spiking_vgg{depth}" for depth in ("9", "11", "13", "8_bn", "13_bn")} | {
        "spikingformer_8_512",
        "spikingformer_8_768",
    }


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sew_resnet21", {}, r"no network 'sew_resnet21', .*\. Did you mean sew_resnet\d\d"),
        ("spikingformer_4_380", {}, "Did you mean spikingformer_4_384"),
        ("sew_resnet19", {"spiking_neuron": "LIF"}, "spiking_neuron='LIF': expected .* Did you mean 'LIFNode'"),
        ("sew_resnet19", {"surrogate_function": "Tanh"}, "surrogate_function='Tanh': expected 'ATan'"),
        ("sew_resnet19", {"beta": 2.0}, "sew_resnet19 takes no 'beta'"),
        ("sew_resnet19", {"pool": "max"}, "sew_resnet19 takes no 'pool'"),
        ("spikingformer_4_384", {"heads": 7}, "heads=7 does not divide the 384 channels"),
        ("qkformer_4_384", {"heads": 7}, "heads=7 does not divide the 96 channels"),
        ("qkformer_4_384", {"width": 12}, "width=12: .* multiple of 8"),
        ("spikingformer_4_384", {"width": 12, "heads": 1}, "width=12: .* multiple of 8"),
    ],
)
def test_what_cannot_be_made_is_told(name, options, told):
    with pytest.raises(ModelError, match=told), torch.device("meta"):
        create_model(name, **options)


@every
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (0, 2, 3, 16, 16)])
def test_images_without_time_are_refused(name, shape):
    with pytest.raises(DataError, match=r"\[T, N, C, H, W\] .* x\.expand\(T, \*x\.shape\)"):
        small(name)(torch.zeros(shape, dtype=torch.double))
