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
"""The Slurm jobs, with programs in the place of Slurm's that do what their manual pages say."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nemo_distill.cli.parser import build_parser
from nemo_distill.support.incoming import read_json

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "examples/slurm").glob("*.sbatch"))
VARIABLES = {
    "label.sbatch": {"TEACHER": "a teacher.nemo", "INPUT": "train.de", "OUTPUT_DIR": "labels"},
    "cache.sbatch": {"TEACHER": "a teacher.nemo", "SOURCE": "train.de", "TARGET": "train.en", "OUTPUT_DIR": "cache"},
    "distill.sbatch": {
        "TEACHER": "a teacher.nemo",
        "DATA_DIR": "data/ui",
        "TOKENIZER": "data/ui/tokenizer.model",
        "OUTPUT_DIR": "runs/student",
    },
}
FAKES = {
    # As srun: it starts the tasks, ends with the highest of their statuses, and kills them if it gets SIGTERM itself.
    "srun": """
        while [[ $1 == --* ]]; do
            [[ $1 != --ntasks=* ]] || tasks=${1#*=}
            shift
        done
        trap 'echo "srun TERM" >> "$FAKE/calls"; kill -KILL "${pids[@]}"' TERM
        for ((rank = 0; rank < tasks; rank++)); do
            SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_STEP_ID=0 \
                SLURM_NTASKS=$tasks SLURM_STEP_NUM_TASKS=$tasks "$@" &
            pids+=($!)
        done
        echo "${pids[@]}" > "$FAKE/pids.part" && mv "$FAKE/pids.part" "$FAKE/pids"
        highest=0
        for pid in "${pids[@]}"; do
            wait "$pid"
            status=$?
            ((status <= highest)) || highest=$status
        done
        exit $highest
    """,
    # tasks begin before srun has noted them
    "scancel": """
        echo "scancel $*" >> "$FAKE/calls"
        until test -s "$FAKE/pids"; do sleep 0.02; done
        read -ra pids < "$FAKE/pids"
        kill -TERM "${pids[@]}"
    """,
    "squeue": 'echo "${FAKE_STATE:-RUNNING}"',
    "scontrol": 'echo "scontrol $*" >> "$FAKE/calls"',
}
FORWARDED, REQUEUED = "scancel --signal=TERM 77", "scontrol requeue 77"


def program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what a Slurm job around the tests would add."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM")} | variables


def dry_run(script: str, *options: str, **variables: str) -> list[str]:
    """Return the words of the command that a job would run."""
    done = subprocess.run(
        ["bash", str(ROOT / "examples/slurm" / script), "--dry-run", *options],
        cwd=ROOT,
        env=environment(**VARIABLES[script], **variables),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return shlex.split(done.stdout)


def test_every_job_is_tested():
    assert [path.name for path in JOBS] == sorted(VARIABLES)


@pytest.mark.parametrize("script", VARIABLES)
def test_directives_keep_an_interrupted_job(script):
    directives = re.findall(r"^#SBATCH (--\S+)$", (ROOT / "examples/slurm" / script).read_text(), re.M)
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= set(directives)
    assert not [each for each in directives if re.match("--(partition|account|qos|chdir)", each)]


@pytest.mark.parametrize("script", VARIABLES)
def test_srun_starts_one_task_for_each_gpu(script):
    words = dry_run(script, SLURM_JOB_NUM_NODES="3", SLURM_GPUS_ON_NODE="4", SLURM_CPUS_ON_NODE="96")
    assert words[:5] == ["srun", "--nodes=3", "--ntasks=12", "--ntasks-per-node=4", "--cpus-per-task=24"]


def test_label_is_a_command_that_the_command_line_takes():
    words = dry_run("label.sbatch", "--num-hypotheses", "4")
    args = build_parser().parse_args(words[words.index("pseudo-label") :])
    assert (args.teacher, args.input, args.output_dir) == (["a teacher.nemo"], ["train.de"], "labels")
    assert args.num_hypotheses == 4
    assert words[words.index("pseudo-label") - 1] == f"{ROOT}/.venv/bin/nemo-distill"


def test_cache_is_a_command_that_the_command_line_takes():
    words = dry_run("cache.sbatch", "--temperatures", "1", "2")
    args = build_parser().parse_args(words[words.index("cache") :])
    assert (args.teacher, args.source, args.target) == (["a teacher.nemo"], ["train.de"], ["train.en"])
    assert args.temperatures == [1.0, 2.0]
    words = dry_run("cache.sbatch", LABELS="runs/labels")
    args = build_parser().parse_args(words[words.index("cache") :])
    assert (args.labels, args.source, args.output_dir) == (["runs/labels"], [], "cache")


def test_distill_is_a_configuration_that_composes():
    words = dry_run("distill.sbatch", "model=wide_3x3", "distillation=hybrid", PSEUDO="runs/labels", NODES="2")
    script = words.index(f"{ROOT}/examples/distill.py")
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        config = compose("distill", words[script + 1 :])
    assert (config.trainer.num_nodes, config.trainer.devices, config.trainer.accelerator) == (2, 8, "gpu")
    assert (config.teacher, config.pseudo, config.output_dir) == ("a teacher.nemo", "runs/labels", "runs/student")
    assert (config.data.dir, config.data.tokenizer) == ("data/ui", "data/ui/tokenizer.model")
    assert config.model.encoder.hidden_size == 1024


@pytest.mark.parametrize(
    "path", ["2024_11", "1e3", "null", "runs/lr=0.1", "it's", "a, b", "a(b)", "{x}", "runs/a-b.2"]
)
def test_paths_are_read_as_they_are(path, monkeypatch):
    """Hydra took 2024_11 for a number, so that the run went to 202411, and a comma for two values."""
    monkeypatch.setitem(VARIABLES, "distill.sbatch", VARIABLES["distill.sbatch"] | {"OUTPUT_DIR": path})
    words = dry_run("distill.sbatch", CACHE=path, PSEUDO="[a,b]")
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        config = compose("distill", words[words.index(f"{ROOT}/examples/distill.py") + 1 :])
    assert (config.output_dir, config.cache, config.pseudo) == (path, path, ["a", "b"])


def test_a_container_has_its_own_environment():
    words = dry_run("label.sbatch", CONTAINER_IMAGE="nemo-distill.sqsh", SLURM_SUBMIT_DIR=str(ROOT))
    assert "--container-image=nemo-distill.sqsh" in words
    assert f"--container-mounts={ROOT}:{ROOT}" in words
    assert "/workspace/nemo_distill/.venv/bin/nemo-distill" in words
    words = dry_run(
        "label.sbatch", CONTAINER_IMAGE="nemo-distill.sqsh", CONTAINER_MOUNTS="/data:/data", VENV=".venv-2.4"
    )
    assert "--container-mounts=/data:/data" in words
    assert "/workspace/nemo_distill/.venv-2.4/bin/nemo-distill" in words


@pytest.mark.parametrize("script", VARIABLES)
def test_a_missing_value_is_one_line(script, tmp_path):
    for variables, place, message in (
        ({}, ROOT, r"no value for [A-Z_ ]*OUTPUT_DIR; give .*OUTPUT_DIR=\.\.\. in front of sbatch"),
        (VARIABLES[script], ROOT, "no Slurm job; submit this script with sbatch, or give --dry-run"),
        (VARIABLES[script], tmp_path, "submit from the repository, or set NEMO_DISTILL_HOME"),
    ):
        done = subprocess.run(
            ["bash", str(ROOT / "examples/slurm" / script)],
            cwd=place,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert re.search(message, done.stderr)


class Job:
    """A job as Slurm runs it: a copy of the script, told of its job by variables, with the fakes in front on PATH."""

    def __init__(self, script: str, home: Path, place: Path, tasks: int, options: list[str], **variables: str) -> None:
        self.fake = place / "fake"
        for name, body in FAKES.items():
            program(self.fake / "bin" / name, body)
        spooled = place / "slurm_script"
        spooled.write_bytes((ROOT / "examples/slurm" / script).read_bytes())
        told = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "1", "SLURM_SUBMIT_DIR": str(home), **variables}
        told |= {"FAKE": str(self.fake), "TASKS_PER_NODE": str(tasks), "SLURM_NODELIST": "127.0.0.1"}
        told["PATH"] = f"{self.fake}/bin:{os.environ['PATH']}"
        self.log = place / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["bash", str(spooled), *options],
                cwd=home,
                env=environment(**told),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"no {what}"
            time.sleep(0.02)

    def wait_for(self, pattern: Path, seconds: float = 20) -> None:
        """Return when there is a file of this name, in which `*` stands for anything."""
        self.wait_until(lambda: list(pattern.parent.glob(pattern.name)), str(pattern), seconds)

    def wait_for_calls(self, number: int) -> None:
        """Return when scancel and scontrol have been called so often."""
        self.wait_until(lambda: len(self.calls()) >= number, f"call {number}")

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Return status and output; leave no process behind."""
        try:
            status = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return status, self.log.read_text()

    def calls(self) -> list[str]:
        """Return the calls of scancel and scontrol, and signals that srun got."""
        path = self.fake / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def start(tmp_path):
    """A function that starts label.sbatch with another program in nemo-distill's place."""

    def begin(body: str, **variables: str) -> Job:
        home = tmp_path / "home"
        program(home / ".venv/bin/nemo-distill", body)
        (home / "examples").mkdir()
        (home / "examples/slurm").symlink_to(ROOT / "examples/slurm")
        return Job("label.sbatch", home, tmp_path, 2, [], **VARIABLES["label.sbatch"], **variables)

    return begin


SAVES = (
    'trap "sleep 0.3; touch saved.$SLURM_PROCID; exit {}" TERM; touch started.$SLURM_PROCID; '
    "while true; do sleep 0.05; done"
)


@pytest.mark.parametrize(("told", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGUSR1, 138)])
def test_a_signal_reaches_the_tasks_and_the_job_is_requeued_once(start, tmp_path, told, status):
    job = start(SAVES.format(status))
    for rank in range(2):
        job.wait_for(tmp_path / f"home/started.{rank}")
    os.kill(job.process.pid, told)
    ended, output = job.end()
    assert job.calls() == [FORWARDED, REQUEUED], output
    assert ended == status
    assert (tmp_path / "home/saved.0").exists()
    assert (tmp_path / "home/saved.1").exists()


