from pathlib import Path

import pytest

from transpike.errors import ModelError
from transpike.experiments.convert import load_inputs
from transpike.experiments.source import Data, Source


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("runs/typo", r"no network 'runs/typo', nor a folder of that name\. Known: "),
        ("resnet21", r"no network 'resnet21', .*\. Did you mean resnet20"),
        ("timm/resnet10x", r"Did you mean .*timm/resnet10t"),
        ("resnet20", "resnet20: give --weights"),
        ("timm/resnet18.a1_in1k", "give --weights"),
    ],
)
def test_a_name_without_weights_is_told_what_it_lacks(
    model: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=told):
        load_inputs(Source(model), Data("digits", tmp_path))
