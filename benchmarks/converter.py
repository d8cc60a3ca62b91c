"""What the converter's own work on the graph costs: time an operation of ``fold`` and ``place``, on longer nets.

    python benchmarks/converter.py
    python benchmarks/converter.py --blocks 200,800,3200,12800 --network mobileone_s0

A block of the chain is convolution, BatchNorm, ReLU; of the residual net a gate behind an average and a sum; of the
last net a decomposed norm on the residual stream. Times an operation must not grow with the number of blocks; what
grows is the memory that caches cannot hold. The last line is a network of timm: what share of its conversion, from
the module to the calibrated graph, fold and place take.
Results: benchmarks/results/converter.json.
"""
# quick

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import timm
import torch
from timing import best_seconds, save, show

from transpike.coding.function import Function, Operand
from transpike.conversion import prepare
from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.op import Op
from transpike.conversion.place import place

SHAPE, ONE = (2, 4, 4), (2, 1, 1)
CONVOLUTION = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0]}
MEAN = {"dim": [2, 3], "keepdim": True}
X, Y = Operand(0), Operand(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", default="200,800,3200", help="lengths of the nets (default: 200,800,3200)")
    parser.add_argument("--network", default="mobileone_s0", help="of timm (default: mobileone_s0)")
    parser.add_argument("--repeats", type=int, default=3, help="times are the least of so many (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for (name, block), blocks in ((pair, int(n)) for pair in BLOCKS.items() for n in args.blocks.split(",")):
        graph = _net(block, blocks)
        folded = fold(graph)
        seconds = best_seconds({"fold": partial(fold, graph), "place": partial(place, folded)}, repeats=args.repeats)
        rows.append({"net": name, "blocks": blocks, "operations": len(graph.ops), **seconds})
    show(
        "Time of the converter's own steps",
        ["", "blocks", "operations", "fold, µs/op", "place, µs/op"],
        [
            [
                r["net"], str(r["blocks"]), str(r["operations"]),
                *(f"{1e6 * r[step] / r['operations']:.1f}" for step in ("fold", "place")),
            ]
            for r in rows
        ],
    )  # fmt: skip
    whole = _share(args.network)
    print(f"{args.network}: fold and place take {whole['own']:.2f} of {whole['all']:.1f} s ({whole['share']:.1%})")
    print(save("converter", {"rows": rows, args.network: whole}))


def _net(block: Callable[[str, str], Iterator[Op]], blocks: int) -> Graph:
    ops = [Op("input", "input", (), SHAPE), _convolution("stem", "input")]
    for k in range(blocks):
        ops += block(f"{k}.", ops[-1].name)
    ops.append(_convolution("head", ops[-1].name))
    return Graph(tuple(ops), ("head",))


def _convolution(name: str, source: str) -> Op:
    args = {**CONVOLUTION, "groups": 1}
    return Op(name, "convolution", (source,), SHAPE, args=args, tensors={"weight": torch.rand(2, 2, 1, 1)})


def _call(name: str, operator: str, *inputs: str, shape: tuple[int, ...] = SHAPE) -> Op:
    function = Function.of(operator, *(X, Y)[: len(inputs)], operands=len(inputs))
    return Op(name, "call", inputs, shape, function=function)


def _plain(at: str, last: str) -> Iterator[Op]:
    yield _convolution(at + "conv", last)
    yield Op(at + "norm", "affine", (at + "conv",), SHAPE, tensors={"scale": torch.rand(ONE), "shift": torch.rand(ONE)})
    yield _call(at + "relu", "relu.default", at + "norm")


def _gated(at: str, last: str) -> Iterator[Op]:
    yield _convolution(at + "a", last)
    yield _call(at + "act", "silu.default", at + "a")
    yield Op(at + "mean", "mean", (at + "act",), ONE, args=MEAN)
    yield _call(at + "gate", "sigmoid.default", at + "mean", shape=ONE)
    yield _call(at + "mul", "mul.Tensor", at + "act", at + "gate")
    yield _convolution(at + "b", at + "mul")
    yield Op(at + "add", "add", (last, at + "b"), SHAPE)


def _normed(at: str, last: str) -> Iterator[Op]:
    yield Op(at + "mean", "mean", (last,), ONE, args=MEAN)
    yield Op(at + "centred", "add", (last, at + "mean"), SHAPE, gains=(1.0, -1.0))
    yield _call(at + "square", "square.default", at + "centred")
    yield Op(at + "variance", "mean", (at + "square",), ONE, args=MEAN)
    yield _call(at + "div", "div.Tensor", at + "centred", at + "variance")
    yield _convolution(at + "conv", at + "div")
    yield Op(at + "add", "add", (last, at + "conv"), SHAPE)


BLOCKS = {"conv-BN-ReLU": _plain, "residual, gated": _gated, "residual, normed": _normed}


def _share(name: str) -> dict[str, Any]:
    """What fold and place take of a network's preparation."""
    spent = [0.0]

    def timed(step: Callable[..., Graph], *args: Any) -> Graph:
        start = time.perf_counter()
        result = step(*args)
        spent[0] += time.perf_counter() - start
        return result

    model = timm.create_model(name, num_classes=10).eval()
    with ExitStack() as patches:
        for module, step in product(("prepare", "trace"), (fold, place)):
            where = sys.modules[f"transpike.conversion.{module}"]
            patches.enter_context(patch.object(where, step.__name__, partial(timed, step)))
        start = time.perf_counter()
        prepare(model, torch.randn(16, 3, 64, 64))
        whole = time.perf_counter() - start
    return {"own": spent[0], "all": whole, "share": spent[0] / whole}


if __name__ == "__main__":
    main()
