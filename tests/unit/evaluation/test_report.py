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
"""`nemo-distill report`: merging evaluations, seeds, the share of the gap, and the three files."""

import io
import json
import math
import struct
import sys
from dataclasses import asdict, replace

import made_up_results
import pytest
from omegaconf import OmegaConf

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.evaluation.inputs import DROPOUTS, dropout_of
from nemo_distill.evaluation.plot import Point, _Box, _spread, plot_quality_against_size
from nemo_distill.evaluation.report import Statistic, build_report, find_or_write, write_report
from nemo_distill.evaluation.results import Comparison, EvaluationResult, ModelResult, Score, TestSetResult, row_label
from nemo_distill.support.files import sha256

SIZES = {"teacher": 95_000_000, "plain": 19_000_000, "student": 19_000_000, "bare": 19_000_000}


def a_model(label: str, parameters: int, first: int) -> ModelResult:
    return ModelResult(
        label, f"{label}.nemo", f"hash of {label}", 4 * parameters, parameters, compression=first / parameters
    )


def a_score(model: str, test_set: str, bleu: float, seconds: float = 10.0) -> Score:
    return made_up_results.a_score(model, test_set, bleu, bleu + 20, seconds, ("tok:13a", "nc:6"))


def an_evaluation(
    seed: int, bleu: dict[str, float], test_sets: tuple[str, ...] = ("wmt19", "wmt20")
) -> EvaluationResult:
    """A teacher and seeded models of a fifth of its size; on wmt20 each is 5 BLEU better than on wmt19."""
    labels = {name: name if name == "teacher" else f"{name}@seed{seed}" for name in bleu}
    return EvaluationResult(
        models=[a_model(labels[name], SIZES[name], SIZES[next(iter(bleu))]) for name in bleu],
        test_sets=[TestSetResult(name, "s", "t", f"source of {name}", f"target of {name}", 100) for name in test_sets],
        scores=[
            a_score(labels[name], test, value + 5 * (test == "wmt20"))
            for name, value in bleu.items()
            for test in test_sets
        ],
        comparisons=[
            Comparison(
                *("wmt19", "BLEU", labels["student"], labels["plain"], bleu["student"], bleu["plain"]),
                *(0.0004, 1000, "ar:1000|seed:12345|tok:13a"),
            )
        ],
    )


@pytest.fixture
def evaluations() -> list[EvaluationResult]:
    return [
        an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 32.0}),
        an_evaluation(2, {"teacher": 40.0, "plain": 31.0, "student": 34.0}),
        an_evaluation(3, {"teacher": 40.0, "plain": 32.0, "student": 36.0}),
    ]


def test_threads_are_those_of_the_result_whose_times_count(evaluations):
    """Of a result without times and one with them, the speed was said to be of the threads of the former."""
    timed = [replace(score, threads=16) for score in evaluations[0].scores]
    untimed = [replace(score, seconds=None, sentences_per_second=None, threads=1) for score in timed]
    results = [replace(evaluations[0], scores=scores) for scores in (untimed, timed)]
    for given in (results, results[::-1]):
        report = build_report(given)
        assert report.engines == ["nemo on cpu, 16 threads, beam 4"]
        assert report.rows[0].sentences_per_second.mean == 10.0
    assert build_report(results[:1]).engines == ["nemo on cpu, 1 thread, beam 4"]


def table(markdown: str) -> list[list[str]]:
    """Return the cells of the first table."""
    start = markdown.index("| Model")
    lines = markdown[start:].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_seeds_become_one_row(evaluations):
    report = build_report(evaluations)
    assert [row.label for row in report.rows] == ["teacher", "plain", "student"]
    teacher, plain, student = report.rows
    assert teacher.models == ["teacher"]
    assert student.models == ["student@seed1", "student@seed2", "student@seed3"]
    assert student.bleu["wmt19"] == Statistic(34.0, 2.0, 3)
    assert plain.bleu["wmt20"] == Statistic(36.0, 1.0, 3)
    assert teacher.bleu["wmt19"] == Statistic(40.0, None, 1)
    assert student.chrf["wmt19"].mean == pytest.approx(54.0)
    assert (teacher.compression, student.compression) == (1.0, 5.0)


