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
"""When a student was as good as its twin ever was: what distillation saves in time, or costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nemo_distill.evaluation.page.curves import Curves, unit_of_time
from nemo_distill.evaluation.rows import Statistic
from nemo_distill.evaluation.summary import Cells
from nemo_distill.support.validations import Validation


@dataclass(frozen=True)
class TimeToQuality:
    """How long a student took to be as good as its twin, of one seed each."""

    best: float
    """The twin's best BLEU in validation."""
    twin: float
    """Seconds until the twin had that first."""
    student: float | None
    """Seconds of the student's own training until it first had as much; None: it never had."""
    whole: float | None
    """These, and what its labels and its cache took."""
    shared: float | None
    """These, and its share of what labels and cache took that others use too."""

    def ratio(self, seconds: float | None) -> float | None:
        """Return a time of the student over that of its twin; None: there is none."""
        return seconds / self.twin if seconds is not None and self.twin > 0 else None


class _Fine(Statistic):
    """The mean of times or of their ratios, where a tenth is much."""

    decimals = 2


def time_to_quality(
    twin: Sequence[Validation], student: Sequence[Validation], spent: float = 0.0, share: float = 0.0
) -> TimeToQuality:
    """Return when a student first had the best score of its twin.

    Args:
        twin: its validations, at least one, all with BLEU.
        student: the same of the student.
        spent: seconds that labels and cache of the student took.
        share: its share of them.

    Example:
        >>> twin = [Validation(1, 60.0, 5.0), Validation(2, 120.0, 8.0)]
        >>> time_to_quality(twin, [Validation(1, 90.0, 8.5)], spent=50.0, share=10.0)
        TimeToQuality(best=8.0, twin=120.0, student=90.0, whole=140.0, shared=100.0)
    """
    best = max(each.bleu for each in twin)
    first = next(each.seconds for each in twin if each.bleu == best)
    own = next((each.seconds for each in student if each.bleu >= best), None)
    whole, shared = (None if own is None else own + more for more in (spent, share))
    return TimeToQuality(best, first, own, whole, shared)


def times_table(
    curves: Curves, twins: Mapping[str, str], spent: Mapping[str, float], shares: Mapping[str, float]
) -> Cells:
    """Return the table of all students; no lines where no seed of any was noted beside the same one of its twin.

    Args:
        curves: of `read_curves`.
        twins: for the label of each student that of its twin.
        spent: for the label of a row the seconds that its labels or its cache took.
        shares: of these what is its own share, where that is less.
    """
    found = {student: _of_seeds(curves, student, twin, spent, shares) for student, twin in twins.items()}
    found = {student: times for student, times in found.items() if times}
    seconds = [each for times in found.values() for time in times for each in (time.twin, time.student, time.whole)]
    unit, divisor = unit_of_time(max(filter(None, seconds), default=0.0))
    ways = {"Student": "student"}
    ways |= {"With labels and cache": "whole"} if spent.keys() & found.keys() else {}
    ways |= {"With its share of them": "shared"} if shares.keys() & found.keys() else {}
    header = ["Student", "Twin", "Twin's best BLEU", f"Twin, {unit}"]
    header += [cell for way in ways for cell in (f"{way}, {unit}", "/ twin")]
    lines = []
    for student, times in found.items():
        best, first = (Statistic.of([time.best for time in times]), _Fine.of([time.twin / divisor for time in times]))
        line = [student, twins[student], str(best), str(first)]
        for key in ways.values():
            taken = [getattr(time, key) for time in times]
            cell = _mean([None if each is None else each / divisor for each in taken], "not reached")
            missed = taken.count(None)
            line.append(cell + f", {missed} not reached" * (0 < missed < len(taken)))
            line.append(_mean([time.ratio(each) for time, each in zip(times, taken, strict=True)], "–"))
        lines.append(line)
    return header, lines


def times_notes(spent: Mapping[str, float], shares: Mapping[str, float]) -> list[str]:
    """Return what must be known to read the table."""
    notes = [
        "How long each took until a validation first had the best BLEU of the twin's, or more: seed by seed, and the "
        "means of these. What the teacher's own training took is not counted."
    ]
    if spent:
        shared = ", or shared out evenly among the rows that use them" if shares else ""
        notes.append(
            f"Labels and cache are counted wholly{shared}; of a row with several seeds once for each of them."
        )
    return notes


def _of_seeds(
    curves: Curves, student: str, twin: str, spent: Mapping[str, float], shares: Mapping[str, float]
) -> list[TimeToQuality]:
    """Return the times of the seeds that both have: models whose labels are alike behind those of their rows."""
    ours = {label.removeprefix(student): run for label, run in curves.get(student, {}).items()}
    theirs = {label.removeprefix(twin): run for label, run in curves.get(twin, {}).items()}
    whole = spent.get(student, 0.0)
    return [
        time_to_quality(theirs[seed], run, whole, shares.get(student, whole))
        for seed, run in ours.items()
        if seed in theirs
    ]


def _mean(values: Sequence[float | None], none: str) -> str:
    found = [each for each in values if each is not None]
    return str(_Fine.of(found)) if found else none
