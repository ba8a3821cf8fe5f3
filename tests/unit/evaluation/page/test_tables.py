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
from collections import Counter

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from nemo_distill.evaluation.page.bootstrap import FEWEST, Estimate, draws, estimate, resampled_sums, share
from nemo_distill.evaluation.page.inputs import TestText
from nemo_distill.evaluation.page.sentences import MOST_CHARACTERS, choose_sentences, differences, sentence_scores
from nemo_distill.evaluation.page.tables import Analysis, wanted_words
from nemo_distill.evaluation.page.words import TrainingCounts


def a_text(**hypotheses: list[str]) -> TestText:
    """Twelve sentences of four words and twelve of eight; the last of each names Rome and a number."""
    short, long = "ein roter Hund bellt", "ein roter Hund bellt und eine Katze schläft"
    sources = [short] * 11 + [f"{short} Rom 7"] + [long] * 11 + [f"{long} Rom 7"]
    short, long = "a red dog barks", "a red dog barks and a cat sleeps"
    references = [short] * 11 + [f"{short} Rom 7"] + [long] * 11 + [f"{long} Rom 7"]
    found = {name: references if lines is None else lines for name, lines in hypotheses.items()}
    return TestText("test", sources, [list(references)], found, BLEU())


def test_sums_are_of_drawn_sentences():
    counts = np.eye(5)
    sums = resampled_sums(counts, samples=200)
    assert sums[0].tolist() == [1] * 5
    assert (sums.sum(1) == 5).all()
    assert sums[1:].std() == pytest.approx(np.sqrt(0.8), rel=0.1)  # of Binomial(5, 1/5)
    assert (sums == resampled_sums(counts, samples=200)).all()


def test_models_are_drawn_alike():
    generator = np.random.default_rng(1)
    counts = np.stack([generator.integers(2, size=300), np.ones(300)], axis=1).astype(float)
    found = draws({"a": [counts], "b": [counts], "mean": [counts, 0 * counts + [0, 1]]}, share, samples=500)
    assert (found["a"] == found["b"]).all()
    assert found["mean"] == pytest.approx(found["a"] / 2)
    interval = estimate(found["a"], 300)
    error = 1.96 * 100 * np.sqrt(counts[:, 0].mean() * (1 - counts[:, 0].mean()) / 300)
    assert interval.high - interval.low == pytest.approx(2 * error, rel=0.15)
    assert not estimate(found["a"] - found["b"], 300).is_clear


def test_few_sentences_have_no_interval():
    assert estimate(np.arange(5.0), FEWEST - 1) == Estimate(0.0)
    assert estimate(np.array([1.0, 1.0, np.nan, 3.0]), FEWEST).high == pytest.approx(2.95)
    assert estimate(np.array([np.nan, 1.0]), 100) == Estimate()
    assert not Estimate(3.0).is_clear


def test_tables_say_where_the_student_is_worse():
    text = a_text(
        teacher=None,
        plain=["a red dog barks"] * 24,
        student=["a red dog barks"] * 12
        + ["a dog dog sleeps and and a blorf"] * 11
        + ["a red dog barks and a cat Rom 8"],
    )
    training = TrainingCounts(
        Counter(ein=5000, roter=300, hund=30, bellt=8, und=9000, eine=900, katze=2, schläft=7, rom=1),
        Counter({"a": 5000, "red": 300, "dog": 30, "barks": 8, "and": 9000, "cat": 2, "sleeps": 7, "rom": 1}),
        100,
    )
    rows = {"teacher": ["teacher"], "plain": ["plain"], "student": ["student"], "other": ["not evaluated"]}
    analysis = Analysis(text, rows, training)
    assert analysis.tables("other", "teacher", None) == []
    by_length, by_rarest, recall, errors = analysis.tables("student", "teacher", "plain")
    assert by_length.columns == ["teacher", "plain", "student"]
    assert [(line.name, line.count) for line in by_length.lines] == [("1–5", 11), ("6–10", 13)]
    short, long = by_length.lines
    assert [cell.value for cell in short.cells] == pytest.approx([100, 100, 100])
    assert not short.is_worse
    assert not short.is_better
    inside = [place for place, source in enumerate(text.sources) if len(source.split()) > 5]
    expected = BLEU().corpus_score(
        [text.hypotheses["student"][place] for place in inside], [[text.references[0][place] for place in inside]]
    )
    assert long.cells[2].value == pytest.approx(expected.score)
    assert long.is_worse
    assert long.difference.value == pytest.approx(expected.score - 100)
    assert [(line.name, line.count) for line in by_rarest.lines] == [("0", 2), ("1–4", 11), ("5–19", 11)]  # 7: unseen
    assert by_rarest.lines[0].cells[0].low is None
    counts = {line.name: (line.count, line.cells[2].value) for line in recall.lines}
    # "cat" and "rom" are rare: 12 and 2 in the references, of which the student has one of each
    assert counts["1–4"] == (14, pytest.approx(100 * 2 / 14))
    assert counts["0"] == (2, pytest.approx(0))
    values = {line.name: (line.count, [cell.value for cell in line.cells]) for line in errors.lines}
    assert values["sentences that repeat words, %"] == (24, pytest.approx([0, 0, 100 * 11 / 24]))
    assert values["numbers lost, %"] == (2, pytest.approx([0, 100, 100]))
    assert values["names lost, %"] == (2, pytest.approx([0, 100, 50]))
    assert values["words that exist nowhere, %"][1][2] == pytest.approx(100 * 12 / (12 * 4 + 11 * 8 + 9))
    assert values["sentences with unknown pieces, %"][1] == [0, 0, 0]
    assert "placeholders lost, %" not in values
    assert values["length over the reference's, %"][1][1] == pytest.approx(100 * 24 * 4 / (11 * 4 + 6 + 11 * 8 + 10))


