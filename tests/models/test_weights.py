import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model, load_weights, read_weights, save_weights

ONE = torch.ones(())
WRAPPERS = ("net", "params", "ema", "weights", "network", "student", "state")
NESTED = ("student.", "backbone.", "encoder.", "ema_model.module.", "a.b.c.")


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
        *(lambda s, key=key: {key: s, "acc": 93.0, "epoch": 3} for key in WRAPPERS),
        *(lambda s, prefix=prefix: {"state_dict": prefixed(s, prefix)} for prefix in NESTED),
        lambda s: {"checkpoint": {"net": s, "best": torch.tensor(0.9)}, "optimizer": {"state": {0: {"step": ONE}}}},
        lambda s: {"metrics": {"loss": ONE}, "state_dict": s},
        lambda s: {"optimal": s, "optimizer_G": {"state": ONE}, "opt": {"state": ONE}},
        lambda s: {"n_averaged": ONE, **prefixed(s, "module.")},
    ],
    ids=[
        *("plain", "state_dict", "model", "parallel", "compiled", "lightning", "with a loss", "without counters"),
        *WRAPPERS,
        *NESTED,
        *("beside an optimiser", "beside measures", "optimal", "averaged"),
    ],
)
def test_weights_load_in_every_wrapping(wrap, net, tmp_path):
    torch.save(wrap(net.state_dict()), tmp_path / "weights.pt")
    assert same(create_model("resnet20", width=4, weights=tmp_path / "weights.pt"), net)


def linear(value):
    return {"weight": torch.full((2, 2), value), "bias": torch.full((2,), value)}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": linear(1.0), "state_dict_ema": linear(2.0)},
        {"model": linear(1.0), "model_ema": {"n_averaged": torch.tensor(9), **prefixed(linear(2.0), "module.")}},
        {"state_dict_ema": linear(2.0)},
        {"params": linear(1.0), "params_ema": linear(2.0)},
        {"model": linear(1.0), "ema": {"decay": 0.99, "shadow": linear(2.0)}},
        {"net": linear(1.0), "swa_model": linear(2.0)},
        {"state_dict": prefixed(linear(1.0), "model.") | prefixed(linear(2.0), "ema_model.module.")},
    ],
    ids=["timm", "torchvision", "alone", "params", "shadow", "swa", "in one state dict"],
)
def test_averaged_weights_are_taken_where_there_are_any(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    network = nn.Linear(2, 2)
    load_weights(network, tmp_path / "w.pt")
    assert network.weight.unique().tolist() == network.bias.unique().tolist() == [2.0]


def test_of_several_state_dicts_none_is_guessed(tmp_path):
    torch.save({"teacher": linear(1.0), "student": linear(2.0)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt holds several state dicts: teacher, student\. Save the one to take"):
        read_weights(tmp_path / "w.pt")


def test_what_was_taken_is_told_where_it_does_not_fit(tmp_path):
    torch.save({"model": linear(1.0), "ema": {"shadow": {"weight": ONE.expand(2, 2)}}}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"its ema\.shadow does not fit Linear, 1 name\(s\) differ: bias is missing"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (ONE.expand(2, 2).to_sparse(), r"weight is sparse \(torch\.sparse_coo: to_dense\(\) gives its values\)"),
        (ONE.expand(2, 2).to_sparse_csr(), r"weight is sparse \(torch\.sparse_csr"),
        (torch.zeros(2, 2, device="meta"), "weight is empty, saved from the meta device"),
        (torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), r"weight is quantised \(torch\.qint8"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(1)]), "weight is nested"),
        (torch.ones(2, 2, dtype=torch.int8), r"weight holds whole numbers \(torch\.int8\), not floating-point"),
        (torch.ones(2, 2, dtype=torch.bool), "weight holds whole numbers"),
        (torch.ones(2, 2, dtype=torch.complex64), r"weight holds complex numbers \(torch\.complex64\)"),
    ],
)
def test_odd_tensors_are_named(tensor, told, tmp_path):
    torch.save(linear(1.0) | {"weight": tensor}, tmp_path / "w.pt")
    network = nn.Linear(2, 2)
    before = network.weight.clone()
    with pytest.raises(ModelError, match=told):
        load_weights(network, tmp_path / "w.pt")
    assert torch.equal(network.weight, before)


def test_other_precisions_are_taken_and_counters_of_any_kind(tmp_path):
    norm = nn.BatchNorm1d(2)
    torch.save(norm.state_dict() | {"weight": torch.full((2,), 0.5, dtype=torch.float16)}, tmp_path / "w.pt")
    load_weights(norm, tmp_path / "w.pt")
    assert (norm.weight.dtype, norm.weight.tolist()) == (torch.float32, [0.5, 0.5])
    torch.save(norm.state_dict() | {"num_batches_tracked": torch.tensor(3.0)}, tmp_path / "w.pt")
    load_weights(norm, tmp_path / "w.pt")
    assert norm.num_batches_tracked.item() == 3


def test_a_network_without_values_cannot_take_any(tmp_path):
    torch.save(linear(1.0), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"Linear is on the meta device, .*to_empty\(device='cpu'\)"):
        load_weights(nn.Linear(2, 2, device="meta"), tmp_path / "w.pt")


def test_names_from_a_file_keep_a_message_in_one_line(tmp_path):
    torch.save({"a\nb" + "c" * 9000: ONE}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="a bccc") as caught:
        load_weights(nn.Linear(2, 2), tmp_path / "w.pt")
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


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


def test_what_a_stranger_wrote_is_not_quoted_at_length(tmp_path):
    header = json.dumps({"weight": {"dtype": "x" * 5000, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "long.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match="is damaged") as caught:
        read_weights(tmp_path / "long.safetensors")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
