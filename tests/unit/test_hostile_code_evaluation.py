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
"""Names and texts from results, measurements and layouts are shown, never obeyed; a student's YAML runs nothing."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import an_evaluation
from markdown_it import MarkdownIt
from slow_cases import slow

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.evaluation.layout import layout_tables, read_layout
from nemo_distill.evaluation.plot import Point, plot_quality_against_size
from nemo_distill.evaluation.report import build_report, write_report
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.speed_results import SpeedResult, SpeedRow
from nemo_distill.students.model_section import read_model_section
from nemo_distill.support.isolated import module_command

ROOT = Path(__file__).parents[2]

EVIL = "a|b <img src=x onerror=alert(1)> [x](http://e.example) `c` $x$ ![i](j)\n\n# title\n\x1b[31m"
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


def markup(text: str) -> set[str]:
    """Return the kinds of markup in a Markdown text, tables and plain text left out."""
    found = {token.type for token in PARSER.parse(text)}
    inline = {part.type for token in PARSER.parse(text) for part in token.children or []}
    assert "\x1b" not in text
    return {kind for kind in found | inline if "html" in kind or kind in ("link_open", "image", "code_block", "fence")}


def headings(text: str) -> int:
    return sum(token.type == "heading_open" for token in PARSER.parse(text))


def test_texts_in_a_report():
    ordinary, evil = an_evaluation(), an_evaluation()
    for score in evil.scores:
        score.engine = score.bleu_signature = score.chrf_signature = EVIL
        score.device = EVIL
    evil.comparisons[0].metric = EVIL
    text = build_report([evil]).markdown()
    assert markup(text) == set()
    assert headings(text) == headings(build_report([ordinary]).markdown())


def test_names_in_a_report_that_python_made():
    """Names that no archive's label can have reach a report only from Python."""
    result = an_evaluation(labels=("teacher", EVIL), test_sets=("wmt19", EVIL))
    report = build_report([result], teacher="teacher", plain=EVIL)
    assert markup(report.markdown()) == set()


def test_a_label_ends_no_cell(tmp_path):
    result = an_evaluation(labels=("teacher", "a|b"))
    lines = build_report([result]).markdown().splitlines()
    row = next(line for line in lines if line.startswith("| a"))
    assert row.startswith("| a\\|b | 31.0 | 31.0 |")


def test_titles_and_columns_of_a_layout(tmp_path):
    layout = tmp_path / "layout.json"
    content = {
        "grids": {EVIL: {"columns": [EVIL, 1], "rows": {EVIL: ["teacher", None]}}},
        "changes": {EVIL: {"rows": {EVIL: ["student", "teacher"]}}},
    }
    layout.write_text(json.dumps(content))
    report = build_report([an_evaluation()])
    report.tables = layout_tables(read_layout(layout), report)
    assert markup(report.markdown()) == set()
    assert headings(report.markdown()) == headings(build_report([an_evaluation()]).markdown()) + 3


def test_texts_of_a_measurement():
    row = SpeedRow(EVIL, EVIL, 1000, 4000, 4, 30.0, 1.0, 100.0, 10.0, 5)
    result = SpeedResult([row], {EVIL: EVIL}, EVIL, ["a", "b"], 100, EVIL, EVIL, 1, 4096, {})
    assert markup(result.markdown()) == set()
    assert headings(result.markdown()) == 1


@pytest.mark.parametrize("kind", ["tex", *slow("bytes", "fifo")])
def test_settings_of_plots_in_the_current_directory(kind, tmp_path):
    """A process of its own: matplotlib reads them at its import."""
    results, here = tmp_path / "results", tmp_path / "here"
    results.mkdir()
    here.mkdir()
    an_evaluation().save(results)
    if kind == "fifo":
        os.mkfifo(here / "matplotlibrc")
    else:
        (here / "matplotlibrc").write_bytes(b"\xff" if kind == "bytes" else b"text.usetex: True\nlines.color: red\n")
    command = module_command("nemo_distill.cli", "report", "--results", str(results), "--output-dir", "out")
    done = subprocess.run(command, cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 0
    write_report([results], tmp_path / "ordinary")
    assert (here / "out/quality_vs_size.png").read_bytes() == (tmp_path / "ordinary/quality_vs_size.png").read_bytes()


def test_settings_of_the_user_do_not_change_a_plot():
    import matplotlib

    series = {"test": [Point("a", 1000, 30.0, None)]}
    ordinary = plot_quality_against_size(series)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 20, "savefig.format": "pdf"}):
        assert plot_quality_against_size(series) == ordinary


