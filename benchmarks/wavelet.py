"""Wavelet transforms: ours, PyWavelets, ptwt, pytorch_wavelets; as floors strided convolutions and a copy.

    python benchmarks/wavelet.py
    python benchmarks/wavelet.py --repeats 20 --threads 2

Times are of all levels of a batch of maps in float32, mode "symmetric": the transform, its inverse, and the transform
with the gradient of its input. The strided convolution is one 4-band F.conv2d a level (F.conv_transpose2d back), zeros
beyond the border. PyWavelets runs on the CPU only, in a loop over the maps and on the whole array. With CUDA, its times
follow the CPU's. Results: benchmarks/results/wavelet.json.

ptwt and pytorch_wavelets are no dependencies, one by its licence, the other since it is unmaintained and imports
pkg_resources; where they do not import, they are left out:

    pip install --target peers --no-deps ptwt pytorch_wavelets 'setuptools<80'
    PYTHONPATH=peers python benchmarks/wavelet.py
"""
# quick

from __future__ import annotations

import argparse
import gc
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from timing import best_seconds, save, show
from torch import Tensor

from transpike.spectral.wavelet import wavedec2, waverec2

Run = Callable[[], Any]
CASES = [
    ((32, 32, 8, 8), "haar", 2),  # what SFKD transforms
    ((8, 64, 32, 32), "db4", 2),
    ((4, 64, 56, 56), "bior4.4", 2),
    ((4, 3, 224, 224), "haar", 3),
    ((4, 3, 224, 224), "db8", 3),
    ((1, 1, 1024, 1024), "bior4.4", 4),
]
OURS, COPY = "transpike", "copy (floor)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="times are the least of so many, in turns (default: 5)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch (default: 1, which a busy machine disturbs least)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    gc.freeze()  # what is imported need not be searched for garbage before each run
    results = [
        _measure(torch.randn(shape, device=device), wavelet, level, args.repeats)
        for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]
        for shape, wavelet, level in CASES
    ]
    print(save("wavelet", results))


def _measure(x: Tensor, wavelet: str, level: int, repeats: int) -> dict[str, Any]:
    _check_equal(x, wavelet, level)
    tasks = {
        "transform": _transforms(x, wavelet, level),
        "inverse": _inverses(x, wavelet, level),
        "transform and gradient": _gradients(x, wavelet, level),
    }
    seconds = {task: best_seconds(runs, repeats=repeats, cuda=x.is_cuda) for task, runs in tasks.items()}
    names = dict.fromkeys(name for times in seconds.values() for name in times)
    show(
        f"{wavelet}, {level} levels, {list(x.shape)} on {x.device.type}, {torch.get_num_threads()} threads; "
        "ms, and times ours",
        ["", *tasks],
        [[name, *(_cell(times, name) for times in seconds.values())] for name in names],
    )
    return {
        "shape": list(x.shape),
        "wavelet": wavelet,
        "levels": level,
        "device": x.device.type,
        "seconds": seconds,
    }


def _cell(times: dict[str, float], name: str) -> str:
    return f"{1e3 * times[name]:.2f} ({times[name] / times[OURS]:.2f})" if name in times else ""


def _transforms(x: Tensor, wavelet: str, level: int) -> dict[str, Run]:
    runs: dict[str, Run] = {OURS: partial(wavedec2, x, wavelet, "symmetric", level)}
    if not x.is_cuda:
        maps = x.flatten(0, 1).numpy()
        runs["pywt, looped"] = lambda: [pywt.wavedec2(one, wavelet, "symmetric", level) for one in maps]
        runs["pywt, whole"] = partial(pywt.wavedec2, maps, wavelet, "symmetric", level)
    return runs | _torch_transforms(x, wavelet, level) | {COPY: x.clone}


def _torch_transforms(x: Tensor, wavelet: str, level: int) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    if ptwt := _peer("ptwt"):
        runs["ptwt"] = partial(ptwt.wavedec2, x, wavelet, mode="symmetric", level=level)
    if peer := _peer("pytorch_wavelets"):
        runs["pytorch_wavelets"] = partial(peer.DWTForward(J=level, wave=wavelet, mode="symmetric").to(x.device), x)
    runs["strided convolution (floor)"] = partial(_convolve, x, _kernel(wavelet, "dec", x), level)
    return runs


