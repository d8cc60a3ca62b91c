"""What every rival keeps to: any pair of networks, any precision, students that are silent, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from transpike.distill import METHODS, Stage, method_needs
from transpike.distill.feature_method import FeatureMethod, stage_maps, student_maps
from transpike.distill.logits import knowledge_distillation
from transpike.errors import ConfigError, DataError, ModelError

from .batches import CLASSES, OBLONG, OTHER, SAMPLES, STEPS, TARGET, TOKENS, as_double, batch, noise

LOGITS = ["dkd", "dist"]
FEATURES = ["fitnet", "at", "rkd", "cc", "crd", "ofd", "reviewkd", "ofa"]
WITH_KD = [name for name in FEATURES if name != "ofa"]
ABOVE_ZERO = {"rkd": {"distance": 0.0, "angle": 0.0}}


def test_which_need_features() -> None:
    assert [name for name in LOGITS + FEATURES if "features" in method_needs(name)] == FEATURES


@pytest.mark.parametrize("timed", [True, False], ids=["timed", "timeless"])
@pytest.mark.parametrize("stages", [OTHER, OBLONG, TOKENS], ids=["cnn_vit", "oblong", "vit_cnn"])
@pytest.mark.parametrize("name", LOGITS + FEATURES)
def test_any_pair_learns(name: str, stages: tuple[Stage, ...], timed: bool) -> None:
    torch.manual_seed(0)
    method = METHODS[name](stages)
    student_logits, teacher_logits, student, teacher, target = batch(stages, timed=timed)
    student_logits.requires_grad_()
    for maps in student.values():
        maps.requires_grad_()
    terms = method(student_logits, teacher_logits, student, teacher, target)
    assert all(term.ndim == 0 and term.isfinite() and term > 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    heard = {tap: maps.grad is not None and bool(maps.grad.any()) for tap, maps in student.items()}
    last = stages[-1].student
    if name in LOGITS:
        assert not any(heard.values()) and student_logits.grad.any()
    else:
        assert heard == {tap: name not in ("rkd", "cc", "crd") or tap == last for tap in heard}
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.parametrize("name", LOGITS + FEATURES)
def test_time_is_averaged(name: str) -> None:
    """A student of several steps is taught as one that gives their mean."""
    torch.manual_seed(0)
    method = METHODS[name](OTHER).eval().double()
    given = as_double(batch(OTHER))
    mean = given[0].mean(0), given[1], {tap: maps.mean(0) for tap, maps in given[2].items()}, *given[3:]
    for term, other in zip(method(*given).values(), method(*mean).values(), strict=True):
        assert term.item() == pytest.approx(other.item(), rel=1e-9)


@pytest.mark.parametrize("name", FEATURES)
def test_gradients_in_float64(name: str) -> None:
    torch.manual_seed(0)
    stages = (Stage("low", "a", 2, 3, (4, 4), (2, 2)), Stage("high", "b", 3, 2, (2, 2), (2, 2)))
    given = as_double(batch(stages, samples=3))
    method = METHODS[name](stages).double()  # in training: batch normalization is part of the losses
    weight = 1e-3 if name == "at" else 1.0

    def loss(low: Tensor, high: Tensor) -> Tensor:
        terms = method(*given[:2], {"low": low, "high": high}, *given[3:])
        assert all(term.dtype == torch.float64 for term in terms.values())
        return weight * torch.stack(list(terms.values())).sum()

    maps = [given[2][tap].mean(0).requires_grad_() for tap in ("low", "high")]
    method(*given)
    if name == "ofd":  # its margins move with every call
        method.margins.eval()
    assert torch.autograd.gradcheck(loss, maps, fast_mode=True)


@pytest.mark.parametrize("name", LOGITS)
def test_gradients_of_logits_in_float64(name: str) -> None:
    method = METHODS[name]()
    student, teacher = noise(2, 3, 4).double().requires_grad_(), noise(3, 4, seed=1).double()
    assert torch.autograd.gradcheck(
        lambda x: torch.stack(list(method(x, teacher, {}, {}, TARGET[:3] % 4).values())).sum(), student
    )


@pytest.mark.parametrize("name", FEATURES)
def test_a_silent_student_has_finite_gradients(name: str) -> None:
    """No spike for any image: equal features, no direction between them, no attention."""
    torch.manual_seed(0)
    method = METHODS[name](OTHER)
    student_logits, teacher_logits, student, teacher, target = batch(OTHER)
    silent = {tap: torch.zeros_like(maps, requires_grad=True) for tap, maps in student.items()}
    terms = method(torch.zeros_like(student_logits), teacher_logits, silent, teacher, target)
    torch.stack(list(terms.values())).sum().backward()
    for maps in silent.values():
        assert maps.grad is None or (maps.grad.isfinite().all() and maps.grad.abs().max() < 1e3)


@pytest.mark.parametrize("name", LOGITS + FEATURES)
def test_half_precision_is_raised_first(name: str) -> None:
    torch.manual_seed(0)
    method = METHODS[name](OTHER).eval()
    *_, target = given = batch(OTHER)

    def cast(*dtypes: torch.dtype) -> tuple[Any, ...]:
        def one(x: Tensor) -> Tensor:
            for dtype in dtypes:
                x = x.to(dtype)
            return x

        sides = ({tap: one(maps) for tap, maps in side.items()} for side in given[2:4])
        return one(given[0]), one(given[1]), *sides, target

    expected = method(*cast(torch.bfloat16, torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method(*cast(torch.bfloat16))
    for key, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[key].item(), rel=1e-5)


@pytest.mark.parametrize("name", [*LOGITS, "ofa"])
def test_mixed_labels_count_as_the_likelier_class(name: str) -> None:
    torch.manual_seed(0)
    method = METHODS[name](OTHER).eval()
    given = batch(OTHER)
    mixed = 0.7 * torch.eye(CLASSES)[TARGET] + 0.3 * torch.eye(CLASSES)[TARGET.flip(0)]
    assert method(*given[:4], mixed) == method(*given)


@pytest.mark.parametrize("name", WITH_KD)
def test_kd_beside_the_features(name: str) -> None:
    given = batch(OTHER)
    terms = METHODS[name](OTHER, alpha=0.9)(*given)
    assert terms["kd"] == 0.9 * knowledge_distillation(given[0], given[1], temperature=4.0)
    assert "kd" not in METHODS[name](OTHER)(*given)


@pytest.mark.parametrize("name", FEATURES)
def test_weights_of_zero_leave_terms_and_parameters_out(name: str) -> None:
    given, off = batch(OTHER), ABOVE_ZERO.get(name, {"beta": 0.0})
    for method in (METHODS[name](OTHER, alpha=1.0, **off), METHODS[name](alpha=1.0, **off)):
        assert len(method(*given)) == 1 and not method.state_dict()


def test_rkd_without_one_of_its_terms() -> None:
    assert list(METHODS["rkd"](OTHER, angle=0.0)(*batch(OTHER))) == ["distance"]
    assert list(METHODS["rkd"](OTHER, distance=0.0)(*batch(OTHER))) == ["angle"]
    assert list(METHODS["dkd"](alpha=0.0)(*batch(OTHER))) == ["non_target_kd"]
    assert list(METHODS["dist"](gamma=0.0)(*batch(OTHER))) == ["inter_class"]


@pytest.mark.parametrize("name", LOGITS + FEATURES)
def test_settings_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="temperature=0: expected a number above 0"):
        METHODS[name](OTHER, temperature=0)
    weight = "distance" if name == "rkd" else "beta"
    with pytest.raises(ConfigError, match=f"{weight}=-1: expected a number of at least 0"):
        METHODS[name](OTHER, **{weight: -1})
    if name in FEATURES:
        with pytest.raises(ConfigError, match=r"need.? stages \(pairs of taps\)"):
            METHODS[name]()


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("cc", {"form": "gaussian"}, "form='gaussian': expected 'consecutive' or 'kernel'"),
        ("cc", {"width": 0}, "width=0"),
        ("crd", {"contrast": 0.0}, "contrast=0.0: expected a number above 0"),
        ("ofa", {"classes": 0}, "classes=0: expected at least 1"),
        ("ofa", {"gamma": -1.0}, "gamma=-1.0"),
    ],
)
def test_further_settings_that_cannot_be(name: str, setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        METHODS[name](OTHER, **setting)


def test_attention_needs_more_than_one_place() -> None:
    with pytest.raises(ModelError, match="'low' and 'a' have only one in common: tap modules before the pooling"):
        METHODS["at"]([Stage("low", "a", 4, 6, (8, 8), (1, 1))])


@pytest.mark.parametrize("name", ["rkd", "cc", "crd", "reviewkd", "ofa"])
def test_a_batch_of_one_image_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="batch"):
        METHODS[name](OTHER)(*batch(OTHER, samples=1))


@pytest.mark.parametrize("name", FEATURES)
def test_maps_that_do_not_fit_their_stage(name: str) -> None:
    student_logits, teacher_logits, student, teacher, target = batch(OTHER)
    wrong = student | {"high": student["high"][:, :, :3]}
    with pytest.raises(DataError, match=r"student's maps have the shape \[2, 4, 3, 2, 2\]: expected \[T, N, 8, H, W\]"):
        METHODS[name](OTHER)(student_logits, teacher_logits, wrong, teacher, target)
    if name != "ofa":
        wrong = teacher | {"b": teacher["b"][:3]}
        with pytest.raises(DataError, match=r"teacher's maps have the shape \[3, 6, 4, 4\]: expected\s+\[4, 6, H, W\]"):
            METHODS[name](OTHER)(student_logits, teacher_logits, student, wrong, target)


def test_logits_that_do_not_fit() -> None:
    for name in (*LOGITS, "ofa"):
        student_logits, teacher_logits, *rest = batch(OTHER)
        with pytest.raises(DataError, match=r"student's logits have the shape \[2, 4, 4\] and the teacher's \[4, 5\]"):
            METHODS[name](OTHER)(student_logits[..., :4], teacher_logits, *rest)


def test_maps_of_a_stage() -> None:
    stage = OTHER[0]
    _, _, student, teacher, _ = batch(OTHER)
    assert torch.equal(student_maps(stage, student), student["low"].mean(0))
    own, other = stage_maps(stage, {"low": student["low"][0].half()}, {"a": teacher["a"].half()})
    assert own.dtype == other.dtype == torch.float32
    assert own.shape == (SAMPLES, 4, 8, 8) and other.shape == (SAMPLES, 6, 4, 4)
    assert student["low"].shape[0] == STEPS


def test_a_method_of_ones_own() -> None:
    class Mean(FeatureMethod):
        def compare(self, student, teacher):
            return {"mean": self.weights["beta"] * (student["low"].mean() - teacher["a"].mean())}

    given = batch(OTHER)
    terms = Mean(OTHER, alpha=0.0, temperature=1.0, beta=2.0)(*given)
    assert terms == {"mean": 2.0 * (given[2]["low"].mean() - given[3]["a"].mean())}
    assert repr(Mean(OTHER, alpha=0.0, temperature=1.0, beta=2.0)) == "Mean(alpha=0.0, temperature=1.0, beta=2.0)"
