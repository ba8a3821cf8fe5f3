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
import random
import statistics
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.model import DistilledMTEncDecModel
from nemo_distill.teacher import FrozenTeacher

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LARGEST_RATIO = 1.10
ROUNDS = 30
VOCABULARY = 4000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 pairs of made-up words, enough of them for a BPE of 4,000 pieces, and that BPE."""
    import youtokentome

    directory = tmp_path_factory.mktemp("corpus")
    generator = random.Random(0)
    syllables = ["".join(parts) for parts in itertools.product("bdfgklmnprst", "aeiou", ["", "n", "r", "s"])]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(6000)]
    for split, count in (("train", 6000), ("valid", 50)):
        for language in ("de", "en"):
            lines = [" ".join(generator.choices(words, k=generator.randint(5, 20))) for _ in range(count)]
            (directory / f"{split}.{language}").write_text("\n".join(lines) + "\n")
    youtokentome.BPE.train(str(directory / "train.de"), str(directory / "bpe.model"), VOCABULARY, n_threads=1)
    return directory


def _model_config(corpus: Path, model: str, **extra):
    overrides = [f"model={model}", f"data.dir={corpus}", f"data.tokenizer={corpus / 'bpe.model'}", "output_dir=unused"]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose("train_nmt", overrides=overrides).model


def _step(model, optimizer, loss) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kd_step_against_its_floor(corpus: Path, tmp_path: Path, temperature: float, capsys) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the other tests keep to one
    teacher_path = tmp_path / "teacher.nemo"
    MTEncDecModel(_model_config(corpus, "small_3x3")).save_to(str(teacher_path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = _model_config(corpus, "tiny_1x1")
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
        loss = plain.loss_fn(log_probs=plain(source, source_mask, target, target_mask), labels=labels)
        _step(plain, optimizers[plain], loss)

    def kd_step(batch) -> None:
        _step(student, optimizers[student], student.distillation_terms(batch)["loss"])

    def teacher_forward(batch) -> None:
        with torch.no_grad():
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
        print(f"\ntemperature {temperature:g}, vocabulary {VOCABULARY}, {ROUNDS} rounds on {device}:")
        for name, values in seconds.items():
            print(f"  {name:<16}{statistics.median(values) * 1000:8.1f} ms")
        print(f"  KD step / (plain step + teacher forward): {ratio:.3f}")
    assert ratio <= LARGEST_RATIO
