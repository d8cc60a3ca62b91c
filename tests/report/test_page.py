from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from transpike.errors import ConfigError, DataError
from transpike.experiments.report import Report, report
from transpike.measure.pictures import png
from transpike.report import build_page
from transpike.report.terminal import conversion_table, early_tables

from .samples import (
    LAYERS,
    RUN,
    make_analysis,
    make_conversion,
    make_rate,
    make_row,
    make_spiking,
    make_training,
    parsed,
    write_run,
)

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The page as a reader sees it: headings, table rows, labels of drawings; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()[0]}: </{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))
            if "tr" in self.open:
                self.rows[-1].append(data.strip())

    def text(self, tag: str) -> list[str]:
        return [text.replace("\N{NO-BREAK SPACE}", " ") for found, text in self.texts if found == tag]

    def drawings(self) -> list[str]:
        return [str(attrs["aria-label"]) for tag, attrs in self.tags if tag == "svg" and attrs.get("role") == "img"]


def page_of(*results: dict[str, Any], title: str = "A title") -> str:
    return build_page([parsed(result) for result in results], title=title)


@pytest.fixture(scope="module")
def built() -> str:
    """The page of one conversion with five series."""
    return page_of(make_conversion())


def test_the_headline_says_it_in_plain_words() -> None:
    page = Page(page_of(make_conversion({"silent": 1})))
    assert page.text("title") == page.text("h1") == ["A title"]
    assert page.text("h2") == [
        "resnet20 on digits: at T = 8 the spiking network loses 0.00 pp and gives the same prediction as the ANN on "
        "100 % of 360 images, 28 steps after the image arrives."
    ]


def test_the_headline_admits_failure(built: str) -> None:
    page = page_of(make_conversion({"silent": 0, "floor": 0.3}))
    assert "No setting on this page keeps 99.5 % of the ANN’s predictions. This one comes closest." in page
    assert "No setting on this page" not in built


def test_the_table_has_every_row_and_the_ann(built: str) -> None:
    rows = Page(built).rows
    assert ["ANN", *"––––", "98.60 %", *"––––", "2.55 M", "11.73", "1.00 ×", "900"] in rows
    row = ["8", "28", "27", "9", "–", "98.60 %", "0.00", "100 %", "2.67 %", "1.99", "9.76 M", "8.79", "0.75 ×", "180"]
    assert rows.count(row) == 1
    assert sum(len(cells) == 14 and cells[0].isdigit() for cells in rows) == 25
    assert [cells[0] for cells in rows if len(cells) == 19 and cells[0].count("relu")] == LAYERS


def test_every_drawing_says_what_it_shows(built: str) -> None:
    accuracy, latency, logits, energy, errors, rates = Page(built).drawings()
    assert "ternary, 1 silent step: 33.7 at T 4, 0 at T 12." in accuracy
    assert "ternary, 1 silent step: 33.7 at latency 24, 0 at latency 32." in latency
    assert "ternary, 1 silent step: 20.2 at T 4, 1.57 at T 12." in logits
    assert "ternary, 1 silent step, T = 8: 8.79 µJ, 0.75 ×." in energy
    assert "largest in layers.2.2.relu2 with 2.31 theta" in errors
    assert "levels 1, 2, 4, 8, no silent step, T = 8" in rates


def test_what_makes_the_error_at_the_output_is_drawn_and_told(built: str) -> None:
    assert "What makes the error at the output" not in built
    told = make_conversion({})
    best = next(row for row in told["rows"] if row["steps"] == 8)
    for depth, layer in enumerate(best["layers"]):
        layer |= {"output_resolution": 1e-4, "output_clipping": 0.0, "output_coupling": 3e-4 * (depth == 5)}
    best |= {"output_error": 0.05, "advice": {"silent": "auto"}, "diagnosis": "Coupling. Help: silent='auto' <b>."}
    page = page_of(told)
    drawing = next(drawing for drawing in Page(page).drawings() if "error at the output" in drawing)
    assert f"most from {LAYERS[5]}, {100 * 4 / 22:.2f} %. Coupling." in drawing
    assert (
        "silent=&#39;auto&#39; &lt;b&gt;. To first order, the errors of all layers together give a relative error of "
        "4.69 %" in page
    )
    assert "The measured error is 5.00 %" in page
    cells = {cells[0]: cells for cells in Page(page).rows if len(cells) == 19}
    assert (cells[LAYERS[5]][9], cells[LAYERS[0]][9]) == ("2.00 %", "1.00 %")
    assert "T = 8: Coupling. Help" in str(conversion_table(parsed(told).result).caption)
    best["output_error"] = None
    assert "What makes the error at the output" not in page_of(told)


