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
"""The rows of a report, one model each over all its seeds, and what else was measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from nemo_distill.evaluation.results import Comparison


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
class Measured:
    """What a report is of."""

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
    model_bleu: dict[str, dict[str, float]] = field(default_factory=dict)
    """BLEU of each model, before seeds are merged, by its label and test set."""
    signature_tests: dict[str, list[str]] = field(default_factory=dict)
    """The test sets of each signature."""
    teachers: list[str] = field(default_factory=list)
    """Of which `teacher` is the best."""
