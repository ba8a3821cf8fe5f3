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

import contextlib
import dataclasses
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.running import LOGS_DIR, log_lines, progress_in
from nemo_distill.jobs.slurm_records import (
    Queued,
    Submitted,
    ask_accounts,
    ask_queue,
    read_submitted,
    starts_of,
)
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import check_directory, read_json
from nemo_distill.support.lock import is_locked
from nemo_distill.support.quoting import duration, plain_text
from nemo_distill.support.records import read_record

PROGRESS_NAME = "progress.json"
NOTES_NAME = "notes.json"
"""What is done otherwise than the recipe says, a list of lines."""
WAITING, RUNNING, DONE, FAILED, LEFT_OUT = "waiting", "running", "done", "failed", "left out"
STATES = (WAITING, RUNNING, DONE, FAILED, LEFT_OUT)
_STOPPED, _QUEUED, _UNKNOWN = "stopped", "queued", "unknown"
_INTERRUPTED = (143, 138)
"""Statuses of what goes on when it is started again; see `slurm.sh`."""
_FAILURES = ("OUT_OF_MEMORY", "BOOT_FAIL")
_LINE = 120
_OF_SLURM = re.compile(r"(?:srun|slurmstepd\S*): ")
"""What Slurm adds to a log of a stage that has failed."""


@dataclass
class StageProgress:
    """How far one stage is."""

    state: str = WAITING
    started: float | None = None
    """Seconds since 1970; None: it has not run, or did in an earlier version."""
    seconds: float | None = None
    """How long it ran, with what it went on from; None: it runs, or has not run."""
    before: float = 0.0
    """How long those attempts ran that were stopped, and that it went on from."""


@dataclass
class Progress:
    """How far a job is."""

    stages: dict[str, StageProgress]
    """By name, in the order of the job."""
    others: dict[str, StageProgress] = field(default_factory=dict)
    """What is known of stages that are not of this call: of a row that was left out, the export."""

    def of(self, names: Iterable[str]) -> "Progress":
        """Return it for a call with these stages: what is known of others is kept beside them."""
        known = self.others | self.stages
        own = {name: known.pop(name, StageProgress()) for name in names}
        return Progress(own, known)

    def write(self, directory: Path) -> None:
        """Write it into the directory of the job."""
        write_json_atomic(directory / PROGRESS_NAME, dataclasses.asdict(self))

    def change(self, name: str, state: str) -> None:
        """Note that a stage begins or ends."""
        stage = self.stages[name]
        if state == RUNNING:
            stage.started, stage.seconds = time.time(), None
        elif stage.state == RUNNING:
            self.stop(name)
        stage.state = state

    def stop(self, name: str, when: float | None = None) -> None:
        """Note how long a stage ran that has ended, or is told to.

        Args:
            name: of the stage.
            when: it ended, in seconds since 1970; None: now.
        """
        stage = self.stages[name]
        stage.seconds = stage.before + max((time.time() if when is None else when) - stage.started, 0.0)

    def go_on(self, name: str, directory: Path) -> None:
        """Note that a stage goes on from where an earlier call was stopped, of which one knows the end by its log.

        Args:
            name: of the stage.
            directory: of the job.
        """
        stage = self.stages[name]
        if stage.started is not None and stage.seconds is None:
            with contextlib.suppress(OSError):
                self.stop(name, os.stat(directory / LOGS_DIR / f"{name}.log").st_mtime)
        stage.before = stage.seconds or 0.0


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
    odd = [name for name, stage in [*progress.stages.items(), *progress.others.items()] if not _is_plain(name, stage)]
    if odd:
        raise InputError(f"'{path}' is damaged: stage {plain_text(odd[0], 80)!r}; start the job again")
    return progress


def earlier_progress(directory: Path) -> Progress:
    """Return how far the job in a directory was in an earlier call; nothing is known where that cannot be read."""
    try:
        return read_progress(directory)
    except InputError:
        return Progress({})


def earlier_times(directory: Path) -> Mapping[str, StageProgress]:
    """Return what is known of all stages that earlier calls had."""
    progress = earlier_progress(directory)
    return progress.others | progress.stages


def read_notes(directory: str | os.PathLike) -> list[str]:
    """Return what the job in a directory does otherwise than its recipe says, a line each.

    Raises:
        InputError: its record is damaged.
    """
    path = Path(directory) / NOTES_NAME
    if not os.path.lexists(path):
        return []
    notes = read_json(path)
    if not isinstance(notes, list) or not all(isinstance(each, str) for each in notes):
        raise InputError(f"'{path}' is damaged; start the job again")
    return [plain_text(each, 400) for each in notes]


