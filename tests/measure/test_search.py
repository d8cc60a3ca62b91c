"""A search for a goal: what it finds meets it on new images, within its limits, with few simulations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.conversion.nets import distance
from torch import Tensor, nn

import transpike
from transpike.conversion import SpikingNetwork, prepare
from transpike.errors import ConfigError, ConversionError, GoalError
from transpike.measure.choosing import find, tries_table
from transpike.measure.conversion import compare
from transpike.measure.goals import BATCH, Goal, Held
from transpike.measure.search import SIMULATIONS, search
from transpike.results import Limits


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(512, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def found(net: nn.Module, images: Tensor) -> Callable[[int], SpikingNetwork]:
    """The network that a search for 99 % same predictions finds with so many payload bits."""

    @cache
    def convert(bits: int) -> SpikingNetwork:
        return transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits={"payload_bits": bits})

    return convert


def held_out(images: Tensor) -> Tensor:
    return images[1::2]


def same(snn: nn.Module, net: nn.Module, images: Tensor, margin: float = 1.0) -> float:
    with torch.no_grad():
        want, got = net(images), snn(images)
    return 100 * float(((want + margin * (got - want)).argmax(1) == want.argmax(1)).double().mean())


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_the_goal_is_met_within_the_payload(
    bits: int, net: nn.Module, images: Tensor, found: Callable[[int], SpikingNetwork]
) -> None:
    snn = found(bits)
    (taken,) = [one for one in snn.search if one.chosen]
    assert all(one.payload_bits <= bits for one in snn.search)
    assert (taken.latency, taken.steps, taken.scheme["levels"]) == (snn.latency, snn.steps, snn.scheme.levels)  # type: ignore[attr-defined]
    assert taken.same == pytest.approx(same(snn, net, held_out(images)) / 100)
    assert taken.kept == pytest.approx(same(snn, net, held_out(images), margin=4) / 100) and taken.kept >= 0.99
    new = torch.randn(1000, 16, generator=torch.Generator().manual_seed(2))
    assert same(snn, net, new) >= 99
    better = [one for one in snn.search if one.met and one.fits and one.images and one.latency < snn.latency]
    assert not better and snn.residuals


def test_more_payload_never_takes_longer(found: Callable[[int], SpikingNetwork]) -> None:
    latencies = [found(bits).latency for bits in (1, 2, 3, 5)]
    assert latencies == sorted(latencies, reverse=True) and latencies[0] > latencies[-1]


def test_an_error_is_that_of_the_outputs_less_their_mean(net: nn.Module, images: Tensor) -> None:
    snn = transpike.convert(net, images, scheme="auto", goal={"error": 1}, limits={"latency": 20})
    (taken,) = [one for one in snn.search if one.chosen]
    x = held_out(images)
    want = net(x).detach()
    error = float((snn(x) - want).norm() / (want - want.mean(0)).norm())
    assert taken.error == pytest.approx(error, rel=1e-3) and error <= 0.01 and snn.latency <= 20


def test_a_loss_needs_labels_and_counts_what_the_original_had_right(net: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        labels = net(images).argmax(1)
    labels[::4] = (labels[::4] + 1) % 8  # a quarter of them wrong
    goal = {"loss": 0.5, "margin": 1}
    pairs = [(x, y) for x, y in zip(images.split(100), labels.split(100), strict=True)]
    snn = transpike.convert(net, iter(pairs), scheme="auto", goal=goal, limits={"payload_bits": 3})
    (taken,) = [one for one in snn.search if one.chosen]
    x, y = held_out(images), labels[1::2]
    right = [float((out.argmax(1) == y).double().mean()) for out in (net(x), snn(x))]
    assert taken.loss_pp == pytest.approx(100 * (right[0] - right[1])) and (taken.loss_pp or 0) <= 0.5
    for batches in (images, [images], [(images, labels.float())]):
        with pytest.raises(
            ConfigError, match=r"goal: a loss of accuracy needs labels; pass batches \(images, labels\)"
        ):
            transpike.convert(net, batches, scheme="auto", goal=goal)


def test_energy_is_a_limit_by_the_count_of_measure(
    net: nn.Module, images: Tensor, found: Callable[[int], SpikingNetwork]
) -> None:
    free = found(2)
    energy = next(one.energy_uj for one in free.search if one.chosen)
    assert energy == pytest.approx(compare(free, [held_out(images)[:16]]).row.energy_uj)
    limits = {"payload_bits": 2, "energy": 0.97 * energy}
    cheaper = transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits=limits)
    taken = next(one for one in cheaper.search if one.chosen)
    assert (taken.energy_uj or 1) <= 0.97 * energy and cheaper.latency > free.latency
    with pytest.raises(GoalError, match=r"it meets the goal, and its energy is .* µJ: the limit binds"):
        transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits={"energy": energy / 100})


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The images of each simulation."""
    seen: list[int] = []

    def counted(name: str) -> None:
        method = getattr(SpikingNetwork, name)

        def run(self: SpikingNetwork, x: Tensor, *args: object, **kwargs: object) -> object:
            if not kwargs.get("analog"):
                seen.append(len(x))
            return method(self, x, *args, **kwargs)

        monkeypatch.setattr(SpikingNetwork, name, run)

    for name in ("observe", "simulate", "readings"):
        counted(name)
    yield seen