def test_a_teacher_that_is_hardly_better_is_told(evaluations):
    """In the report itself: a share of a gap that is chance says nothing. At least half of the seeds must tell."""

    def noted(*p_values: float, is_turned: bool = False) -> bool:
        order = -1 if is_turned else 1
        found = [
            Comparison(
                *("wmt20", "BLEU", *("teacher", f"plain@seed{seed}")[::order], *(45.0, score.bleu)[::order]),
                *(p, 1000, "ar:1000|tok:13a"),
            )
            for seed, p in enumerate(p_values, start=1)
            for score in evaluations[seed - 1].scores
            if (score.model, score.test_set) == (f"plain@seed{seed}", "wmt20")
        ]
        given = [replace(evaluations[0], comparisons=found), *evaluations[1:]]
        notes = build_report(given, teacher="teacher", plain="plain").notes()
        return any("teacher is not ahead of plain beyond chance on wmt20: there is little" in note for note in notes)

    assert not noted()
    assert not noted(0.01, 0.02, 0.3)
    assert noted(0.01, 0.2, 0.3)
    assert noted(0.05)
    assert noted(0.05, is_turned=True)
    assert not noted(0.01, is_turned=True)


def test_translations_that_are_too_short_are_told(evaluations):
    """With BLEU's brevity penalty, exp(1 - 1 / ratio) below 1 (Papineni et al. 2002); of older results nothing."""

    def notes() -> str:
        return " ".join(build_report(evaluations, teacher="teacher", plain="plain").notes())

    assert "brevity" not in notes()
    for evaluation in evaluations:
        for score in evaluation.scores:
            score.length_ratio = 0.8 if score.model == "teacher" else 0.95 if score.test_set == "wmt19" else 1.2
    assert "shorter" in notes()
    assert (
        "multiplied by a brevity penalty, and in brackets their words by the references': teacher 0.78 (0.80). "
        in (notes())
    )
    assert notes().count("brevity") == 2  # a test set each
    assert "empty" not in notes()
    ratios = {"plain@seed1": 0.0, "student@seed1": 1.1, "student@seed2": 0.8, "student@seed3": 0.5}
    for evaluation in evaluations:
        for score in evaluation.scores:
            score.length_ratio = ratios.get(score.model, 1.0)
    assert "model whose translations of wmt19 are all empty: plain. A share" in notes()
    penalty = (1 + math.exp(1 - 1 / 0.8) + math.exp(1 - 1 / 0.5)) / 3  # the mean of theirs, not that of the mean
    assert f"by the references': plain 0.67 (0.67), student {penalty:.2f} (0.80). " in notes()


def test_a_locale_without_a_tables_signs_ends_no_report(evaluations, tmp_path, monkeypatch):
    evaluations[0].save(tmp_path / "evaluation")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    command = ["report", "--results", str(tmp_path / "evaluation"), "--output-dir", str(tmp_path / "report")]
    assert cli.main(command) == 0
    sys.stdout.flush()
    assert b"student@seed1 \\u2212 plain@seed1" in sys.stdout.buffer.getvalue()


def test_p_of_an_older_release_is_marked(evaluations):
    [result] = evaluations[:1]
    assert "Approximate randomization, 1,000 trials, two-sided p." in build_report([result]).markdown()
    [found] = result.comparisons
    older = replace(result, comparisons=[replace(found, signature=found.signature.replace("ar:", "bs:"))])
    markdown = build_report([older]).markdown()
    assert " | < 0.001 † |" in markdown
    assert "p marked † is of an older release's paired bootstrap, which is too small" in markdown
    assert "Approximate" not in markdown


def test_table_has_the_published_form(evaluations):
    markdown = build_report(evaluations, teacher="teacher", plain="plain").markdown()
    assert table(markdown) == [
        ["Model", "wmt19", "wmt20", "Params.", "Compression", "Sentences/s", "Gap closed, wmt19", "Gap closed, wmt20"],
        [":---", *["---:"] * 7],
        ["teacher", "40.0", "45.0", "95.0 M", "1.0", "10.0", "", ""],
        ["plain", "31.0 ± 1.0 (n=3)", "36.0 ± 1.0 (n=3)", "19.0 M", "5.0", "10.0 ± 0.0 (n=3)", "", ""],
        ["student", "34.0 ± 2.0 (n=3)", "39.0 ± 2.0 (n=3)", "19.0 M", "5.0", "10.0 ± 0.0 (n=3)", "33 %", "33 %"],
    ]
    assert "BLEU is sacreBLEU, signature `tok:13a`." in markdown
    assert "nemo on cpu, 2 threads, beam 4" in markdown
    assert "sample standard deviation over n seeds" in markdown
    assert "| wmt19 | student@seed2 − plain@seed2 | BLEU | +3.0 | < 0.001 |" in markdown


