"""CSS against SpikingJelly's recipes for transformers, on one trained vision transformer and the same images.

    python benchmarks/transformers.py --data data --networks data/networks

For each: the error of the logits, the images with the same prediction, the time. The recipes take attention as
`nn.MultiheadAttention` with `need_weights=False`, and the second one no constants outside of layers. So they are given
torchvision's VisionTransformer with the same weights (equal to 1e-5, which is checked), the second one its blocks and
head alone, behind the embedding of the network itself. What is sent differs: CSS sends digits. The "equivalent" recipes
send real numbers: the first step carries the whole value, exactly, and those after it nothing. STA's spiking encoder
sends counts of spikes, without a bound, behind norms, activations and attention, and real numbers elsewhere.
Results: benchmarks/results/transformers.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn import Converter, STATransformerRecipe, TransformerTDEquivalentRecipe
from timing import best_seconds, save, show
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from trained import LEVELS, PART, TERNARY
from trained_networks import load

from transpike.coding import CSS
from transpike.conversion import prepare

INTEGERS = CSS(steps=4, beta=4.0, silent=0, levels=tuple(range(1, 17)), amplitude="layer")
OURS = (LEVELS, TERNARY, replace(LEVELS, steps=12), INTEGERS)
STA = ((4, 0.5), (8, 0.5), (16, 0.5), (8, 1.0))  # T, and the scale of thresholds: that of its example, its default

Run = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the images (default: data)")
    parser.add_argument("--networks", type=Path, default=Path("data/networks"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=200, help="how many test images (default: 200)")
    parser.add_argument(
        "--calibration", type=int, default=512, help="training images for all converters (default: 512)"
    )
    parser.add_argument("--batch", type=int, default=10, help="images in what is timed (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="times are the least of so many, in turns (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    trained = load("vit", data=options.data, networks=options.networks, images=options.images)
    calibration = trained.calibration[: options.calibration]
    runs = _ours(trained.ann, calibration) | _theirs(trained.ann, calibration)
    images, _ = trained.test
    wanted = trained.ann(images)
    rows = [_row(name, run, images, wanted) for name, run in runs.items()]
    batch = images[: options.batch]
    timed: dict[str, Callable[[], object]] = {"ANN": lambda: trained.ann(batch)}
    timed |= {name: lambda run=run: run(batch) for name, run in runs.items()}  # type: ignore[misc]
    seconds = best_seconds(timed, repeats=options.repeats)
    for row in rows:
        row |= {"seconds": seconds[row["name"]], "forwards": seconds[row["name"]] / seconds["ANN"]}
    show(
        f"vit, {len(images)} images of CIFAR-10, SpikingJelly {version('spikingjelly')}; times of {len(batch)} images",
        ["", "same %", "error %", "ms", "forward passes"],
        [
            [
                row["name"], f"{100 * row['same']:.2f}", f"{100 * row['error']:.2g}",
                f"{1e3 * row['seconds']:.0f}", f"{row['forwards']:.1f}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    print(save("transformers", {"images": len(images), "batch": len(batch), "ann": seconds["ANN"], "rows": rows}))


def _row(name: str, run: Run, images: Tensor, wanted: Tensor) -> dict[str, Any]:
    found = torch.cat([run(part) for part in images.split(PART)])
    error, norm = ((z - z.mean(1, keepdim=True)).norm() for z in (found - wanted, wanted))
    row = {
        "name": name,
        "same": float((found.argmax(1) == wanted.argmax(1)).double().mean()),
        "error": float(error / norm),
    }
    print(row, flush=True)
    return row


def _ours(ann: nn.Module, calibration: Tensor) -> dict[str, Run]:
    prepared, runs = prepare(ann, calibration), {}
    for scheme in OURS:
        snn = prepared.convert(scheme)
        runs[f"CSS {scheme.label}, T = {snn.steps}, latency {snn.latency}"] = snn
    return runs


def _theirs(ann: nn.Module, calibration: Tensor) -> dict[str, Run]:
    twin = _twin(ann)
    if (off := float((twin(calibration[:PART]) - ann(calibration[:PART])).abs().max())) > 1e-5:
        raise SystemExit(f"transformers.py: torchvision's network with the same weights differs by {off:.1e}")
    runs: dict[str, Run] = {}
    batches = list(calibration.split(64))
    for steps, scale in STA:
        recipe = STATransformerRecipe(batches, time_steps=steps, mode="spiking_encoder", threshold_scale=scale)
        runs[f"STA, spiking encoder, thresholds x {scale:g}, T = {steps}"] = _peer(recipe, twin, steps)
    runs["STA, equivalent, T = 8"] = _peer(STATransformerRecipe(time_steps=8), twin, 8)
    body = _peer(TransformerTDEquivalentRecipe(time_steps=8), _Body(twin), 8)
    runs["TransformerTDEquivalent, T = 8"] = lambda x: body(_embedded(twin, x))
    return runs


def _peer(recipe: Any, ann: nn.Module, steps: int) -> Run:
    """A recipe's network on images: as in SpikingJelly's example, all enters at the first step; outputs are summed."""
    peer = Converter(recipe).convert(ann).eval()
    functional.set_step_mode(peer, "m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(peer)
        sequence = torch.zeros(steps, *x.shape)
        sequence[0] = x
        total: Tensor = peer(sequence).sum(0)
        return total

    return run


# -- the same network in torchvision's modules -------------------------------------------------------------------------

_NAMES = {
    "norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3", "attn.proj": "self_attention.out_proj",
}  # fmt: skip


def _twin(ann: nn.Module) -> VisionTransformer:
    given, depth = ann.state_dict(), len(ann.blocks)  # type: ignore[arg-type]
    state = {"class_token": given["cls_token"], "encoder.pos_embedding": given["pos_embed"]}
    for kind in ("weight", "bias"):
        state[f"conv_proj.{kind}"] = given[f"patch_embed.proj.{kind}"]
        state[f"encoder.ln.{kind}"], state[f"heads.head.{kind}"] = given[f"norm.{kind}"], given[f"head.{kind}"]
        for k in range(depth):
            block, own = f"blocks.{k}.", f"encoder.layers.encoder_layer_{k}."
            state |= {f"{own}{new}.{kind}": given[f"{block}{old}.{kind}"] for old, new in _NAMES.items()}
            state[f"{own}self_attention.in_proj_{kind}"] = given[f"{block}attn.qkv.{kind}"]
    width, heads = given["pos_embed"].shape[-1], ann.blocks[0].attn.num_heads  # type: ignore[index, union-attr]
    twin = VisionTransformer(32, 4, depth, heads, width, 4 * width, num_classes=len(given["head.bias"]))
    twin.load_state_dict(state)
    return twin.eval()


def _embedded(twin: VisionTransformer, x: Tensor) -> Tensor:
    """Patches and class token with their positions."""
    tokens = twin._process_input(x)
    return torch.cat([twin.class_token.expand(len(x), -1, -1), tokens], 1) + twin.encoder.pos_embedding


class _Body(nn.Module):
    """What follows the embedding."""

    def __init__(self, twin: VisionTransformer) -> None:
        super().__init__()
        self.layers, self.norm, self.head = twin.encoder.layers, twin.encoder.ln, twin.heads

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(self.layers(x))[:, 0])


if __name__ == "__main__":
    main()
