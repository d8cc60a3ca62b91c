"""``transpike train``: trains a network on a data set and writes a folder that the other commands read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transpike.experiments.learning import Learning, recorded, settled
from transpike.experiments.options import check_resumed, read_record
from transpike.experiments.training import finish, make_student
from transpike.results import Training, copy_results
from transpike.train.processes import first_process
from transpike.train.runs import has_epochs, training_run

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

__all__ = ["Train", "train"]


@dataclass(frozen=True)
class Train(Learning):
    """Train a network on a data set. Without options, train a ResNet-20 on scikit-learn's digits.

    The run's folder receives the weights (weights.safetensors), the description of the network (model.json),
    results.json, curves.csv, TensorBoard events, and checkpoints of the last and the best epoch. `transpike convert`
    takes this folder. The command uses the test images only once, at the end.

    A spiking network sees every image T times, or T frames of events. Its logits are the mean over time. At the end the
    command prints the network's firing rates, operations and energy, and its accuracy at other T.

    Examples:
      transpike train
      transpike train --model sew_resnet19 --network '{"width": 16}' --steps 4 --recipe.loss tet
      transpike train --model spikingformer_2_256 --data cifar10_dvs --steps 10 --split-by time
      transpike train --config configs/small/spiking-mnist.yaml --root ~/data --out runs/spiking
      transpike train --model timm/resnet18 --data folder --root imagenet --machine.precision bf16-mixed
      transpike train --resume runs/spiking
      torchrun --nproc-per-node 4 --no-python transpike train --config configs/bsd/resnets.yaml --model resnet19

    Attributes:
        model: The network: resnet18, resnet19, resnet20, resnet56, resnet8x4, resnet32x4, wrn_16_2, wrn_40_2, vgg5,
            vgg9, vgg11, vgg13, vgg16, vgg8_bn, vgg13_bn, shufflenet_v2, timm/<name>, torchvision/<name>. Spiking
            networks: sew_resnet18, sew_resnet19, spiking_resnet19, spiking_vgg16, spikingformer_4_384, qkformer_4_384,
            ...
        data: The data set: digits, mnist, fashion_mnist, cifar10, cifar100, or folder (root/train/<class>,
            root/val/<class>). Events for spiking networks: nmnist, cifar10_dvs, dvs128_gesture.
        network: Arguments of the network, such as {"width": 8} for a narrow ResNet, {"pool": "max"} for a VGG,
            {"spiking_neuron": "LIFNode", "tau": 2.0} for a spiking network.
    """

    model: str = "resnet20"
    data: str = "digits"

    @property
    def learner(self) -> str:
        return self.model


def train(options: Train, *, watching: Sequence[Callback] = ()) -> Training:
    """Train a network, and write its run's folder.

    Args:
        options: the command's options.
        watching: further callbacks of Lightning.

    Returns:
        The content of results.json: accuracy in [0, 1] on the test images, a row for each epoch, and for a spiking
            network its firing and energy.

    Raises:
        TranspikeError: An option, the data set, the weights or the folder is wrong, or the loss is not finite.
    """
    if options.resume is None:
        chosen = settled(options)
    else:
        check_resumed(options, chosen := read_record(options.resume, "train", Train), options.resume)
    with training_run("train", recorded(chosen), resume=options.resume, out=options.out) as run:
        from transpike.train import Loaders, fit

        sets = chosen.images.load(chosen.frames)
        model = make_student(chosen, sets)
        resume = options.resume is not None and has_epochs(run.folder)
        fitted = fit(model, Loaders.of(sets), chosen.training, folder=run, resume=resume, watching=watching)
        results = finish(chosen, sets, fitted, run)
    if first_process():
        copy_results(results, options.json)
    return results
