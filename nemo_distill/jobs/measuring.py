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
second training step or search is written for it. What shows progress grows with the text or with the steps; the rest,
imports and models that are opened, does not.
"""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs.costs import Rate, TrainingRate
from nemo_distill.jobs.running import shown_lines, stage_environment
from nemo_distill.support import progress_bar
from nemo_distill.support.isolated import module_command
from nemo_distill.support.memory import peak_memory
from nemo_distill.support.text_files import iterate_lines

STEPS, VALIDATED = 40, 300
"""Of a training that is measured: its steps, and the lines of its one validation."""
_WARM_UP = 4
_LONGEST = 60.0
"""Seconds after which a short run is ended: it goes on with the progress that it made."""
SHORT = ["trainer.enable_progress_bar=true", "++model.optim.lr=1e-12", "++model.max_generation_delta=0"]
"""Overrides of a training that is measured. Its weights stay random: such a model hardly ever ends a sentence, so each
hypothesis is as long as the limit allows, which is the length of its source; of a trained one it is about that."""
_LOOKS = 0.2
"""Seconds after which the memory of a process is looked at again."""
_OFTEN = "0.05"
"""Seconds between two lines of progress that are asked for."""
_VALIDATED, _FITTED = "validation set 0: loss", "`Trainer.fit` stopped"


@dataclass
class Observed:
    """What one process did, as seen from outside."""

    seconds: float
    """From its start to its end."""
    memory: float
    """Bytes of main memory at its peak."""
    ended: bool = True
    """Whether it came to its end; else it was ended here."""
    progress: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By what it says that it does: seconds since its start, and how much was done by then."""
    totals: dict[str, int] = field(default_factory=dict)
    """How much of that there is in all."""
    validated: float | None = None
    """Seconds since its start at which its validation had a score."""
    fitted: float | None = None
    """Seconds since its start at which its last checkpoint was written."""

    @property
    def steps(self) -> list[tuple[float, int]]:
        """Seconds since its start, and the training steps done by then."""
        return self.progress.get("training", [])

    def spent(self, *prefixes: str) -> tuple[float, float]:
        """Return the seconds that it spent on what showed progress, and those that all of that takes.

        Args:
            prefixes: of what it says that it does; none: of all of it.
        """
        seen = whole = 0.0
        for what, events in self.progress.items():
            if what.startswith(prefixes or ""):
                seconds, done = events[-1][0] - events[0][0], events[-1][1] - events[0][1]
                seen += seconds if done else 0.0
                whole += seconds * self.totals[what] / done if done else 0.0
        return seen, whole


def observe(
    command: Sequence[str],
    threads: int,
    longest: float = _LONGEST,
    may_fail: bool = False,
    gpus: Sequence[str] | None = None,
) -> Observed:
    """Run a command and time what it says.

    Args:
        command: of a stage.
        threads: cores that it may use, as a stage of a job.
        longest: seconds after which it is ended.
        may_fail: take the time of one that fails, too.
        gpus: that it sees, as a stage of a job.

    Raises:
        InputError: it was given bad input (status 2); the message holds the end of what it said.
        StageError: it failed in another way.
    """
    start = time.monotonic()
    environment = stage_environment(threads, gpus) | {progress_bar.VARIABLE: _OFTEN}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment)
    observed, said, line, ended = Observed(0.0, 0.0), b"", b"", False
    peak = 0
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
            *lines, line = re.split(rb"[\r\n]", line[-65536:] + chunk)
            for each in lines:
                _note(observed, time.monotonic() - start, each.decode("utf-8", "replace"))
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


@contextmanager
def running(commands: Sequence[Sequence[str]], threads: int, gpus: Sequence[Sequence[str] | None]) -> Iterator[None]:
    """Context in which other commands run beside, each on its GPUs; at its end they are ended. See `observe`."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen(command, env=stage_environment(threads, each), **quiet)
        for command, each in zip(commands, gpus, strict=True)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()  # what it writes is temporary
            process.wait()


def _note(observed: Observed, now: float, line: str) -> None:
    """Note progress in a line that a process has just said."""
    found = progress_bar.LINE.match(line)
    if found:
        events = observed.progress.setdefault(found["what"], [])
        done, observed.totals[found["what"]] = int(found["done"]), int(found["total"])
        if len(events) == 1 and done == events[0][1]:
            events.clear()  # it begins now, after what it had to open
        if not events or done > events[-1][1]:
            events.append((now, done))
    elif _VALIDATED in line and observed.validated is None and observed.steps:
        observed.validated = now
    elif _FITTED in line:
        observed.fitted = now


def start_up(threads: int) -> Observed:
    """Return what a process takes that imports what every stage does, and does nothing."""
    return observe(module_command(__name__), threads)


def training_rate(observed: Observed, lines: int, share: float, few: bool = False) -> TrainingRate:
    """Return what a training takes, from a short run with one validation, at its end.

    Args:
        observed: the short run.
        lines: that it validated.
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
    seen, whole = observed.spent("tokenizing", "processing")
    start = max(steps[0][0] - steps[0][1] * step, 0.0) - seen + whole / share
    if observed.validated is None:
        return TrainingRate(start, step)
    fitted = observed.fitted or observed.validated
    validated = (observed.validated - steps[-1][0]) / lines
    return TrainingRate(start, step, validated, fitted - observed.validated, observed.seconds - fitted)


def text_rate(observed: Observed, lines: int) -> Rate:
    """Return the seconds of labels or a cache, by what a run over so many lines says of its progress."""
    seen, whole = observed.spent()
    if seen > 0:
        return Rate(max(observed.seconds - seen, 0.0), whole / lines)
    return Rate(0.0, observed.seconds / lines)  # at most


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
