"""A real ImageNet network, converted: EfficientNet-Lite0 with its published weights, on ImageNet validation images.

    python benchmarks/imagenet.py --root data/imagenet-500 --weights data/networks/efficientnet-lite0.safetensors

One amplitude a layer and one silence for all; `trained.py --defaults` has what is chosen by itself. Calibrates on the
folder's training images and measures accuracy, latency and energy for several codes at several T. Killed and started
again, it continues with the next T. Results and networks: benchmarks/results/imagenet-*.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from transpike.coding.css import CSS
from transpike.data import Loading
from transpike.experiments.convert import Convert, convert
from transpike.report import write_report

LAYER = CSS(silent=2, amplitude="layer")
CODES = {
    "silent2": (LAYER, [4, 6, 8, 12, 16]),
    "silent1": (replace(LAYER, silent=1), [8, 12]),
    "silent3": (replace(LAYER, silent=3), [6, 8]),
    "levels124-silent1": (replace(LAYER, silent=1, levels=(1, 2, 4)), [6, 8]),
    "integers64-radix4": (replace(LAYER, beta=4.0, silent=0, levels=tuple(range(1, 65))), [4]),
    "levels1248": (replace(LAYER, silent=0, levels=(1, 2, 4, 8)), [8, 12]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/imagenet-500"))
    parser.add_argument("--weights", type=Path, default=Path("data/networks/efficientnet-lite0.safetensors"))
    parser.add_argument("--codes", nargs="+", choices=CODES, default=list(CODES))
    parser.add_argument("--steps", nargs="+", type=int, help="instead of each code's own")
    parser.add_argument("--images", type=int, help="only so many of the validation images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    # The published preprocessing is (x - 127) / 128; the images are cropped to 224 pixels already.
    loading = Loading(
        batch_size=20, validation=0.0, size=224, crop=1.0, outputs=1000, test_images=args.images,
        mean=(127 / 255,) * 3, std=(128 / 255,) * 3,
    )  # fmt: skip
    folders = []
    for name in args.codes:
        scheme, steps = CODES[name]
        folder = args.out / f"imagenet-{name}"
        folders.append(folder)
        done = (
            {row["steps"] for row in json.loads((folder / "results.json").read_text())["rows"]}
            if _began(folder)
            else set()
        )
        wanted = sorted(done | set(args.steps or steps))
        options = Convert(
            "timm/tf_efficientnet_lite0", "folder", root=args.root, weights=args.weights, loading=loading, steps=wanted,
            scheme=replace(scheme, steps=wanted[0]), calibration=260, device=args.device, out=folder,
        )  # fmt: skip
        convert(replace(options, out=None, resume=folder) if (folder / "run.json").exists() else options)
    print(f"All codes on one page: {write_report(folders, args.out / 'imagenet.html')}")


def _began(folder: Path) -> bool:
    return (folder / "results.json").exists()


if __name__ == "__main__":
    main()
