"""A part of a network converts, and the rest of it runs on what the spikes say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.conversion import Continued
from transpike.errors import ConversionError

CODE = transpike.CSS(steps=14, silent=2)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3))
        self.cell = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.cell(self.encoder(2 * x).mT)[0]
        return hidden if float(hidden.detach().sum()) > -1e9 else -hidden  # what no trace can follow


def test_the_rest_runs_on_what_the_spikes_say() -> None:
    torch.manual_seed(0)
    net, x = Tagger().eval(), torch.rand(16, 2, 60)
    snn = transpike.convert(net, x, until="encoder", scheme=CODE)
    torch.testing.assert_close(snn(x), net.encoder(2 * x), rtol=0, atol=2e-3)
    whole = Continued(net, snn, "encoder")
    torch.testing.assert_close(whole(x), net(x), rtol=0, atol=2e-3)
    assert not torch.equal(whole(x), net(x)) and "forward" not in vars(net.encoder)


def test_a_module_within_one_may_be_named() -> None:
    net, x = Tagger().eval(), torch.rand(16, 2, 60)
    snn = transpike.convert(net, x, until="encoder.1", scheme=CODE)
    torch.testing.assert_close(snn(x), net.encoder[:2](2 * x), rtol=0, atol=2e-3)


def test_a_long_recurrent_cell_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4, batch_first=True)).eval()
    with pytest.raises(ConversionError) as caught:
        transpike.convert(net, torch.rand(4, 100, 4))
    assert "1: a recurrent cell (lstm) of 100 steps" in str(caught.value) and "until=" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 20


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@pytest.mark.parametrize(
    ("name", "words"),
    [("layr", "has no module 'layr'. Did you mean layer"), ("layer", "more than once"), ("unused", "never")],
)
def test_a_module_that_cannot_be_the_end_is_one_line(name: str, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        transpike.convert(Twice(), torch.rand(8, 4), until=name)


def test_torchscript_converts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu()
            return self.b(y.view(y.size(0), -1))

    net, x = Net().eval(), torch.rand(16, 1, 8, 8)
    want = transpike.convert(net, x, scheme=CODE)(x)
    for script in (torch.jit.trace(net, x[:1]), torch.jit.script(net)):
        torch.testing.assert_close(transpike.convert(script, x, scheme=CODE)(x), want, rtol=0, atol=1e-3)


def test_later_operations_in_place_do_not_change_the_output() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)).eval()
    x = torch.randn(20, 6)
    snn = transpike.convert(model, x, until="0", scheme=CODE)
    torch.testing.assert_close(snn.analog(x), model[0](x))
    assert (snn.analog(x) < 0).any()