@pytest.mark.parametrize(
    ("goal", "limits"),
    [({"same": 99.5}, {}), ({"error": 1e-5}, {}), ({"same": 99}, {"energy": 0.02}), ({"error": 2}, {"latency": 9})],
)
def test_at_most_a_hundred_simulations_of_64_images(
    goal: dict[str, float], limits: dict[str, float], net: nn.Module, images: Tensor, simulated: list[int]
) -> None:
    try:
        transpike.convert(net, images, scheme="auto", goal=goal, limits=limits)
    except GoalError as error:
        assert error.tries
    assert 0 < len(simulated) <= SIMULATIONS and max(simulated) <= BATCH


def test_a_search_that_runs_out_takes_the_best_so_far(
    net: nn.Module, images: Tensor, simulated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transpike.measure.search.SIMULATIONS", 16)
    snn = transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits={"payload_bits": 1})
    (taken,) = [one for one in snn.search if one.chosen]
    assert len(simulated) <= 16 and taken.met and taken.latency == min(one.latency for one in snn.search if one.met)
    with pytest.raises(GoalError, match="tried in 16 simulations gives an error of at most 1e-05 %"):
        transpike.convert(net, images, scheme="auto", goal={"error": 1e-5})


def test_the_count_is_what_was_run(net: nn.Module, images: Tensor, simulated: list[int]) -> None:
    found = find(net, images, Goal("same", 99), Limits(payload_bits=1), console=Console(quiet=True))
    assert found.simulations == len(simulated) and found.images == 512


def test_the_same_images_give_the_same_network_saved_and_loaded(
    net: nn.Module, images: Tensor, found: Callable[[int], SpikingNetwork], tmp_path: Path
) -> None:
    once = found(1)
    again = transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits={"payload_bits": 1})
    assert once.search == again.search and once.units == again.units and once.timing.waits == again.timing.waits
    once.save(tmp_path / "net")
    loaded = transpike.load(tmp_path / "net")
    assert torch.equal(loaded(images), once(images)) and loaded.latency == once.latency
    assert loaded.scheme == once.scheme


@pytest.mark.parametrize(
    ("goal", "limits", "said"),
    [
        ({"error": 0.01}, {"latency": 3}, r"error of at most 0.01 % within the limits \(latency 3\).*resolution binds"),
        ({"same": 99}, {"latency": 1}, r"The closest is .*T = 1.*resolution binds: more steps"),
        (
            {"same": 99},
            {"latency": 7, "payload_bits": 1},
            r"latency 7, 1 payload bits per spike\). The closest is ternary",
        ),
    ],
)
def test_a_goal_out_of_reach_tells_what_came_closest_and_what_binds(
    goal: dict[str, float], limits: dict[str, float], said: str, net: nn.Module, images: Tensor
) -> None:
    with pytest.raises(GoalError, match=said) as caught:
        transpike.convert(net, images, scheme="auto", goal=goal, limits=limits)
    assert not any(one.chosen for one in caught.value.tries) and isinstance(caught.value, ConversionError)


