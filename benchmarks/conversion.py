"""CSS against SpikingJelly's rate conversion and against the floor, on one trained network and the same images.

    python benchmarks/conversion.py
    python benchmarks/conversion.py --model runs/train-20261121-110000
    python benchmarks/conversion.py --model resnet20 --data cifar10 --weights resnet20-cifar10.pt --images 1000

Three questions. What is lost at T steps? How long does each simulate until it predicts as the network does, for at
least 99 % of the images? And what does a simulation cost beyond the floor, T passes of the network it was made from,
with its normalisation folded and in whichever memory format is faster? Without --model, a ResNet-20 is trained on
digits, once.
Results: benchmarks/results/conversion-MODEL-DATA.json.
"""
# quick

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe
from timing import RESULTS, best_seconds, save, show
from torch import Tensor, nn

from transpike.coding.css import CSS
from transpike.conversion import Prepared, prepare
from transpike.conversion.graph import Graph
from transpike.data import Loading
from transpike.errors import TranspikeError
from transpike.experiments.convert import load_inputs
from transpike.experiments.source import Data, Source
from transpike.experiments.train import Train, train

CODES = {
    "ternary, Ts = 1": CSS(silent=1, amplitude="layer"),
    "ternary, Ts = 2": CSS(silent=2, amplitude="layer"),
    "levels 1, 2, 4, 8": CSS(silent=0, levels=(1, 2, 4, 8), amplitude="layer"),
}
AT_ONCE = 2**18  # values of the images that are simulated together
STEPS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
RECIPES: dict[str, dict[str, Any]] = {
    "rate, maximum": {"mode": "max"},
    "rate, 99.9 %": {"mode": "99.9%"},
    "rate, channels, half": {"mode": "99.9%", "channel_wise": True, "half_threshold": True},
}
PEER_STEPS = (8, 16, 32, 64, 128, 256, 512)
TIMED = 32  # steps of a rate code that are measured
PASSES, SIMULATIONS = 8, 3  # in one measurement, of the folded network and of a spiking one
EQUAL, FASTER, ABOVE_FLOOR = 0.99, 10.0, 1.3  # what counts as equal; what must hold


@dataclass(frozen=True, eq=False)
class Setting:
    """One trained network and its images, for all that follows."""

    ann: nn.Module
    prepared: Prepared
    images: Tensor
    labels: Tensor
    logits: Tensor

    def row(self, code: str, steps: int, logits: Tensor) -> dict[str, Any]:
        predicted, wanted = logits.argmax(1), self.logits.argmax(1)
        right, before = (float((p == self.labels).float().mean()) for p in (predicted, wanted))
        same = float((predicted == wanted).float().mean())
        return {"code": code, "steps": steps, "same": same, "loss_pp": 100 * (before - right)}


