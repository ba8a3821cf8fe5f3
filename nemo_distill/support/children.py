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
"""Processes end with the one that started them: those of one training on a machine, and the stages of a job."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "NEMO_DISTILL_FIRST_PROCESS"
PARENT_VARIABLE = "NEMO_DISTILL_PARENT_PROCESS"
"""In the environment of a stage: the process that started it."""
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when the one that started it as a stage ends, however that ends.

    A training then leaves a checkpoint. Elsewhere than on Linux, and where `PARENT_VARIABLE` names none, nothing is
    done.

    Raises:
        SystemExit: it has ended before.
    """
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent.isdecimal():
        end_with(int(parent), signal.SIGTERM)


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have Linux send a signal to this process when its parent, whose number is given, ends; elsewhere do nothing.

    Raises:
        SystemExit: it has ended before.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended before
        raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def ending_together() -> Iterator[None]:
    """Context of a run whose first process may start others with the same command, as Lightning does.

    Where the first one is killed or fails, the others would wait for it in vain, for half an hour by torch's default.
    Linux kills them instead; elsewhere they wait. Processes that torchrun or srun started are left to these.
    """
    first = os.environ.get(_VARIABLE)
    if first is None or not first.isdecimal():
        os.environ[_VARIABLE] = str(os.getpid())
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE, None)
        return
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        end_with(int(first))
    yield
