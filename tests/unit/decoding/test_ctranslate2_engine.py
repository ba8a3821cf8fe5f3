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
"""The CTranslate2 engine: NeMo's scores and limits, nothing depends on the batch or on the number of threads."""

import gc
import weakref
from dataclasses import replace

import ctranslate2
import pytest
from nemo.collections.nlp.models import MTEncDecModel
from slow_cases import slow

from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import EMPTY, Hypothesis, SearchSettings
from nemo_distill.decoding.exported_program import length_penalty
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.errors import InputError
from nemo_distill.support import threads

SAMPLING = [
    SearchSettings(search="top_k", top_k=5, num_hypotheses=3, temperature=1.5, seed=7),
    SearchSettings(search="top_p", top_p=0.95, num_hypotheses=3, temperature=1.5, seed=7),
]


@pytest.fixture(scope="module")
def engine(tiny_teacher_path) -> CTranslate2Engine:
    return CTranslate2Engine.from_archive(tiny_teacher_path, threads=1)


@pytest.fixture(scope="module")
def nemo(tiny_teacher_path) -> NeMoEngine:
    return NeMoEngine(restore_model(tiny_teacher_path))


@pytest.fixture(scope="module")
def sentences(tiny_corpus) -> list[str]:
    return [line for s in ("test", "train") for line in (tiny_corpus / f"{s}.de").read_text("utf-8").splitlines()][:80]


def run(engine, sentences, settings=None, batch_tokens=4096) -> list[list[Hypothesis]]:
    found = [pair for batch in engine.translate(sentences, settings, batch_tokens) for pair in batch]
    assert sorted(place for place, _ in found) == list(range(len(sentences)))
    return [hypotheses for _, hypotheses in sorted(found)]


def nearly(hypotheses: list[list[Hypothesis]], tolerance: float = 1e-4) -> list[list[Hypothesis]]:
    return [[replace(h, score=pytest.approx(h.score, abs=tolerance)) for h in one] for one in hypotheses]


@pytest.mark.parametrize(
    "settings",
    [SearchSettings(num_hypotheses=4), SearchSettings(search="greedy"), SearchSettings(max_length_delta=0)],
    ids=["n-best", "greedy", "short"],
)
@pytest.mark.parametrize(("quantization", "tolerance"), [("float32", 1e-4), *slow(("int8", 1e-2))])
def test_does_not_depend_on_batch_order_or_threads(tiny_model, sentences, settings, quantization, tolerance):
    """In int8 a rounding of float32 can move an activation by a whole step, a 127th of the largest."""
    engine = CTranslate2Engine.from_model(tiny_model, quantization, threads=1)
    assert engine.name == f"ctranslate2 {quantization}"
    expected = nearly(run(engine, sentences, settings), tolerance)
    assert run(engine, sentences, settings, batch_tokens=1) == expected
    assert run(engine, sentences[::-1], settings, batch_tokens=150)[::-1] == expected
    assert run(CTranslate2Engine.from_model(tiny_model, quantization, threads=2), sentences, settings) == expected


def test_greedy_search_is_that_of_nemo(engine, nemo, sentences):
    settings = SearchSettings(search="greedy")
    assert run(engine, sentences, settings) == nearly(run(nemo, sentences, settings))


@pytest.mark.parametrize(("beam_size", "exponent"), [(4, 0.6), (4, 0.0)])
def test_nemos_search_never_finds_worse(engine, nemo, sentences, beam_size, exponent):
    """Both take, keep and rank hypotheses in the same way: the N best are as good, place by place.

    Words that are the wrong way round make a small teacher unsure, so that many hypotheses are in play.
    """
    unsure = [" ".join(sentence.split()[::-1]) for sentence in sentences]
    settings = SearchSettings(beam_size=beam_size, num_hypotheses=beam_size, length_penalty=exponent)
    found, others = run(nemo, unsure, settings), run(engine, unsure, settings)
    for one, other in zip(found, others, strict=True):
        ranks, least = ([h.score / length_penalty(len(h.ids), exponent) for h in each] for each in (one, other))
        assert ranks == sorted(ranks, reverse=True)
        assert all(rank > bar - 1e-4 for rank, bar in zip(ranks, least, strict=True))
    same = sum(one[0].text == other[0].text for one, other in zip(found, others, strict=True))
    assert same >= 0.95 * len(sentences)
    best = run(nemo, unsure, replace(settings, num_hypotheses=2))
    assert best == nearly([hypotheses[:2] for hypotheses in found])


def test_length_penalty_decides_between_short_and_long(engine, sentences):
    short, long = (
        sum(one[0].length for one in run(engine, sentences, SearchSettings(length_penalty=exponent)))
        for exponent in (-5.0, 5.0)
    )
    assert short < long


@pytest.mark.parametrize("delta", [0, 3])
def test_no_hypothesis_is_longer_than_its_source_allows(engine, sentences, delta):
    settings = SearchSettings(num_hypotheses=4, max_length_delta=delta)
    lengths = engine.text.encode(sentences).ids
    found = run(engine, sentences, settings)
    excess = [h.length - len(lengths[place]) - delta for place, one in enumerate(found) for h in one]
    assert max(excess) == 0


