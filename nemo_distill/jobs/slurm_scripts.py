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
"""What a stage asks Slurm for, and the script that does it there."""

import math
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import values_of
from nemo_distill.jobs.costs import Plan
from nemo_distill.jobs.devices import trainer_of
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.running import essence, is_training, stage_environment
from nemo_distill.support.children import PARENT_VARIABLE
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.threads import SHARE_VARIABLE

FUNCTIONS = Path(__file__).with_name("slurm.sh")
"""What all scripts do alike; those of examples/slurm/ have it, too."""
_SHARING = (["pseudo-label"], ["cache"], ["evaluate"])
"""Verbs whose processes share their work."""
_SET_HERE = {
    "array",
    "chdir",
    "dependency",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "parsable",
    "test-only",
    "wrap",
    "wait",
    "clusters",
    "het-group",
}
_SPARE_MINUTES = 10
_OF_A_MACHINE = (PARENT_VARIABLE, SHARE_VARIABLE)


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks Slurm for.

    Raises:
        InputError: a number is too small, or an option is set here.
    """

    partition: str | None = None
    account: str | None = None
    gpus: int | None = None
    """Of a node, for labels, caches and scores, which share their work; None: as the plan counts with, else 1."""
    nodes: int | None = None
    """For these; None: as the plan counts with, else 1."""
    train_gpus: int | None = None
    """Of a node, for a training; None: one for a training on GPUs."""
    train_nodes: int = 1
    """For a training."""
    time_factor: float = 2.0
    """Time limits as a multiple of what was planned."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, as KEY=VALUE or KEY; they win."""

    def __post_init__(self) -> None:
        for name, least in (("gpus", 0), ("nodes", 1), ("train_gpus", 0), ("train_nodes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')}: got {value}; give at least {least}")
        if not (math.isfinite(self.time_factor) and self.time_factor > 0):
            raise InputError(f"--time-factor: got {self.time_factor}; give a number above 0")
        for option in self.options:
            key = option.partition("=")[0]
            if not re.fullmatch(r"[a-z][a-z-]*", key) or "\n" in option:
                raise InputError(f"--sbatch-option: got {option[:80]!r}; write KEY=VALUE as in sbatch's --KEY=VALUE")
            if key in _SET_HERE:
                raise InputError(f"--sbatch-option: got {option[:80]!r}; the job sets --{key} itself")

    def sbatch_options(self, allocation: "Allocation", minutes: int | None) -> list[str]:
        """Return the options of sbatch that say what a job of so many minutes asks for."""
        options = [f"--time={minutes}"] if minutes is not None else []
        options += [
            f"--{name}={value}" for name in ("partition", "account") if (value := getattr(self, name)) is not None
        ]
        return [*allocation.options(), *options, *(f"--{option}" for option in self.options)]


@dataclass(frozen=True)
class Allocation:
    """Nodes and processes of a stage."""

    nodes: int = 1
    tasks: int = 1
    """On each node."""
    gpus: int = 0
    """Of each node."""
    trains: bool = False
    """Its processes are ranks of one training."""

    @classmethod
    def of(cls, stage: Stage, settings: SlurmSettings, plan: Plan | None) -> "Allocation":
        """Return what a stage gets.

        Raises:
            InputError: a training on the CPU is to have GPUs, or one on GPUs none.
        """
        arguments = essence(stage.command)
        if is_training(stage.command):
            on_gpu = trainer_of(arguments) not in (None, "cpu")
            asked = _asked_devices(arguments[1:], stage.name)
            if None not in (asked, settings.train_gpus) and asked != settings.train_gpus:
                raise InputError(
                    f"--train-gpus: got {settings.train_gpus}, and {stage.name} has trainer.devices={asked} in its "
                    "overrides; give one of them"
                )
            gpus = settings.train_gpus if settings.train_gpus is not None else int(on_gpu) * (asked or 1)
            if bool(gpus) != on_gpu:
                raise InputError(
                    f"--train-gpus: got {gpus}, and {stage.name} trains on "
                    + ("GPUs; give at least 1" if on_gpu else "the CPU; add trainer=gpu to the recipe's overrides")
                )
            return cls(settings.train_nodes, gpus or asked or 1, gpus, trains=True)
        if arguments[2:3] not in _SHARING:
            return cls()
        nodes = settings.nodes or (plan.nodes if plan else 1)
        gpus = settings.gpus if settings.gpus is not None else plan.devices // plan.nodes if plan else 1
        on_cpu = ("--device", "cpu") in pairwise(arguments)
        return cls(nodes, max(gpus, 1), 0 if on_cpu else gpus)

    def options(self) -> list[str]:
        """Return the options of sbatch that ask for it."""
        gpus = [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        return [f"--nodes={self.nodes}", f"--ntasks-per-node={self.tasks}", *gpus]

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command of a stage so that a training knows of its ranks."""
        ranks = [f"trainer.num_nodes={self.nodes}", f"trainer.devices={self.tasks}"] if self.trains else []
        return [*command, *ranks]


def minutes_of(names: Sequence[str], allocation: Allocation, plan: Plan | None, factor: float) -> int | None:
    """Return the time limit of a job of some stages; None: the plan does not know them all."""
    costs = {cost.name: cost for cost in plan.stages} if plan else {}
    seconds = [
        costs[name].scaled() if plan.devices == allocation.nodes * allocation.tasks else costs[name].seconds
        for name in names
        if name in costs
    ]
    if len(seconds) < len(names) or not all(seconds):
        return None
    return math.ceil(sum(seconds) * factor / 60) + _SPARE_MINUTES


def script_of(command: Sequence[str], allocation: Allocation, notes: Path) -> str:
    """Return a script for sbatch that does a stage.

    Args:
        command: of the stage.
        allocation: which it gets.
        notes: file in which the script notes when it began and ended.
    """
    environment = stage_environment(1)
    changed = {key: value for key, value in environment.items() if os.environ.get(key) != value}
    exported = [f"export {key}={shlex.quote(value)}" for key, value in changed.items() if key not in _OF_A_MACHINE]
    kind = "training" if allocation.trains else "sharing"
    lines = [
        "#!/usr/bin/env bash",
        "# Written by `nemo-distill run --executor slurm`, and submitted by it.",
        "set -euo pipefail",
        FUNCTIONS.read_text("utf-8"),
        *exported,
        f"step_of {allocation.nodes} {allocation.tasks}",
        f'run_stage {shlex.quote(str(notes))} "${{step[@]}}" "${{{kind}[@]}}" {shlex.join(command)}',
    ]
    return "\n".join(lines) + "\n"


def _asked_devices(overrides: Sequence[str], stage: str) -> int | None:
    """Return the devices of a node that a training's overrides ask for; None: they leave it to Slurm's.

    Raises:
        InputError: all that a node has, which here is not known.
    """
    asked = values_of(overrides).get("trainer.devices")
    if asked is None:
        return None
    count = len(asked) if isinstance(asked, list) else asked
    if type(count) is not int or count < 1:
        raise InputError(
            f"{stage}: trainer.devices={plain_text(count, 40)} in its overrides, and how many a node has is not known "
            "here; give a number, or --train-gpus in its place"
        )
    return count
