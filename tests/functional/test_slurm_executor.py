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
"""`nemo-distill run --executor slurm` on a real Slurm of two nodes: labels, a sweep, failures, preemption."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import slurm_cluster

from nemo_distill.support.files import sha256
from nemo_distill.support.incoming import read_json

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

SIZE = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32"]
QUIET = ["exp_manager.create_tensorboard_logger=false"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands reach it."""
    reason = slurm_cluster.missing()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("slurm")
    configuration = slurm_cluster.start(directory)
    try:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        yield {**kept, "SLURM_CONF": str(configuration), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finally:
        slurm_cluster.stop(directory)


class Recipe:
    """A recipe and the commands that do it."""

    def __init__(self, environment: dict[str, str], place: Path, teacher: Path, corpus: Path, content: dict) -> None:
        self.environment, self.out, self.path = environment, place / "out", place / "recipe.yaml"
        self.command = ["run", str(self.path), "--corpus", str(corpus), "--teacher", str(teacher)]
        self.command += ["--output-dir", str(self.out), "--executor", "slurm", "--gpus", "0"]
        self.write(content)

    def write(self, content: dict) -> None:
        self.path.write_text(json.dumps(content))

    def run(self, *options: str) -> str:
        return self._call(*self.command, *options)

    def status(self) -> str:
        return self._call("status", str(self.out))

    def wait(self, end: str, seconds: float = 480) -> str:
        """Return what status says once its last line matches."""
        limit = time.monotonic() + seconds
        while not re.search(end, (said := self.status()).splitlines()[-1]):
            assert time.monotonic() < limit, (
                said
                + "\n"
                + "\n".join(
                    f"{path}:\n{path.read_text()[-2000:]}" for path in sorted((self.out / "logs").glob("*.log"))
                )
            )
            time.sleep(2)
        return said

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nemo_distill.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def slurm(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def recipe(cluster, tiny_teacher_path, tiny_corpus, tmp_path) -> Callable[[dict], Recipe]:
    return lambda content: Recipe(cluster, tmp_path, tiny_teacher_path, tiny_corpus, content)


def submitted(said: str) -> list[str]:
    """The stages that are jobs of Slurm, as `run` says."""
    return sorted(re.findall(r"^\[(\S+)\] is job \d+ in Slurm$", said, re.M))


def test_labels_a_sweep_and_a_failure(recipe):
    """Labels and scores by two ranks on two nodes, four students side by side, of which one fails at first."""
    runs = {
        "plain": {"plain": True},
        "hinton": {"overrides": ["distillation=hinton"]},
        "word_kd": {"overrides": ["distillation=word_kd"]},
        "bad": {"overrides": ["distillation=hinton", f"++model.distillation.teacher.sha256={'a' * 64}"]},
    }
    content = {
        "student": {"model": "tiny_1x1", "steps": 2, "overrides": SIZE},
        "overrides": QUIET,
        "validations": 1,
        "pseudo_labels": {"beam": {"options": ["--beam-size", "2"]}},
        "runs": runs,
        "export": "int8",
    }
    job = recipe(content)
    job.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")  # so that no job ends before the second call
    said = job.run("--nodes", "2")
    assert submitted(said) == ["bad", "evaluation", "hinton", "plain", "pseudo-beam", "report", "word_kd"]
    numbers = re.search(r"scancel ([\d ]+)$", said, re.M)[1].split()
    assert re.search(r"scancel ([\d ]+)$", job.run("--nodes", "2"), re.M)[1].split() == numbers
    assert len(job.slurm("squeue", "--noheader", "--me", "--states=all").splitlines()) == len(numbers)
    assert "queued" in job.status()

    job.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    said = job.wait("4 of 8 stages done, 1 failed; the job is not running; the same command goes on$")
    assert re.search(r"^bad +failed .*distillation\.teacher", said, re.M), said
    assert re.search(r"^evaluation +left out +job \d+: it needs bad$", said, re.M)
    assert re.search(r"^export +left out", said, re.M)
    labels = (job.out / "logs" / "pseudo-beam.log").read_text()
    assert {"process 1 of 2 (rank 0)", "process 2 of 2 (rank 1)"} <= {line.strip() for line in labels.splitlines()}
    plain = sha256(job.out / "plain" / "plain.nemo")

    runs["bad"]["overrides"] = ["distillation=hinton"]
    job.write(content)
    said = job.run("--nodes", "2")
    assert submitted(said) == ["bad", "evaluation", "report"]
    assert said.count("finished before") == 4
    job.wait("8 of 8 stages done, 0 failed; the job is finished$")
    assert sha256(job.out / "plain" / "plain.nemo") == plain
    assert "process 2 of 2" in (job.out / "logs" / "evaluation.log").read_text()
    assert "To deploy:" in (job.out / "slurm" / "report.log").read_text()
    assert (job.out / "export" / "export.json").is_file()

    said = job.run("--nodes", "2")
    assert submitted(said) == []
    assert "| teacher |" in said
    assert "To deploy:" in said
    assert job.slurm("squeue", "--noheader", "--me") == ""

    job.command[-4:] = ["--executor", "local"]  # what was made there has finished here
    assert "To deploy:" in job.run()


def test_a_student_of_two_ranks_is_preempted_and_finishes(recipe):
    """Slurm takes its nodes for a job of a partition that goes first, and starts it again when they are free."""
    content = {
        "student": {"model": "tiny_1x1", "steps": 3000, "overrides": SIZE},
        "overrides": [*QUIET, "keep=last", "data.tokens_in_batch=400"],
        "validations": 60,
        "runs": {"plain": {"plain": True}},
    }
    job = recipe(content)
    job.run("--train-nodes", "2")
    checkpoints = job.out / "plain" / "log" / "checkpoints"
    end = time.monotonic() + 600
    while not list(checkpoints.glob("*.ckpt")):
        assert time.monotonic() < end, job.status()
        time.sleep(0.5)
    job.slurm("sbatch", "--partition=urgent", "--nodes=2", "--wrap=sleep 5", "--output=/dev/null")
    number = read_json(job.out / "slurm" / "jobs.json")["plain"]["job"]
    notes = job.out / "slurm" / "plain.starts"
    while f"{number} end" not in notes.read_text():
        assert time.monotonic() < end, job.status()
        time.sleep(0.5)
    assert notes.read_text().split()[-1] == "143"
    assert not (job.out / "plain" / "plain.nemo").exists()
    assert re.search(r"^plain +(queued|running) ", job.status(), re.M)
    assert re.search(rf"scancel {number} ", job.run("--train-nodes", "2"))  # it is there still

    job.wait("3 of 3 stages done, 0 failed; the job is finished$")
    log = (job.out / "logs" / "plain.log").read_text()
    assert "MEMBER: 2/2" in log
    assert "requeueing" in log
    assert "Restor" in log
    assert "without SLURM handling the processes" not in log
    begun = [line for line in notes.read_text().splitlines() if "begin" in line]
    assert len(begun) == 2
