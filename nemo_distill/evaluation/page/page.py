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
"""All of the page together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.evaluation.page.bootstrap import SAMPLES
from nemo_distill.evaluation.page.curves import Curves, read_curves
from nemo_distill.evaluation.page.figures import curves_svg, quality_svg, table_svg
from nemo_distill.evaluation.page.inputs import TestText, read_texts
from nemo_distill.evaluation.page.rendering import render
from nemo_distill.evaluation.page.sentences import Sentence, choose_sentences, sentence_scores
from nemo_distill.evaluation.page.tables import Analysis, Table, wanted_words
from nemo_distill.evaluation.page.times import times_notes, times_table
from nemo_distill.evaluation.page.words import TrainingCounts, count_training_words
from nemo_distill.evaluation.plot import LATENCY, SIZE, Point
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.speed_results import ALL_CORES, SpeedResult
from nemo_distill.evaluation.summary import Report
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import plain_text

_MOST_STUDENTS = 30


@dataclass
class _View:
    """A student on a test set."""

    student: str
    test_set: str
    sentences_in_all: int
    tables: list[Table]
    figures: list[tuple[str, str]]
    """Title and SVG."""
    sentences: list[Sentence]
    made_by: list[str]
    """Labels of the models whose translations are shown."""


@dataclass
class PageInputs:
    """What a page is made of beside the report, read where it was when it was evaluated."""

    texts: list[TestText]
    curves: Curves
    missing: list[str]
    """What is gone, has changed since or is damaged, one line each: the page leaves it out, and says so."""

    @classmethod
    def read(cls, report: Report, results: Sequence[EvaluationResult], places: Sequence[Path]) -> "PageInputs":
        """Read it.

        Args:
            report: of these results.
            results: of evaluations.
            places: their directories, where the hypotheses are.
        """
        texts, missing = read_texts(results, places)
        rows = {row.label: row.models for row in report.rows}
        curves, damaged = read_curves(rows, [model for result in results for model in result.models])
        return cls(texts, curves, missing + damaged)


def build_page(
    report: Report,
    inputs: PageInputs,
    train: Sequence[tuple[str, str]] = (),
    speeds: Sequence[SpeedResult] = (),
    spent: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
) -> str:
    """Return a report as one HTML file that needs no network.

    Args:
        report: its teacher and the twins of its rows are what students are compared with; without a teacher, the first
            row is.
        inputs: of this report.
        train: pairs of files of the training text, source and target; without it, what needs it is left out.
        speeds: measurements, for quality against latency.
        spent: for the label of a row the seconds that its labels or its cache took, before its first step.
        shares: of these what is its own share, where other rows use them too.

    Raises:
        InputError: a file of the training text cannot be read; `spent` names no row, or a share is more than that.
    """
    rows = {row.label: row.models for row in report.rows}
    spent, shares = spent or {}, shares or {}
    _check_spent(list(rows), spent, shares)
    texts, curves, left_out = inputs.texts, inputs.curves, [*inputs.missing]
    training = count_training_words(train, wanted_words(texts)) if train and texts else None
    if not train:
        left_out.append(
            "what needs the training text (rarest word, recall by frequency, words that exist nowhere): "
            "nemo-distill report --train SOURCE TARGET"
        )
    pairs = _pairs(report)
    if rest := list(pairs)[_MOST_STUDENTS:]:
        left_out.append(f"{len(rest)} students of lower BLEU: {plain_text(', '.join(rest), 2000)}")
        pairs = {student: pairs[student] for student in list(pairs)[:_MOST_STUDENTS]}
    views = _views(report, texts, training, pairs)
    pictures = _curves(curves, pairs, spent)
    twins = {student: row for student, (_, *twin, _) in pairs.items() for row in twin}
    return render(
        title=f"Report: {', '.join(report.test_sets)}",
        left_out=left_out,
        main_table=report.main_table(),
        notes=report.notes(str, str),
        chrf_table=report.chrf_table(),
        chrf_notes=report.chrf_notes(str, str),
        comparisons=report.significance_table(),
        comparison_notes=report.significance_notes(),
        quality=_quality(report, speeds),
        speeds=[(*speed.table(), speed.notes(lambda text, limit=200: text, str)) for speed in speeds],
        curves=pictures,
        curve_notes=_curve_notes(rows, curves, spent),
        times=times_table(curves, twins, spent, shares),
        time_notes=times_notes(spent, shares),
        views=views,
        standard=report.standard,
        students=[label for label in pairs if label in {*dict(pictures), *(view.student for view in views)}],
        test_sets=list(dict.fromkeys(view.test_set for view in views)),
        samples=SAMPLES,
    )


def _check_spent(rows: Sequence[str], spent: Mapping[str, float], shares: Mapping[str, float]) -> None:
    for label in (*spent, *shares):
        if label not in rows:
            raise InputError(f"spent: there is no row '{plain_text(label)}'; the rows are {', '.join(rows)}")
    for label, share in shares.items():
        if share > (whole := spent.get(label, 0.0)):
            raise InputError(f"spent: of '{plain_text(label)}' the share is {share:g} s of {whole:g} s; give no more")


def _curve_notes(rows: Mapping[str, Sequence[str]], curves: Curves, spent: Mapping[str, float]) -> list[str]:
    notes = [
        "BLEU of the validations of each run, a line for each seed. Time is of training and validation, all starts "
        "of a run together; compare it only between runs on equal machines that did nothing else."
    ]
    shown = [f"{label} {seconds:,.0f} s" for label, seconds in spent.items() if label in curves]
    notes += [f"Labels and cache are counted in: {', '.join(shown)}."] if shown else []
    missing = [label for label in rows if label not in curves]
    notes += (
        [f"No record of BLEU that can be read lies beside the archives of {', '.join(missing)}."] if missing else []
    )
    return notes


def _quality(report: Report, speeds: Sequence[SpeedResult]) -> list[str]:
    figures = [quality_svg(report.points(), SIZE, "size")]
    rows = [(speed, row) for speed in speeds for row in speed.rows]
    told = [
        ("beam {}", lambda speed, row: row.beam_size),
        ("cores {}", lambda speed, row: row.cores or ALL_CORES),
        ("{}", lambda speed, row: speed.test_set),
        ("{}", lambda speed, row: speed.device),
        ("{} threads", lambda speed, row: row.threads or speed.threads),
    ]
    differing = [(form, of) for form, of in told if len({of(*each) for each in rows}) > 1]
    series: dict[str, list[Point]] = {}
    for speed, row in rows:
        name = ", ".join([row.engine, *(form.format(of(speed, row)) for form, of in differing)])
        series.setdefault(name, []).append(Point(row.model, row.latency_ms, row.bleu, None))
    return [*figures, quality_svg(series, LATENCY, "latency")] if series else figures


def _pairs(report: Report) -> dict[str, list[str]]:
    """Return the rows that each student is shown with: teacher, twin where it has one, itself. The best one first."""
    teacher = report.teacher or report.rows[0].label
    twins = {row.label: row.twin for row in report.rows}
    students = [label for label in twins if label != teacher and (report.teacher is None or twins[label])]
    students = [label for label in students if label not in twins.values()]
    students.sort(key=lambda label: -_best(report, label))
    return {label: [teacher, *filter(None, [twins[label]]), label] for label in students}


def _curves(
    curves: Curves, pairs: Mapping[str, Sequence[str]], spent: Mapping[str, float]
) -> list[tuple[str, list[str]]]:
    """Return for each student that has curves its pictures, against steps and against time."""
    found = []
    for number, (student, rows) in enumerate(pairs.items()):
        own = {row: curves[row] for row in rows if row in curves}
        if student in own:
            axes = (("steps", None), ("time", spent))
            found.append((student, [curves_svg(own, each, f"{name}.{number}") for name, each in axes]))
    return found


def _views(
    report: Report, texts: Sequence[TestText], training: TrainingCounts | None, pairs: Mapping[str, Sequence[str]]
) -> list[_View]:
    """Return each student on each test set."""
    views = []
    bar = progress_bar("measuring", len(texts) * len(pairs), "students", leave=False)
    for number, text in enumerate(texts):
        shown = {label for rows in pairs.values() for label in rows}
        analysis = Analysis(text, {row.label: row.models for row in report.rows if row.label in shown}, training)
        scores: dict = {}
        for student, (teacher, *twin, _) in pairs.items():
            tables = analysis.tables(student, teacher, twin[0] if twin else None)
            if tables:
                models = [analysis.rows[column][0] for column in tables[0].columns]
                for model in models:
                    if model not in scores:
                        scores[model] = sentence_scores(text, model)
                name = f"{number}.{student}"
                views.append(
                    _View(
                        student,
                        text.name,
                        len(text.sources),
                        tables,
                        [(each.title, table_svg(each, f"{name}.{each.title}")) for each in tables if each.is_drawn],
                        choose_sentences(text, models, [scores[model] for model in models]),
                        models,
                    )
                )
            bar.update()
    bar.close()
    return views


def _best(report: Report, label: str) -> float:
    """Return BLEU of a row on the first test set that it has."""
    scores: Mapping = next(row.bleu for row in report.rows if row.label == label)
    return next((scores[name].mean for name in report.test_sets if name in scores), 0.0)
