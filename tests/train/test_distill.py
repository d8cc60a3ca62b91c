import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from transpike.coding import DCTEncoder
from transpike.distill import METHODS, BiSpectrumDistillation, method_needs
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.models import create_model
from transpike.models.spiking import OverTime
from transpike.neurons import LIFNode
from transpike.train import Loaders, Optim, Recipe, evaluate, fit
from transpike.train.distill import distill
from transpike.train.teacher import TargetCache, Teacher, TeacherInput, merge_frames

from .small import OPTIONS, PLAIN, images, loaders
from .small_distill import TAPS, student, teacher
from .test_fit import assert_same

STEPPED = replace(PLAIN, steps=2)


def learn(tmp_path, net=None, *, options=STEPPED, data=None, taps=TAPS, **more):
    return distill(net or student(), teacher(), data or loaders(), options, folder=tmp_path, taps=taps, **more)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_two_steps(method, tmp_path):
    data = Loaders(DataLoader(images(32), batch_size=16), None)
    net, before = student(), state(student())
    # This teacher's last layer takes every place by itself: there is no class activation.
    more = {"settings": {"alpha": 1.0, "beta": 0.0}} if "head" in method_needs(method) else {}
    fitted = learn(tmp_path, net, method=method, data=data, options=replace(STEPPED, epochs=1), **more)
    assert set(fitted.first_terms) > {"cross_entropy"}
    assert all(0 < abs(value) < float("inf") for name, value in fitted.first_terms.items() if name != "srd_residual")
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items() if "weight" in name)
    assert bool(fitted.stages) == ("features" in method_needs(method))
    for parameter in fitted.method.parameters():
        assert torch.isfinite(parameter).all()


def test_the_teacher_is_heard(tmp_path):
    """Labels say nothing, the teacher everything: the student learns the teacher's classes."""
    data = images()
    mislabelled = TensorDataset(data.tensors[0], torch.randint(3, (70,), generator=torch.Generator().manual_seed(0)))
    known = fit(teacher(), loaders(), replace(PLAIN, epochs=6), folder=tmp_path / "teacher").model
    taught = distill(
        student(), known, Loaders(DataLoader(mislabelled, batch_size=16, shuffle=True), loaders().validation),
        replace(STEPPED, epochs=12), folder=tmp_path / "student", method="kd", settings={"alpha": 10.0},
    )  # fmt: skip
    assert taught.validation_accuracy >= 0.8


def test_the_student_is_what_it_was_but_for_its_values(tmp_path):
    net = student()
    names, ours = list(net.state_dict()), teacher()
    before = state(ours)
    fitted = distill(net, ours, loaders(), STEPPED, folder=tmp_path, taps=TAPS, settings={"beta": 1e-3})
    assert list(net.state_dict()) == names
    assert not any(module._forward_hooks for model in (net, ours) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert not ours.training
    # Not a multiply more: the modules are those of a net that was never distilled.
    assert [type(m) for m in net.modules()] == [type(m) for m in student().modules()]
    saved = load_file(tmp_path / "adapters.safetensors")
    assert set(saved) == set(fitted.method.state_dict())
    assert any("w2" in name and value.abs().sum() > 0 for name, value in saved.items()), "the adapters were trained"


def test_terms_are_told_from_the_first_step(tmp_path):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"srd outweighs the task loss more than 10 times at the first step \(cross"):
        fitted = learn(tmp_path, settings={"beta": 10.0}, options=replace(STEPPED, optim=Optim(lr=1e-6)))
    assert set(fitted.first_terms) == {"cross_entropy", "kd", "srd", "ssd"}
    for row in fitted.curves:
        assert row["loss"] == pytest.approx(sum(row[name] for name in fitted.first_terms), rel=1e-5)
    header = (tmp_path / "curves.csv").read_text().splitlines()[0]
    assert "cross_entropy,kd,srd,ssd" in header
    assert fitted.first_terms["srd"] > 10 * fitted.first_terms["cross_entropy"]


