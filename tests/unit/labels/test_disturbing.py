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
import itertools
import math
import random
import unicodedata
from collections import Counter

import pytest

from nemo_distill.data.words import split_words
from nemo_distill.errors import InputError
from nemo_distill.labels import disturbing
from nemo_distill.labels.disturbing import LEFT_OUT, REPLACED, DisturbedTexts, disturb

SENTENCE = "die Pumpe läuft im Keller und das alte Licht brennt an der Wand neben einer Tür aus Holz"


def disturbed(lines, seed=1):
    return list(disturb(lines, random.Random(seed)))


def test_words_of_the_text_stand_for_others_as_often_as_is_said():
    """Each count is of independent draws: within five standard deviations of its mean."""
    lines = [
        " ".join(f"{word}{place}" for place, word in enumerate(SENTENCE.split()))
    ] * 3000  # a word is known by its place
    words = lines[0].split()
    kept, came, left_out = 0, Counter(), 0
    for line in disturbed(lines):
        found = line.split()
        left_out += len(words) - len(found)
        kept += len(set(found) & set(words))
        came.update(found)
    count = len(words) * len(lines)
    assert abs(left_out - LEFT_OUT * count) < 5 * math.sqrt(LEFT_OUT * count)
    assert set(came) == set(words)
    stays = 1 - REPLACED - LEFT_OUT
    mean = len(lines) * (stays + REPLACED)
    assert all(abs(number - mean) < 5 * math.sqrt(mean) for number in came.values())  # all words come alike
    assert kept < count * (1 - LEFT_OUT)


@pytest.mark.parametrize(
    "line", ["Licht", "an aus", "Hallo {name}, 3 von 7", "ドアが開いています", "{host}: aus", "  zwei\tWörter "]
)
def test_every_line_with_words_is_another_and_not_empty(line):
    pool = ["ganz andere Wörter", "水泵修好了"]
    changed = 0
    for seed in range(200):
        first, *others = disturbed([line, *pool], seed)
        assert first.strip() == first != ""
        changed += first != line.strip()
        assert [each for each in split_words(first) if not each[0].isalpha()] == [
            each for each in split_words(line) if not each[0].isalpha()
        ], "numbers, punctuation and placeholders stay"
        assert all(others)
    assert changed > 100, "a word may stand for itself"
    texts = {disturbed([line, *pool], seed)[0] for seed in range(200)}
    assert len(texts) > 3


@pytest.mark.parametrize("line", ["", "  ", "{name} 12 %", "---"])
def test_a_line_without_words_stays(line):
    assert disturbed([line, "andere Wörter"])[0] == line.strip()


def test_no_word_at_all():
    assert disturbed(["12", ""]) == ["12", ""]


@pytest.mark.parametrize(
    "kept",
    ["[% name %]", "{ name }", "{{ user.name }}", "${ first }", "Größe:{size}", "Datei%s", "<b>fett</b>", "a/b_c"],
)
def test_placeholders_and_markup_stay_in_their_line(kept):
    for seed in range(50):
        first, *others = disturbed([f"Hallo {kept} da", "zwei andere Wörter", "水泵"], seed)
        assert kept in first
        assert not any(set(line) & set("{}[]%$<>_/") for line in others)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("{count, plural, one {# Gerät} other {# Geräte}} gefunden", ["{count, plural,", "one {#", "other {#"]),
        ("{art, select, male {Er} other {Sie hat}} Post", ["{art, select,", "other {"]),
        ("Da {n, plural, =0 {ist kein Gerät} other {sind # da}}", ["{n, plural,", "=0 {", "other {"]),
    ],
)
def test_forms_of_icu_messages_keep_their_names(line, kept):
    for seed in range(100):
        first, *others = disturbed([line, "zwei andere Wörter", "noch mehr davon"], seed)
        assert all(each in first for each in kept), first
        assert not {"plural,", "select,", "one", "other", "plural", "select"} & set(" ".join(others).split())
    assert len({disturbed([line, "zwei andere Wörter"], seed)[0] for seed in range(50)}) > 2


