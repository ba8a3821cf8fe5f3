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
"""The NeMo engine: n-best lists, sampling that repeats, ensembles."""

import math
import random
from dataclasses import replace

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding.engine import EMPTY, Hypothesis, SearchSettings
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.search import repair_search
from nemo_distill.errors import InputError, TeacherError

SAMPLING = [
    SearchSettings(search="top_k", top_k=5, num_hypotheses=3, temperature=1.5, seed=7),
    SearchSettings(search="top_p", top_p=0.95, num_hypotheses=3, temperature=1.5, seed=7),
]
ALL = [SearchSettings(), SearchSettings(num_hypotheses=4), SearchSettings(search="greedy"), *SAMPLING]
# Of a score: each of its up to forty log-probabilities is off by some 1e-6, and each sum of them by 6e-8 of its size.
ROUNDING = {"abs": 1e-4, "rel": 1e-5}


@pytest.fixture(scope="module")
def tiny_sources(tiny_sources) -> list[str]:
    """The first eight: NeMo's modules take their time."""
    return tiny_sources[:8]


@pytest.fixture(scope="module")
def engine(tiny_teacher_path) -> NeMoEngine:
    return NeMoEngine(restore_model(tiny_teacher_path))


@pytest.fixture(scope="module")
def untrained(tiny_model_config) -> MTEncDecModel:
    """Another shape, the same tokenizer."""
    torch.manual_seed(3)
    return MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, **{"decoder.pre_ln": False})).eval()


def run(engine, sentences, settings=None, batch_tokens=4096) -> list[list[Hypothesis]]:
    found = [pair for batch in engine.translate(sentences, settings, batch_tokens) for pair in batch]
    assert sorted(place for place, _ in found) == list(range(len(sentences)))
    return [hypotheses for _, hypotheses in sorted(found)]


def log_probability(model, sentence: str, ids: list[int]) -> float:
    """Score target ids, end token included, by the model's training forward."""
    if not ids:
        return 0.0
    tokenizer = model.decoder_tokenizer
    source = torch.tensor([[tokenizer.bos_id, *model.encoder_tokenizer.text_to_ids(sentence), tokenizer.eos_id]])
    target = torch.tensor([[tokenizer.bos_id, *ids]])
    with torch.no_grad():
        scores = model(source, torch.ones_like(source), target[:, :-1], torch.ones_like(target[:, :-1]))
    return scores[0].gather(1, target[0, 1:, None]).sum().item()


@pytest.fixture
def plain_text(engine, monkeypatch):
    """Switch the engine's text processing off, so that a text says which tokens it came from."""
    monkeypatch.setattr(engine.text, "source_processor", None)
    monkeypatch.setattr(engine.text, "target_processor", None)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: f"{s.search}{s.num_hypotheses}")
def test_does_not_depend_on_the_batch(engine, tiny_sources, settings):
    tiny_sources = tiny_sources[:5]
    together = run(engine, tiny_sources, settings)
    alone = run(engine, tiny_sources, settings, batch_tokens=1)
    order = random.Random(0).sample(range(len(tiny_sources)), len(tiny_sources))
    shuffled = run(engine, [tiny_sources[place] for place in order], settings, batch_tokens=100)
    for place, hypotheses in enumerate(together):
        assert len(hypotheses) == settings.num_hypotheses
        for other in (alone[place], shuffled[order.index(place)]):
            assert [(h.text, h.length) for h in other] == [(h.text, h.length) for h in hypotheses]
            assert [h.score for h in other] == pytest.approx([h.score for h in hypotheses], **ROUNDING)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: f"{s.search}{s.num_hypotheses}")
def test_score_and_length_are_those_of_the_tokens(engine, tiny_sources, settings, monkeypatch, plain_text):
    decoded = []
    monkeypatch.setattr(engine.text, "decode", lambda ids: decoded.append(ids) or str(len(decoded) - 1))
    model = engine.models[0]
    for sentence, hypotheses in zip(tiny_sources[:4], run(engine, tiny_sources[:4], settings), strict=True):
        for hypothesis in hypotheses:
            ids = decoded[int(hypothesis.text)]
            ended = hypothesis.length == len(ids) + 1
            expected = log_probability(model, sentence, [*ids, *([model.decoder_tokenizer.eos_id] * ended)])
            assert hypothesis.score == pytest.approx(expected, abs=1e-3)
            assert ended or len(ids) == len(model.encoder_tokenizer.text_to_ids(sentence)) + 2 + 20