def test_one_evaluation_without_seeds_or_roles():
    markdown = build_report([an_evaluation(1, {"plain": 30.0, "student": 32.0}, ("wmt19",))]).markdown()
    assert table(markdown)[0] == ["Model", "wmt19", "Params.", "Compression", "Sentences/s"]
    assert table(markdown)[3] == ["student", "32.0", "19.0 M", "1.0", "10.0"]
    assert "Gap closed" not in markdown
    assert "standard deviation" not in markdown


@pytest.mark.parametrize(
    ("teacher", "plain", "student", "cell"),
    [
        *((40, 30, 35, "50 %"), (40, 30, 42, "120 %"), (40, 30, 29, "-10 %"), (40, 30, 29.99, "0 %")),
        *((30, 30, 35, "n/a"), (25, 30, 35, "n/a"), (30.04, 30, 35, "n/a")),
    ],
)
def test_share_of_the_gap(teacher, plain, student, cell):
    evaluation = an_evaluation(1, {"teacher": teacher, "plain": plain, "student": student}, ("wmt19",))
    assert table(build_report([evaluation], "teacher", "plain").markdown())[4][-1] == cell


def test_what_patience_ended_is_said():
    evaluation = an_evaluation(1, {"plain": 30.0, "student": 32.0}, ("wmt19",))
    evaluation.models[0] = replace(evaluation.models[0], converged=True, steps=6500, stopped_after=5)
    evaluation.models[1] = replace(evaluation.models[1], converged=True, steps=4000)
    text = build_report([evaluation]).markdown()
    name = evaluation.models[0].label
    assert f"Converged: {name} stopped after 5 validations without gain at step 6,500." in text


def test_a_loss_that_rose_is_said():
    """Of a twin it makes the share of the gap too large."""
    evaluation = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 32.0}, ("wmt19",))
    evaluation.models[2] = replace(evaluation.models[2], loss_rise=0.03, least_loss_at=4000)
    text = build_report([evaluation], "teacher", "plain").markdown()
    assert "Loss in validation rose before the end: student@seed1 by 3 % since step 4,000, as where" in text
    assert "Shares of the gap from a better plain model" not in text
    evaluation.models[1] = replace(evaluation.models[1], loss_rise=0.139, least_loss_at=8500)
    text = build_report([evaluation], "teacher", "plain").markdown()
    assert "rose before the end: plain@seed1 by 14 % since step 8,500, student@seed1 by 3 % since step 4,000" in text
    assert "Shares of the gap from a better plain model are smaller, those above 100 % larger." in text


def test_the_gap_is_measured_from_the_right_twin_and_marked_where_a_run_was_still_improving():
    sizes = {"teacher": 40.0, "plain": 30.0, "student": 35.0}
    evaluation = an_evaluation(1, sizes, ("wmt19",))
    started = [replace(evaluation.models[1], label="plain_started", archive_sha256="s", converged=True)]
    evaluation.models += [*started, replace(started[0], label="student_started", archive_sha256="t", converged=True)]
    evaluation.scores += [a_score("plain_started", "wmt19", 36.0), a_score("student_started", "wmt19", 38.0)]
    evaluation.models[2].converged = False
    twins = {"student_started": "plain_started"}
    report = build_report([evaluation], "teacher", "plain", twins=twins)
    rows = {cells[0]: cells[-1] for cells in table(report.markdown())[2:]}
    assert rows == {
        "teacher": "",
        "plain": "",
        "student (not converged)": "50 % ‡",
        "plain_started": "60 %",
        "student_started": "50 %",  # of 36 to 40, not 80 % of 30 to 40
    }
    text = report.markdown()
    assert "Of student_started it is measured from plain_started in place of plain" in text
    assert "‡ The model, its twin or the teacher had not converged" in text
    p = 0.8, 1000, "ar:1000|tok:13a"
    evaluation.comparisons = [Comparison("wmt19", "BLEU", "teacher", "plain_started", 40.0, 36.0, *p)]
    text = build_report([evaluation], "teacher", "plain", twins=twins).markdown()
    assert "teacher is not ahead of plain_started beyond chance on wmt19: there is little" in text
    evaluation.models[1].converged = False  # the twin: all that is measured from it
    shown = table(build_report([evaluation], "teacher", "plain", twins=twins).markdown())
    assert [cells[-1] for cells in shown[4:]] == ["50 % ‡", "60 % ‡", "50 %"]
    with pytest.raises(InputError, match="twins: 'other' is no row"):
        build_report([evaluation], "teacher", "plain", twins={"student_started": "other"})
    for wrong in ({"student_started": "student_started"}, twins | {"plain_started": "student_started"}):
        with pytest.raises(InputError, match="is a twin and has one"):
            build_report([evaluation], "teacher", "plain", twins=wrong)
    with pytest.raises(InputError, match="twins are for the share of the gap closed"):
        build_report([evaluation], twins=twins)


