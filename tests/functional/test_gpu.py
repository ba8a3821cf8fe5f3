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
"""What a GPU says is what a CPU says: losses, gradients, caches, labels, scores; a run there ends in a usable archive.

    make test PYTEST_ARGS="-m gpu tests/functional/test_gpu.py"

Skipped without a GPU. CTranslate2 decodes there where it finds its CUDA, else NeMo's engine.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from short_runs import TINY

from nemo_distill.archives.restore import restore_model
from nemo_distill.cli.parser import main
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.model import DistilledMTEncDecModel
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

ROOT = Path(__file__).resolve().parents[2]
GPU = "cuda"
SUMS = 64 * 4 * 2.0**-23
"""Relative error of float32 sums over the widest layer (64), one after another through four layers."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or `-m gpu` was not asked for"),
]


@pytest.fixture(scope="module")
def text(tiny_corpus) -> tuple[str, str]:
    return str(tiny_corpus / "test.de"), str(tiny_corpus / "test.en")


def loss_and_gradients(student, batch, device: str) -> tuple[float, torch.Tensor]:
    """Return the loss of a batch and all gradients, without dropout."""
    student = student.to(device).eval()
    loss = student.distillation_terms([tensor.to(device) for tensor in batch])["loss"]
    student.zero_grad()
    loss.backward()
    gradients = [each.grad.flatten().cpu() for each in student.parameters() if each.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("computation", ["plain", "lean"])
def test_loss_and_gradients(student_config, first_batch, computation, temperature):
    objective = {"computation": computation, "word_kd": {"temperature": temperature}}
    students = [DistilledMTEncDecModel(student_config(objective=objective)) for _ in range(2)]
    students[1].load_state_dict(students[0].state_dict())
    batch = first_batch(students[0])
    (loss, gradients), (here, theirs) = (
        loss_and_gradients(student, batch, device) for student, device in zip(students, ("cpu", GPU), strict=True)
    )
    assert here == pytest.approx(loss, rel=SUMS)
    assert (theirs - gradients).norm() <= 10 * SUMS * gradients.norm()  # there and back


def test_triple_loss(student_config, first_batch):
    layers = {"hidden": {"weight": 1.0, "projection": True}}
    section = student_config(objective=layers)
    students = [DistilledMTEncDecModel(section.copy()) for _ in range(2)]
    students[1].load_state_dict(students[0].state_dict())
    batch = first_batch(students[0])
    loss, here = (loss_and_gradients(*each)[0] for each in ((students[0], batch, "cpu"), (students[1], batch, GPU)))
    assert here == pytest.approx(loss, rel=SUMS)


def test_a_cache_written_on_it_teaches_as_the_live_teacher(
    tiny_teacher_path, tiny_corpus, student_config, first_batch, tmp_path
):
    cache = tmp_path / "cache"
    text = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]
    write_cache([str(tiny_teacher_path)], text, cache, CacheSettings(top_k=32), device=GPU)
    sections = {"live": {"model_path": str(tiny_teacher_path)}, "cached": {"cache": str(cache)}}
    students = {name: student_config(**{"distillation": {"teacher": each}}) for name, each in sections.items()}
    students = {name: DistilledMTEncDecModel(section) for name, section in students.items()}
    students["cached"].load_state_dict(students["live"].state_dict())
    batch = first_batch(students["live"])
    losses = {name: loss_and_gradients(student, batch, GPU)[0] for name, student in students.items()}
    assert losses["cached"] <= losses["live"] * (1 + SUMS)  # k words and a bucket: a lower bound
    assert losses["cached"] == pytest.approx(losses["live"], rel=0.02)


@pytest.mark.parametrize("engine", ["nemo", "auto"])
def test_labels(tiny_teacher_path, tiny_corpus, tmp_path, engine):
    """The same hypotheses, and scores within what sums of float32 may differ in."""
    found = {}
    for device in ("cpu", GPU):
        out = tmp_path / device
        command = ["pseudo-label", "--teacher", str(tiny_teacher_path), "--input", str(tiny_corpus / "test.de")]
        assert main([*command, "--engine", engine, "--device", device, "--output-dir", str(out)]) == 0
        found[device] = [row.hypotheses[0] for row in read_nbest(out / "nbest.jsonl")]
    assert [each.text for each in found[GPU]] == [each.text for each in found["cpu"]]
    for cpu, gpu in zip(found["cpu"], found[GPU], strict=True):  # a sum over at most 64 tokens
        assert gpu.score == pytest.approx(cpu.score, rel=64 * SUMS)


def test_a_run_there_ends_in_an_archive_for_any_machine(
    tiny_teacher_path, tiny_corpus, tiny_tokenizer, text, tmp_path, capsys
):
    run, before = tmp_path / "run", hashlib.sha256(tiny_teacher_path.read_bytes()).hexdigest()
    overrides = [*TINY, f"data.dir={tiny_corpus}", f"data.tokenizer={tiny_tokenizer}", f"teacher={tiny_teacher_path}"]
    overrides += ["trainer=gpu", "trainer.devices=1", f"output_dir={run}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, ROOT / "examples/distill.py", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hashlib.sha256(tiny_teacher_path.read_bytes()).hexdigest() == before
    (archive,) = run.glob("*.nemo")
    model = restore_model(archive)
    assert type(model) is MTEncDecModel
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    command = ["--model", str(archive), "--test", f"test:{text[0]}:{text[1]}", "--device"]
    for verb in ("evaluate", "speed"):
        assert main([verb, *command, GPU, "--output-dir", str(tmp_path / verb)]) == 0
    assert main(["export", "--model", str(archive), "--output-dir", str(tmp_path / "exported")]) == 0
    capsys.readouterr()
