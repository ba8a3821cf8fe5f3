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
"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_distill.support.children import PARENT_VARIABLE, end_with_parent, ending_together

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the others wait there")

CHILD = """
import sys, time
from nemo_distill.support.children import PARENT_VARIABLE, end_with_parent, ending_together
with ending_together():
    print("child runs", flush=True)
    time.sleep(60)
"""
FIRST = """
import os, subprocess, sys, time
from nemo_distill.support.children import PARENT_VARIABLE, end_with_parent, ending_together
with ending_together():
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, "LOCAL_RANK": "1"})
    time.sleep(float(sys.argv[2]))
"""


def start(seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", FIRST, CHILD, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_takes_the_others_along(number):
    first = start(60)
    assert first.stdout.readline() == "child runs\n"
    first.send_signal(number)
    begin = time.monotonic()
    assert first.stdout.read() == ""  # ends when nobody is left to write
    assert time.monotonic() - begin < 30
    assert first.wait() == -number


def test_a_process_whose_first_one_has_gone_ends_at_once(monkeypatch):
    monkeypatch.setenv("NEMO_DISTILL_FIRST_PROCESS", "1" if os.getpid() != 1 else "2")
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(
        command, env={**os.environ, "LOCAL_RANK": "1"}, cwd=Path(__file__).parents[3], capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (143, b"")


@pytest.mark.parametrize("module", ["distill", "train_nmt"])
def test_a_training_whose_job_has_gone_ends_before_it_imports_nemo(module):
    """It ended once it had."""
    command = [sys.executable, "-P", "-m", f"nemo_distill.jobs.{module}", "data.dir=none"]
    gone = {PARENT_VARIABLE: "1" if os.getpid() != 1 else "2"}
    done = subprocess.run(command, env={**os.environ, **gone}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_the_next_run_of_a_process_starts_its_own():
    with ending_together():
        assert os.environ["NEMO_DISTILL_FIRST_PROCESS"] == str(os.getpid())
    assert "NEMO_DISTILL_FIRST_PROCESS" not in os.environ


STAGE = """
import os, signal, sys, time
from nemo_distill.support.children import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"told to end\\n"), sys.exit(3)))
end_with_parent()
os.write(1, b"stage runs\\n")
time.sleep(60)
"""
RUNNER = """
import os, subprocess, sys, time
from nemo_distill.support.children import PARENT_VARIABLE
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, PARENT_VARIABLE: str(os.getpid())})
time.sleep(60)
"""


def test_a_stage_is_told_to_end_when_its_runner_is_killed():
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, STAGE], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert runner.stdout.readline() == "stage runs\n"
    runner.kill()
    assert runner.stdout.read() == "told to end\n"
    assert runner.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("parent", "ends"), [("1" if os.getpid() != 1 else "2", True), ("x", False), (None, False)])
def test_a_stage_whose_runner_has_gone(monkeypatch, parent, ends):
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    if parent is not None:
        monkeypatch.setenv(PARENT_VARIABLE, parent)
        monkeypatch.setattr(os, "getppid", lambda: 77)
    if ends:
        monkeypatch.setattr("nemo_distill.support.children.ctypes.CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
        with pytest.raises(SystemExit) as end:
            end_with_parent()
        assert end.value.code == 143
    else:
        end_with_parent()
    assert PARENT_VARIABLE not in os.environ  # what this process starts has another parent
