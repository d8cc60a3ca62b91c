r"""The cost of a distillation step: the student alone (the floor), with its teacher, with logits KD, with BSD, rivals.

    python benchmarks/distillation.py
    python benchmarks/distillation.py --student spikingformer_4_384 --device cuda --precision bfloat16
    python benchmarks/distillation.py --student timm/resnet18 --teacher timm/swin_tiny_patch4_window7_224 --steps null \
        --size 224 --batch 8 --methods '["sfkd"]'

The student is trained as `transpike distill` trains it, by SGD, by default on images of 32 pixels with a ResNet-19 as
teacher. "with teacher" runs the teacher beside the student and uses nothing of it: below that no method can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jsonargparse import auto_cli
from timing import best_seconds, peak_mebibytes, save, show
from torch import Tensor, nn

from transpike.distill import create_method, default_taps, find_taps, match_taps, method_needs, pair_taps
from transpike.models import create_model
from transpike.neurons import reset_net
from transpike.train import TrainOptions
from transpike.train.distill import Distiller
from transpike.train.teacher import Teacher

ALONE, TAUGHT = "student alone (floor)", "with teacher"


class _Silent(nn.Module):
    def forward(self, *said: object) -> dict[str, Tensor]:
        return {}


def _distiller(method: str, student: nn.Module, teacher: nn.Module, images: Tensor, steps: int | None) -> Distiller:
    options = TrainOptions(steps=steps)
    shown = images[:1].expand(steps, 1, *images.shape[1:]) if steps else images[:1]
    side = (images.shape[-2], images.shape[-1])
    own = find_taps(student, default_taps(student), lambda: student(shown), samples=1, image=side, steps=steps)
    theirs = find_taps(teacher, default_taps(teacher), lambda: teacher(images[:1]), samples=1, image=side)
    reset_net(student)
    stages = pair_taps(own, theirs, match_taps(own, theirs))
    if method in (ALONE, TAUGHT):
        return Distiller(student, Teacher(teacher, taps={}), _Silent(), taps={}, options=options)
    if "features" not in method_needs(method):
        own, theirs, stages = {}, {}, ()
    held = Teacher(teacher, taps={stage.teacher: theirs[stage.teacher] for stage in stages})
    compare = create_method(method, stages, {}, classes=10).to(images.device)
    return Distiller(student, held, compare, taps=own, options=options)


def _step(method: str, distiller: Distiller, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Callable[[], float]:
    optimizer = torch.optim.SGD(distiller.trained.parameters(), lr=1e-4, momentum=0.9)
    distiller.recorded.open()

    def step() -> float:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            outputs = distiller.outputs(images)
            task = super(Distiller, distiller) if method == ALONE else distiller
            loss = torch.stack(list(task.terms(outputs, labels, images).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main(
    student: str = "sew_resnet19",
    teacher: str = "resnet19",
    methods: list[str] = ["kd", "bsd"],  # noqa: B006  (jsonargparse shows it)
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    batch: int = 32,
    size: int = 32,
    steps: int | None = 4,
    repeats: int = 5,
) -> None:
    """Seconds and peak memory of a step with each method; writes benchmarks/results/distillation-....json."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, size, size, device=device), torch.randint(10, (batch,), device=device)
    net, other = (create_model(name, num_classes=10).to(device) for name in (student, teacher))
    distillers = {
        method: _distiller(method, net, other, images, steps)
        for method in dict.fromkeys((ALONE, TAUGHT, "kd", *methods))
    }
    runs = {m: _step(m, distiller, images, labels, getattr(torch, precision)) for m, distiller in distillers.items()}
    seconds = best_seconds(runs, repeats=repeats, cuda=device == "cuda")
    memory = {method: peak_mebibytes(run, cuda=device == "cuda") for method, run in runs.items()}
    adapters = {m: sum(p.numel() for p in distiller.method.parameters()) for m, distiller in distillers.items()}
    show(
        f"{student} by {teacher}, a training step, T = {steps}, batch {batch}, {precision} on {device}",
        ["", "s", "of the floor", "of a KD step", "peak MiB", "adapters' parameters"],
        [
            [method, f"{s:.3f}", f"{s / seconds[ALONE]:.3f}x", f"{s / seconds['kd']:.3f}x", f"{memory[method]:.0f}",
             f"{adapters[method]:,}"]
            for method, s in seconds.items()
        ],
    )  # fmt: skip
    results = {m: {"step_s": s, "peak_mib": memory[m], "adapters": adapters[m]} for m, s in seconds.items()}
    print(
        save(
            f"distillation-{student}-{teacher}-{size}px-{device}-{precision}-T{steps}-N{batch}".replace("/", "_"),
            results,
        )
    )


if __name__ == "__main__":
    auto_cli(main)
