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
import unicodedata

import pytest

from nemo_distill.data.words import count_letters, count_words, fold_case, repeated_share, split_words, word_ngrams


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one", 1),
        ("two  words", 2),
        ("안녕 하세요", 2),
        ("灯", 1),
        ("设备不支持", 3),  # 15 letters, five of them a word
        ("このデバイスはサポートされていません。", 7),
        ("日本語 ok", 3),
        ("อุปกรณ์นี้", 2),
        ("ឧបករណ៍នេះ", 2),
    ],
)
def test_count_words(text, words):
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", 0),
        (" a b\u3000c ", 3),
        ("水泵", 6),
        ("ポンプ", 4.5),
        ("ﾎﾟﾝﾌﾟ", 4.5),  # half-width forms are the same characters
        ("펌프", 4),
        ("\u1111\u1165\u11b7\u1111\u1173", 4),  # the same, decomposed
        ("насос", 5),
    ],
)
def test_count_letters(text, letters):
    assert count_letters(text) == letters


@pytest.mark.parametrize("text", ["日本語 ok です", "ไฟดับ ok", "រដ្ឋ ok", "မြန်မာ ok"])
def test_scripts_without_spaces_are_split_by_character(text):
    assert split_words(text) == [piece for part in text.split() for piece in ([part] if part == "ok" else part)]


def test_word_ngrams_have_as_many_words_in_any_script():
    assert list(word_ngrams("a b c d", 3)) == [("a", "b", "c"), ("b", "c", "d")]
    assert list(word_ngrams("a b", 3)) == []
    assert [len(each) for each in word_ngrams("设备不支持此语言设置", 3)] == [5] * 6
    assert [len(each) for each in word_ngrams("ランプがついた", 2)] == [7]
    assert list(word_ngrams("ไฟดับ", 2)) == []  # one word
    assert list(word_ngrams("开 the lamp 灯", 3)) == [("开", "the", "lamp", "灯")]


@pytest.mark.parametrize(
    "phrase", ["the man in the red coat ", "穿红衣服的男人", "빨간 코트를 입은 남자 ", "赤いコートの男が"]
)
def test_repeated_share_is_alike_in_all_scripts(phrase):
    assert repeated_share(phrase) == 0
    assert repeated_share(phrase * 3) == pytest.approx(2 / 3, abs=0.16)
    assert repeated_share("") == repeated_share("na") == 0


ALIKE_BUT_FOR_CASE = [
    ("IŞIK", "ışık"),
    ("İptal", "iptal"),
    ("ISTANBUL'DA", "İstanbul'da"),
    ("ΑΚΥΡΩΣΗ", "Ακύρωση"),
    ("ΠΡΟΪΟΝ", "προϊόν"),
    ("ΤΑΪΖΩ", "ταΐζω"),
    ("ΟΔΟΣ", "οδός"),
    ("ΤΗΙ ΩΡΑΙ", "τῇ ὥρᾳ"),
    ("KÍTA", "ki\u0307\u0301ta"),  # Lithuanian
    ("STRASSE", "Straße"),
    ("ÉCOLE", "école"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE_BUT_FOR_CASE)
def test_case_is_folded_in_every_language(one, other):
    forms = [unicodedata.normalize(form, text) for text in (one, other) for form in ("NFC", "NFD")]
    assert len({fold_case(text) for text in forms}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ece", "éce"),
        ("мои", "мой"),
        ("все", "всё"),
        ("kor", "kör"),
        ("naif", "naïf"),
        ("żona", "zona"),
        ("νοω", "νοο"),
    ],
)
def test_letters_that_differ_stay_apart_without_case(one, other):
    assert fold_case(one) != fold_case(other)
    assert fold_case(one.upper()) == fold_case(one)
