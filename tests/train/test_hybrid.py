"""The stages of the hybrid route: what networks it takes, what the artificial one sees, weights, thresholds."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from transpike.coding import DCTEncoder
from transpike.errors import ConfigError, DataError, ModelError
from transpike.models import create_model
from transpike.models.spiking import OverTime
from transpike.neurons import DCTLIFNode, IFNode, reset_net
from transpike.train import Loaders, Machine, Optim, TrainOptions, evaluate, fit
from transpike.train.hybrid import balance_thresholds, check_constrained, transfer

CPU = Machine(accelerator="cpu")
SHAPE = {"num_classes": 3, "in_channels": 1, "image_size": 8}


def steps(images):
    """Two steps of spikes: which pixels are above 0, and which above 1."""
    return torch.stack([(images > 0).float(), (images > 1).float()])


@pytest.mark.parametrize("name", ["mlp", "vgg5", "vgg9", "vgg11", "vgg13", "spiking_mlp", "spiking_vgg9"])
def test_the_papers_networks_are_taken(name):
    with torch.device("meta"):
        check_constrained(create_model(name))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: create_model("resnet20"), r"layer bn \(BatchNorm2d\) normalises"),
        (lambda: create_model("vgg16"), r"layer features\.1 \(BatchNorm2d\) normalises"),
        (lambda: create_model("vgg5", hidden=8, pool="max"), r"layer features\.2 \(MaxPool2d\) takes maxima"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 3)), r"layer 0 \(Conv2d\) has a bias"),
        (lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4)), r"layer 1 \(LayerNorm\) normalises"),
    ],
)
def test_a_network_outside_the_constraints_is_refused_by_its_layer(make, told):
    with pytest.raises(ModelError, match=told + ".*`transpike convert`"):
        check_constrained(make())


def test_weights_are_copied_and_the_mean_over_steps_is_the_papers_sum():
    ann, snn = create_model("mlp", hidden=5, **SHAPE), create_model("spiking_mlp", hidden=5, **SHAPE)
    before = [weight.clone() for weight in ann.parameters()]
    transfer(ann, snn)
    assert all(torch.equal(*pair) for pair in zip(snn.parameters(), before, strict=True))
    assert all(torch.equal(*pair) for pair in zip(ann.parameters(), before, strict=True))
    spikes = []
    snn.layers[1].register_forward_hook(lambda _, __, out: spikes.append(out.detach()))
    logits = snn.eval()(3 * steps(torch.randn(4, 1, 8, 8))).mean(0)
    assert float(spikes[0].sum()) > 0
    assert torch.allclose(logits, spikes[0].sum(0) @ before[1].T, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given"), [("mlp", {"hidden": 5}), ("vgg5", {"layers": (4, 0, 4, 4, 0), "hidden": 6, "dropout": 0.0})]
)
def test_a_step_of_adam_moves_the_logits_as_it_does_where_spikes_are_summed(name, given):
    """The paper's form: cross-entropy of the last layer's sum of what it is given in T steps."""
    torch.manual_seed(0)
    snn = create_model(f"spiking_{name}", **SHAPE, **given, v_threshold=0.1).eval()
    images, labels = 3 * steps(torch.randn(6, 1, 8, 8)), torch.arange(6) % 3
    spikes = []
    last = [module for module in snn.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: spikes.append(inputs[0].detach()))
    weight = last.weight.detach().clone().requires_grad_()
    optimizers = [torch.optim.Adam([one], lr=0.01) for one in (last.weight, weight)]
    for _ in range(3):
        reset_net(snn)
        spikes.clear()
        logits = snn(images).mean(0)
        summed = spikes[0].unflatten(0, (len(images), -1)).sum(0) if spikes[0].ndim == 2 else spikes[0].sum(0)
        theirs = summed @ weight.T
        assert float(summed.sum()) > 0
        torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-5)
        for optimizer, given_logits in zip(optimizers, (logits, theirs), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(given_logits, labels).backward()
            optimizer.step()


def test_no_twin_and_no_constrained_network_are_told():
    ann = create_model("mlp", hidden=5, **SHAPE)
    with pytest.raises(ModelError, match=r"SpikingMLP is not a spiking twin of this MLP: layers\.0\.weight, layers\.3"):
        transfer(ann, create_model("spiking_mlp", hidden=6, **SHAPE))
    with pytest.raises(ModelError, match="has a bias"):
        transfer(nn.Linear(2, 2), nn.Linear(2, 2))


def by_hand(weights, images, percentile):
    """The thresholds of layers of IF neurons with soft reset, all at once in memory."""
    spikes, found = steps(images).flatten(2).double().numpy(), []
    for weight in weights:
        current = spikes @ weight.detach().double().numpy().T
        found.append(np.percentile(current, percentile))
        membrane, fired = np.zeros_like(current[0]), []
        for step in current:
            membrane = membrane + step
            fired.append((membrane >= found[-1]).astype(float))
            membrane = membrane - found[-1] * fired[-1]
        spikes = np.stack(fired)
    return found


@pytest.mark.parametrize("percentile", [90, 99, 100])
def test_thresholds_are_percentiles_of_each_layer_with_those_before_it_firing(percentile):
    options = {"hidden": [40, 30], "spiking_neuron": "IFNode", "v_reset": None}
    snn = create_model("spiking_mlp", **SHAPE, **options)
    images = torch.randn(300, 1, 8, 8)
    found = balance_thresholds(snn, images.split(70), encode=steps, percentile=percentile)
    assert list(found) == ["layers.1", "layers.4"]
    # Percentiles are met to 0.1 %; the second layer also feels spikes that the first's rounding has moved.
    expected = by_hand([snn.layers[0].weight, snn.layers[3].weight], images, percentile)
    assert list(found.values()) == [pytest.approx(expected[0], rel=1e-3), pytest.approx(expected[1], rel=2e-2)]
    assert [snn.layers[1].v_threshold, snn.layers[4].v_threshold] == list(found.values())
    again = balance_thresholds(snn, images.flip(0).split(128), encode=steps, percentile=percentile)
    assert again["layers.1"] == found["layers.1"]


def test_thresholds_do_not_depend_on_dropout_or_an_earlier_membrane_and_leave_the_mode():
    snn = create_model("spiking_mlp", hidden=20, dropout=0.9, **SHAPE).train()
    loader = DataLoader(TensorDataset(torch.randn(50, 1, 8, 8), torch.zeros(50)), batch_size=20)
    snn(torch.randn(2, 3, 1, 8, 8))
    seen = []
    first = balance_thresholds(snn, loader, encode=steps, progress=lambda: seen.append(1))
    assert first == balance_thresholds(snn, loader, encode=steps)
    assert len(seen) == 3 and snn.training and snn.layers[1].v == 0.0
    assert isinstance(snn.layers[1], DCTLIFNode)
    assert snn.layers[1].surrogate_function.width == snn.layers[1].v_threshold == first["layers.1"]


def test_scaled_weights_give_scaled_thresholds_and_the_same_spikes():
    nets = [create_model("spiking_mlp", hidden=20, **SHAPE).eval() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        nets[1].layers[0].weight.mul_(4)  # exact in floating point
    images = torch.randn(50, 1, 8, 8)
    one, four = (balance_thresholds(net, [images], encode=steps)["layers.1"] for net in nets)
    assert four == pytest.approx(4 * one, rel=1e-6)
    assert torch.allclose(nets[0](steps(images)), nets[1](steps(images)), atol=1e-6)


def test_what_cannot_be_balanced_is_told():
    snn = create_model("spiking_mlp", hidden=[6, 4], **SHAPE)
    images = torch.randn(10, 1, 8, 8)
    for percentile in (0, 101):
        with pytest.raises(ConfigError, match="percentile"):
            balance_thresholds(snn, [images], encode=steps, percentile=percentile)
    with pytest.raises(DataError, match="no images"):
        balance_thresholds(snn, [], encode=steps)
    with pytest.raises(ModelError, match="Linear has no neurons"):
        balance_thresholds(nn.Linear(64, 2), [images], encode=lambda x: x.flatten(1))
    nn.init.zeros_(snn.layers[3].weight)
    with pytest.raises(ModelError, match=r"threshold of layers\.4 is zero"):
        balance_thresholds(snn, [images], encode=steps)
    assert not snn.layers[1]._forward_pre_hooks


def test_layers_run_in_their_own_order():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = IFNode(step_mode="m"), IFNode(step_mode="m", v_threshold=9.0)

        def forward(self, x):
            return self.second(self.first(x))

    found = balance_thresholds(Crossed(), [torch.full((4, 1), 3.0)], encode=lambda x: x[None], percentile=50)
    assert list(found.items()) == [("first", 3.0), ("second", 1.0)]


def test_from_an_artificial_network_to_a_trained_spiking_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    patterns = torch.randn(3, 1, 8, 8, generator=generator)
    images = patterns[labels] + 0.5 * torch.randn(90, 1, 8, 8, generator=generator)
    loader = DataLoader(TensorDataset(images, labels), batch_size=30)
    encoder = DCTEncoder(steps=8, frequencies=8).fit(images)
    ann, snn = create_model("mlp", hidden=12, **SHAPE), create_model("spiking_mlp", hidden=12, **SHAPE)
    options = TrainOptions(epochs=8, machine=CPU, optim=Optim(lr=0.05))
    fit(ann, Loaders(loader, None), options, folder=tmp_path / "ann", encode=encoder.layout)
    transfer(ann, snn)
    found = balance_thresholds(snn, loader, encode=encoder)
    before = evaluate(snn, loader, machine=CPU, encode=encoder)
    options = TrainOptions(epochs=4, steps=8, machine=CPU, optim=Optim(name="adamw", lr=1e-2))
    fit(snn, Loaders(loader, None), options, folder=tmp_path / "snn", encode=encoder)
    after = evaluate(snn, loader, machine=CPU, encode=encoder)
    assert before.accuracy > 0.8 and after.accuracy > 0.9 and after.loss < before.loss
    assert snn.layers[1].v_threshold == found["layers.1"]


def test_dropout_draws_one_mask_for_all_steps():
    net = OverTime(nn.Dropout(0.5)).train()
    out = net(torch.ones(6, 3, 200))
    assert all(torch.equal(step, out[0]) for step in out) and 0.3 < float((out == 0).float().mean()) < 0.7