def test_coupling_and_clipping_are_told_apart() -> None:
    """Held-out images three times as large as those that the amplitudes saw cannot be written."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval(), torch.randn(128, 8)
    prepared = prepare(net, x)
    held = Held(prepared, 3 * torch.randn(128, 8), None, Goal("error", 0.5))
    with pytest.raises(GoalError, match="clipping binds: more payload bits"):
        search(prepared, held, Limits(payload_bits=1))


def test_judging_stops_where_the_goal_is_out_of_reach(net: nn.Module, images: Tensor) -> None:
    prepared = prepare(net, images)
    coarse, fine = (prepared.convert(transpike.CSS(steps=steps)) for steps in (2, 14))
    held = Held(prepared, images, None, Goal("same", 99))
    (bad, few), (good, all_of_them) = held.judge(coarse), held.judge(fine)
    assert (bad.images, few, bad.met) == (64, 1, False)
    assert (good.images, all_of_them, good.met) == (512, held.cost, True)
    assert good.same == pytest.approx(same(fine, net, images) / 100)


@pytest.mark.parametrize("kind", ["one column", "no column", "an index"])
def test_one_output_has_an_error_and_no_predictions(kind: str, images: Tensor) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4 if kind == "an index" else 1))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            return {"one column": y, "no column": y[:, 0], "an index": y.argmax(1)}[kind]

    torch.manual_seed(0)
    net = One().eval()
    with pytest.raises(ConfigError, match=r"goal: same compares which output .* one output per sample; give an error"):
        transpike.convert(net, images, scheme="auto", goal={"same": 99})
    limits = {"payload_bits": 3, "energy": 1e3}
    snn = transpike.convert(net, images, scheme="auto", goal={"error": 5}, limits=limits)
    assert distance(snn(held_out(images)).double(), net(held_out(images)).double()) < 0.06


def test_an_error_of_outputs_that_do_not_vary_is_relative_to_them(net: nn.Module, images: Tensor) -> None:
    alike = images[:1].expand(64, -1)
    snn = transpike.convert(net, alike, scheme="auto", goal={"error": 5}, limits={"payload_bits": 3})
    assert distance(snn(alike), net(alike)) < 0.06


def test_too_few_images_are_told() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval(), torch.rand(64, 4)
    with pytest.warns(UserWarning, match=r"32 of 64 calibration images judge it, but showing at least 99.5"):
        transpike.convert(net, x, scheme="auto", goal={"same": 99.5})
    with pytest.raises(ConversionError, match="pass at least two, better 512"):
        transpike.convert(net, x[:1], scheme="auto", goal={"same": 99.5})


def test_every_second_image_judges() -> None:
    """In sorted sets too: both halves hold all classes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = torch.cat([torch.rand(32, 4), 5 + torch.rand(32, 4)])
    snn = transpike.convert(net, x, scheme="auto", goal={"error": 5})
    assert distance(snn(x), net(x)) < 0.1 and snn.units["input"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"goal": None}, "goal=None: expected one of"),
        ({"goal": {"sam": 99}}, "goal: no kind 'sam'. Did you mean same?"),
        ({"goal": {"same": 101}}, "goal: same=101: expected a number in (0, 100]."),
        ({"goal": {"same": 99, "error": 1}}, "expected one of"),
        ({"goal": {"error": 0}}, "goal: error=0: expected a number above 0."),
        ({"goal": {"same": 99, "margin": 0.5}}, "goal: margin=0.5: expected a number of at least 1."),
        ({"limits": {"latancy": 3}}, "limits: no limit 'latancy'. Did you mean latency?"),
        ({"limits": {"latency": 0}}, "limits: latency=0: expected a whole number of at least 1."),
        ({"limits": {"energy": -1}}, "limits: energy=-1: expected a number above 0."),
        ({"limits": 3}, "limits=3: expected some of"),
        ({"scheme": None}, 'goal: only a search takes this; give scheme="auto"'),
    ],
)
def test_wrong_goals_and_limits(options: dict[str, object], said: str, net: nn.Module, images: Tensor) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        transpike.convert(net, images, **{"scheme": "auto", "goal": {"same": 99}} | options)  # type: ignore[arg-type]


