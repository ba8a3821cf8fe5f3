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
"""Text is told by its punctuation: raw, processed, or nobody knows."""

import pytest

from nemo_distill.data.forms import PROCESSED, RAW, form_of, form_of_file, labels_are_processed
from nemo_distill.data.processors import Processing
from nemo_distill.teachers.cache_text import OF_LABELS, read_form

RAW_TEXT = {
    "de": "Am 3. Mai kam er, z. B. mit Dr. Müller, um 10.30 Uhr an.",
    "fr": "Qu'est-ce que c'est ? Rien ! Il dit : « Bonjour », puis il part ; fin.",
    "en": "He paid 1,000.50, didn't he, for www.example.com, etc., and left.",
    "ru": "Привет, мир, это тест.",
    "zh": "我来到北京，清华大学。",
    "hi": "यह है, और वह।",
    "code": "    x = call(a, b, c); y = [1, 2, 3]",
    "ja": "はい、そうです。これはテストです。",
}


@pytest.mark.parametrize("language", RAW_TEXT)
def test_raw_text(language):
    assert form_of([RAW_TEXT[language]] * 20) == RAW


@pytest.mark.parametrize("language", ["de", "fr", "en", "ru", "zh"])
def test_what_nemo_makes_of_it(language, tmp_path):
    processing = Processing(language, "de")
    line = processing.process("source", RAW_TEXT[language])
    assert form_of([line] * 20) == PROCESSED
    path = tmp_path / "text"
    path.write_text(f"{line}\n" * 20, "utf-8")
    assert form_of_file(path, processing) == form_of_file(path) == PROCESSED
    path.write_text(f"{RAW_TEXT[language]}\n" * 20, "utf-8")
    assert form_of_file(path, processing) == RAW


def test_escaped_text_of_other_tokenizers():
    assert form_of(["l &apos; un &quot; a @-@ b"] * 10) == PROCESSED


def test_raw_text_with_entities_is_not_taken_for_tokenized():
    """As strings of user interfaces have them, without punctuation that would tell."""
    lines = ["Klicken Sie auf &quot;Weiter&quot;", "Suchen &amp; Ersetzen", "&lt;b&gt; ist fett"]
    assert form_of(lines * 100) is None


@pytest.mark.parametrize(
    "lines",
    [
        ["a sentence without punctuation"] * 1000,
        ["Ja, gut."] * 9,  # too few marks
        ["Ja, gut.", "Ja , gut ."] * 50,
        ["Ja, gut ."] * 50,
        ["well . . . maybe", "etc... 1,000 3.14 :-) ???"] * 5,
        [],
    ],
)
def test_unknown(lines):
    assert form_of(lines) is None


def test_a_few_marks_tell_a_form_where_that_is_asked_for():
    """Of a short input that is about to be translated, say."""
    marks = {"marks": (".", ","), "fewest": 5}
    assert form_of(["Ja , das ist es .", "So , so , Dr. Ohm ."] * 2, **marks) == PROCESSED
    assert form_of(["Ja, das ist es.", "So, so, Dr. Ohm."] * 2, **marks) == RAW
    assert form_of(["Ja, das ist es .", "So , so, Dr. Ohm ."] * 9, **marks) is None
    assert form_of(["Ja"] * 9, **marks) is None


def test_only_what_a_processor_splits_tells_its_forms_apart(tmp_path):
    """NeMo's processor of Hindi leaves text as it is, and that of Japanese its full stops inside of a line."""
    path = tmp_path / "text"
    path.write_text("はい、そうです。これはテストです\n" * 30, "utf-8")
    assert form_of_file(path) == RAW
    assert form_of_file(path, Processing("ja", "en")) is None
    path.write_text("यह है ।\n" * 30, "utf-8")
    assert form_of_file(path) == PROCESSED
    assert form_of_file(path, Processing("hi", "en")) is None


def test_form_of_pseudo_labels(tmp_path):
    """Processed by its name; else as it looks; else as it is said to be. A cache processes raw ones."""
    texts = {"raw": "Ja, gut.\n", "processed": "Ja , gut .\n", "short": "Ja\n"}
    for form, line in texts.items():
        (tmp_path / form).write_text(line * 20)
        (tmp_path / f"{form}.en").write_text("Yes\n" * 20)
    (tmp_path / "source.tok.txt").write_text(texts["raw"])
    pairs = {form: (str(tmp_path / form), str(tmp_path / f"{form}.en")) for form in texts}
    found = {form: [labels_are_processed(pair, said) for said in (False, True)] for form, pair in pairs.items()}
    assert found == {"raw": [False, False], "processed": [True, True], "short": [False, True]}
    assert labels_are_processed((tmp_path / "source.tok.txt", tmp_path / "raw"))
    cached = read_form(list(pairs.values()), OF_LABELS, Processing("de", "en"))
    assert [pair.is_raw for pair in cached] == [True, False, True]
