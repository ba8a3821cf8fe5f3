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
"""A job of several commands: what has finished is not repeated, what does not need each other runs side by side."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.devices import Devices, visible_devices
from nemo_distill.jobs.noted import Job, Stage, open_job
from nemo_distill.jobs.progress import (
    DONE,
    FAILED,
    LEFT_OUT,
    RUNNING,
    WAITING,
    Progress,
    earlier_progress,
)
from nemo_distill.jobs.running import Processes, ended_by_signals
from nemo_distill.jobs.side_by_side import beside
from nemo_distill.jobs.slurm_taken import refuse_submitted, take_in
from nemo_distill.support.files import sha256, write_text_atomic
from nemo_distill.support.threads import cores


def run_stages(
    stages: Sequence[Stage],
    directory: str | os.PathLike,
    jobs: int = 1,
    inputs: Mapping[Path, str] | None = None,
    only: Collection[str] | None = None,
    told: Collection[str] = (),
) -> None:
    """Run the commands of a job, each once.

    A stage has finished when its result exists, unchanged, and `stages.json` in `directory` says that it was made by
    this very command, of these very files, after these very stages. What was made in another way is moved to
    `earlier/` and made anew. Output goes to `logs/NAME.log`, progress to the terminal and to `progress.json`. A stage
    that fails stops what needs it, nothing else. One process at a time works in the directory. SIGTERM, SIGHUP and
    Ctrl-C end the stages that run, and then the job; a second one kills them.

    Args:
        stages: in any order; what one needs must be among them.
        directory: of the job.
        jobs: stages to run side by side, each on its share of the cores, see `side_by_side.beside`, and of the GPUs,
            see `devices.Devices`.
        inputs: text files that stages read, written first.
        only: names of stages to run now, where they have to; None: all.
        told: names of those of which it is not said that they had finished before.

    Raises:
        InputError: stages were given bad input, or one has a result that has changed since it was made; or another
            process works in the directory, or stages are in Slurm; or `only` names some that need others first.
        StageError: a stage failed in another way; the message holds the end of its log.
        StoppedBySignal: the job was told to end.
    """
    with ended_by_signals(), open_job(stages, directory) as job:
        take_in(job)
        waiting = job.waiting(told)
        chosen = waiting if only is None else _chosen(job, waiting, only)
        refuse_submitted(job, chosen)
        for path, text in (inputs or {}).items():
            write_text_atomic(path, text)
        run_chosen(job, waiting, chosen, jobs)


def _chosen(job: Job, waiting: Sequence[str], only: Collection[str]) -> list[str]:
    """Return the stages that are to run now, of those that wait."""
    chosen = [name for name in waiting if name in only]
    missing = {need for name in chosen for need in job.stages[name].needs} & set(waiting) - set(chosen)
    if missing:
        raise InputError(
            f"{', '.join(chosen)} cannot run: {', '.join(sorted(missing))} must be made first; give the command of "
            "the whole job again"
        )
    return chosen


def run_chosen(job: Job, unfinished: Sequence[str], chosen: Sequence[str], jobs: int) -> None:
    """Run some stages in their order, but for what needs a stage that failed, and note how each has ended.

    Args:
        job: which this process has opened.
        unfinished: all stages that have not finished.
        chosen: those of them to run; what they need is finished, or among them.
        jobs: stages to run side by side.

    Raises:
        InputError: one or more were given bad input.
        StageError: one or more failed in another way.
    """
    waiting = list(chosen)
    together = beside({name: stage.needs for name, stage in job.stages.items()}, jobs)
    jobs = max(min(jobs, len(waiting)), 1)
    progress = earlier_progress(job.directory).of(job.stages)
    for name, stage in progress.stages.items():
        stage.state = WAITING if name in unfinished else DONE
    progress.write(job.directory)
    running: dict[Future, str] = {}
    failures: dict[str, Exception] = {}
    processes, devices = Processes(), Devices(visible_devices() if jobs > 1 else ())
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while waiting or running:
                to_come = {*waiting, *running.values()}
                ready = [name for name in waiting if not to_come & set(job.stages[name].needs)]
                for name in ready[: jobs - len(running)]:
                    waiting.remove(name)
                    if job.goes_on(name):
                        progress.go_on(name, job.directory)
                    else:
                        progress.stages[name].before = 0.0
                    job.make_way(job.stages[name])
                    job.note(name, job.expected(name))
                    progress.change(name, RUNNING)
                    command = job.stages[name].command + _time_spent(job.stages[name], progress)
                    threads = max(cores() // together[name], 1)
                    gpus = devices.take(name, command, together[name])
                    running[pool.submit(processes.run, name, command, job.directory, threads, gpus)] = name
                progress.write(job.directory)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    devices.give_back(name)
                    try:
                        _take_result(job, name, future)
                        progress.change(name, DONE)
                    except (InputError, StageError) as error:
                        print(f"[{name}] failed", file=sys.stderr, flush=True)
                        failures[name] = error
                        progress.change(name, FAILED)
                        for each in _needing(job, name) & set(waiting):
                            waiting.remove(each)
                            progress.change(each, LEFT_OUT)
                progress.write(job.directory)
        except BaseException as error:
            _end(pool, processes, told=not isinstance(error, Exception))
            for name in running.values():
                progress.stop(name)
            progress.write(job.directory)
            raise
    if failures:
        kind = InputError if all(isinstance(error, InputError) for error in failures.values()) else StageError
        lines = [str(error) for error in failures.values()]
        if left_out := [name for name, stage in progress.stages.items() if stage.state == LEFT_OUT]:
            lines.append(f"not run, since they need {'it' if len(lines) == 1 else 'these'}: {', '.join(left_out)}")
        raise kind("\n  ".join(lines)) from next(iter(failures.values()))


def _take_result(job: Job, name: str, future: Future) -> None:
    """Note a stage that has ended.

    Raises:
        InputError, StageError: it has failed, or has no result.
    """
    future.result()
    stage = job.stages[name]
    if not stage.result.is_file():
        raise InputError(f"stage {name} ended well without its result, '{stage.result}'")
    job.note(name, replace(job.expected(name), sha256=sha256(stage.result)))


def _needing(job: Job, name: str) -> set[str]:
    """Return the stages that need one, directly or by others."""
    found = {name}
    for each in job.keys:  # what is needed comes before
        if found & set(job.stages[each].needs):
            found.add(each)
    return found - {name}


def _time_spent(stage: Stage, progress: Progress) -> list[str]:
    """Return the options that tell a report how long its rows' labels and caches took, where that is known.

    A stage that several rows use is shared out evenly among them, their seeds counted as one.
    """
    rows = Counter(name for names in stage.spent.values() for name in names)
    told = []
    for row, names in stage.spent.items():
        seconds = [progress.stages[name].seconds for name in names]
        if seconds and None not in seconds:
            share = sum(each / rows[name] for name, each in zip(names, seconds, strict=True))
            told.append(f"{row}:{sum(seconds):.1f}" + f":{share:.1f}" * (max(rows[name] for name in names) > 1))
    return ["--spent", *told] if told else []


def _end(pool: ThreadPoolExecutor, processes: Processes, told: bool) -> None:
    """Wait until what runs has ended, and start nothing more.

    Args:
        pool: the threads that wait for the processes.
        processes: of the job.
        told: whether a signal told the job to end; then its processes are told too, and killed by the next signal.
    """
    number = signal.SIGTERM if told else None
    while True:
        try:
            if number is not None:
                print(f"ending the stages that run ({number.name})", file=sys.stderr, flush=True)
                processes.end(number)
            pool.shutdown(cancel_futures=True)
            return
        except (KeyboardInterrupt, SystemExit):
            number = signal.SIGTERM if number is None else signal.SIGKILL
