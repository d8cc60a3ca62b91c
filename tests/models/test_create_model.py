import pytest
import torch
from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model
from transpike.models.resnet import BasicBlock


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


def test_a_block_adds_its_input_before_the_second_activation():
    block = BasicBlock(4, 4, stride=1, activation=nn.ReLU).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("name", ["resnet20", "resnet19", "vgg16"])
def test_every_place_has_an_activation_of_its_own(name):
    made = []

    def activation():
        made.append(nn.Tanh())
        return made[-1]

    net = create_model(name, activation=activation)
    present = [module for module in net.modules() if isinstance(module, nn.Tanh)]
    assert len(present) == len(made) == {"resnet20": 19, "resnet19": 18, "vgg16": 15}[name]
    assert not [module for module in net.modules() if isinstance(module, nn.ReLU)]


def test_vgg_pools_as_asked_and_fits_the_image():
    average = create_model("vgg16", image_size=64, in_channels=1, hidden=8)
    assert average(torch.zeros(2, 1, 64, 64)).shape == (2, 10)
    assert sum(isinstance(module, nn.AvgPool2d) for module in average.modules()) == 5
    greatest = create_model("vgg16", pool="max", hidden=8)
    assert sum(isinstance(module, nn.MaxPool2d) for module in greatest.modules()) == 5


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
        ({"name": "resnet20", "depth": 3}, "depth"),
        ({"name": "vgg16", "pool": "median"}, "'average' or 'max'"),
        ({"name": "vgg16", "image_size": 8}, "at least 32 pixels"),
    ],
)
def test_what_cannot_be_made_is_told(arguments, told):
    with pytest.raises(ModelError, match=told):
        create_model(**arguments)
