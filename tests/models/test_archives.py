"""Files of `torch.save` from strangers: what they hold is read, what they would do is not done."""

import argparse
import collections
import datetime
import enum
import functools
import gzip
import io
import json
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transpike.errors import ModelError
from transpike.models import load_weights, read_weights
from transpike.models.archives import Foreign, read_archive
from transpike.models.pickles import scan_pickle

STATE = {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": torch.tensor([5.0, 6.0])}
LEGACY = {"_use_new_zipfile_serialization": False}


class Colour(enum.Enum):
    RED = 1


class Settings:
    def __init__(self):
        self.depth, self.me = 3, self


def saved(folder, content, name="weights.pt", **options):
    torch.save(content, folder / name, **options)
    return folder / name


def rewritten(path, *, change=lambda name, data: data, compression=zipfile.ZIP_STORED):
    """The archive with its parts changed, and checksums that fit."""
    old = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(old) as parts, zipfile.ZipFile(path, "w", compression) as new:
        for part in parts.infolist():
            new.writestr(part.filename, change(part.filename, parts.read(part)))
    return path


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_weights(nn.Linear(2, 2), path)
    told = str(caught.value)
    assert "weights_only" not in told and "\n" not in told
    assert str(path) in told
    return told


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["archive", "before 2020"])
@pytest.mark.parametrize(
    "extra",
    [
        np.float64(93.1),
        np.arange(3.0),
        np.array([1, "a"], dtype=object),
        np.random.default_rng(0).bit_generator.state,
        argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
        collections.defaultdict(list, {"loss": [1.0]}),
        collections.deque([1, 2], maxlen=3),
        collections.Counter("aab"),
        pathlib.Path("x"),
        datetime.datetime(2026, 1, 1),
        functools.partial(print, 1),
        {Colour.RED: 1, (1, 2): 3},
        frozenset({1}),
        Settings(),
        print,
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_objects_beside_a_state_dict_are_passed_over(extra, options, tmp_path):
    path = saved(tmp_path, {"state_dict": STATE, "extra": extra, "epoch": 3}, **options)
    read = read_weights(path)
    assert list(read) == ["weight", "bias"]
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)


class Surprise:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def test_no_code_runs(tmp_path):
    harm = tmp_path / "harm"
    path = saved(tmp_path, {"state_dict": STATE, "extra": Surprise(exec, f"open({str(harm)!r}, 'w')")})
    content = read_archive(path)
    assert isinstance(content["extra"], Foreign) and content["extra"].name == "builtins.exec"
    assert "an object of builtins.exec, and objects are never executed" in refusal(
        saved(tmp_path, Surprise(eval, f"open({str(harm)!r}, 'w')"))
    ).replace("eval", "exec")
    system = saved(tmp_path, {"state_dict": STATE, "extra": Surprise(os.system, f"touch {harm}")})
    assert "holds objects of posix.system, which transpike never executes" in refusal(system)
    assert not harm.exists()
    torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # nothing stays allowed


class Dictionary(dict):
    pass


def test_what_cannot_be_passed_over_is_named(tmp_path):
    other = Dictionary(a=1)
    other.b = 2
    told = refusal(saved(tmp_path, {"state_dict": STATE, "config": other}))
    assert f"holds objects of {__name__}.Dictionary, which transpike never executes" in told
    assert "Save the state dict alone: torch.save(model.state_dict(), 'weights.pt')." in told
    old = saved(tmp_path, {"state_dict": STATE, "model": nn.Linear(2, 2)}, **LEGACY)
    assert "holds objects of torch.nn.modules.linear.Linear" in refusal(old)
    assert "'model' (an object of torch.nn.modules.linear.Linear, never executed); 'epoch' (int)" in refusal(
        saved(tmp_path, {"model": nn.Linear(2, 2), "epoch": 1})
    )
    assert "pickled in another way than torch.save's own" in refusal(saved(tmp_path, STATE, pickle_protocol=4))


def nested(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


def repeated(times, kind):
    inner = kind()
    for _ in range(times):
        inner = kind([inner, inner])
    return inner


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["archive", "before 2020"])
def test_what_would_not_end_is_refused(options, tmp_path):
    loop = {"state_dict": STATE}
    loop["self"] = [loop]
    assert "damaged (it contains itself)" in refusal(saved(tmp_path, loop, **options))
    assert "nests more than 200 levels deep" in refusal(saved(tmp_path, {"a": nested(300), **STATE}, **options))
    for kind in (list, tuple):
        told = refusal(saved(tmp_path, {"a": repeated(60, kind), **STATE}, **options))
        assert "repeats its own parts more often than can be read" in told
    read_weights(saved(tmp_path, {"a": nested(50), "b": repeated(8, tuple), "model": STATE}, **options))


def test_a_scan_finds_names_and_the_end_of_a_pickle():
    two = io.BytesIO(pickle.dumps(complex(1, 2), protocol=2) + pickle.dumps([1], protocol=2) + b"rest")
    assert scan_pickle(two) == {("__builtin__", "complex")}
    assert scan_pickle(two) == set()
    assert two.read() == b"rest"
    shared = [1, 2]
    assert scan_pickle(pickle.dumps({"a": shared, "b": (shared, {"c": shared})})) == set()
    for damaged in (b"", b"\x80\x02]", b"\x80\x02a.", b"\x80\x02h\x05.", b"\x80\x02X\xff\xff\xff\xffabc."):
        with pytest.raises(ValueError):
            scan_pickle(damaged)


def test_an_archive_that_unpacks_to_much_more_than_its_size_is_refused_unread(tmp_path, monkeypatch):
    packed = rewritten(saved(tmp_path, STATE), compression=zipfile.ZIP_DEFLATED)
    assert torch.equal(read_weights(packed)["weight"], STATE["weight"])
    bomb = saved(tmp_path, {"state_dict": STATE, "optimizer": torch.zeros(80 * 2**18)}, "bomb.pt")
    rewritten(bomb, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    assert "unpack to 83," in refusal(bomb)


def test_a_flipped_bit_is_found(tmp_path):
    path = saved(tmp_path, STATE)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<4f", 1, 2, 3, 4)) + 3] ^= 1
    path.write_bytes(data)
    assert "damaged (the checksum of its part weights/data/0 is wrong)" in refusal(path)


def test_a_directory_that_names_a_part_twice_is_refused(tmp_path):
    path = saved(tmp_path, STATE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/DATA.pkl", b"")
    assert "its directory names a part twice" in refusal(path)


def test_other_formats_are_named(tmp_path):
    state = "torch.save(model.state_dict(), 'weights.pt')"
    path = tmp_path / "file.pt"

    def told(content):
        path.write_bytes(content)
        return refusal(path).removeprefix(f"{path} is ")

    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert refusal(path) == (
        f"{path} is a TorchScript archive, a program with its weights. If you trust its source, save these: "
        f"torch.save(torch.jit.load('{path}').state_dict(), 'weights.pt')."
    )
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(2, 2),)), path)
    assert "is a program of torch.export. If you trust its source, save its weights" in refusal(path)
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    assert "in PyTorch's tar format of 2017" in refusal(path) and state in refusal(path)
    with tarfile.open(path, "w") as archive:
        archive.add(saved(tmp_path, STATE), "weights.pt")
    assert refusal(path) == f"{path} is a tar archive. Unpack it first."
    whole = saved(tmp_path, STATE).read_bytes()
    assert told(gzip.compress(whole)) == "a gzip archive. Unpack it first."
    assert told(b"version https://git-lfs.github.com/spec/v1\n").startswith("a Git LFS pointer, not the file itself.")
    assert told(b"<!doctype html>") == "a web page or XML. Download the file itself."
    assert told(pickle.dumps(STATE)) == f"a plain pickle, not a file of torch.save. Save a state dict: {state}."
    assert told(b'{"weight": 1}').startswith("a text of JSON.")
    assert told(b"") == "damaged (it is empty). Fetch or save it again."
    assert told(b"weights").startswith("damaged, or not a weight file")
    np.savez(path.with_suffix(".npz"), a=np.zeros(3))
    assert "is a zip archive of NumPy arrays" in refusal(path.with_suffix(".npz"))