def test_a_second_signal_while_saving_changes_nothing(start, tmp_path):
    job = start('trap "" TERM; touch started.$SLURM_PROCID; until test -e saved; do sleep 0.05; done; exit 143')
    for rank in range(2):
        job.wait_for(tmp_path / f"home/started.{rank}")
    for number in (1, 2):
        os.kill(job.process.pid, signal.SIGTERM)
        job.wait_for_calls(number)
    (tmp_path / "home/saved").touch()
    status, output = job.end()
    assert job.calls() == [FORWARDED, FORWARDED, REQUEUED], output
    assert status == 143


def test_tasks_that_slurm_tells_itself_are_requeued_too(start, tmp_path):
    """As with preemption's grace time: the script gets no signal, and the program has no handler."""
    job = start("touch started.$SLURM_PROCID; exec sleep 60")
    job.wait_for(tmp_path / "home/started.1")
    job.wait_for(job.fake / "pids")
    for pid in (job.fake / "pids").read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    status, output = job.end()
    assert job.calls() == [REQUEUED], output
    assert status == 143


def test_a_cancelled_job_is_not_requeued(start, tmp_path):
    job = start(SAVES.format(143), FAKE_STATE="COMPLETING")
    for rank in range(2):
        job.wait_for(tmp_path / f"home/started.{rank}")
    os.kill(job.process.pid, signal.SIGTERM)
    status, output = job.end()
    assert job.calls() == [FORWARDED]
    assert status == 143
    assert "the job is COMPLETING, so it is not requeued" in output


