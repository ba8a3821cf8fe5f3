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
"""How much slower is a distillation step? Run with `make bench`, with nothing else on the machine.

A step of distillation cannot be faster than a plain step plus the teacher's forward pass: that sum is the floor. The
three are timed in turn on the same batches, so that a drift of the machine's speed hits all of them alike.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.model import DistilledMTEncDecModel
from nemo_distill.teachers.frozen import FrozenTeacher

LARGEST_RATIO = 1.10
ROUNDS = 30


def _step(model, optimizer, loss) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kd_step_against_its_floor(
    model_config: Callable, precision: Callable, tmp_path: Path, temperature: float, capsys
) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the other tests keep to one
    teacher_path = tmp_path / "teacher.nemo"
    MTEncDecModel(model_config("teacher")).save_to(str(teacher_path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = model_config("student")
    plain = MTEncDecModel(config).to(device).train()
    section = {
        "teacher": {"model_path": str(teacher_path)},
        "objective": {"word_kd": {"temperature": temperature}},
    }
    with_section = config.copy()
    with_section._set_flag("struct", False)
    with_section.distillation = section
    student = DistilledMTEncDecModel(with_section).to(device).train()
    teacher = student._teacher
    assert isinstance(teacher, FrozenTeacher)
    optimizers = {model: torch.optim.Adam(model.parameters(), lr=1e-4) for model in (plain, student)}

    def plain_step(batch) -> None:
        source, source_mask, target, target_mask, labels = batch
        with precision(device):
            loss = plain.loss_fn(log_probs=plain(source, source_mask, target, target_mask), labels=labels)
        _step(plain, optimizers[plain], loss)

    def kd_step(batch) -> None:
        with precision(device):
            loss = student.distillation_terms(batch)["loss"]
        _step(student, optimizers[student], loss)

    def teacher_forward(batch) -> None:
        with torch.no_grad(), precision(device):
            teacher.model(*batch[:4])

    sections = {"plain step": plain_step, "KD step": kd_step, "teacher forward": teacher_forward}
    seconds = {name: [] for name in sections}
    batches = itertools.islice(itertools.cycle(plain._train_dl), ROUNDS + 3)
    for index, batch in enumerate(batches):
        batch = [tensor.squeeze(0).to(device) for tensor in batch]
        for name, run in sections.items():
            start = time.perf_counter()
            run(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index >= 3:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    ratios = [kd / (a + b) for a, kd, b in zip(*seconds.values(), strict=True)]
    ratio = statistics.median(ratios)
    with capsys.disabled():
        print(f"\ntemperature {temperature:g}, vocabulary {plain.decoder.vocab_size}, {ROUNDS} rounds on {device}:")
        for name, values in seconds.items():
            print(f"  {name:<16}{statistics.median(values) * 1000:8.1f} ms")
        print(f"  KD step / (plain step + teacher forward): {ratio:.3f}")
    assert ratio <= LARGEST_RATIO
