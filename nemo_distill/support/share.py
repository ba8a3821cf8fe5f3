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
            raise InputError(f"RANK is {self.rank} of WORLD_SIZE {self.world_size}; it must be 0 to WORLD_SIZE - 1")
        if not self.wait_minutes > 0:
            raise InputError(f"wait_minutes: got {self.wait_minutes}; give a number above 0")

    @classmethod
    def from_environment(cls, wait_minutes: float = 60.0) -> "Share":
        """Return what `torchrun` says in RANK and WORLD_SIZE; a single process without it.

        Raises:
            InputError: they are not numbers.
        """
        numbers = []
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")):
            text = os.environ.get(name, default)
            if not re.fullmatch(r"[0-9]{1,9}", text):
                raise InputError(f"environment variable {name} is '{text[:80]}'; torchrun sets it to a number")
            numbers.append(int(text))
        return cls(*numbers, wait_minutes)

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
