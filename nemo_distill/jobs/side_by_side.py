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
"""How many stages of a job run side by side, and beside how many others each of them does."""

import os
import re
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from nemo_distill.jobs.devices import has_gpu
from nemo_distill.support.threads import cores, given_threads

_NEED = 2e9
"""Bytes of main memory that a stage takes at its peak, NeMo and torch among them, beside its models."""
_COPIES = 4
"""Of a teacher's archive, that a stage may have in memory: weights as read, as a model, as converted, and outputs."""
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", r"(?:in)?active_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        r"total_(?:in)?active_file",
    ),
)
"""Of a control group its limit, what it uses, and in `memory.stat` what of that are files, which make room."""


def fitting_jobs(teachers: Sequence[str | os.PathLike] = ()) -> int:
    """Return how many stages fit side by side on this machine.

    One for each core, since models of the sizes that CPUs train do more with a core each than one after the other with
    all of them (docs/evaluation.md, Threads); fewer where `OMP_NUM_THREADS` gives each more than one, or where main
    memory ends before. Where there is a GPU one, which has it to itself.

    Args:
        teachers: archives that stages open.
    """
    if has_gpu():
        return 1
    need = _NEED + _COPIES * sum(os.path.getsize(each) for each in teachers)
    return max(min(cores() // (given_threads() or 1), int(free_memory() / need)), 1)


def free_memory() -> float:
    """Return the bytes of main memory that this process may still take, by the machine and by its control group."""
    import psutil

    free = [float(psutil.virtual_memory().available)]
    for limit, used, files in _LIMITS:
        try:
            free.append(float(Path(limit).read_text()) - float(Path(used).read_text()))
        except (OSError, ValueError):  # there is none: no file, or `max`
            continue
        stat = Path(used).with_name("memory.stat")
        if stat.is_file():
            free[-1] += sum(map(int, re.findall(rf"^{files} (\d+)$", stat.read_text(), re.MULTILINE)))
    return min(free)


def beside(needs: Mapping[str, Sequence[str]], jobs: int) -> dict[str, int]:
    """Return beside how many stages each runs, itself counted; each gets such a share of the cores.

    It follows from the job alone, not from what has finished: a stage that goes on computes with as many threads as
    before, so that its sums are rounded alike. A stage that all others wait for, or that waits for all, has all cores.

    Args:
        needs: of each stage, by its name, those that it needs.
        jobs: stages side by side, at most.

    Example:
        >>> beside({"teacher": (), "plain": ("teacher",), "student": ("teacher",), "report": ("plain", "student")}, 8)
        {'teacher': 1, 'plain': 2, 'student': 2, 'report': 1}
    """
    needs = {name: [need for need in each if need in needs] for name, each in needs.items()}
    sorter, widest, before = TopologicalSorter(needs), 1, {}
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        widest = max(widest, len(ready))
        for name in ready:
            before[name] = {*needs[name], *(each for need in needs[name] for each in before[need])}
        sorter.done(*ready)
    shared = max(min(jobs, widest), 1)
    return {
        name: 1 if all(name in before[other] or other in before[name] for other in needs if other != name) else shared
        for name in needs
    }
