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
"""Are more threads worth it? Run with `make bench`, with nothing else on the machine.

Training steps of the shipped sizes, and single sentences through CTranslate2, with one thread and with all cores in
turn. See conftest.py for a real model and real text.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.translation import translate
from nemo_distill.support.threads import threads_for

ALL = len(os.sched_getaffinity(0))
COUNTS = (1, ALL)
ROUNDS = 20
SLOWEST = 1.15
"""Times the faster of the two that the choice of `threads_for` may take."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(ALL == 1, reason="one core")]


@pytest.mark.parametrize("tokens", [2048, 4096])
@pytest.mark.parametrize("name", ["tiny_1x1", "small_1x1", "small_3x3"])
def test_training_steps(model_config: Callable, name: str, tokens: int, capsys) -> None:
    config = model_config(name)
    config.train_ds.tokens_in_batch = tokens
    model = MTEncDecModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    batches = itertools.islice(itertools.cycle(model._train_dl), ROUNDS + 3)
    for number, batch in enumerate(batches):
        source, source_mask, target, target_mask, labels = (tensor.squeeze(0) for tensor in batch)
        for count in COUNTS:
            torch.set_num_threads(count)
            start = time.perf_counter()
            optimizer.zero_grad()
            model.loss_fn(log_probs=model(source, source_mask, target, target_mask), labels=labels).backward()
            optimizer.step()
            if number >= 3:  # the first rounds warm up
                seconds[count].append(time.perf_counter() - start)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    _check(f"{name}, {size / 2**20:.1f} MB of weights, {tokens} tokens a batch", seconds, threads_for, size, capsys)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_single_sentences(translation_model, sentences: list[str], quantization: str, capsys) -> None:
    engines = {count: CTranslate2Engine.from_model(translation_model, quantization, threads=count) for count in COUNTS}
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    for sentence in sentences[:50]:
        for count, engine in engines.items():
            start = time.perf_counter()
            translate(engine, [sentence], progress=False)
            seconds[count].append(time.perf_counter() - start)
    size = (engines[1].directory / "model.bin").stat().st_size
    _check(f"one sentence, {quantization}, {size / 2**20:.1f} MB", seconds, threads_for, size, capsys)


def _check(what: str, seconds: dict[int, list[float]], choose: Callable, size: int, capsys) -> None:
    medians = {count: statistics.median(times) for count, times in seconds.items()}
    chosen = choose(size)
    with capsys.disabled():
        shown = ", ".join(f"{count} threads {1000 * median:.1f} ms" for count, median in medians.items())
        print(f"\n{what}: {shown}; chosen: {chosen}")
    assert medians[chosen] <= SLOWEST * min(medians.values())
