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
"""What a job will cost, by arithmetic: from rates that were measured to stages, and from stages to a whole.

Nothing runs here; `nemo_distill.jobs.measuring` has the short runs.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.jobs.progress import DONE, StageProgress
from nemo_distill.support.quoting import duration, size_text

PLAN_NAME = "plan.json"
_LONG = 60.0
"""Seconds from which on a stage's prediction is held against its time."""


@dataclass
class Rate:
    """Seconds that grow with a count: `fixed + each * count`."""

    fixed: float
    """Seconds whatever the count: imports, opening a model."""
    each: float
    """Seconds for each further line or step."""

    def seconds(self, count: float, share: int = 1) -> float:
        """Return the seconds of a count, where `share` processes, each with all that is fixed, divide it."""
        return self.fixed + self.each * count / share


@dataclass
class TrainingRate:
    """What a training takes."""

    start: float
    """Seconds until the first step, all text read."""
    step: float
    """Seconds of a step."""
    validated: float | None = None
    """Seconds of a validation for each of its lines; None: not known."""
    saved: float = 0.0
    """Seconds of what follows each validation: its checkpoints."""
    end: float = 0.0
    """Seconds after the last of them."""

    def seconds(self, steps: int, validations: int, lines: int) -> float:
        """Return the seconds of a run.

        Args:
            steps: of training.
            validations: on the way.
            lines: of the validation set.
        """
        each = lines * (self.validated or 0.0) + self.saved
        return self.start + steps * self.step + validations * each + self.end


@dataclass
class StageCost:
    """What one stage of a job will cost."""

    name: str
    seconds: float | None
    """On this machine, alone; None: not known."""
    divided: float | None = None
    """Seconds where the devices asked for share it; None: it is not shared."""
    disk: float = 0.0
    """Bytes that it leaves."""
    memory: float = 0.0
    """Bytes of main memory at its peak, at least: as in the short run."""
    needs: tuple[str, ...] = ()
    """Names of the stages before it."""
    done: bool = False
    """Whether an earlier call has finished it."""
    how: str = "measured"
    """Where its seconds come from."""
    at_most: bool = False
    """Whether these are of as many steps as there may be, before which its patience may end it."""

    def scaled(self) -> float:
        """Return its seconds where the devices share what can be shared."""
        return (self.seconds if self.divided is None else self.divided) or 0.0


@dataclass
class Saving:
    """What would change a stage's time."""

    change: str
    """In words, with the option or override."""
    seconds: float
    """Seconds saved over all stages that it changes; below 0: it costs so much more."""


@dataclass
class Plan:
    """What a job will cost."""

    stages: list[StageCost]
    """In the order of the job."""
    jobs: int
    """Stages side by side on this machine."""
    devices: int
    """GPUs (or machines like this one) that the scaled time counts with."""
    machine: str
    """What was measured on, in words."""
    savings: list[Saving] = dataclasses.field(default_factory=list)
    price: float | None = None
    """Euros for a device and hour."""
    nodes: int = 1
    """Among which the devices are divided."""
    keys: dict[str, str] | None = None
    """Of each stage a hash of its command and of what comes before it; None: an earlier version noted none."""

    def is_of(self, keys: Mapping[str, str]) -> bool:
        """Return whether it is of these stages as they are, by their `keys`, as far as is known."""
        return self.keys is None or all(self.keys.get(name) == key for name, key in keys.items())


def total_seconds(stages: Sequence[StageCost], slots: int, scaled: bool = False) -> float:
    """Return when the last stage ends, of those that are not done, as `run` starts them: in their order, each once all
    that it needs has ended, at most `slots` side by side. What is not known counts nothing.

    Args:
        stages: of the job; what one needs and is not among them counts as done.
        slots: stages side by side.
        scaled: count with the seconds that shared stages take. Then one that is shared takes all slots.

    Example:
        >>> total_seconds([StageCost("a", 5.0), StageCost("b", 3.0), StageCost("c", 2.0, needs=("b",))], 2)
        5.0
    """
    waiting = [stage for stage in stages if not stage.done]
    unfinished = {stage.name for stage in waiting}
    running: list[tuple[float, int, StageCost]] = []
    now, free = 0.0, slots
    while waiting or running:
        for stage in list(waiting):
            wide = slots if scaled and stage.divided is not None else 1
            if wide <= free and not unfinished & set(stage.needs):
                waiting.remove(stage)
                free -= wide
                running.append((now + (stage.scaled() if scaled else stage.seconds or 0.0), wide, stage))
        if not running:
            raise ValueError("stages need each other")
        running.sort(key=lambda item: item[0])
        now, wide, stage = running.pop(0)
        free += wide
        unfinished.discard(stage.name)
    return now


def device_hours(stages: Sequence[StageCost], devices: int) -> float:
    """Return the hours of devices that are paid for what is not done: a shared stage counts on each of them."""
    seconds = [stage.scaled() * (devices if stage.divided is not None else 1) for stage in stages if not stage.done]
    return sum(seconds) / 3600


def dominating(stages: Sequence[StageCost]) -> StageCost | None:
    """Return the stage that takes longest of those that are not done; None: all are done or unknown."""
    known = [stage for stage in stages if not stage.done and stage.seconds]
    return max(known, key=lambda stage: stage.seconds, default=None)


