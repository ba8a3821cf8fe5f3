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
"""What training reads of a hypothesis, where that is not what the search found."""

from dataclasses import replace

import law
import pytest

from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import EMPTY, Hypothesis, SearchSettings
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.reading_back import read_back

SOURCE = "Die Lampe ist offen."


@pytest.fixture(params=[CTranslate2Engine.from_model, NeMoEngine], ids=["ctranslate2", "nemo"])
def engine(request, tiny_model):
    """An engine that has translated one sentence, and an empty one."""
    opened = request.param(tiny_model)
    list(opened.translate([SOURCE, ""]))
    return opened


def hypothesis(engine, ids, score=-1.0, ended=True) -> Hypothesis:
    return engine._hypothesis(ids, score, len(ids) + ended)


def forced(engine, model, text) -> float:
    """Return what the model says of a text."""
    tokenizer = model.decoder_tokenizer
    target = [tokenizer.bos_id, *tokenizer.text_to_ids(text), tokenizer.eos_id]
    return pytest.approx(law.forced_scores([model], [engine.sources.ids[0]], [target])[0], abs=1e-4)


def test_what_training_reads(engine, tiny_model):
    """The search's own scores stay where the tokens do; all else is scored, marked, merged and ranked anew."""
    tokenizer = tiny_model.decoder_tokenizer
    whole = tokenizer.text_to_ids("The lamp is open.")
    letters = tokenizer.tokens_to_ids(["\u2581", *"The"]) + tokenizer.text_to_ids("lamp is open.")
    found = {
        0: [
            hypothesis(engine, letters, -0.1),
            hypothesis(engine, [*whole, tokenizer.unk_id], -0.2),
            hypothesis(engine, [*whole, 10_000], -0.3),
            hypothesis(engine, whole, -0.4),
            hypothesis(engine, whole[:3], -0.5, ended=False),
            hypothesis(engine, [tokenizer.unk_id], -0.6),
        ],
        1: [EMPTY],
    }
    before = {place: list(rows) for place, rows in found.items()}
    read = read_back(engine, found, SearchSettings(beam_size=6, num_hypotheses=6))
    assert found == before
    assert read[1] == [EMPTY]
    by_text = {one.text: one for one in read[0]}
    assert len(by_text) == len(read[0])
    kept = by_text.pop("The lamp is open.")
    assert (kept.score, kept.length, kept.mark) == (-0.4, len(whole) + 1, None)
    assert (kept.cut, kept.unknown) == (False, 0)
    cut = by_text.pop(tokenizer.ids_to_text(whole[:3]))
    assert (cut.cut, cut.unknown) == (True, 0)
    assert cut.mark == "no end token"
    assert (cut.score, cut.length) == (forced(engine, tiny_model, cut.text), 4)
    for text, one in by_text.items():  # the unknown ones, as each library writes them
        assert (one.mark, one.cut, one.unknown) == ("unknown pieces", False, 1)
        assert (one.score, one.length) == (forced(engine, tiny_model, text), len(tokenizer.text_to_ids(text)) + 1)
    ranks = [one.score / ((7 + one.length - 1) / 6) ** 0.6 for one in read[0]]
    assert ranks == sorted(ranks, reverse=True)

    [spelled] = read_back(engine, {0: [found[0][0]]}, SearchSettings())[0]
    assert spelled.mark == "other segmentation"
    assert (spelled.score, spelled.length) == (forced(engine, tiny_model, "The lamp is open."), len(whole) + 1)


def test_a_text_of_more_tokens_than_positions_keeps_its_score(engine, tiny_model):
    text = "The lamp is open. " * 40
    long = hypothesis(engine, tiny_model.decoder_tokenizer.text_to_ids(text)[:64], -7.0, ended=False)
    assert read_back(engine, {0: [long]}, SearchSettings())[0] == [replace(long, mark="too long to score")]
    unknown = [Hypothesis("a", -1.0, 2), Hypothesis("a", -2.0, 2)]  # of an engine that tells no tokens
    assert read_back(engine, {0: unknown}, SearchSettings())[0] == unknown


def test_engines_say_what_is_cut_and_which_sources_they_do_not_know(engine):
    settings = SearchSettings(max_length_delta=0, num_hypotheses=2)
    sentences = ["\u2603 \u2603", SOURCE, "Lampe \u2603", "", "Die Lampe ist offen"]
    found = dict(pair for batch in engine.translate(sentences, settings) for pair in batch)
    assert engine.sources.unknown == [0]
    tokenizer = engine.text.target_tokenizer
    for place, hypotheses in found.items():
        for one in hypotheses:
            assert one.cut == (one.ids is not None and one.length == len(one.ids))
            assert one.unknown == (one.ids or ()).count(tokenizer.unk_id)
            assert not one.cut or one.length == len(engine.sources.ids[place])  # it goes to the limit
    assert any(one.cut for hypotheses in found.values() for one in hypotheses)


def test_what_is_sampled_twice_counts_twice(engine, tiny_model):
    """The mean over samples is the expectation under the model; of a beam, equal texts are one."""
    tokenizer = tiny_model.decoder_tokenizer
    letters = tokenizer.tokens_to_ids(["\u2581", *"The"]) + tokenizer.text_to_ids("lamp is open.")
    found = {0: [hypothesis(engine, letters, -0.1), hypothesis(engine, letters, -0.1)]}
    for search, kept in (("beam", 1), ("top_k", 2), ("top_p", 2)):
        settings = SearchSettings(search, beam_size=2, num_hypotheses=2)
        assert len(read_back(engine, found, settings)[0]) == kept