def test_without_training_text_and_twin():
    tables = Analysis(a_text(teacher=None, student=None), {"t": ["teacher"], "s": ["student"]}, None)
    found = tables.tables("s", "t", None)
    assert [table.title for table in found] == ["By length of the source", "What goes wrong"]
    assert found[0].columns == ["t", "s"]
    assert "words that exist nowhere, %" not in {line.name for line in found[1].lines}
    assert not any(line.is_worse or line.is_better for table in found for line in table.lines)


def test_seeds_are_averaged():
    text = a_text(**{"t": None, "s@seed1": None, "s@seed2": ["x"] * 24})
    (by_length, _) = Analysis(text, {"t": ["t"], "s": ["s@seed1", "s@seed2"]}, None).tables("s", "t", None)
    assert [cell.value for cell in by_length.lines[0].cells] == pytest.approx([100, 50], abs=0.5)


def test_wanted_words_are_those_of_the_test_sets():
    assert {"ein", "barks", "blorf", "rom"} < wanted_words([a_text(student=["blorf"] * 24)])


def test_largest_losses_and_gains():
    student = a_text(x=None).references[0].copy()
    student[3], student[5], student[20] = "a blue dog barks", "", "a red dog barks and a bird sleeps"
    teacher = a_text(x=None).references[0].copy()
    teacher[7] = "nothing"
    text = a_text(teacher=teacher, student=student)
    scores = [sentence_scores(text, name) for name in ("teacher", "student")]
    assert scores[1][3] == pytest.approx(text.chrf.corpus_score([student[3]], [[text.references[0][3]]]).score)
    found = choose_sentences(text, ["teacher", "student"], scores)
    assert [(each.number, each.is_loss) for each in found] == [(6, True), (4, True), (21, True), (8, False)]
    assert [each.number for each in choose_sentences(text, ["teacher", "student"], scores, most=1)] == [6, 8]
    second = found[1]
    assert [shown.label for shown in second.given] == ["Source", "Reference"]
    assert second.made[0].pieces == [("a ", False), ("red ", True), ("dog barks", False)]
    assert second.made[1].pieces == [("a ", False), ("blue ", True), ("dog barks", False)]


def test_long_texts_are_cut():
    teacher = a_text(x=None).references[0].copy()
    student = teacher.copy()
    student[2] = "word " * 200_000
    text = a_text(teacher=teacher, student=student)
    text.sources[2] = "Wort " * 200_000
    zeros = np.zeros(24)
    losses = zeros.copy()
    losses[2] = -1
    (sentence,) = choose_sentences(text, ["teacher", "student"], [zeros, losses])
    for shown in (sentence.given[0], sentence.made[1]):
        assert sum(len(piece) for piece, _ in shown.pieces) == MOST_CHARACTERS
        assert shown.cut == 1_000_000 - MOST_CHARACTERS
    assert sentence.given[1].cut == 0


@pytest.mark.parametrize("text", ["  a b  c ", "a", "水泵 ok 好", "a\u2028b c", "x" * 100])
def test_pieces_joined_are_the_text(text):
    assert "".join(piece for piece, _ in differences(text, "b 泵 other")) == text
    assert differences(text, text) == [(text, False)]
