"""Ways to damage a file: its bytes, its values where it has a structure, and its place in the file system."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import onnx
import torch
import yaml
from google.protobuf import json_format

from transpike.models.onnx_operators import OPERATORS
from transpike.train.resume import seal

HUGE = "9" * 5000
CANARY = "ran"
"""A file of this name appears in the working folder if code from an input has run."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), 2**31, 2**53 + 1, 2**64),
    *("", "x", "0", "x" * 5000, "../..", "\ud800", "\0", "nan", [], {}, [[]], [None], [1, 2, 3], ["a", "b"]),
    *({"name": "css"}, {"": 1}, [-1, 0], ["x"] * 2000, list(range(2000)), [1e30, float("nan")]),
)


NETWORK: tuple[Any, ...] = (
    *("linear", "contraction", "product", "gather", "affine", "add", "cat", "reshape", "select", "resample", "call"),
    *(
        "Zab,Zbc->Zac",
        "Zab,Zab->Za",
        "Zab,bc->Zca",
        "ab,bc->ac",
        "Zaa,Zaa->Z",
        "Zab->Zab",
        "...,...->...",
        "Za,b->Zb",
        "a" * 99,
    ),
    *(
        "mul.Tensor",
        "softmax.int",
        "reshape.default",
        "index_select.default",
        "layer_norm.default",
        "expand_as.default",
    ),
    *("argmax.default", "repeat.default", "pow.Tensor_Scalar", "constant_pad_nd.default", "gt.Scalar"),
    *(
        {"operand": 0},
        {"operand": 7},
        {"result": 0},
        {"result": 10**9},
        {"result": -1},
        {"constant": "x"},
        {"float": "inf"},
    ),
    *(
        [1, 2**20],
        [-1, 2**40],
        [-1, -1],
        [0],
        [2, 16, 8],
        [0.0, 0.0],
        [2.0, -1.0],
        {"": 0},
        [{"operand": 0}, {"operand": 0}],
    ),
)
"""What stands in a saved network: kinds, equations, operators, places, shapes."""


PROGRAM: tuple[Any, ...] = (
    *(
        "torch.os.system",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.repeat.default",
        "_operator.mul",
        "p_0_bias",
    ),
    *("torch.ops.aten.view.default", "torch.ops.aten.relu.default", "torch.ops.aten.as_strided.default", "weight_0"),
    *(
        {"as_int": 2**40},
        {"as_int": -1},
        {"as_ints": [2**20, 2**20]},
        {"as_name": "x"},
        {"as_tensor": {"name": "input"}},
    ),
    *({"as_none": True}, {"as_string": "reflect"}, {"as_sym_ints": [{"as_int": -1}]}, [2**62, 2**62], {"as_graph": {}}),
)
"""What stands in a program of torch.export: operators, names, arguments."""


class Exploit:
    """What a pickle makes by running a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def mutate(folder: Path, draw: Random, others: list[Path]) -> tuple[Path, str]:
    """Damage one file of a folder, in place; gives its path and what was done to it."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))
    structured = _structured(path)
    ways: list[Callable[[Path, Random, list[Path]], str]] = [_bytes] * 4 + [_place]
    if structured:
        ways += [structured] * 9
    done = draw.choice(ways)(path, draw, others)
    if path.name == "weights.safetensors" and draw.random() < 0.8:
        _restamp(path)
    return path, done


def _bytes(path: Path, draw: Random, others: list[Path]) -> str:
    data = bytearray(path.read_bytes())
    size = len(data)
    start = draw.randrange(min(size, draw.choice((16, 200, size))))
    stop = min(size, start + draw.choice((1, 2, 4, 8, 64, 1000)))
    way = draw.choice(
        ("flip", "cut", "empty", "insert", "zero", "ones", "delete", "repeat", "other", "noise", "append")
    )
    if way == "flip":
        for _ in range(draw.choice((1, 1, 2, 8, 50))):
            data[draw.randrange(start, size)] ^= 1 << draw.randrange(8)
    elif way == "insert":
        data[start:start] = draw.choice(
            (draw.randbytes(9), HUGE.encode(), b"[" * 100_000, b"\xff\xfe", b"\0", b'"', b"nan")
        )
    elif way in ("zero", "ones"):
        data[start:stop] = (b"\0" if way == "zero" else b"\xff") * (stop - start)
    elif way == "repeat":
        data[stop:stop] = bytes(data[start:stop]) * draw.choice((1, 10, 1000))
    elif way == "append":
        data += draw.choice((b"\0", b"}", draw.randbytes(500), bytes(data)))
    elif way == "delete":
        del data[start:stop]
    elif way == "cut":
        del data[start:]
    else:
        data[:] = {"empty": b"", "other": draw.choice(others).read_bytes(), "noise": draw.randbytes(2000)}[way]
    path.write_bytes(data)
    return f"{way} {start}:{stop}"


