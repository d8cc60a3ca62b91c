"""What networks take, and what is said of arguments that they do not."""

import pytest
from spikingjelly.activation_based import neuron as jelly

from transpike.errors import ModelError, TranspikeError
from transpike.models import check_arguments, create_model, describe_arguments, model_names, network_arguments
from transpike.models.outlines import outlined


@pytest.mark.parametrize("name", model_names())
def test_every_argument_listed_is_taken_with_its_default(name):
    with outlined():
        plain = create_model(name)
        told = {key: value for key, value in network_arguments(name).items() if key != "spiking_neuron"}
        again = create_model(name, **told)
    assert [(key, value.shape) for key, value in plain.state_dict().items()] == [
        (key, value.shape) for key, value in again.state_dict().items()
    ]
    assert str(plain) == str(again)


def test_lists():
    assert list(network_arguments("resnet20")) == [
        *("width", "stem", "stages", "hidden", "large", "preactivated", "activation", "block"),
    ]
    assert describe_arguments("shufflenet_v2") == "no further arguments"
    assert network_arguments("spiking_vgg5")["leak"] == 0.9901
    assert "tau" not in network_arguments("spiking_vgg5")
    assert network_arguments("spiking_vgg5", "LIFNode")["tau"] == 2.0
    assert network_arguments("timm/resnet10t.c3_in1k")["drop_rate"] == 0.0
    assert network_arguments("torchvision/vgg11") == {"init_weights": True, "dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("resnet20", {"widht": 8}, r"resnet20 takes no 'widht'\. Did you mean width\? It takes width=16, stem=16, "),
        ("spiking_mlp", {"leek": 1}, r"takes no 'leek'\. Did you mean leak\? .*leak=0\.9901"),
        ("spiking_mlp", {"spiking_neuron": "LIFNode", "leak": 1}, r"takes no 'leak'\. It takes .*tau=2\.0"),
        (
            "timm/resnet10t",
            {"drop_rat": 0.1},
            r"'drop_rat'\. Did you mean drop_rate\? It takes output_stride, ",
        ),
        ("torchvision/vgg11", {"drop": 0.1}, r"'drop'\. Did you mean dropout\? It takes init_weights, dropout\."),
        ("timm/resnet10t", {"name": "x"}, "takes no 'name': the data set or the command sets it"),
        ("resnet20", {"large": "no"}, "resnet20: large='no': expected true or false"),
        ("resnet20", {"stages": 3}, r"resnet20: stages=3: expected a list, such as \[\(16, 3, 1\)"),
        ("resnet20", {"width": 10**9}, "resnet20: width=1000000000: expected a whole number from 1 to 10000"),
        ("vgg5", {"layers": [64, -1]}, "vgg5: layers=-1: expected a whole number from 0 to 10000"),
        ("mlp", {"hidden": [1] * 2000}, r"mlp: hidden=\[1, .*: expected a list of at most 1000 entries"),
        ("spikingformer_4_384", {"heads": 0}, "heads=0: expected a whole number from 1"),
        ("qkformer_4_384", {"depths": [1, 1]}, "qkformer_4_384 cannot be made with these arguments: "),
        ("sew_resnet19", {"spiking_neuron": 5}, "spiking_neuron=5: expected a class of neurons, or a name of ours"),
        ("spiking_resnet19", {"preactivated": True}, "preactivated=True"),
        ("resnet20", {"activation": "ReLU"}, "activation='ReLU': expected 'relu' or 'qcfs'"),
        ("timm/resnet10t", {"output_stride": 3}, "timm/resnet10t cannot be made with these arguments: AssertionError"),
        ("sew_resnet19", {"tau": 0.5}, "tau=0.5: expected a number above 1"),
    ],
)
def test_what_a_network_does_not_take_is_told(name, arguments, told):
    with pytest.raises(TranspikeError, match=told):
        check_arguments(name, arguments)
        create_model(name, **arguments)


def test_neurons_of_others_take_what_theirs_do():
    net = create_model("spiking_mlp", spiking_neuron=jelly.LIFNode, tau=3.0, hidden=4)
    assert net.layers[1].tau == 3.0
    with pytest.raises(ModelError, match=r"takes no 'taw'\. Did you mean tau\?"):
        create_model("spiking_mlp", spiking_neuron=jelly.LIFNode, taw=3.0)

    def any_neuron(**options):
        return jelly.IFNode(v_threshold=options["threshold"], step_mode=options["step_mode"])

    assert create_model("spiking_mlp", spiking_neuron=any_neuron, threshold=0.5).layers[1].v_threshold == 0.5
