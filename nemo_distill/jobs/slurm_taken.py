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
"""What a job takes over of its stages that ran in Slurm, and whether some are there still."""

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.noted import Job
from nemo_distill.jobs.progress import DONE, StageProgress, earlier_progress
from nemo_distill.jobs.slurm_records import (
    JOBS_NAME,
    SLURM_DIR,
    Submitted,
    ask_queue,
    read_submitted,
    starts_of,
    write_submitted,
)
from nemo_distill.support.files import sha256


def take_in(job: Job) -> dict[str, Submitted]:
    """Note which of the stages that were handed to Slurm have finished there, and return the others.

    Args:
        job: which this process has opened. A stage counts as made in the way that was noted when it was handed over.
    """
    submitted = read_submitted(job.directory)
    progress = earlier_progress(job.directory)
    left = dict(submitted)
    for name, item in submitted.items():
        starts = starts_of(job.directory, item)
        if starts.status != 0 or name not in job.stages:
            continue
        del left[name]
        noted, result = job.done.get(name), job.stages[name].result
        if noted is None or noted.sha256 is not None or noted.origin != item.origin:
            continue  # a process that ran in the job has noted it, or it was begun anew since
        if not result.is_file():
            print(f"[{name}] ended well in Slurm without its result, '{result}'", file=sys.stderr, flush=True)
            continue
        job.note(name, replace(noted, sha256=sha256(result)))
        progress.stages[name] = StageProgress(DONE, starts.first, starts.seconds)
    if left != submitted:
        progress.write(job.directory)
        write_submitted(job.directory, left)
    return left


def refuse_submitted(job: Job, chosen: Collection[str]) -> None:
    """Forget that stages were handed to Slurm which are to run here now.

    Raises:
        InputError: some are there, in another job than the one that this process runs in; or nobody can say.
    """
    own = os.environ.get("SLURM_JOB_ID")
    submitted = read_submitted(job.directory)
    others = {name: item for name, item in submitted.items() if name in chosen and item.job != own}
    if not others:
        return
    try:
        queue = ask_queue()
    except (InputError, StageError) as error:
        raise InputError(
            f"{_named(others, others)} were handed to Slurm, which cannot be asked whether they are there: {error}. "
            f"If they are not, remove {job.directory / SLURM_DIR / JOBS_NAME}"
        ) from error
    there = [name for name, item in others.items() if item.job in queue and queue[item.job].is_there]
    if there:
        numbers = " ".join(sorted({others[name].job for name in there}, key=int))
        raise InputError(
            f"in Slurm are {_named(there, others)}; wait until they have ended, end them with `scancel {numbers}`, or "
            "give --executor slurm"
        )
    write_submitted(job.directory, {name: item for name, item in submitted.items() if name not in others})


def _named(names: Sequence[str], submitted: dict[str, Submitted]) -> str:
    return ", ".join(f"{name} (job {submitted[name].job})" for name in names)