def test_of_several_teachers_the_gap_is_to_the_best_and_none_is_a_student():
    evaluation = an_evaluation(1, {"teacher": 38.0, "plain": 30.0, "student": 34.0}, ("wmt19",))
    evaluation.models.append(replace(evaluation.models[0], label="better", archive_sha256="b", converged=False))
    evaluation.scores.append(a_score("better", "wmt19", 40.0))
    teachers = ["teacher", "better"]
    report = build_report([evaluation], teachers, "plain")
    assert (report.teacher, report.teachers) == ("better", teachers)
    rows = {cells[0]: cells[-1] for cells in table(report.markdown())[2:]}
    assert rows == {"teacher": "", "better (not converged)": "", "plain": "", "student": "40 % ‡"}
    assert "(better − plain) in BLEU, n/a where" in report.markdown()
    assert "better is the best of the teachers teacher, better." in report.markdown()
    assert "the best of the teachers" not in build_report([evaluation], "teacher", "plain").markdown()
    evaluation.comparisons.append(
        Comparison("wmt19", "BLEU", "better", "plain@seed1", 40.0, 30.0, 0.2, 1000, "ar:1000")
    )
    assert (
        "better is not ahead of plain beyond chance on wmt19"
        in build_report([evaluation], teachers, "plain").markdown()
    )
    with pytest.raises(InputError, match="teachers: got better, better; name each once"):
        build_report([evaluation], ["better", "better"], "plain")
    with pytest.raises(InputError, match="twins: 'better' is no row that can have or be a twin"):
        build_report([evaluation], teachers, "plain", twins={"better": "plain"})
    evaluation.scores[-1] = replace(evaluation.scores[-1], test_set="other")
    evaluation.test_sets.append(TestSetResult("other", "s", "t", "source of other", "target of other", 100))
    with pytest.raises(InputError, match="the teachers teacher, better share no test set, so none is the best"):
        build_report([evaluation], teachers, "plain")


def test_a_plain_row_or_twin_that_learnt_from_a_teacher_is_refused(evaluations):
    evaluations[1].models[2].taught = True
    with pytest.raises(InputError, match=r"twins: 'student' learnt from a teacher \(student@seed2\); give"):
        build_report(evaluations, "teacher", "plain", twins={"plain": "student"})
    with pytest.raises(InputError, match="the plain model 'student' learnt from a teacher"):
        build_report(evaluations, "teacher", "student")
    evaluations[1].models[2].taught = None  # of an earlier version
    build_report(evaluations, "teacher", "student")


def test_a_gap_over_a_row_of_another_start_is_marked():
    evaluation = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    started = "from_teacher: every_nth"
    for model, start in zip(evaluation.models[1:], ("random", started), strict=True):
        model.start = start
    note = "§ The model starts from other weights than its twin"
    report = build_report([evaluation], "teacher", "plain")
    assert table(report.markdown())[4][-1] == "50 % §"
    assert note in report.markdown()
    assert report.rows[2].starts == [started]
    for start in (started, None):  # the same, or not known
        evaluation.models[1].start = start
        text = build_report([evaluation], "teacher", "plain").markdown()
        assert table(text)[4][-1] == "50 %"
        assert note not in text


def test_a_gap_over_a_row_of_another_dropout_is_marked():
    evaluation = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    for model, dropout in zip(evaluation.models, ("0.1", "0.1", "0"), strict=True):
        model.dropout = dropout
    report = build_report([evaluation], "teacher", "plain")
    assert table(report.markdown())[4][-1] == "50 % ¶"
    assert "¶ student was trained with dropout 0, plain with 0.1: the share is of that too." in report.markdown()
    for dropout in ("0", None):  # the same, or not known
        evaluation.models[1].dropout = dropout
        text = build_report([evaluation], "teacher", "plain").markdown()
        assert table(text)[4][-1] == "50 %"
        assert "¶" not in text