def test_an_equal_teacher_says_nothing(tmp_path):
    net = student(norm=False)
    same = copy.deepcopy(net)
    data = Loaders(DataLoader(images(16), batch_size=16), None)
    fitted = distill(
        net, same, data, replace(STEPPED, epochs=1), folder=tmp_path, taps={"2": "2"}, given=TeacherInput(steps=2),
        settings={"penalty": 0.0},
    )  # fmt: skip
    assert fitted.first_terms["kd"] == pytest.approx(0, abs=1e-6)
    assert fitted.first_terms["ssd"] == pytest.approx(0, abs=1e-8)
    assert fitted.first_terms["srd"] == pytest.approx(0, abs=1e-8)


def test_a_killed_run_resumed_equals_an_unbroken_one(killed, tmp_path):
    options = replace(OPTIONS, steps=2)
    unbroken = learn(tmp_path / "unbroken", options=options, settings={"beta": 1e-3})
    resumed = learn(killed / "distill", options=options, settings={"beta": 1e-3}, resume=True)
    assert_same(resumed.model, unbroken.model)
    assert_same(resumed.method, unbroken.method)
    assert resumed.first_terms == unbroken.first_terms
    assert [row["srd"] for row in resumed.curves] == [row["srd"] for row in unbroken.curves]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.seen = teacher(), 0

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


def test_the_cache_changes_nothing_but_the_work(tmp_path):
    runs = {}
    for name, cache in (("without", None), ("with", TargetCache(1))):
        counting = Counting()
        data = loaders(images(64))
        fitted = distill(
            student(), counting, data, replace(STEPPED, epochs=3), folder=tmp_path / name, cache=cache,
            taps={"2": "inner.0"},
        )  # fmt: skip
        runs[name] = fitted.model, counting.seen
    for (key, a), b in zip(runs["with"][0].state_dict().items(), runs["without"][0].state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=key)
    assert runs["without"][1] == 2 + 3 * 64
    assert runs["with"][1] == 2 + 64


def test_a_full_cache_keeps_nothing_new():
    cache = TargetCache(1)
    cache.keep(torch.zeros(1), {"a": torch.zeros(2**18)})
    cache.keep(torch.ones(1), {"a": torch.zeros(1)})
    assert cache.find(torch.zeros(1), ["a"]) is not None
    assert cache.find(torch.ones(1), ["a"]) is None
    assert cache.find(torch.zeros(1), ["a", "b"]) is None


def test_the_teacher_sees_its_own_size_and_normalisation():
    pixels = torch.rand(2, 3, 8, 8)
    ours, theirs = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2)), ((0.1, 0.2, 0.3), (0.5, 0.25, 0.2))

    def normal(images, statistics):
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
        return (images - mean) / std

    scale, offset = TeacherInput.renormalized(ours, theirs)
    torch.testing.assert_close(TeacherInput(scale=scale, offset=offset)(normal(pixels, ours)), normal(pixels, theirs))
    larger = TeacherInput(size=16)(torch.full((1, 1, 8, 8), 0.25))
    torch.testing.assert_close(larger, torch.full((1, 1, 16, 16), 0.25))
    assert TeacherInput(steps=3)(pixels).shape == (3, 2, 3, 8, 8)


def test_frames_are_merged_for_student_and_teacher(tmp_path):
    x = torch.rand(12, 2, 1, 4, 4)
    assert torch.equal(merge_frames(x, 4)[1], x[3:6].sum(0))
    assert merge_frames(x, 12) is x
    with pytest.raises(DataError, match="12 frames cannot be merged into 5: load a multiple of 5"):
        merge_frames(x, 5)
    seen = []

    def net():
        torch.manual_seed(0)
        return OverTime(nn.Flatten(), nn.Linear(36, 24), LIFNode(step_mode="m"), nn.Linear(24, 3))

    class Seeing(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.inner, self.name = net(), name

        def forward(self, x):
            seen.append((self.name, len(x)))
            return self.inner(x)

    pictures, labels = images(32).tensors
    frames = [(pictures[i : i + 8].expand(6, -1, -1, -1, -1), labels[i : i + 8]) for i in range(0, 32, 8)]
    distill(
        Seeing("student"),
        Seeing("teacher"),
        Loaders(frames, frames),
        replace(STEPPED, epochs=1, recipe=Recipe(mixup=0.2)),
        folder=tmp_path,
        method="kd",
        given=TeacherInput(steps=3),
    )
    assert set(seen) == {("student", 2), ("teacher", 3)}
    with pytest.raises(DataError, match="need a spiking teacher"):
        TeacherInput()(frames[0][0])


def test_a_compiled_student_learns_the_same(tmp_path):
    plain = learn(tmp_path / "plain", settings={"beta": 1e-3})
    compiled = torch.compile(student(), backend="eager")
    fitted = learn(tmp_path / "compiled", compiled, settings={"beta": 1e-3})
    torch._dynamo.reset()
    for value, other in zip(fitted.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other)


def test_mixed_precision_and_an_average_of_the_weights(tmp_path):
    options = replace(STEPPED, recipe=Recipe(ema=0.5), machine=replace(PLAIN.machine, precision="bf16-mixed"))
    fitted = learn(tmp_path, options=options, settings={"beta": 1e-3})
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in fitted.curves)


