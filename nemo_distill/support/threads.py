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
"""How many CPU threads to compute with: what the user says, else what suits the work.

In training the products are large, and all cores work on each. OpenMP's threads keep their cores busy while they wait
for each other: where anything else wants the cores, each wait lasts until the system takes a core away from a thread
that only waits. `settle_openmp` has them give it free instead.

In decoding a matrix product of a small model takes microseconds and is not worth a second thread, however it waits: a
sentence through CTranslate2 has some 400 such products. So small models decode with one thread.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support.quoting import plain_text

VARIABLE = "OMP_NUM_THREADS"
"""With which a user says how many; it wins. A list is one of nested regions, whose first number counts here."""
WAIT_VARIABLE = "OMP_WAIT_POLICY"
"""With which a user says how threads wait for each other; it wins."""
SHARE_VARIABLE = "NEMO_DISTILL_CORES"
"""With which a job tells its stages on how many cores they may count."""
_NUMBERS = re.compile(r"\s*\+?0*([1-9][0-9]{0,8})\s*(,\s*\+?0*[1-9][0-9]{0,8}\s*)*", re.ASCII)
SMALL_BYTES = 32 << 20
"""Of weights as they are stored; a product over 256 KB of them takes less than 50 microseconds of one core."""


def cores() -> int:
    """Return the number of cores that this process may use: by its affinity, and by the quota of its control group."""
    import joblib

    return joblib.cpu_count()


def given_threads() -> int | None:
    """Return the number that the user's `OMP_NUM_THREADS` says, at most that of cores; None where it says none."""
    number = _number(VARIABLE)
    return number and min(number, cores())


def available_threads() -> int:
    """Return the most CPU threads this process should use: the user's number, else the cores that it may run on."""
    return given_threads() or available_cores()


def available_cores() -> int:
    """Return the cores that this process may use, or those of them that a job counts for it."""
    return min(_number(SHARE_VARIABLE) or cores(), cores())


def threads_for(weight_bytes: int) -> int:
    """Return the CPU threads that work on one product of a model whose weights take so many bytes.

    The same on each start of a run: sums of another number of threads are rounded otherwise.

    Example:
        >>> threads_for(1 << 20) == (given_threads() or 1)
        True
    """
    return given_threads() or (1 if weight_bytes < SMALL_BYTES else available_threads())


def _number(variable: str) -> int | None:
    given = _NUMBERS.fullmatch(os.environ.get(variable, ""))
    return int(given[1]) if given else None


def settle_openmp() -> None:
    """Settle what OpenMP reads from the environment, before torch and CTranslate2 are imported.

    Its threads sleep while they wait, unless the user says otherwise. Of more threads than cores one for each core is
    left, as torch does by itself, and standard error says so: with 64 threads to a core CTranslate2 takes 60 times as
    long. An empty `OMP_NUM_THREADS`, as of a variable that is not set where it was made, is unset.

    Raises:
        InputError: `OMP_NUM_THREADS` is something else than a whole number of at least 1, or several.
    """
    os.environ.setdefault(WAIT_VARIABLE, "PASSIVE")
    given = os.environ.get(VARIABLE, "")
    if not given.strip():
        os.environ.pop(VARIABLE, None)
        return
    number = _number(VARIABLE)
    if number is None:
        raise InputError(f"{VARIABLE} is '{plain_text(given, 80)}'; give a whole number of at least 1, or unset it")
    if number > 1 and number > cores():
        os.environ[VARIABLE] = str(cores())
        if sys.stderr is not None:  # else it was closed
            sys.stderr.write(f"{VARIABLE} is {number}, and there are {cores()} cores; {cores()} threads compute\n")


def settle_torch_threads(decodes: Iterable[Any] | None = None) -> int:
    """Let torch compute with `available_threads`, or with `threads_for` the weights of the models; return that number.

    `OMP_NUM_THREADS` was read by torch itself: then nothing is changed.

    Args:
        decodes: models that decode; None: large batches go through whatever models there are.
    """
    import torch

    if given_threads() is None:
        parameters = [parameter for model in decodes or () for parameter in model.parameters()]
        size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        torch.set_num_threads(available_threads() if decodes is None else threads_for(size))
    return torch.get_num_threads()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Context in which this thread, and the threads and processes that it starts, have one core, and torch one thread.

    Engines are opened inside: what has been started before keeps its cores.
    """
    import torch

    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(before)})  # the first one of a machine serves its interrupts
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, before)
