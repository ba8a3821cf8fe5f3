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
"""How good a run was at each of its validations, noted beside its checkpoints for who draws learning curves."""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import read_json
from nemo_distill.support.records import read_record

VALIDATIONS = "log/validations.json"
"""In a run's directory."""
_FIX = "remove it"


@dataclass
class Validation:
    """One validation of a run."""

    step: int
    seconds: float
    """Of training and validation until then: of all starts of the run, without what a later start did again."""
    bleu: float | None = None
    """`val_sacreBLEU`."""
    loss: float | None = None
    """`val_loss`."""


@dataclass
class Validations:
    """All validations of a run."""

    validations: list[Validation]

    def faults(self) -> Iterator[str]:
        """Yield what no run notes, one line each."""
        for place, each in enumerate(self.validations):
            values = [each.seconds, *(value for value in (each.bleu, each.loss) if value is not None)]
            if each.step < 0 or each.seconds < 0 or not all(map(math.isfinite, values)):
                yield f"validations[{place}] is no validation"


def write_validations(directory: Path, validations: list[Validation]) -> None:
    """Note the validations of the run in a directory, all at once."""
    write_json_atomic(directory / VALIDATIONS, asdict(Validations(validations)))


def read_validations(directory: Path) -> list[Validation]:
    """Return the validations that the run in a directory noted; none of an earlier version.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / VALIDATIONS
    if not os.path.lexists(path):
        return []
    found = read_record(Validations, read_json(path), str(path), _FIX)
    for fault in found.faults():
        raise InputError(f"'{path}' is damaged: {fault}; {_FIX}")
    return found.validations
