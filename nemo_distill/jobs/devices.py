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
"""Which GPUs a stage sees: stages that run side by side share out those that the job sees."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""With which a user says which GPUs to use, and a job tells its stages."""
_GPUS = Path("/proc/driver/nvidia/gpus")
_DEVICES = re.compile(r"\+{0,2}trainer\.devices=(.*)")
_TRAINER = re.compile(r"\+{0,2}trainer(?:\.accelerator)?=(\w+)")


def has_gpu() -> bool:
    """Return whether this machine has a GPU, and the user hides not all of them."""
    return _GPUS.is_dir() and bool(_listed(os.environ.get(VARIABLE, "0")))


def visible_devices() -> list[str]:
    """Return the GPUs that this process sees, as the user names them, else by their numbers."""
    if not has_gpu():
        return []
    given = os.environ.get(VARIABLE)
    if given is not None:
        return _listed(given)
    import torch  # takes seconds

    return list(map(str, range(torch.cuda.device_count())))


def trainer_of(overrides: Iterable[str]) -> str | None:
    """Return what a training runs on by its overrides, `cpu` or `gpu`, the last that says so; None: none does.

    Example:
        >>> trainer_of(["model=tiny_1x1", "trainer=gpu", "trainer.devices=2"])
        'gpu'
    """
    said = [match[1] for each in overrides if (match := _TRAINER.fullmatch(each))]
    return said[-1] if said else None


def _listed(given: str) -> list[str]:
    """Return the names in a list; CUDA reads it up to the first that is none."""
    return list(takewhile(lambda each: each not in ("", "-1"), (each.strip() for each in given.split(","))))


class Devices:
    """The GPUs of a job, each with the stages that it was given to.

    Args:
        names: of the GPUs; with fewer than two there is nothing to share out.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._stages: dict[str, set[str]] = {name: set() for name in names}

    def take(self, stage: str, command: Sequence[str], beside: int) -> list[str] | None:
        """Return the GPUs that a stage is to see, the least taken ones; None: all that the job sees.

        Args:
            stage: its name.
            command: may say how many GPUs it needs at least; one that names GPUs by their numbers sees all.
            beside: how many stages run at a time, itself counted; one that runs alone sees all.
        """
        asked = _asked(command)
        if beside < 2 or len(self._stages) < 2 or asked is None:
            return None
        count = max(len(self._stages) // beside, asked, 1)
        least = sorted(self._stages, key=lambda name: len(self._stages[name]))[:count]
        for name in least:
            self._stages[name].add(stage)
        return [name for name in self._stages if name in least]

    def give_back(self, stage: str) -> None:
        """Note that a stage has ended."""
        for stages in self._stages.values():
            stages.discard(stage)


def _asked(command: Sequence[str]) -> int | None:
    """Return how many GPUs a command asks for, 0 where it takes what it sees; None: it names them."""
    if any(option == "--device" and ":" in value for option, value in pairwise(command)):
        return None
    values = [match[1] for each in command if (match := _DEVICES.fullmatch(each))]
    last = values[-1] if values else ""
    if last.startswith("["):
        return None
    return int(last) if last.isdecimal() else 0
