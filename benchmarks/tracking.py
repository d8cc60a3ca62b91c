"""The tracking neuron of CSS: the fused kernel, the torch reference; as floors a copy and the convolution before it.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --steps 12 --images 32 --channels 64 --size 16 --threads 2

Times are of one layer at all steps, [T, N, C, H, W] in float32 and channels-last, as they occur in a converted network.
The network lets spikes overwrite their currents ("in place") wherever no other layer reads those.
Results: benchmarks/results/tracking.json.
"""
# quick

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from timing import best_seconds, save, show
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.kernels import track_reference
from transpike.neurons.tsa import Code, Tracked

CODES = {
    "ternary": Code(steps=8, beta=2.0, silent=1),
    "levels 1, 2, 4, 8": Code(steps=8, beta=2.0, silent=0, levels=(1, 2, 4, 8)),
    "integers to 16": Code(steps=8, beta=4.0, silent=0, levels=tuple(range(1, 17))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="T (default: 8)")
    parser.add_argument("--images", type=int, default=16, help="N, images in a chunk (default: 16)")
    parser.add_argument("--channels", type=int, default=16, help="C (default: 16)")
    parser.add_argument("--size", type=int, default=32, help="H = W (default: 32)")
    parser.add_argument(
        "--repeats", type=int, default=10, help="times are the least of so many, in turns (default: 10)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch (default: 1, which a busy machine disturbs least)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = args.steps * args.images
    spikes = torch.randint(-1, 2, (rows, args.channels, args.size, args.size)).float()
    spikes = spikes.contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(args.channels, args.channels, 3, 3).contiguous(memory_format=torch.channels_last)
    z = F.conv2d(spikes, kernel / kernel.abs().sum((1, 2, 3)).mean(), padding=1).unflatten(0, (args.steps, -1))
    codes = {name: _with_steps(code, args.steps) for name, code in CODES.items()}
    _check_equal(z, codes)
    runs = _runs(z, codes) | {
        "copy_ into a buffer (floor)": partial(torch.empty_like(z).copy_, z),
        "clone (floor)": z.clone,
        "3x3 convolution before it": partial(F.conv2d, spikes, kernel, padding=1),
    }
    seconds = best_seconds(runs, repeats=args.repeats)
    floor = seconds["copy_ into a buffer (floor)"]
    show(
        f"Tracking neuron on {list(z.shape)}, {torch.get_num_threads()} threads",
        ["", "ms", "ns a neuron and step", "times copy_"],
        [[name, f"{1e3 * t:.2f}", f"{1e9 * t / z.numel():.2f}", f"{t / floor:.1f}"] for name, t in seconds.items()],
    )
    print(save("tracking", {"shape": list(z.shape), "seconds": seconds}))


def _with_steps(code: Code, steps: int) -> Code:
    return Code(steps=steps, beta=code.beta, silent=code.silent, levels=code.levels)


def _runs(z: Tensor, codes: dict[str, Code]) -> dict[str, Callable[[], object]]:
    # In place, the currents would be spikes after the first turn: the arithmetic is the same, whatever the values.
    buffer = z.clone()
    runs: dict[str, Callable[[], object]] = {}
    for name, code in codes.items():
        runs[f"{name}, in place"] = partial(tsa.track, buffer, code=code, inplace=True)
        runs[f"{name}, fresh"] = partial(tsa.track, z, code=code)
        runs[f"{name}, torch reference"] = partial(_reference, z, code)
    return runs


def _reference(z: Tensor, code: Code) -> Tracked:
    with patch.object(tsa, "_prepare", lambda x, rows: (track_reference, x)):
        return tsa.track(z, code=code)


def _check_equal(z: Tensor, codes: dict[str, Code]) -> None:
    for name, code in codes.items():
        if not torch.equal(tsa.track(z, code=code).spikes, _reference(z, code).spikes):
            raise SystemExit(f"{name}: the kernel and the reference differ")


if __name__ == "__main__":
    main()
