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
"""The processes that a run starts on its machine end with the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "NEMO_DISTILL_FIRST_PROCESS"
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextmanager
def ending_together() -> Iterator[None]:
    """Context of a run whose first process may start others with the same command, as Lightning does.

    Where the first one is killed or fails, the others would wait for it in vain, for half an hour by torch's default.
    Linux kills them instead; elsewhere they wait. Processes that torchrun or srun started are left to these.
    """
    first = os.environ.get(_VARIABLE)
    if first is None:
        os.environ[_VARIABLE] = str(os.getpid())
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE, None)
        return
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(first):  # it has ended before
            raise SystemExit(128 + signal.SIGTERM)
    yield
