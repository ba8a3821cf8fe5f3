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
"""The rows of a report, and their form in Markdown."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import quote

from nemo_distill.evaluation.plot import Point
from nemo_distill.evaluation.results import Comparison
from nemo_distill.evaluation.tables import markdown_table, weights
from nemo_distill.support.quoting import code, markdown

_LONG = 100_000  # characters of a note that lists labels
_SHORT = 0.9
"""Words of translations by those of the references, below which that is told: BLEU loses a tenth by it."""

Cells = tuple[list[str], list[list[str]]]
"""The header and the lines of a table, as plain text."""


def _in_markdown(text: object) -> str:
    return markdown(text, _LONG, inside=True)


def _code(text: object) -> str:
    return code(text, cell=False)


@dataclass
class Statistic:
    """The mean of one number over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None for a single value."""
    count: int
    decimals: ClassVar[int] = 1
    """That are shown."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Statistic":
        """Return mean and sample standard deviation of at least one value.

        Example:
            >>> Statistic.of([1.0, 3.0])
            Statistic(mean=2.0, deviation=1.4142135623730951, count=2)
        """
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        if self.deviation is None:
            return f"{self.mean:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f} ± {self.deviation:.{self.decimals}f} (n={self.count})"


class Change(Statistic):
    """The mean of a difference, shown with its sign."""

    def __str__(self) -> str:
        return super().__str__() if self.mean < 0 else f"+{super().__str__()}"


@dataclass
class Row:
    """One model of the table, over all its seeds."""

    label: str
    models: list[str]
    """Labels of the models it stands for, one per seed."""
    parameters: int
    compression: float
    """Parameters of the first row divided by those of this one."""
    archive_bytes: int
    """Mean size of the archives."""
    bleu: dict[str, Statistic]
    """By test set; a test set that was not scored is missing."""
    chrf: dict[str, Statistic]
    sentences_per_second: Statistic | None
    """Over all test sets together that one process decoded; None where there is none."""
    gap_closed: dict[str, float | None] | None
    """Percent of the BLEU gap between plain model and teacher, by test set; None in a model that has none (teacher and
    plain model themselves, or no teacher named), and for a test set where the gap is not positive."""
    twin: str | None = None
    """Label of the plain row that the gap is measured from; None where there is no gap."""
    not_converged: list[str] = field(default_factory=list)
    """Those of `models` whose runs were still improving when they ended, as far as is known."""
    stopped: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Those of `models` whose runs patience ended: after how many validations without gain, and at which step."""
    rises: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    """Those of `models` whose loss in validation rose before the end: by what share of its least, since which step."""
    gap_is_open: bool = False
    """Whether there is a share of the gap, and this row, its twin or the teacher has such a model."""
    taught: list[str] = field(default_factory=list)
    """Those of `models` that learnt from a teacher, as far as is known."""
    starts: list[str] = field(default_factory=list)
    """What the models started from, each once, as far as is known."""
    starts_otherwise: bool = False
    """Whether its twin is known to start from something else."""
    dropouts: list[str] = field(default_factory=list)
    """What the models were trained with, each once, as far as is known."""
    drops_otherwise: bool = False
    """Whether its twin is known to have been trained with another dropout."""
    sized_otherwise: bool = False
    """Whether its twin has another number of weights."""
    lengths: dict[str, list[float]] = field(default_factory=dict)
    """Words of each model's translations divided by those of the references, by test set, as far as is known."""

    @property
    def title(self) -> str:
        """The label, and whether the row had converged.

        Example:
            >>> row = Row("a", ["a@seed1", "a@seed2"], 1, 1.0, 1, {}, {}, Statistic.of([1.0]), None)
            >>> row.not_converged = ["a@seed1"]
            >>> row.title
            'a (1 of 2 not converged)'
        """
        if not self.not_converged:
            return self.label
        some = f"{len(self.not_converged)} of {len(self.models)} " if len(self.models) > 1 else ""
        return f"{self.label} ({some}not converged)"


