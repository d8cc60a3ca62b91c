import numpy as np
import pytest
import torch
from torch import nn

from transpike.errors import DataError, ModelError
from transpike.models import create_model
from transpike.models.resnet import BasicBlock, PreactivatedBlock

PLACES = {"resnet20": 19, "resnet19": 18, "wrn_16_2": 13, "vgg16": 15, "vgg8_bn": 5}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet20", 10, 272_474),  # option A's 269,722, and two projections: 16 * 32 + 32 * 64 + 2 * (32 + 64)
        ("resnet18", 10, 11_173_962),
        ("resnet19", 10, 12_630_858),
        ("resnet19", 100, 12_653_988),
        ("vgg16", 10, 15_249_354),
        ("vgg5", 10, 50_595_520),
        ("vgg9", 10, 40_339_136),
        ("vgg11", 100, 47_048_384),
        ("vgg13", 200, 35_387_072),
        # CRD's networks for CIFAR-100 and its numbers.
        ("resnet20", 100, 278_324),
        ("resnet56", 100, 861_620),
        ("resnet8x4", 100, 1_233_540),
        ("resnet32x4", 100, 7_433_860),
        ("wrn_16_2", 100, 703_284),
        ("wrn_40_2", 100, 2_255_156),
        ("vgg8_bn", 100, 3_965_028 - 1472),  # without the biases that batch norm takes away again
        ("vgg13_bn", 100, 9_462_180 - 2944),
        ("shufflenet_v2", 100, 1_355_528),
    ],
)
def test_parameter_counts(name, classes, expected):
    with torch.device("meta"):
        assert parameters(create_model(name, num_classes=classes)) == expected


@pytest.mark.parametrize(("name", "first"), [("vgg5", 8192), ("vgg9", 4608), ("vgg11", 4608), ("vgg13", 2048)])
def test_the_heads_of_dct_snn_read_the_papers_features_and_have_no_bias(name, first):
    with torch.device("meta"):
        net = create_model(name)
    assert net.classifier[0].in_features == first
    assert not [key for key in net.state_dict() if key.endswith("bias")]


def test_resnet20_has_the_published_shape():
    net = create_model("resnet20")
    blocks = [(b.conv1.in_channels, b.conv1.out_channels, b.conv1.stride[0], len(b.shortcut)) for b in net.layers]
    assert (
        blocks
        == [(16, 16, 1, 0)] * 3 + [(16, 32, 2, 2)] + [(32, 32, 1, 0)] * 2 + [(32, 64, 2, 2)] + [(64, 64, 1, 0)] * 2
    )
    assert [net.layers[3].shortcut[0].kernel_size, net.conv.kernel_size, net.conv.stride] == [(1, 1), (3, 3), (1, 1)]


def test_a_wide_resnet_has_the_published_shape():
    net = create_model("wrn_16_2")
    blocks = [(b.conv1.in_channels, b.conv1.out_channels, b.conv1.stride[0], b.shortcut is None) for b in net.layers]
    assert blocks == [
        *((16, 32, 1, False), (32, 32, 1, True), (32, 64, 2, False)),
        *((64, 64, 1, True), (64, 128, 2, False), (128, 128, 1, True)),
    ]
    assert [net.layers[2].shortcut.kernel_size, net.bn.num_features] == [(1, 1), 128]


def test_a_preactivated_block_adds_its_input_as_it_is():
    block = PreactivatedBlock(4, 4, stride=1, activation=nn.ReLU).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    projecting = PreactivatedBlock(4, 6, stride=2, activation=nn.ReLU).eval()
    nn.init.zeros_(projecting.conv2.weight)
    expected = projecting.shortcut((x / (1 + 1e-5) ** 0.5).relu())
    torch.testing.assert_close(projecting(x), expected)


def test_a_preactivated_network_ends_in_norm_and_activation():
    net = create_model("wrn_16_2", width=4).eval()
    nn.init.ones_(net.fc.weight)
    x, seen = torch.randn(2, 3, 8, 8), []
    net.layers.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    logit = net(x)[:, 0] - net.fc.bias[0]
    [(given, out)] = seen
    assert torch.equal(given, net.conv(x))
    torch.testing.assert_close(logit, net.bn(out).relu().mean((2, 3)).sum(1))


def test_a_block_adds_its_input_before_the_second_activation():
    block = BasicBlock(4, 4, stride=1, activation=nn.ReLU).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("name", ["resnet20", "resnet19", "wrn_16_2", "vgg16", "vgg8_bn"])