@pytest.mark.parametrize("label", ["$x$", "$\\frac{1}{0$", "a$b$c", "_hidden", EVIL])
def test_names_in_a_plot(label, monkeypatch):
    from matplotlib.figure import Figure

    drawn, original = [], Figure.savefig

    def recorder(figure, *arguments, **options):
        [axes] = figure.axes
        legend = axes.get_legend()
        drawn.extend(text.get_text() for text in [*axes.texts, *(legend.get_texts() if legend else [])])
        return original(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", recorder)
    points = [Point(label, 1000, 30.0, None)]
    plot_quality_against_size({label: points, "other": points})
    assert len(drawn) == 3  # the model, both test sets
    plain = label.split("\n")[0].replace("$", r"\$")
    assert all(plain[:20] in text for text in drawn[:2])


@pytest.mark.parametrize("change", [{"label": EVIL}, {"label": "a/b"}, {"label": "../a"}, {"label": ""}])
def test_labels_that_no_evaluation_gives_are_refused(tmp_path, change):
    result = an_evaluation()
    result.models[0] = replace(result.models[0], **change)
    result.save(tmp_path)
    with pytest.raises(InputError, match="results.json' is damaged: .*none that a model can have"):
        EvaluationResult.load(tmp_path)


OTHERS = "{parent}/secret"
STUDENTS = {
    "environment": ("encoder: {hidden_act: '${oc.env:HOME}'}", "encoder.hidden_act is computed"),
    "environment, inside": ("encoder: {hidden_act: 'a${oc.env:HOME}'}", "encoder.hidden_act is computed"),
    "environment, nested": ("encoder: {hidden_act: '${a.${oc.env:HOME}}'}", "encoder.hidden_act is computed"),
    "environment, of another key": ("x: {y: '${oc.env:HOME}'}\nmodel: {encoder: {hidden_act: '${x.y}'}}", "no value"),
    "environment, in a key": ("encoder: {'${oc.env:HOME}': 1}", "is computed"),
    "a class": ("encoder: {_target_: os.system}", "encoder._target_ names something to run"),
    "a class by reference": ("x: {_target_: a}\nmodel: {encoder: '${x}'}", "refers to 'x', where no value is"),
    "another library": (
        "encoder: {library: huggingface, model_name: gpt2}",
        "encoder.model_name is 'gpt2', whose configuration would",
    ),
    "another library by reference": ("l: megatron\nmodel: {encoder: {library: '${l}'}}", "model of another library"),
    "a bomb": ("a: {x: '${b}', y: '${b}'}\nb: {x: 1}\nmodel: {encoder: '${a}'}", "refers to 'a'"),
    "a circle": ("a: '${b}'\nb: '${a}'\nmodel: {len_pen: '${a}'}", "student.yaml'"),
    "a tag": ("encoder: !!python/object/apply:os.system [true]", "it has the tag"),
    "anchors": ("a: &a {b: 1}\nencoder: *a", "it has anchors"),
    "searchpath": (
        "defaults: [base, _self_]\nhydra: {searchpath: ['file://{parent}']}",
        "hydra.searchpath leads to other places",
    ),
    "searchpath of another": ("defaults: [searching, _self_]", "hydra.searchpath leads to other places"),
    "above": ("defaults: [../secret]", "name files of its own directory"),
    "above, in a group": ("defaults: [{group: ../../secret}]", "name files of its own directory"),
    "above, by its group": ("defaults: [{../..: secret}]", "name files of its own directory"),
    "package": ("defaults: ['pkg://hydra.conf']", "name files of its own directory"),
    "absolute": ("defaults: ['{parent}/secret']", "student.yaml'"),
    "no list": ("defaults: {a: b}", "`defaults` are no list"),
    "a base with anchors": ("defaults: [anchored]", "it has anchors"),
}


@pytest.mark.parametrize("case", STUDENTS)
def test_what_a_student_may_not_say(case, tmp_path):
    (tmp_path / "secret.yaml").write_text("encoder: {num_layers: 1}\nsecret: true\n")
    directory = tmp_path / "here"
    directory.mkdir()
    (directory / "base.yaml").write_text("encoder: {num_layers: 1}\n")
    (directory / "anchored.yaml").write_text("a: &a 1\nb: *a\n")
    (directory / "searching.yaml").write_text("hydra: {searchpath: ['pkg://nemo']}\n")
    text, message = STUDENTS[case]
    (directory / "student.yaml").write_text(text.replace("{parent}", str(tmp_path)))
    with pytest.raises(InputError, match=message) as caught:
        read_model_section(directory / "student.yaml")
    assert "\n" not in str(caught.value)
    assert os.environ["HOME"] not in str(caught.value).replace(str(tmp_path), "")


def test_references_to_other_keys_serve(tmp_path):
    path = tmp_path / "student.yaml"
    path.write_text(
        "size: 16\nrun: '${now:%Y}'\nmodel:\n  encoder: {hidden_size: '${size}', inner_size: '${.hidden_size}'}\n"
        "  decoder: {hidden_size: '${model.encoder.hidden_size}', inner_size: '${..encoder.inner_size}'}\n"
    )
    section, _ = read_model_section(path)
    sizes = {"hidden_size": 16, "inner_size": 16}
    assert section == {"encoder": sizes, "decoder": sizes}


def test_trust_in_the_archives_is_none_in_what_computes(tmp_path, tiny_teacher_path, capsys):
    path = tmp_path / "student.yaml"
    path.write_text("encoder: {hidden_act: '${oc.env:HOME}'}")
    arguments = ["--teacher", str(tiny_teacher_path), "--student", str(path), "--output", str(tmp_path / "s.nemo")]
    assert cli.main(["init", *arguments, "--trust-archive"]) == 2
    assert "is computed" in capsys.readouterr().err