def table_of(plan: Plan) -> str:
    """Return the table that `nemo-distill plan` prints, and what follows from it."""
    more = plan.devices > 1
    rows = [("stage", "time", *([f"on {plan.devices}"] if more else []), "disk", "memory", "")]
    for stage in plan.stages:
        known = stage.seconds is not None
        times = [duration(stage.seconds) if known else "?"]
        times += [duration(stage.scaled()) if known else "?"] if more else []
        said = ["at most: patience may end it"] if stage.at_most else []
        said = "done already" if stage.done else "; ".join(said + [stage.how] * (stage.how != "measured"))
        memory = size_text(stage.memory) if stage.memory else ""
        rows.append((stage.name, *times, size_text(stage.disk) if stage.disk else "", memory, said))
    lines = _columns(rows)
    left = [stage for stage in plan.stages if not stage.done]
    here = total_seconds(plan.stages, plan.jobs)
    side = "one after the other" if plan.jobs == 1 else f"up to {plan.jobs} side by side"
    lines += [
        "",
        f"Together, what is not done: {_sure(left)}{duration(here)} on this machine ({plan.machine}), {side};",
    ]
    lines[-1] += f" {size_text(sum(stage.disk for stage in left))} on disk; memory at least"
    lines[-1] += f" {size_text(max((stage.memory for stage in left), default=0))} at its peak."
    if more:
        spread = total_seconds(plan.stages, plan.devices, scaled=True)
        lines.append(
            f"On {plan.devices} devices: {_sure(left)}{duration(spread)}. Assumes that each is as fast as this one, "
            "that labels and caches divide evenly, and that students train side by side, one on each."
        )
    hours = device_hours(plan.stages, plan.devices)
    if plan.price is not None:
        limit = "At most " if any(stage.at_most for stage in left) else ""
        lines.append(f"{limit}{hours:.2f} hours of a device at {plan.price:g} EUR: {hours * plan.price:.2f} EUR.")
    longest = dominating(plan.stages)
    if longest is not None:
        lines.append(f"Longest: {longest.name}, {duration(longest.seconds)}.")
    for saving in plan.savings:
        word = "saves" if saving.seconds >= 0 else "costs"
        lines.append(f"  {saving.change} {word} {duration(abs(saving.seconds))}")
    return "\n".join(lines)


def time_left(plan: Plan, done: Collection[str]) -> str:
    """Return in words how long what is not done will take.

    Args:
        plan: made before.
        done: names of the stages that have finished.
    """
    stages = [dataclasses.replace(stage, done=stage.name in done) for stage in plan.stages]
    left = [stage for stage in stages if not stage.done]
    return f"{_sure(left)}{duration(total_seconds(stages, plan.jobs))} for the {len(left)} that are not done"


def comparison(plan: Plan, real: Mapping[str, StageProgress], whole: Collection[str] = ()) -> str:
    """Return the table that `run` prints at its end: what was predicted of each stage, what it took, and the ratio.

    Args:
        plan: made before.
        real: how long stages took, by name.
        whole: names of those that patience may have ended and has not: all their steps were made.
    """
    limits = {stage.name for stage in plan.stages if stage.at_most} - {*whole}
    rows = [("stage", "predicted", "real", "predicted / real")]
    for stage in plan.stages:
        progress = real.get(stage.name)
        took = progress.seconds if progress is not None and progress.state == DONE else None
        ratio = f"{stage.seconds / took:.2f}" if took and stage.seconds is not None else ""
        predicted = ("at most " if stage.name in limits else "") + (duration(stage.seconds) or "?")
        rows.append((stage.name, predicted, duration(took), ratio))
    long = [
        stage.seconds / real[stage.name].seconds
        for stage in plan.stages
        if stage.seconds is not None and stage.name in real and (real[stage.name].seconds or 0) >= _LONG
        if stage.name not in limits
    ]
    near = sum(0.75 <= ratio <= 1.25 for ratio in long)
    end = f"{near} of {len(long)} stages over a minute were predicted within 25 %."
    if limits:
        end += f" Left out: {len(limits)} whose prediction is of as many steps as there might have been."
    return "\n".join([*_columns(rows), end])


def kept_plan(directory: Path) -> Plan | None:
    """Return the plan that `nemo-distill plan --save` left in a job's directory; None: there is none.

    Raises:
        InputError: it is damaged.
    """
    from nemo_distill.support.incoming import read_json

    path = directory / PLAN_NAME
    return plan_from(read_json(path), str(path)) if path.is_file() else None


def plan_from(content: Any, where: str) -> Plan:
    """Return the plan that `dataclasses.asdict` has made plain.

    Raises:
        InputError: it is damaged.
    """
    from nemo_distill.support.records import read_record

    plan = read_record(Plan, content, where, "make it anew with `nemo-distill plan --save`")
    counts = min(plan.jobs, plan.devices, plan.nodes) >= 1 and plan.devices % plan.nodes == 0
    if not counts or any((stage.seconds or 0) < 0 for stage in plan.stages):
        raise InputError(f"'{where}' is damaged; make it anew with `nemo-distill plan --save`")
    return plan


def _sure(stages: Sequence[StageCost]) -> str:
    """Return what stands before a sum in which something is not known, or is a limit."""
    if any(stage.seconds is None for stage in stages):
        return "more than "
    return "at most " if any(stage.at_most for stage in stages) else ""


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{text:<{width}}" if column in (0, len(row) - 1) else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