def test_answers_before_the_last_step_are_drawn_and_tabled(built: str) -> None:
    assert "Answers before the last step" not in built
    told = make_conversion({"silent": 1})
    shared = {"images": 1000, "changed_error": 0.002, "accuracy": 0.925, "stopped": [0, 700, 200, 100]}
    sure = shared | {"agreement": 0.995, "changed": 0.004, "steps": 2.4, "latency": 3.4, "energy_uj": 40.0}
    every = [
        shared | {"agreement": None, "changed": 0.5 / step, "steps": step, "latency": step + 1, "energy_uj": None}
        for step in (1.0, 2.0)
    ]
    best = next(row for row in told["rows"] if row["steps"] == 8)
    best["early"] = [sure, *every]
    page = Page(page_of(told))
    drawings = [drawing for drawing in page.drawings() if "mean" in drawing]
    assert "answers changed (%) against mean steps. each when sure: 0.4 at mean steps 2.4" in drawings[0]
    assert "one step for all: 50 at mean latency (steps) 2, 25 at mean latency (steps) 3." in drawings[1]
    assert "energy (µJ) against mean steps. each when sure: 40 at mean steps 2.4" in drawings[2]
    assert ["agreement 99.50 %", "0.40 %", "0.20", "92.50 %", "2.40", "3.40", "40.00", "0, 700, 200, 100"] in page.rows
    assert ["step 2 for all", "25.00 %", "0.20", "92.50 %", "2.00", "3.00", "–"] in page.rows
    (table,) = early_tables(parsed(told).result)  # type: ignore[arg-type]
    assert table.row_count == 3


def test_without_labels_predictions_are_compared() -> None:
    result = make_conversion({})
    result["ann"]["accuracy"] = None
    for row in result["rows"]:
        row |= {"accuracy": None, "loss_pp": None, "energy_uj": None, "layers": []}
    page = Page(page_of(result))
    assert "at T = 8 the spiking network gives the same prediction" in page.text("h2")[0]
    assert [drawing.partition(":")[2].partition(" against")[0] for drawing in page.drawings()] == [
        " predictions changed (%)",
        " predictions changed (%)",
        " logit error in percent",
    ]


def test_a_scheme_that_knows_no_other_scheme_is_tabled_and_drawn() -> None:
    both = make_conversion({}) | {"glossary": {"silent period": "Steps in which a layer listens."}}
    both["rows"] += [make_rate(steps=steps) for steps in (32, 64)]
    page = Page(page_of(both))
    assert page.text("li")[:2] == ["CSS", "Rate"]
    assert "Rate: 1.5 at T 32, 1.5 at T 64." in page.drawings()[3]
    assert pairs(page)["silent period"] == "Steps in which a layer listens."
    alone = Page(page_of(make_conversion({}) | {"rows": [make_rate(steps=steps) for steps in (32, 64)]}))
    assert "gives the same prediction as the ANN on 100 %" in alone.text("h2")[0]
    assert "Error by layer: Rate, T = 32" in alone.text("strong")
    assert "negative spikes" not in alone.text("li") and "positive spikes" not in alone.text("li")
    silent = ["input", "analog", "–", "16,384", *"––––––", "0.00", "0.00", "0", *"–––", "1", "0.464", "0"]
    assert silent in alone.rows
    assert not {"clipping by the percentile", "the code: resolution and coupling"} & set(alone.text("li"))
    assert "Below: the causes of this error." not in " ".join(alone.text("span"))
    assert not {"β", "silent period", "levels"} & set(pairs(alone)) and "θ" in pairs(alone)


def pairs(page: Page) -> dict[str, str]:
    """What stands beside each term."""
    following = zip(page.texts, page.texts[1:], strict=False)
    return {term: said for (tag, term), (other, said) in following if (tag, other) == ("dt", "dd")}