def test_n_best_are_different_and_best_first(engine, tiny_sources):
    settings = SearchSettings(num_hypotheses=4)
    for hypotheses in run(engine, tiny_sources, settings):
        ranks = [h.score / ((5 + h.length + 1) / 6) ** 0.6 for h in hypotheses]
        assert ranks == sorted(ranks, reverse=True)
        assert len({h.text for h in hypotheses}) >= 3
    best = [hypotheses[0].text for hypotheses in run(engine, tiny_sources, SearchSettings())]
    assert best == [hypotheses[0].text for hypotheses in run(engine, tiny_sources, settings)]


def test_greedy_is_beam_search_of_width_one(engine, tiny_sources):
    beam = run(engine, tiny_sources, SearchSettings(beam_size=1, length_penalty=2.0))
    assert run(engine, tiny_sources, SearchSettings(search="greedy")) == beam


@pytest.mark.parametrize("settings", SAMPLING, ids=lambda s: s.search)
def test_sampling_follows_its_seed(engine, tiny_sources, settings):
    first = run(engine, tiny_sources, settings)
    assert run(engine, tiny_sources, settings) == first
    assert run(engine, tiny_sources, replace(settings, seed=8)) != first
    assert len({h.text for hypotheses in first for h in hypotheses}) > len(tiny_sources)
    more = run(engine, tiny_sources, replace(settings, num_hypotheses=5))
    for three, five in zip(first, more, strict=True):
        assert {h.text for h in three} <= {h.text for h in five}


def test_sampling_among_one_token_is_greedy(engine, tiny_sources):
    greedy = run(engine, tiny_sources, SearchSettings(search="greedy"))
    for settings in (SearchSettings(search="top_k", top_k=1), SearchSettings(search="top_p", top_p=1e-9)):
        assert [[h.text for h in one] for one in run(engine, tiny_sources, settings)] == [
            [h.text for h in one] for one in greedy
        ]


def test_sampling_has_the_frequencies_of_the_model(untrained, tiny_sources):
    """First tokens of 2,000 draws against the model's distribution among the likeliest 8, sharpened."""
    engine = NeMoEngine(untrained)
    settings = SearchSettings("top_k", top_k=8, temperature=0.5, num_hypotheses=2000, max_length_delta=0)
    tokens = []
    engine.text.decode = lambda ids: tokens.append(ids[0] if ids else untrained.decoder_tokenizer.eos_id) or ""
    sentence = tiny_sources[0]
    run(engine, [sentence], settings)
    ids = engine.text.encode([sentence]).ids[0]
    source, start = torch.tensor([ids]), torch.tensor([[untrained.decoder_tokenizer.bos_id]])
    with torch.no_grad():
        scores = untrained(source, torch.ones_like(source), start, torch.ones_like(start))[0, 0]
    best = scores.topk(8)
    expected = (best.values / 0.5).softmax(0).tolist()
    for token, probability in zip(best.indices.tolist(), expected, strict=True):
        share = tokens.count(token) / 2000
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / 2000)
    assert set(tokens) <= set(best.indices.tolist())


def test_empty_and_long_sentences(engine, tiny_sources):
    long_sentence = " ".join(tiny_sources)
    found = run(engine, ["", long_sentence, " \t"], SearchSettings(num_hypotheses=2))
    assert found[0] == found[2] == [EMPTY]
    assert len(found[1]) == 2
    assert engine.truncated == [1]
    assert run(engine, [], SearchSettings()) == []
    assert engine.truncated == []


def test_default_settings_are_those_of_the_archive(tiny_model_config):
    model = MTEncDecModel(tiny_model_config(beam_size=2, len_pen=1.5, max_generation_delta=3))
    assert NeMoEngine(model).default_settings == SearchSettings(beam_size=2, length_penalty=1.5, max_length_delta=3)


