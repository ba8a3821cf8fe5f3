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
"""How far a job is: `progress.json` in its directory, which `nemo-distill status` reads. Imports nothing heavy."""

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.jobs.running import LOGS_DIR, log_lines, progress_in
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import check_directory, read_json
from nemo_distill.support.lock import is_locked
from nemo_distill.support.quoting import duration, plain_text
from nemo_distill.support.records import read_record

PROGRESS_NAME = "progress.json"
WAITING, RUNNING, DONE, FAILED, LEFT_OUT = "waiting", "running", "done", "failed", "left out"
STATES = (WAITING, RUNNING, DONE, FAILED, LEFT_OUT)
_STOPPED = "stopped"
_LINE = 120


@dataclass
class StageProgress:
    """How far one stage is."""

    state: str = WAITING
    started: float | None = None
    """Seconds since 1970; None: it has not run, or did in an earlier version."""
    seconds: float | None = None
    """How long it ran; None: it runs, or has not run."""


@dataclass
class Progress:
    """How far a job is."""

    stages: dict[str, StageProgress]
    """By name, in the order of the job."""

    def write(self, directory: Path) -> None:
        """Write it into the directory of the job."""
        write_json_atomic(directory / PROGRESS_NAME, dataclasses.asdict(self))

    def change(self, name: str, state: str) -> None:
        """Note that a stage begins or ends."""
        stage, now = self.stages[name], time.time()
        if state == RUNNING:
            stage.started, stage.seconds = now, None
        elif stage.state == RUNNING:
            stage.seconds = max(now - stage.started, 0.0)
        stage.state = state


def read_progress(directory: str | os.PathLike) -> Progress:
    """Return how far the job in a directory is.

    Raises:
        InputError: no job has run there, or its record is damaged.
    """
    path = Path(directory) / PROGRESS_NAME
    check_directory(directory)
    if not os.path.lexists(path):
        raise InputError(f"in '{directory}' no job has run: it has no {PROGRESS_NAME}; give a directory of `run`")
    progress = read_record(Progress, read_json(path), str(path), "start the job again")
    odd = [name for name, stage in progress.stages.items() if not _is_plain(name, stage)]
    if odd:
        raise InputError(f"'{path}' is damaged: stage {plain_text(odd[0], 80)!r}; start the job again")
    return progress


def earlier_times(directory: Path) -> Mapping[str, StageProgress]:
    """Return what is known of the stages of an earlier call; nothing where that cannot be read."""
    try:
        return read_progress(directory).stages
    except InputError:
        return {}


def table_of(directory: str | os.PathLike, now: float | None = None) -> str:
    """Return the table that `nemo-distill status` prints: each stage, its state and time, where it is.

    Args:
        directory: of the job.
        now: seconds since 1970; None: by the clock.

    Raises:
        InputError: as `read_progress`.
    """
    directory, now = Path(directory), time.time() if now is None else now
    stages, works = read_progress(directory).stages, is_locked(directory)
    rows = []
    for name, stage in stages.items():
        state = _STOPPED if stage.state == RUNNING and not works else stage.state
        seconds = now - stage.started if state == RUNNING else stage.seconds
        said = _last_line(directory / LOGS_DIR / f"{name}.log") if state in (RUNNING, FAILED, _STOPPED) else ""
        rows.append((name, state, duration(seconds), said))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {state:<{widths[1]}}  {took:>{widths[2]}}  {said}".rstrip()
        for name, state, took, said in rows
    ]
    done = sum(stage.state == DONE for stage in stages.values())
    failed = sum(stage.state == FAILED for stage in stages.values())
    state = "running" if works else "finished" if done == len(stages) else "not running; the same command goes on"
    return "\n".join([*lines, f"{done} of {len(stages)} stages done, {failed} failed; the job is {state}"])


def _is_plain(name: str, stage: StageProgress) -> bool:
    runs_since = stage.state != RUNNING or stage.started is not None
    return stage.state in STATES and runs_since and re.fullmatch(r"\w[\w.@+=-]{0,199}", name) is not None


def _last_line(path: Path) -> str:
    """Return the last progress in a log, else its last line."""
    try:
        lines = log_lines(path)
    except (InputError, OSError):
        return ""
    return plain_text(([each for each in lines if progress_in(each)] or lines or [""])[-1].strip(), _LINE)
