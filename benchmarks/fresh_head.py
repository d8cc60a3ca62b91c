"""Weights of a trained network with a new last layer, for another number of classes: what a teacher is tuned from.

    python benchmarks/fresh_head.py timm/tf_efficientnet_lite0 data/networks/efficientnet-lite0.safetensors 100
    python benchmarks/fresh_head.py timm/vit_small_patch14_dinov2 data/networks/vit-small-dinov2.safetensors 20

Layers whose shape differs or that the file does not have get random values with seed 0. The result lies beside the
file, with the number of classes in its name: data/networks/efficientnet-lite0-100.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from transpike.models import create_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="its name")
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    parser.add_argument("classes", type=int, help="how many the new last layer has")
    args = parser.parse_args()
    torch.manual_seed(0)
    given = {"dynamic_img_size": True} if "vit_" in args.network else {}
    state = create_model(args.network, num_classes=args.classes, **given).state_dict()
    trained = load_file(args.weights)
    fresh = [name for name, values in state.items() if name not in trained or trained[name].shape != values.shape]
    state |= {name: trained[name].to(values.dtype) for name, values in state.items() if name not in fresh}
    out = args.weights.with_name(f"{args.weights.stem}-{args.classes}.safetensors")
    save_file({name: values.contiguous() for name, values in state.items()}, out)
    print(f"{out}: new are {', '.join(fresh)}")


if __name__ == "__main__":
    main()
