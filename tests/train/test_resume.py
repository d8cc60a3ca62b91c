"""Checkpoints that are whole but wrong: each is one error, or the run goes on to what it would have come to."""

import argparse
import copy
import io
import random
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from transpike.errors import ConfigError, ModelError
from transpike.train import Loaders, Optim, Recipe, fit
from transpike.train.distill import distill
from transpike.train.resume import seal

from .small import CPU, OPTIONS, PLAIN, loaders, network
from .small_distill import TAPS, student, teacher
from .test_fit import assert_same

SHORT = replace(OPTIONS, epochs=2, keep="best")
WRONG = [
    *(None, "x", -1, 2**62, 1.5, float("nan"), True, b"bytes", [], {}, (), [1, 2], {"a": 1}, set()),
    *(torch.zeros(3), torch.zeros(()), torch.eye(2).to_sparse(), torch.zeros(2, device="meta")),
    *(np.float64(3), argparse.Namespace(a=1)),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return fit(network(), loaders(), SHORT, folder=folder), folder


@pytest.fixture
def folder(run, tmp_path):
    shutil.copytree(run[1], tmp_path / "run")
    return tmp_path / "run"


def resume(folder, options=SHORT, data=None, net=None):
    return fit(net or network(), data or loaders(), options, folder=folder, resume=True)


def refusal(folder, error, **more):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(error) as caught:
        resume(folder, **more)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    told = str(caught.value)
    assert "\n" not in told and str(folder) in told
    return told.replace(str(folder), "RUN")


def places(value, place=()):
    """Every place within containers, as the keys and indices that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*place, key)
        yield from places(each, (*place, key))


def mutated(checkpoint, others, source):
    """A checkpoint with one thing dropped, replaced or added, or with a part, or all, of another run's."""
    changed = copy.deepcopy(checkpoint)
    kind = source.choice(["drop", "replace", "add", "part", "all"])
    if kind == "all":
        return source.choice([*others, None, [], {}, 5, changed["state_dict"], {**changed, "contents": {}}])
    if kind == "part":
        name, other = source.choice(list(changed)), source.choice(others)
        changed[name] = other.get(name)
        return changed
    place = source.choice([each for each in places(changed) if len(each) <= source.choice([1, 2, 3, 9])])
    *above, last = place
    inside = changed
    for key in above:
        inside = inside[key]
    if kind == "drop":
        del inside[last]
    elif kind == "replace":
        inside[last] = source.choice(WRONG)
    elif isinstance(inside, dict):
        inside[source.choice(["new", 3, ""])] = source.choice(WRONG)
    else:
        inside.append(source.choice(WRONG))
    return changed


def test_a_hundred_wrong_checkpoints_are_each_one_error_or_change_nothing(run, folder, tmp_path):
    fitted, _ = run
    fit(network(), loaders(), replace(SHORT, seed=4), folder=tmp_path / "seed")
    fit(network(), loaders(), replace(PLAIN, optim=Optim(name="adamw", lr=1e-3)), folder=tmp_path / "adamw")
    others = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("seed", "adamw")]
    whole = torch.load(folder / "last.ckpt", weights_only=True)
    source, refused = random.Random(14), 0
    for _ in range(100):
        torch.save(mutated(whole, others, source), folder / "last.ckpt")
        try:
            resumed = resume(folder)
        except (ModelError, ConfigError) as error:
            told = str(error)
            assert f"{folder / 'last.ckpt'} " in told and "\n" not in told and len(told) < 2000
            assert "start a new run" in told.lower()
            refused += 1
        else:
            assert_same(resumed.model, fitted.model)
            assert resumed.curves == fitted.curves
    assert refused > 80


def test_damaged_bytes_are_found(run, folder):
    whole = (folder / "last.ckpt").read_bytes()
    source = random.Random(15)
    for _ in range(40):
        data = bytearray(whole)
        at = source.randrange(len(data))
        match source.choice(["flip", "cut", "zero", "insert"]):
            case "flip":
                data[at] ^= 1 << source.randrange(8)
            case "cut":
                del data[at:]
            case "zero":
                data[at : at + 64] = bytes(len(data[at : at + 64]))
            case "insert":
                data[at:at] = b"garbage"
        (folder / "last.ckpt").write_bytes(data)
        try:
            resumed = resume(folder)  # between an archive's parts lie bytes that nobody reads
        except ModelError as error:
            assert "RUN/last.ckpt is " in str(error).replace(str(folder), "RUN")
        else:
            assert_same(resumed.model, run[0].model)


