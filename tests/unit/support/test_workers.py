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

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_distill.support import workers
from nemo_distill.support.workers import run_ahead


def test_results_come_in_order_and_the_work_is_not_sent():
    offset = 5
    work = lambda number, text: (number + offset, text)  # noqa: E731 - cannot be pickled
    items = [(number, str(number)) for number in range(40)]
    assert list(run_ahead(work, items, 3)) == [(number + 5, text) for number, text in items]
    assert not multiprocessing.active_children()


def test_items_are_read_as_they_are_needed():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield (number,)

    results = run_ahead(abs, items(), 2, ahead=3)
    assert next(results) == 0
    assert len(read) <= 6
    results.close()
    assert not multiprocessing.active_children()


def test_an_error_of_the_work_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        list(run_ahead(divmod, [(1, 0)] + [(1, 1)] * 20, 2))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_end_that_a_thread_of_the_pool_closes_too(monkeypatch, is_closed):
    """Of two that closed it one had an error, or the thread had, and the pool waited for it for ever."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    monkeypatch.setattr(workers, "sys", SimpleNamespace(version_info=(3, 11, 2)))
    if is_closed:
        os.close(reader.fileno())  # as when the thread has come so far, and no further
    workers._close_to_reading(SimpleNamespace(_call_queue=SimpleNamespace(_reader=reader)))
    if not is_closed:
        with pytest.raises(BrokenPipeError):
            writer.send_bytes(b"nobody reads this")
        reader.close()  # by the thread, which is as late
    reader._handle = None
    writer.close()


def test_a_killed_process_is_told():
    with pytest.raises(BrokenProcessPool):
        list(run_ahead(lambda _: os.kill(os.getpid(), signal.SIGKILL), [(0,)], 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_parent_alone_ends_all(number):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def parent() -> None:
        for result in run_ahead(lambda item: (time.sleep(0.2), item)[1], ((item,) for item in range(1000)), 2):
            if not result:
                sender.send([process.pid for process in multiprocessing.active_children()])

    process = context.Process(target=parent)
    process.start()
    workers = receiver.recv()
    assert len(workers) == 2
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode not in (0, None)
    begun = time.monotonic()
    while any(Path("/proc", str(worker)).exists() for worker in workers):
        assert time.monotonic() - begun < 10
        time.sleep(0.01)


def test_an_error_ends_a_pool_that_is_being_fed():
    """Python before 3.11.5 waits for ever where an item longer than a pipe is on its way to workers that are ended."""
    script = """
import time
from nemo_distill.support.workers import run_ahead

def work(number, item):
    time.sleep(0.3 if number == 0 else 600)
    raise ValueError("wrong")

try:
    list(run_ahead(work, [(number, bytes(1 << 20)) for number in range(8)], 2))
except ValueError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "wrong\n", ended.stderr
