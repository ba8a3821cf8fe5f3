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
"""The user's number of threads wins; else it follows from the size of the model."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nemo_distill.errors import InputError
from nemo_distill.support import threads

CORES = threads.cores


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    """A machine with four cores, on which nobody has said anything."""
    monkeypatch.setattr(threads, "cores", lambda: 4)
    for variable in (threads.VARIABLE, threads.SHARE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def restored():
    """Puts back how many threads torch has."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "share", "available", "small", "large"),
    [
        ("", "", 4, 1, 4),
        ("3", "", 3, 3, 3),
        ("3", "2", 3, 3, 3),
        ("8", "2", 4, 4, 4),
        ("3000", "", 4, 4, 4),
        ("", "2", 2, 1, 2),
        ("", "9", 4, 1, 4),
        ("3,2", "", 3, 3, 3),
        (" +3 ", "", 3, 3, 3),
        *((value, value, 4, 1, 4) for value in ("0", "many", "²", "٣", "9" * 5000)),
    ],
)
def test_who_says_wins(monkeypatch, given, share, available, small, large):
    monkeypatch.setenv(threads.VARIABLE, given)
    monkeypatch.setenv(threads.SHARE_VARIABLE, share)
    assert threads.available_threads() == available
    assert threads.threads_for(threads.SMALL_BYTES - 1) == small
    assert threads.threads_for(threads.SMALL_BYTES) == large


@pytest.mark.parametrize(
    ("given", "left", "said"),
    [
        *[("3", "3", ""), ("4,2", "4,2", ""), (" +3 , 2 ", " +3 , 2 ", ""), ("", None, ""), (" ", None, "")],
        *[
            (value, "4", f"OMP_NUM_THREADS is {value.split(',')[0]}, and there are 4 cores")
            for value in ("5", "3000", "16,2")
        ],
    ],
)
def test_what_openmp_reads_is_bounded_by_the_cores(monkeypatch, capsys, given, left, said):
    monkeypatch.setenv(threads.VARIABLE, given)
    monkeypatch.setenv(threads.WAIT_VARIABLE, "ACTIVE")
    threads.settle_openmp()
    assert os.environ.get(threads.VARIABLE) == left
    assert os.environ[threads.WAIT_VARIABLE] == "ACTIVE"  # which the user says
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert bool(error) == bool(said)


@pytest.mark.parametrize("given", ["abc", "0", "-1", "1.5", "4,", "4,0", "²", "9" * 5000])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, given):
    """OpenMP takes all cores then, and a large exported model did not open."""
    monkeypatch.setenv(threads.VARIABLE, given)
    with pytest.raises(InputError, match=r"OMP_NUM_THREADS is '.*'; give a whole number of at least 1, or unset it"):
        threads.settle_openmp()


def test_cores_are_those_of_the_process():
    assert 1 <= CORES() <= len(os.sched_getaffinity(0))


def test_torch_takes_what_suits_all_models_together(monkeypatch, restored):
    half = torch.nn.Linear(1024, threads.SMALL_BYTES // 2 // 4 // 1024, bias=False)
    assert threads.settle_torch_threads([half]) == torch.get_num_threads() == 1
    assert threads.settle_torch_threads([half, half]) == torch.get_num_threads() == 4
    torch.set_num_threads(1)
    assert threads.settle_torch_threads() == torch.get_num_threads() == 4  # of training
    monkeypatch.setenv(threads.VARIABLE, "2")
    torch.set_num_threads(3)  # which a program may do whatever the variable says
    assert threads.settle_torch_threads([half]) == torch.get_num_threads() == 3


def test_on_one_core(restored):
    """Threads and processes that are started inside have it, too; what was there before has all of them again."""
    before = os.sched_getaffinity(0)
    torch.set_num_threads(2)
    with threads.on_one_core():
        assert CORES() == len(os.sched_getaffinity(0)) == torch.get_num_threads() == 1
        with ThreadPoolExecutor(1) as pool:
            assert len(pool.submit(os.sched_getaffinity, 0).result()) == 1
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == (before, 2)