def table_of(directory: str | os.PathLike, now: float | None = None) -> str:
    """Return the table that `nemo-distill status` prints: each stage, its state and time, where it is; errors that are
    longer than a line; and the notes.

    Args:
        directory: of the job.
        now: seconds since 1970; None: by the clock.

    Raises:
        InputError: as `read_progress`.
    """
    directory, now = Path(directory), time.time() if now is None else now
    stages, works = read_progress(directory).stages, is_locked(directory)
    in_slurm = _Slurm.look(directory, works)
    rows, states, whole = [], {}, []
    for name, stage in stages.items():
        if in_slurm is not None and name in in_slurm.submitted and stage.state in (WAITING, RUNNING):
            state, seconds, said = in_slurm.row(name, stage, states, now)
        else:
            state = _STOPPED if stage.state == RUNNING and not works else stage.state
            seconds, said = now - stage.started if state == RUNNING else stage.seconds, ""
        if state in (RUNNING, FAILED, _STOPPED):
            said = said or _last_line(directory / LOGS_DIR / f"{name}.log", state)
        states[name] = state
        rows.append((name, state, duration(seconds), plain_text(said, _LINE)))
        if state == FAILED and len(said) > _LINE:
            whole.append(f"{name}: {said}")
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {state:<{widths[1]}}  {took:>{widths[2]}}  {said}".rstrip()
        for name, state, took, said in rows
    ]
    counts = Counter(states.values())
    if works or counts[RUNNING]:
        state = "running"
    elif counts[_QUEUED]:
        state = "queued in Slurm"
    elif counts[_UNKNOWN]:
        state = f"in Slurm, which cannot be asked: {in_slurm.fault}"
    else:
        state = "finished" if counts[DONE] == len(stages) else "not running; the same command goes on"
    lines += whole + read_notes(directory)
    return "\n".join(
        [*lines, f"{counts[DONE]} of {len(stages)} stages done, {counts[FAILED]} failed; the job is {state}"]
    )


@dataclass
class _Slurm:
    """What is known of the stages of a job that were handed to Slurm."""

    directory: Path
    works: bool
    """Whether a process works on the job."""
    submitted: Mapping[str, Submitted]
    said: Mapping[str, Queued]
    """By Slurm, of the jobs that it knows, by number."""
    fault: str | None
    """Why it says nothing."""

    @classmethod
    def look(cls, directory: Path, works: bool) -> "_Slurm | None":
        """Ask Slurm; None: it was given nothing."""
        submitted, said, fault = read_submitted(directory), {}, None
        if not submitted:
            return None
        try:
            said = ask_queue()
            gone = {item.job for item in submitted.values()} - said.keys()
            said |= ask_accounts(sorted(gone))
        except (InputError, StageError) as error:
            fault = str(error)
        return cls(directory, works, submitted, said, fault)

    def row(
        self, name: str, stage: StageProgress, before: Mapping[str, str], now: float
    ) -> tuple[str, float | None, str]:
        """Return state, seconds and last words of a stage, none where its log has them.

        Args:
            name: of the stage.
            stage: what the job's own record says, which of one that runs is nearer than Slurm's.
            before: states of the stages before it.
            now: seconds since 1970.
        """
        item = self.submitted[name]
        starts, said = starts_of(self.directory, item), self.said.get(item.job)
        seconds, mark = starts.seconds if starts.first is not None else None, f"job {item.job}: "
        if stage.state == RUNNING and (self.works if said is None else said.is_there):
            return RUNNING, now - stage.started, ""
        if starts.status == 0:
            return DONE, seconds, ""
        if said is not None and said.is_there:
            if said.waits:
                return _QUEUED, seconds, (mark + said.reason.replace("None", "")).rstrip(": ")
            return RUNNING, starts.seconds + (now - starts.last if starts.last is not None else 0.0), ""
        if self.fault is not None:
            return _UNKNOWN, seconds, f"job {item.job}"
        if starts.first is None:
            missing = [need for need in item.needs if before.get(need) in (FAILED, LEFT_OUT, _STOPPED)]
            if missing:
                return LEFT_OUT, None, f"{mark}it needs {', '.join(missing)}"
        words = said.state.lower().replace("_", " ") if said is not None else "gone"
        ended = starts.status is not None and starts.status not in _INTERRUPTED
        if ended or (said is not None and said.state in _FAILURES):
            return FAILED, seconds, "" if ended else mark + words
        return _STOPPED, seconds, mark + words


def _is_plain(name: str, stage: StageProgress) -> bool:
    runs_since = stage.state != RUNNING or stage.started is not None
    return stage.state in STATES and runs_since and re.fullmatch(r"\w[\w.@+=-]{0,199}", name) is not None


def _last_line(path: Path, state: str) -> str:
    """Return the last progress in a log, else its last line, which of a stage that has failed is the error."""
    try:
        lines = log_lines(path)
    except (InputError, OSError):
        return ""
    lines = [line for line in lines if not _OF_SLURM.match(line)] or lines
    if state != FAILED:
        lines = [each for each in lines if progress_in(each)] or lines
    return lines[-1].strip() if lines else ""