def _inverses(x: Tensor, wavelet: str, level: int) -> dict[str, Run]:
    coeffs = wavedec2(x, wavelet, "symmetric", level)
    coeffs = [coeffs[0].contiguous(), *(tuple(band.contiguous() for band in bands) for bands in coeffs[1:])]
    runs: dict[str, Run] = {OURS: partial(waverec2, coeffs, wavelet)}
    if not x.is_cuda:
        flat = [coeffs[0].flatten(0, 1).numpy()]
        flat += [tuple(band.flatten(0, 1).numpy() for band in bands) for bands in coeffs[1:]]
        each = [
            [flat[0][i], *(tuple(band[i] for band in bands) for bands in flat[1:])]
            for i in range(x[:, :, 0, 0].numel())
        ]
        runs["pywt, looped"] = lambda: [pywt.waverec2(one, wavelet, "symmetric") for one in each]
        runs["pywt, whole"] = partial(pywt.waverec2, flat, wavelet, "symmetric")
    if ptwt := _peer("ptwt"):
        runs["ptwt"] = partial(ptwt.waverec2, coeffs, wavelet)
    if peer := _peer("pytorch_wavelets"):
        inverse = peer.DWTInverse(wave=wavelet, mode="symmetric").to(x.device)
        forward = peer.DWTForward(J=level, wave=wavelet, mode="symmetric").to(x.device)
        runs["pytorch_wavelets"] = partial(inverse, forward(x))
    kernel = _kernel(wavelet, "rec", x)
    runs["strided convolution (floor)"] = partial(_deconvolve, _convolve(x, kernel, level), kernel)
    return runs | {COPY: x.clone}


def _gradients(x: Tensor, wavelet: str, level: int) -> dict[str, Run]:
    x = x.clone().requires_grad_()
    runs = {OURS: partial(wavedec2, x, wavelet, "symmetric", level)} | _torch_transforms(x, wavelet, level)
    return {name: partial(_gradient, run, x) for name, run in runs.items()}


def _gradient(run: Run, x: Tensor) -> Tensor:
    outputs = _flatten(run())
    return torch.autograd.grad(outputs, x, [torch.ones_like(output) for output in outputs])[0]


def _flatten(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for item in value for tensor in _flatten(item)]


def _kernel(wavelet: str, kind: str, like: Tensor) -> Tensor:
    """The four bands' filters, [4, 1, taps, taps]."""
    one = np.array([getattr(pywt.Wavelet(wavelet), f"{kind}_{band}") for band in ("lo", "hi")])
    return torch.from_numpy(np.einsum("ai,bj->abij", one, one)).to(like).flatten(0, 1).unsqueeze(1)


def _convolve(x: Tensor, kernel: Tensor, level: int) -> list[Tensor]:
    bands, low = [], x.flatten(0, 1).unsqueeze(1)
    for _ in range(level):
        bands.append(F.conv2d(low, kernel, stride=2, padding=kernel.shape[-1] - 2))
        low = bands[-1][:, :1]
    return bands


def _deconvolve(bands: Sequence[Tensor], kernel: Tensor) -> list[Tensor]:
    return [F.conv_transpose2d(band, kernel, stride=2, padding=kernel.shape[-1] - 2) for band in bands]


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _check_equal(x: Tensor, wavelet: str, level: int) -> None:
    expected = pywt.wavedec2(x.cpu().numpy(), wavelet, "symmetric", level)
    found = wavedec2(x, wavelet, "symmetric", level)
    for ours, theirs in zip(_flatten(found), [expected[0], *(b for bands in expected[1:] for b in bands)], strict=True):
        error = np.abs(ours.cpu().numpy() - theirs).max() / np.abs(theirs).max()
        if error > 1e-5:
            raise SystemExit(f"{wavelet}: ours and PyWavelets' differ by {error:.1e}")


if __name__ == "__main__":
    main()
