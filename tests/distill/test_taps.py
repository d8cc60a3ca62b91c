"""Taps: hooks by module name, layouts found by a dry run, default places, nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as jelly_neuron
from spikingjelly.activation_based.model import sew_resnet as jelly_sew
from spikingjelly.activation_based.model import spikformer as jelly_spikformer
from torch import Tensor, nn

from transpike.distill.matching import default_taps, match_taps, pair_taps
from transpike.distill.taps import Tap, Taps, find_taps
from transpike.errors import ModelError
from transpike.models import create_model
from transpike.neurons import reset_net


def layouts(model: nn.Module, names: list[str], shape: tuple[int, ...], **kwargs: int) -> dict[str, Tap]:
    samples, (height, width) = shape[-4], shape[-2:]
    return find_taps(model, names, lambda: model(torch.rand(shape)), samples=samples, image=(height, width), **kwargs)


class Gives(nn.Module):
    """A network with one module, whose output is given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.output)
        return out


def test_hooks_record_the_latest_call_and_leave_nothing_behind() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with Taps(net, ["0", "1"]) as taps:
        for value in (1.0, 2.0):
            out = net(torch.full((1, 1, 2, 2), value))
            assert taps["1"] is out
            expected = (net[0].weight * value).view(1, 2, 1, 1) + net[0].bias.view(1, 2, 1, 1)
            torch.testing.assert_close(taps["0"], expected.expand(1, 2, 2, 2))
    assert not any(module._forward_hooks for module in net.modules())
    net(torch.zeros(1, 1, 2, 2))
    assert taps["1"] is out, "a closed tap records nothing"
    taps.clear()
    with pytest.raises(ModelError, match="did not call its module '1'"):
        taps["1"]


class Block(nn.Module):
    """A residual block as torchvision writes it; `inplace` says whether it changes its tensors."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.relu(self.first(x)))
        if self.inplace:
            out += x
        else:
            out = out + x
        return self.relu(out).square()


@pytest.mark.parametrize("on_path", [True, False])
@pytest.mark.parametrize("grad", [True, False], ids=["training", "no_grad"])
def test_taps_are_what_modules_gave_whatever_is_changed_in_place_later(grad: bool, on_path: bool) -> None:
    nets, names = [Block(inplace) for inplace in (True, False)], ["first", "second", "relu"]
    nets[1].load_state_dict(nets[0].state_dict())
    held = [Taps(net, names, on_path=on_path).open() for net in nets]
    for seed in range(3):  # with copies of everything at first, then of what was changed
        x, found = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(seed)), []
        for net, taps in zip(nets, held, strict=True):
            with torch.set_grad_enabled(grad):
                out = net(x)
            maps = [taps[name] for name in names]
            found.append([out, *maps])
            if grad:
                loss = out.sum() + sum((each - 1).square().sum() for each in maps)
                found[-1] += torch.autograd.grad(loss, [*net.parameters()], retain_graph=True)
            if grad and on_path:
                found[-1] += torch.autograd.grad(out.sum(), maps)
            taps.clear()
        for changed, expected in zip(*found, strict=True):
            torch.testing.assert_close(changed, expected, rtol=1e-6, atol=1e-6)


def test_a_tap_of_densenet_that_its_relu_overwrites() -> None:
    net = torchvision.models.densenet121(weights=None).eval()
    told = []
    net.features.norm5.register_forward_hook(lambda module, given, output: told.append(output.clone()))
    assert "features.norm5" in default_taps(net)
    with torch.no_grad(), Taps(net, ["features.norm5"]) as taps:
        net(torch.rand(1, 3, 32, 32))
    assert told[0].min() < -0.1 and torch.equal(taps["features.norm5"], told[0])


def test_nothing_is_copied_where_nothing_is_changed() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1))
    seen: dict[str, Tensor] = {}
    for name in ("0", "1", "3"):
        net[int(name)].register_forward_hook(lambda module, given, output, name=name: seen.update({name: output}))
    kept: list[int] = []
    with Taps(net, ["0", "1", "3"]) as taps:
        for _ in range(3):
            out = net(torch.rand(2, 1, 3, 3))
            kept.append(sum(record.copy is not None for record in taps._records.values()))
            assert taps["0"] is seen["0"] and taps["3"] is seen["3"] is out and taps["1"] is not seen["1"]
            assert taps["1"] is taps["1"] and taps["1"].min() < 0
    assert kept == [3, 1, 1]


class Sometimes(nn.Module):
    """Changes what its module gave in place, if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.change = nn.Linear(3, 3), False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out.mul_(2) if self.change else out * 2


