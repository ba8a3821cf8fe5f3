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
"""What must be known to read the main table of a report: how it was measured, and what a row may not be taken for."""

import math
import statistics
from collections.abc import Callable, Iterator

from nemo_distill.evaluation.rows import Measured

_SHORT = 0.9
"""Words of translations by those of the references, below which that is told: BLEU loses a tenth by it."""

Quote = Callable[[str], str]


def report_notes(report: Measured, say: Quote, sign: Quote) -> list[str]:
    """Return the notes, but for the signatures of scores.

    Args:
        report: all of it.
        say: quotes text from elsewhere.
        sign: quotes code.
    """
    return [
        *_on_figures(report, say),
        *_on_gaps(report, say),
        *_on_lengths(report, say, sign),
        *_on_training(report, say),
        *_on_twins(report, say, sign),
    ]


def _on_figures(report: Measured, say: Quote) -> Iterator[str]:
    yield (
        f"Compression is against {say(report.rows[0].label)}. Speed is raw text to raw text, "
        f"decoded by {'; '.join(map(say, report.engines))}."
    )
    if any(row.sentences_per_second is None for row in report.rows):
        yield "Sentences/s – : several processes decoded, which says nothing of a model's speed."
    if any(len(row.models) > 1 for row in report.rows):
        yield "± is the sample standard deviation over n seeds."


def _on_gaps(report: Measured, say: Quote) -> Iterator[str]:
    """Yield what is said of the share of the gap, and of the teachers and twins that it lies between."""
    if all(row.gap_closed is None for row in report.rows):
        return
    plain, teacher = say(report.plain), say(report.teacher)
    best = f" {teacher} is the best of the teachers {say(', '.join(report.teachers))}." * (len(report.teachers) > 1)
    yield (
        f"Gap closed is 100 · (model − {plain}) / ({teacher} − {plain}) in BLEU, "
        f"n/a where the teacher is not ahead by 0.1.{best}"
    )
    twins = dict.fromkeys(row.twin for row in report.rows if row.twin)
    for twin in dict.fromkeys([report.plain, *twins]):
        if tests := _where_teacher_is_weak(report, twin):
            yield (
                f"{teacher} is not ahead of {say(twin)} beyond chance on {say(', '.join(tests))}: there is little to "
                "learn from it, and shares of so small a gap say nothing. A better teacher comes first."
            )
    for twin in twins:
        if twin == report.plain:
            continue
        labels = ", ".join(row.label for row in report.rows if row.twin == twin)
        yield (
            f"Of {say(labels)} it is measured from {say(twin)} in place of {plain}: trained on labels alone, "
            "and more like it in its start, shape, dropout or steps."
        )


def _where_teacher_is_weak(report: Measured, plain: str) -> list[str]:
    """Return the test sets on which at most half of the comparisons with a plain row are for the teacher.

    For it is one with p < 0.05; a test set without a comparison is left out.
    """
    models = {row.label: row.models for row in report.rows}
    ahead: dict[str, list[bool]] = {}
    for item in report.comparisons:
        sides = [item.system, item.baseline]
        if item.metric != "BLEU":
            continue
        for (one, other), difference in ((sides, item.difference), (sides[::-1], -item.difference)):
            if one in models.get(report.teacher, ()) and other in models.get(plain, ()):
                ahead.setdefault(item.test_set, []).append(difference > 0 and item.p_value < 0.05)
    return [name for name, found in ahead.items() if 2 * sum(found) <= len(found)]


def _on_lengths(report: Measured, say: Quote, sign: Quote) -> Iterator[str]:
    """Yield of each test set whose translations are empty or too short."""
    for name in report.test_sets:
        ratios = {row.label: row.lengths[name] for row in report.rows if row.lengths.get(name)}
        if empty := [say(label) for label, found in ratios.items() if 0 in found]:
            yield (
                f"There is a model whose translations of {say(name)} are all empty: {', '.join(empty)}. A share "
                "of a gap from or to it says nothing."
            )
        mean = statistics.fmean
        if told := [
            f"{say(label)} {mean(map(_brevity_penalty, found)):.2f} ({mean(found):.2f})"
            for label, found in ratios.items()
            if mean(found) < _SHORT
        ]:
            yield (
                f"Translations of {say(name)} are shorter than the references, for which BLEU is multiplied by a "
                f"brevity penalty, and in brackets their words by the references': {', '.join(told)}. So it is "
                f"where a training leaves long sentences out ({sign('max_seq_length')}), or models end too early."
            )


def _brevity_penalty(ratio: float) -> float:
    """Return what BLEU multiplies with where translations have this share of the references' words (Papineni et al.
    2002).
    """
    return math.exp(min(0.0, 1 - 1 / ratio)) if ratio > 0 else 0.0


def _on_training(report: Measured, say: Quote) -> Iterator[str]:
    """Yield how trainings ended: too early, by patience, or too late."""
    if any(row.not_converged for row in report.rows):
        yield (
            "Not converged: still improving in its validation when its training ended, or validated too seldom to "
            "tell."
        )
    if stopped := [
        f"{say(label)} stopped after {count} validations without gain" + (f" at step {step:,}" if step else "")
        for row in report.rows
        for label, (count, step) in row.stopped.items()
    ]:
        yield f"Converged: {', '.join(stopped)}."
    if rising := [
        f"{say(label)} by {100 * rise:.0f} %" + (f" since step {step:,}" if step else "")
        for row in report.rows
        for label, (rise, step) in row.rises.items()
    ]:
        of_plain = any(row.rises and row.label in {each.twin for each in report.rows} for row in report.rows)
        shares = " Shares of the gap from a better plain model are smaller, those above 100 % larger."
        yield (
            f"Loss in validation rose before the end: {', '.join(rising)}, as where a model learns its text by "
            "heart. More dropout or more text may make a better one, of a student also disturbed copies of its "
            f"sources.{shares if of_plain else ''}"
        )


def _on_twins(report: Measured, say: Quote, sign: Quote) -> Iterator[str]:
    """Yield what the marks of a share mean: rows that differ from their twins in more than the objective."""
    rows = {row.label: row for row in report.rows}
    if any(row.gap_is_open for row in report.rows):
        yield (
            "‡ The model, its twin or the teacher had not converged: the share tells how far each was, not what "
            "the objective gains."
        )
    if any(row.starts_otherwise for row in report.rows):
        yield (
            "§ The model starts from other weights than its twin: the share is of start and objective together. "
            f"A plain row of the same start tells them apart: {sign('{plain: true, start: ...}')} of a recipe's "
            f"runs, {sign('--twins')} of a report."
        )
    for row in report.rows:
        if row.drops_otherwise:
            yield (
                f"¶ {say(row.label)} was trained with dropout {say(', '.join(row.dropouts))}, {say(row.twin)} "
                f"with {say(', '.join(rows[row.twin].dropouts))}: the share is of that too. A plain row like it tells "
                "them apart."
            )
    for row in report.rows:
        if row.sized_otherwise:
            yield (
                f"◊ {say(row.label)} has {row.parameters:,} weights, {say(row.twin)} {rows[row.twin].parameters:,}: "
                "the share is of their sizes too. A plain row of its size tells them apart."
            )
