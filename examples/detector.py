"""A detector in an ONNX file: convert it by a goal of boxes, run it at another size, write the report."""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import transpike
from transpike.measure.conversion import compare
from transpike.metrics.tasks import matched_boxes
from transpike.report import write_report
from transpike.results import Conversion, start_run

torch.manual_seed(0)


def scenes(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Noise with bright squares of 12 pixels, and the map of their middles at a quarter of the size."""
    images, maps = 0.3 * torch.rand(count, 1, side, side), torch.zeros(count, 1, side // 4, side // 4)
    for image, middle in zip(images, maps, strict=True):
        for _ in range(3):
            y, x = (4 * torch.randint(1, side // 4 - 3, (2,))).tolist()
            image[0, y : y + 12, x : x + 12] += 0.6
            middle[0, y // 4 + 1, x // 4 + 1] = 1
    return images, maps


def detector() -> nn.Module:
    """What somebody else trained."""
    layers = [nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(120):
        images, maps = scenes(16, 64)
        loss = F.binary_cross_entropy_with_logits(net(images), maps, pos_weight=torch.tensor(20.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def boxes(maps: Tensor) -> list[Tensor]:
    """The squares around the highest values of each map."""
    peaks = (maps > 2) & (maps == F.max_pool2d(maps, 3, 1, 1))
    middles = [4.0 * one.nonzero().flip(1) + 2 for one in peaks[:, 0]]
    return [torch.cat([middle - 6, middle + 6], 1) for middle in middles]


def same_boxes(outputs: Tensor, targets: Tensor) -> Tensor:
    return matched_boxes(boxes(outputs), boxes(targets))


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "detector.onnx"
    torch.onnx.export(
        detector(), (scenes(2, 64)[0],), str(file), dynamo=False, dynamic_axes={"x": [0]}, input_names=["x"]
    )

    net = transpike.create_model(file)
    goal = {"metric": same_boxes, "least": 97}
    snn = transpike.convert(net, scenes(128, 64)[0], scheme="auto", goal=goal, limits={"payload_bits": 3})
    found = compare(snn, scenes(16, 128)[0].split(8), metric={"boxes": same_boxes})  # four times as large
    print(
        f"{snn.scheme.label}, T={snn.steps}: {found.row.measures['boxes']:.1%} of the boxes, {found.row.latency} steps"
    )
    with start_run("evaluate", {}, out=Path(folder) / "run") as run:
        run.write(Conversion(model="detector", dataset="scenes", images=found.images, ann=found.ann, rows=(found.row,)))
    write_report([run.folder], run.folder / "report.html")
    assert found.row.measures["boxes"] > 0.9 and (run.folder / "report.html").exists()