@pytest.mark.parametrize(
    "line", ["ดี {name}ดี ไฟ", "กรุณาเปิดไฟที่ห้องน้ำ", "ガラス".replace("ガ", "カ\u3099"), "葛\U000e0100城市"]
)
def test_a_mark_stays_with_its_letter(line):
    """A character goes with its marks, and comes with them."""

    def marked(text):
        """Return each character of a text together with its marks."""
        parts = []
        for letter in text:
            if unicodedata.category(letter).startswith("M") and parts:
                parts[-1] += letter
            else:
                parts.append(letter)
        return {part for part in parts if len(part) > 1 or unicodedata.category(part).startswith("M")}

    assert marked(line)
    found = [marked(disturbed([line], seed)[0]) for seed in range(200)]
    assert all(each <= marked(line) for each in found)
    assert any(each < marked(line) for each in found)


def test_scripts_with_spaces_and_without_are_not_mixed():
    for seed in range(100):
        line, _ = disturbed(["3 水泵Pumpe läuft", "灯 brennt"], seed)
        assert all(piece.isascii() or not piece[0].isascii() or piece == "läuft" for piece in line.split())
        assert line.startswith("3 ")


def test_a_short_last_block_has_words_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(disturbing, "_BLOCK", 4)
    (tmp_path / "a").write_text("eins zwei\ndrei vier\nfünf\nsechs\nAbbrechen\n")
    last = list(DisturbedTexts(tmp_path / "a", 20).lines())[4::5]
    assert len(set(last)) > 3


def test_a_long_run_of_spaces_takes_no_longer_than_text():
    """A million: of an expression that looks for spaces before a word that takes hours."""
    assert disturbed([f"ein{' ' * 1_000_000}"]) == ["ein"]


def test_a_word_of_any_length_takes_no_longer_than_text():
    """A name before a brace that was looked for from each letter took an hour of a million letters."""
    assert disturbed(["a" * 1_000_000])[0].strip("a") == ""


def test_spaces_stay_where_they_are_in_scripts_without_them():
    (line,) = disturbed(["水泵修好了 OK 电灯"], 4)
    assert line.count(" ") <= 2
    assert not set(line) - set("水泵修好了 OK电灯")


def test_copies_of_a_text_differ_and_are_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(disturbing, "_BLOCK", 7)
    (tmp_path / "a").write_text("".join(f"Zeile {number} mit {SENTENCE}\n" for number in range(20)))
    (tmp_path / "b").write_text("eine Zeile\n\nnoch eine\n")
    text = DisturbedTexts([tmp_path / "a", tmp_path / "b"], 3)
    lines = list(text.lines(text.sha256()))
    assert len(lines) == 3 * 23
    assert lines == list(text.lines())
    copies = [lines[place : place + 23] for place in (0, 23, 46)]
    assert all(one[place] != other[place] for one, other in itertools.combinations(copies, 2) for place in range(20))
    for copy in copies:
        assert all(str(number) in line.split() for number, line in enumerate(copy[:20])), "line n is made of line n"
        assert copy[21] == ""
    assert lines != list(DisturbedTexts([tmp_path / "a", tmp_path / "b"], 3, seed=1).lines())
    assert str(text) == f"3 disturbed copies of '{tmp_path}/a', '{tmp_path}/b'"


def test_words_come_from_the_lines_nearby(tmp_path, monkeypatch):
    monkeypatch.setattr(disturbing, "_BLOCK", 2)
    (tmp_path / "a").write_text("a b c d\ne f g h\ni j k l\nm n o p\nq\nr\n")
    lines = list(DisturbedTexts(tmp_path / "a", 50).lines())
    for place, line in enumerate(lines):
        assert set(line.split()) <= set(
            "abcdefgh" if place % 6 < 2 else "abcdefghijklmnop" if place % 6 < 4 else "ijklmnopqr"
        )


@pytest.mark.parametrize("copies", [0, -1])
def test_no_copy_is_refused(tmp_path, copies):
    with pytest.raises(InputError, match=f"disturb: got {copies}; give at least 1"):
        DisturbedTexts(tmp_path / "a", copies)
