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
"""Raw text, processed text and token ids."""

from dataclasses import replace

import pytest

from nemo_distill.data.processors import Processing
from nemo_distill.data.text import TextPipeline

RAW = ["Die Lampe, die neu ist, ist offen.", "offen", "Er sagt: „Nein“,\u2028und geht."]


@pytest.fixture
def text(load_tiny_tokenizer):
    """A pipeline with Moses on both sides."""
    tokenizer, processing = load_tiny_tokenizer(), Processing("de", "en")
    return TextPipeline(tokenizer, tokenizer, *map(processing.processor, ("source", "target")), 64, "de", "en")


def test_three_forms(text):
    sources = text.encode([*RAW, " "])
    assert sources.processed[0] == "Die Lampe , die neu ist , ist offen ."
    assert sources.processed[2] == 'Er sagt : " Nein " , und geht .'
    assert text.raw_source(sources.processed[0]) == RAW[0]
    assert sources.ids[0][1:-1] == text.source_tokenizer.text_to_ids(sources.processed[0])
    assert sources.empty == [3]
    text.reads_processed = True
    again = text.encode(sources.processed)
    assert (again.ids, again.processed) == (sources.ids, sources.processed)
    ids = text.target_tokenizer.text_to_ids("the lamp is open .")
    assert (text.decode_processed(ids), text.decode(ids)) == ("the lamp is open .", "the lamp is open.")
    assert text.target_ids("the lamp is open .") == ids


def test_a_source_whose_processed_form_is_empty_is_empty(text):
    class Deaf:
        def normalize(self, text):
            return text

        def tokenize(self, text):
            return text.replace("x", "")

    text.source_processor = Deaf()
    sources = text.encode(["x x", "xa"])
    assert (sources.empty, list(sources.ids)) == ([0], [1])


@pytest.mark.parametrize("language", [None, "ignore"])
@pytest.mark.parametrize("is_tokenized", [True, False])
def test_a_model_without_a_language_warns_where_its_text_is_of_another_form(
    text, train_tokenizer, tmp_path, monkeypatch, language, is_tokenized
):
    """Once; and not where the text has the form, nor where `ignore` was said on purpose."""
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    from nemo_distill.data.tokenizer import library_of

    words = ("der Hund", "die Katze, klein", "das Haus", "ein Motor", "kein Ton, nie")
    raw = [f"{one} und {other}." for one in words for other in words] * 3
    tokenized = [line.replace(",", " ,").replace(".", " .") for line in raw]
    path = tmp_path / "text"
    path.write_text("\n".join(tokenized if is_tokenized else raw) + "\n")
    model = train_tokenizer([path], 90)
    tokenizer = get_nmt_tokenizer(library=library_of(model), tokenizer_model=str(model))
    heard = []
    monkeypatch.setattr("nemo.utils.logging.warning", heard.append)
    for given in (raw, tokenized):
        pipeline = TextPipeline(tokenizer, tokenizer, None, None, 64, language)
        pipeline.encode(["kurz"])
        pipeline.encode(given)
        pipeline.encode(given)
        assert len(heard) == ((given is raw) == is_tokenized and language is None)
        assert all("--source-lang, --target-lang" in line for line in heard)
        heard.clear()


def test_a_model_with_a_language_warns_of_tokenized_text(text, monkeypatch):
    """Once, of a text that is long enough to tell."""
    heard = []
    monkeypatch.setattr("nemo.utils.logging.warning", heard.append)
    raw = ["Ja, die Lampe.", "Gut, das Radio!"] * 10
    text.encode(raw)
    assert not heard
    for reads_processed, count in ((True, 0), (False, 1)):
        given = replace(text, reads_processed=reads_processed)
        for _ in range(2):
            given.encode([line.replace(",", " ,").replace(".", " .") for line in raw])
        assert len(heard) == count
    assert "is tokenized again for the language de" in heard[0]
