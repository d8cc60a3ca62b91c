"""SFKD as a whole: its sum, its ablations, its target, taps of other sizes, mixed precision, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill import METHODS, create_method, method_needs
from transpike.distill.logits import knowledge_distillation
from transpike.distill.map_losses import focal_frequency_loss, gaussian_frequency_loss, info_nce, pooled_info_nce
from transpike.distill.sfkd import SFKDDistillation, SpatialFrequencyDistillation, standardize
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError
from transpike.spectral.wavelet import wavedec2, waverec2

T, N = 2, 4
STAGES = (Stage("low", "a", 3, 5, (32, 16), (14, 14)), Stage("high", "b", 6, 7, (4, 5), (7, 7)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(*, timed: bool = True) -> tuple[Any, ...]:
    time = (T,) if timed else ()
    student = {s.student: noise(*time, N, s.student_channels, *s.student_size, seed=1) for s in STAGES}
    teacher = {s.teacher: noise(N, s.teacher_channels, *s.teacher_size, seed=2) for s in STAGES}
    return noise(*time, N, 10, seed=3), noise(N, 10, seed=4), student, teacher, torch.arange(N)


def shake(module: nn.Module) -> None:
    """Away from where it begins, which is the identity."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)


def test_hooked_up() -> None:
    assert METHODS["sfkd"] is SFKDDistillation and method_needs("sfkd") == {"features", "classes"}
    method = create_method("sfkd", STAGES, {"levels": 1, "loss": "mse"})
    assert set(method(*batch())) == {"kd", "mse"}


def test_total_is_the_weighted_sum_of_the_parts() -> None:
    method = SFKDDistillation(STAGES, alpha=0.3, beta=0.2, temperature=3.0)
    student, teacher, own, other, _ = batch()
    terms = method(*batch())
    assert [distance.size for distance in method.distances] == [(8, 8), (4, 4)]  # powers of two
    expected = torch.tensor(0.0)
    for distance, (a, b) in zip(method.distances, [("low", "a"), ("high", "b")], strict=True):
        grid = distance.size
        maps = distance.adapter.projection(F.adaptive_avg_pool2d(own[a].mean(0), grid))
        target = standardize(F.adaptive_avg_pool2d(other[b], grid))
        spectrum = torch.fft.fft2(maps - target, norm="ortho")
        squared = torch.cartesian_prod(*(torch.fft.fftfreq(side) for side in grid)).square().sum(-1).view(grid)
        expected = expected + (spectrum.abs() * torch.exp(-squared / (2 * 0.25**2))).square().mean()
    assert set(terms) == {"kd", "gffl"}
    torch.testing.assert_close(terms["gffl"], 0.2 * expected)
    torch.testing.assert_close(terms["kd"], 0.3 * knowledge_distillation(student, teacher, temperature=3.0))
    assert set(SFKDDistillation(beta=0.0)(student, teacher, {}, {})) == {"kd"}
    assert set(SFKDDistillation(STAGES, alpha=0.0)(*batch(timed=False))) == {"gffl"}


def test_grid_bounds_the_larger_maps() -> None:
    stages = [Stage("a", "b", 2, 2, (56, 56), (64, 64))]
    assert SFKDDistillation(stages).distances[0].size == (8, 8)
    assert SFKDDistillation(stages, grid=64).distances[0].size == (32, 32)
    assert SFKDDistillation(stages, grid=4).distances[0].size == (4, 4)