@pytest.mark.parametrize("status", [0, 1, 2, 137])
def test_an_end_of_its_own_is_not_requeued(start, status):
    job = start(f"exit {status}")
    assert job.end()[0] == status
    assert job.calls() == []


def test_a_failure_after_the_signal_is_not_requeued(start, tmp_path):
    job = start(SAVES.format(1))
    for rank in range(2):
        job.wait_for(tmp_path / f"home/started.{rank}")
    os.kill(job.process.pid, signal.SIGTERM)
    assert job.end()[0] == 1
    assert job.calls() == [FORWARDED]


@pytest.fixture
def installed(tmp_path) -> Path:
    """A repository as `make install` leaves it: this one's scripts and configurations, and programs in `.venv`."""
    home = tmp_path / "home"
    program(home / ".venv/bin/python", f'exec {sys.executable} "$@"')
    program(home / ".venv/bin/nemo-distill", f'exec {sys.executable} -m nemo_distill.cli "$@"')
    for name in ("examples", "configs"):
        (home / name).symlink_to(ROOT / name)
    return home


REAL = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_labelling_and_caching_in_two_tasks(installed, tiny_teacher_path, tiny_corpus, tmp_path):
    text = {"TEACHER": str(tiny_teacher_path), "INPUT": str(tiny_corpus / "train.de"), "OUTPUT_DIR": "labels", **REAL}
    options = ["--shard-lines", "20", "--device", "cpu"]
    job = Job("label.sbatch", installed, tmp_path, 2, [*options, "--batch-tokens", "1"], **text)
    job.wait_for(installed / "labels/.shards-*", 200)
    os.kill(job.process.pid, signal.SIGTERM)
    status, output = job.end()
    assert job.calls() == [FORWARDED, REQUEUED], output
    assert status == 143
    assert not (installed / "labels/manifest.json").exists()
    status, output = Job("label.sbatch", installed, tmp_path, 2, options, **text).end(300)
    assert status == 0, output
    assert "of 160 lines kept (written" in output

    text = {"TEACHER": str(tiny_teacher_path), "LABELS": "labels", "OUTPUT_DIR": "cache", **REAL}
    options = ["--shard-tokens", "500", "--device", "cpu"]
    status, output = Job("cache.sbatch", installed, tmp_path, 2, options, **text).end(300)
    assert status == 0, output
    assert len(read_json(installed / "cache/manifest.json")["shards"]) > 2