@pytest.mark.parametrize("settings", SAMPLING, ids=lambda s: s.search)
def test_sampling_follows_its_seed(engine, tiny_model, sentences, settings):
    first = run(engine, sentences, settings, batch_tokens=200)
    assert run(CTranslate2Engine.from_model(tiny_model, threads=3), sentences, settings, 200) == nearly(first)
    assert run(engine, sentences, replace(settings, seed=8), 200) != first
    assert len({h.text for one in first for h in one}) > len(sentences)
    assert all(len(one) == 3 for one in first)


def test_sampling_among_one_token_is_greedy(engine, sentences):
    greedy = run(engine, sentences[:9], SearchSettings(search="greedy"))
    for settings in (SearchSettings(search="top_k", top_k=1), SearchSettings(search="top_p", top_p=1e-6)):
        assert run(engine, sentences[:9], settings) == nearly(greedy)


def test_scores_of_samples_are_those_of_the_model(engine, nemo, sentences):
    """However sharp or flat they are drawn: NeMo's engine scores its own draws of the same texts alike."""
    settings = SearchSettings("top_k", top_k=2, temperature=1.5, num_hypotheses=200)
    found = [run(one, sentences[:1], settings)[0] for one in (engine, nemo)]
    # one text may have been drawn in other pieces
    scores = [{(one.text, one.length): one.score for one in hypotheses} for hypotheses in found]
    both = scores[0].keys() & scores[1].keys()
    assert len(both) > 5
    for text in both:
        assert scores[0][text] == pytest.approx(scores[1][text], abs=1e-3)


def test_empty_and_long_sentences(engine, nemo, sentences):
    long_sentence = " ".join(sentences[:20])
    found = run(engine, ["", long_sentence, " \t"], SearchSettings(search="greedy"))
    assert found == nearly(run(nemo, ["", long_sentence, " \t"], SearchSettings(search="greedy")))
    assert found[0] == found[2] == [EMPTY]
    assert engine.truncated == [1]
    assert run(engine, [], SAMPLING[0]) == run(engine, []) == []
    assert engine.truncated == []


def test_characters_that_the_model_does_not_know(engine, nemo):
    greedy = SearchSettings(search="greedy")
    texts = ["Ω", "Die Lampe Ω ist <BOS> offen.", "<PAD> <UNK>"]
    assert run(engine, texts, greedy) == nearly(run(nemo, texts, greedy))


def test_default_settings_are_those_of_the_archive(tiny_model_config):
    model = MTEncDecModel(tiny_model_config(beam_size=2, len_pen=1.5, max_generation_delta=3))
    settings = SearchSettings(beam_size=2, length_penalty=1.5, max_length_delta=3)
    assert CTranslate2Engine.from_model(model).default_settings == settings


@pytest.mark.parametrize(("asked", "small", "expected"), [(None, "", 1), (None, "4", 4), (3, "", 3)])
def test_a_sentence_of_a_small_model_gets_one_thread(tiny_model, monkeypatch, asked, small, expected):
    """Several made it 6 to 28 times slower. What a user says wins."""
    monkeypatch.setenv("OMP_NUM_THREADS", small)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    made, translator = [], ctranslate2.Translator
    monkeypatch.setattr(
        ctranslate2, "Translator", lambda *a, **options: made.append(options) or translator(*a, **options)
    )
    engine = CTranslate2Engine.from_model(tiny_model, threads=asked)
    run(engine, ["a b"], SearchSettings())
    assert [options["intra_threads"] for options in made] == [expected]
    assert engine.threads == (asked or 4)  # of which batches take one each


@pytest.mark.parametrize(
    ("settings", "batch_tokens", "message"),
    [
        (SearchSettings(beam_size=121), 4096, "beam_size is 121, but the target vocabulary has only 120 tokens"),
        (SearchSettings(), 0, "batch_tokens is 0; give at least 1"),
    ],
)
def test_bad_requests_are_refused_at_once(engine, settings, batch_tokens, message):
    with pytest.raises(InputError, match=message):
        engine.translate(["Guten Tag"], settings, batch_tokens)


def test_a_beam_as_wide_as_the_vocabulary(engine, sentences):
    assert len(run(engine, sentences[:1], SearchSettings(beam_size=120, num_hypotheses=120))[0]) == 120


def test_a_device_that_is_not_there(tiny_model, tiny_teacher_path):
    with pytest.raises(InputError, match="CTranslate2 (finds no|cannot decode) .*abacus.* the engine 'nemo'"):
        CTranslate2Engine.from_model(tiny_model, device="abacus")
    with pytest.raises(InputError, match="quantization is 'int3'"):
        CTranslate2Engine.from_archive(tiny_teacher_path, quantization="int3")


def test_an_engine_is_freed_when_nobody_has_it(tiny_model):
    """Not later by the collector, which in a forked process would wait for its threads for ever."""
    gc.disable()
    try:
        engine = CTranslate2Engine.from_model(tiny_model)
        found = [weakref.ref(engine), weakref.ref(engine._translator)]
        list(engine.translate(["Die Lampe ist offen."]))
        del engine
        assert [reference() for reference in found] == [None, None]
    finally:
        gc.enable()