@pytest.mark.parametrize(
    "settings, term, loss",
    [
        ({"loss": "mse"}, "mse", F.mse_loss),
        ({"loss": "infonce"}, "infonce", info_nce),
        ({"loss": "focal_frequency"}, "focal_frequency", focal_frequency_loss),
        ({"loss": F.l1_loss}, "features", F.l1_loss),
        ({"sigma": float("inf")}, "gffl", F.mse_loss),
        ({"sigma": None}, "gffl", F.mse_loss),
        ({"refine": "none"}, "gffl", gaussian_frequency_loss),
        ({"refine": "both"}, "gffl", gaussian_frequency_loss),
        ({"refine": "projector"}, "gffl", gaussian_frequency_loss),
        ({"loss": "pooled_infonce"}, "pooled_infonce", pooled_info_nce),
        ({"levels": 0}, "gffl", gaussian_frequency_loss),
        ({"levels": 1, "wavelet": "db2"}, "gffl", gaussian_frequency_loss),
    ],
)
def test_ablations_are_settings(settings: dict[str, Any], term: str, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    stage = STAGES[0]
    method = SFKDDistillation([stage], beta=1.0, **settings)
    shake(method)
    _, _, own, other, _ = batch()
    pair = method.distances[0].pair(own["low"], other["a"])  # type: ignore[operator]
    terms = method(*batch())
    torch.testing.assert_close(terms[term], loss(*pair))
    terms[term].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


def test_refinement_is_switched_off_and_on() -> None:
    _, _, own, other, _ = batch()
    given = standardize(F.adaptive_avg_pool2d(other["a"], (8, 8)))
    for refine, student_moves, teacher_moves in [
        ("none", False, False),
        ("student", True, False),
        ("both", True, True),
    ]:
        [distance] = SFKDDistillation(STAGES[:1], refine=refine).distances  # type: ignore[arg-type]
        shake(distance)
        assert isinstance(distance, SpatialFrequencyDistillation)
        student, teacher = distance.pair(own["low"], other["a"])
        adapted, _ = distance.adapter(own["low"], other["a"], size=(8, 8))
        assert torch.allclose(student, adapted) != student_moves
        assert torch.allclose(teacher, given) != teacher_moves
        assert not teacher.requires_grad


def test_bands_are_compared_one_by_one() -> None:
    """Against PyWavelets: the mean over LL and three details a level of each band's own loss."""
    method = SFKDDistillation(STAGES[:1], beta=1.0, bands=True, sigma=0.3)
    shake(method)
    _, _, own, other, _ = batch()
    pair = method.distances[0].pair(own["low"], other["a"])  # type: ignore[operator]
    bands = []
    for maps in pair:
        low, *details = pywt.wavedec2(maps.detach().numpy(), "haar", "periodization", level=2)
        bands.append([low, *(band for level in details for band in level)])
    losses = [gaussian_frequency_loss(torch.tensor(a), torch.tensor(b), sigma=0.3) for a, b in zip(*bands, strict=True)]
    assert len(losses) == 7
    assert method(*batch())["gffl"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_an_anchor_refines_the_teacher_and_neither_loss_trains_what_is_the_others() -> None:
    method = SFKDDistillation(STAGES[:1], beta=1.0, refine="anchored", classes=10)
    shake(method)
    student, teacher, own, other, target = batch()
    own = {name: maps.requires_grad_() for name, maps in own.items()}
    terms = method(student, teacher, own, other, target)
    [distance] = method.distances
    seen = distance.pair(own["low"], other["a"])[1]  # type: ignore[operator]
    given = standardize(F.adaptive_avg_pool2d(other["a"], (8, 8)))
    assert not torch.allclose(seen, given) and not seen.requires_grad
    anchored = [*distance.anchor.parameters(), *distance.head.parameters()]  # type: ignore[union-attr]
    logits = distance.head(distance.anchor(given).mean((2, 3)))  # type: ignore[operator,misc]
    torch.testing.assert_close(terms["anchor"], knowledge_distillation(logits, teacher, temperature=1.0))
    by_anchor = torch.autograd.grad(terms["anchor"], [own["low"], *anchored], allow_unused=True, retain_graph=True)
    assert by_anchor[0] is None and all(gradient is not None for gradient in by_anchor[1:])
    by_loss = torch.autograd.grad(terms["gffl"], [own["low"], *anchored], allow_unused=True)
    assert by_loss[0].abs().max() > 0 and by_loss[1:] == (None,) * len(anchored)


def test_a_projector_has_no_shortcut_and_no_norm() -> None:
    [distance] = SFKDDistillation(STAGES[:1], refine="projector").distances
    refine, maps = distance.refine, noise(2, 5, 8, 8)
    assert isinstance(refine.refine.norm, nn.Identity)  # type: ignore[union-attr]
    coeffs = wavedec2(refine.enter(maps), "haar", "periodization", 2)  # type: ignore[operator,union-attr]
    expected = refine.leave(waverec2(refine.refine(coeffs), "haar", "periodization"))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(refine(maps), expected)
    assert refine(maps).abs().max() > 0  # type: ignore[operator]


def test_without_wavelets_refines_the_maps_themselves() -> None:
    [plain] = SFKDDistillation(STAGES[:1], levels=0).distances
    [waves] = SFKDDistillation(STAGES[:1]).distances
    shake(plain)
    refine, maps = plain.refine, noise(2, 5, 8, 8)
    [inner] = refine.refine([refine.enter(maps)])  # type: ignore[operator,union-attr]
    torch.testing.assert_close(refine(maps), maps + refine.leave(inner))  # type: ignore[operator,union-attr]
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in waves.parameters())


def test_zero_at_identity() -> None:
    stage = Stage("a", "b", 4, 4, (8, 8), (8, 8))
    maps = noise(N, 4, 8, 8)
    for settings in ({}, {"loss": "mse"}, {"loss": "focal_frequency"}, {"levels": 3}, {"levels": 1, "wavelet": "db2"}):
        method = SFKDDistillation([stage], normalize=False, alpha=0.0, **settings)  # type: ignore[arg-type]
        [term] = method(None, None, {"a": maps.expand(T, *maps.shape)}, {"b": maps}).values()
        assert term.item() < 1e-11


def test_standardized_teacher_has_no_scale() -> None:
    maps = 50 * noise(N, 3, 4, 4) + 7
    maps[:, 1] = 5.0
    standard = standardize(maps)
    torch.testing.assert_close(standard, F.batch_norm(maps, None, None, training=True), rtol=0, atol=1e-3)
    torch.testing.assert_close(standard[:, 1], torch.zeros(N, 4, 4))
    constant = torch.full((64, 1, 7, 7), 1234.567)  # whose mean in float32 is not quite this
    torch.testing.assert_close(standardize(constant), torch.zeros_like(constant), rtol=0, atol=0.02)
    distance = SpatialFrequencyDistillation(2, 3, size=(4, 4))
    student = noise(N, 2, 4, 4)
    torch.testing.assert_close(distance(student, maps), distance(student, 0.1 * maps - 3), rtol=1e-4, atol=0)


def test_learns_a_teacher() -> None:
    torch.manual_seed(0)
    student, teacher = noise(4, 3, 4, 4), noise(4, 4, 4, 4, seed=1)
    [distance] = SFKDDistillation([Stage("a", "b", 3, 4, (4, 4), (4, 4))]).distances
    losses = []
    for _ in range(8):
        loss = distance(student, teacher)
        losses.append(loss.item())
        parameters = list(distance.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= gradient
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("loss", ["gffl", "mse", "infonce", "focal_frequency"])
def test_float32_within_mixed_precision(loss: str) -> None:
    method = SFKDDistillation(STAGES, loss=loss)
    shake(method)
    student, teacher, own, other, target = batch()
    own = {name: maps.bfloat16() for name, maps in own.items()}
    exact = method(student, teacher, {name: maps.float() for name, maps in own.items()}, other, target)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(student, teacher, own, other, target)
    for name, term in mixed.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=1e-4, atol=1e-5)


def test_gradcheck() -> None:
    method = SFKDDistillation([Stage("a", "b", 2, 2, (2, 2), (3, 3))], levels=1, width=8, alpha=0.0).double()
    shake(method)
    maps, teacher = noise(2, 2, 2, 2, 2).double().requires_grad_(), noise(2, 2, 3, 3, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: method(None, None, {"a": x}, {"b": teacher})["gffl"], maps)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"stages": ()}, "beta=5.0: to compare features, the method needs stages"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"loss": "gfl"}, "loss='gfl': expected one of gffl, mse, infonce, pooled_infonce"),
        ({"refine": "teacher"}, "refine='teacher'"),
        ({"grid": 0}, "grid=0"),
        ({"grid": 1.5}, "grid=1.5: expected a whole number"),
        ({"levels": 1.5}, "levels=1.5: expected a whole number"),
        ({"loss": 3}, "loss=3: expected one of gffl"),
        ({"loss": None}, "loss=None: expected one of gffl"),
        ({"wavelet": 3}, "wavelet=3: expected the name of a discrete wavelet"),
        ({"wavelet": None}, "wavelet=None: expected the name of a discrete wavelet"),
        (
            {"levels": 3},
            "'high' and 'b': maps of 4 x 4 are too small for levels=3 .*: the largest possible is 2; give levels=2",
        ),
        ({"levels": 1, "wavelet": "db3"}, "'low' and 'a': .*: the largest possible is 0"),
        ({"width": 10}, "width=10"),
        ({"wavelet": "morl"}, "morl is a continuous wavelet"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SFKDDistillation(**{"stages": STAGES, **settings})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"levels": -1}, "levels=-1: expected a whole number of at least 0"),
        ({"wavelet": "har"}, "wavelet 'har' is unknown"),
        ({"width": 0}, "width=0: expected a whole number of at least 1"),
        ({"width": 12}, "width=12: expected a multiple of 8"),
    ],
)
def test_settings_are_checked_without_refinement_too(settings: dict[str, Any], message: str) -> None:
    for more in ({"refine": "none"}, {"beta": 0.0}):
        with pytest.raises(ConfigError, match=message):
            SFKDDistillation(**{"stages": STAGES, **more, **settings})
    small = [Stage("a", "b", 3, 4, (2, 2), (2, 2))]  # on which two levels of wavelets would not fit
    assert SFKDDistillation(small, refine="none").distances[0].size == (2, 2)


def test_bad_maps() -> None:
    method = SFKDDistillation(STAGES)
    student, teacher, own, other, _ = batch()
    with pytest.raises(DataError, match=r"student's maps .*\[T, N, 6, H, W\]"):
        method(student, teacher, own | {"high": own["low"]}, other)
    with pytest.raises(DataError, match=r"smaller than the grid \(8, 8\)"):
        method(student, teacher, own, other | {"a": other["a"][..., :7, :7]})


def test_is_built_without_memory() -> None:
    with torch.device("meta"):
        method = SFKDDistillation(STAGES)
    assert {parameter.device.type for parameter in method.parameters()} == {"meta"}
