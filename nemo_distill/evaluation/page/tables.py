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
"""Where a student differs from its teacher and its twin: what was measured, as tables with intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sacrebleu.metrics import BLEU

from nemo_distill.evaluation.page.bootstrap import Estimate, draws, estimate, share
from nemo_distill.evaluation.page.inputs import TestText
from nemo_distill.evaluation.page.measures import error_counts, recall_counts
from nemo_distill.evaluation.page.words import BANDS, LENGTHS, TrainingCounts, band_name, band_of, words_of


@dataclass
class Line:
    """One line of a table."""

    name: str
    count: int
    """Of how many sentences or things it is."""
    cells: list[Estimate]
    """One for each column."""
    difference: Estimate
    """The student less its teacher."""
    is_worse: bool = False
    """Whether the student is worse than its teacher by more than chance."""
    is_better: bool = False


@dataclass
class Table:
    """One table about a student."""

    title: str
    note: str
    first: str
    """Heading of the lines' names."""
    counted: str
    """Heading of `count`."""
    columns: list[str]
    """Labels: the teacher, the twin where there is one, the student."""
    lines: list[Line]
    is_drawn: bool = False
    unit: str = ""


@dataclass
class _Measured:
    """One line before it is known which rows it shows."""

    name: str
    count: int
    draws: dict[str, np.ndarray]
    better: int
    """1: more is better; -1: less is better; 0: neither."""
    sentences: int
    """Those that have anything to measure."""


@dataclass
class _Kind:
    title: str
    note: str
    first: str
    counted: str
    is_drawn: bool = False
    unit: str = ""
    lines: list[_Measured] = field(default_factory=list)


_ERRORS = {
    "repetitions": ("sentences that repeat words", -1),
    "made_up": ("words that exist nowhere", -1),
    "numbers": ("numbers lost", -1),
    "names": ("names lost", -1),
    "placeholders": ("placeholders lost", -1),
    "unknown": ("sentences with unknown pieces", -1),
}