@dataclass
class Report:
    """A table of models and what is needed to read it."""

    test_sets: list[str]
    rows: list[Row]
    comparisons: list[Comparison]
    bleu_signatures: list[str]
    """They say the number of references (`nrefs`) and the tokenizer (`tok`)."""
    chrf_signatures: list[str]
    engines: list[str]
    """How the hypotheses were decoded."""
    teacher: str | None
    """Of several the best, to which the gap is."""
    plain: str | None
    teachers: list[str] = field(default_factory=list)
    model_bleu: dict[str, dict[str, float]] = field(default_factory=dict)
    """BLEU of each model, before seeds are merged, by its label and test set."""
    signature_tests: dict[str, list[str]] = field(default_factory=dict)
    """The test sets of each signature."""

    tables: list[str] = field(default_factory=list)
    """Further tables in Markdown, each after its heading (see `nemo_distill.evaluation.layout`)."""

    @property
    def standard(self) -> str:
        """What the page compares students with: their teacher, or the first row where none is named."""
        return self.rows[0].label if self.teacher is None else "its teacher"

    def markdown(self, plot: str | None = None, page: str | None = None) -> str:
        """Return the report as Markdown.

        Args:
            plot: path of a picture to show at its end.
            page: path of the page, which has chrF2 and significance in place of the Markdown.
        """
        parts = ["# Results", markdown_table(*self.main_table()), *self.notes(), *self.tables]
        if page is not None:
            parts.append(
                f"chrF2, significance, and where each student is worse than {_in_markdown(self.standard)}: "
                f"[{page}]({quote(page)})."
            )
        else:
            parts += ["## chrF2", markdown_table(*self.chrf_table()), *self.chrf_notes()]
        if self.comparisons and page is None:
            parts += ["## Significance", markdown_table(*self.significance_table()), *self.significance_notes()]
        if plot is not None:
            parts += ["## Quality against size", f"![BLEU against number of parameters]({quote(plot)})"]
        return "\n\n".join(parts) + "\n"

    def change(self, system: str, baseline: str, test_set: str) -> "Statistic | None":
        """Return what one row has over another in BLEU; over the seeds that both have, if any.

        Args:
            system: label of a row.
            baseline: label of the row to be taken from it.
            test_set: name of the test set; None is returned where one of the two was not scored on it.
        """
        by_label = {row.label: row for row in self.rows}
        ours, theirs = by_label[system], by_label[baseline]
        if test_set not in ours.bleu or test_set not in theirs.bleu:
            return None
        bleu = {model: scores[test_set] for model, scores in self.model_bleu.items() if test_set in scores}
        pairs = [(model, model.replace(system, baseline, 1)) for model in ours.models]
        found = [bleu[one] - bleu[other] for one, other in pairs if one in bleu and other in bleu]
        return Change.of(found or [ours.bleu[test_set].mean - theirs.bleu[test_set].mean])

    def points(self) -> dict[str, list[Point]]:
        """Return the points of the plot, by test set."""
        return {
            name: [
                Point(row.label, row.parameters, row.bleu[name].mean, row.bleu[name].deviation)
                for row in self.rows
                if name in row.bleu
            ]
            for name in self.test_sets
        }

    def main_table(self) -> Cells:
        """Return the table of all rows."""
        with_gap = any(row.gap_closed is not None for row in self.rows)
        header = ["Model", *self.test_sets, "Params.", "Compression", "Sentences/s"]
        header += [f"Gap closed, {name}" for name in self.test_sets] if with_gap else []
        lines = []
        for row in self.rows:
            cells = [row.title, *(str(row.bleu.get(name, "–")) for name in self.test_sets)]
            cells += [weights(row.parameters), f"{row.compression:.1f}", str(row.sentences_per_second or "–")]
            if with_gap:
                cells += [_percent(row, name) for name in self.test_sets]
            lines.append(cells)
        return header, lines

    def notes(self, say: Callable[[str], str] = _in_markdown, sign: Callable[[str], str] = _code) -> list[str]:
        """Return what must be known to read the main table.

        Args:
            say: quotes text from elsewhere.
            sign: quotes a signature.
        """
        notes = [f"BLEU is sacreBLEU, signature {each}." for each in self._signatures(self.bleu_signatures, say, sign)]
        notes.append(
            f"Compression is against {say(self.rows[0].label)}. Speed is raw text to raw text, "
            f"decoded by {'; '.join(map(say, self.engines))}."
        )
        if any(row.sentences_per_second is None for row in self.rows):
            notes.append("Sentences/s – : several processes decoded, which says nothing of a model's speed.")
        if any(len(row.models) > 1 for row in self.rows):
            notes.append("± is the sample standard deviation over n seeds.")
        if any(row.gap_closed is not None for row in self.rows):
            plain, teacher = say(self.plain), say(self.teacher)
            notes.append(
                f"Gap closed is 100 · (model − {plain}) / ({teacher} − {plain}) in BLEU, "
                "n/a where the teacher is not ahead by 0.1."
                + f" {teacher} is the best of the teachers {say(', '.join(self.teachers))}."
                * (len(self.teachers) > 1)
            )
            for twin in dict.fromkeys([self.plain, *(row.twin for row in self.rows if row.twin)]):
                if tests := self._where_teacher_is_weak(twin):
                    notes.append(
                        f"{teacher} is not ahead of {say(twin)} beyond chance on {say(', '.join(tests))}: there is "
                        "little to learn from it, and shares of so small a gap say nothing. A better teacher comes "
                        "first."
                    )
            for twin in dict.fromkeys(row.twin for row in self.rows if row.twin not in (None, self.plain)):
                labels = ", ".join(row.label for row in self.rows if row.twin == twin)
                notes.append(
                    f"Of {say(labels)} it is measured from {say(twin)} in place of {plain}: trained on labels alone, "
                    "and more like it in its start, shape, dropout or steps."
                )
        for name in self.test_sets:
            ratios = {row.label: row.lengths[name] for row in self.rows if row.lengths.get(name)}
            if empty := [say(label) for label, found in ratios.items() if 0 in found]:
                notes.append(
                    f"There is a model whose translations of {say(name)} are all empty: {', '.join(empty)}. A share "
                    "of a gap from or to it says nothing."
                )
            mean = statistics.fmean
            if told := [
                f"{say(label)} {mean(map(_brevity_penalty, found)):.2f} ({mean(found):.2f})"
                for label, found in ratios.items()
                if mean(found) < _SHORT
            ]:
                notes.append(
                    f"Translations of {say(name)} are shorter than the references, for which BLEU is multiplied by a "
                    f"brevity penalty, and in brackets their words by the references': {', '.join(told)}. So it is "
                    f"where a training leaves long sentences out ({sign('max_seq_length')}), or models end too early."
                )
        if any(row.not_converged for row in self.rows):
            notes.append(
                "Not converged: still improving in its validation when its training ended, or validated too seldom to "
                "tell."
            )
        if stopped := [
            f"{say(label)} stopped after {count} validations without gain" + (f" at step {step:,}" if step else "")
            for row in self.rows
            for label, (count, step) in row.stopped.items()
        ]:
            notes.append(f"Converged: {', '.join(stopped)}.")
        if rising := [
            f"{say(label)} by {100 * rise:.0f} %" + (f" since step {step:,}" if step else "")
            for row in self.rows
            for label, (rise, step) in row.rises.items()
        ]:
            of_plain = any(row.rises and row.label in {each.twin for each in self.rows} for row in self.rows)
            notes.append(
                f"Loss in validation rose before the end: {', '.join(rising)}, as where a model learns its text by "
                "heart. More dropout or more text may make a better one, of a student also disturbed copies of its "
                "sources."
                + (" Shares of the gap from a better plain model are smaller, those above 100 % larger." * of_plain)
            )
        if any(row.gap_is_open for row in self.rows):
            notes.append(
                "‡ The model, its twin or the teacher had not converged: the share tells how far each was, not what "
                "the objective gains."
            )
        if any(row.starts_otherwise for row in self.rows):
            notes.append(
                "§ The model starts from other weights than its twin: the share is of start and objective together. "
                f"A plain row of the same start tells them apart: {sign('{plain: true, start: ...}')} of a recipe's "
                f"runs, {sign('--twins')} of a report."
            )
        for row in self.rows:
            if row.drops_otherwise:
                theirs = next(twin.dropouts for twin in self.rows if twin.label == row.twin)
                notes.append(
                    f"¶ {say(row.label)} was trained with dropout {say(', '.join(row.dropouts))}, {say(row.twin)} "
                    f"with {say(', '.join(theirs))}: the share is of that too. A plain row like it tells them apart."
                )
        for row in self.rows:
            if row.sized_otherwise:
                theirs = next(twin.parameters for twin in self.rows if twin.label == row.twin)
                notes.append(
                    f"◊ {say(row.label)} has {row.parameters:,} weights, {say(row.twin)} {theirs:,}: the share is of "
                    "their sizes too. A plain row of its size tells them apart."
                )
        return notes

    def _where_teacher_is_weak(self, plain: str) -> list[str]:
        """Return the test sets on which at most half of the comparisons with a plain row are for the teacher.

        For it is one with p < 0.05; a test set without a comparison is left out.
        """
        models = {row.label: row.models for row in self.rows}
        ahead: dict[str, list[bool]] = {}
        for item in self.comparisons:
            sides = [item.system, item.baseline]
            if item.metric != "BLEU":
                continue
            for (one, other), difference in ((sides, item.difference), (sides[::-1], -item.difference)):
                if one in models.get(self.teacher, ()) and other in models.get(plain, ()):
                    ahead.setdefault(item.test_set, []).append(difference > 0 and item.p_value < 0.05)
        return [name for name, found in ahead.items() if 2 * sum(found) <= len(found)]

    def chrf_table(self) -> Cells:
        """Return the table of chrF2."""
        lines = [[row.label, *(str(row.chrf.get(name, "–")) for name in self.test_sets)] for row in self.rows]
        return ["Model", *self.test_sets], lines

    def chrf_notes(self, say: Callable[[str], str] = _in_markdown, sign: Callable[[str], str] = _code) -> list[str]:
        """Return what must be known to read the table of chrF2, quoted as in `notes`."""
        return [f"Signature {each}." for each in self._signatures(self.chrf_signatures, say, sign)]

    def _signatures(
        self, signatures: Sequence[str], say: Callable[[str], str], sign: Callable[[str], str]
    ) -> list[str]:
        """Return signatures as they are shown; of several, also which test sets have them."""
        tests = [", ".join(self.signature_tests.get(signature, ())) for signature in signatures]
        several = len(signatures) > 1 and all(tests)
        return [
            f"{sign(each)} ({say(names)})" if several else sign(each)
            for each, names in zip(signatures, tests, strict=True)
        ]

    def significance_table(self) -> Cells:
        """Return the table of comparisons."""
        lines = [
            [
                item.test_set,
                f"{item.system} − {item.baseline}",
                item.metric,
                f"{item.difference:+.1f}",
                ("< 0.001" if item.p_value < 0.001 else f"{item.p_value:.3f}") + " †" * item.is_bootstrap,
            ]
            for item in self.comparisons
        ]
        return ["Test set", "Difference", "Metric", "Points", "p"], lines

    def significance_notes(self) -> list[str]:
        """Return what must be known to read the table of comparisons."""
        trials = ", ".join(sorted({f"{item.samples:,}" for item in self.comparisons if not item.is_bootstrap}))
        notes = [f"Approximate randomization, {trials} trials, two-sided p."] if trials else []
        if any(item.is_bootstrap for item in self.comparisons):
            notes.append(
                "p marked † is of an older release's paired bootstrap, which is too small; the same `nemo-distill "
                "evaluate` again computes it anew, and decodes nothing."
            )
        return notes


def _brevity_penalty(ratio: float) -> float:
    """Return what BLEU multiplies with where translations have this share of the references' words (Papineni et al.
    2002).
    """
    return math.exp(min(0.0, 1 - 1 / ratio)) if ratio > 0 else 0.0


def _percent(row: Row, name: str) -> str:
    if row.gap_closed is None:
        return ""
    if name not in row.gap_closed:
        return "–"  # one of the three was not scored on it
    share = row.gap_closed[name]
    marks = " ‡" * row.gap_is_open + " §" * row.starts_otherwise + " ¶" * row.drops_otherwise
    marks += " ◊" * row.sized_otherwise
    return "n/a" if share is None else f"{round(share)} %{marks}"
