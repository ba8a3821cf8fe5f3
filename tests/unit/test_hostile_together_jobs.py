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
"""Two jobs or runs at once, and jobs that are killed: nothing runs on, nothing stays locked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from damage import time_limit
from short_runs import config_in

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError
from nemo_distill.jobs import Stage, run_stages
from nemo_distill.jobs.progress import table_of
from nemo_distill.jobs.running import LOGS_DIR
from nemo_distill.support.lock import LOCK, locked
from nemo_distill.training.run import run_training

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from pathlib import Path
from nemo_distill.jobs import Stage, run_stages
here = Path(sys.argv[1])
run_stages([Stage(n, [sys.executable, "-c", sys.argv[2], str(here), n], here / n) for n in sys.argv[3:]], here, 2)
"""
# Says that it runs, waits, and says how it ended; the pipe ends when all who could write are gone.
STAGE = """
import os, signal, sys, time
from nemo_distill.support.children import end_with_parent
end_with_parent()
pipe = os.open(sys.argv[1] + "/pipe", os.O_WRONLY)
def end(number, frame):
    if "deaf" not in sys.argv[2]:  # Linux may tell it again: once for each thread of its parent that ends
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(pipe, b"told\\n")
    if "deaf" not in sys.argv[2]:
        os.write(pipe, b"checkpoint\\n")
        sys.exit(143)
signal.signal(signal.SIGTERM, end)
os.write(pipe, b"runs\\n")
while True:
    time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    """A function that starts a job of stages; returns its process and a stream of what its stages say."""
    started = []
    os.mkfifo(tmp_path / "pipe")

    def start(*names):
        command = [sys.executable, "-c", JOB, str(tmp_path), STAGE, *names]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process, open(tmp_path / "pipe")

    with time_limit(300):  # a busy machine may take long
        yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_job_takes_its_stages_along(job):
    process, said = job("one", "two")
    assert [said.readline(), said.readline()] == ["runs\n"] * 2
    process.kill()
    assert sorted(said) == ["checkpoint\n"] * 2 + ["told\n"] * 2  # to the end: nobody is left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_job_that_is_told_to_end_waits_for_its_stages(job, tmp_path, number):
    process, said = job("one", "two")
    assert [said.readline(), said.readline()] == ["runs\n"] * 2
    process.send_signal(number)
    assert process.wait() in (128 + number, -number)
    assert sorted(said) == ["checkpoint\n"] * 2 + ["told\n"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", LOGS_DIR, "stages.json", "progress.json"}
    assert "0 of 2 stages done, 0 failed; the job is not running" in table_of(tmp_path)


def test_a_second_signal_kills_what_does_not_listen(job):
    process, said = job("deaf")
    assert said.readline() == "runs\n"
    process.terminate()
    assert said.readline() == "told\n"
    process.terminate()
    assert process.wait() == 143
    assert said.read() == ""


def test_a_second_job_is_refused(job, tmp_path):
    process, said = job("one")
    assert said.readline() == "runs\n"
    before = (tmp_path / LOGS_DIR / "one.log").stat().st_mtime_ns
    with pytest.raises(InputError, match=f"is in use: process {process.pid} on "):
        run_stages([Stage("one", ["false"], tmp_path / "one")], tmp_path)
    assert (tmp_path / LOGS_DIR / "one.log").stat().st_mtime_ns == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_training_is_refused(tmp_path, student_config, overwrite):
    run = tmp_path / "run"
    config = config_in(run, student_config(hidden_size=8), overwrite=overwrite)
    with locked(run):
        with pytest.raises(InputError, match=f"is in use: process {os.getpid()} on "):
            run_training(config, DistilledMTEncDecModel)
        assert [path.name for path in run.iterdir()] == [LOCK]


def test_the_lock_of_a_killed_training_does_not_hinder_the_next(tmp_path, student_config):
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).write_text(json.dumps({"host": "x", "process": 1, "since": "2020-01-01"}))
    archive = run_training(config_in(run, student_config(hidden_size=8)), DistilledMTEncDecModel)
    assert {path.name for path in run.iterdir()} == {archive.name, "config.yaml", "inputs.json", "log"}


WORKER = """
import os, sys, time
from nemo_distill.support.lock import locked
with locked(sys.argv[1]):
    if os.fork() == 0:
        print("held", flush=True)
    time.sleep(60)
"""


def test_a_data_worker_does_not_keep_the_lock_of_a_killed_run(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with locked(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the worker, which the test started
