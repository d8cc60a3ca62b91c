"""The page of runs behind an input encoder."""

from __future__ import annotations

from typing import Any

import pytest

from transpike.errors import DataError
from transpike.report.encodings import compare_encodings, encoded_runs
from transpike.report.parts import Group, Section

from .samples import PNG, make_spiking, parsed
from .test_page import Page, page_of


def make_encoded(
    *, steps: int = 4, tuned: bool = True, enlarged: bool = True, poolings: int = 4, **settings: Any
) -> dict[str, Any]:
    """A run behind a DCT encoder, whose input is 60 x 60 for images of 32 x 32 where it is enlarged."""
    result = make_spiking() | {"model": "spiking_vgg9", "dataset": "cifar10"}
    if not tuned:
        trained = ("epochs", "weights_of_epoch", "validation_accuracy")
        result = {name: value for name, value in result.items() if name not in trained} | {"kind": "evaluation"}
    work = {"ann_image": 1e6, "ann": 3.5e6} if enlarged else {"ann": 1e6}
    none = {"macs": 0, "accumulates": 0, "multiplications": 0, "shifts": 0}
    rows = [
        *(none | {"part": part, "macs": macs, "energy_uj": 4.6e-6 * macs} for part, macs in work.items()),
        none | {"part": "synapses", "accumulates": 2e6, "energy_uj": 1.8},
        none | {"part": "neurons", "accumulates": 3e5, "multiplications": 1e5, "energy_uj": 0.64},
        none | {"part": "encoder", "macs": 5e4, "accumulates": 1e5, "energy_uj": 0.32},
        none | {"part": "spiking", "macs": 5e4, "accumulates": 2.4e6, "multiplications": 1e5, "energy_uj": 2.76},
    ]
    scheme = {"name": "dct", "steps": steps, "order": "cyclic", "frequencies": None, **settings}
    words = {
        "steps": f"T = {steps}",
        "order": scheme["order"],
        "frequencies": f"{settings.get('frequencies') or 'all'} frequencies",
    }
    shown = sorted({1, 2, steps})
    side = 60 if enlarged else 32
    return result | {
        "spiking": result["spiking"] | {"steps": steps},
        "accuracy_after": [0.5 + 0.1 * step for step in range(steps)],
        "encoding": {
            "scheme": scheme, "words": words,
            "spikes": 100.0, "steps": shown, "error": [0.3, 0.2, 0.1][: len(shown)],
            "images": [{"label": label, "png": PNG, "rebuilt": [PNG] * len(shown)} for label in ("frog", "ship")],
        },
        "operations": {
            "image": [3, 32, 32], "input": [3, side, side], "poolings": poolings, "steps": steps, "input_rate": 0.25,
            "rows": rows,
        },
        "stages": {"ann": {"model": "vgg9", "accuracy": 0.92, "loss": 0.2},
                   **({"balanced": {"model": "spiking_vgg9", "accuracy": 0.875, "loss": 0.3}} if tuned else {})},
    }  # fmt: skip


def compared(*results: dict[str, Any]) -> Section:
    return compare_encodings(encoded_runs([parsed(result) for result in results]))


def test_a_run_is_drawn() -> None:
    text = page_of(make_encoded())
    page = Page(text)
    assert page.text("h3")[:2] == ["What the encoder shows: dct, T = 4", "Operations and energy for one image"]
    error, steps, rebuilt, energy = page.drawings()[:4]
    assert "error: 0.3 at step 1, 0.1 at step 4." in error
    assert "read out before T = 4: 50 at step 1, 80 at step 4. encoded in T steps: 91 at step 1" in steps
    assert rebuilt == "spiking_vgg9 on cifar10: test images frog, ship rebuilt after 1, 2, 4 steps."
    assert "artificial, 32 × 32: 4.600 µJ. artificial, 60 × 60: 16.100 µJ, 3.50 ×. spiking, T = 4: 2.760" in energy
    assert text.count("data:image/png;base64") == 2 * 4


def test_operations_are_compared_with_the_network_for_the_image_itself() -> None:
    page = Page(page_of(make_encoded()))
    told = " ".join(page.text("p"))
    assert "an image of 32 × 32 out as 60 × 60, 3.52 times as large. That is 3.50 times the 1.00 M" in told
    assert "synapses make 2.00 M additions" in told and "this rate is 0.250" in told
    assert ["artificial network", "3.50 M", *"–––", "16.100", "3.50 ×"] in page.rows
    assert ["spiking network: neurons", "–", "300,000", "100,000", "–", "0.640", "0.14 ×"] in page.rows
    assert ["spiking network: all", "50,000", "2.40 M", "100,000", "–", "2.760", "0.60 ×"] in page.rows
    assert "0.60 × that of an ANN at 32 × 32" in page.text("dd")
    alone = " ".join(Page(page_of(make_encoded(enlarged=False))).text("p"))
    assert "counts 1.00 M multiply-accumulates for the artificial network. In 4 steps" in alone