def test_every_place_has_an_activation_of_its_own(name):
    made = []

    def activation():
        made.append(nn.Tanh())
        return made[-1]

    net = create_model(name, activation=activation)
    present = [module for module in net.modules() if isinstance(module, nn.Tanh)]
    assert len(present) == len(made) == PLACES[name]
    assert not [module for module in net.modules() if isinstance(module, nn.ReLU)]


def test_vgg_pools_as_asked_and_fits_the_image():
    average = create_model("vgg16", image_size=64, in_channels=1, hidden=8)
    assert average(torch.zeros(2, 1, 64, 64)).shape == (2, 10)
    assert sum(isinstance(module, nn.AvgPool2d) for module in average.modules()) == 5
    greatest = create_model("vgg16", pool="max", hidden=8)
    assert sum(isinstance(module, nn.MaxPool2d) for module in greatest.modules()) == 5
    bare = create_model("vgg8_bn", in_channels=1).eval()
    assert bare(torch.zeros(2, 1, 40, 32)).shape == (2, 10)
    assert [type(layer) for layer in bare.classifier] == [nn.Linear]
    assert sum(isinstance(module, nn.MaxPool2d) for module in bare.modules()) == 3


def test_shufflenet_keeps_small_images():
    net, sizes = create_model("shufflenet_v2", in_channels=1).eval(), []
    for stage in (net.maxpool, net.stage2, net.stage3, net.stage4):
        stage.register_forward_hook(lambda module, given, out: sizes.append((out.shape[1], out.shape[-1])))
    assert net(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    assert sizes == [(24, 32), (116, 16), (232, 8), (464, 4)]


def test_libraries_nets_take_classes_and_channels():
    net = create_model("timm/resnet10t", num_classes=7, in_channels=1).eval()
    assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
    assert create_model("torchvision/squeezenet1_1", num_classes=7).num_classes == 7


def test_a_module_of_ones_own_is_taken_as_it_is():
    own = nn.Linear(2, 2)
    assert create_model(own) is own


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "resnet21"}, r"no network 'resnet21', .*\. Did you mean resnet20"),
        ({"name": "timm/resnet10x"}, r"Did you mean .*timm/resnet10t"),
        ({"name": "torchvision/resnet81"}, r"Did you mean .*torchvision/resnet18"),
        ({"name": "torchvision/resnet18", "in_channels": 1}, "3 channels, not 1"),
        (
            {"name": "resnet20", "depth": 3},
            r"resnet20 takes no 'depth'\. .*It takes width=16, stem=16, .* activation=ReLU",
        ),
        ({"name": "sew_resnet19", "width": -8}, "width=-8: expected a whole number from 1 to 10000"),
        ({"name": "sew_resnet19", "width": 2.5}, "width=2.5"),
        ({"name": "resnet20", "num_classes": -1}, "num_classes=-1"),
        ({"name": "resnet20", "in_channels": 0}, "in_channels=0"),
        ({"name": "vgg16", "pool": "median"}, "'average' or 'max'"),
        ({"name": "vgg16", "image_size": 8}, "at least 32 pixels"),
    ],
)
def test_what_cannot_be_made_is_told(arguments, told):
    with pytest.raises(ModelError, match=told):
        create_model(**arguments)


@pytest.mark.parametrize("name", ["vgg9", "spiking_vgg9"])
def test_images_of_another_size_than_a_vggs_are_told(name):
    net = create_model(name, layers=(4, 0, 4, 0, 4, 0), hidden=8)
    with pytest.raises(DataError, match=r"made for images of 60 pixels a side\. Give create_model the image_size"):
        net(torch.zeros(2, 1, 3, 24, 24) if name.startswith("spiking") else torch.zeros(2, 3, 24, 24))


@pytest.mark.parametrize("head", [nn.Linear(512, 5), nn.Sequential(nn.Dropout(), nn.Linear(512, 5)), nn.Identity()])
def test_a_vggs_head_may_be_replaced(head):
    net = create_model("vgg8_bn")
    net.classifier = head
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 512 if isinstance(head, nn.Identity) else 5)


def test_timms_networks_may_lack_a_head_and_numbers_be_numpys():
    assert create_model("timm/resnet10t", num_classes=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    assert create_model("resnet20", num_classes=np.int64(5)).fc.out_features == 5