def _place(path: Path, draw: Random, others: list[Path]) -> str:
    way = draw.choice(("missing", "folder", "pipe", "loop", "endless", "dangling", "elsewhere", "renamed", "sparse"))
    content = path.read_bytes()
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "endless":
        path.symlink_to("/dev/zero")
    elif way == "dangling":
        path.symlink_to("nowhere")
    elif way == "elsewhere":
        path.symlink_to(draw.choice(others))
    elif way == "renamed":
        path.with_name(draw.choice(("é" * 100, "-", "a\nb", "a" * 240, "\udcff")) + path.suffix).write_bytes(content)
    elif way == "sparse":
        path.write_bytes(content)
        os.truncate(path, 2**34)
    return way


def _structured(path: Path) -> Callable[[Path, Random, list[Path]], str] | None:
    if path.suffix == ".pt2":
        return _program
    if path.suffix == ".onnx":
        return _onnx
    by_suffix = {".json": _json, ".yaml": _yaml, ".safetensors": _safetensors, ".csv": _text, ".txt": _text}
    return by_suffix.get(path.suffix, _torch if path.suffix in (".pt", ".pth", ".ckpt") else None)


def _json(path: Path, draw: Random, others: list[Path]) -> str:
    content = json.loads(path.read_text())
    if draw.random() < 0.1:
        text = json.dumps(content)
        deep = "[" * 100_000 if draw.random() < 0.5 else '{"a":' * 300 + "1" + "}" * 300
        numbers = [each.span() for each in re.finditer(r"(?<=[ \[])-?\d+(\.\d+)?", text)]
        start, stop = draw.choice(numbers)
        path.write_text(text[:start] + draw.choice((HUGE, "1e999", "-0", "1" + "0" * 400, deep)) + text[stop:])
        return f"a number at {start}"
    values = (*VALUES, *NETWORK) if path.name == "network.json" else VALUES
    done = [_change(content, draw, values) for _ in range(draw.choice((1, 1, 1, 2, 5)))]
    path.write_text(json.dumps(content, ensure_ascii=draw.random() < 0.9), errors="surrogatepass")
    return "; ".join(done)


def _change(content: Any, draw: Random, values: tuple[Any, ...] = VALUES) -> str:
    """Change one value somewhere within lists and mappings."""
    places = list(_places(content))
    if not places:
        return "nothing"
    holder, key, trail = draw.choice(places)
    way = draw.choice(("drop", "retype", "retype", "retype", "copy", "rename", "scale", "deepen"))
    if way == "drop":
        del holder[key]
    elif way == "copy":
        other, name, _ = draw.choice(places)
        if name in (other if isinstance(other, dict) else range(len(other))):
            holder[key] = other[name]
            if _holds_itself(content):
                holder[key] = 0
    elif way == "rename" and isinstance(holder, dict):
        holder[draw.choice(("x", "", "name", f"{key}s", "a.b[0]"))] = holder.pop(key)
    elif way == "scale" and isinstance(holder[key], int | float):
        holder[key] *= draw.choice((-1, 0, 2, 1000, 0.5))
    elif way == "deepen":
        for _ in range(draw.choice((1, 200))):
            holder[key] = draw.choice(([holder[key]], {"a": holder[key]}))
    else:
        value = draw.choice(values)
        holder[key] = deepcopy(value) if isinstance(value, list | dict) else value  # which a later change may alter
    return f"{way} {trail}"


def _places(value: Any, trail: str = "", seen: frozenset[int] = frozenset()) -> Any:
    if id(value) in seen:
        return
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, each in inner:
        yield value, key, f"{trail}.{key}"
        yield from _places(each, f"{trail}.{key}", seen | {id(value)})


def _holds_itself(value: Any, seen: frozenset[int] = frozenset()) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return id(value) in seen or any(_holds_itself(each, seen | {id(value)}) for each in inner)