class Analysis:
    """All that is measured of one test set, for all rows.

    Args:
        text: the test set.
        rows: label of each row, labels of its models; those without hypotheses are left out.
        training: None: what needs the training text is left out.
    """

    def __init__(self, text: TestText, rows: Mapping[str, Sequence[str]], training: TrainingCounts | None) -> None:
        found = {row: [model for model in models if model in text.hypotheses] for row, models in rows.items()}
        self.rows = {row: models for row, models in found.items() if models}
        self._text, self._training = text, training
        self._sources = [words_of(source) for source in text.sources]
        self._stats = {
            model: np.array(text.bleu._extract_corpus_statistics(text.hypotheses[model], text.references))
            for models in self.rows.values()
            for model in models
        }
        self._kinds = [self._by_length()]
        if training is not None:
            self._kinds += [self._by_rarest_word(training), self._by_frequency(training)]
        self._kinds.append(self._errors())

    def tables(self, student: str, teacher: str, twin: str | None) -> list[Table]:
        """Return the tables about a student; empty where it, or its teacher, has no hypotheses."""
        if not {student, teacher} <= self.rows.keys():
            return []
        columns = [teacher, *([twin] if twin in self.rows else []), student]
        tables = []
        for kind in self._kinds:
            lines = [_line(each, columns) for each in kind.lines]
            lines = [line for line in lines if any(cell.value is not None for cell in line.cells)]
            tables.append(
                Table(kind.title, kind.note, kind.first, kind.counted, columns, lines, kind.is_drawn, kind.unit)
            )
        return [table for table in tables if table.lines]

    def _bleu_of(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Return BLEU of some sentences, drawn again and again; [N] says which are of them."""
        stats = {row: [self._stats[model][members] for model in models] for row, models in self.rows.items()}
        return draws(stats, lambda sums: _bleu(self._text.bleu, sums))

    def _by_group(self, groups: np.ndarray, bands: Sequence[tuple[int, int | None]]) -> list[_Measured]:
        return [
            _Measured(band_name(band), int(members.sum()), self._bleu_of(members), 1, int(members.sum()))
            for number, band in enumerate(bands)
            if (members := groups == number).any()
        ]

    def _by_length(self) -> _Kind:
        groups = [band_of(len(words), LENGTHS) if words else -1 for words in self._sources]
        return _Kind(
            "By length of the source",
            "BLEU of the sentences whose source has so many words.",
            "Words",
            "Sentences",
            True,
            "BLEU",
            self._by_group(np.array(groups), LENGTHS),
        )

    def _by_rarest_word(self, training: TrainingCounts) -> _Kind:
        rarest = [min((training.source[word] for word in words), default=None) for words in self._sources]
        groups = [-1 if count is None else band_of(count, BANDS) for count in rarest]
        return _Kind(
            "By the rarest word of the source",
            "BLEU of the sentences whose rarest source word is so often in the training text.",
            "Times in training",
            "Sentences",
            True,
            "BLEU",
            self._by_group(np.array(groups), BANDS),
        )

    def _by_frequency(self, training: TrainingCounts) -> _Kind:
        text = self._text
        found = {
            model: np.stack(
                [
                    recall_counts(text.references_of(number), hypothesis, training.target)
                    for number, hypothesis in enumerate(text.hypotheses[model])
                ]
            )
            for models in self.rows.values()
            for model in models
        }  # [N, bands, 2]
        lines = []
        for number, band in enumerate(BANDS):
            counts = {row: [found[model][:, number] for model in models] for row, models in self.rows.items()}
            lines += _shares(band_name(band), counts, 1)
        return _Kind(
            "Recall by frequency of the word",
            "How many of the reference's words the translation has, by how often the training text has them.",
            "Times in training",
            "Words",
            True,
            "recall, %",
            lines,
        )

    def _errors(self) -> _Kind:
        counts: dict[str, dict[str, list[np.ndarray]]] = {}
        for row, models in self.rows.items():
            for model in models:
                for name, columns in error_counts(self._text, model, self._training).items():
                    counts.setdefault(name, {}).setdefault(row, []).append(columns)
        lines = []
        for name, (title, better) in _ERRORS.items():
            lines += _shares(f"{title}, %", counts.get(name, {}), better)
        lengths = {row: [self._stats[model][:, :2] for model in models] for row, models in self.rows.items()}
        size = len(self._sources)
        lines.append(_Measured("length over the reference's, %", size, draws(lengths, share), 0, size))
        note = (
            "Repeated words count where no reference repeats as much; numbers, names and placeholders are those that "
            "source and reference share."
        )
        if self._training is not None:
            note += " A word exists nowhere if neither side of the training text, nor source or reference, has it."
        return _Kind("What goes wrong", note, "", "Out of, at most", lines=lines)


def wanted_words(texts: Sequence[TestText]) -> set[str]:
    """Return all words whose frequency in the training text counts."""
    found: Counter = Counter()
    for text in texts:
        columns = [text.sources, *text.references, *text.hypotheses.values()]
        found.update(word for lines in columns for line in lines if line for word in set(words_of(line)))
    return set(found)


def _shares(name: str, counts: dict[str, list[np.ndarray]], better: int) -> list[_Measured]:
    """Return the line of a share, or none where there is nothing that it is a share of."""
    models = [each for found in counts.values() for each in found]
    total = int(max((each[:, 1].sum() for each in models), default=0))
    if not total:
        return []
    sentences = max(int((each[:, 1] > 0).sum()) for each in models)
    return [_Measured(name, total, draws(counts, share), better, sentences)]


def _bleu(metric: BLEU, sums: np.ndarray) -> np.ndarray:
    counts = np.rint(sums).astype(int)
    return np.array([metric._compute_score_from_stats(each.tolist()).score for each in counts])


def _line(measured: _Measured, columns: Sequence[str]) -> Line:
    teacher, student = measured.draws[columns[0]], measured.draws[columns[-1]]
    difference = estimate(student - teacher, measured.sentences)
    return Line(
        name=measured.name,
        count=measured.count,
        cells=[estimate(measured.draws[column], measured.sentences) for column in columns],
        difference=difference,
        is_worse=difference.is_clear and measured.better * difference.value < 0,
        is_better=difference.is_clear and measured.better * difference.value > 0,
    )
