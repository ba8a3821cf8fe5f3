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
"""How much main memory a process has had at most."""


def peak_memory(process: int | str = "self") -> int | None:
    """Return the bytes of main memory that a running process has had at most; None where the system does not say.

    `getrusage` and `wait4` say what the process had that it was forked of, where that is more.

    Example:
        >>> peak_memory() > 1 << 20
        True
    """
    try:
        with open(f"/proc/{process}/status", encoding="utf-8") as status:
            [peak] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    except (OSError, ValueError):  # it has ended, or there is no such file system
        return None
    return 1024 * int(peak)