@pytest.mark.parametrize(("poolings", "said"), [(0, False), (2, False), (3, True)])
def test_poolings_are_told_of_where_there_are_some_that_round(poolings: int, said: bool) -> None:
    """Of 60 pixels the third pooling leaves one out."""
    told = " ".join(Page(page_of(make_encoded(poolings=poolings))).text("p"))
    assert ("for the image itself, whose poolings round otherwise. In 4 steps" in told) == said
    assert ("for the image itself. In 4 steps" in told) != said


def test_without_a_network_for_the_image_itself_energies_are_compared_with_the_one_that_there_is() -> None:
    result = make_encoded()
    result["operations"]["rows"] = [row for row in result["operations"]["rows"] if row["part"] != "ann_image"]
    page = Page(page_of(result))
    assert "× artificial at 60 × 60" in page.text("th") and "× artificial at 32 × 32" not in page.text("th")
    assert "0.17 × that of an ANN at 60 × 60" in page.text("dd")
    assert "For the image itself there is no such network: its poolings leave nothing of it." in " ".join(
        page.text("p")
    )
    assert "spiking, T = 4: 2.760 µJ, 0.17 ×." in " ".join(page.drawings())
    assert compared(result, make_encoded()).groups[-1].rows[0][-1] == "–"


def test_a_run_that_ends_before_tuning_is_drawn() -> None:
    page = Page(page_of(make_encoded(tuned=False)))
    assert page.text("h2") == ["spiking_vgg9 on cifar10: 98.60 % of the test images right."]
    bare = {"kind": "evaluation", "model": "runs/a", "dataset": "digits", "images": 9, "accuracy": 0.5, "loss": 0.7}
    assert Page(page_of(bare)).text("h2") == ["runs/a on digits: 50.00 % of the test images right."]


def labels(group: Group) -> list[str]:
    return [entry.label for entry in group.legend]


def test_several_runs_are_compared() -> None:
    few = make_encoded(steps=2, frequencies=8) | {"accuracy": 0.75}
    runs = [make_encoded(), few, make_encoded(frequencies=8), make_encoded(order="interleaved", tuned=False)]
    section = compared(*runs)
    assert section.headline == "4 runs with an input encoder, side by side."
    by_steps, each = section.groups
    assert labels(by_steps) == [
        "cyclic, all frequencies, tuned",
        "cyclic, 8 frequencies, tuned",
        "interleaved, all frequencies, not tuned",
    ]
    assert "cyclic, 8 frequencies, tuned: 75 at T 2, 98.6 at T 4." in by_steps.plots[0].svg
    assert labels(each)[:2] == ["T = 4, cyclic, all frequencies, tuned", "T = 2, cyclic, 8 frequencies, tuned"]
    after, train, validation = (plot.svg for plot in each.plots)
    assert "T = 2, cyclic, 8 frequencies, tuned: 50 at steps shown 1, 60 at steps shown 2." in after
    assert "not tuned" in after and "not tuned" not in train
    assert "T = 4, cyclic, all frequencies, tuned: 40 at epoch 1" in train and "42.5 at epoch 1" in validation
    numbers = ("2", "75.00 %", "92.00 %", "87.50 %", "0.75", "52,000", "2.760", "0.60 ×")
    assert each.rows[1] == ("T = 2, cyclic, 8 frequencies, tuned", *numbers)


def test_runs_that_are_alike_are_told_apart_by_their_folders() -> None:
    (alike,) = compare_encodings(encoded_runs([parsed(make_encoded(), folder=name) for name in "ab"])).groups
    assert alike.heading == "Run by run", "one T for all makes no curve"
    assert labels(alike) == ["dct (a)", "dct (b)"]


def test_several_runs_at_one_t_are_averaged() -> None:
    runs = [make_encoded(steps=steps) | {"accuracy": accuracy} for steps, accuracy in ((2, 0.5), (4, 0.75), (4, 0.85))]
    assert "dct: 50 at T 2, 80 at T 4." in compared(*runs).groups[0].plots[0].svg


def test_names_are_text() -> None:
    evil = '<script>alert("x")</script>"&amp;'
    result = make_encoded()
    result["encoding"]["scheme"]["name"] = result["encoding"]["images"][0]["label"] = evil
    text = page_of(result, result | {"dataset": evil})
    page = Page(text)
    assert page.text("h2")[0] == "2 runs with an input encoder, side by side."
    assert not [tag for tag, _ in page.tags if tag == "script"]


def test_a_damaged_picture_is_told() -> None:
    result = make_encoded()
    result["encoding"]["images"][1]["rebuilt"][0] = "AAAA"
    with pytest.raises(DataError, match=r"encoding.images\[1\]: damaged \(cannot identify image file"):
        page_of(result)
