"""DCT input coding: the encoder, a loop over blocks with SciPy; as floor one convolution of the same output size.

    python benchmarks/encoding.py
    python benchmarks/encoding.py --images 64 --stride 4 --threads 2

Images [N, C, S, S] become spikes [T, N, C, H', W']. The loop transforms one block at a time and lets its neurons fire
step by step in NumPy; as it is slow, it is timed on fewer images, `--loop-images`, and its time told for all of them.
The other encoders stand beside it on the same images; they keep the images' size, so that they fire fewer neurons.
Results: benchmarks/results/encoding.json.
"""
# quick

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy import fft
from timing import Run, best_seconds, save, show
from torch import Tensor

from transpike.coding import BurstEncoder, DCTEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.spectral.cosine import block_dct, zigzag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="N (default: 32)")
    parser.add_argument("--loop-images", type=int, default=1, help="images for the SciPy loop (default: 1)")
    parser.add_argument("--channels", type=int, default=3, help="C (default: 3)")
    parser.add_argument("--size", type=int, default=32, help="S (default: 32)")
    parser.add_argument("--block", type=int, default=4, help="side of a block (default: 4)")
    parser.add_argument("--stride", type=int, default=2, help="from block to block (default: 2)")
    parser.add_argument("--steps", type=int, default=48, help="T (default: 48)")
    parser.add_argument("--repeats", type=int, default=5, help="times are the least of so many, in turns (default: 5)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch (default: 1, which a busy machine disturbs least)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # Brownian sheets: most of the energy at low frequencies, as in photographs; pixels in [0, 1] for the others.
    images = torch.randn(args.images, args.channels, args.size, args.size).cumsum(-1).cumsum(-2).div(8).tanh()
    pixels = (images + 1) / 2
    encoder = DCTEncoder(block=args.block, stride=args.stride, steps=args.steps).fit(images)
    few = images[: args.loop_images]
    spikes = encoder(images)
    _check_equal(spikes[:, : len(few)], encode_by_blocks(encoder, few))
    kernel = torch.randn(args.channels, args.channels, 3, 3)
    ones = spikes.flatten(0, 1)
    runs: dict[str, Run] = {
        "DCTEncoder": partial(encoder, images),
        "SciPy and NumPy, block by block": partial(encode_by_blocks, encoder, few),
        "3x3 convolution, same output (floor)": partial(F.conv2d, ones, kernel, padding=1),
        "zeros of the same output": partial(torch.zeros_like, spikes),
        "transform alone: block_dct": partial(block_dct, images, block=args.block, stride=args.stride),
        "transform alone: SciPy, block by block": partial(transform_by_blocks, encoder, few),
        **{
            f"{code.__name__}, of the images' size": partial(code(steps=args.steps), pixels)
            for code in (PoissonEncoder, LatencyEncoder, PhaseEncoder, BurstEncoder)
        },
    }
    seconds = best_seconds(runs, repeats=args.repeats)
    for name in seconds:
        if "block by block" in name:
            seconds[name] *= len(images) / len(few)
    floor = seconds["3x3 convolution, same output (floor)"]
    loop, ours = seconds["SciPy and NumPy, block by block"], seconds["DCTEncoder"]
    alone = seconds["transform alone: SciPy, block by block"] / seconds["transform alone: block_dct"]
    show(
        f"Encoding {list(images.shape)} to {list(spikes.shape)}, {torch.get_num_threads()} threads",
        ["", "ms", "images/s", "times the floor"],
        [[name, f"{1e3 * t:.2f}", f"{len(images) / t:.0f}", f"{t / floor:.2f}"] for name, t in seconds.items()],
    )
    print(f"The encoder is {loop / ours:.0f} times as fast as the loop over blocks, the transform alone {alone:.0f}.")
    shapes = {"images": list(images.shape), "spikes": list(spikes.shape), "loop_images": len(few)}
    print(save("encoding", {**shapes, "seconds": seconds, "speedup": loop / ours, "transform_speedup": alone}))


def transform_by_blocks(encoder: DCTEncoder, images: Tensor) -> np.ndarray:
    """`scipy.fft.dctn` of every block, [N, C, rows, columns, block, block]."""
    side, stride = encoder.block, encoder.stride
    patches = _padded(encoder, images)
    rows, columns = (n // side for n in encoder.output_size((images.shape[2], images.shape[3])))
    out = np.empty((*images.shape[:2], rows, columns, side, side), dtype=np.float32)
    for n, c, row, column in np.ndindex(*out.shape[:4]):
        top, left = row * stride, column * stride
        out[n, c, row, column] = fft.dctn(patches[n, c, top : top + side, left : left + side], norm="ortho")
    return out


def encode_by_blocks(encoder: DCTEncoder, images: Tensor) -> np.ndarray:
    """The whole encoder, each block for itself: transform, show one frequency a step, integrate, fire."""
    low, high = encoder.thresholds.tolist()
    side = encoder.block
    total = side * side
    where = tuple(np.array(zigzag(side)).T)
    coefficients = transform_by_blocks(encoder, images)
    size = encoder.output_size((images.shape[2], images.shape[3]))
    out = np.empty((encoder.steps, *images.shape[:2], *size), dtype=np.float32)
    for n, c, row, column in np.ndindex(*coefficients.shape[:4]):
        single = np.zeros((total, side, side), dtype=np.float32)
        single[np.arange(total), *where] = coefficients[n, c, row, column][where]
        shown = fft.idctn(single, axes=(-2, -1), norm="ortho")
        membrane = np.zeros((side, side), dtype=np.float32)
        place = out[:, n, c, row * side : (row + 1) * side, column * side : (column + 1) * side]
        for t, k in enumerate(encoder.schedule):
            membrane += shown[k]
            up, down = membrane > high, membrane < low
            membrane -= high * up + low * down
            place[t] = up.astype(np.float32) - down
    return out


def _padded(encoder: DCTEncoder, images: Tensor) -> np.ndarray:
    side, stride = encoder.block, encoder.stride
    missing = [
        (n // side - 1) * stride + side - m
        for n, m in zip(encoder.output_size((images.shape[2], images.shape[3])), images.shape[2:], strict=True)
    ]
    return np.pad(images.numpy(), ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")


def _check_equal(ours: Tensor, loops: np.ndarray) -> None:
    # The loop sums in float32, so that a membrane at its threshold may fall to the other side.
    differing = float((ours.numpy() != loops).mean())
    if differing > 1e-3:
        raise SystemExit(f"the encoder and the loop differ in {differing:.2%} of the spikes")


if __name__ == "__main__":
    main()
