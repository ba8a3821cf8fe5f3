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
"""How fast models learnt: what their runs noted at each validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import ModelResult
from nemo_distill.support.finished_run import run_of
from nemo_distill.support.validations import Validation, read_validations

Curves = dict[str, dict[str, list[Validation]]]
"""For the label of each row the validations of its models, by their labels."""


def read_curves(rows: Mapping[str, Sequence[str]], models: Sequence[ModelResult]) -> tuple[Curves, list[str]]:
    """Return what the runs noted that wrote these archives, where they still lie beside it, and what is left out.

    Args:
        rows: label of each row, labels of its models.
        models: of the results.
    """
    by_label = {model.label: model for model in models}
    curves: Curves = {}
    missing = []
    for row, labels in rows.items():
        for label in labels:
            archive = Path(by_label[label].archive)
            if run_of(archive, by_label[label].archive_sha256) is None:  # of another run, or of none
                continue
            try:
                found = [each for each in read_validations(archive.parent) if each.bleu is not None]
            except InputError as error:
                missing.append(f"the learning curve of {label}: {error}")
                continue
            if found:
                curves.setdefault(row, {})[label] = found
    return curves, missing


def unit_of_time(longest: float) -> tuple[str, int]:
    """Return the unit that times up to so many seconds are shown in, and its seconds."""
    return ("hours", 3600) if longest >= 2 * 3600 else ("minutes", 60)
