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
"""How many sentences a second does each engine translate? Run with `make bench`, with nothing else on the machine.

NeMo's own batched beam search, our search over NeMo's modules, and CTranslate2 in some types, in turn: the same
sentences, the same beam, from raw text to raw text, on a GPU if there is one, else on all cores that the process may
run on. See conftest.py for a real model and real text.
"""

import os
import time
from collections.abc import Callable

import pytest
import torch

from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.cuda_libraries import device_fault
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.search import evaluation_mode
from nemo_distill.decoding.translation import translate

SMALLEST_RATIO = 10
NEMO_BATCH = 64
ROUNDS = 3


def stock_translate(model, sentences: list[str]) -> list[str]:
    """Translate as NeMo does, in batches of sentences of similar length."""
    hypotheses = {}
    order = sorted(
        range(len(sentences)), key=lambda place: -len(model.encoder_tokenizer.text_to_ids(sentences[place]))
    )
    with evaluation_mode(model):
        for start in range(0, len(order), NEMO_BATCH):
            places = order[start : start + NEMO_BATCH]
            translations = model.translate([sentences[place] for place in places])
            hypotheses.update(zip(places, translations, strict=True))
    return [hypotheses[place] for place in range(len(sentences))]


@pytest.mark.slow
def test_sentences_per_second(translation_model, sentences: list[str], capsys) -> None:
    device, threads = "cuda" if torch.cuda.is_available() else "cpu", len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)  # the other tests keep to one

    def by(engine) -> Callable:
        return lambda texts: translate(engine, texts, progress=False).hypotheses

    fault = device_fault(device)
    types = () if fault else ("float32", "int8") if device == "cpu" else ("float32", "float16", "int8_float16")
    model = translation_model.to(device)
    runs = {
        f"NeMo, batch {NEMO_BATCH}": lambda texts: stock_translate(model, texts),
        "NeMo engine": by(NeMoEngine(model)),
    }
    for name in types:
        engine = CTranslate2Engine.from_model(model, name, device, threads=threads)
        runs[f"CTranslate2 {name}"] = by(engine)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(ROUNDS):
        for name, run in runs.items():
            if round_number == 0:
                run(sentences[:8])  # warm-up
            start = time.perf_counter()
            hypotheses = run(sentences)
            seconds[name].append(time.perf_counter() - start)
            assert len(hypotheses) == len(sentences)
            assert sum(map(bool, hypotheses)) > 0.9 * len(sentences)
    speeds = {name: len(sentences) / min(values) for name, values in seconds.items()}
    stock = next(iter(speeds.values()))
    beam = translation_model.beam_search.beam_size
    with capsys.disabled():
        print(f"\n{len(sentences)} sentences, beam {beam}, {threads} threads, best of {ROUNDS} rounds, sentences/s:")
        print(f"  on {device}; {fault or 'with all engines'}")
        for name, speed in speeds.items():
            print(f"  {name:<26}{speed:9.1f}{speed / stock:8.1f} x")
    assert max(speeds.values()) >= (SMALLEST_RATIO if device == "cpu" else 1) * stock
