# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Further tables of a report, and what a faulty layout gets."""

import made_up_results
import pytest

from nemo_distill.errors import InputError
from nemo_distill.evaluation.layout import Changes, Grid, Layout, layout_tables, read_layout
from nemo_distill.evaluation.report import build_report
from nemo_distill.evaluation.rows import Row, Statistic
from nemo_distill.evaluation.summary import Report

LAYOUT = """
grids:
  No initialisation:
    columns: [τ = 0.5, τ = 1]
    rows:
      NLL + cos: [null, a]
      KD + NLL: [b, c]
changes:
  Against a:
    rows:
      c: [c, a]
"""


def a_report(scores: dict[str, dict[str, float]], test_sets=("test",)) -> Report:
    """A report whose rows have the given BLEU by model label and test set, seeds merged."""
    rows = []
    for label in dict.fromkeys(model.partition("@")[0] for model in scores):
        models = [model for model in scores if model.partition("@")[0] == label]
        bleu = {
            name: Statistic.of([scores[model][name] for model in models if name in scores[model]])
            for name in test_sets
            if any(name in scores[model] for model in models)
        }
        rows.append(Row(label, models, 1000, 1.0, 4000, bleu, bleu, Statistic.of([1.0]), None))
    return Report(list(test_sets), rows, [], [], [], ["engine"], None, None, scores)


@pytest.fixture
def layout(tmp_path):
    path = tmp_path / "layout.yaml"
    path.write_text(LAYOUT, "utf-8")
    return read_layout(path)


def test_a_grid_has_the_published_form(layout):
    report = a_report({"a": {"test": 30.0}, "b": {"test": 31.0}, "c@seed1": {"test": 32.0}, "c@seed2": {"test": 34.0}})
    tables = layout_tables(layout, report)
    assert tables[0] == "## No initialisation"
    assert tables[1].splitlines() == [
        "|  | τ = 0.5 | τ = 1 | Max | max Δ |",
        "| :--- | ---: | ---: | ---: | ---: |",
        "| NLL + cos | – | 30.0 | 30.0 | -3.0 |",
        "| KD + NLL | 31.0 | 33.0 ± 1.4 (n=2) | 33.0 | – |",
    ]
    assert tables[2:4] == ["## Against a", "|  | test |\n| :--- | ---: |\n| c | +3.0 |"]
    report.tables = tables
    assert "max Δ" in report.markdown()


def test_changes_are_seed_by_seed():
    scores = {f"{name}@seed{seed}": {"test": value} for name, seed, value in [
        ("plain", 1, 30.0), ("plain", 2, 20.0), ("plain", 3, 90.0), ("student", 1, 31.0), ("student", 2, 18.0),
    ]}  # fmt: skip
    changed = a_report(scores).change("student", "plain", "test")
    assert changed.mean == pytest.approx(-0.5)  # of +1 and -2; the third seed has no student
    assert changed.deviation == pytest.approx(4.5**0.5)
    assert str(changed) == "-0.5 ± 2.1 (n=2)"


def test_a_table_for_each_test_set_and_empty_cells():
    report = a_report({"a": {"x": 10.0, "y": 20.0}, "b": {"x": 11.0}}, ("x", "y"))
    layout = Layout({"Grid": Grid(["1"], {"a": ["a"], "b": ["b"]})}, {"Δ": Changes({"b": ["b", "a"]})})
    tables = layout_tables(layout, report)
    assert tables[::2][:3] == ["## Grid, x", "## Grid, y", "## Δ"]
    assert "| b | – | – | – |" in tables[3]
    assert tables[5].endswith("| b | +1.0 | – |")


def test_labels_that_the_report_does_not_have(layout):
    with pytest.raises(InputError, match="layout, 'No initialisation': there is no row b, c; the report has a$"):
        layout_tables(layout, a_report({"a": {"test": 30.0}}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {}", r"layout.grid: unknown key \(did you mean 'grids'\?\)"),
        ("grids: {g: {columns: [1, 2], rows: {r: [a]}}}", "layout.grids.g.rows.r: got 1 cells for 2 columns"),
        ("grids: {g: {columns: [1], rows: {r: a}}}", "layout.grids.g.rows.r: got 'a' of type str; give a list"),
        (
            "changes: {c: {rows: {r: }}}",
            r"\n  layout.changes.c.rows.r: got None of type NoneType; give a list \(an em",
        ),
        ("grids: {g: {columns: [1], rows: [r]}}", "layout.grids.g.rows: got .* names of your choice to a list each"),
        ("changes: {c: {rows: {r: [a]}}}", r"layout.changes.c.rows.r: got \['a'\]; give two labels"),
        ("grids: {a: [", "layout: .*layout.yaml' is not YAML"),
        ("[1]", r"layout: got \['1'\]; give a mapping"),
    ],
)
def test_faulty_layouts(tmp_path, text, message):
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_layout(path)


def test_labels_are_text_however_they_look(tmp_path):
    path = tmp_path / "layout.yaml"
    path.write_text("grids: {g: {columns: [0.50, on], rows: {no: [010, ~], null: ['null', 1e3]}}}")
    layout = read_layout(path)
    assert layout.grids["g"] == Grid(["0.50", "on"], {"no": ["010", None], "null": ["null", "1e3"]})
    report = a_report({"010": {"test": 30.0}, "1e3": {"test": 31.0}, "null": {"test": 32.0}, "8": {"test": 99.0}})
    assert "| no | 30.0 | – |" in layout_tables(layout, report)[1]


def test_labels_of_a_plan_are_text():
    """A plan is read as YAML is, so that a label there may be a number."""
    assert list(Grid(["1"], {"r": [8]}).faults("grid", {}))
    assert list(Changes({"r": [8, "a"]}).faults("changes", {}))


def test_no_such_layout(tmp_path):
    with pytest.raises(InputError, match=r"layout: there is no file \S+none.yaml"):
        read_layout(tmp_path / "none.yaml")


def test_an_empty_cell_is_no_row_called_none():
    result = made_up_results.an_evaluation(("None", "x"), ("t",))
    report = build_report([result])
    assert "| row | – | 31.0 |" in Grid(["one", "two"], {"row": [None, "x"]}).markdown(report, "t")