def test_words_of_a_method_stand_only_where_it_is() -> None:
    def said(*methods: str) -> str:
        result = make_analysis(students=len(methods) + 1)
        for number, method in enumerate(methods, 1):
            result["networks"][number] |= {"method": method, "adapts": f"{method} adapts."}
        for stage in result["features"]:
            stage["sigma"] = 0.25 if "SFKD" in methods and stage["left"] else None
        return " ".join(Page(page_of(result)).text("p"))

    bsd, both = said("BSD"), said("BSD", "SFKD")
    assert "that its method compares. BSD adapts." in bsd and "SFKD" not in bsd and "Gaussian" not in bsd
    assert "its method compares. BSD adapts. SFKD adapts. Dotted: the weight of the difference’s power" in both
    plain = make_analysis(students=1)
    page = Page(page_of(plain))
    assert "dapted" not in " ".join(page.text("p")), "nothing is adapted"
    assert ["stage", "student", "teacher", "student", "white noise"] in page.rows


def test_energy_is_split_where_its_parts_are_known() -> None:
    result = make_conversion({})
    assert "From full to faint" not in page_of(result)
    for row in result["rows"]:
        row["energy_parts_uj"] = {"accumulates": 0.7 * row["energy_uj"], "neuron_updates": 0.3 * row["energy_uj"]}
    assert "From full to faint: accumulates, neuron updates." in page_of(result)


def test_several_results_are_compared_and_keep_their_colours() -> None:
    first, second = make_conversion({"silent": 1}, {"silent": 2}), make_conversion({"beta": 1.5}, model="vgg16")
    text = page_of(first, make_training(), second)
    page = Page(text)
    assert page.text("h2")[0] == "3 codings from 2 results, side by side."
    assert len(page.text("h2")) == 4
    assert len(page.drawings()) == 4 + 6 + 2 + 6
    names = page.text("li")
    assert names[:3] == [
        "resnet20 on digits, β 2, 1 silent step",
        "resnet20 on digits, β 2, 2 silent steps",
        "vgg16 on digits, β 1.5, 1 silent step",
    ]
    assert {"β 2, 1 silent step", "β 2, 2 silent steps"} <= set(names), (
        "the same words in its own section, less its place"
    )
    curves = text[text.index("<h2>vgg16") :].partition("Error by layer")[0]
    assert "var(--s2)" in curves and "var(--s0)" not in curves
    joint = text[: text.index("<h2>resnet20")]
    assert "thin stair" not in joint, "what one network loses says nothing of another"
    assert "thin stair" in page_of(first, make_conversion({"beta": 1.5})).partition("<h2>resnet20")[0]


def test_training_is_drawn(training: dict[str, Any]) -> None:
    page = Page(build_page([parsed(training, run=RUN)]))
    assert page.text("h2") == ["resnet20 on digits: 98.60 % of the test images right, 30 epochs in 75 s."]
    accuracy, loss = page.drawings()
    assert "validation: 42.5 at epoch 1, 98.5 at epoch 30." in accuracy
    assert "training: 1.69 at epoch 1, 0.0126 at epoch 30." in loss


def test_a_loss_of_zero_is_drawn(training: dict[str, Any]) -> None:
    for epoch in training["epochs"]:
        epoch["loss"] = 0.0
    assert "training: 0 at epoch 1, 0 at epoch 30." in Page(page_of(training)).drawings()[1]


def test_firing_is_drawn() -> None:
    result = make_spiking()
    page = Page(page_of(result))
    drawings = page.drawings()
    assert "accuracy (%) by T. test: 91 at T 1, 99 at T 8." in drawings[2]
    cells = page.text("td")
    assert ("91.00 %" in cells) and ("99.00 %" in cells)
    assert drawings[3] == "Spikes per neuron in each layer (T = 4); most in act."
    text = " ".join(page.text("dd"))
    assert "0.75" in text and "18.75 % of the steps" in text and "0.45 × the ANN’s" in text
    names = page.text("li")
    assert "positive spikes" not in names and "negative spikes" not in names, "these neurons are binary"


