"""A run's model.json from strangers: one error, before memory is taken or weights are read."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from transpike.errors import ModelError
from transpike.models import create_model, read_description, save_weights

GOOD = {"name": "resnet20", "kwargs": {"width": 4}, "num_classes": 10, "in_channels": 3, "image_size": 8}
FACTS = {"data": "digits", "class_names": ["0"], "steps": None, "mean": [0.5], "std": None, "split_by": "time"}


@pytest.fixture
def run(tmp_path):
    save_weights(create_model("resnet20", width=4), tmp_path / "weights.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(GOOD | FACTS))
    return tmp_path


def refusal(run):
    with pytest.raises(ModelError) as caught:
        create_model(run)
    told = str(caught.value)
    assert "\n" not in told and len(told) < 1000
    return told.replace(str(run), "RUN")


def test_a_whole_one_is_read(run):
    assert read_description(run) == GOOD | FACTS
    assert create_model(run).fc.in_features == 16


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": "res', "RUN/model.json: damaged: "),
        ("[1]", "RUN/model.json: damaged: expected an object. Train again."),
        ('{"name": "resnet20"}', "RUN/model.json: lacks num_classes, in_channels; it was not written by"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "RUN/model.json: damaged: nested deeper than"),
        ('{"num_classes": ' + "9" * 5000 + "}", "RUN/model.json: damaged: a number of 5000 digits"),
        ('{"num_classes": NaN}', "RUN/model.json: damaged: NaN is not a number in JSON"),
        (b"\xff\xfe\x00", "RUN/model.json: damaged: not UTF-8 at byte 0. Train again."),
    ],
)
def test_what_is_no_description_is_refused(text, told, run):
    (run / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refusal(run).startswith(told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": 5}, "damaged: name=5: expected text"),
        ({"name": []}, "damaged: name=[]: expected text"),
        ({"name": "resnet21"}, "no network 'resnet21'"),
        ({"name": "timm/nothing"}, "no network 'timm/nothing'"),
        ({"num_classes": "10"}, "damaged: num_classes='10': expected a whole number from 0 to 1000000"),
        ({"num_classes": 10.0}, "damaged: num_classes=10.0"),
        ({"num_classes": True}, "damaged: num_classes=True"),
        ({"num_classes": None}, "damaged: num_classes=None"),
        ({"num_classes": 10**300}, "damaged: num_classes=1000"),
        ({"num_classes": 0}, "resnet20: num_classes=0: expected a whole number of at least 1"),
        ({"in_channels": 0}, "damaged: in_channels=0"),
        ({"image_size": [8]}, "damaged: image_size=[8]"),
        ({"kwargs": [4]}, "damaged: kwargs=[4]: expected an object"),
        ({"kwargs": {"weights": "/etc/passwd"}}, "kwargs holds weights, which stands beside it. Train again."),
        ({"kwargs": {"name": "mlp"}}, "kwargs holds name, which stands beside it."),
        ({"kwargs": {"width": "4"}}, "resnet20: width='4': expected a whole number from 1 to 10000"),
        ({"kwargs": {"width": [4]}}, "resnet20 cannot be made with these arguments"),
        ({"kwargs": {"pool": 3}}, "resnet20 takes no 'pool'. It takes width=16"),
        ({"data": 5}, "damaged: data=5: expected text"),
        ({"steps": "4"}, "damaged: steps='4': expected a whole number"),
        ({"class_names": [1]}, "damaged: class_names[0]=1: expected text"),
        ({"mean": [True]}, "damaged: mean[0]=True: expected a finite number"),
        ({"std": 3}, "damaged: std=3: expected a list"),
        ({"encoder": "dct"}, "damaged: encoder='dct': expected an object"),
    ],
)
def test_wrong_values_are_named(changed, told, run):
    (run / "model.json").write_text(json.dumps(GOOD | FACTS | changed))
    assert told in refusal(run)


@pytest.mark.parametrize(
    "changed",
    [
        {"kwargs": {"width": 10_000}},
        {"kwargs": {"stages": [[10_000, 10, 1]] * 20}},
        {"num_classes": 1_000_000, "kwargs": {"width": 10_000}},
        {"name": "mlp", "image_size": 100_000, "kwargs": {"hidden": [10_000] * 100}},
        {"name": "spikingformer_8_768", "kwargs": {"depth": 100}},
    ],
)
def test_a_network_much_larger_than_its_weights_takes_no_memory(changed, run, monkeypatch):
    (run / "model.json").write_text(json.dumps(GOOD | changed))

    def filled(tensor, **_):
        assert tensor.is_meta, "memory was taken"

    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", filled)
    told = refusal(run)
    assert "RUN: does not fit" in told and "differ" in told


def test_a_run_that_began_with_another_is_rebuilt_and_one_that_began_with_itself_refused(run, tmp_path):
    later = tmp_path / "later"
    later.mkdir()
    (later / "model.json").write_text(json.dumps(GOOD | {"name": str(run), "kwargs": {}}))
    net = create_model("resnet20", width=4)
    save_weights(net, later / "weights.safetensors")
    assert torch.equal(create_model(later).fc.weight, net.fc.weight)
    for name in (str(later), os.path.join(later, "..", "later")):
        (later / "model.json").write_text(json.dumps(GOOD | {"name": name}))
        assert "names its own folder as its network" in refusal(later)


def test_arguments_beside_a_run_go_before_its_own(run):
    save_file(create_model("resnet20", width=8).state_dict(), run / "wide.safetensors")
    assert create_model(run, weights=run / "wide.safetensors", width=8).fc.in_features == 32


def test_a_folder_without_one_tells_what_it_holds(run):
    inner = run / "inner" / "student"
    inner.mkdir(parents=True)
    (run / "model.json").rename(inner / "model.json")
    with pytest.raises(ModelError, match=r"has no model\.json\. In it lie .*student\.$"):
        read_description(run / "inner")
    (inner / "network.json").write_text("{}")
    with pytest.raises(ModelError, match="It holds what `transpike convert` made"):
        read_description(run / "inner")


def test_a_folder_without_one_and_one_that_is_a_pipe(run):
    (run / "model.json").unlink()
    assert "not the folder of a finished `transpike train` run" in refusal(run)
    os.mkfifo(run / "model.json")
    assert refusal(run) == "RUN/model.json: a pipe, a device or a folder, not a file. Train again."


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["deep"] * 900), "a\0b"])
def test_a_name_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        read_description(name)
