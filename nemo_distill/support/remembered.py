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
"""What is found out of a large file is not found out again in the same process while the file stays as it is."""

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Found = TypeVar("Found")
_YOUNG = 2.0
"""Seconds in which a file system may give two states of a file one time."""


def remembered(find: Callable[[str], Found]) -> Callable[[str | os.PathLike], Found]:
    """Return a function that asks `find` of a path only where it has not done so of the file in this state.

    A file that was changed just before it was read may be changed again without another time or size, as every version
    control system knows; of such a file nothing is remembered. Errors are not remembered.

    Args:
        find: of a path alone.

    Example:
        >>> remembered(os.path.getsize)("/") == os.path.getsize("/")
        True
    """
    known: dict[str, tuple[Any, Found]] = {}

    @functools.wraps(find)
    def ask(path: str | os.PathLike) -> Found:
        name, begun, state = os.path.realpath(path), time.time(), _state(path)
        if name in known and known[name][0] == state:
            return known[name][1]
        found = find(path)
        if state is not None and max(state[-2:]) < (begun - _YOUNG) * 1e9 and _state(path) == state:
            known[name] = (state, found)
        return found

    return ask


def state_of(paths: Iterable[str | os.PathLike]) -> str | None:
    """Return a hash of the states of some files, to be kept with what is known of them.

    None where one is missing, or was changed just before, see `remembered`.
    """
    begun, states = time.time(), [_state(path) for path in paths]
    if any(state is None or max(state[-2:]) >= (begun - _YOUNG) * 1e9 for state in states):
        return None
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _state(path: str | os.PathLike) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