def main() -> None:
    args = _arguments()
    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    try:
        setting = _setting(args)
    except TranspikeError as error:
        raise SystemExit(f"conversion.py: {error}") from None
    batch = setting.images[: args.batch]
    peers = {name: _rate(setting, recipe) for name, recipe in RECIPES.items()}
    rows = [*_ours(setting), *_theirs(setting, peers, args.peer_steps)]
    _show_fidelity(rows, len(setting.images))
    name = f"conversion-{Path(args.model).name}-{args.data or 'own'}"
    results: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}, "images": len(setting.images)}
    results["fidelity"] = rows
    save(name, results)
    results["equal_fidelity"] = _equal_fidelity(setting, peers, rows, batch, repeats=args.repeats)
    results["floor"] = _above_floor(setting.prepared, batch, repeats=args.repeats)
    print(save(name, results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a `transpike train` run, or a network's name, which needs --weights")
    parser.add_argument("--data", help="the images: digits, cifar10, ...; by default those of the training run")
    parser.add_argument("--weights", type=Path, help="the network's weights, a .safetensors file or a state dict")
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="where the data set's files lie (default: data)"
    )
    parser.add_argument("--images", type=int, help="how many test images (default: all). 200 of CIFAR-10 take minutes")
    parser.add_argument(
        "--calibration", type=int, default=512, help="training images for both converters (default: 512)"
    )
    parser.add_argument("--batch", type=int, default=50, help="images in what is timed (default: 50)")
    parser.add_argument("--repeats", type=int, default=5, help="times are the least of so many, in turns (default: 5)")
    parser.add_argument("--peer-steps", type=int, default=512, help="the largest T of the rate code (default: 512)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch (default: 1, which a busy machine disturbs least)"
    )
    args = parser.parse_args()
    if args.model is None:
        args.model, args.data = RESULTS / "resnet20", "digits"
        if not (args.model / "model.json").exists():
            train(Train("resnet20", "digits", epochs=20, out=args.model))
    return args


def _setting(args: argparse.Namespace) -> Setting:
    data = Data(args.data, args.root, loading=Loading(test_images=args.images))
    ann, sets = load_inputs(Source(str(args.model), args.weights), data)
    images, labels = (torch.cat(parts) for parts in zip(*sets.test, strict=True))
    return Setting(ann, prepare(ann, sets.calibration(args.calibration)), images, labels, _batched(ann, images))


def _parts(images: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = images.split(max(1, AT_ONCE // images[0].numel()))
    return parts


def _batched(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([run(part) for part in _parts(images)])


# -- 1. fidelity -------------------------------------------------------------------------------------------------------


def _ours(setting: Setting) -> list[dict[str, Any]]:
    rows = []
    for steps in track(STEPS, "CSS, T = 2 ... 12", console=Console(stderr=True)):
        for code, scheme in CODES.items():
            snn = setting.prepared.convert(replace(scheme, steps=steps))
            rows.append(setting.row(code, steps, snn(setting.images)) | {"latency": snn.latency})
    return rows


def _rate(setting: Setting, recipe: Mapping[str, Any]) -> nn.Module:
    """SpikingJelly's conversion, calibrated on the same images, in one batch: no moving average blurs the peaks."""
    rate = RateCodingRecipe([setting.prepared.images], **recipe)
    peer: nn.Module = Converter(rate).convert(deepcopy(setting.ann))
    return peer.eval().to(memory_format=torch.channels_last)


def _simulate(peer: nn.Module, x: Tensor, steps: int) -> Iterator[Tensor]:
    """The summed logits after each step."""
    functional.reset_net(peer)
    x, total = x.contiguous(memory_format=torch.channels_last), torch.zeros(())
    for _ in range(steps):
        total = total + peer(x)
        yield total


def _theirs(setting: Setting, peers: Mapping[str, nn.Module], limit: int) -> list[dict[str, Any]]:
    rows = []
    wanted = [steps for steps in PEER_STEPS if steps <= limit]
    for name, peer in peers.items():
        sums: dict[int, list[Tensor]] = {steps: [] for steps in wanted}
        for x in track(_parts(setting.images), f"SpikingJelly, {name}", console=Console(stderr=True)):
            for step, logits in enumerate(_simulate(peer, x, wanted[-1]), 1):
                if step in sums:
                    sums[step].append(logits)
        rows += [setting.row(name, steps, torch.cat(parts)) for steps, parts in sums.items()]
    return rows


def _show_fidelity(rows: list[dict[str, Any]], images: int) -> None:
    for title, codes, steps in (
        ("transpike", CODES, STEPS),
        (f"SpikingJelly {version('spikingjelly')}", RECIPES, PEER_STEPS),
    ):
        cells = {(r["code"], r["steps"]): f"{100 * r['same']:.1f} ({r['loss_pp']:.2f})" for r in rows}
        show(
            f"{title}: same predictions in % (accuracy lost in points), {images} images",
            ["T", *codes],
            [[str(t), *(cells[code, t] for code in codes)] for t in steps if all((code, t) in cells for code in codes)],
        )


# -- 2. wall time at equal fidelity ------------------------------------------------------------------------------------


def _equal_fidelity(
    setting: Setting, peers: Mapping[str, nn.Module], rows: list[dict[str, Any]], batch: Tensor, *, repeats: int
) -> list[dict[str, Any]]:
    """The first T of every code at which predictions agree, or its largest T, and what the simulation takes there.

    All steps of a rate code cost the same, so beyond `TIMED` steps its time is that of so many, in proportion.
    """
    found: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], object]] = {}
    for code in (*CODES, *RECIPES):
        own = [row for row in rows if row["code"] == code]
        first = next((row for row in own if row["same"] >= EQUAL), own[-1])
        steps = first["steps"]
        found.append({"code": code, "steps": steps, "same": first["same"], "reached": first["same"] >= EQUAL})
        if code in CODES:
            runs[code] = partial(setting.prepared.convert(replace(CODES[code], steps=steps)), batch)
        else:
            runs[code] = partial(_last, peers[code], batch, min(steps, TIMED))
    seconds = best_seconds(runs, repeats=repeats)
    for row in found[len(CODES) :]:
        seconds[row["code"]] *= max(1, row["steps"] / TIMED)
    peer = min((row for row in found if row["code"] in RECIPES and row["reached"]), key=lambda r: seconds[r["code"]],
               default=max(found[len(CODES):], key=lambda r: r["same"]))  # fmt: skip
    for row in found:
        row |= {"seconds": seconds[row["code"]], "faster": seconds[peer["code"]] / seconds[row["code"]]}
    show(
        f"Simulation of {len(batch)} images at the first T with {EQUAL:.0%} same predictions, against "
        f"{peer['code']}; must hold: {FASTER:g}x",
        ["", "T", "same %", "ms", "times as fast", ""],
        [
            [
                r["code"], str(r["steps"]) if r["reached"] else f"not by {r['steps']}", f"{100 * r['same']:.1f}",
                f"{1e3 * r['seconds']:.1f}", f"{r['faster']:.2f}x", _verdict(r["faster"] >= FASTER, r["code"] in CODES),
            ]
            for r in found
        ],
    )  # fmt: skip
    return found


def _last(peer: nn.Module, x: Tensor, steps: int) -> Tensor:
    *_, logits = _simulate(peer, x, steps)
    return logits


def _verdict(holds: bool, ours: bool) -> str:
    return ("holds" if holds else "does not hold") if ours else ""


# -- 3. the floor ------------------------------------------------------------------------------------------------------


def _above_floor(prepared: Prepared, batch: Tensor, *, repeats: int) -> list[dict[str, Any]]:
    layouts = (torch.contiguous_format, torch.channels_last)
    runs: dict[str, Callable[[], object]] = {
        str(layout): partial(_repeat, _folded(prepared, layout).run, batch.contiguous(memory_format=layout), PASSES)
        for layout in layouts
    }
    for code, steps in product(CODES, (4, 8, 12)):
        snn = prepared.convert(replace(CODES[code], steps=steps))
        runs[f"{code} {steps}"] = partial(_repeat, snn, batch, SIMULATIONS)
    seconds = best_seconds(runs, repeats=repeats)
    forward = min(seconds[str(layout)] for layout in layouts) / PASSES
    rows: list[dict[str, Any]] = []
    for code, steps in product(CODES, (4, 8, 12)):
        time, floor = seconds[f"{code} {steps}"] / SIMULATIONS, steps * forward
        rows.append({"code": code, "steps": steps, "seconds": time, "floor": floor, "ratio": time / floor})
    show(
        f"Simulation of {len(batch)} images above T passes of the folded network ({1e3 * forward:.1f} ms each); "
        f"must hold: {ABOVE_FLOOR}",
        ["", "T", "ms", "T passes, ms", "ratio", ""],
        [
            [
                r["code"], str(r["steps"]), f"{1e3 * r['seconds']:.1f}", f"{1e3 * r['floor']:.1f}", f"{r['ratio']:.2f}",
                _verdict(r["ratio"] <= ABOVE_FLOOR, True),
            ]
            for r in rows
        ],
    )  # fmt: skip
    return rows


def _repeat(run: Callable[[Tensor], object], x: Tensor, times: int) -> None:
    """Several in a row, since the first finds memory and caches as another network left them."""
    for _ in range(times):
        run(x)


def _folded(prepared: Prepared, layout: torch.memory_format) -> Graph:
    """The folded network with its kernels in one memory format."""
    ops = (
        replace(
            op, tensors={k: t.contiguous(memory_format=layout) if t.ndim == 4 else t for k, t in op.tensors.items()}
        )
        for op in prepared.graph
    )
    return replace(prepared.graph, ops=tuple(ops))


if __name__ == "__main__":
    main()
