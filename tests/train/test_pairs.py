"""Pairs of unlike networks: every method trains a CNN, a transformer and an MLP, or says why it cannot."""

from dataclasses import replace

import pytest
import torch
from timm.models import MlpMixer, SwinTransformer, VisionTransformer
from torch.utils.data import DataLoader, TensorDataset

from transpike.distill import METHODS, method_needs
from transpike.errors import ModelError
from transpike.models import create_model
from transpike.train import Loaders
from transpike.train.distill import distill

from .small import PLAIN

SHAPE = {"img_size": 16, "patch_size": 2, "embed_dim": 16, "num_classes": 3}
NETWORKS = {
    "cnn": lambda: create_model("resnet8x4", width=4, num_classes=3),
    "vit": lambda: VisionTransformer(**SHAPE, depth=8, num_heads=2),
    "swin": lambda: SwinTransformer(**SHAPE, window_size=4, depths=(1, 1), num_heads=(1, 2)),
    "mlp": lambda: MlpMixer(**SHAPE, num_blocks=4),
}
# Teacher and student, and which of the student's taps learn from which of the teacher's.
PAIRS = {
    ("vit", "cnn"): {"layers.0": "blocks.2", "layers.1": "blocks.4", "layers.2": "blocks.7"},
    ("cnn", "mlp"): {"blocks.0": "layers.0", "blocks.1": "layers.0", "blocks.2": "layers.1", "blocks.3": "layers.2"},
    ("swin", "vit"): {"blocks.1": "layers.0", "blocks.3": "layers.0", "blocks.5": "layers.0", "blocks.7": "layers.1"},
}
OF_STEPS = [name for name in METHODS if "time" in method_needs(name)]
RUNS = [(pair, method) for pair in list(PAIRS)[:2] for method in METHODS if method not in OF_STEPS]
RUNS += [(("swin", "vit"), method) for method in ("sfkd", "ofa")]


def network(kind, seed):
    torch.manual_seed(seed)
    return NETWORKS[kind]()


def learn(pair, method, folder):
    torch.manual_seed(0)
    images = DataLoader(TensorDataset(torch.randn(16, 3, 16, 16), torch.arange(16) % 3), batch_size=8)
    teacher, student = (network(kind, seed) for seed, kind in enumerate(pair))
    before = {name: value.clone() for name, value in student.named_parameters()}
    fitted = distill(student, teacher, Loaders(images, None), replace(PLAIN, epochs=1), folder=folder, method=method)
    return fitted, before


@pytest.mark.filterwarnings("ignore:.*outweighs the task loss")
@pytest.mark.parametrize("pair, method", RUNS, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_every_method_takes_two_steps(pair, method, tmp_path):
    fitted, before = learn(pair, method, tmp_path)
    expected = PAIRS[pair] if "features" in method_needs(method) else {}
    assert {stage.student: stage.teacher for stage in fitted.stages} == expected
    told = {name: value for name, value in fitted.first_terms.items() if name != "srd_residual"}
    assert told.keys() > {"cross_entropy"} and all(0 < abs(value) < float("inf") for value in told.values())
    for module in (fitted.model, fitted.method):
        assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in fitted.model.named_parameters())


@pytest.mark.parametrize("method", OF_STEPS)
def test_methods_that_compare_time_steps_say_that_there_are_none(method, tmp_path):
    with pytest.raises(ModelError, match="this method compares time steps: it needs a student that gives"):
        learn(("vit", "cnn"), method, tmp_path)


def test_exits_answer_for_the_classes_that_there_are(tmp_path):
    fitted, _ = learn(("vit", "cnn"), "ofa", tmp_path)
    assert [leave[-1].out_features for leave in fitted.method.exits] == [3, 3, 3]