@pytest.mark.slow
def test_a_training_of_two_ranks_is_interrupted_and_goes_on(
    installed, tiny_teacher_path, tiny_corpus, tiny_tokenizer, tmp_path
):
    data = {"TEACHER": str(tiny_teacher_path), "DATA_DIR": str(tiny_corpus), "TOKENIZER": str(tiny_tokenizer)}
    data |= {"OUTPUT_DIR": "run", "MASTER_PORT": str(free_port()), **REAL}
    sizes = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32", "data.tokens_in_batch=400"]
    steps = ["trainer.max_steps=80", "trainer.val_check_interval=10", "+trainer.limit_val_batches=1"]
    options = [*sizes, *steps, "trainer.accelerator=cpu", "trainer.precision=32-true", "keep=last"]
    options += ["exp_manager.create_tensorboard_logger=false", "trainer.enable_progress_bar=false"]
    job = Job("distill.sbatch", installed, tmp_path, 2, options, **data)
    job.wait_for(installed / "run/log/checkpoints/*.ckpt", 200)
    os.kill(job.process.pid, signal.SIGTERM)
    status, output = job.end(200)
    assert job.calls() == [FORWARDED, REQUEUED], output[-3000:]
    assert status == 143
    assert "MEMBER: 2/2" in output
    assert not (installed / "run/student.nemo").exists()
    status, output = Job("distill.sbatch", installed, tmp_path, 2, options, **data).end(400)
    assert status == 0, output[-3000:]
    assert "Restor" in output
    assert (installed / "run/student.nemo").is_file()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