def test_a_change_that_comes_late_is_refused_once() -> None:
    net, x = Sometimes().eval(), torch.randn(2, 3)
    with torch.no_grad(), Taps(net, ["inner"]) as taps:
        net(x), taps["inner"]
        net.change = True
        net(x)
        with pytest.raises(ModelError, match="changed the output of its module 'inner' in place, but not in"):
            taps["inner"]
        for _ in range(2):
            net(x)
            assert torch.equal(taps["inner"], net.inner(x))
        net.train()  # another mode is looked at anew, and what is done to a tensor that was read is not the network's
        net(x)
        taps["inner"].zero_()
        assert not taps["inner"].any()


def test_taps_in_inference_mode_and_of_several_outputs() -> None:
    net, x = Block(inplace=True), torch.randn(1, 2, 4, 4)
    with torch.inference_mode(), Taps(net, ["second"]) as taps:
        for _ in range(2):
            net(x)
            assert torch.equal(taps["second"], net.second(net.first(x).relu()))
    lstm = nn.LSTM(2, 3)
    with torch.no_grad(), Taps(nn.Sequential(lstm), ["0"]) as taps:
        out, (hidden, _) = nn.Sequential(lstm)(x[0, 0, :, :2])
        out.zero_(), hidden.zero_()
        assert taps["0"][0].any() and taps["0"][1][0].any()


def test_a_wrong_name_lists_the_right_ones() -> None:
    net = create_model("resnet20", width=4)
    with pytest.raises(ModelError, match=r"no modules 'layers\.9', 'fcc'.*Did you mean.*fc.*It has: conv, bn"):
        Taps(net, ["layers.0", "layers.9", "fcc"])


@pytest.mark.parametrize(
    "output, steps, expected",
    [
        (torch.zeros(2, 5, 8, 8), None, Tap("inner", 5, (8, 8), "chw")),
        (torch.zeros(2, 8, 8, 5), None, Tap("inner", 5, (8, 8), "hwc")),
        (torch.zeros(2, 16, 5), None, Tap("inner", 5, (4, 4), "tokens")),
        (torch.zeros(2, 18, 5), None, Tap("inner", 5, (4, 4), "tokens", prefix=2)),
        (torch.zeros(2, 24, 16), None, Tap("inner", 24, (4, 4), "transposed")),
        (torch.zeros(3, 2, 5, 8, 8), 3, Tap("inner", 5, (8, 8), "chw", steps=3)),
        (torch.zeros(6, 5, 8, 8), 3, Tap("inner", 5, (8, 8), "chw", steps=3)),
        (torch.zeros(2, 5, 8, 8), 3, Tap("inner", 5, (8, 8), "chw")),
        (torch.zeros(3, 2, 17, 5), 3, Tap("inner", 5, (4, 4), "tokens", prefix=1, steps=3)),
        (torch.zeros(2, 2, 5, 8, 8), 2, Tap("inner", 5, (8, 8), "chw", steps=2)),
    ],
    ids=lambda value: str(list(value.shape)) if isinstance(value, Tensor) else None,
)
def test_layouts(output: Tensor, steps: int | None, expected: Tap) -> None:
    net = Gives(output)
    found = find_taps(net, ["inner"], lambda: net(output), samples=2, image=(32, 32), steps=steps)
    assert found == {"inner": expected}
    time = (3 if steps == 3 else 2,) if expected.steps else ()
    assert found["inner"].maps(output).shape == (*time, 2, expected.channels, *expected.size)


