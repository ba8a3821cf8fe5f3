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
"""What is known of the stages that were handed to Slurm: `slurm/jobs.json`, what their scripts have noted, and what
Slurm says. Imports nothing heavy.
"""

import dataclasses
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError, StageError
from nemo_distill.support.files import make_directory, write_json_atomic
from nemo_distill.support.incoming import read_bytes, read_json
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.records import read_record

SLURM_DIR, JOBS_NAME = "slurm", "jobs.json"
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""States in which a job is no longer there; all others are of jobs that wait, run or end."""
_WAIT = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "CONFIGURING"}
_NOTE = re.compile(r"([0-9]{1,18}) (?:begin ([0-9]{1,12})|end ([0-9]{1,12}) ([0-9]{1,3}))", re.ASCII)
_LABEL, _FIX = re.compile(r"\w[\w.@+=-]{0,199}"), "remove it once no job of it is in Slurm"
_PATIENCE = 60.0


@dataclass(frozen=True)
class Submitted:
    """A stage that was handed to Slurm."""

    job: str
    """Its number there."""
    label: str
    """The stage by which the job's script, notes and log are called; one job may do several."""
    origin: str
    """Hash of all that decides what the job makes."""
    needs: list[str]
    """Stages that must have finished before."""

    def path(self, directory: Path, suffix: str) -> Path:
        """Return a file of the job, in the directory of all of them."""
        return directory / SLURM_DIR / f"{self.label}.{suffix}"


@dataclass(frozen=True)
class Queued:
    """What Slurm says of a job."""

    job: str
    name: str
    state: str
    """In Slurm's word, such as PENDING."""
    reason: str = ""
    """Why it waits, or why it has ended so."""

    @property
    def is_there(self) -> bool:
        """Whether it waits, runs or ends."""
        return self.state not in _ENDED

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or is to begin again."""
        return self.state in _WAIT


@dataclass(frozen=True)
class Starts:
    """What the script of a job has noted."""

    first: float | None = None
    """Seconds since 1970; None: it has not begun."""
    seconds: float = 0.0
    """How long it ran, over all starts that have ended."""
    last: float | None = None
    """When it began last, if that start has not ended."""
    status: int | None = None
    """With which its last start has ended; None: that has not."""


def read_submitted(directory: Path) -> dict[str, Submitted]:
    """Return the stages of a job that were handed to Slurm, by name.

    Raises:
        InputError: the record is damaged.
    """
    path = directory / SLURM_DIR / JOBS_NAME
    if not os.path.lexists(path):
        return {}
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise InputError(f"'{path}' is no record of Slurm's jobs; {_FIX}")
    found = {name: read_record(Submitted, entry, f"{path}: {name[:80]}", _FIX) for name, entry in content.items()}
    if not all(_LABEL.fullmatch(item.label) and re.fullmatch("[0-9]{1,18}", item.job) for item in found.values()):
        raise InputError(f"'{path}' is damaged; {_FIX}")
    return found


def write_submitted(directory: Path, submitted: Mapping[str, Submitted]) -> None:
    """Write which stages were handed to Slurm."""
    own_directory(directory)
    content = {name: dataclasses.asdict(item) for name, item in submitted.items()}
    write_json_atomic(directory / SLURM_DIR / JOBS_NAME, content)


def own_directory(directory: Path) -> Path:
    """Return the directory of scripts and notes, made where it was not.

    Raises:
        InputError: it is a link.
    """
    own = directory / SLURM_DIR
    make_directory(own)
    if own.is_symlink():
        raise InputError(f"'{own}' is a link; remove it, so that what Slurm's jobs write stays in the job's directory")
    return own


def starts_of(directory: Path, item: Submitted) -> Starts:
    """Return what the script of a job has noted; nothing where that cannot be read."""
    try:
        text = read_bytes(item.path(directory, "starts")).decode("ascii", "replace")
    except InputError:
        return Starts()
    found = Starts()
    for note in filter(None, map(_NOTE.fullmatch, text.splitlines())):
        if note[1] != item.job:
            continue
        if note[2] is not None:
            first = float(note[2]) if found.first is None else found.first
            found = Starts(first, found.seconds, float(note[2]))
        elif found.last is not None:
            seconds = found.seconds + max(float(note[3]) - found.last, 0.0)
            found = Starts(found.first, seconds, None, int(note[4]))
    return found


def ask_queue() -> dict[str, Queued]:
    """Return this user's jobs in Slurm by number: all that wait or run, and what has ended in the last minutes.

    Raises:
        InputError, StageError: Slurm cannot be asked.
    """
    said = call(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%j"])
    rows = (line.split("|", 3) for line in said.splitlines())
    return {row[0]: Queued(row[0], row[3].strip(), row[1], row[2]) for row in rows if len(row) == 4}


def ask_accounts(jobs: Sequence[str]) -> dict[str, Queued]:
    """Return what Slurm's accounting says of jobs that have ended; nothing where a cluster has none."""
    if not jobs:
        return {}
    command = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--format=JobID,State",
        f"--jobs={','.join(jobs)}",
    ]
    try:
        rows = [line.split("|") for line in call(command).splitlines()]
    except (InputError, StageError):
        return {}
    return {row[0]: Queued(row[0], "", row[1].split()[0]) for row in rows if len(row) == 2 and row[1].strip()}


def call(command: Sequence[str]) -> str:
    """Return what one of Slurm's commands says on standard output.

    Raises:
        InputError: it is not there, or refuses; the message holds its words.
        StageError: it does not answer.
    """
    environment = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or key[:6] != "SLURM_"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_PATIENCE, check=False
        )
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {command[0]} on PATH; give the command where Slurm's are, or leave --executor out"
        ) from error
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started: {error.strerror}; see what it is") from error
    except subprocess.TimeoutExpired as error:
        raise StageError(f"{command[0]} has not answered for {_PATIENCE:g} seconds; try again later") from error
    if done.returncode != 0:
        lines = [line.removeprefix(f"{command[0]}: ").strip() for line in _text(done.stderr).splitlines()]
        said = "; ".join(filter(None, lines)) or f"status {done.returncode}"
        raise InputError(f"{command[0]} says: {plain_text(said, 500)}")
    return _text(done.stdout)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "replace")
