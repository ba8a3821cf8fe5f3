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
"""The training scripts as a user runs them: two steps, a second call, bad input, two processes."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel
from short_runs import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def overrides(tiny_corpus, tiny_tokenizer, tiny_teacher_path, tiny_pseudo, tmp_path):
    """The overrides of a tiny run into `tmp_path / "run"`, for either script."""
    data = [f"data.dir={tiny_corpus}", f"data.tokenizer={tiny_tokenizer}", f"output_dir={tmp_path / 'run'}"]
    labels = [f"teacher={tiny_teacher_path}", f"pseudo={tiny_pseudo}"]
    return {"train_nmt.py": [*TINY, *data], "distill.py": [*TINY, *data, *labels]}


def in_a_process(script: str, arguments: list[str], directory: Path, launcher=()) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *launcher, ROOT / "examples" / script, *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        timeout=300,
    )


@pytest.fixture
def in_this_process(monkeypatch, capsys, tmp_path):
    """A function that calls a script's main here, which saves NeMo's import; returns exit status and message."""

    def run(script: str, overrides: list[str]) -> tuple[int, str]:
        main = runpy.run_path(str(ROOT / "examples" / script))["main"]
        with initialize_config_dir(str(ROOT / "configs"), version_base=None):
            config = compose(script.removesuffix(".py"), overrides)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status = 0
        try:
            main(config)
        except SystemExit as stop:
            status = stop.code
        errors = capsys.readouterr().err
        return status, errors[errors.index(f"{script}: ") :] if status else ""

    return run


def test_distill_trains_and_a_second_call_returns_at_once(overrides, in_this_process, tmp_path):
    done = in_a_process("distill.py", overrides["distill.py"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1.0 * NLL + 1.0 * WordKD(forward_kl, τ=1)" in done.stdout + done.stderr
    archive = tmp_path / "run" / "student.nemo"
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # hydra leaves nothing in the working directory
    assert type(MTEncDecModel.restore_from(str(archive))) is MTEncDecModel
    before = archive.stat().st_mtime_ns
    assert in_this_process("distill.py", overrides["distill.py"])[0] == 0
    assert archive.stat().st_mtime_ns == before
    status, errors = in_this_process("distill.py", [*overrides["distill.py"], "seed=7"])
    assert status == 2
    assert "already holds another run, made with seed 1 (now 7)" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [[], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]], ids=["alone", "torchrun"]
)
def test_distill_trains_in_two_processes(overrides, tmp_path, launcher):
    """Started by Lightning, or by torchrun; a second call returns at once, and another run is refused."""
    arguments = [*overrides["distill.py"], "trainer.devices=2"]
    done = in_a_process("distill.py", arguments, tmp_path, launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    archive = tmp_path / "run" / "student.nemo"
    assert type(MTEncDecModel.restore_from(str(archive))) is MTEncDecModel
    before = archive.stat().st_mtime_ns
    assert in_a_process("distill.py", arguments, tmp_path, launcher).returncode == 0
    assert archive.stat().st_mtime_ns == before
    refused = in_a_process("distill.py", [*arguments, "seed=7"], tmp_path, launcher)
    assert refused.returncode != 0
    assert "already holds another run, made with seed 1 (now 7)" in refused.stderr
    assert archive.stat().st_mtime_ns == before


def test_train_nmt_trains(overrides, in_this_process, tmp_path):
    arguments = [*overrides["train_nmt.py"], "name=teacher"]
    status, _ = in_this_process("train_nmt.py", arguments)
    assert status == 0
    archive = tmp_path / "run" / "teacher.nemo"
    assert type(MTEncDecModel.restore_from(str(archive))) is MTEncDecModel
    before = archive.stat().st_mtime_ns
    assert in_this_process("train_nmt.py", arguments)[0] == 0
    assert archive.stat().st_mtime_ns == before


@pytest.mark.slow
def test_bad_input_ends_a_process_with_status_2_and_one_message(overrides, tmp_path):
    arguments = [*overrides["distill.py"], "+model.distillation.objective.word_kd.temprature=2"]
    done = in_a_process("distill.py", arguments, tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("distill.py: ") :]
    assert message.startswith("distill.py: 1 fault in the `distillation` section:\n")
    assert "word_kd.temprature: unknown key (did you mean 'temperature'?)" in message
    assert len(message.splitlines()) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "change", "message"),
    [
        (
            "distill.py",
            "teacher=no.nemo",
            "distillation.teacher.model_path: 'no.nemo' does not exist; give the path of",
        ),
        ("distill.py", "model.distillation.objective.word_kd.temperature=-1", "temperature: got -1.0; give a finite"),
        ("distill.py", "model.distillation.teacher.model_path=null", "got none of model_path, model_name and cache"),
        ("distill.py", "+model.distillation.teacher.model_name=nmt", "got both of model_path and model_name"),
        ("distill.py", "model.distillation=null", "no `distillation` section"),
        (
            "distill.py",
            "+model.distillation.capture.student_logits=head",
            "no module 'head' in DistilledMTEncDecModel",
        ),
        ("train_nmt.py", "model.train_ds.tgt_file_name=${data.dir}/valid.en", r"has 160 lines, \S+valid.en has 20"),
        ("distill.py", "data.source=fr", r"no file \S+train.fr"),
        ("train_nmt.py", "data.tokenizer=no.model", "tokenizer_model: no file no.model"),
        ("train_nmt.py", "+trainer.max_step=3", "trainer: unknown key max_step"),
        ("train_nmt.py", "trainer.accelerator=gpu", "trainer: No supported gpu backend found"),
        ("train_nmt.py", "keep=all", "keep: got 'all'; give best, last or average"),
    ],
)
def test_bad_input_gives_status_2_and_leaves_nothing(overrides, in_this_process, tmp_path, script, change, message):
    if "gpu" in change and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    status, errors = in_this_process(script, [*overrides[script], change])
    assert status == 2
    assert re.search(message, errors), errors
    assert len(errors.splitlines()) <= 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["train_nmt.py", "distill.py"])
def test_a_value_that_is_not_given_is_named(in_this_process, overrides, script):
    arguments = [argument for argument in overrides[script] if not argument.startswith(("output_dir", "data.dir"))]
    status, errors = in_this_process(script, arguments)
    assert status == 2
    assert f"{script}: no value for data.dir, output_dir; give data.dir=... output_dir=..." in errors


@pytest.mark.slow  # what it joins is tested apart: ranks, tarred sets, mixtures, workers
def test_two_processes_train_on_a_mixture_and_save(overrides, tiny_tarred, tmp_path):
    """DDP over gloo on the CPU, over the ends of epochs, with workers, from a tarred set whose shards do not divide
    among the processes.
    """
    mixture = "model.distillation.mixture"
    gold = f"{mixture}.components.gold"
    tarred = [f"{gold}.source=null", f"{gold}.target=null", f"+{gold}.metadata_file={tiny_tarred}"]
    steps = ["distillation=hybrid", "trainer.max_steps=5", "trainer.val_check_interval=5", f"+{mixture}.epoch_size=4"]
    arguments = [each for each in overrides["distill.py"] if not each.startswith("trainer.")]
    arguments += [*steps, *tarred, "trainer.enable_progress_bar=false", "trainer.devices=2", "data.num_workers=1"]
    done = in_a_process("distill.py", arguments, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mixture: 2 batches in an epoch for each of 2 processes; shares gold 0.5 (asked for 0.34; 22 batches)" in (
        done.stdout + done.stderr
    )
    assert "MEMBER: 2/2" in done.stdout + done.stderr
    model = MTEncDecModel.restore_from(str(tmp_path / "run" / "student.nemo"))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "student.nemo",
        "config.yaml",
        "inputs.json",
        "text",  # the teacher's archive names languages
        "log",
    }
