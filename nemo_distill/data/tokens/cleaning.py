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
"""Which pairs NeMo's `clean` keeps, by the lengths of both sides."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

LIMITS = {"max_seq_length": 512, "min_seq_length": 1, "max_seq_length_diff": 512, "max_seq_length_ratio": 512}
"""What NeMo's `clean` asks of lengths, by default."""


def limits_of(section: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the limits of lengths of a data set's section; None where it is not `clean`. A null is no limit."""
    if not section.get("clean", False):
        return None
    given = {name: section.get(name, usual) for name, usual in LIMITS.items()}
    none = {name: 0 if name.startswith("min") else math.inf for name in LIMITS}
    return {name: none[name] if value is None else value for name, value in given.items()}


def fits(source: np.ndarray, target: np.ndarray, limits: Mapping[str, float]) -> np.ndarray:
    """Return whether NeMo's cleaning, `TranslationDataset.clean_src_and_target`, keeps pairs.

    Args:
        source: length of each source, with start and end.
        target: the same of the targets.
        limits: all of `LIMITS`.
    """
    longest, shortest = np.maximum(source, target), np.minimum(source, target)
    ratio = np.maximum(source - 2, 1) / np.maximum(target - 2, 1)
    most = limits["max_seq_length_ratio"]
    return (
        (longest <= limits["max_seq_length"])
        & (shortest >= limits["min_seq_length"])
        & (longest - shortest <= limits["max_seq_length_diff"])
        & (ratio <= most)
        & (ratio >= 1 / most)
    )