def _yaml(path: Path, draw: Random, others: list[Path]) -> str:
    text = path.read_text()
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    hostile = (
        *(f'network: !!python/object/apply:os.system ["touch {CANARY}"]\n', bomb, "&a [*a]", "a: &a {b: *a}\n", "\t\n"),
        *(
            "model: " + "[" * 5000,
            "epochs: " + HUGE,
            "? [a]\n: b\n",
            "<<: 1\n",
            "--- a\n--- b\n",
            "!!binary x\n",
            "%\n",
        ),
        *("network: {? {a: 1} : 2}\n", "seed: !!int x\n", "epochs: 0x\n", "seed: 1:2:3\n", "model: 2026-11-28\n", "*x"),
        *(
            "seed: !!timestamp 2\n",
            "model: !!set {a, b}\n",
            "seed: 1_000\n",
            "epochs: .nan\n",
            "model: yes\n",
            "a: [1,",
        ),
    )
    if draw.random() < 0.3:
        path.write_text(draw.choice((text, "")) + draw.choice(hostile))
        return "hostile YAML"
    content = yaml.safe_load(text)
    if not isinstance(content, dict) or draw.random() < 0.1:
        path.write_bytes(text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig"))))
        return "another encoding"
    done = [_change(content, draw) for _ in range(draw.choice((1, 1, 3)))]
    path.write_text(yaml.safe_dump(content, allow_unicode=draw.random() < 0.5), errors="surrogatepass")
    return "; ".join(done)


def _text(path: Path, draw: Random, others: list[Path]) -> str:
    text = path.read_text()
    words = [each.span() for each in re.finditer(r"\w+", text)]
    start, stop = draw.choice(words)
    new = draw.choice(("", "-1", "x", HUGE, "nan", "1e9", "../x", "\n", ",", "0", str(2**63), "\0", "é", "/etc/passwd"))
    path.write_text(text[:start] + new + text[stop:])
    return f"{new[:9]!r} at {start}"


def _safetensors(path: Path, draw: Random, others: list[Path]) -> str:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    if draw.random() < 0.4:
        start = draw.randrange(len(rest) // 4) * 4
        rest[start : start + 4] = struct.pack("<f", draw.choice((float("nan"), float("inf"), -1e38, 0.0, 1e-45)))
        done = f"a value at {start}"
    else:
        done = _change(header, draw, (*VALUES, "F64", "I8", "BOOL", "F16", "F8_E4M3", [0, 0], [2**40, 2**40], [0, 4]))
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new) + (draw.random() < 0.05)) + new + rest)
    return done


def _torch(path: Path, draw: Random, others: list[Path]) -> str:
    content = torch.load(path, weights_only=False)
    tensors = (
        *(torch.full((5, 6), torch.nan), torch.zeros(0), torch.eye(5).to_sparse(), torch.zeros(3, device="meta")),
        *(torch.ones(5, 6, dtype=torch.int8), torch.ones(5, 6, dtype=torch.complex64), torch.zeros(()), torch.ones(1)),
        *(torch.quantize_per_tensor(torch.ones(5, 6), 0.1, 0, torch.qint8), torch.zeros(1).expand(2**20, 2**20)),
        *(torch.nn.Linear(2, 2), torch.float16, b"x", (1, 2), {1, 2}, complex(1, 2), 2**70, Exploit(), Exploit()),
    )
    done = [_change(content, draw, draw.choice((VALUES, tensors))) for _ in range(draw.choice((1, 1, 3)))]
    if isinstance(content, dict) and draw.random() < 0.05:
        content["itself"] = content
        done = ["holds itself"]
    elif isinstance(content, dict) and "contents" in content and draw.random() < 0.6:
        seal(content, content.get("run") if isinstance(content.get("run"), dict) else {})  # type: ignore[arg-type]
        done.append("sealed")
    try:
        torch.save(content, path)
    except Exception:  # what no pickle holds, such as half a character
        torch.save([Exploit()], path)
        done = ["an exploit alone"]
    return "; ".join(done)


def _onnx(path: Path, draw: Random, others: list[Path]) -> str:
    """A network in ONNX with a change in its fields, as far as these may hold it."""
    model = onnx.load(path, load_external_data=False)
    content = json_format.MessageToDict(model)
    values = (*VALUES, *OPERATORS, *content["graph"]["node"], -1, 2**40, "AAAA", str(2**40), "-1", "LSTM", "Reshape")
    done = "; ".join(_change(content["graph"], draw, values) for _ in range(draw.choice((1, 1, 1, 2, 5))))
    try:
        path.write_bytes(json_format.ParseDict(content, onnx.ModelProto()).SerializeToString())
    except Exception:  # a value that no field holds
        return _bytes(path, draw, others)
    return done


def _program(path: Path, draw: Random, others: list[Path]) -> str:
    """A program of torch.export: a change in one of its parts of JSON, or a pickle in the place of a part."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    texts = [name for name in parts if name.endswith(".json")]
    if draw.random() < 0.2:
        name = draw.choice(sorted(parts))
        parts[name], done = pickle.dumps(Exploit()), f"an exploit in {name}"
    else:
        name = draw.choice([*texts, *(each for each in texts if "models/" in each)])
        content = json.loads(parts[name])
        done = "; ".join(_change(content, draw, (*VALUES, *PROGRAM)) for _ in range(draw.choice((1, 1, 1, 2, 5))))
        parts[name] = json.dumps(content).encode(errors="surrogatepass")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return done


def _restamp(weights: Path) -> None:
    """Write a converted network's digest of its weights again, so that a reader looks further."""
    record = weights.with_name("network.json")
    if not (record.is_file() and weights.is_file() and weights.stat().st_size < 2**20):
        return
    content = json.loads(record.read_text())
    content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    record.write_text(json.dumps(content))