def test_the_table_shows_each_try(net: nn.Module, images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    goal, limits = {"error": 10}, {"payload_bits": 1}
    for verbose in (False, True):
        snn = transpike.convert(net, images, scheme="auto", goal=goal, limits=limits, verbose=verbose)
        said = capsys.readouterr().err
        assert ("an error of at most 10 %: what was tried" in said) == bool(said) == verbose
    assert said.count("ternary") >= len(snn.search) == tries_table(snn.search, Goal("error", 10)).row_count


def test_a_mean_latency_is_met_by_stopping_early(net: nn.Module, images: Tensor) -> None:
    """Of new images: the network's full runs are longer than the limit, and answers that stop keep it."""
    prepared = prepare(net, images[::2])
    held = Held(prepared, held_out(images), None, Goal("same", 99, 1))
    sought = search(prepared, held, Limits(payload_bits=1, mean_latency=6, agreement=0.97))
    snn, limit = sought.network, 6
    (taken,) = [one for one in snn.search if one.chosen]
    assert sought.simulations <= SIMULATIONS and snn.latency > limit >= (taken.mean_latency or 99)
    assert taken.mean_latency == pytest.approx((taken.mean_steps or 0) + snn.latency - snn.steps)
    on_the_same = snn.until(held_out(images), agreement=0.97)
    assert on_the_same.latency.float().mean() == pytest.approx(taken.mean_latency)
    new = torch.randn(1000, 16, generator=torch.Generator().manual_seed(2))
    answer = snn.until(new, agreement=0.97)
    assert answer.latency.float().mean() < limit + 0.2
    assert (answer.outputs.argmax(1) != snn(new).argmax(1)).float().mean() <= 0.03 + 0.01
    shorter = [one for one in snn.search if one.met and one.fits and one.images]
    assert all((one.mean_latency or 0) >= taken.mean_latency for one in shorter)
    table = tries_table(snn.search, Goal("same", 99))
    assert any("mean" in str(column.header) for column in table.columns)


def test_with_a_margin_answers_wait_longer(net: nn.Module, images: Tensor) -> None:
    """A network is surer of images that it was trained on, so deviations count more."""
    snn = prepare(net, images).convert(transpike.CSS(steps=8, levels=(1, 2, 4, 8)))
    means = [
        Held(prepare(net, images), images, None, Goal("same", 90, margin)).judge(snn, agreement=0.97)[0].mean_steps
        for margin in (1.0, 4.0)
    ]
    assert means[0] is not None and means[1] is not None and means[0] + 0.5 < means[1] < 8


def test_a_mean_latency_out_of_reach_says_what_binds(net: nn.Module, images: Tensor) -> None:
    with pytest.raises(GoalError, match=r"its mean latency is [0-9.]+: the limit binds") as caught:
        transpike.convert(net, images, scheme="auto", goal={"same": 99}, limits={"mean_latency": 2.1})
    assert caught.value.tries


@pytest.mark.parametrize(
    ("goal", "limits", "said"),
    [
        ({"error": 2}, {"mean_latency": 9}, "the goal error is not about predictions; give a goal of same or loss"),
        ({"same": 99}, {"mean_latency": 9, "agreement": 0.999}, "agreement=0.999 needs 999 judging images"),
        ({"same": 99}, {"agreement": 0.99}, "give a mean_latency too"),
        ({"same": 99}, {"mean_latency": 0}, "limits: mean_latency=0: expected a number above 0"),
        ({"same": 99}, {"mean_latency": 9, "agreement": 1}, "limits: agreement=1: expected a number"),
    ],
)
def test_wrong_limits_of_stopping_are_named(
    goal: dict[str, float], limits: dict[str, float], said: str, net: nn.Module, images: Tensor
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        transpike.convert(net, images, scheme="auto", goal=goal, limits=limits)