def test_methods_and_taps_of_ones_own(tmp_path):
    class Mine(nn.Module):
        def __init__(self, stages):
            super().__init__()
            self.stages = stages

        def forward(self, student_logits, teacher_logits, student_features, teacher_features, target):
            (stage,) = self.stages
            assert student_features[stage.student].shape[:3] == (2, len(target), 4)
            return {"mine": student_features[stage.student].mean() - teacher_features[stage.teacher].mean()}

    assert "mine" in learn(tmp_path, method=Mine).first_terms


def test_known_networks_need_no_taps(tmp_path):
    net = create_model("sew_resnet19", width=4, num_classes=3, in_channels=1)
    ours = create_model("resnet20", width=4, num_classes=3, in_channels=1)
    data = Loaders(DataLoader(images(16), batch_size=16), None)
    fitted = distill(net, ours, data, replace(STEPPED, epochs=1), folder=tmp_path)
    found = {stage.student: stage.teacher for stage in fitted.stages}
    assert found == {"layers.2": "layers.2", "layers.5": "layers.5", "layers.7": "layers.8"}


@pytest.mark.parametrize(
    "more, kind, told",
    [
        ({"taps": {"7": "0"}}, ModelError, "OverTime has no module '7' to tap. It has: 0, 1"),
        ({"taps": {"2": "9"}}, ModelError, "Sequential has no module '9' to tap"),
        ({"taps": {"4": "0"}}, ModelError, r"module '4' gives \[4, 3\], which has no spatial axes"),
        ({"method": "bds"}, ConfigError, "no method of distillation 'bds'. Did you mean"),
        ({"settings": {"temprature": 1}}, ConfigError, "'bsd' has no setting 'temprature'. Did you mean temperature?"),
        ({"method": "ofa", "settings": {"classes": 2}}, ConfigError, "classes=2: the networks have 3; leave it out"),
        ({"method": BiSpectrumDistillation, "settings": {"x": 1}}, ConfigError, "cannot be made with these.*'x'"),
        ({"given": TeacherInput(size=5)}, ModelError, r"the teacher, Sequential, cannot take .*5, 5\] \(.*mat1"),
        ({"settings": {"temperature": 0.0}}, ConfigError, "temperature=0.0"),
        ({"method": "kd", "settings": {"temperature": -1.0}}, ConfigError, "temperature"),
        (
            {"method": "rkd", "data": loaders(batch=1)},
            DataError,
            "RKDDistillation trains on .* 2 images, and one has 1",
        ),
        (
            {"method": "ofa", "data": loaders(images(33))},
            DataError,
            "one has 1: give .*drop_last=True if only the last",
        ),
    ],
)
def test_bad_input_is_told(more, kind, told, tmp_path):
    with pytest.raises(kind, match=told):
        learn(tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "data, more",
    [
        (Loaders(DataLoader(images(33), batch_size=16, drop_last=True), None), {"method": "reviewkd"}),
        (loaders(images(34)), {"method": "reviewkd"}),
        (loaders(images(33)), {"method": "rkd", "settings": {"alpha": 1.0, "distance": 0.0, "angle": 0.0}}),
        (loaders(images(33)), {"method": "fitnet"}),
    ],
    ids=["left out", "large enough", "logits alone", "any number"],
)
def test_batches_that_are_large_enough(data, more, tmp_path):
    assert learn(tmp_path, data=data, options=replace(STEPPED, epochs=1), **more).first_terms


