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
"""A stream of work done by forked processes, in order; none of them is left when it ends, however it ends."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import starmap
from typing import Any, TypeVar

from nemo_distill.errors import StorageError
from nemo_distill.support.children import end_with

Result = TypeVar("Result")
_work: Callable[..., Any] = NotImplemented  # of a worker


def run_ahead(work: Callable[..., Result], items: Iterable[tuple], processes: int, ahead: int = 2) -> Iterator[Result]:
    """Yield what `work` makes of each item's values, in their order.

    Args:
        work: is inherited, not sent: it may hold what cannot be pickled.
        items: its arguments, which are sent.
        processes: that work.
        ahead: items that are read ahead for each of them.

    Raises:
        BrokenProcessPool: one of them was killed. Errors of `work` are raised as they are.

    Example:
        >>> list(run_ahead(pow, [(2, 3), (3, 2)], processes=2))
        [8, 9]
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(), work))
    pending: deque = deque()
    try:
        for item in items:
            pending.append(pool.submit(_do, *item))
            if len(pending) >= ahead * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException:  # the pool by itself may then wait for ever
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        _close_to_reading(pool)
        raise
    finally:
        pool.shutdown()


def run_in_order(
    work: Callable[..., Result], items: Iterable[tuple], processes: int, place: str | os.PathLike, ahead: int = 2
) -> Iterator[Result]:
    """Yield what `run_ahead` yields, without other processes where one is enough.

    Args:
        work: as there.
        items: as there.
        processes: most that work.
        place: what is read, for the message.
        ahead: as there.

    Raises:
        StorageError: one of them was killed.
    """
    try:
        yield from run_ahead(work, items, processes, ahead) if processes > 1 else starmap(work, items)
    except BrokenProcessPool as error:
        raise StorageError(
            f"'{place}': a process that works on it was killed, perhaps for want of memory; run the same command again"
        ) from error


def _close_to_reading(pool: ProcessPoolExecutor) -> None:
    """Let the thread end that feeds the pool, where it waits to write an item that is longer than a pipe.

    Python does so by itself from 3.11.5 on, see github.com/python/cpython/issues/94777. That thread may close its end
    of the pipe at this moment, which only one of two can do, so another file takes the end's place.
    """
    if sys.version_info < (3, 11, 5):
        with contextlib.suppress(OSError), open(os.devnull, "rb") as nothing:  # it is closed already
            os.dup2(nothing.fileno(), pool._call_queue._reader.fileno(), inheritable=False)


def _begin(parent: int, work: Callable[..., Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the parent ends the others
    end_with(parent)


def _do(*values: Any) -> Any:
    return _work(*values)
