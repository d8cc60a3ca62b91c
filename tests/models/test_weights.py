import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model, load_weights, read_weights, save_weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return create_model("resnet20", width=4)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: prefixed(s, "module."),
        lambda s: prefixed(s, "_orig_mod.module."),
        lambda s: {"state_dict": prefixed(s, "model._orig_mod."), "pytorch-lightning_version": "2.6"},
        lambda s: {"state_dict": prefixed(s, "model.") | {"loss.weight": torch.ones(3)}},
        lambda s: {key: value for key, value in s.items() if "num_batches" not in key},
    ],
    ids=["plain", "state_dict", "model", "parallel", "compiled", "lightning", "with a loss", "without counters"],
)
def test_weights_load_in_every_wrapping(wrap, net, tmp_path):
    torch.save(wrap(net.state_dict()), tmp_path / "weights.pt")
    assert same(create_model("resnet20", width=4, weights=tmp_path / "weights.pt"), net)


def test_safetensors_round_trip(net, tmp_path):
    save_weights(net, tmp_path / "w.safetensors")
    assert same(create_model("resnet20", width=4, weights=tmp_path / "w.safetensors"), net)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_tied_weights_are_saved(tmp_path):
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "w.safetensors")
    load_weights(tied, tmp_path / "w.safetensors")


def test_a_training_runs_folder_is_a_network_and_weights(net, tmp_path):
    save_weights(net, tmp_path / "weights.safetensors")
    described = {"name": "resnet20", "kwargs": {"width": 4}, "num_classes": 10, "in_channels": 3, "image_size": 8}
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert same(create_model(tmp_path), net)
    assert same(create_model("resnet20", width=4, weights=tmp_path), net)
    (tmp_path / "model.json").write_text('{"name": "res')
    with pytest.raises(ModelError, match=r"model\.json: damaged"):
        create_model(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ModelError, match="not the folder of a finished"):
        create_model(tmp_path)


def test_ten_differing_names_are_told_and_how_many_there_are(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    other = create_model("resnet20", width=8)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ModelError) as error:
        load_weights(other, tmp_path / "w.pt")
    told = str(error.value)
    differing = [key for key, value in net.state_dict().items() if value.shape != before[key].shape]
    assert f"{len(differing)} name(s) differ" in told
    assert "conv.weight has shape (4, 3, 3, 3), not (8, 3, 3, 3)" in told
    assert told.count("has shape") == 10
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_missing_and_unknown_names_are_told(tmp_path):
    save_file({"weight": torch.zeros(1, 2), "scale": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="bias is missing; scale is unknown"):
        load_weights(nn.Linear(2, 1), tmp_path / "w.safetensors")


class Surprise:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_files_that_are_no_weights_are_refused_and_never_executed(net, tmp_path):
    with pytest.raises(ModelError, match="no such weight file"):
        read_weights(tmp_path / "absent.pt")
    save_weights(net, tmp_path / "w.safetensors")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 5, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ModelError, match="damaged"):
                read_weights(tmp_path / name)
    torch.save(Surprise(), tmp_path / "code.pt")
    with pytest.raises(ModelError, match="never executed"):
        read_weights(tmp_path / "code.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_weights(tmp_path / "empty.pt")
