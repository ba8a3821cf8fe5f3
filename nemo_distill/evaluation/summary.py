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
"""A report as tables, and their form in Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from nemo_distill.evaluation.notes import report_notes
from nemo_distill.evaluation.plot import Point
from nemo_distill.evaluation.rows import Change, Measured, Row
from nemo_distill.evaluation.tables import markdown_table, weights
from nemo_distill.support.quoting import code, markdown

_LONG = 100_000  # characters of a note that lists labels

Cells = tuple[list[str], list[list[str]]]
"""The header and the lines of a table, as plain text."""


def _in_markdown(text: object) -> str:
    return markdown(text, _LONG, inside=True)


def _code(text: object) -> str:
    return code(text, cell=False)


@dataclass
class Report(Measured):
    """A table of models and what is needed to read it."""

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

    def change(self, system: str, baseline: str, test_set: str) -> Change | None:
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
        signatures = [
            f"BLEU is sacreBLEU, signature {each}." for each in self._signatures(self.bleu_signatures, say, sign)
        ]
        return [*signatures, *report_notes(self, say, sign)]

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


def _percent(row: Row, name: str) -> str:
    if row.gap_closed is None:
        return ""
    if name not in row.gap_closed:
        return "–"  # one of the three was not scored on it
    share = row.gap_closed[name]
    marks = " ‡" * row.gap_is_open + " §" * row.starts_otherwise + " ¶" * row.drops_otherwise
    marks += " ◊" * row.sized_otherwise
    return "n/a" if share is None else f"{round(share)} %{marks}"
