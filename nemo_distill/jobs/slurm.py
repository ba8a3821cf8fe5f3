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
"""The stages of a job as jobs of Slurm, each after those that it needs.

Nothing waits here: Slurm starts what is ready, and starts it again where it was preempted or its time was over. What
was handed over has a name there of stage, directory and a hash of what it makes; so nothing is handed over twice, even
where this process was killed in between.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.jobs.costs import kept_plan
from nemo_distill.jobs.noted import Job, Stage, open_job
from nemo_distill.jobs.progress import DONE, WAITING, earlier_progress
from nemo_distill.jobs.running import LOGS_DIR, ended_by_signals, open_log
from nemo_distill.jobs.slurm_records import (
    SLURM_DIR,
    Queued,
    Submitted,
    ask_queue,
    call,
    own_directory,
    write_submitted,
)
from nemo_distill.jobs.slurm_scripts import Allocation, SlurmSettings, minutes_of, script_of
from nemo_distill.jobs.slurm_taken import take_in
from nemo_distill.jobs.stages import run_chosen
from nemo_distill.support.files import write_text_atomic


@dataclass(frozen=True)
class Rest:
    """The last stages of a job, done by one command: what they do depends on scores that are not there yet."""

    stages: tuple[str, ...]
    """Their names. The first one is a stage of the job, the others come of it."""
    command: list[str]
    origin: str
    """Hash of what decides what it does, besides the stages before it."""


@dataclass(frozen=True)
class _Unit:
    """One job of Slurm."""

    stages: tuple[str, ...]
    """What it does; the first one gives its name."""
    command: list[str]
    needs: tuple[str, ...]
    """Stages before it that have not finished."""
    origin: str
    name: str
    """In Slurm."""
    allocation: Allocation
    options: list[str]
    """Of sbatch: what it asks for."""
    log: Path

    @property
    def label(self) -> str:
        """By which it is called."""
        return self.stages[0]


def submit_stages(
    stages: Sequence[Stage],
    directory: str | os.PathLike,
    settings: SlurmSettings,
    rest: Rest | None = None,
    inputs: Mapping[Path, str] | None = None,
) -> list[str]:
    """Hand what has not finished of a job to Slurm, and return the numbers of its jobs that are there.

    What has finished is not handed over, nor what waits or runs there as it is to be made now. What waits there to be
    made otherwise is cancelled first; what runs so is refused. A stage that needs the internet runs here.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job; on a file system that all nodes see.
        settings: what to ask for.
        rest: how the last stages are done; None: as all others.
        inputs: text files that stages read, written first.

    Raises:
        InputError: Slurm is not there or refuses an option, a stage runs there that is to be made otherwise, or as
            `run_stages`. Nothing was handed over then, unless Slurm refuses what it would have taken.
        StageError: Slurm does not answer, or a stage that needs the internet failed.
    """
    with ended_by_signals(), open_job(stages, directory) as job:
        there = [
            each for each in ask_queue().values() if each.is_there
        ]  # before notes are read: what ends now is seen
        submitted = take_in(job)
        waiting = job.waiting()
        local = [name for name in waiting if job.stages[name].fetches]
        waiting = [name for name in waiting if name not in local]
        units = list(_units(job, waiting, settings, rest))
        if not units:
            return []
        numbers, stale = _in_slurm(job, units, there)
        new = [unit for unit in units if unit.label not in numbers]
        for options in {tuple(unit.options) for unit in new}:
            call(["sbatch", "--test-only", *options, "--wrap=true"])
        if new and not all(any(each.startswith("--time=") for each in unit.options) for unit in new):
            print("jobs have the time limit of their partition: `nemo-distill plan --save` measures what they need")
        if local:
            run_chosen(job, [*local, *waiting], local, 1)
        if stale:
            call(["scancel", "--state=PENDING", *stale])
        for path, text in (inputs or {}).items():
            write_text_atomic(path, text)
        _note_progress(job, waiting, rest)
        for unit in units:
            if unit.label not in numbers:
                job.make_way(job.stages[unit.label])
                job.note(unit.label, job.expected(unit.label))
                numbers[unit.label] = _submit(job, unit, numbers)
            needs = list(unit.needs)
            submitted |= {name: Submitted(numbers[unit.label], unit.label, unit.origin, needs) for name in unit.stages}
            write_submitted(job.directory, submitted)
            print(f"[{unit.label}] is job {numbers[unit.label]} in Slurm", flush=True)
    return list(numbers.values())


def _units(job: Job, waiting: Sequence[str], settings: SlurmSettings, rest: Rest | None) -> Iterator[_Unit]:
    """Yield a job of Slurm for each stage that waits, what is needed first."""
    plan = kept_plan(job.directory)
    plan = plan if plan is not None and plan.is_of(job.keys) else None
    for label in job.keys:
        if label not in waiting:
            continue
        stage, origin = job.stages[label], job.expected(label).origin
        names, log = (label,), job.directory / LOGS_DIR / f"{label}.log"
        if rest is not None and label == rest.stages[0]:
            names, log = rest.stages, job.directory / SLURM_DIR / f"{label}.log"
            allocation, command = Allocation(), rest.command
            origin = hashlib.sha256((origin + rest.origin).encode()).hexdigest()
        else:
            allocation = Allocation.of(stage, settings, plan)
            command = allocation.command(stage.command)
        needs = tuple(need for need in stage.needs if need in waiting)
        options = settings.sbatch_options(allocation, minutes_of(names, allocation, plan, settings.time_factor))
        yield _Unit(names, command, needs, origin, f"{label}-{_place(job)}-{origin[:8]}", allocation, options, log)


def _place(job: Job) -> str:
    """Return what in the names of Slurm's jobs stands for the directory of this one."""
    return hashlib.sha256(str(job.directory.resolve()).encode()).hexdigest()[:8]


