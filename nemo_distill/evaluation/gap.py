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
"""The share of the gap between plain model and teacher that each row of a report closes, and from which row it is."""

import statistics
from collections.abc import Mapping, Sequence

from nemo_distill.errors import InputError
from nemo_distill.evaluation.rows import Row, Statistic
from nemo_distill.support.quoting import plain_text


def measure_gaps(
    rows: Sequence[Row], teachers: Sequence[str], plain: str | None, twins: Mapping[str, str]
) -> str | None:
    """Put the share of the gap into each row that has one, in place.

    Args:
        rows: of the report.
        teachers: labels of the teachers' rows; empty: there is no gap.
        plain: label of the plain model's row.
        twins: for the label of a row that of its own plain row.

    Returns:
        label of the teacher to which the gap is: of several the one with the highest BLEU, its mean over the test sets
        that all of them have. None: there is no gap.

    Raises:
        InputError: a label is not there, or is not of its kind; see `build_report`.
    """
    by_label = {row.label: row for row in rows}
    _check_labels(teachers, plain, list(by_label), twins)
    if not teachers:
        return None
    shared = set.intersection(*(set(by_label[label].bleu) for label in teachers))
    if not shared:
        raise InputError(
            f"the teachers {plain_text(', '.join(teachers))} share no test set, so none is the best of them; evaluate "
            "them on one, or name one"
        )
    teacher = max(teachers, key=lambda label: statistics.fmean(by_label[label].bleu[name].mean for name in shared))
    for role, label in (("the plain model", plain), *(("twins:", label) for label in twins.values())):
        if taught := by_label[label].taught:
            raise InputError(
                f"{role} '{plain_text(label)}' learnt from a teacher ({plain_text(', '.join(taught))}); give a row "
                "that is trained on labels alone: examples/train_nmt.py, or distillation=nll with the same init"
            )
    for row in rows:
        if row.label not in (*teachers, plain):
            twin = by_label[twins.get(row.label, plain)]
            row.twin = twin.label
            row.gap_closed = _gap_closed(row, by_label[teacher], twin)
            if all(share is None for share in row.gap_closed.values()):
                continue  # nothing to mark
            row.gap_is_open = any(each.not_converged for each in (row, by_label[teacher], twin))
            row.starts_otherwise = bool(row.starts and twin.starts) and row.starts != twin.starts
            row.sized_otherwise = row.parameters != twin.parameters
            row.drops_otherwise = bool(row.dropouts and twin.dropouts) and row.dropouts != twin.dropouts
    return teacher


def _gap_closed(row: Row, teacher: Row, plain: Row) -> dict[str, float | None]:
    shares = {}
    for name in row.bleu:
        if name in teacher.bleu and name in plain.bleu:
            ahead, gained = (each.bleu[name].mean - plain.bleu[name].mean for each in (teacher, row))
            is_shown = round(ahead, Statistic.decimals) > 0  # of a gap of 0.0 a share would be thousands of percent
            shares[name] = 100 * gained / ahead if is_shown else None
    return shares


def _check_labels(teachers: Sequence[str], plain: str | None, labels: Sequence[str], twins: Mapping[str, str]) -> None:
    if bool(teachers) != (plain is not None):
        raise InputError("the share of the gap closed needs both a teacher and a plain model; give both or neither")
    for role, label in (*(("teacher", label) for label in teachers), ("plain model", plain)):
        if label is not None and label not in labels:
            raise InputError(f"there is no row '{label}' to be the {role}; give one of {', '.join(labels)}")
    if len(set(teachers)) < len(teachers):
        raise InputError(f"teachers: got {', '.join(teachers)}; name each once")
    if plain in teachers:
        raise InputError(f"teacher and plain model are both '{plain}'; give two different rows")
    if twins and not teachers:
        raise InputError(
            "twins are for the share of the gap closed, which needs a teacher and a plain model; give both"
        )
    for label in (*twins, *twins.values()):
        if label not in labels or label in teachers:
            raise InputError(
                f"twins: '{plain_text(label)}' is no row that can have or be a twin; the rows are {', '.join(labels)}"
            )
        if label in twins and label in twins.values():
            raise InputError(f"twins: '{plain_text(label)}' is a twin and has one; a twin is trained on labels alone")
