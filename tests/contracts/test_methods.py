"""What every method of distillation keeps; a new one is tested by being in `METHODS`.

Where one keeps less, it says so in its class (`needs`, `draws`) or is an exception here, with the reason.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distill.batches import CLASSES, SAMPLES, TARGET, as_double, batch, noise
from torch import Tensor

from transpike.cli import main
from transpike.coding import ENCODERS
from transpike.distill import METHODS, Method, Stage, create_method, method_needs
from transpike.errors import ConfigError, DataError, ModelError

# Unlike in channels and grids, and large enough for two halvings.
STAGES = (Stage("low", "a", 4, 6, (8, 8), (6, 6)), Stage("high", "b", 8, 6, (4, 4), (8, 8)))

HEAD = noise(CLASSES, 6, seed=9)
"""The weights of the teacher's last layer."""

methods = pytest.mark.parametrize("name", METHODS)
SILENT = {"bkdsnn": {"drop": 0.0}, "ckdsnn": {"noise": 0.0}}
"""Settings without which a method draws random numbers in training."""


def method(name: str, stages: tuple[Stage, ...] = STAGES, **settings: object) -> Method:
    torch.manual_seed(0)
    made = create_method(name, stages, {**SILENT.get(name, {}), **settings}, classes=CLASSES)
    assert isinstance(made, Method)
    if "head" in made.needs:
        made.see_head(HEAD)  # type: ignore[operator]
    return made


def tracked(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same batch, with gradients to all logits and features of both networks."""
    *sides, target = given
    fresh = [
        {name: x.clone().requires_grad_() for name, x in side.items()}
        if isinstance(side, dict)
        else side.clone().requires_grad_()
        for side in sides
    ]
    return *fresh, target


def both(given: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """A batch all of whose logits and features are changed alike."""
    features = ({tap: change(x) for tap, x in side.items()} for side in given[2:4])
    return change(given[0]), change(given[1]), *features, given[4]


def masked(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Both networks rule a class out that is no image's label: one in all images, another in the first one."""
    out = torch.zeros(SAMPLES, CLASSES, dtype=torch.bool)
    out[:, 2], out[0, 1] = True, True
    assert not out[range(SAMPLES), TARGET].any()
    logits = (x.masked_fill(out, -math.inf) for x in given[:2])
    return *logits, *given[2:]


def agreeing() -> tuple[tuple[Stage, ...], tuple[Any, ...]]:
    """A student that gives at every step what its teacher gives."""
    stages = (Stage("low", "a", 4, 4, (8, 8), (8, 8)), Stage("high", "b", 6, 6, (4, 4), (4, 4)))
    _, logits, _, teacher, target = batch(stages)
    student = {stage.student: teacher[stage.teacher].expand(2, -1, -1, -1, -1) for stage in stages}
    return stages, (logits.expand(2, -1, -1), logits, student, teacher, target)


class Untouchable(Mapping[str, Tensor]):
    """Features that are none of a method's business."""

    def __getitem__(self, name: str) -> Tensor:
        raise AssertionError(f"read the features at {name}")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("listed the features")

    def __len__(self) -> int:
        raise AssertionError("counted the features")


# Not 0 at identity: cross-entropies, contrasts, what is compared behind a layer that learns to bring both together, and
# steps that are to be unsure of an image that none gets right.
ABOVE_ZERO = {
    "bkdsnn": {"weighted_logits", "features"},
    "sakd": {"features"},
    "ckdsnn": {"activity"},
    "cc": {"correlation"},
    "crd": {"contrast"},
    "ofd": {"partial"},
    "reviewkd": {"review"},
    "ofa": {"logits", "exits"},
    "tks": {"temporal_sharing"},
    "tld": {"temporal_sharing"},
}
# By default the teacher's maps are standardised and the student's are not: then equal maps differ.
AT_IDENTITY: dict[str, dict[str, object]] = {"sfkd": {"normalize": False}}


@methods
def test_terms_are_positive_and_zero_where_the_networks_agree(name: str) -> None:
    for term in method(name)(*batch(STAGES)).values():
        assert term.ndim == 0 and term.dtype == torch.float32 and 0 < term < math.inf
    stages, given = agreeing()
    terms = method(name, stages, **AT_IDENTITY.get(name, {}))(*given)
    assert {term for term, value in terms.items() if abs(value) > 1e-5} == ABOVE_ZERO.get(name, set())


@methods
@pytest.mark.parametrize("case", ["noise", "silent", "far", "masked", "equal"])
def test_gradients_are_finite_for_the_student_and_none_for_the_teacher(name: str, case: str) -> None:
    given = batch(STAGES)
    if case == "silent":  # no spike for any image: equal features, no direction between them, no attention
        student = {tap: torch.zeros_like(x) for tap, x in given[2].items()}
        given = torch.zeros_like(given[0]), given[1], student, *given[3:]
    elif case == "far":
        given = both(given, lambda x: 1e3 * x)
    elif case == "masked":
        given = masked(given)
    elif case == "equal":  # all images alike, in both networks
        given = both(given, lambda x: x.narrow(-2 if x.ndim < 4 else -4, 0, 1).expand_as(x))
    made, given = method(name), tracked(given)
    terms = made(*given)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    student, teacher = [given[0], *given[2].values()], [given[1], *given[3].values()]
    found = [x.grad for x in student if x.grad is not None]
    assert found and all(grad.isfinite().all() for grad in found)
    assert all(x.grad is None for x in teacher)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())