def test_other_classes_are_told(tmp_path):
    wide = nn.Sequential(*teacher()[:-1], nn.Linear(144, 1000))
    with pytest.raises(ModelError, match="the student gives 3 classes and the teacher 1000: tune"):
        distill(student(), wide, loaders(), STEPPED, folder=tmp_path, taps=TAPS)


def test_a_loss_that_is_no_number_names_its_terms(tmp_path):
    broken = teacher()
    broken[-1].weight.data[:] = float("nan")
    with pytest.raises(
        TranspikeError, match=r"not finite at step 1 \(epoch 1\): cross_entropy = [\d.]+, kd = nan, srd"
    ):
        distill(student(), broken, loaders(), STEPPED, folder=tmp_path, taps=TAPS)


def test_a_teacher_is_no_part_of_what_is_trained(tmp_path):
    holder = Teacher(teacher(), taps={})
    assert copy.deepcopy(holder) is holder
    learn(tmp_path)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"model", "method"}


def test_adapters_are_trained_by_the_same_optimiser(tmp_path):
    options = replace(STEPPED, epochs=1, optim=Optim(lr=1e-12, warmup=0, weight_decay=0.0))
    fitted = learn(tmp_path, options=options, method=lambda stages: BiSpectrumDistillation(stages, beta=1.0))
    assert all(p.abs().max() < 1e-9 for name, p in fitted.method.named_parameters() if "w2" in name)
    assert any(p.abs().max() > 0 for name, p in fitted.method.named_parameters() if "w2" in name)


def test_an_encoded_teacher_says_what_evaluate_does(tmp_path):
    torch.manual_seed(0)
    data = images(32)
    encoder = DCTEncoder(block=2, stride=1, steps=4).fit(data.tensors[0])
    side = encoder.output_size((6, 6))[0]
    spiking = OverTime(nn.Conv2d(1, 4, 3, padding=1), LIFNode(step_mode="m"), nn.Flatten(), nn.Linear(4 * side**2, 3))
    given = TeacherInput(steps=4, encode=encoder)
    holder = Teacher(spiking, taps={}, given=given)
    logits, _ = holder(data.tensors[0])
    tested = evaluate(spiking, DataLoader(data, batch_size=32), machine=PLAIN.machine, steps=4, encode=encoder)
    right = (logits.argmax(1) == data.tensors[1]).double().mean().item()
    assert (right, cross_entropy(logits, data.tensors[1]).item()) == pytest.approx((tested.accuracy, tested.loss))
    batches = Loaders(DataLoader(data, batch_size=16), None)
    fitted = distill(
        student(), spiking, batches, replace(STEPPED, epochs=1), folder=tmp_path, taps={"2": "1"}, given=given
    )
    (stage,) = fitted.stages
    assert (stage.student_size, stage.teacher_size, stage.size) == ((6, 6), (side, side), (6, 6))
    with pytest.raises(DataError, match="cannot be encoded: the teacher takes images"):
        given(torch.zeros(4, 2, 1, 6, 6))
    holder.to(torch.device("meta"))
    assert encoder.thresholds.is_meta


def test_a_student_of_coefficients_learns_from_a_teacher_of_pixels(tmp_path):
    torch.manual_seed(0)
    data = images(32)
    encoder = DCTEncoder(block=2, stride=2, steps=4).fit(data.tensors[0])
    given = tuple(encoder(data.tensors[0][:1]).shape[2:])
    layers = [nn.Conv2d(given[0], 4, 3, padding=1), LIFNode(step_mode="m"), nn.Flatten()]
    layers.append(nn.Linear(4 * given[1] * given[2], 3))
    fitted = distill(
        OverTime(*layers),
        teacher(),
        Loaders(DataLoader(data, batch_size=16), None),
        replace(STEPPED, steps=4, epochs=1),
        folder=tmp_path,
        taps={"1": "2"},
        encode=encoder,
    )
    (stage,) = fitted.stages
    assert (stage.student_size, stage.teacher_size, stage.size) == (given[1:], (6, 6), given[1:])
    assert set(fitted.first_terms) == {"cross_entropy", "kd", "srd", "ssd"}