def test_an_analysis_is_drawn() -> None:
    text = page_of(make_analysis())
    page = Page(text)
    assert page.text("h2") == ["sew_resnet19 on digits beside its teacher resnet20: 256 test images."]
    assert page.text("h3") == [
        "Features: power by frequency",
        "Sub-bands before and after DS2S",
        "Energy by sub-band and level",
        "How alike the stages are",
        "Logits in the teacher’s order",
        "What SRD learned",
        "The neuron as a filter: LIFNode of run1, run2",
        "Where they look",
    ]
    drawings = page.drawings()
    assert len(drawings) == 9 + 1 + 2 + 2  # sub-bands of one student, energies and CKA of two
    assert "layers.2, teacher’s layers.2 (8 × 8). teacher: 4 at frequency 0.125, 0.25 at frequency 0.5." in drawings[0]
    assert "run1, adapted: 4 at frequency 0.125" in drawings[0]
    assert "run2, adapted" not in drawings[0]
    assert "Gaussian, squared: 0.984 at frequency 0.03125, 0.0183 at frequency 0.5." in drawings[0]
    assert "Sub-bands of seven, six after layers.2, layers.5: teacher, before DS2S, after DS2S." in drawings[2]
    assert "of the maps of run2 and its teacher" in drawings[4]
    assert "run1 with its teacher’s. as it is, layers.2: layers.2 0.75 as it is, layers.5: layers.2 –" in drawings[5]
    assert "adapted" in drawings[5] and "adapted" not in drawings[6]
    assert "teacher: 4 at rank 1, -5 at rank 10." in drawings[7]
    assert "layers.5: 3.5 times as large" in drawings[10]
    assert "|H|: 0.938 at frequency 0.0625, 0.5 at frequency 0.5." in drawings[11]
    assert "six: teacher says six, run1 says six, run2 says six" in drawings[13]
    assert ["run1: layers.2 (8 × 8)", "run1, adapted", "50.00 %", "50.00 %"] in page.rows
    assert ["run2: layers.5 (4 × 4)", "white noise", "20.00 %", "80.00 %"] in page.rows
    shares = ["40.00 %", "25.00 %", "81.25 %", "37.50 %", "50.00 %", "75.00 %"]
    assert ["layers.2, teacher’s layers.2", "run1", *shares] in page.rows
    assert ["layers.5, teacher’s layers.5", "run2", *shares[:3], "–", "–", "–"] in page.rows
    assert ["run1", "3.000", "0.500", "0.125"] in page.rows
    assert ["layers.5", "run1", "3.50"] in page.rows
    # Filters and their bars, two images on four panels; sub-bands of two images at two stages, three matrices.
    assert text.count("data:image/png;base64") == 2 + 2 * 4 + 2 + 3 * 2 * 2 + 3


def test_a_student_alone_is_drawn() -> None:
    result = make_analysis(students=1)
    result["networks"] = [result["networks"][1] | {"accuracy": None}]
    result |= {"filters": [], "saliency": {"images": [], "panels": []}, "part": "validation"}
    result |= {"stages": [], "similarity": []}
    result["features"] = [
        stage | {"student": 0, "teacher_tap": None, "curves": [stage["curves"][0]], "left": None, "sigma": None}
        for stage in result["features"]
    ]
    result["logits"] = {"curves": result["logits"]["curves"][:1], "single": []}
    result["neurons"][0] |= {"networks": [0], "decay": 1.0, "gain": 1.0}
    page = Page(page_of(result))
    assert page.text("h2") == ["sew_resnet19 on digits: 256 validation images."]
    assert "Logits in the first student’s order" in page.text("h3")
    assert len(page.drawings()) == 6
    assert "without a leak: an integrator" in " ".join(page.text("span"))
    assert "BSD’s Eq. 3 does not apply" in " ".join(page.text("p"))


def test_an_analysis_of_a_network_that_diverged_is_drawn() -> None:
    result = make_analysis()
    for stage in result["features"]:
        for curve in stage["curves"]:
            curve |= {"power": [None for _ in curve["power"]], "variance": None, "high": None}
    for curve in result["logits"]["curves"]:
        curve |= {"mean": [None] * 10, "rms": None}
    for stage in result["stages"]:
        for curve in stage["curves"]:
            curve["energy"] = [None] * 4
        for picture in stage["pictures"]:
            picture["bands"] = [[[None]]] * 4
    page = Page(page_of(result))
    assert len(page.drawings()) == 4 + 1 + 2 + 2 + 2  # no spectra, of which the Gaussian alone would be left
    assert ["run1", "–", "0.500", "0.125"] in page.rows


def test_names_in_an_analysis_are_text() -> None:
    evil = '<script>alert("x")</script>$\\frac{1}$"&amp;'
    result = make_analysis(students=1) | {"model": evil, "dataset": evil}
    for network in result["networks"]:
        network["label"] += evil
        network["adapts"] = evil
    for name, field in (("features", "tap"), ("neurons", "type"), ("stages", "tap")):
        for row in result[name]:
            row[field] = evil
    for row in result["saliency"]["images"]:
        row["label"] = evil
    for row in result["saliency"]["panels"]:
        row["prediction"] = evil
    page = Page(page_of(result))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_a_damaged_picture_is_told() -> None:
    result = make_analysis(students=1)
    result["features"], result["neurons"] = [], []
    result["saliency"]["images"][1]["png"] = "AAAA"
    with pytest.raises(DataError, match=r"saliency.images\[1\]: damaged"):
        page_of(result)