def test_marks_are_explained_where_there_is_a_share_alone():
    evaluation = an_evaluation(1, {"teacher": 30.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    for number, model in enumerate(evaluation.models):
        model.dropout, model.start, model.parameters, model.converged = f"0.{number}", f"{number}", 5 - number, False
        model.compression = 5 / model.parameters
    text = build_report([evaluation], "teacher", "plain").markdown()
    assert table(text)[4][-1] == "n/a"
    assert not {"‡", "§", "¶", "◊"} & set(text)


def test_a_twin_of_another_start_is_not_said_to_be_of_the_same():
    bleu = {"teacher": 40.0, "plain": 30.0, "student": 35.0, "bare": 31.0}
    evaluation = an_evaluation(1, bleu, ("wmt19",))
    for model, start in zip(evaluation.models, ("random", "random", "layers", "random"), strict=True):
        model.start = start
    text = build_report([evaluation], "teacher", "plain", twins={"student": "bare"}).markdown()
    assert "Of student it is measured from bare in place of plain: trained on labels alone, and more like it" in text
    assert "same start" not in text.replace("A plain row of the same start", "")
    assert "§ The model starts from other weights than its twin" in text


def test_a_gap_over_a_row_of_another_size_is_marked():
    evaluation = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    for model, parameters in zip(evaluation.models, (4000, 1000, 2000), strict=True):
        model.parameters, model.compression = parameters, 4000 / parameters
    text = build_report([evaluation], "teacher", "plain").markdown()
    assert table(text)[4][-1] == "50 % ◊"
    assert "◊ student has 2,000 weights, plain 1,000: the share is of their sizes too." in text
    evaluation.models[1].parameters = 2000
    text = build_report([evaluation], "teacher", "plain").markdown()
    assert table(text)[4][-1] == "50 %"
    assert "◊" not in text


def test_the_dropout_of_an_archive_is_one_number_or_where_it_is():
    def said(encoder: dict, decoder: dict) -> str | None:
        return dropout_of(OmegaConf.create({"encoder": encoder, "decoder": decoder}))

    nemo, same = {"library": "nemo"}, dict.fromkeys(DROPOUTS, 0.1)
    assert said(nemo, {**nemo, "ffn_dropout": None}) == "0"
    assert said(nemo | same, nemo | same) == "0.1"
    assert said(nemo | {"attn_score_dropout": 0.25, "ffn_dropout": 0.0}, nemo) == "encoder.attn_score_dropout 0.25"
    assert said({}, {"ffn_dropout": 0.1}) == "decoder.ffn_dropout 0.1"  # NeMo takes its own where none is named
    for library in ("huggingface", "megatron"):  # whose keys have other names
        assert said({"library": library}, nemo) is None
    assert dropout_of(OmegaConf.create({"beam_size": 4})) is None


def test_what_an_earlier_version_did_not_note_contradicts_nothing():
    newer = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    older = an_evaluation(1, {"teacher": 40.0, "plain": 30.0, "student": 35.0}, ("wmt19",))
    newer.models[2].converged, newer.models[2].start = False, "random"
    for given in ([older, newer], [newer, older]):
        row = build_report(given).rows[2]
        assert (row.not_converged, row.starts) == (["student@seed1"], ["random"])
    older.models[2].start = "from_teacher: last"
    with pytest.raises(InputError, match="contradict each other: of student@seed1, start is"):
        build_report([older, newer])


def test_some_seeds_that_had_not_converged_are_counted(evaluations):
    evaluations[1].models[2].converged = False
    evaluations[0].models[2].converged = True
    markdown = build_report(evaluations, "teacher", "plain").markdown()
    assert [cells[0] for cells in table(markdown)[2:]] == ["teacher", "plain", "student (1 of 3 not converged)"]
    assert "Not converged: still improving in its validation" in markdown


def test_engines_are_told_apart(evaluations):
    for score in evaluations[0].scores:
        score.engine = "ctranslate2 int8"
    for evaluation in evaluations[1:]:
        evaluation.scores = [score for score in evaluation.scores if score.model != "teacher"]
    markdown = build_report(evaluations).markdown()
    assert "decoded by ctranslate2 int8 on cpu, 2 threads, beam 4 (teacher, plain, student); nemo on cpu" in markdown
    assert "beam 4 (plain, student)." in markdown


def test_speed_is_over_all_test_sets():
    evaluation = an_evaluation(1, {"plain": 30.0, "student": 32.0})
    evaluation.scores[0].seconds = 40.0
    assert build_report([evaluation]).rows[0].sentences_per_second.mean == pytest.approx(200 / 50)


def test_results_over_different_test_sets_are_joined():
    first = an_evaluation(1, {"plain": 30.0, "student": 32.0}, ("wmt19",))
    second = an_evaluation(1, {"plain": 30.0, "student": 32.0, "teacher": 40.0}, ("wmt20",))
    report = build_report([first, second])
    assert report.test_sets == ["wmt19", "wmt20"]
    assert table(report.markdown())[2][:3] == ["plain", "30.0", "35.0"]
    assert table(report.markdown())[4][:3] == ["teacher", "–", "45.0"]


@pytest.mark.parametrize(
    ("label", "row"),
    [
        ("a@seed1", "a"),
        ("a@seed", "a"),
        ("a@seed=3", "a"),
        ("a@home", "a@home"),
        ("a.b@seed2", "a.b"),
        ("seed1", "seed1"),
    ],
)
def test_row_labels(label, row):
    assert row_label(label) == row


def change_archive(evaluations):
    evaluations[1].models[0].archive_sha256 = "another"


def change_test_set(evaluations):
    evaluations[2].test_sets[1].target_sha256 = "another"


def change_score(evaluations):
    evaluations[1].scores[0].chrf += 1


def change_hypotheses(evaluations):
    evaluations[1].scores[0].hypotheses_sha256 = "another"


def change_engine(evaluations):
    evaluations[2].scores[1].engine = "ctranslate2 int8"


def change_bytes(evaluations):
    evaluations[1].models[0].archive_bytes += 1


def change_sentences(evaluations):
    evaluations[1].test_sets[0].sentences += 1


def change_comparison(evaluations):
    evaluations.append(replace(evaluations[0], comparisons=[replace(evaluations[0].comparisons[0], p_value=0.5)]))


def one_archive(evaluations):
    evaluations[1].models[2].archive_sha256 = evaluations[0].models[2].archive_sha256


def change_size(evaluations):
    evaluations[1].models[2].parameters += 1


@pytest.mark.parametrize(
    ("change", "roles", "message"),
    [
        (change_archive, {}, "the label 'teacher' stands for two archives.*teacher@seed1"),
        (change_test_set, {}, "the test set 'wmt20' stands for different files"),
        (
            change_size,
            {},
            "the seeds of 'student' differ in parameters .student@seed1 19000000, student@seed2 19000001",
        ),
        (
            change_score,
            {},
            "'result 1' and 'result 2' contradict .* teacher, wmt19, chrf is 60.0 in .* and 61.0 in",
        ),
        (change_hypotheses, {}, "hypotheses_sha256 is hash in the first and another in the second; give one of them"),
        (change_engine, {}, "'result 1' and 'result 3' .*engine is nemo in the first and ctranslate2 int8 in"),
        (change_bytes, {}, "of teacher, archive_bytes is 380000000 in the first and 380000001 in the second"),
        (change_sentences, {}, "of wmt19, sentences is 100 in the first and 101 in the second"),
        (change_comparison, {}, "of student@seed1, plain@seed1, wmt19, BLEU, p_value is 0.0004 in the first and 0.5"),
        (one_archive, {}, "'student@seed1' and 'student@seed2' are one archive; give each seed of 'student' its own"),
        (list.clear, {}, "there is no score to report"),
        (None, {"teacher": "teacher"}, "needs both a teacher and a plain model"),
        (None, {"plain": "plain"}, "needs both a teacher and a plain model"),
        (
            None,
            {"teacher": "tutor", "plain": "plain"},
            "no row 'tutor' to be the teacher; give one of teacher, plain, st",
        ),
        (None, {"teacher": "teacher", "plain": "plain@seed1"}, "no row 'plain@seed1' to be the plain model"),
        (None, {"teacher": "plain", "plain": "plain"}, "teacher and plain model are both 'plain'"),
    ],
)
def test_what_does_not_fit_is_refused(evaluations, change, roles, message):
    if change is not None:
        change(evaluations)
    with pytest.raises(InputError, match=message):
        build_report(evaluations, **roles)


@pytest.fixture
def saved(evaluations, tmp_path) -> list[str]:
    paths = []
    for number, evaluation in enumerate(evaluations):
        (tmp_path / f"run{number}").mkdir()
        evaluation.save(tmp_path / f"run{number}")
        paths.append(str(tmp_path / f"run{number}"))
    return paths


def test_command_line_writes_four_files(saved, evaluations, tmp_path, capsys):
    output = tmp_path / "report"
    arguments = [
        "report",
        "--results",
        *saved,
        "--output-dir",
        str(output),
        "--teacher",
        "teacher",
        "--plain",
        "plain",
    ]
    assert cli.main(arguments) == 0
    assert "| 34.0 ± 2.0 (n=3) |" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == [
        "quality_vs_size.png",
        "report.html",
        "report.json",
        "report.manifest.json",
        "report.md",
    ]
    markdown = (output / "report.md").read_text("utf-8")
    assert markdown.endswith("![BLEU against number of parameters](quality_vs_size.png)\n")
    assert "worse than its teacher: [report.html](report.html)." in markdown
    assert "## Significance" not in markdown
    expected = build_report(evaluations, "teacher", "plain")
    assert json.loads((output / "report.json").read_text("utf-8")) == asdict(expected)

    assert cli.main(arguments) == 0
    assert f"{output}: already there, hashes verified" in capsys.readouterr().out
    assert cli.main([*arguments, "--format", "markdown"]) == 2
    assert "already holds another run, made with formats" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_what_is_in_the_way_is_told_before_pictures_are_drawn(saved, tmp_path, monkeypatch):
    (tmp_path / "out/report.md").mkdir(parents=True)
    drawn = []
    monkeypatch.setattr("nemo_distill.evaluation.report.plot_quality_against_size", drawn.append)
    with pytest.raises(InputError, match="report.md' does not prove to be of an earlier run"):
        write_report(saved, tmp_path / "out", formats=["markdown", "plot"])
    assert not drawn


def test_where_no_teacher_is_named_none_is_spoken_of(tmp_path, capsys):
    """What each row is compared with is the first one, which may be a plain model."""
    result = an_evaluation(1, {"plain": 30.0, "student": 32.0}, ("wmt19",))
    result.save(tmp_path)
    assert cli.main(["report", "--results", str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 0
    assert "report.html shows where each student is worse than plain, in a browser" in capsys.readouterr().out
    assert "each student is worse than plain: [report.html]" in (tmp_path / "out/report.md").read_text("utf-8")


def test_formats_can_be_chosen(saved, tmp_path):
    write_report([f"{saved[0]}/results.json"], saved[0], formats=["markdown"])  # beside the results
    alone = (tmp_path / "run0/report.md").read_text("utf-8")
    assert "quality_vs_size" not in alone
    assert "## Significance" in alone
    assert sorted(path.name for path in (tmp_path / "run0").iterdir()) == [
        "report.manifest.json",
        "report.md",
        "results.json",
    ]
    with pytest.raises(InputError, match="format 'pdf': give any of markdown, json, plot"):
        write_report(saved, tmp_path / "out", formats=["pdf"])


def test_what_two_results_agree_on_is_merged(saved, evaluations, tmp_path):
    """Times may differ; one result may be given twice."""
    for score in evaluations[1].scores:
        score.seconds, score.sentences_per_second, score.threads = 20.0, 5.0, 1
    evaluations[1].models[0].archive = "elsewhere.nemo"
    assert build_report([*evaluations, *evaluations]) == build_report(evaluations)


def test_results_that_contradict_each_other_are_named(saved, tmp_path, capsys):
    path = tmp_path / "run1/results.json"
    path.write_text(path.read_text("utf-8").replace('"length_penalty": 0.6', '"length_penalty": 0.5'), "utf-8")
    assert cli.main(["report", "--results", *saved, "--output-dir", str(tmp_path / "out")]) == 2
    assert f"'{saved[0]}' and '{saved[1]}' contradict each other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["none", "run0/none.json"])
def test_missing_results_are_named(saved, tmp_path, path, capsys):
    assert cli.main(["report", "--results", str(tmp_path / path), "--output-dir", str(tmp_path / "out")]) == 2
    assert path in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def png_size(content: bytes) -> tuple[int, int]:
    header = content[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


@pytest.mark.parametrize(
    "series",
    [
        {"one": [Point("only", 10_000, 30.0, None)]},
        {
            f"test{number}": [Point("a", 10_000, 30.0 + number, 1.0), Point("b", 10**9, 40.0, None)]
            for number in range(9)
        },
        {"some": [Point("a", 10_000, 30.0, None)], "none": []},
    ],
)
def test_plot_of_any_shape(series):
    width, height = png_size(plot_quality_against_size(series))
    assert width > height > 500


def test_plot_shows_every_model(monkeypatch):
    from matplotlib.axes import Axes

    names, original = [], Axes.annotate
    monkeypatch.setattr(
        Axes, "annotate", lambda axes, text, *a, **k: names.append(text) or original(axes, text, *a, **k)
    )
    points = [Point("big", 10**7, 30.0, None), Point("small", 10**6, 20.0, 0.5)]
    plot_quality_against_size({"x": points, "y": [replace(point, bleu=point.bleu + 1) for point in points]})
    assert sorted(names) == ["big", "small"]


def test_labels_move_apart():
    labels = [_Box(10, 50, 100.0), _Box(12, 40, 101.0), _Box(12, 40, 96.0), _Box(200, 240, 100.0)]
    heights = _spread(labels, markers=[_Box(20, 28, 100.0)])
    boxes = [label._replace(height=height) for label, height in zip(labels, heights, strict=True)]
    assert not any(one.covers(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert not any(box.covers(_Box(20, 28, 100.0)) for box in boxes)
    assert heights[3] == 100.0


def test_scores_of_other_tokenizers_are_refused():
    """They would share a column, a mean and a gap; another release of sacreBLEU is told beside the table."""
    first, other = (made_up_results.an_evaluation((label,), ("wmt19",)) for label in ("teacher", "student"))
    first.comparisons, other.comparisons = [], []
    other.scores[0].bleu_signature = "nrefs:1|tok:char"
    message = r"BLEU on 'wmt19' is of 'teacher' nrefs:1.tok:13a in 'a' and of 'student' nrefs:1.tok:char in 'b': they"
    with pytest.raises(InputError, match=message):
        build_report([first, other], names=["a", "b"])
    other.scores[0].bleu_signature = "nrefs:1|tok:13a|version:9"
    report = build_report([first, other], names=["a", "b"])
    assert report.bleu_signatures == ["nrefs:1|tok:13a", "nrefs:1|tok:13a|version:9"]


def test_no_share_is_shown_where_the_teacher_was_not_scored():
    both = made_up_results.an_evaluation(("plain", "student"), ("b",))
    all_three = made_up_results.an_evaluation(("plain", "student", "teacher"), ("a",))
    both.comparisons, all_three.comparisons = [], []
    report = build_report([all_three, both], teacher="teacher", plain="plain")
    header, rows = report.main_table()
    shares = [row[header.index("Gap closed, a") :] for row in rows if row[0].startswith("student")]
    assert shares == [["50 %", "–"]]


def test_a_page_that_lacked_a_file_is_not_taken_for_one_that_has_it(tiny_corpus, tmp_path):
    result = made_up_results.an_evaluation(("teacher", "student"), ("t",))
    result.comparisons = []
    lines = (tiny_corpus / "test.de").read_text("utf-8").splitlines()
    files = {"source": "test.de", "target": "test.en"}
    for side, name in files.items():
        (tmp_path / name).write_bytes((tiny_corpus / name).read_bytes())
        setattr(result.test_sets[0], side, str(tmp_path / name))
        setattr(result.test_sets[0], f"{side}_sha256", sha256(tmp_path / name))
    result.test_sets[0].sentences = len(lines)
    (tmp_path / "hypotheses").mkdir()
    for score in result.scores:
        hypotheses = tmp_path / score.hypotheses
        hypotheses.write_bytes((tiny_corpus / "test.en").read_bytes())
        score.hypotheses_sha256 = sha256(hypotheses)
        score.decoded, score.sentences_per_second = len(lines), len(lines) / 10.0
    for number, model in enumerate(result.models):
        model.archive_sha256 = str(number) * 64
    result.save(tmp_path)
    away = (tmp_path / "test.de").rename(tmp_path / "away.de")
    write_report([tmp_path], tmp_path / "out", ["page"])
    without = (tmp_path / "out" / "report.html").read_text("utf-8")
    away.rename(tmp_path / "test.de")
    with pytest.raises(InputError, match="overwrite"):
        write_report([tmp_path], tmp_path / "out", ["page"])
    write_report([tmp_path], tmp_path / "out", ["page"], overwrite=True)
    assert "By length of the source" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "By length of the source" not in without
    assert find_or_write([tmp_path], tmp_path / "out", ["page"], None, None, False, None)[1]
