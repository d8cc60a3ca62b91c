"""A face detector of three published networks (MTCNN, Zhang et al. 2016), whose networks may be spiking ones.

The first looks at all places of a pyramid of the image, the second and the third at what those before them propose.
Run by itself, it puts the spiking networks that `real_networks.py` has kept together, on a photograph of a face, crops
of it, those of ImageNet's photographs in which the original networks find faces, another portrait, and mosaics of small
faces. The last two were not looked at before the goal was set:

    python benchmarks/real_faces.py --data data --packages data/packages
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

Net = Callable[[Tensor], Any]
SURE = (0.6, 0.7, 0.7)
"""From which score on a proposal of each network is kept."""


class FaceNet(nn.Module):
    """One of the three: convolutions with PReLU and max-pooling, then heads: boxes, landmarks (the third's), scores."""

    def __init__(self, convolutions: Sequence[tuple[int, int, int]], dense: int, hidden: int, landmarks: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for outputs, kernel, pool in convolutions:
            layers += [nn.Conv2d(channels, outputs, kernel), nn.PReLU(outputs)]
            layers += [nn.MaxPool2d(pool, 2, ceil_mode=True)] if pool else []
            channels = outputs
        layers += [Turned(), nn.Linear(dense, hidden), nn.PReLU(hidden)] if dense else []
        self.trunk = nn.Sequential(*layers)
        heads = [2, 4, 10] if landmarks else [2, 4]
        self.heads = nn.ModuleList(nn.Linear(hidden, n) if dense else nn.Conv2d(hidden, n, 1) for n in heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.trunk(x)
        scores, *others = (head(x) for head in self.heads)
        return *others, scores.softmax(1)


class Turned(nn.Module):
    """The published order of values: by column, row, channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


NETS: dict[str, tuple[list[tuple[int, int, int]], int, int, bool]] = {
    "pnet": ([(10, 3, 2), (16, 3, 0), (32, 3, 0)], 0, 32, False),
    "rnet": ([(28, 3, 3), (48, 3, 3), (64, 2, 0)], 576, 128, False),
    "onet": ([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], 1152, 256, True),
}


def face_net(name: str, weights: dict[str, Tensor]) -> FaceNet:
    """The network of a name; the published weights have the same order."""
    net = FaceNet(*NETS[name])
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net.eval()


def pixels(image: Tensor) -> Tensor:
    """From 0 ... 255 to what the networks take."""
    return (image - 127.5) / 128


@dataclass(frozen=True)
class Detector:
    """Up to three networks in turn."""

    first: Net
    second: Net | None = None
    third: Net | None = None

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """The faces of one image [1, 3, height, width], pixels from 0 to 255: [K, 5], corners and scores."""
        found = self._everywhere(image)
        for net, side, sure in ((self.second, 24, SURE[1]), (self.third, 48, SURE[2])):
            if net is None or not len(found):
                return found
            moves, *_, scores = net(crops(image, found, side))
            found = _kept(found, moves, scores[:, 1], sure)
            found = found[nms(found[:, :4], found[:, 4], 0.7 if side == 24 else 0.5)]
        return found

    def _everywhere(self, image: Tensor) -> Tensor:
        """What the first network finds at all sizes of the image."""
        height, width = image.shape[-2:]
        scale, found = 12 / 20, []
        while min(height, width) * scale >= 12:
            size = int(height * scale + 1), int(width * scale + 1)
            moves, scores = self.first(pixels(nn.functional.interpolate(image, size, mode="area")))
            found.append(_places(moves[0], scores[0, 1], scale))
            scale *= 0.709
        boxes = torch.cat(found)
        boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)]
        return boxes


def _places(moves: Tensor, scores: Tensor, scale: float) -> Tensor:
    """Windows of 12 pixels, 2 apart, whose score is high, moved."""
    y, x = (scores >= SURE[0]).nonzero(as_tuple=True)
    corners = torch.stack([x, y, x, y], 1) * 2 + torch.tensor([0.0, 0.0, 12.0, 12.0])
    boxes = torch.cat([corners / scale, scores[y, x, None]], 1)
    boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.5)] if len(boxes) else boxes
    at = (boxes[:, :2] * scale / 2).round().long()
    return _moved(boxes, moves[:, at[:, 1], at[:, 0]].mT)


def _kept(boxes: Tensor, moves: Tensor, scores: Tensor, sure: float) -> Tensor:
    keep = scores >= sure
    return _moved(torch.cat([boxes[keep, :4], scores[keep, None]], 1), moves[keep])


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
    return torch.cat([boxes[:, :4] + moves * sides, boxes[:, 4:]], 1)


def crops(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The squares around boxes [K, 3, side, side], as far as they lie in the image."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).amax(1, keepdim=True) / 2
    found = []
    for left, top, right, bottom in torch.cat([middle - half, middle + half], 1).round().long().tolist():
        x, y = min(max(left, 0), image.shape[-1] - 1), min(max(top, 0), image.shape[-2] - 1)
        part = image[..., y : max(bottom, y + 1), x : max(right, x + 1)]
        found.append(pixels(nn.functional.interpolate(part, (side, side), mode="area")))
    return torch.cat(found) if found else image.new_zeros(0, 3, side, side)


def proposals(detector: Detector, image: Tensor, side: int) -> Tensor:
    """What the detector's networks propose, as the next one sees it."""
    return crops(image, detector(image), side)


# -- measures: of one network, 1 a sample if all is as it should be ----------------------------------------------------


def moved_alike(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The overlap of each proposal's box as both networks move it; 0 if one keeps it and the other does not."""
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    (a, b), (sure, wanted) = (tuple(x[k] for x in (outputs, targets)) for k in (0, -1))
    a, b = whole + a, whole + b
    both = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).clamp_min(0).prod(1) for x in (a, b)]
    same = (sure[:, 1] >= SURE[1]) == (wanted[:, 1] >= SURE[1])
    return both / (areas[0] + areas[1] - both) * same


def found_alike(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The same of the first network, over all places of a window."""
    outputs, targets = ([part.flatten(2) for part in each] for each in (outputs, targets))
    places = [moved_alike([p[..., k] for p in outputs], [p[..., k] for p in targets])
              for k in range(outputs[0].shape[2])]  # fmt: skip
    return torch.stack(places).mean(0)


# -- all three ---------------------------------------------------------------------------------------------------------


def main() -> None:
    from real_network_inputs import astronaut, mosaics, photographs, portrait
    from real_network_sources import NETWORKS
    from timing import RESULTS, save

    from transpike.conversion import load
    from transpike.metrics.tasks import matched_boxes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--packages", type=Path, default=Path("data/packages"))
    parser.add_argument("--codes", nargs="+", default=["default", "chosen"])
    parser.add_argument("--images", type=int, default=60, help="photographs that are looked through for faces")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names, rows = ("P-Net", "R-Net", "O-Net"), {}
    ann = Detector(*(NETWORKS[name].load(NETWORKS[name].file(options.packages)) for name in names))
    face = astronaut(options.packages)
    corners = [(0, 0), (60, 0), (100, 20), (130, 0), (90, 10)]
    images = {"face": [face], "crops of it": [face[..., y : y + 240, x : x + 240] for x, y in corners]}
    others = 255 * photographs(options.data, (0.0,) * 3, (1.0,) * 3)[1][: options.images]
    images["photographs"] = [x[None] for x in others if len(ann(x[None]))]
    images |= {"portrait": [portrait()], "mosaics": mosaics(options.packages)}
    for code in options.codes:
        snn = Detector(*(load(RESULTS / "real_networks" / f"{name}, {code}") for name in names))
        rows[code] = {}
        for kind, some in images.items():
            pairs = [(snn(image), ann(image)) for image in some]
            scores = torch.stack([matched_boxes([a], [b])[0] for a, b in pairs])
            counts = {"images": len(some), "faces": sum(len(b) for _, b in pairs)}
            rows[code][kind] = counts | {"iou": float(scores.mean()), "least": float(scores.min())}
            print(code, kind, rows[code][kind], flush=True)
    print(save("real_faces", rows))


if __name__ == "__main__":
    main()