def test_where_the_numbers_come_from(conversion: dict[str, Any]) -> None:
    found = Page(build_page([parsed(conversion, run=RUN, folder="runs/a")])).text("dd")
    for value in (
        "runs/a",
        "transpike convert --steps 4,6,8,10,12",
        "0",
        "0123456789abcdef",
        "python 3.11.2, torch 2.8.0",
    ):
        assert value in found


def test_names_are_text_never_markup() -> None:
    evil = '<script>alert("x")</script>$\\frac{1}$"&amp;'
    result = make_conversion({}, {"silent": 2}, model=evil, dataset=evil)
    for row in result["rows"]:
        row["layers"] = [layer | {"name": evil + layer["name"], "function": evil} for layer in row["layers"]]
        row["scheme"]["name"] = evil
        row["scheme"][evil] = evil + str(row["scheme"]["silent"])
        row["words"] = {"silent": evil}
    result["glossary"] = {evil: evil}
    run = RUN | {"verb": evil, "options": {evil: evil}, "versions": {evil: evil}}
    text = build_page([parsed(result, folder=evil, run=run), parsed(result, folder="other")], title=evil)
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text("h1") == [evil]


def test_odd_names_and_numbers_are_drawn() -> None:
    result = make_conversion({})
    for row in result["rows"]:
        row |= {"logit_error": None, "energy_uj": None, "loss_pp": -0.1}
        silent = {"error": None, "spikes_per_neuron": 0.0, "positive_per_neuron": 0.0, "negative_per_neuron": 0.0}
        row["layers"] = [layer | silent for layer in row["layers"][:2]]
        row["layers"][0]["name"] = "層.$x$"
        row["layers"][1] |= {"error": 0.0, "error_share_clipping": None}
    page = Page(page_of(result))
    assert "gains 0.10 pp" in page.text("h2")[0]
    assert len(page.drawings()) == 2, "no drawing without a number"


def test_nothing_is_loaded_and_nothing_runs(built: str) -> None:
    page = Page(built)
    for tag, attrs in page.tags:
        assert tag not in {"script", "img", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data"):
            assert re.match(r"#|data:", attrs.get(name) or "#"), f"<{tag} {name}={attrs[name]!r}>"
    assert not re.search(r"@import|url\((?!#)", built)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_every_colour_follows_the_scheme(built: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", built, re.DOTALL))
    assert "var(--s0)" in drawn and "var(--ink)" in drawn
    assert not re.findall(r"#[0-9a-f]{6}\b|(?:fill|stroke): ?(?:black|white)", drawn)
    assert set(re.findall(r"var\((--\w+)\)", built)) <= set(re.findall(r"(--\w+): #", built))


def test_ids_are_unique_and_the_page_is_reproducible(built: str, conversion: dict[str, Any]) -> None:
    assert page_of(conversion) == built
    text = page_of(make_conversion({}), make_conversion({}, {"beta": 1.5}))
    page = Page(text)
    ids = [str(attrs["id"]) for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = {str(attrs["xlink:href"])[1:] for _, attrs in page.tags if "xlink:href" in attrs}
    assert used | set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(ids)


def test_more_series_than_colours() -> None:
    page = Page(page_of(make_conversion(*({"beta": 1 + step / 20} for step in range(1, 21)))))
    assert len([name for name in page.text("li") if name.startswith("β")]) == 20


@pytest.mark.parametrize("layers", [1, 150])
def test_few_and_many_layers(layers: int) -> None:
    row = make_row(steps=8)
    row["layers"] = [row["layers"][0] | {"name": f"block{i}.relu"} for i in range(layers)]
    assert len(Page(page_of(make_conversion({}) | {"rows": [row]})).drawings()) == 6


def test_report_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], conversion: dict[str, Any]) -> None:
    runs = [write_run(tmp_path / "a", conversion), write_run(tmp_path / "b", make_training())]
    out = tmp_path / "new" / "page.html"
    report(Report(runs, out))
    assert capsys.readouterr().out == f"Report: {out}\n"
    assert len(Page(out.read_text(encoding="utf-8")).text("h2")) == 2
    assert list(out.parent.iterdir()) == [out]
    report(Report(runs[::-1], out, title="again"))
    assert "<title>again</title>" in out.read_text(encoding="utf-8"), "the page of the same runs is replaced"
    with pytest.raises(ConfigError, match="already exists and is not a page of these runs; name another place"):
        report(Report(runs[0], out))
    inner = runs[0] / "report.html"
    for title in ("first", "second"):
        report(Report(runs[0], inner, title=title))
    runs[0].rename(tmp_path / "moved")
    report(Report(tmp_path / "moved", tmp_path / "moved" / "report.html", title="moved"))
    assert "<title>moved</title>" in (tmp_path / "moved" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a page of these runs"):
        report(Report(runs[1], tmp_path / "moved" / "report.html"))


def test_bad_input_writes_nothing(tmp_path: Path, conversion: dict[str, Any]) -> None:
    good, out = write_run(tmp_path / "good", conversion), tmp_path / "page.html"
    bad = write_run(tmp_path / "bad", conversion | {"version": 99})
    for folders, error, message in [
        ([good, tmp_path / "none"], DataError, r"none: no results\.json"),
        ([good, bad], DataError, r"bad/results\.json: written in a newer format"),
        ([], ConfigError, "no result to report"),
    ]:
        with pytest.raises(error, match=message):
            report(Report(folders, out))
    assert not out.exists()
    (bad / "results.json").write_text(json.dumps(conversion)[:-40])
    with pytest.raises(DataError, match=r"results\.json: damaged"):
        report(Report([bad], out))
    with pytest.raises(ConfigError, match=r"cannot write .*good: it is a folder"):
        report(Report([good], tmp_path / "good"))
    mine = tmp_path / "weights.safetensors"
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="already exists and is not a page of these runs; name another place"):
        report(Report([good], mine))
    assert mine.read_text() == "mine"
    mine.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "good"]