@pytest.mark.parametrize(("tokens", "prefix"), [(17, 1), (16, 0)])
def test_a_network_that_counts_its_prefix_may_tap_where_it_is_gone(tokens: int, prefix: int) -> None:
    output = torch.zeros(2, tokens, 5)
    net = Gives(output)
    net.num_prefix_tokens = 1  # type: ignore[assignment]
    found = find_taps(net, ["inner"], lambda: net(output), samples=2, image=(32, 32))
    assert found["inner"] == Tap("inner", 5, (4, 4), "tokens", prefix=prefix)


def test_maps_put_every_value_in_its_place() -> None:
    maps = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    tokens = torch.cat([torch.full((2, 1, 3), -1.0), maps.flatten(2).mT], 1)
    assert torch.equal(Tap("", 3, (4, 4), "tokens", prefix=1).maps(tokens), maps)
    assert torch.equal(Tap("", 3, (4, 4), "hwc").maps(maps.movedim(1, -1)), maps)
    assert torch.equal(Tap("", 3, (4, 4), "transposed").maps(maps.flatten(2)), maps)
    both = torch.stack([maps, maps + 100])
    assert torch.equal(Tap("", 3, (4, 4), "chw", steps=2).maps(both.flatten(0, 1)), both)
    assert torch.equal(Tap("", 3, (4, 4), "chw").maps((maps, "more")), maps)


def test_grids_of_oblong_images() -> None:
    net = Gives(torch.zeros(1, 1 + 2 * 6, 5))
    found = find_taps(net, ["inner"], lambda: net(torch.zeros(1)), samples=1, image=(16, 48))
    assert found["inner"] == Tap("inner", 5, (2, 6), "tokens", prefix=1)


@pytest.mark.parametrize("shape", [(2, 5), (2, 24, 24), (2,)])
def test_a_tap_without_spatial_axes(shape: tuple[int, ...]) -> None:
    net = Gives(torch.zeros(shape))
    with pytest.raises(ModelError, match=r"'inner' gives .* which has no spatial axes"):
        find_taps(net, ["inner"], lambda: net(torch.zeros(1)), samples=2, image=(32, 32))


def test_a_dry_run_changes_nothing() -> None:
    net = create_model("sew_resnet19", width=4)
    net.layers[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layouts(net, ["layers.2"], (2, 1, 3, 16, 16), steps=2)
    reset_net(net)
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    "name, size, first, last",
    [
        ("resnet18", 64, ((16, 16), 64), ((2, 2), 512)),
        ("vit_tiny_patch16_224", 224, ((14, 14), 192), ((14, 14), 192)),
        ("deit_tiny_distilled_patch16_224", 224, ((14, 14), 192), ((14, 14), 192)),
        ("swin_tiny_patch4_window7_224", 224, ((56, 56), 96), ((7, 7), 768)),
        ("mixer_s32_224", 224, ((7, 7), 512), ((7, 7), 512)),
        ("convnext_atto", 64, ((16, 16), 40), ((2, 2), 320)),
        ("tf_efficientnet_lite0", 64, ((32, 32), 16), ((2, 2), 320)),
        ("resmlp_12_224", 224, ((14, 14), 384), ((14, 14), 384)),
    ],
)
def test_default_taps_of_timm(
    name: str, size: int, first: tuple[tuple[int, int], int], last: tuple[tuple[int, int], int]
) -> None:
    net = timm.create_model(name)
    found = list(layouts(net, default_taps(net), (1, 3, size, size)).values())
    assert (found[0].size, found[0].channels) == first
    assert (found[-1].size, found[-1].channels) == last
    assert len(found) >= 4