def test_what_was_changed_is_named(folder):
    whole = torch.load(folder / "last.ckpt", weights_only=True)

    def told(change):
        changed = copy.deepcopy(whole)
        change(changed)
        torch.save(changed, folder / "last.ckpt")
        return refusal(folder, ModelError)

    copied = "Copy RUN/best.ckpt over it to continue from there, or start a new run."
    assert told(lambda c: c.pop("epoch")) == (
        f"RUN/last.ckpt has been changed since it was written: epoch is missing. {copied}"
    )
    assert "written: epoch was 1 and is 'one'. " in told(lambda c: c.update(epoch="one"))
    assert "lr_schedulers.0.last_epoch was 10 and is 9. " in told(lambda c: c["lr_schedulers"][0].update(last_epoch=9))
    assert "model.0.bias was float32 [4] and is float64 [4]. " in told(
        lambda c: c["state_dict"].update({"model.0.bias": torch.zeros(4).double()})
    )
    assert "RUN/last.ckpt is not a checkpoint of this version, or lacks parts" in told(lambda c: c.pop("contents"))
    (folder / "best.ckpt").unlink()
    assert told(lambda c: c.pop("loops")).endswith("Start a new run.")


def test_another_runs_checkpoint_is_refused_and_what_differs_named(folder):
    told = refusal(folder, ConfigError, options=replace(SHORT, seed=9, optim=Optim(lr=0.2)))
    assert told == (
        "RUN/last.ckpt is of another run: options.seed was 3 and is 9; options.optim.lr was 0.05 and is 0.2. Resume "
        "with the network, the options and the images that it began with, or start a new run in another folder."
    )
    assert "training batches was 5 and is 9" in refusal(folder, ConfigError, data=loaders(batch=8))
    data = Loaders(loaders().train, None)
    assert "validates was True and is False" in refusal(
        folder, ConfigError, data=data, options=replace(SHORT, keep="last")
    )
    assert "network.model.1.weight is missing" in refusal(folder, ConfigError, net=network(norm=False))
    plain = replace(SHORT, recipe=Recipe(mixup=0.2, cutmix=0.5))
    assert "options.recipe.ema was 0.9 and is None" in refusal(folder, ConfigError, options=plain)
    assert resume(folder, options=replace(SHORT, machine=replace(CPU, devices=1))).epoch > 0


def test_a_distilled_runs_checkpoint_is_none_of_training(tmp_path):
    options = replace(PLAIN, steps=2)
    distill(student(), teacher(), loaders(), options, folder=tmp_path, taps=TAPS, method="kd")
    told = refusal(tmp_path, ConfigError, options=options, net=student())
    assert "state.Terms is missing" in told


def test_the_best_epochs_checkpoint_is_looked_at_before_training_goes_on(folder):
    whole = (folder / "best.ckpt").read_bytes()
    (folder / "best.ckpt").write_bytes(whole[:1000])
    assert refusal(folder, ModelError).startswith("RUN/best.ckpt is damaged (")
    (folder / "best.ckpt").unlink()
    assert refusal(folder, ModelError).startswith("cannot read RUN/best.ckpt: no such file")


def test_a_checkpoint_that_says_it_is_whole_and_holds_something_else(folder):
    changed = torch.load(folder / "last.ckpt", weights_only=True)
    changed["optimizer_states"][0]["param_groups"] = 5
    seal(changed, changed["run"])
    torch.save(changed, folder / "last.ckpt")
    with pytest.raises(
        ModelError, match=r"training cannot continue from .*last\.ckpt \(TypeError: .*\)\. Start a new run\.$"
    ):
        resume(folder)


def test_a_bomb_is_refused_by_its_size(folder):
    whole = io.BytesIO((folder / "last.ckpt").read_bytes())
    with zipfile.ZipFile(whole) as parts, zipfile.ZipFile(folder / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in parts.infolist():
            data = parts.read(part)
            packed.writestr(part.filename, data if len(data) < 4000 else bytes(100 * 2**20))
    assert "bytes unpack to" in refusal(folder, ModelError)
