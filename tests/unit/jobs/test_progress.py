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
"""`nemo-distill status`: what it says of a job, from records alone."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_distill.errors import InputError
from nemo_distill.jobs.progress import Progress, StageProgress, read_progress, table_of
from nemo_distill.jobs.running import LOG_HEAD
from nemo_distill.support.lock import locked

ROOT = Path(__file__).parents[3]
STAGES = {
    "tokenizer": StageProgress("done", 1000.0, 3.2),
    "teacher": StageProgress("running", 1010.0),
    "plain": StageProgress("failed", 1005.0, 64.0),
    "report": StageProgress("left out"),
    "hybrid": StageProgress(),
}


@pytest.fixture
def job(tmp_path) -> Path:
    (tmp_path / "logs").mkdir()
    Progress(STAGES).write(tmp_path)
    line = "training: 3 of 30 steps (10 %), 9 s left, 3.0 steps/s, loss=2.1"
    (tmp_path / "logs" / "teacher.log").write_bytes(LOG_HEAD + f"a\n{line}\nnot of progress\n".encode())
    (tmp_path / "logs" / "plain.log").write_bytes(LOG_HEAD + b"one\nwhat \x1b[2Jwent wrong\n")
    return tmp_path


def test_each_stage_with_its_state_time_and_last_words(job):
    with locked(job):
        lines = table_of(job, now=1095.0).splitlines()
    assert lines[0].split() == ["tokenizer", "done", "3", "s"]
    assert lines[1].split()[:5] == ["teacher", "running", "1", "min", "25"]
    assert lines[1].endswith("training: 3 of 30 steps (10 %), 9 s left, 3.0 steps/s, loss=2.1")
    assert "failed" in lines[2]
    assert "1 min 04 s" in lines[2]
    assert "went wrong" in lines[2]
    assert "\x1b" not in lines[2]
    assert lines[3].split() == ["report", "left", "out"]
    assert lines[-1] == "1 of 5 stages done, 1 failed; the job is running"


def test_of_a_failure_the_whole_error_is_shown(job):
    error = f"error: data.dir: got '{'x' * 200}', which has no train.de; name another directory"
    progress = "training: 3 of 30 steps (10 %), 9 s left, 3.0 steps/s, loss=2.1"
    (job / "logs" / "plain.log").write_bytes(LOG_HEAD + f"{progress}\n{error}\n".encode())
    lines = table_of(job, now=1095.0).splitlines()
    assert lines[2].endswith(f"1 min 04 s  {error[:120]}...")
    assert f"plain: {error}" == lines[5]
    (job / "logs" / "teacher.log").write_bytes(LOG_HEAD + f"{'y' * 200}\n".encode())
    lines = table_of(job, now=1095.0).splitlines()  # of what has not failed a line is enough
    assert lines[1].endswith("y" * 120 + "...")
    assert not any(line.startswith("teacher:") for line in lines)


def test_a_job_that_was_killed_is_not_running(job):
    text = table_of(job)
    assert "teacher    stopped" in text
    assert text.endswith("the job is not running; the same command goes on")
    assert not (job / ".lock").exists()


def test_it_reads_no_log_that_is_none(job):
    (job / "logs" / "teacher.log").unlink()
    (job / "logs" / "teacher.log").symlink_to("/dev/zero")
    assert "teacher    stopped" in table_of(job)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"stages": {"a": {"state": "ready"}}}, "is damaged: stage 'a'"),
        ({"stages": {"a": {"state": "running"}}}, "is damaged: stage 'a'"),
        ({"stages": {"../a": {}}}, "is damaged: stage '../a'"),
        ({"stages": {"a": {"pid": 1}}}, "is damaged: .*pid is unknown"),
        ([], "is damaged"),
    ],
)
def test_damaged_records(tmp_path, content, message):
    (tmp_path / "progress.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_progress(tmp_path)


def test_it_takes_less_than_a_second_and_imports_nothing_heavy(job):
    """Of CPU time: on a busy machine the clock says anything."""
    code = "import sys; from nemo_distill import cli; assert cli.main(['status', sys.argv[1]]) == 0; "
    code += "import time; print(time.process_time(), not {'torch', 'nemo', 'hydra', 'sacrebleu'} & set(sys.modules))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, job], env=environment, capture_output=True, text=True, check=True
    )
    seconds, light = done.stdout.splitlines()[-1].split()
    assert light == "True"
    assert float(seconds) < 1 or time.monotonic() - start < 1


def test_what_is_known_of_other_stages_stays_beside_those_of_a_call():
    known = Progress({"a": StageProgress("done", 1.0, 5.0), "b": StageProgress("done", 1.0, 7.0)})
    without = known.of(["a", "c"])
    assert list(without.stages) == ["a", "c"]
    assert without.others == {"b": known.stages["b"]}
    again = without.of(["b", "a"])
    assert (again.stages, list(again.others)) == ({"b": known.stages["b"], "a": known.stages["a"]}, ["c"])