def _in_slurm(job: Job, units: Sequence[_Unit], there: Sequence[Queued]) -> tuple[dict[str, str], list[str]]:
    """Return the numbers of the jobs that are in Slurm already, by label, and those that wait there in vain.

    Raises:
        InputError: one runs there that is to be made otherwise.
    """
    kept: dict[str, str] = {}
    stale, running = [], []
    place = f"-{_place(job)}-"
    for unit in units:
        for each in there:
            if each.name.partition(place)[0] != unit.label or place not in each.name:
                continue
            if each.name == unit.name and unit.label not in kept and set(unit.needs) <= kept.keys():
                kept[unit.label] = each.job
            else:
                (stale if each.waits else running).append((unit.label, each.job))
    if running:
        names = ", ".join(f"{label} (job {number})" for label, number in running)
        raise InputError(
            f"in Slurm run {names}, which are to be made otherwise now; wait until they have ended, or end them with "
            f"`scancel {' '.join(number for _, number in running)}`, then give the command again"
        )
    for each in there:
        label, found, _ = each.name.partition(place)
        if found and label not in job.stages:
            print(f"[{label}] is no stage any more, and is in Slurm; `scancel {each.job}` ends it", flush=True)
    return kept, [number for _, number in stale]


def _note_progress(job: Job, waiting: Sequence[str], rest: Rest | None) -> None:
    names = [*job.stages, *(rest.stages[1:] if rest is not None else ())]
    progress = earlier_progress(job.directory).of(names)
    for name, stage in progress.stages.items():
        stage.state = WAITING if name in waiting or name not in job.stages else DONE
    progress.write(job.directory)


def _submit(job: Job, unit: _Unit, numbers: Mapping[str, str]) -> str:
    """Hand one job to Slurm, and return its number there."""
    own = own_directory(job.directory)
    script, notes = (own / f"{unit.label}.{suffix}" for suffix in ("sbatch", "starts"))
    notes.unlink(missing_ok=True)
    write_text_atomic(script, script_of(unit.command, unit.allocation, notes.absolute()))
    with open_log(unit.log):
        pass
    log = str(unit.log.absolute()).replace("%", "%%")
    options = [f"--job-name={unit.name}", f"--chdir={os.getcwd()}", f"--output={log}", "--open-mode=append"]
    options += ["--requeue", "--signal=B:TERM@120", *unit.options]  # an own signal wins
    if unit.needs:
        # what never runs goes: else it would wait in the queue until somebody ends it
        options += [f"--dependency=afterok:{':'.join(numbers[need] for need in unit.needs)}"]
        options += ["--kill-on-invalid-dep=yes"]
    said = call(["sbatch", "--parsable", *options, str(script)])
    number = (said.split() or [""])[-1].partition(";")[0]
    if not re.fullmatch("[0-9]{1,18}", number):
        raise InputError(f"sbatch was to say the number of a job, and says {said[:200]!r}; see what it is")
    return number
