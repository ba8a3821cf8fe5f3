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
"""A step with a cache against a plain step and one with the live teacher; what a cache costs and leaves out.

The steps are timed in turn on the same batches, so that a drift of the machine's speed hits all of them alike.
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

from nemo_distill.losses.divergence import WordLevelKDLoss
from nemo_distill.losses.signals import TopKTargets
from nemo_distill.losses.top_k import kept_loss
from nemo_distill.model import DistilledMTEncDecModel
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

LARGEST_RATIO = 1.05
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", 30))
VOCABULARY = 4000
WORDS_KEPT = (4, 8, 16, 32, 64)


def _student(config, device: torch.device, section: dict | None):
    if section is None:
        return MTEncDecModel(config).to(device).train()
    config._set_flag("struct", False)
    config.distillation = section
    return DistilledMTEncDecModel(config).to(device).train()


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [0, 16])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_cached_step_against_a_plain_one(
    corpus: Path,
    model_config: Callable,
    precision: Callable,
    tmp_path: Path,
    temperature: float,
    sampled: int,
    capsys,
) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # the other tests keep to one
    teacher, device = tmp_path / "teacher.nemo", torch.device("cuda" if torch.cuda.is_available() else "cpu")
    MTEncDecModel(model_config("teacher")).save_to(str(teacher))
    text = [(str(corpus / "train.de"), str(corpus / "train.en"))]
    settings = CacheSettings(16 - sampled // 2, (temperature,), sampled=sampled)
    manifest, _ = write_cache([str(teacher)], text, tmp_path / "cache", settings, device=device.type, force=True)
    objective = {"word_kd": {"temperature": temperature}}
    sections = {
        "plain NeMo": None,
        "plain": {"objective": {"word_kd": {"weight": 0.0}}},
        "live KD": {"teacher": {"model_path": str(teacher)}, "objective": objective},
        "cached KD": {"teacher": {"cache": str(tmp_path / "cache")}, "objective": objective},
    }
    students = {name: _student(model_config("student"), device, section) for name, section in sections.items()}
    optimizers = {name: torch.optim.Adam(model.parameters(), lr=1e-4) for name, model in students.items()}
    seconds = {name: [] for name in students}
    loader = itertools.cycle(list(students["plain NeMo"]._train_dl))
    for index, batch in enumerate(itertools.islice(loader, ROUNDS + 3)):
        batch = [tensor.squeeze(0).to(device) for tensor in batch]
        for name, model in students.items():
            start = time.perf_counter()
            with precision(device):
                if name == "plain NeMo":
                    loss = model.loss_fn(log_probs=model(*batch[:4]), labels=batch[4])
                else:
                    loss = model.distillation_terms(batch)["loss"]
            optimizers[name].zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers[name].step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index >= 3:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["cached KD"], seconds[name], strict=True))
        for name in ("plain NeMo", "plain", "live KD")
    }
    with capsys.disabled():
        kept = f"temperature {temperature:g}, {settings.top_k} best words and {sampled} drawn"
        print(f"\n{kept}, vocabulary {VOCABULARY}, {ROUNDS} rounds on {device}:")
        for name, values in seconds.items():
            print(f"  {name:<12}{statistics.median(values) * 1000:8.1f} ms")
        for name, ratio in ratios.items():
            print(f"  cached KD / {name}: {ratio:.3f}")
        print(f"  {sum(manifest['bytes'].values()) / manifest['tokens']:.1f} bytes a token")
    assert ratios["plain NeMo"] <= LARGEST_RATIO


@pytest.mark.slow
def test_what_a_cache_leaves_out(capsys) -> None:
    """The KL of k + 1 outcomes is a lower bound of the whole, and nearer with each k; distributions as peaked as a
    trained teacher's, of logits that fall off with the rank."""
    generator = torch.Generator().manual_seed(0)
    tokens, errors = 500, {}
    ranks = torch.arange(1, VOCABULARY + 1).log()
    z = torch.stack([-2.0 * ranks[torch.randperm(VOCABULARY, generator=generator)] for _ in range(tokens)])[None]
    w = z + torch.randn(z.shape, generator=generator)
    mask, kd = torch.ones(1, tokens, dtype=torch.bool), WordLevelKDLoss()
    whole = kd(student_logits=w, teacher_logits=z, mask=mask).item()
    for k in WORDS_KEPT:
        top = z[0].topk(k)
        shift = top.values[:, :1]
        targets = TopKTargets(top.indices, (top.values - shift).half(), (z[0] - shift).logsumexp(-1))
        errors[k] = 1 - kept_loss(student_logits=w, targets=targets, mask=mask, kd=kd).item() / whole
    with capsys.disabled():
        print(f"\nshare of the KL ({whole:.3f}) that k words and a bucket do not see, vocabulary {VOCABULARY}:")
        for k, error in errors.items():
            print(f"  k = {k:<4}{error:8.4f}  {4 * k + 4} bytes a token")
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert all(error > -1e-3 for error in errors.values())