def test_what_functions_and_products_take_is_told() -> None:
    told = make_conversion({})
    assert "of the energy" not in (conversion_table(parsed(told).result).caption or "")
    for row, share in zip(told["rows"], (0.1, 0.2, 0.2, 0.2, 0.3), strict=True):
        row["energy_parts_uj"] = {"products": share * row["energy_uj"], "functions": 0.05 * row["energy_uj"]}
        row["layers"][3] |= {"evaluations": 1, "state": 3.0, "group": 192, "products": 1234.0}
    caption = str(conversion_table(parsed(told).result).caption)
    assert "of the energy, functions 5 to 5 % and products 10 to 30 %" in caption
    cells = next(cells for cells in Page(page_of(told)).rows if cells[0] == LAYERS[3])
    assert cells[-6:-2] == ["1,234", "1", "3.00", "192"]


def test_codes_that_stop_early_stand_beside_each_other_and_beside_those_that_cannot() -> None:
    told = make_conversion({"silent": 1})
    shared = {"images": 1000, "changed_error": 0.002, "stopped": [0, 700, 200, 100]}
    full = shared | {"agreement": None, "changed": 0.0, "accuracy": 0.93, "steps": 4.0, "latency": 6.0}
    for row, steps in zip(told["rows"], (2.4, 3.4), strict=False):
        sure = {"agreement": 0.995, "changed": 0.004, "accuracy": 0.925, "steps": steps, "latency": steps + 2}
        row["early"] = [shared | sure | {"energy_uj": 40.0}, full | {"energy_uj": 80.0}]
    told["rows"][2]["unstreamed"] = "TTFS does not stream"
    told["rows"][0]["pictured"] = [
        {"png": png(torch.zeros(3, 4, 4)), "label": label, "steps": steps} for label, steps in (("cat", 2), ("dog", 9))
    ]
    page = Page(page_of(told))
    drawings = [drawing for drawing in page.drawings() if "each when sure" in drawing]
    assert "each when sure: 92.5 at mean steps 2.4, 92.5 at mean steps 3.4" in drawings[0]
    assert "accuracy (%) against mean latency (steps)" in drawings[1] and "energy (µJ)" in drawings[3]
    (beside,) = [row for row in page.rows if row[-1] == "80.00" and "2.40" in row]
    assert beside[1:5] == ["0.40 %", "92.50 %", "93.00 %", "2.40"]
    assert any(row[1] == "TTFS does not stream" for row in page.rows if len(row) == 9)
