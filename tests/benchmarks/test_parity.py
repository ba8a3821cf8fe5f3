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
"""Does the converted model say what NeMo says? Log-probabilities, greedy output, independence of the batch.

On made-up text with random weights it runs in seconds; for the figures of a real model see conftest.py:

    BENCH_MODEL=teacher.nemo BENCH_SOURCE=test.de BENCH_TARGET=test.en BENCH_SENTENCES=200 \\
        .venv/bin/python -m pytest -m slow tests/benchmarks/test_parity.py
"""

import ctranslate2
import pytest
import sacrebleu
import torch

from nemo_distill.data.text import pieces
from nemo_distill.decoding.conversion import convert
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.nemo_engine import NeMoEngine

LARGEST_DIFFERENCE = 1e-4
SMALLEST_SHARE = 0.99


@pytest.fixture(scope="module")
def engines(translation_model) -> list:
    return [NeMoEngine(translation_model), CTranslate2Engine.from_model(translation_model)]


def run(engine, sentences, settings=None, batch_tokens=4096) -> list[list[str]]:
    """Return the texts of all hypotheses of each sentence."""
    found = sorted(pair for batch in engine.translate(sentences, settings, batch_tokens) for pair in batch)
    return [[hypothesis.text for hypothesis in hypotheses] for _, hypotheses in found]


@pytest.mark.slow
def test_log_probabilities(translation_model, sentences, references, engines, tmp_path, capsys) -> None:
    """Of the references, token by token, under teacher forcing."""
    model = translation_model
    convert(model, tmp_path)
    sources = engines[0].text.encode(sentences).ids
    names = [pieces(model.encoder_tokenizer), pieces(model.decoder_tokenizer)]
    targets = {place: model.decoder_tokenizer.text_to_ids(references[place]) for place in sources}
    results = ctranslate2.Translator(str(tmp_path)).score_batch(
        [[names[0][id_] for id_ in ids[1:-1]] for ids in sources.values()],
        [[names[1][id_] for id_ in ids] for ids in targets.values()],
        max_batch_size=64,
    )
    largest, tokens = 0.0, 0
    for (place, source), result in zip(sources.items(), results, strict=True):
        source = torch.tensor([source])
        target = torch.tensor([[model.decoder_tokenizer.bos_id, *targets[place]]])
        labels = torch.tensor([*targets[place], model.decoder_tokenizer.eos_id])
        with torch.no_grad():
            expected = model(source, torch.ones_like(source), target, torch.ones_like(target))[0]
        difference = expected[range(len(labels)), labels] - torch.tensor(result.log_probs)
        largest, tokens = max(largest, difference.abs().max().item()), tokens + len(labels)
    with capsys.disabled():
        print(f"\nlargest difference of {tokens} log-probabilities, {len(sources)} sentences: {largest:.1e}")
    assert largest < LARGEST_DIFFERENCE


@pytest.mark.slow
def test_greedy_output(sentences, engines, capsys) -> None:
    nemo, fast = (run(engine, sentences, SearchSettings(search="greedy")) for engine in engines)
    same = sum(one == other for one, other in zip(nemo, fast, strict=True))
    with capsys.disabled():
        print(f"\ngreedy output is the same for {same} of {len(sentences)} sentences")
    assert same >= SMALLEST_SHARE * len(sentences)


@pytest.mark.slow
def test_beam_search(sentences, references, engines, capsys) -> None:
    """Corpus BLEU of both engines; nothing depends on the batch."""
    texts = []
    for engine in engines:
        batches = [run(engine, sentences, batch_tokens=tokens) for tokens in (4096, 1)]
        changed = sum(one != other for one, other in zip(*batches, strict=True))
        texts.append([hypotheses[0] for hypotheses in batches[0]])
        bleu = sacrebleu.corpus_bleu(texts[-1], [references]).score
        with capsys.disabled():
            print(f"\n{engine.name}: BLEU {bleu:.2f}, {changed} sentences change in batches of one")
        assert changed == 0
    same = sum(map(str.__eq__, *texts))
    with capsys.disabled():
        print(f"best hypothesis is the same for {same} of {len(sentences)} sentences")