def test_the_content_decides_and_not_the_name(tmp_path):
    save_file(STATE, tmp_path / "file.pt")
    saved(tmp_path, STATE, "file.safetensors")
    saved(tmp_path, STATE, "old.safetensors", **LEGACY)
    for name in ("file.pt", "file.safetensors", "old.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["weight"], STATE["weight"])


def test_pipes_devices_and_impossible_names_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "weights.safetensors")
    for path in (tmp_path / "pipe", tmp_path / "run", "/dev/zero"):
        with pytest.raises(ModelError, match=r"is a pipe or a device\. Copy what it gives into a file first"):
            read_weights(path)
    assert "its links lead in a circle" in refusal(tmp_path / "loop")
    assert "no such weight file" in refusal(tmp_path / ("a" * 300))
    with pytest.raises(ModelError, match="weights=5: expected the path"):
        read_weights(5)


GOOD = {
    "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
}


@pytest.mark.parametrize(
    ("header", "length", "data"),
    [
        (GOOD, 90_000_000, bytes(24)),
        (GOOD, 2**63, bytes(24)),
        (GOOD, None, bytes(20)),
        (GOOD, None, bytes(30)),
        (GOOD | {"bias": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, None, bytes(16)),
        (GOOD | {"weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}, None, bytes(24)),
        ({"weight": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}}, None, b""),
        ({"weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, None, bytes(4)),
        ({"weight": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}}, None, bytes(4)),
        (b"{abc", None, b""),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", None, b""),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', None, bytes(4)),
    ],
)
def test_lying_headers_of_safetensors_are_refused(header, length, data, tmp_path):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    assert " is damaged" in refusal(path)