# Curves over all classes, and exits that answer for classes which the logits rule out.
OVER_ALL_CLASSES = {"ssd", "inter_class", "intra_class", "exits"}


@methods
def test_a_class_that_both_rule_out_counts_as_absent(name: str) -> None:
    given, made = batch(STAGES), method(name, alpha=1.0) if "alpha" in settings_of(METHODS[name]) else method(name)
    out = torch.zeros(CLASSES, dtype=torch.bool).index_fill(0, torch.tensor(2), True)
    terms = made(*(x.masked_fill(out, -math.inf) for x in given[:2]), *given[2:])
    hardly = made(*(x.masked_fill(out, -1e4) for x in given[:2]), *given[2:])
    if "head" in made.needs:
        made.see_head(HEAD[~out])  # type: ignore[operator]
    left = made(*(x[..., ~out] for x in given[:2]), *given[2:4], torch.tensor([0, 2, 1, 3]))  # of 5 without the third
    for term, value in terms.items():
        assert value.item() == pytest.approx((hardly if term in OVER_ALL_CLASSES else left)[term].item(), rel=1e-4)


# Neighbours in the batch are compared; the other form compares all with all.
UNORDERED: dict[str, dict[str, object]] = {"cc": {"form": "kernel"}}


@methods
def test_the_order_of_images_does_not_matter(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    given = as_double(batch(STAGES))
    mixed = [
        {tap: x.index_select(x.ndim - 4, order) for tap, x in side.items()}
        if isinstance(side, dict)
        else side.index_select(side.ndim - 2, order)
        for side in given[:4]
    ]
    made = method(name, **UNORDERED.get(name, {})).double()
    terms, others = made(*given), made(*mixed, TARGET[order])
    for term, value in terms.items():
        # A margin that is learned in passing has moved.
        assert value.item() == pytest.approx(others[term].item(), rel=0.2 if name == "ofd" else 1e-9)


@methods
def test_what_a_method_needs_is_what_it_says(name: str) -> None:
    needs, given = method_needs(name), as_double(batch(STAGES))
    student_logits, teacher_logits, student, teacher, target = given
    terms = method(name).double().eval()(*given)
    if "time" in needs:
        with pytest.raises(ModelError, match="compares time steps"):
            method(name)(student_logits.mean(0), *given[1:])
    else:
        averaged = {tap: x.mean(0) for tap, x in student.items()}
        others = method(name).double().eval()(student_logits.mean(0), teacher_logits, averaged, teacher, target)
        assert all(value.item() == pytest.approx(others[term].item(), rel=1e-9) for term, value in terms.items())
    if "features" in needs:
        with pytest.raises(ConfigError, match=r"needs? stages \(pairs of taps\)"):
            method(name, ())
    else:
        alone = method(name).double()(student_logits, teacher_logits, Untouchable(), Untouchable(), target)
        assert alone == terms and not list(method(name).parameters())
    if "labels" in needs:
        with pytest.raises(DataError, match="this method compares with the labels: give class indices"):
            method(name)(*given[:4], None)
    else:
        assert method(name).double().eval()(*given[:4], None) == terms
    assert ("classes" in needs) == ("classes" in settings_of(METHODS[name]))


@methods
def test_batches_that_are_too_small_are_refused(name: str) -> None:
    made, least = method(name), METHODS[name].smallest_batch
    assert all(term.isfinite() for term in made(*batch(STAGES, samples=least)).values())
    for samples in range(least):
        with pytest.raises(DataError, match=r"batches of at least|nothing to compare|as many images of both"):
            method(name)(*batch(STAGES, samples=samples))
    with pytest.raises(DataError):
        method(name).eval()(*batch(STAGES, samples=0))


@methods
def test_settings_of_another_name_or_type_are_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"method '{name}' has no setting 'tempreature'\. Did you mean temperature\?"
    ):
        create_method(name, STAGES, {"tempreature": 2.0})
    for setting in settings_of(METHODS[name]):
        with pytest.raises(ConfigError, match=f"method '{name}': {setting}={{'wrong': 1}}: expected "):
            create_method(name, STAGES, {setting: {"wrong": 1}})


@methods
def test_half_precision_is_raised_first(name: str) -> None:
    given = both(batch(STAGES), lambda x: x.bfloat16())
    expected = method(name).eval()(*both(given, lambda x: x.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method(name).eval()(*given)
    # A mean over time may have been taken before it.
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert all(term.item() == pytest.approx(expected[key].item(), rel=2e-2) for key, term in terms.items())


def test_methods_and_encoders_are_told_in_help_and_documentation(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, names, page in (("distill", METHODS, "distillation.md"), ("hybrid", ENCODERS, "dct-snn.md")):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        told = re.findall(r"[a-z]+", capsys.readouterr().out)
        assert set(names) <= set(told) and set(names) <= set(re.findall(r"[a-z]+", (root / "docs" / page).read_text()))


def settings_of(kind: Callable[..., object]) -> list[str]:
    return list(inspect.signature(kind).parameters)[1:]
