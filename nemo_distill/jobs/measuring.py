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
"""How long stages take, by short runs of the very commands that they are, each in a process of its own.

A short run gets a sample of the text and few steps. What it says of its progress is timed here as it comes, so no
second training step or search is written for it.
"""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.costs import Rate, TrainingRate
from nemo_distill.jobs.running import shown_lines, stage_environment
from nemo_distill.support.isolated import module_command
from nemo_distill.support.memory import peak_memory
from nemo_distill.support.text_files import iterate_lines

STEPS, VALIDATED = 24, 100
"""Of a training that is measured: its steps, and the lines of its one validation."""
_WARM_UP = 4
_LONGEST = 60.0
"""Seconds after which a short run is ended: it goes on with the progress that it made."""
SHORT = ["trainer.enable_progress_bar=true", "++model.optim.lr=1e-12", "++model.max_generation_delta=0"]
"""Overrides of a training that is measured. Its weights stay random: such a model hardly ever ends a sentence, so each
hypothesis is as long as the limit allows, which is the length of its source; of a trained one it is about that."""
_LOOKS = 0.2
"""Seconds after which the memory of a process is looked at again."""
_STEP = re.compile(rb"training:\s+\d+%[^\[]*?\b(\d+)/\d+ \[")
_VALIDATION = b"validation set 0: loss"


@dataclass
class Observed:
    """What one process did, as seen from outside."""

    seconds: float
    """From its start to its end."""
    memory: float
    """Bytes of main memory at its peak."""
    ended: bool = True
    """Whether it came to its end; else it was ended here."""
    steps: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since its start, and the training steps done by then."""
    validated: float | None = None
    """Seconds since its start at which its validation had a score."""


def observe(command: Sequence[str], threads: int, longest: float = _LONGEST, may_fail: bool = False) -> Observed:
    """Run a command and time what it says.

    Args:
        command: of a stage.
        threads: cores that it may use, as a stage of a job.
        longest: seconds after which it is ended.
        may_fail: take the time of one that fails, too.

    Raises:
        InputError: it was given bad input (status 2); the message holds the end of what it said.
        StageError: it failed in another way.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=stage_environment(threads)
    )
    observed, said, ended, peak = Observed(0.0, 0.0), b"", False, 0
    try:
        while True:
            left = longest - (time.monotonic() - start)
            if left <= 0:
                observed.ended = False
                break
            peak = max(peak, peak_memory(process.pid) or 0)
            if not select.select([process.stdout], [], [], min(left, _LOOKS))[0]:
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            said = (said + chunk)[-65536:]
            _note(observed, time.monotonic() - start, said[-len(chunk) - 200 :])
        ended = True
    finally:
        if not (ended and observed.ended):
            process.send_signal(signal.SIGKILL)  # what it writes is temporary
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    observed.seconds, observed.memory = time.monotonic() - start, usage.ru_maxrss * 1024.0
    if observed.memory <= (peak_memory() or 0):  # it is that of this process, of which the other was forked
        observed.memory = float(peak or observed.memory)
    if observed.ended and process.returncode != 0 and not may_fail:
        kind = InputError if process.returncode == 2 else StageError
        end = "\n  ".join(shown_lines(said)[-8:])
        raise kind(f"a short run of this stage failed with status {process.returncode}; it ended:\n  {end}")
    return observed


def _note(observed: Observed, now: float, said: bytes) -> None:
    """Note progress in what a process has just said."""
    found = [int(number) for number in _STEP.findall(said)]
    if found and (not observed.steps or found[-1] > observed.steps[-1][1]):
        observed.steps.append((now, found[-1]))
    if observed.validated is None and observed.steps and _VALIDATION in said:
        observed.validated = now


def start_up(threads: int) -> Observed:
    """Return what a process takes that imports what every stage does, and does nothing."""
    return observe(module_command(__name__), threads)


def training_rate(observed: Observed, lines: int, imports: float, share: float, few: bool = False) -> TrainingRate:
    """Return what a training takes, from a short run with one validation, at its end.

    Args:
        observed: the short run.
        lines: that it validated.
        imports: seconds of `start_up`.
        share: of the training text that it read.
        few: its text had so few batches that epochs began anew on the way, which is rare in the whole text: then the
            median of steps counts.

    Raises:
        InputError: it came to no step in its time.
    """
    steps = observed.steps
    warm = next((event for event in steps if event[1] >= _WARM_UP), None)
    if warm is None or warm[1] == steps[-1][1]:
        warm = steps[0] if steps else None
    if warm is None or warm[1] == steps[-1][1]:
        raise InputError(
            f"in {observed.seconds:.0f} s a short run came to no second step; choose a smaller model or batch, "
            "or a faster device"
        )
    timed = steps[steps.index(warm) :]
    each = [(after[0] - before[0]) / (after[1] - before[1]) for before, after in pairwise(timed)]
    step = median(each) if few else (timed[-1][0] - timed[0][0]) / (timed[-1][1] - timed[0][1])
    begun = max(steps[0][0] - steps[0][1] * step, 0.0)
    start = begun if begun <= imports else imports + (begun - imports) / share
    last = steps[-1][0]
    if observed.validated is None:
        return TrainingRate(start, step, 0.0, 0.0)
    return TrainingRate(start, step, (observed.validated - last) / lines, observed.seconds - observed.validated)


def decoding_rate(few: Observed, few_lines: int, many: Observed, many_lines: int) -> Rate:
    """Return the seconds of labels or a cache, from runs over few and over many lines."""
    if not many.ended:  # it had more to do than it came to: at least so slow
        return Rate(few.seconds, max(many.seconds - few.seconds, 0.0) / many_lines)
    return Rate.through((few_lines, few.seconds), (many_lines, many.seconds))


def sample(files: Iterable[tuple[Path, Path]], lines: int, take: int) -> int:
    """Write lines of parallel texts, evenly spaced, so that what stands beside each other stays so.

    Args:
        files: each a text and where its sample goes.
        lines: of each text.
        take: lines to write, at most.

    Returns:
        The number of lines written.
    """
    take = min(take, lines)
    for source, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "w", encoding="utf-8") as written:
            for number, line in enumerate(iterate_lines(source)):
                if (number + 1) * take // lines > number * take // lines:
                    written.write(f"{line}\n")
    return take


def disk_of(directory: Path) -> float:
    """Return the bytes of all files under a directory."""
    return float(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()))


if __name__ == "__main__":  # of `start_up`
    import nemo.collections.nlp.models  # noqa: F401

    import nemo_distill.training.run  # noqa: F401