def test_equals_the_repaired_search_of_the_model(engine, tiny_model, tiny_sources):
    repair_search(tiny_model)
    assert [h[0].text for h in run(engine, tiny_sources)] == [tiny_model.translate([s])[0] for s in tiny_sources]


def test_ensemble_of_twins_is_the_model(engine, tiny_sources, tiny_model):
    twins = NeMoEngine([engine.models[0], tiny_model])
    assert twins.name == "nemo, 2 models"
    for settings in ALL:
        expected = run(engine, tiny_sources[:6], settings)
        for one, other in zip(run(twins, tiny_sources[:6], settings), expected, strict=True):
            assert [h.text for h in one] == [h.text for h in other]
            assert [h.score for h in one] == pytest.approx([h.score for h in other], **ROUNDING)


def test_ensemble_averages_probabilities(engine, untrained, tiny_sources, monkeypatch, plain_text):
    """Of the score of the first token of models of different sizes."""
    pair = NeMoEngine([engine.models[0], untrained])
    monkeypatch.setattr(pair, "text", engine.text)
    decoded = []
    monkeypatch.setattr(engine.text, "decode", lambda ids: decoded.append(ids) or "")
    sentence = tiny_sources[0]
    found = run(pair, [sentence], SearchSettings(search="greedy"))[0][0]
    eos = engine.text.target_tokenizer.eos_id
    ids = [*decoded[0], *([eos] * (found.length > len(decoded[0])))]
    expected = 0.0
    for end in range(1, len(ids) + 1):
        steps = [
            log_probability(model, sentence, ids[:end]) - log_probability(model, sentence, ids[: end - 1])
            for model in pair.models
        ]
        expected += math.log(sum(map(math.exp, steps)) / 2)
    assert found.score == pytest.approx(expected, abs=1e-3)
    tiny_sources = tiny_sources[:6]
    assert run(pair, tiny_sources, batch_tokens=1) == [
        [Hypothesis(h.text, pytest.approx(h.score, **ROUNDING), h.length) for h in one]
        for one in run(pair, tiny_sources)
    ]


def test_ensemble_needs_equal_vocabularies(engine, tiny_model_config, tiny_corpus, train_tokenizer):
    path = str(train_tokenizer([tiny_corpus / "train.de"], 120))
    keys = {f"{side}_tokenizer.tokenizer_model": path for side in ("encoder", "decoder")}
    with pytest.raises(TeacherError, match="model 2 of the ensemble has another source vocabulary than the first: "):
        NeMoEngine([engine.models[0], MTEncDecModel(tiny_model_config(**keys))])
    with pytest.raises(TeacherError, match="no model to decode with"):
        NeMoEngine([])


@pytest.mark.parametrize(("source", "shown"), [("ignore", "it reads source raw text, target"), ("es", "Processor es")])
def test_an_ensemble_needs_text_of_one_form(engine, tiny_model_config, source, shown):
    """The order of its models decided which text all of them read."""
    other = MTEncDecModel(tiny_model_config(src_language=source))
    with pytest.raises(TeacherError, match=f"model 2 of the ensemble has text of another form than .*: .*{shown}"):
        NeMoEngine([engine.models[0], other])


@pytest.mark.parametrize(
    ("settings", "batch_tokens", "message"),
    [
        (SearchSettings(beam_size=121), 4096, "beam_size is 121, but the target vocabulary has only 120 tokens"),
        (SearchSettings("top_k", top_k=500), 4096, "top_k is 500, but the target vocabulary has only 120 tokens"),
        (SearchSettings(), 0, "batch_tokens is 0; give at least 1"),
    ],
)
def test_bad_requests_are_refused_at_once(engine, settings, batch_tokens, message):
    with pytest.raises(InputError, match=message):
        engine.translate(["Guten Tag"], settings, batch_tokens)


def test_a_beam_as_wide_as_the_vocabulary(engine, tiny_sources):
    found = run(engine, tiny_sources[:1], SearchSettings(beam_size=120, num_hypotheses=120))[0]
    assert len(found) == 120
    assert all(math.isfinite(h.score) for h in found)