@pytest.mark.parametrize(
    "name, taps",
    [
        ("resnet20", ["layers.2", "layers.5", "layers.8"]),
        ("sew_resnet19", ["layers.2", "layers.5", "layers.7"]),
        ("sew_resnet50", ["layers.2", "layers.6", "layers.12", "layers.15"]),
        ("wrn_16_2", ["layers.1", "layers.3", "layers.5"]),
        ("vgg8_bn", ["features.2", "features.6", "features.10", "features.17"]),
        ("shufflenet_v2", ["stage2", "stage3", "stage4"]),
        ("spiking_vgg5", ["features.1", "features.7"]),
        ("spikingformer_4_384", ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
        ("spikingformer_8_512", ["blocks.1", "blocks.3", "blocks.5", "blocks.7"]),
        ("spikingformer_2_256", ["blocks.0", "blocks.1"]),
        ("qkformer_4_384", ["stage1", "stage2", "stage3"]),
    ],
)
def test_default_taps_of_our_networks(name: str, taps: list[str]) -> None:
    with torch.device("meta"):
        net = create_model(name)
    assert default_taps(net) == taps
    Taps(net, taps)


def test_taps_are_matched_by_size_then_depth() -> None:
    vit = {f"b{i}": Tap(f"b{i}", 4, (14, 14), "tokens") for i in range(12)}
    student = {name: Tap(name, 4, (side, side), "chw") for name, side in (("s1", 32), ("s2", 16), ("s3", 8))}
    assert match_taps(student, vit) == [("s1", "b3"), ("s2", "b7"), ("s3", "b11")]
    stages = pair_taps(student, vit, [("s1", "b3"), ("s3", "b11")])
    assert [stage.size for stage in stages] == [(14, 14), (8, 8)]


def test_a_student_of_one_size_learns_by_depth() -> None:
    vit = {f"b{i}": Tap(f"b{i}", 4, (14, 14), "tokens") for i in range(12)}
    cnn = {name: Tap(name, 4, (side, side), "chw") for name, side in (("s1", 56), ("s2", 28), ("s3", 14), ("s4", 7))}
    assert match_taps(vit, cnn) == [("b2", "s1"), ("b5", "s2"), ("b8", "s3"), ("b11", "s4")]
    assert match_taps(vit, vit) == [(name, name) for name in ("b2", "b5", "b8", "b11")]
    assert match_taps({"b5": vit["b5"]}, cnn) == [("b5", "s3")], "a single tap is of a size that tells"


def test_unknown_networks_have_no_default_taps() -> None:
    with pytest.raises(ModelError, match=r"no default taps are known for Sequential.*It has: 0"):
        default_taps(nn.Sequential(nn.Conv2d(1, 1, 1)))


@pytest.mark.parametrize("before", [False, True], ids=["tapped first", "compiled first"])
def test_taps_survive_compilation(before: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = torch.compile(net, backend="eager")
    x = torch.randn(5, 3)
    if before:
        compiled(x)
    for _ in range(2):
        with Taps(compiled, ["1"]) as taps:
            for value in (x, 2 * x):
                compiled(value)
                torch.testing.assert_close(taps["1"], net[:2](value))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "build, taps, first, last",
    [
        (
            lambda: jelly_sew.sew_resnet18(spiking_neuron=jelly_neuron.IFNode, cnf="ADD", num_classes=10),
            ["layer1", "layer2", "layer3", "layer4"],
            Tap("layer1", 64, (16, 16), "chw", steps=2),
            Tap("layer4", 512, (2, 2), "chw", steps=2),
        ),
        (
            lambda: jelly_spikformer.Spikformer(
                img_size_h=64, img_size_w=64, patch_size=16, embed_dims=48, num_heads=2, depths=2, num_classes=10
            ),
            ["blocks.0", "blocks.1"],
            Tap("blocks.0", 48, (4, 4), "chw", steps=2),
            Tap("blocks.1", 48, (4, 4), "chw", steps=2),
        ),
    ],
    ids=["sew_resnet18", "spikformer"],
)
def test_spikingjellys_students(build: Any, taps: list[str], first: Tap, last: Tap) -> None:
    net = build()
    functional.set_step_mode(net, "m")
    assert default_taps(net) == taps
    x = torch.rand(2, 3, 3, 64, 64)
    found = find_taps(net, taps, lambda: net(x), samples=3, image=(64, 64), steps=2)
    assert found[taps[0]] == first
    assert found[taps[-1]] == last
