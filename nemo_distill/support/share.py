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
"""Which part of a job this process does, where several share one output directory."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nemo_distill.errors import InputError


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many that work on the same output directory."""

    rank: int = 0
    world_size: int = 1
    wait_minutes: float = 60.0
    """How long the first process waits for the next shard of another one."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank: got {self.rank} of {self.world_size}; give 0 to {self.world_size - 1}")
        if not self.wait_minutes > 0:
            raise InputError(f"wait_minutes: got {self.wait_minutes}; give a number above 0")

    @classmethod
    def from_environment(cls, wait_minutes: float = 60.0) -> "Share":
        """Return what torchrun, or else Slurm, says of this process; a single one where neither does.

        torchrun sets RANK and WORLD_SIZE; srun sets SLURM_PROCID and SLURM_STEP_NUM_TASKS (its manual has them under
        "output environment variables"). A batch script that starts no srun has SLURM_NTASKS too, and is one process.

        Raises:
            InputError: they are not numbers, contradict each other, or one is missing beside the other.
        """
        rank, size = _number("RANK"), _number("WORLD_SIZE")
        place, names = _slurm_place(), ("RANK", "WORLD_SIZE")
        if rank is None and place is not None:
            if size not in (None, place[1]):
                raise InputError(
                    f"WORLD_SIZE is {size}, without RANK, but srun started {place[1]} tasks; unset "
                    "WORLD_SIZE, or set both"
                )
            rank, size = place
            names = ("SLURM_PROCID", "SLURM_NTASKS")
        elif (rank is None and size not in (None, 1)) or (rank is not None and size is None):
            given, missing = names if size is None else reversed(names)
            raise InputError(
                f"environment variable {given} is set, and {missing} is not: with other processes each would do the "
                f"whole work; start them with torchrun or srun, which set both, or unset {given}"
            )
        rank, size = rank or 0, 1 if size is None else size
        if not 0 <= rank < size:
            raise InputError(f"{names[0]} is {rank} of {names[1]} {size}; it must be 0 to {names[1]} - 1")
        return cls(rank, size, wait_minutes)

    def own(self, numbers: Iterable[int]) -> list[int]:
        """Return those of some shards that this process makes."""
        return [number for number in numbers if number % self.world_size == self.rank]

    def wait_for(self, find_missing: Callable[[], list[int]], count: int) -> Iterator[list[int]]:
        """Yield the numbers of the shards that are still missing whenever there are fewer; end when there are none.

        Args:
            find_missing: returns their numbers.
            count: of all shards.

        Raises:
            TimeoutError: no shard has come for `wait_minutes`.
        """
        missing, since = find_missing(), time.monotonic()
        while missing:
            time.sleep(0.2)
            still = find_missing()
            if len(still) < len(missing):
                since = time.monotonic()
                yield still
            missing = still
            if missing and time.monotonic() - since > 60 * self.wait_minutes:
                ranks = sorted({number % self.world_size for number in missing})
                raise TimeoutError(
                    f"{len(missing)} of {count} shards are missing and none has come for {self.wait_minutes:g} "
                    f"minutes; rank {', '.join(map(str, ranks))} should have made them. See why it stopped, then run "
                    "the same command again: it goes on where it is"
                )


def local_rank() -> tuple[str, int] | None:
    """Return which process of this machine this is, and the variable that says so: torchrun's, or else srun's.

    Raises:
        InputError: it is no number.
    """
    for name in ("LOCAL_RANK", "SLURM_LOCALID") if _slurm_place() else ("LOCAL_RANK",):
        if (number := _number(name)) is not None:
            return name, number
    return None


def _slurm_place() -> tuple[int, int] | None:
    """Return rank and number of the tasks of an srun; None outside of one."""
    rank, size = _number("SLURM_PROCID"), _number("SLURM_STEP_NUM_TASKS")
    if size is None and not ("SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ):
        size = _number("SLURM_NTASKS")
    return None if rank is None or size is None else (rank, size)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"environment variable {name} is '{text[:80]}'; torchrun and srun set it to a number")
    return None if text is None else int(text)
