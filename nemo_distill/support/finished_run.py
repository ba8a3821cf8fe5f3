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
"""What a training run notes beside its archive at its end: which archive it is, and what a comparison must know."""

import os
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.incoming import read_json
from nemo_distill.support.records import read_record

FINISHED = "log/finished.json"
"""In a run's directory."""


@dataclass
class FinishedRun:
    """What a run has written at its end."""

    archive: str
    sha256: str
    max_steps: int | None = None
    """Of the trainer then; None: an earlier version did not note it."""
    earlier: str | None = None
    """The SHA-256 of the archive that it took the place of, where the run has gone on for more steps."""
    converged: bool | None = None
    """Whether its validation had stopped improving; None: it had none, or an earlier version did not note it."""
    taught: bool | None = None
    """Whether it learnt from a teacher, by its outputs or its labels; None: an earlier version did not note it."""
    start: str | None = None
    """What `distillation.init` said, `random` where nothing; None: an earlier version did not note it."""
    steps: int | None = None
    """Optimizer steps that it has made; None: an earlier version did not note it."""
    stopped_after: int | None = None
    """Validations in a row without a better score or loss, after which its patience ended it; None: that did not."""
    loss_rise: float | None = None
    """How far above its least the loss in validation was at the end, as a share of it; None: hardly, or not known."""
    least_loss_at: int | None = None
    """The step of the least, where there is such a rise."""


def read_finished(directory: Path) -> FinishedRun | None:
    """Return what the run in a directory noted; None if it has not ended.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / FINISHED
    return read_record(FinishedRun, read_json(path), str(path), "remove it") if os.path.lexists(path) else None


def run_of(archive: Path, sha256: str) -> FinishedRun | None:
    """Return what the run that wrote an archive noted beside it; None: nothing there says anything."""
    try:
        finished = read_finished(archive.parent)
    except InputError:
        return None
    is_of_it = finished is not None and (finished.archive, finished.sha256) == (archive.name, sha256)
    return finished if is_of_it else None
