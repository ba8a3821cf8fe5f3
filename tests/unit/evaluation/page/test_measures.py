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
import gzip
import random
import time
from collections import Counter

import numpy as np
import pytest

from nemo_distill.errors import InputError
from nemo_distill.evaluation.page.measures import (
    lost,
    made_up,
    names,
    numbers,
    placeholders,
    recall_counts,
    repetitions,
    unknown_pieces,
)
from nemo_distill.evaluation.page.words import (
    BANDS,
    LENGTHS,
    TrainingCounts,
    band_name,
    band_of,
    count_training_words,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ein Hund, der (laut) bellt.", ["ein", "hund", "der", "laut", "bellt"]),
        ("-- ... !", []),
        ("gut-gelaunt isn't", ["gut-gelaunt", "isn't"]),
        ("Işık, IŞIK", ["işik", "işik"]),
        ("水泵。", ["水", "泵"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # the last signs are marks, not punctuation
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_bands_leave_no_gap():
    for bands in (BANDS, LENGTHS):
        assert [least for least, _ in bands[1:]] == [most + 1 for _, most in bands[:-1]]
        assert all(band_of(least, bands) == number for number, (least, _) in enumerate(bands))
    assert [band_of(count, BANDS) for count in (0, 4, 5, 999, 10**6)] == [0, 1, 2, 4, 5]
    assert band_name(BANDS[-2]) == "100–999"


def test_training_words_are_counted_on_their_side(tmp_path):
    source, target = tmp_path / "train.de.gz", tmp_path / "train.en"
    source.write_bytes(gzip.compress(b"Ein Hund\nein Haus\n"))
    target.write_text("a dog\na house, a home\n")
    found = count_training_words([(str(source), str(target))], {"ein", "a", "dog", "unseen"})
    assert found.source == Counter({"ein": 2})
    assert found.target == Counter({"a": 3, "dog": 1})
    assert found.pairs == 2
    twice = count_training_words([(str(source), str(target))] * 2, {"ein"})
    assert (twice.source["ein"], twice.pairs) == (4, 4)
    with pytest.raises(InputError, match=r"gone\.en"):
        count_training_words([(str(source), str(tmp_path / "gone.en"))], {"a"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a dog", 0),
        ("a dog a cat", 0),
        ("the the dog", 1),
        ("The the dog", 1),
        ("in in in in", 3),
        ("a big red dog a big red dog", 1),
        ("one two three four five one two three four five", 0),  # five words are a refrain
        ("", 0),
    ],
)
def test_repetitions(text, found):
    assert repetitions(text) == found


def test_things_that_must_not_be_lost():
    assert numbers("3,5 km am 12.05.2020, 7") == Counter(["35", "12052020", "7"])
    assert names("Der ÖBB-Zug nach Łódź, I") == Counter(["Der", "ÖBB-Zug", "Łódź"])
    assert placeholders(
        "%1$s of %(total)d, {name:.2f} ${HOME} <a href='x'> &quot; %2 https://x.org/?a=b me@x.org"
    ) == (
        Counter(
            [
                "%1$s",
                "%(total)d",
                "{name:.2f}",
                "${HOME}",
                "<a href='x'>",
                "&quot;",
                "%2",
                "https://x.org/?a=b",
                "me@x.org",
            ]
        )
    )
    assert not placeholders("100 % sicher, 5 < 6 > 4, a & b")
    assert unknown_pieces("a ⁇ b ⁇ <unk>") == 3


def test_only_what_source_and_reference_share_can_be_lost():
    assert lost(numbers, "2 und 3 und 3", ["2 and 3 and 3"], "2 and 3") == (1, 3)
    assert lost(numbers, "zwei 5", ["two 6"], "nothing") == (0, 0)
    assert lost(numbers, "5 6", ["five 6", "5 six"], "5") == (1, 2)  # each reference may keep another
    assert lost(names, "Rom liegt in Italien", ["Rome is in Italy"], "x") == (0, 0)


def test_recall_by_frequency():
    counts = Counter(a=5000, dog=30, aardvark=1)
    found = recall_counts(["a dog a unicorn aardvark"], "a dog dog", counts)
    assert found.tolist() == [[0, 1], [0, 1], [0, 0], [1, 1], [0, 0], [1, 2]]
    best = recall_counts(["nothing here", "a dog"], "a dog", counts)
    assert best.sum(0).tolist() == [2, 2]
    assert recall_counts([], "a", counts).sum() == 0


def test_words_that_exist_nowhere():
    training = TrainingCounts(Counter(hund=1), Counter(dog=1), 1)
    assert made_up("Hund Bello", ["dog Bello"], "dog hund Bello blorf Blarf", training) == (2, 5)


def test_a_long_line_takes_no_quadratic_time():
    lines = ["a" * 200_000, "{" * 200_000, "%" * 200_000, "<a" * 100_000, "1" * 200_000, "a a " * 50_000]
    lines += ["&" * 200_000, "a.b" * 60_000, "http://" * 28_000, "A" * 200_000, "a@" * 100_000]
    generator = random.Random(1)
    lines.append("".join(generator.choice("ab .@%{}<>&") for _ in range(200_000)))
    for line in lines:
        start = time.process_time()
        for find in (numbers, names, placeholders, repetitions, unknown_pieces):
            find(line)
        assert time.process_time() - start < 5, line[:20]
    assert np.isfinite(recall_counts([lines[0]], lines[0], Counter())).all()
