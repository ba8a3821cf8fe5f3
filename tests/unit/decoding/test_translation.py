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
"""Raw text in, raw text out."""

import pytest
import torch
from nemo.collections.nlp.modules.common.transformer import BeamSearchSequenceGenerator

from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.search import repair_search
from nemo_distill.decoding.translation import translate, warm_up
from nemo_distill.errors import InputError


@pytest.fixture
def engine(tiny_model) -> NeMoEngine:
    return NeMoEngine(tiny_model)


def test_does_not_depend_on_the_batch(engine, tiny_corpus):
    sentences = (tiny_corpus / "train.de").read_text("utf-8").splitlines()[:15]
    batched = translate(engine, sentences, batch_tokens=4096, progress=False).hypotheses
    alone = translate(engine, sentences, batch_tokens=1, progress=False).hypotheses
    assert batched == alone
    assert len(set(batched)) > 11, "the model says the same whatever it reads"
    assert batched == translate(engine, sentences[::-1], batch_tokens=300, progress=False).hypotheses[::-1]


def test_keeps_order_and_empty_lines(engine, tiny_model, tiny_sources):
    repair_search(tiny_model)
    sentences = ["", *tiny_sources[:3], "  \t", *tiny_sources[3:], ""]
    translations = translate(engine, sentences, progress=False)
    assert translations.decoded == len(tiny_sources)
    assert [place for place, line in enumerate(translations.hypotheses) if line == ""] == [0, 4, len(sentences) - 1]
    for sentence, hypothesis in zip(sentences, translations.hypotheses, strict=True):
        if sentence.strip():
            assert hypothesis == tiny_model.translate([sentence])[0]
    assert translations.sentences_per_second == pytest.approx(len(tiny_sources) / translations.seconds)


def test_what_is_timed_opens_no_model(tiny_model, tiny_sources, monkeypatch):
    engine = CTranslate2Engine.from_model(tiny_model, threads=2)
    translate(engine, tiny_sources[:1], progress=False)  # as where sentences are timed one by one
    warm_up(engine, ["", *tiny_sources])
    monkeypatch.setattr(engine, "_new_translator", lambda *_, **__: pytest.fail("a model is opened"))
    assert all(translate(engine, tiny_sources, batch_tokens=1, progress=False).hypotheses)


def test_translates_well(engine, tiny_corpus, tiny_sources):
    references = (tiny_corpus / "test.en").read_text("utf-8").splitlines()
    hypotheses = translate(engine, tiny_sources, progress=False).hypotheses
    assert sum(map(str.__eq__, hypotheses, references)) >= len(references) / 2


@pytest.mark.parametrize("sentences", [[], ["", " "]])
def test_nothing_to_decode(engine, sentences):
    translations = translate(engine, sentences, progress=False)
    assert translations.hypotheses == [""] * len(sentences)
    assert (translations.decoded, translations.sentences_per_second) == (0, 0.0)


def test_a_source_too_long_is_cut_and_reported(engine, tiny_model, tiny_sources):
    long_sentence = " ".join(tiny_sources)
    translations = translate(engine, [tiny_sources[0], long_sentence], progress=False)
    assert translations.truncated == [1]
    assert translations.hypotheses[1]
    assert translations.hypotheses[0] == tiny_model.translate([tiny_sources[0]])[0]


def test_bpe_dropout_is_off_while_translating_and_on_again(engine, tiny_model, tiny_sources):
    expected = translate(engine, tiny_sources, progress=False).hypotheses
    tiny_model.encoder_tokenizer.bpe_dropout = 0.9
    assert translate(engine, tiny_sources, progress=False).hypotheses == expected
    assert tiny_model.encoder_tokenizer.bpe_dropout == 0.9


def test_leaves_the_model_as_it_was(engine, tiny_model, tiny_sources):
    tiny_model.train()
    tiny_model.encoder.eval()
    tiny_model.decoder.requires_grad_(False)
    modes = [module.training for module in tiny_model.modules()]
    flags = [parameter.requires_grad for parameter in tiny_model.parameters()]
    weights = [parameter.clone() for parameter in tiny_model.parameters()]
    translate(engine, tiny_sources, progress=False)
    assert type(tiny_model.beam_search) is BeamSearchSequenceGenerator
    assert [module.training for module in tiny_model.modules()] == modes
    assert [parameter.requires_grad for parameter in tiny_model.parameters()] == flags
    assert all(map(torch.equal, weights, tiny_model.parameters()))


def test_bad_batch_size(engine):
    with pytest.raises(InputError, match="batch_tokens is 0; give at least 1"):
        translate(engine, ["Guten Tag"], batch_tokens=0)
